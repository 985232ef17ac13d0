//! Reads a request body: decompresses it while it arrives, within its size limit and the memory budget. A larger body is split into
//! parts while it arrives.

use std::io::{self, Write};

use axum::body::{Body, BodyDataStream, Bytes};
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt as _;

use super::InvalidBody;
use super::items::{BodyPart, Splitter};
use super::response::Reply;
use crate::daemon::source::memory_budget::Reservation;

/// Minimum number of bytes by which the buffer grows, and maximum number that is decompressed or split at once.
const GROW_STEP: usize = 64 << 10;

/// Maximum size, as a fraction of the limit, of the parts of a large body, and of items in it that are kept complete.
const PARTS_PER_BODY: usize = 8;

/// Minimum length up to which items of a large body are kept complete.
const MIN_ITEM_LEN: usize = 16 << 10;

/// The destination of decompressed bytes.
struct BodyBuffer {
    bytes: Vec<u8>,
    reservation: Reservation,
    max_bytes: usize,
    /// The bytes beyond the limit, until the splitter takes them.
    excess: Vec<u8>,
    /// Present if the body exceeds the limit.
    splitter: Option<Box<Splitter>>,
    /// Decompressed bytes so far.
    total: u64,
    /// Why reading stopped.
    refused: Option<Reply>,
}

impl BodyBuffer {
    /// Reserves memory for this many more bytes. Returns false if they exceed the limit.
    fn make_room(&mut self, more: usize) -> Result<bool, Reply> {
        let length = self.bytes.len() + more;
        if length > self.max_bytes {
            return Ok(false);
        }
        let capacity = self.bytes.capacity();
        if length > capacity {
            let wanted = length.max(capacity * 2).max(GROW_STEP).min(self.max_bytes);
            if !self.reservation.try_grow(wanted - capacity) {
                return Err(Reply::Overloaded);
            }
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        Ok(true)
    }

    fn is_too_large(&self) -> bool {
        !self.excess.is_empty()
    }
}

impl Write for BodyBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.total += bytes.len() as u64;
        if let Some(splitter) = &mut self.splitter {
            splitter.push(bytes);
            return Ok(bytes.len());
        }
        let has_room = if self.is_too_large() { Ok(false) } else { self.make_room(bytes.len()) };
        match has_room {
            Ok(true) => self.bytes.extend_from_slice(bytes),
            Ok(false) => self.excess.extend_from_slice(bytes),
            Err(reply) => {
                self.refused = Some(reply);
                return Err(io::ErrorKind::OutOfMemory.into());
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Decoder {
    Plain(BodyBuffer),
    Gzip(Box<MultiGzDecoder<BodyBuffer>>),
}

impl Decoder {
    fn buffer(&mut self) -> &mut BodyBuffer {
        match self {
            Decoder::Plain(buffer) => buffer,
            Decoder::Gzip(decoder) => decoder.get_mut(),
        }
    }

    /// Takes the next bytes, decompresses a bounded part of them and returns how many were consumed.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Reply> {
        let bytes = &bytes[..bytes.len().min(GROW_STEP)];
        let (written, invalid) = match self {
            Decoder::Plain(buffer) => (buffer.write(bytes), Reply::Overloaded),
            Decoder::Gzip(decoder) => (decoder.write(bytes), Reply::InvalidGzip),
        };
        match written {
            Ok(length) if length > 0 => Ok(length),
            _ => Err(self.buffer().refused.unwrap_or(invalid)),
        }
    }

    /// Ends the stream.
    fn finish(&mut self) -> Result<(), Reply> {
        match self {
            Decoder::Plain(_) => Ok(()),
            Decoder::Gzip(decoder) => {
                let finished = decoder.try_finish();
                let refused = decoder.get_ref().refused;
                finished.map_err(|_| refused.unwrap_or(Reply::InvalidGzip))
            }
        }
    }
}

/// Lets other tasks run after each [`GROW_STEP`] of input or output, which takes milliseconds.
#[derive(Default)]
struct Pace {
    input: usize,
    output: u64,
}

impl Pace {
    /// Number of bytes consumed, and total number of bytes decompressed.
    async fn note(&mut self, taken: usize, decompressed: u64) {
        self.input += taken;
        if self.input >= GROW_STEP || decompressed >= self.output + GROW_STEP as u64 {
            *self = Pace { input: 0, output: decompressed };
            tokio::task::yield_now().await;
        }
    }
}

/// A body, read to its end or up to its limit.
pub(super) enum Received {
    Whole(Vec<u8>, Reservation),
    /// It exceeds the limit. The rest is read by [`LargeBody::next_part`].
    Large(LargeBody),
}

/// A body larger than the limit.
pub(super) struct LargeBody {
    decoder: Decoder,
    /// Received data that was not decompressed yet.
    chunk: Bytes,
    /// The data stored before the body exceeded the limit, and how much of it was split.
    kept: Vec<u8>,
    split: usize,
    /// No more bytes follow.
    is_ended: bool,
    /// Whether its brackets are closed once all of it was split.
    is_complete: Option<bool>,
    /// Compressed bytes so far.
    received: u64,
}

/// Reads a body to its end or its limit. If it is rejected, `body` is left where reading stopped.
pub(super) async fn read(
    body: &mut BodyDataStream,
    is_gzip: bool,
    max_bytes: usize,
    reservation: Reservation,
) -> Result<Received, Reply> {
    let buffer = BodyBuffer {
        bytes: Vec::new(),
        reservation,
        max_bytes,
        excess: Vec::new(),
        splitter: None,
        total: 0,
        refused: None,
    };
    let mut decoder =
        if is_gzip { Decoder::Gzip(Box::new(MultiGzDecoder::new(buffer))) } else { Decoder::Plain(buffer) };
    let mut received = 0;
    let mut pace = Pace::default();
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk.map_err(|_| Reply::Incomplete)?;
        received += chunk.len() as u64;
        // Empty gzip members decompress to nothing, and could be repeated endlessly.
        let is_empty = decoder.buffer().total + (GROW_STEP as u64) < received / 2;
        if is_empty && received > max_bytes as u64 {
            return Err(Reply::TooLarge { max_bytes });
        }
        while !chunk.is_empty() {
            let length = decoder.write(&chunk)?;
            let _ = chunk.split_to(length);
            if decoder.buffer().is_too_large() {
                return Ok(Received::Large(LargeBody::new(decoder, chunk, received)));
            }
            pace.note(length, decoder.buffer().total).await;
        }
    }
    decoder.finish()?;
    if decoder.buffer().is_too_large() {
        let mut large = LargeBody::new(decoder, Bytes::new(), received);
        large.is_ended = true;
        return Ok(Received::Large(large));
    }
    let buffer = decoder.buffer();
    Ok(Received::Whole(std::mem::take(&mut buffer.bytes), std::mem::take(&mut buffer.reservation)))
}

impl LargeBody {
    fn new(mut decoder: Decoder, chunk: Bytes, received: u64) -> Self {
        let kept = std::mem::take(&mut decoder.buffer().bytes);
        LargeBody { decoder, chunk, kept, split: 0, is_ended: false, is_complete: None, received }
    }

