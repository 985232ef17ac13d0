//! Cuts a byte stream into buffers at record boundaries, so that each buffer can be evaluated on its own, on any thread.
//!
//! A record starts on a line that starts with `{`: one event per line, or an indented event over many lines. A buffer is cut
//! before the last such line; what is behind the cut starts the next buffer, and nothing else is copied. Must never enter:
//! parsing of JSON.

use std::io::{self, Read};

use super::memory_budget::{MemoryBudget, Reservation};
use crate::detection::audit::envelope::complete_prefix;

/// Bytes read at once. Fits into the second-level cache of a core while it is searched and evaluated.
const STEP: usize = 256 * 1024;

/// Text in which no line starts with `{` is not an audit log. From this size on it is cut at any line break.
const MAX_TEXT: usize = 4 * 1024 * 1024;

/// Bytes read at once of a long record, and the most that is carried over to the next buffer.
const LONG_STEP: usize = 4 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    Records,
    /// The first bytes of a line that is longer than the limit.
    Head,
}

/// The budget for what buffers grow by for long records. It holds one record of `max_record` bytes, so that a reader that waits for
/// memory continues when the others are done; without it, each of many buffers could hold a record of maximum length.
pub fn long_record_budget(max_record: usize) -> MemoryBudget {
    MemoryBudget::new(max_record.saturating_add(LONG_STEP))
}

/// The bytes of a chunk. Memory is reused.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Longer than `filled`: reading into initialized memory needs no clearing.
    bytes: Vec<u8>,
    filled: usize,
    /// What it grew by for a long record.
    reserved: Reservation,
}

