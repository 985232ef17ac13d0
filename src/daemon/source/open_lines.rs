//! Holds back lines of a container log until split lines are complete.
//!
//! Takes blocks of whole lines with the number of their file; returns the same lines, cut only where no split line is open. Lines that are
//! held back do not count as read, so that no stored position is between two pieces of a line.

use std::time::{Duration, Instant};

use crate::detection::audit::envelope::{LineRole, LineTracker};

/// Maximum time to wait for the rest of a line. A runtime writes it within milliseconds.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Lines that are held back.
#[derive(Debug, Default)]
pub(crate) struct PendingLines {
    tracker: LineTracker,
    bytes: Vec<u8>,
    /// Numbers of the files that the bytes were read from, with the number of bytes from each.
    files: Vec<(u64, usize)>,
    since: Option<Instant>,
    /// Number of bytes of continuations of lines that were given up, since the last call of [`PendingLines::take_dropped`].
    dropped: u64,
}

impl PendingLines {
    /// Continues after a restart, after these bytes of the log. If a line is open at their end, it was given up, since lines that are worth
    /// waiting for are read again.
    pub(crate) fn resume(&mut self, before: &[u8]) {
        // The first line may be incomplete because only a limited number of bytes is read.
        let lines = before.split(|byte| *byte == b'\n').skip(1);
        for line in lines.filter(|line| !line.is_empty()) {
            self.tracker.push(line);
        }
        self.tracker.abandon();
    }

    /// Adds a block of complete lines. Moves the lines that can be evaluated now into `block`, and returns whether there are any.
    pub(crate) fn push(&mut self, file: u64, block: &mut Vec<u8>) -> bool {
        let (mut at, mut closed_at) = (0, 0);
        // The block without continuations of lines that were given up, and the length of its complete part.
        let mut kept: Option<Vec<u8>> = None;
        let mut closed = 0;
        while at < block.len() {
            let end = memchr::memchr(b'\n', &block[at..]).map_or(block.len(), |newline| at + newline + 1);
            let line = &block[at..end];
            if self.tracker.push(line.strip_suffix(b"\n").unwrap_or(line)) == LineRole::Abandoned {
                self.dropped += line.len() as u64;
                kept.get_or_insert_with(|| block[..at].to_vec());
            } else if let Some(kept) = &mut kept {
                kept.extend_from_slice(line);
            }
            if !self.tracker.is_open() {
                (closed, closed_at) = (kept.as_ref().map_or(end, Vec::len), end);
            }
            at = end;
        }
        let length = block.len();
        if let Some(kept) = kept {
            *block = kept;
        }
        if closed_at == 0 {
            self.hold(file, length, block);
            block.clear();
            return false;
        }
        let rest = block.split_off(closed);
        if !self.bytes.is_empty() {
            self.bytes.append(block);
            std::mem::swap(&mut self.bytes, block);
        }
        (self.files, self.since) = (Vec::new(), None);
        self.hold(file, length - closed_at, &rest);
        !block.is_empty()
    }

    /// `length` is the number of bytes in the file.
    fn hold(&mut self, file: u64, length: usize, bytes: &[u8]) {
        if length == 0 {
            return;
        }
        self.since.get_or_insert_with(Instant::now);
        self.bytes.extend_from_slice(bytes);
        match self.files.last_mut().filter(|(last, _)| *last == file) {
            Some((_, held)) => *held += length,
            None => self.files.push((file, length)),
        }
    }

    /// Stops waiting: moves everything into `block`. Returns whether there is anything.
    pub(crate) fn give_up(&mut self, block: &mut Vec<u8>) -> bool {
        self.tracker.abandon();
        (self.files, self.since) = (Vec::new(), None);
        block.append(&mut self.bytes);
        !block.is_empty()
    }

    /// Adds a line that was never finished. Returns whether to evaluate it, which is false if it continues a line that was given up.
    pub(crate) fn push_unfinished(&mut self, line: &mut Vec<u8>) -> bool {
        let role = self.tracker.push(line);
        self.tracker.abandon();
        if role == LineRole::Abandoned {
            self.dropped += line.len() as u64;
            line.clear();
        }
        role != LineRole::Abandoned
    }

    /// Whether to stop waiting: the line is too long, or its rest does not arrive.
    pub(crate) fn is_overdue(&self, max_bytes: usize) -> bool {
        self.bytes.len() > max_bytes || self.since.is_some_and(|since| since.elapsed() > MAX_WAIT)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Number of bytes that were read from a file and are held back.
    pub(crate) fn held_of(&self, file: u64) -> u64 {
        self.files.iter().filter(|(number, _)| *number == file).map(|(_, held)| *held as u64).sum()
    }

    /// Returns the number of bytes of continuation lines that were dropped since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(tag: &str, text: &str) -> String {
        format!("2026-11-23T04:00:00Z stdout {tag} {text}\n")
    }

    fn push(lines: &mut PendingLines, file: u64, text: &str) -> String {
        let mut block = text.as_bytes().to_vec();
        let has_any = lines.push(file, &mut block);
        assert_eq!(has_any, !block.is_empty());
        String::from_utf8(block).unwrap_or_default()
    }

    #[test]
    fn lines_are_held_back_until_they_are_complete() {
        let mut lines = PendingLines::default();
        let (whole, first, middle, last) =
            (line("F", "{}"), line("P", "{\"a\":[\""), line("P", "{"), line("F", "\"]}"));
        assert_eq!(push(&mut lines, 1, &[&whole[..], &first].concat()), whole);
        assert_eq!(lines.held_of(1), first.len() as u64);
        assert_eq!(push(&mut lines, 1, &middle), "");
        // The runtime rotated its log in between.
        assert_eq!(
            push(&mut lines, 2, &[&last[..], &whole, &first].concat()),
            [&first[..], &middle, &last, &whole].concat()
        );
        assert_eq!((lines.held_of(1), lines.held_of(2)), (0, first.len() as u64));
    }

    #[test]
    fn the_rest_of_a_line_that_was_given_up_is_dropped() {
        let mut lines = PendingLines::default();
        let (whole, first, last) =
            (line("F", "{}"), line("P", "{\"a\":["), line("F", "{\"kind\":\"Event\"}]}"));
        assert_eq!(push(&mut lines, 1, &first), "");
        assert!(lines.is_overdue(10) && !lines.is_overdue(1000));
        let mut block = Vec::new();
        assert!(lines.give_up(&mut block));
        assert_eq!((block, lines.is_empty()), (first.clone().into_bytes(), true));
        assert_eq!(push(&mut lines, 1, &[&last[..], &whole].concat()), whole);
        assert_eq!(lines.take_dropped(), last.len() as u64);
        assert_eq!(push(&mut lines, 1, &last), last);
        // A restart in between changes nothing.
        let mut resumed = PendingLines::default();
        resumed.resume([&whole[7..], &whole, &first].concat().as_bytes());
        assert_eq!(push(&mut resumed, 1, &[&last[..], &whole].concat()), whole);
        let mut resumed = PendingLines::default();
        resumed.resume([&whole[7..], &first, &last].concat().as_bytes());
        assert_eq!(push(&mut resumed, 1, &whole), whole);
    }
}
