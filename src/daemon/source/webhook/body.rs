//! Reads a request body: decompresses it while it arrives, within its size limit and the memory budget.

use std::io::{self, Write};

use axum::body::Body;
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt as _;

use super::response::Reply;
use crate::daemon::source::memory_budget::Reservation;

/// Minimum number of bytes by which the buffer grows.
const GROW_STEP: usize = 64 << 10;

struct BodyBuffer {
    bytes: Vec<u8>,
    reservation: Reservation,
    max_bytes: usize,
    /// Why reading stopped.
    refused: Option<Reply>,
}

impl BodyBuffer {
    /// Reserves memory for this many more bytes.
    fn make_room(&mut self, more: usize) -> Result<(), Reply> {
        let length = self.bytes.len() + more;
        if length > self.max_bytes {
            return Err(Reply::TooLarge { max_bytes: self.max_bytes });
        }
        let capacity = self.bytes.capacity();
        if length > capacity {
            let wanted = length.max(capacity * 2).max(GROW_STEP).min(self.max_bytes);
            if !self.reservation.try_grow(wanted - capacity) {
                return Err(Reply::Overloaded);
            }
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        Ok(())
    }
}

impl Write for BodyBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.make_room(bytes.len()) {
            Ok(()) => {
                self.bytes.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Err(reply) => {
                self.refused = Some(reply);
                Err(io::ErrorKind::FileTooLarge.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Decoder {
    Plain(BodyBuffer),
    Gzip(Box<MultiGzDecoder<BodyBuffer>>),
}

/// Reads a body to its end. If it is refused, `body` is left where reading stopped.
pub(super) async fn read(
    body: &mut axum::body::BodyDataStream,
    is_gzip: bool,
    max_bytes: usize,
    reservation: Reservation,
) -> Result<(Vec<u8>, Reservation), Reply> {
    let buffer = BodyBuffer { bytes: Vec::new(), reservation, max_bytes, refused: None };
    let mut decoder =
        if is_gzip { Decoder::Gzip(Box::new(MultiGzDecoder::new(buffer))) } else { Decoder::Plain(buffer) };
    let mut received = 0;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Reply::Incomplete)?;
        received += chunk.len();
        // Empty gzip members decompress to nothing, without end.
        if received > max_bytes {
            return Err(Reply::TooLarge { max_bytes });
        }
        match &mut decoder {
            Decoder::Plain(buffer) => {
                if buffer.write_all(&chunk).is_err() {
                    return Err(buffer.refused.unwrap_or(Reply::Overloaded));
                }
            }
            // Decompressing a part takes milliseconds at worst; other tasks run in between.
            Decoder::Gzip(decoder) => {
                for part in chunk.chunks(GROW_STEP) {
                    if decoder.write_all(part).is_err() {
                        return Err(decoder.get_ref().refused.unwrap_or(Reply::InvalidGzip));
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    let buffer = match decoder {
        Decoder::Plain(buffer) => buffer,
        Decoder::Gzip(mut decoder) => {
            if decoder.try_finish().is_err() {
                return Err(decoder.get_ref().refused.unwrap_or(Reply::InvalidGzip));
            }
            match decoder.finish() {
                Ok(buffer) => buffer,
                Err(_) => return Err(Reply::InvalidGzip),
            }
        }
    };
    Ok((buffer.bytes, buffer.reservation))
}

/// Reads and discards up to `most` bytes: a sender that is still writing when the connection is closed may not see the response.
pub(super) async fn drain(body: &mut axum::body::BodyDataStream, most: usize) {
    let mut drained = 0;
    while let Some(Ok(chunk)) = body.next().await {
        drained += chunk.len();
        if drained > most {
            return;
        }
    }
}

pub(super) fn chunks(body: Body) -> axum::body::BodyDataStream {
    body.into_data_stream()
}
