//! Lines that name the log stream of the record below them, as `aws logs tail --format json` writes them.
//!
//! Takes a line; returns the time and the stream that it names, and where the record below it ends. The record is an indented object or
//! list. If a heading is separated from its record, the record's stream is unknown, and text that a pod printed is read as an event: see
//! [`LineTracker`](super::line_tracker::LineTracker).

use std::ops::Range;

use super::super::json::Raw;
use super::super::steps;
use super::prefix::{is_clock, is_word};
use super::skipped;
use super::stream::is_apiserver_stream;
use super::times;

/// Maximum length of a heading, in bytes. CloudWatch limits the names of log groups and log streams to 512 characters each.
const MAX_LEN: usize = 2048;

/// A line that names a log stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heading<'a> {
    /// In nanoseconds since 1970.
    pub(super) time: Option<i64>,
    stream: &'a [u8],
    /// The line has the exact format of the AWS command line, so a single-line record below it belongs to it too. Otherwise the line may
    /// come from another program that writes to the same log.
    is_exact: bool,
}

/// What the line below a heading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadingContent {
    Blank,
    /// An object or list that continues on the next lines.
    Indented,
    /// A single-line record.
    Line,
    /// Nothing that belongs to the heading.
    Other,
}

impl<'a> Heading<'a> {
    pub(super) fn of(line: &'a [u8]) -> Option<Self> {
        if line.len() > MAX_LEN || !line.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == ESCAPE)
        {
            return None;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = line.trim_ascii_end();
        let mut words = text.split(|byte| *byte == b' ').map(without_color);
        let clock = words.next().filter(|clock| is_clock(clock))?;
        let stream = match (words.next()?, words.next(), words.next()) {
            (stream, None, _) if is_word(stream) => Some(stream),
            // If there are several words, the first is the log group.
            (group, Some(stream), None) if is_word(stream) && group.contains(&b'/') => Some(stream),
            _ => None,
        };
        let has_blank = text.len() < line.len();
        // The name of a stream may contain blanks and almost any other character.
        let any =
            || text.splitn(2, |byte| *byte == b' ').nth(1).filter(|_| has_blank && !text.contains(&b'{'));
        Some(Heading {
            time: times::text(clock),
            is_exact: has_blank && stream.is_some(),
            stream: stream.or_else(any)?,
        })
    }

    /// The reason to skip the record below, if it comes from a stream other than the apiserver's.
    pub(super) fn skip_reason(&self) -> Option<&'static str> {
        (!is_apiserver_stream(self.stream)).then_some(skipped::OTHER_STREAM)
    }

    /// Classifies the line below the heading.
    pub(super) fn below(is_exact: bool, line: &[u8]) -> HeadingContent {
        match line.trim_ascii_end() {
            b"" => HeadingContent::Blank,
            b"{" | b"[" => HeadingContent::Indented,
            [b'{' | b'[', ..] if is_exact => HeadingContent::Line,
            _ => HeadingContent::Other,
        }
    }

    pub(super) fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Whether a line continues the record that an [`HeadingContent::Indented`] line starts, and whether the record continues after it.
    pub(super) fn continues(line: &[u8]) -> (bool, bool) {
        match line.first() {
            None => (true, true),
            Some(b'}' | b']') => (true, false),
            Some(byte) => (byte.is_ascii_whitespace(), byte.is_ascii_whitespace()),
        }
    }

    /// The record below the heading and before `from`, if there is one.
    pub(super) fn record_below(&self, bytes: &[u8], from: usize) -> Option<Range<usize>> {
        let mut at = from;
        let start = loop {
            let line = line_at(bytes, at)?;
            match Self::below(self.is_exact, line) {
                HeadingContent::Blank => at += line.len() + 1,
                HeadingContent::Indented => break at,
                HeadingContent::Line if Raw::first(line).is_ok() => return Some(at..at + line.len()),
                HeadingContent::Line | HeadingContent::Other => return None,
            }
        };
        at += line_at(bytes, at)?.len();
        while let Some(line) = line_at(bytes, at + 1) {
            let (is_part, is_open) = Self::continues(line);
            if !is_part {
                break;
            }
            at += 1 + line.len();
            if !is_open {
                break;
            }
        }
        Some(start..at)
    }
}

