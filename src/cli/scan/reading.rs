//! Reads inputs, one after the other or several at once: opens each, cuts it into chunks, and reports how reading ended.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::UNIX_EPOCH;

use crate::daemon::source::chunker::{Buffer, Chunk, Chunks};
use crate::daemon::source::decompress;
use crate::daemon::source::input::Input;
use crate::daemon::time::unix_nanos;
use crate::detection::audit::envelope::{Columns, HeaderSearch};

/// The result of reading inputs.
#[derive(Debug, Default)]
pub struct ReadSummary {
    /// Uncompressed bytes.
    pub bytes: u64,
    /// Inputs that could not be read completely, each with the reason.
    pub failures: Vec<String>,
    /// Names of empty inputs.
    pub empty: Vec<String>,
}

/// The origin of a chunk.
#[derive(Clone, Debug)]
pub struct ChunkOrigin {
    /// Index of the input.
    pub input: usize,
    /// Modification time of the input in nanoseconds since 1970; the current time for standard input.
    pub received: Option<i64>,
    pub kind: Chunk,
    /// The column names of a comma-separated input with a header.
    pub columns: Option<Arc<Columns>>,
}

/// Modification time of an input in nanoseconds since 1970; the current time for standard input.
fn received(input: &Input) -> Option<i64> {
    let modified = match input {
        Input::File(path) => std::fs::metadata(path).ok()?.modified().ok()?,
        Input::Stdin => return Some(unix_nanos()),
    };
    let age = modified.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(age.as_nanos()).ok()
}

/// Reads all inputs and passes each chunk to `take`, which returns the buffer for the next chunk, or `None` to stop early.
pub fn read_all(
    max_event_size: usize,
    inputs: &[Input],
    read: &Arc<AtomicU64>,
    mut buffer: Buffer,
    mut take: impl FnMut(ChunkOrigin, Buffer) -> Option<Buffer>,
) -> ReadSummary {
    let mut reading = ReadSummary::default();
    for (number, input) in inputs.iter().enumerate() {
        let mut reader = InputReader::new(number, input, max_event_size, read.clone());
        while let Some(part) = reader.next(&mut buffer) {
            match take(part, buffer) {
                Some(next) => buffer = next,
                None => {
                    reading.add(&reader);
                    return reading;
                }
            }
        }
        reading.add(&reader);
    }
    reading
}

impl ReadSummary {
    /// Adds an input that was read, and reports any error.
    pub fn add(&mut self, reader: &InputReader<'_>) {
        let name = reader.input.name();
        if let Some(error) = &reader.error {
            let failure = format!("{name}: {error}");
            super::report_failure(&failure);
            self.failures.push(failure);
        }
        if reader.is_empty {
            self.empty.push(name);
        }
        if reader.dropped > 0 {
            tracing::warn!(
                input = super::super::visible(&reader.input.name()),
                bytes = reader.dropped,
                "skipped the rest of split lines longer than --max-event-size"
            );
        }
        self.bytes += reader.bytes;
    }
}

/// Reads one input.
pub struct InputReader<'i> {
    number: usize,
    input: &'i Input,
    received: Option<i64>,
    header: HeaderSearch,
    max_event_size: usize,
    /// Counts compressed bytes, for progress.
    read: Arc<AtomicU64>,
    chunks: Option<Chunks<Box<dyn io::Read + Send>>>,
    has_ended: bool,
    /// The reason why it could not be read completely.
    error: Option<io::Error>,
    /// Uncompressed bytes so far.
    bytes: u64,
    /// See [`Chunks::dropped`].
    dropped: u64,
    is_empty: bool,
}

impl<'i> InputReader<'i> {
    /// Opens nothing yet.
    pub fn new(number: usize, input: &'i Input, max_event_size: usize, read: Arc<AtomicU64>) -> Self {
        InputReader {
            number,
            input,
            received: None,
            header: HeaderSearch::default(),
            max_event_size,
            read,
            chunks: None,
            has_ended: false,
            error: None,
            bytes: 0,
            dropped: 0,
            is_empty: false,
        }
    }

    /// Fills the buffer with the next chunk; `None` at the end, or if reading failed. The input is then closed.
    pub fn next(&mut self, buffer: &mut Buffer) -> Option<ChunkOrigin> {
        if self.has_ended {
            return None;
        }
        let next = self.open().and_then(|chunks| chunks.next(buffer));
        let columns = self.header.read(buffer.bytes());
        if let Some(chunks) = &self.chunks {
            (self.bytes, self.dropped) = (chunks.bytes(), chunks.dropped());
        }
        match next {
            Ok(Some(kind)) => {
                return Some(ChunkOrigin { input: self.number, received: self.received, kind, columns });
            }
            Ok(None) => self.is_empty = self.bytes == 0,
            Err(error) => self.error = Some(error),
        }
        self.has_ended = true;
        self.chunks = None;
        None
    }

    fn open(&mut self) -> io::Result<&mut Chunks<Box<dyn io::Read + Send>>> {
        let chunks = match self.chunks.take() {
            Some(chunks) => chunks,
            None => {
                tracing::info!(input = %super::super::visible(&self.input.name()), "reading");
                let reader = decompress::open(self.input, self.read.clone())?;
                self.received = received(self.input);
                Chunks::new(reader, self.max_event_size, *self.input == Input::Stdin)
            }
        };
        Ok(self.chunks.insert(chunks))
    }
}
