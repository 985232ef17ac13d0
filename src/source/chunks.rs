//! Buffers cut at record boundaries.
//!
//! A record starts on a line that starts with `{`: an event a line, or one that is indented over many. So a
//! buffer is cut before the last such line, and each can be judged on its own, on any thread. What is cut off
//! starts the next buffer; nothing else is copied.

use std::io::{self, Read};

/// How much is read at once. It stays in a core's second-level cache while it is searched and judged.
const STEP: usize = 256 * 1024;

/// Text in which no line starts with `{` is no audit log; it is cut at any line's end from this size on.
const PATIENCE: usize = 4 * 1024 * 1024;

/// What a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Whole records.
    Records,
    /// The first bytes of a line that is longer than the limit.
    Head,
}

/// Cuts what a reader yields.
#[derive(Debug)]
pub struct Chunks<R> {
    reader: R,
    /// The longest record, in bytes.
    limit: usize,
    /// Hands on what is there, rather than wait for more.
    eager: bool,
    carry: Vec<u8>,
    /// In the rest of a line whose head was handed on.
    skipping: bool,
    ended: bool,
    /// Said when what was read before it is handed on.
    error: Option<io::Error>,
    bytes: u64,
}

impl<R: Read> Chunks<R> {
    /// Over a reader. Lines longer than `limit` bytes are cut to their head. An `eager` one hands on whole
    /// lines as soon as they are there, for sources that somebody waits at.
    pub fn new(reader: R, limit: usize, eager: bool) -> Self {
        Chunks { reader, limit: limit.max(1024), eager, carry: Vec::new(), skipping: false, ended: false, error: None, bytes: 0 }
    }

    /// How many bytes were read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills the buffer with the next chunk; nothing at the end.
    ///
    /// # Errors
    /// When reading fails. What was read before is handed on first; the error comes with the next call.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<Chunk>> {
        buffer.clear();
        if let Some(error) = self.error.take() {
            self.ended = true;
            return Err(error);
        }
        std::mem::swap(buffer, &mut self.carry);
        loop {
            if self.ended {
                return Ok((!buffer.is_empty()).then_some(Chunk::Records));
            }
            let before = buffer.len();
            match self.read(buffer) {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(error) if buffer.is_empty() => {
                    self.ended = true;
                    return Err(error);
                }
                Err(error) => {
                    self.error = Some(error);
                    return Ok(Some(Chunk::Records));
                }
            }
            if self.skipping {
                match memchr::memchr(b'\n', &buffer[before..]) {
                    Some(newline) => {
                        buffer.drain(..=before + newline);
                        self.skipping = false;
                    }
                    None => buffer.clear(),
                }
                continue;
            }
            if buffer.len() < STEP && !self.eager && !self.ended {
                continue;
            }
            if self.ended {
                continue;
            }
            if let Some(cut) = self.cut(buffer, before) {
                self.carry.clear();
                self.carry.extend_from_slice(&buffer[cut..]);
                buffer.truncate(cut);
                return Ok(Some(Chunk::Records));
            }
            if buffer.len() >= self.limit {
                self.skipping = true;
                // What was read beyond the limit may hold the line's end.
                let beyond = buffer.split_off(self.limit);
                if let Some(newline) = memchr::memchr(b'\n', &beyond) {
                    self.skipping = false;
                    self.carry = beyond[newline + 1..].to_vec();
                }
                return Ok(Some(Chunk::Head));
            }
        }
    }

    fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let start = buffer.len();
        // A long record is read in larger steps, but memory stays near the limit.
        let step = STEP.max(start / 2).min(self.limit.saturating_sub(start).max(STEP));
        buffer.reserve_exact(step);
        buffer.resize(start + step, 0);
        let result = loop {
            match self.reader.read(&mut buffer[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        let read = *result.as_ref().unwrap_or(&0);
        buffer.truncate(start + read);
        self.bytes += read as u64;
        result
    }

    /// Where to cut a buffer whose bytes from `fresh` on were not searched before.
    fn cut(&self, buffer: &[u8], fresh: usize) -> Option<usize> {
        let from = fresh.saturating_sub(1);
        if self.eager && buffer.ends_with(b"}\n") {
            return Some(buffer.len());
        }
        if let Some(found) = memchr::memmem::rfind(&buffer[from..], b"\n{") {
            return Some(from + found + 1);
        }
        let text = buffer.strip_prefix(b"\xef\xbb\xbf").unwrap_or(buffer);
        let is_json = matches!(text.trim_ascii_start().first(), Some(b'{' | b'['));
        if buffer.len() >= self.limit || (!is_json && (self.eager || buffer.len() >= PATIENCE)) {
            return memchr::memrchr(b'\n', buffer).map(|newline| newline + 1);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Yields its bytes in pieces of these sizes, over and over.
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
        let mut buffer = Vec::new();
        let mut all = Vec::new();
        while let Some(chunk) = chunks.next(&mut buffer).unwrap() {
            all.push((chunk, buffer.clone()));
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
    fn a_long_line_is_cut_to_its_head() {
        let long = "x".repeat(1_000_000);
        let text = format!("{{\"a\":1}}\n{{\"b\":\"{long}\"}}\n{{\"c\":3}}\n");
        let all = chunks(text.as_bytes(), 100_000, false);
        let heads: Vec<_> = all.iter().filter(|(kind, _)| *kind == Chunk::Head).collect();
        assert_eq!(heads.len(), 1);
        assert!(heads[0].1.len() == 100_000 && heads[0].1.starts_with(b"{\"b\":"));
        let rest: Vec<u8> =
            all.iter().filter(|(kind, _)| *kind == Chunk::Records).flat_map(|(_, bytes)| bytes.clone()).collect();
        assert_eq!(rest, b"{\"a\":1}\n{\"c\":3}\n");
    }

    #[test]
    fn an_indented_record_stays_whole() {
        let record = format!("{{\n{}}}\n", "  \"a\": 1,\n".repeat(100_000));
        let text = record.repeat(3);
        for (_, bytes) in chunks(text.as_bytes(), 64 << 20, false) {
            assert_eq!(bytes.len() % record.len(), 0);
        }
    }
}
