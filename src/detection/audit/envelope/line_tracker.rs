//! Follows a log line by line, and determines where the log can be cut: not inside a line that a container runtime split, and not between a
//! heading and the record whose stream it names.
//!
//! Takes the lines of a log in their order; returns the role of each. Keeps no text: the state of each open line is small, and their number
//! is bounded. If the log were cut elsewhere, the rest of a split line, whose text a client can choose, would be read as a record, or a
//! record of another stream would be attributed to the apiserver.

use super::context::Context;
use super::heading::{Heading, HeadingContent};
use super::partial::{CriLine, JoinResult, OpenLines, Piece, piece_of};
use super::shape::PLAIN_START;
use crate::detection::audit::json::Raw;

/// Records of log shippers that contain pieces are longer than this: runtimes split lines at 8 KiB or more.
const MIN_PIECE_RECORD: usize = 4 * 1024;

/// The role of a line in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineRole {
    /// A record, or a piece of one.
    Record,
    /// Not a record: a continuation of a line that was given up, or a record of another stream below a heading that was given up.
    Abandoned,
}

/// State of the lines below a heading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HeadingState {
    #[default]
    Nothing,
    /// The last line that is not blank is a heading.
    Heading { is_exact: bool, is_other: bool },
    /// Inside a record whose lines are indented.
    Record,
}

/// The open lines of a log.
#[derive(Clone, Debug, Default)]
pub struct LineTracker {
    open: OpenLines,
    /// Streams whose open line was given up, so that its continuations are not records.
    abandoned: Vec<Vec<u8>>,
    /// The last line was not wrapped, and its JSON is incomplete.
    is_raw_open: bool,
    below: HeadingState,
    /// The heading of another stream was given up: its record must not be read without the heading.
    is_heading_abandoned: bool,
}

impl LineTracker {
    /// Whether there is an open line whose rest is worth waiting for.
    pub fn is_open(&self) -> bool {
        let is_below_heading = self.below != HeadingState::Nothing && !self.is_heading_abandoned;
        self.is_raw_open || is_below_heading || self.has_open_piece()
    }

    /// Whether the last line is a heading for the record below it.
    pub fn is_at_heading(&self) -> bool {
        matches!(self.below, HeadingState::Heading { .. })
    }

    /// Like [`is_open`](Self::is_open), for messages of a queue, which are independent of each other: an event without a wrapper is
    /// complete.
    pub fn has_open_piece(&self) -> bool {
        self.open.streams().any(|stream| !self.is_abandoned(stream))
    }

    /// Gives up the lines that are open: their continuations are [`LineRole::Abandoned`].
    pub fn abandon(&mut self) {
        self.is_raw_open = false;
        self.is_heading_abandoned = matches!(self.below, HeadingState::Heading { is_other: true, .. });
        if !self.is_heading_abandoned {
            self.below = HeadingState::Nothing;
        }
        self.abandoned = self.open.streams().map(<[u8]>::to_vec).collect();
    }

    /// Adds a line, without its line break.
    pub fn push(&mut self, line: &[u8]) -> LineRole {
        self.is_raw_open = false;
        if self.below != HeadingState::Nothing
            && let Some(role) = self.push_below_heading(line)
        {
            return role;
        }
        if line.starts_with(PLAIN_START) {
            self.is_raw_open = is_raw_open(line);
            return LineRole::Record;
        }
        if let Some(cri) = CriLine::parse(line) {
            return self.push_piece(cri.stream, cri.piece);
        }
        if self.open.is_empty() && line.len() < MIN_PIECE_RECORD && line.starts_with(b"{") {
            self.is_raw_open = is_raw_open(line);
            return LineRole::Record;
        }
        if let Some(heading) = Heading::of(line) {
            let is_other = heading.skip_reason().is_some();
            self.below = HeadingState::Heading { is_exact: heading.is_exact(), is_other };
            return LineRole::Record;
        }
        let mut role = None;
        piece_of(line, |stream, piece| role = Some(self.push_piece(&stream, piece)));
        role.unwrap_or_else(|| {
            self.is_raw_open = is_raw_open(line);
            LineRole::Record
        })
    }

    /// Adds a line below a heading. `None` if it does not belong to the heading.
    #[cold]
    fn push_below_heading(&mut self, line: &[u8]) -> Option<LineRole> {
        let before = self.below;
        let is_part = match before {
            HeadingState::Nothing => false,
            HeadingState::Heading { is_exact, .. } => match Heading::below(is_exact, line) {
                HeadingContent::Blank => return Some(LineRole::Record),
                HeadingContent::Indented => {
                    self.below = HeadingState::Record;
                    true
                }
                HeadingContent::Line => {
                    self.below = HeadingState::Nothing;
                    true
                }
                HeadingContent::Other => false,
            },
            HeadingState::Record => {
                let (is_part, is_open) = Heading::continues(line);
                if !is_open {
                    self.below = HeadingState::Nothing;
                }
                is_part
            }
        };
        let is_abandoned = self.is_heading_abandoned;
        if !is_part || self.below == HeadingState::Nothing {
            (self.below, self.is_heading_abandoned) = (HeadingState::Nothing, false);
        }
        is_part.then_some(if is_abandoned { LineRole::Abandoned } else { LineRole::Record })
    }