    /// Decompressed bytes so far.
    pub(super) fn total(&mut self) -> u64 {
        self.decoder.buffer().total
    }

    /// Bytes received so far, as they were sent.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Number of items that were read and are in no part yet.
    pub(super) fn pending_items(&mut self) -> u64 {
        self.decoder.buffer().splitter.as_ref().map_or(0, |splitter| splitter.pending_items())
    }

    /// The next part; `None` at the end of the body.
    pub(super) async fn next_part(&mut self, body: &mut BodyDataStream) -> Result<Option<BodyPart>, Reply> {
        let mut pace = Pace { input: 0, output: self.total() };
        loop {
            let buffer = self.decoder.buffer();
            let max_item = (buffer.max_bytes / PARTS_PER_BODY).max(MIN_ITEM_LEN);
            let Some(splitter) = &mut buffer.splitter else {
                // The stored data remains reserved until it is split.
                if !buffer.reservation.try_grow(Splitter::memory(max_item, GROW_STEP)) {
                    return Err(Reply::Overloaded);
                }
                buffer.splitter = Some(Box::new(Splitter::new(max_item)));
                continue;
            };
            if let Some(part) = splitter.next_part() {
                return Ok(Some(part));
            }
            if splitter.blank_bytes() > buffer.max_bytes as u64 {
                return Err(Reply::TooLarge { max_bytes: buffer.max_bytes });
            }
            if self.split < self.kept.len() {
                let end = self.kept.len().min(self.split + GROW_STEP);
                splitter.push(&self.kept[self.split..end]);
                self.split = end;
                if end == self.kept.len() {
                    self.kept = Vec::new();
                    self.split = 0;
                    let excess = std::mem::take(&mut buffer.excess);
                    splitter.push(&excess);
                    buffer.reservation.release();
                    if !buffer.reservation.try_grow(Splitter::memory(max_item, GROW_STEP)) {
                        return Err(Reply::Overloaded);
                    }
                }
                pace.note(GROW_STEP, 0).await;
            } else if !self.chunk.is_empty() {
                let length = self.decoder.write(&self.chunk)?;
                let _ = self.chunk.split_to(length);
                pace.note(length, self.total()).await;
            } else if let Some(is_complete) = self.is_complete {
                return if is_complete { Ok(None) } else { Err(Reply::Invalid(InvalidBody::Cut)) };
            } else if self.is_ended {
                self.is_complete = Some(splitter.finish());
            } else {
                match body.next().await {
                    Some(chunk) => {
                        self.chunk = chunk.map_err(|_| Reply::Incomplete)?;
                        self.received += self.chunk.len() as u64;
                    }
                    None => {
                        self.decoder.finish()?;
                        self.is_ended = true;
                    }
                }
            }
        }
    }
}

/// Reads and discards up to `most` bytes: if the connection is closed while a sender is still writing, it may not see the response.
pub(super) async fn drain(body: &mut BodyDataStream, most: usize) {
    let mut drained = 0;
    while let Some(Ok(chunk)) = body.next().await {
        drained += chunk.len();
        if drained > most {
            return;
        }
    }
}

pub(super) fn chunks(body: Body) -> BodyDataStream {
    body.into_data_stream()
}
