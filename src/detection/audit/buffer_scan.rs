//! One search over each buffer before its lines are read.
//!
//! Takes a buffer; returns what would be missed if lines are skipped or read in part: events that start inside a line, events that the
//! apiserver truncated, invalid text. One pass for all patterns, so that the cost does not grow with their number.

use super::literals::Literals;

/// The start of an event in a log file, as the apiserver writes it.
const START: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/"#;

const PATTERNS: [&str; 4] = [START, r#""audit.k8s.io/truncated""#, r"\ud", r"\uD"];

/// A compiled search, shared by all buffers.
#[derive(Debug, Clone)]
pub struct BufferScanner {
    patterns: Literals,
}

/// The result of searching one buffer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BufferScan {
    /// Positions at which events start, other than the start of a line: in a list, after another event, or inside a line whose
    /// writer was interrupted.
    pub inner_starts: Vec<usize>,
    /// Number of events that the apiserver truncated.
    pub truncated: u64,
    /// Number of lines with a lone surrogate, which is read as U+FFFD.
    pub lone_surrogates: u64,
    /// Number of lines with invalid UTF-8, which is read as U+FFFD.
    pub invalid_utf8: u64,
}

impl BufferScanner {
    /// Compiles the search.
    #[allow(clippy::expect_used, clippy::missing_panics_doc, clippy::new_without_default)]
    pub fn new() -> Self {
        // Compilation fails only if there are too many patterns or they are too long, and these are constants.
        BufferScanner { patterns: Literals::new(&PATTERNS).expect("constant patterns") }
    }

    /// Searches a buffer. It must start at the beginning of a line.
    pub fn search(&self, bytes: &[u8]) -> BufferScan {
        let mut result = BufferScan::default();
        let mut surrogate_line = None;
        let mut pair_end = 0;
        let mut from = 0;
        while let Some((at, pattern)) = self.patterns.find(bytes, from) {
            // No pattern overlaps itself or another.
            from = at + PATTERNS[pattern].len();
            match pattern {
                0 if at > 0 && bytes[at - 1] != b'\n' => result.inner_starts.push(at),
                0 => {}
                1 => result.truncated += 1,
                _ if at < pair_end => {}
                _ if is_pair(&bytes[at..]) => pair_end = at + 12,
                _ => {
                    let line = memchr::memrchr(b'\n', &bytes[..at]);
                    if surrogate_line != Some(line) {
                        surrogate_line = Some(line);
                        result.lone_surrogates += 1;
                    }
                }
            }
        }
        if std::str::from_utf8(bytes).is_err() {
            let lines = bytes.split(|&byte| byte == b'\n');
            result.invalid_utf8 = lines.filter(|line| std::str::from_utf8(line).is_err()).map(|_| 1).sum();
        }
        result
    }
}

/// Whether two consecutive escapes are a high and a low surrogate.
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
    fn counts_lines_not_occurrences() {
        let scanner = BufferScanner::new();
        let text = format!("{START}1\n{{\"torn{START}2\n\"\\ud83d\\ude00\"\n\"\\ud83d \\udc00\"\n");
        let result = scanner.search(text.as_bytes());
        assert_eq!(result.inner_starts, [START.len() + 8]);
        assert_eq!((result.lone_surrogates, result.invalid_utf8), (1, 0));
        assert_eq!(scanner.search(b"a\n\xff\xff\n\xfe\n").invalid_utf8, 2);
    }
}
