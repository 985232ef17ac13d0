//! What a whole buffer is searched for before its lines are looked at: the few things that would go unseen
//! where a line is read only in part. One pass for all of them.

use super::literals::Literals;

/// How an audit event starts as the apiserver writes it to a file.
const START: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/"#;

const PATTERNS: [&str; 4] = [START, r#""audit.k8s.io/truncated""#, r"\ud", r"\uD"];

/// Searches buffers.
#[derive(Debug, Clone)]
pub struct BufferScanner {
    patterns: Literals,
}

/// What a buffer holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BufferScan {
    /// Where events start that do not start their line: in a list, behind another event, or in the middle of a
    /// line that was torn.
    pub inner_starts: Vec<usize>,
    /// Events that the apiserver truncated.
    pub truncated: u64,
    /// Lines with half of a surrogate pair, which is read as U+FFFD.
    pub lone_surrogates: u64,
    /// Lines that are not UTF-8; what is none is read as U+FFFD.
    pub invalid_utf8: u64,
}

impl BufferScanner {
    /// Prepares the search.
    #[allow(clippy::expect_used, clippy::missing_panics_doc, clippy::new_without_default)]
    pub fn new() -> Self {
        // Only too many or too long patterns can fail, and these are constants.
        BufferScanner { patterns: Literals::new(&PATTERNS).expect("constant patterns") }
    }

    /// Searches a buffer that starts at the start of a line.
    pub fn search(&self, bytes: &[u8]) -> BufferScan {
        let mut notes = BufferScan::default();
        let mut surrogate_line = None;
        let mut pair_end = 0;
        let mut from = 0;
        while let Some((at, pattern)) = self.patterns.find(bytes, from) {
            // No pattern overlaps itself or another.
            from = at + PATTERNS[pattern].len();
            match pattern {
                0 if at > 0 && bytes[at - 1] != b'\n' => notes.inner_starts.push(at),
                0 => {}
                1 => notes.truncated += 1,
                _ if at < pair_end => {}
                _ if is_pair(&bytes[at..]) => pair_end = at + 12,
                _ => {
                    let line = memchr::memrchr(b'\n', &bytes[..at]);
                    if surrogate_line != Some(line) {
                        surrogate_line = Some(line);
                        notes.lone_surrogates += 1;
                    }
                }
            }
        }
        if std::str::from_utf8(bytes).is_err() {
            let lines = bytes.split(|&byte| byte == b'\n');
            notes.invalid_utf8 = lines.filter(|line| std::str::from_utf8(line).is_err()).map(|_| 1).sum();
        }
        notes
    }
}

/// Whether two escapes are a high and a low surrogate.
fn is_pair(bytes: &[u8]) -> bool {
    let unit = |at: usize, firsts: &[u8]| {
        bytes.get(at + 2).is_some_and(u8::is_ascii_alphabetic)
            && bytes.get(at + 3).is_some_and(|digit| firsts.contains(&digit.to_ascii_lowercase()))
    };
    unit(0, b"89ab")
        && bytes.get(6..8) == Some(b"\\u")
        && matches!(bytes.get(8), Some(b'd' | b'D'))
        && unit(6, b"cdef")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_taken_by_line() {
        let searcher = BufferScanner::new();
        let text = format!("{START}1\n{{\"torn{START}2\n\"\\ud83d\\ude00\"\n\"\\ud83d \\udc00\"\n");
        let notes = searcher.search(text.as_bytes());
        assert_eq!(notes.inner_starts, [START.len() + 8]);
        assert_eq!((notes.lone_surrogates, notes.invalid_utf8), (1, 0));
        assert_eq!(searcher.search(b"a\n\xff\xff\n\xfe\n").invalid_utf8, 2);
    }
}