impl Buffer {
    pub fn sharing(budget: &MemoryBudget) -> Self {
        Buffer { reserved: budget.reservation(), ..Buffer::default() }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Empties the buffer, and frees what it grew by for a long record.
    pub fn clear(&mut self) {
        self.filled = 0;
        if self.bytes.len() > MAX_REUSED {
            self.bytes = Vec::new();
        }
        self.reserved.release();
    }

    /// Space for this many more bytes, behind those that are filled.
    fn room(&mut self, size: usize) -> &mut [u8] {
        let end = self.filled + size;
        if self.bytes.len() < end {
            let long = end.saturating_sub(MAX_REUSED);
            self.reserved.grow(long.saturating_sub(self.reserved.bytes()));
            self.bytes.reserve_exact(end - self.bytes.len());
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.filled..end]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.filled += bytes.len();
    }
}

/// A larger buffer is freed after use.
const MAX_REUSED: usize = 4 * STEP;

/// Reads from a reader and cuts into chunks.
#[derive(Debug)]
pub struct Chunks<R> {
    reader: R,
    /// Maximum length of a record, in bytes.
    limit: usize,
    /// Return complete lines at once instead of filling the buffer.
    eager: bool,
    carry: Vec<u8>,
    /// The head of the current line was returned; skip the rest of it.
    skipping: bool,
    ended: bool,
    /// A read error that is returned by the next call, after the bytes before it.
    error: Option<io::Error>,
    bytes: u64,
}

impl<R: Read> Chunks<R> {
    /// Lines longer than `limit` bytes are truncated. With `eager`, complete lines are returned as soon as they are read, for
    /// interactive sources.
    pub fn new(reader: R, limit: usize, eager: bool) -> Self {
        let limit = limit.max(1024);
        Chunks {
            reader,
            limit,
            eager,
            carry: Vec::new(),
            skipping: false,
            ended: false,
            error: None,
            bytes: 0,
        }
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills the buffer with the next chunk; `None` at the end.
    ///
    /// # Errors
    /// If reading fails. Bytes that were read before are returned first.
    pub fn next(&mut self, buffer: &mut Buffer) -> io::Result<Option<Chunk>> {
        buffer.clear();
        if let Some(error) = self.error.take() {
            self.ended = true;
            return Err(error);
        }
        buffer.push(&self.carry);
        self.carry.clear();
        loop {
            if self.ended {
                return Ok((buffer.filled > 0).then_some(Chunk::Records));
            }
            let before = buffer.filled;
            match self.read(buffer) {
                Ok(0) => {
                    self.ended = true;
                    continue;
                }
                Ok(_) => {}
                Err(error) if before == 0 => {
                    self.ended = true;
                    return Err(error);
                }
                Err(error) => {
                    self.error = Some(error);
                    return Ok(Some(Chunk::Records));
                }
            }
            if self.skipping {
                // The buffer was empty before this read, since the head was returned.
                match memchr::memchr(b'\n', buffer.bytes()) {
                    Some(newline) => {
                        buffer.bytes.copy_within(newline + 1..buffer.filled, 0);
                        buffer.filled -= newline + 1;
                        self.skipping = false;
                    }
                    None => buffer.filled = 0,
                }
                continue;
            }
            if buffer.filled < STEP && !self.eager {
                continue;
            }
            if let Some(cut) = self.cut(buffer.bytes(), before) {
                self.carry.extend_from_slice(&buffer.bytes()[cut..]);
                buffer.filled = cut;
                return Ok(Some(Chunk::Records));
            }
            if buffer.filled >= self.limit {
                // The end of the line may be among the bytes behind the limit.
                match memchr::memchr(b'\n', &buffer.bytes()[self.limit..]) {
                    Some(newline) => {
                        self.carry.extend_from_slice(&buffer.bytes()[self.limit + newline + 1..]);
                    }
                    None => self.skipping = true,
                }
                buffer.filled = self.limit;
                return Ok(Some(Chunk::Head));
            }
        }
    }

    fn read(&mut self, buffer: &mut Buffer) -> io::Result<usize> {
        let filled = buffer.filled;
        // Larger steps for a long record, bounded by the limit.
        let step = STEP.max(filled / 2).min(LONG_STEP).min(self.limit.saturating_sub(filled).max(STEP));
        let room = buffer.room(step);
        let read = loop {
            match self.reader.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        buffer.filled += read;
        self.bytes += read as u64;
        Ok(read)
    }

    /// Where to cut. Bytes before `fresh` were searched by an earlier call.
    fn cut(&self, buffer: &[u8], fresh: usize) -> Option<usize> {
        let end = self.record_boundary(buffer, fresh)?;
        // Lines that a container runtime split stay together as long as there is room.
        match complete_prefix(&buffer[..end], buffer.len() >= self.limit) {
            0 if buffer.len() < self.limit => None,
            0 => Some(end),
            complete => Some(complete),
        }
    }

    /// Returns the last position that starts a record.
    fn record_boundary(&self, buffer: &[u8], fresh: usize) -> Option<usize> {
        let from = fresh.saturating_sub(1);
        if self.eager && ends_whole(buffer) {
            return Some(buffer.len());
        }
        let mut newlines = memchr::memrchr_iter(b'\n', &buffer[from..]).map(|found| from + found + 1);
        if let Some(cut) = newlines.find(|&start| buffer.get(start) == Some(&b'{')) {
            return Some(cut);
        }
        let text = buffer.strip_prefix(b"\xef\xbb\xbf").unwrap_or(buffer);
        let is_json = matches!(text.trim_ascii_start().first(), Some(b'{' | b'['));
        if buffer.len() >= self.limit || (!is_json && (self.eager || buffer.len() >= MAX_TEXT)) {
            return memchr::memrchr(b'\n', buffer).map(|newline| newline + 1);
        }
        None
    }
}

/// Whether the last line visibly completes a record: it is a JSON value by itself, or only closing brackets at the end of an
/// indented value. A line that merely ends with a bracket may be inside of a value.
fn ends_whole(buffer: &[u8]) -> bool {
    let Some(text) = buffer.strip_suffix(b"\n") else { return false };
    let line = memchr::memrchr(b'\n', text).map_or(text, |newline| &text[newline + 1..]);
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii_end();
    let line = line.strip_suffix(b",").unwrap_or(line);
    match line {
        [b'{', .., b'}'] | [b'[', .., b']'] => true,
        _ => !line.is_empty() && line.iter().all(|byte| matches!(byte, b'}' | b']')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Yields its bytes in pieces of the given sizes, repeatedly.
    struct Pieces<'b>(&'b [u8], Vec<usize>, usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.1[self.2 % self.1.len()].min(buffer.len()).min(self.0.len());
            self.2 += 1;
            buffer[..size].copy_from_slice(&self.0[..size]);
            self.0 = &self.0[size..];
            Ok(size)
        }
    }

    fn chunks(reader: impl Read, limit: usize, eager: bool) -> Vec<(Chunk, Vec<u8>)> {
        let mut chunks = Chunks::new(reader, limit, eager);
        let mut buffer = Buffer::default();
        let mut all = Vec::new();
        while let Some(chunk) = chunks.next(&mut buffer).unwrap() {
            all.push((chunk, buffer.bytes().to_vec()));
        }
        all
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_cuts_are_at_record_starts(
            lines in proptest::collection::vec("[{]?[a-z}{ ]{0,40}", 0..40),
            sizes in proptest::collection::vec(1_usize..60, 1..5),
            eager in any::<bool>(),
        ) {
            let text = lines.join("\n");
            let all = chunks(Pieces(text.as_bytes(), sizes, 0), 1 << 20, eager);
            let joined: Vec<u8> = all.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            prop_assert_eq!(joined, text.as_bytes());
            for (_, bytes) in all.iter().rev().skip(1) {
                prop_assert_eq!(bytes.last(), Some(&b'\n'));
            }
        }
    }

    #[test]
    fn a_long_line_is_truncated() {
        let long = "x".repeat(1_000_000);
        let text = format!("{{\"a\":1}}\n{{\"b\":\"{long}\"}}\n{{\"c\":3}}\n");
        let all = chunks(text.as_bytes(), 100_000, false);
        let heads: Vec<_> = all.iter().filter(|(kind, _)| *kind == Chunk::Head).collect();
        assert_eq!(heads.len(), 1);
        assert!(heads[0].1.len() == 100_000 && heads[0].1.starts_with(b"{\"b\":"));
        let rest: Vec<u8> = all
            .iter()
            .filter(|(kind, _)| *kind == Chunk::Records)
            .flat_map(|(_, bytes)| bytes.clone())
            .collect();
        assert_eq!(rest, b"{\"a\":1}\n{\"c\":3}\n");
    }

    #[test]
    fn an_indented_record_stays_whole_when_read_slowly() {
        let record = "{\n  \"a\": {\n    \"b\": {}\n  },\n  \"c\": {\n    \"d\": 1\n  }\n}\n";
        let text = record.repeat(3);
        for size in 1..record.len() {
            let all = chunks(Pieces(text.as_bytes(), vec![size], 0), 1 << 20, true);
            for (_, bytes) in &all {
                assert_eq!(bytes.len() % record.len(), 0, "{size}");
            }
        }
    }

    #[test]
    fn eager_reading_returns_each_line_at_once() {
        for end in ["\n", "\r\n", ",\n"] {
            let line = format!("{{\"a\":1}}{end}");
            let text = line.repeat(3);
            let all = chunks(Pieces(text.as_bytes(), vec![line.len()], 0), 1 << 20, true);
            assert_eq!(all.len(), 3);
        }
    }

    #[test]
    fn an_indented_record_stays_whole() {
        let record = format!("{{\n{}}}\n", "  \"a\": 1,\n".repeat(100_000));
        let text = record.repeat(3);
        for (_, bytes) in chunks(text.as_bytes(), 64 << 20, false) {
            assert_eq!(bytes.len() % record.len(), 0);
        }
    }

    #[test]
    fn lines_that_a_runtime_split_stay_in_one_chunk() {
        let piece =
            |tag: &str| format!("2026-11-23T03:46:20.8Z stdout {tag} {{\"a\":\"{}\n", "x".repeat(1000));
        let docker =
            |end: &str| format!("{{\"log\":\"{}{end}\",\"stream\":\"stdout\"}}\n", "x".repeat(20_000));
        for (first, last) in [(piece("P"), piece("F")), (docker(""), docker("\\n"))] {
            // Longer than what is read at once.
            let line = first.repeat(600_000 / first.len()) + &last;
            let text = line.repeat(4);
            for (size, eager) in [(1 << 20, false), (first.len(), true), (50_000, true)] {
                for (_, bytes) in chunks(Pieces(text.as_bytes(), vec![size], 0), 64 << 20, eager) {
                    assert_eq!(bytes.len() % line.len(), 0, "{size}");
                }
            }
            // There is no room for all of it; nothing is lost.
            let parts = chunks(text.as_bytes(), 100_000, false);
            assert_eq!(parts.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), text.len());
        }
    }
}