/// Start of an escape sequence that sets a color.
const ESCAPE: u8 = 0x1b;

/// The line at an offset, without its line break.
fn line_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
    let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
    steps::add(line.len());
    Some(line)
}

/// A word without surrounding color escape sequences.
fn without_color(mut word: &[u8]) -> &[u8] {
    let sequence = |text: &[u8]| {
        let inner = text.strip_prefix(&[ESCAPE, b'['])?;
        let length = inner.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
        (inner.get(length) == Some(&b'm')).then_some(length + 3)
    };
    while let Some(length) = sequence(word) {
        word = &word[length..];
    }
    while let Some(at) =
        memchr::memrchr(ESCAPE, word).filter(|at| sequence(&word[*at..]) == Some(word.len() - at))
    {
        word = &word[..at];
    }
    word
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_heading_names_the_stream_of_the_record_below_it() {
        for (line, is_exact, is_other) in [
            ("2026-11-23T03:46:20.873000+00:00 kube-apiserver-audit-1 ", true, false),
            ("2026-11-23T03:46:20.873000+00:00 kube-apiserver-audit-1 \r", true, false),
            ("2026-11-23T03:46:20.873000+00:00 kube-apiserver-audit-1", false, false),
            ("2026-11-23T03:46:20+00:00 authenticator-1\r", false, true),
            ("2026-11-23T03:46:20+00:00 /aws/eks/prod/cluster kube-apiserver-audit-1 ", true, false),
            ("2026-11-23T03:46:20+00:00 /aws/eks/prod/cluster authenticator-1", false, true),
            ("2026-11-23T03:46:20+00:00 2026/11/23/[$LATEST]a ", false, true),
            ("2026-11-23T03:46:20+00:00 a stream with blanks ", false, true),
            (
                "\x1b[32m2026-11-23T03:46:20+00:00\x1b[0m \x1b[36;1mkube-apiserver-audit-1\x1b[0m ",
                true,
                false,
            ),
            ("\x1b[32m2026-11-23T03:46:20+00:00\x1b[0m \x1b[36mauthenticator-1\x1b[0m ", true, true),
        ] {
            let heading = Heading::of(line.as_bytes()).unwrap();
            assert_eq!((heading.is_exact, heading.skip_reason().is_some()), (is_exact, is_other), "{line:?}");
            assert!(heading.time.is_some(), "{line:?}");
        }
        for line in [
            "2026-11-23T03:46:20Z",
            "2026-11-23T03:46:20Z ",
            "2026-11-23T03:46:20Z starting the server",
            "2026-11-23T03:46:20Z stdout F {\"a\":1} ",
            "kube-apiserver-audit-1 ",
            "1 a ",
            "",
        ] {
            assert_eq!(Heading::of(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_record_ends_where_the_indentation_does() {
        let text = "h\n\r\n{\r\n  \"a\": {\r\n  }\r\n}\r\n{\n";
        let record = |exact: &str, text: &str| {
            let heading = format!("2026-11-23T03:46:20Z a{exact}");
            Heading::of(heading.as_bytes())
                .unwrap()
                .record_below(text.as_bytes(), 2)
                .map(|range| text[range].to_owned())
        };
        assert_eq!(record("", text).unwrap(), "{\r\n  \"a\": {\r\n  }\r\n}\r");
        // Text after a truncated record is not part of it.
        assert_eq!(record("", "h\n{\n  \"a\": 1\n2026").unwrap(), "{\n  \"a\": 1");
        assert_eq!(record("", "h\n[\n  1\n]\n").unwrap(), "[\n  1\n]");
        assert_eq!(record("", "h\n{\"a\":1}\n"), None);
        assert_eq!(record(" ", "h\n{\"a\":1}\n").unwrap(), "{\"a\":1}");
        assert_eq!(record(" ", "h\na\n{\n"), None);
        assert_eq!(record(" ", "h\n"), None);
    }
}
