//! Cuts a byte stream into buffers at record boundaries, so that each buffer can be evaluated on its own, on any thread.
//!
//! A record starts on a line that starts with `{`: one event per line, or an indented event over many lines; or on the line above it, if
//! that names its stream. A buffer is cut before the last such line; the bytes after the cut start the next buffer, and nothing else is
//! copied. JSON must not be parsed here.

use std::io::{self, Read};

use memmap2::{MmapMut, MmapOptions};

use super::memory_budget::{MemoryBudget, Reservation};
use crate::detection::audit::envelope::{LineRole, LineTracker};

/// Bytes read at once. They fit into a core's second-level cache while they are searched and evaluated.
const STEP: usize = 256 * 1024;

/// Text in which no line starts with `{` is not an audit log. From this size on, it is cut at any line break.
const MAX_TEXT: usize = 4 * 1024 * 1024;

/// Bytes read at once of a long record, and maximum number of bytes carried over to the next buffer.
const LONG_STEP: usize = 4 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    Records,
    /// The first bytes of a line that exceeds the limit.
    Head,
}

/// The memory budget for buffers that grow for long records. It has room for one record of `max_record` bytes, so that a reader that waits
/// for memory continues when the others are done. Without it, each of many buffers could hold a record of maximum length.
pub fn long_record_budget(max_record: usize) -> MemoryBudget {
    MemoryBudget::new(max_record.saturating_add(LONG_STEP))
}

/// The bytes of a chunk. Its memory is reused.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Longer than `filled`, because reading into initialized memory needs no clearing.
    usual: Vec<u8>,
    /// Memory for a long record, which replaces `usual`. A separate mapping is returned to the system when it is dropped; an allocator
    /// keeps memory freed by a thread, so every thread that ever read a long record would hold on to that much.
    long: Option<MmapMut>,
    /// Length of the longest record, including bytes read after it.
    max_len: usize,
    filled: usize,
    /// Memory reserved for a long record.
    reserved: Reservation,
}

impl Buffer {
    /// Empties the buffer. Its growth for a long record is reserved from this budget.
    pub fn share(&mut self, budget: &MemoryBudget) {
        self.clear();
        self.reserved = budget.reservation();
    }

    pub fn bytes(&self) -> &[u8] {
        &self.long.as_deref().unwrap_or(&self.usual)[..self.filled]
    }

    /// All memory, of which the first bytes are filled.
    fn memory(&mut self) -> &mut [u8] {
        self.long.as_deref_mut().unwrap_or(&mut self.usual)
    }

    /// Whether it grew for a long record.
    pub fn is_long(&self) -> bool {
        self.long.is_some() || self.usual.len() > MAX_REUSED
    }

    /// Empties the buffer, and frees the memory added for a long record.
    pub fn clear(&mut self) {
        self.filled = 0;
        self.long = None;
        if self.is_long() {
            self.usual = Vec::new();
        }
        self.reserved.release();
    }

    /// Space for this many more bytes after the filled ones.
    fn room(&mut self, size: usize) -> &mut [u8] {
        let (start, end) = (self.filled, self.filled + size);
        let long = end.saturating_sub(MAX_REUSED);
        if long > self.reserved.bytes() {
            self.reserved.grow(long - self.reserved.bytes());
        }
        if self.memory().len() < end && (long == 0 || !self.map_long(end)) {
            self.usual.reserve_exact(end - self.usual.len());
            self.usual.resize(end, 0);
        }
        &mut self.memory()[start..end]
    }

    /// Moves the bytes to a mapping for the longest record. Only the written part of a mapping uses memory. Returns false if the system
    /// provides none.
    fn map_long(&mut self, size: usize) -> bool {
        let size = size.max(self.max_len);
        let Ok(mut long) = MmapOptions::new().len(size).no_reserve_swap().map_anon() else {
            if let Some(long) = self.long.take() {
                self.usual = long.to_vec();
            }
            return false;
        };
        long[..self.filled].copy_from_slice(self.bytes());
        self.long = Some(long);
        true
    }