    fn push_piece(&mut self, stream: &[u8], piece: Piece<'_>) -> LineRole {
        let was_open = self.open.contains(stream);
        // Without room for text: only the state of the line is kept.
        let joined = self.open.push(|| stream.to_vec(), piece, &Context::default(), 0);
        let is_continuation = was_open && joined == JoinResult::Incomplete;
        if !self.is_abandoned(stream) {
            return LineRole::Record;
        }
        if !is_continuation || !self.open.contains(stream) {
            self.abandoned.retain(|abandoned| abandoned != stream);
        }
        if is_continuation { LineRole::Abandoned } else { LineRole::Record }
    }

    fn is_abandoned(&self, stream: &[u8]) -> bool {
        self.abandoned.iter().any(|abandoned| abandoned == stream)
    }
}

/// Whether an unwrapped event was cut where a value is expected, so that it may continue on the next line.
fn is_raw_open(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    match line.last() {
        Some(b':' | b'[') => line.first() == Some(&b'{'),
        Some(b',') => line.first() == Some(&b'{') && Raw::first(line).is_err(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cri(stream: &str, tag: &str, text: &str) -> Vec<u8> {
        format!("2026-11-23T04:00:00.000000000Z {stream} {tag} {text}").into_bytes()
    }

    #[test]
    fn a_line_is_open_from_its_first_piece_to_its_last() {
        let mut tracker = LineTracker::default();
        for (stream, tag, text, is_open) in [
            ("stdout", "F", r#"{"a":1}"#, false),
            ("stdout", "P", r#"{"a":["#, true),
            // Lines of another stream in between, and a continuation that looks like an event.
            ("stderr", "F", "I1123 a log line", true),
            ("stderr", "P", "W1123 a long", true),
            ("stdout", "P", r#"{"kind":"Event"},"#, true),
            ("stdout", "F", r#"{"kind":"Event"}]}"#, true),
            ("stderr", "F", " line", false),
        ] {
            assert_eq!(tracker.push(&cri(stream, tag, text)), LineRole::Record);
            assert_eq!(tracker.is_open(), is_open, "{stream} {tag} {text}");
        }
    }

    #[test]
    fn continuations_of_a_line_that_was_given_up_are_no_records() {
        let mut tracker = LineTracker::default();
        tracker.push(&cri("stdout", "P", r#"{"a":["#));
        tracker.abandon();
        assert!(!tracker.is_open());
        assert_eq!(tracker.push(&cri("stderr", "F", "x")), LineRole::Record);
        assert_eq!(tracker.push(&cri("stdout", "P", r#"{"kind":"Event"},"#)), LineRole::Abandoned);
        assert_eq!(tracker.push(&cri("stdout", "F", r#"{"kind":"Event"}]}"#)), LineRole::Abandoned);
        assert_eq!(tracker.push(&cri("stdout", "F", r#"{"a":1}"#)), LineRole::Record);
        assert!(!tracker.is_open());
    }

    #[test]
    fn a_heading_is_open_until_its_record_ends() {
        const OWN: &str = "2026-11-23T03:46:20+00:00 kube-apiserver-audit-1 ";
        const OTHER: &str = "2026-11-23T03:46:20+00:00 authenticator-1\r";
        let push = |tracker: &mut LineTracker, line: &str| (tracker.push(line.as_bytes()), tracker.is_open());
        for heading in [OWN, OTHER] {
            let mut tracker = LineTracker::default();
            for (line, is_open) in [
                (heading, true),
                ("\r", true),
                ("{", true),
                ("    \"a\": [", true),
                ("    ]", true),
                ("}", false),
                (heading, true),
                ("[", true),
                ("]\r", false),
                (heading, true),
                // Another heading, and a truncated record.
                (heading, true),
                ("{", true),
                ("  \"a\":", true),
                (heading, true),
                ("a line of text", false),
            ] {
                assert_eq!(push(&mut tracker, line), (LineRole::Record, is_open), "{line}");
            }
            // Without its heading, the record of another stream is not read; other records are not lost.
            push(&mut tracker, heading);
            tracker.abandon();
            let role = if heading == OWN { LineRole::Record } else { LineRole::Abandoned };
            for line in ["{", "  \"a\": 1", "}"] {
                assert_eq!(push(&mut tracker, line), (role, false), "{line}");
            }
            push(&mut tracker, heading);
            tracker.abandon();
            assert_eq!(push(&mut tracker, r#"{"kind":"Event","a":1}"#), (LineRole::Record, false));
            assert_eq!(push(&mut tracker, "{"), (LineRole::Record, false));
        }
        let mut tracker = LineTracker::default();
        push(&mut tracker, &OTHER.replace('\r', " "));
        tracker.abandon();
        assert_eq!(push(&mut tracker, r#"{"kind":"Event","a":1}"#), (LineRole::Abandoned, false));
    }

    #[test]
    fn records_of_docker_without_a_line_break_are_open() {
        let record = |text: &str| serde_json::json!({"log": text, "stream": "stdout"}).to_string();
        let mut tracker = LineTracker::default();
        let start = format!("{{\"a\":[\"{}", "x".repeat(16 * 1024));
        tracker.push(record(&start).as_bytes());
        assert!(tracker.is_open());
        tracker.push(record("\"]}\n").as_bytes());
        assert!(!tracker.is_open());
        tracker.push(br#"{"kind":"Event","requestObject":["#);
        assert!(tracker.is_open());
        tracker.push(br#"{"kind":"Event"}"#);
        assert!(!tracker.is_open());
    }
}