    /// Replaces NUL bytes at the end by a line break. A file that is truncated while being written has a hole up to the old position, which
    /// may be as long as everything written before; no line contains one. A short hole that ends before the buffer does is kept.
    fn close_hole(&mut self) {
        if self.bytes().last() != Some(&0) {
            return;
        }
        self.filled = self.bytes().iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        if self.bytes().last().is_some_and(|last| *last != b'\n') {
            let end = self.filled;
            self.memory()[end] = b'\n';
            self.filled += 1;
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.filled += bytes.len();
    }
}

/// A larger buffer is freed after use.
const MAX_REUSED: usize = 4 * STEP;

/// Reads from a reader and cuts the data into chunks.
#[derive(Debug)]
pub struct Chunks<R> {
    reader: R,
    /// Maximum length of a record, in bytes.
    limit: usize,
    /// Whether to return complete lines immediately instead of filling the buffer.
    eager: bool,
    carry: Vec<u8>,
    /// The head of the current line was returned; its rest is skipped.
    skipping: bool,
    tracker: LineTracker,
    cuts: LinePositions,
    dropped: u64,
    ended: bool,
    /// A read error, which the next call returns after the bytes read before it.
    error: Option<io::Error>,
    bytes: u64,
}

impl<R: Read> Chunks<R> {
    /// Lines longer than `limit` bytes are truncated. With `eager`, complete lines are returned as soon as they are read, for interactive
    /// sources.
    pub fn new(reader: R, limit: usize, eager: bool) -> Self {
        let limit = limit.max(1024);
        Chunks {
            reader,
            limit,
            eager,
            carry: Vec::new(),
            skipping: false,
            tracker: LineTracker::default(),
            cuts: LinePositions::default(),
            dropped: 0,
            ended: false,
            error: None,
            bytes: 0,
        }
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of bytes, so far, of continuations of split lines after the part that was returned as truncated.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Fills the buffer with the next chunk; `None` at the end.
    ///
    /// # Errors
    ///
    /// If reading fails. Bytes read before the error are returned first.
    pub fn next(&mut self, buffer: &mut Buffer) -> io::Result<Option<Chunk>> {
        buffer.clear();
        buffer.max_len = self.limit.saturating_add(STEP);
        if let Some(error) = self.error.take() {
            self.ended = true;
            return Err(error);
        }
        buffer.push(&self.carry);
        self.carry.clear();
        loop {
            if self.ended {
                self.track_lines(buffer);
                self.track_last_line(buffer);
                self.cuts = LinePositions::default();
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
                    self.track_lines(buffer);
                    self.cuts = LinePositions::default();
                    return Ok(Some(Chunk::Records));
                }
            }
            if self.skipping {
                // The buffer was empty before this read, because the head was returned.
                match memchr::memchr(b'\n', buffer.bytes()) {
                    Some(newline) => {
                        let filled = buffer.filled;
                        buffer.memory().copy_within(newline + 1..filled, 0);
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
            if let Some(cut) = self.cut(buffer) {
                self.carry.extend_from_slice(&buffer.bytes()[cut..]);
                buffer.filled = cut;
                self.cuts.remove_before(cut);
                return Ok(Some(Chunk::Records));
            }
            if buffer.filled >= self.limit {
                // The end of the line may be among the bytes after the limit.
                match memchr::memchr(b'\n', &buffer.bytes()[self.limit..]) {
                    Some(newline) => {
                        self.carry.extend_from_slice(&buffer.bytes()[self.limit + newline + 1..]);
                    }
                    None => self.skipping = true,
                }
                buffer.filled = self.limit;
                self.cuts = LinePositions::default();
                if !self.track_last_line(buffer) {
                    // Any bytes carried over are read by the next call.
                    return Ok(Some(Chunk::Records));
                }
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
        buffer.close_hole();
        Ok(read)
    }

    /// Where to cut: before the last line that starts a record while no split line is open.
    fn cut(&mut self, buffer: &mut Buffer) -> Option<usize> {
        self.track_lines(buffer);
        let bytes = buffer.bytes();
        let cuts = &self.cuts;
        if self.eager && cuts.closed_end == bytes.len() && ends_whole(bytes) {
            return Some(bytes.len());
        }
        let is_closed = cuts.tracked == cuts.closed_end;
        if is_closed && cuts.tracked > 0 && bytes.get(cuts.tracked) == Some(&b'{') {
            return Some(cuts.tracked);
        }
        if cuts.record_start > 0 {
            return Some(cuts.record_start);
        }
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let is_json = matches!(text.trim_ascii_start().first(), Some(b'{' | b'['));
        let is_full = bytes.len() >= self.limit;
        if is_full || (!is_json && (self.eager || bytes.len() >= MAX_TEXT)) {
            if cuts.closed_end > 0 {
                return Some(cuts.closed_end);
            }
            if is_full && cuts.tracked > 0 {
                self.tracker.abandon();
                return Some(cuts.tracked);
            }
        }
        None
    }

    /// Tracks a line that was not read to its end. Returns false if it continues a line that was given up, in which case it is removed.
    fn track_last_line(&mut self, buffer: &mut Buffer) -> bool {
        let start = self.cuts.tracked;
        if start == buffer.filled {
            return true;
        }
        let role = self.tracker.push(&buffer.bytes()[start..]);
        self.tracker.abandon();
        if role == LineRole::Abandoned {
            self.dropped += (buffer.filled - start) as u64;
            buffer.filled = start;
        }
        role != LineRole::Abandoned
    }

    /// Tracks the lines read since the last call, and removes continuations of lines that were given up.
    fn track_lines(&mut self, buffer: &mut Buffer) {
        let cuts = &mut self.cuts;
        while let Some(length) = memchr::memchr(b'\n', &buffer.bytes()[cuts.searched..]) {
            let (start, end) = (cuts.tracked, cuts.searched + length + 1);
            let line = &buffer.bytes()[start..end - 1];
            let (is_after_record, is_record) =
                (cuts.closed_end == start && start > 0, line.first() == Some(&b'{'));
            let role = self.tracker.push(line);
            if is_after_record && (is_record || self.tracker.is_at_heading()) {
                cuts.record_start = start;
            }
            if role == LineRole::Abandoned {
                let filled = buffer.filled;
                buffer.memory().copy_within(end..filled, start);
                buffer.filled -= end - start;
                self.dropped += (end - start) as u64;
                cuts.searched = start;
                continue;
            }
            (cuts.tracked, cuts.searched) = (end, end);
            if !self.tracker.is_open() {
                cuts.closed_end = end;
            }
        }
        cuts.searched = buffer.filled;
    }
}

/// What is known about the lines in a buffer, as offsets.
#[derive(Clone, Copy, Debug, Default)]
struct LinePositions {
    /// The end of the last complete line.
    tracked: usize,
    /// Line breaks were searched up to this offset.
    searched: usize,
    /// The end of the last line after which no split line is open.
    closed_end: usize,
    /// The last line before `tracked` that starts a record while no split line is open; 0 if there is none.
    record_start: usize,
}

impl LinePositions {
    /// Makes the offsets relative to the remaining part of the buffer.
    fn remove_before(&mut self, cut: usize) {
        for offset in [&mut self.tracked, &mut self.searched, &mut self.closed_end, &mut self.record_start] {
            *offset = offset.saturating_sub(cut);
        }
    }
}

/// Whether the last line visibly completes a record: it is a complete JSON value, or consists only of closing brackets at the end of an
/// indented value. A line that merely ends with a bracket may be inside a value.
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

    /// Returns its bytes in pieces of the given sizes, repeatedly.
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
    fn a_hole_takes_no_record_with_it() {
        let hole = "\0".repeat(700_000);
        let text = format!("{hole}{{\"a\":1}}\n{{\"b\":{hole}{{\"c\":3}}\n");
        for (limit, eager) in [(100_000, false), (1 << 20, false), (1 << 20, true)] {
            let all = chunks(text.as_bytes(), limit, eager);
            assert!(all.iter().all(|(kind, _)| *kind == Chunk::Records));
            let joined: Vec<u8> =
                all.into_iter().flat_map(|(_, bytes)| bytes).filter(|byte| *byte != 0).collect();
            assert_eq!(String::from_utf8(joined).unwrap(), "{\"a\":1}\n{\"b\":\n{\"c\":3}\n");
        }
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
    fn no_cut_is_inside_a_line_that_was_split() {
        let cri = |tag: &str, text: &str| format!("2026-11-23T04:00:00Z stdout {tag} {text}\n");
        let record = |text: &str| format!("{{\"log\":\"{text}\",\"stream\":\"stdout\"}}\n");
        let long = "x".repeat(16 << 10);
        let split_cri = [cri("P", &format!("{{\"a\":[\"{long}")), cri("P", "{"), cri("F", "\"]}")].concat();
        let split_docker = [record(&format!("{{\\\"a\\\":[\\\"{long}")), record("\\\"]}\\n")].concat();
        for unit in [split_cri, split_docker] {
            let text = unit.repeat(40);
            for (eager, limit) in [(true, 1 << 20), (false, 1 << 20), (false, 100_000)] {
                let all = chunks(Pieces(text.as_bytes(), vec![1000, 77, 20_000], 0), limit, eager);
                let joined: Vec<u8> = all.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
                assert_eq!(joined, text.as_bytes());
                for (_, bytes) in &all {
                    assert_eq!(bytes.len() % unit.len(), 0, "eager {eager}, limit {limit}");
                }
            }
        }
    }

    #[test]
    fn no_cut_is_between_a_heading_and_its_record() {
        for (blank, end, brackets) in
            [(" ", "\n", ["{", "}"]), ("", "\r\n", ["{", "}"]), (" ", "\n\n", ["[", "]"])]
        {
            let [open, close] = brackets;
            let heading = format!("2026-11-23T03:46:20.873000+00:00 authenticator-1{blank}");
            let unit = [&heading, open, &"    \"a\": 1,".repeat(100), "    \"b\": 2", close].join(end)
                + end.trim_end_matches("\n\n");
            let unit = if unit.ends_with('\n') { unit } else { unit + "\n" };
            let text = unit.repeat(3000);
            for (eager, limit, size) in
                [(true, 1 << 20, 77), (false, 1 << 20, 20_000), (false, 300_000, 1000)]
            {
                let all = chunks(Pieces(text.as_bytes(), vec![1000, 77, size], 0), limit, eager);
                assert!(all.len() > 3);
                let joined: Vec<u8> = all.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
                assert_eq!(joined, text.as_bytes());
                for (_, bytes) in &all {
                    assert_eq!(bytes.len() % unit.len(), 0, "eager {eager}, limit {limit}");
                }
            }
        }
        // A record that exceeds the limit keeps its heading; if that is impossible, it is not read at all.
        let heading = "2026-11-23T03:46:20.873000+00:00 authenticator-1 \n";
        let long = format!("{heading}{{\"a\":\"{}\"}}\n{{\"b\":1}}\n", "x".repeat(600_000));
        for eager in [true, false] {
            let all = chunks(long.as_bytes(), 100_000, eager);
            let joined: Vec<u8> = all.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            assert_eq!(String::from_utf8(joined).unwrap(), format!("{heading}{{\"b\":1}}\n"));
        }
    }

    #[test]
    fn the_rest_of_a_split_line_beyond_the_limit_is_dropped() {
        let cri = |tag: &str, text: &str| format!("2026-11-23T04:00:00Z stdout {tag} {text}\n");
        let piece = cri("P", &format!("{{\"v\":\"{}\"}},", "x".repeat(16 << 10)));
        let start = cri("P", "{\"a\":[");
        let (forged, whole) = (cri("F", "{\"kind\":\"Event\"}]}"), cri("F", "{}"));
        let text = [&start[..], &piece.repeat(40), &forged, &whole.repeat(30_000)].concat();
        let all = chunks(text.as_bytes(), 300_000, false);
        let joined: Vec<u8> = all.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let joined = String::from_utf8(joined).unwrap();
        assert!(joined.starts_with(&start) && joined.ends_with(&whole));
        assert_eq!(joined.matches(" F {}").count(), 30_000);
        assert!(!joined.contains("Event"));
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
        }
    }
}
