//! A body as it comes in: unpacked on the way, within its limit and the budget.

use std::io::{self, Write};

use axum::body::Body;
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt as _;

use super::response::Reply;
use crate::daemon::source::memory_budget::Reservation;

/// Room for a body is made in steps of at least so many bytes.
const GROW_STEP: usize = 64 << 10;

/// What was read so far.
struct BodyBuffer {
    bytes: Vec<u8>,
    reservation: Reservation,
    max_bytes: usize,
    /// Why no more is taken.
    refused: Option<Reply>,
}

impl BodyBuffer {
    /// Room for so many bytes more, out of the budget.
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

/// Reads a body to its end.
///
/// Where it is refused, `body` is left where reading stopped.
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
        // Empty members of gzip unpack to nothing, for ever.
        if received > max_bytes {
            return Err(Reply::TooLarge { max_bytes });
        }
        match &mut decoder {
            Decoder::Plain(buffer) => {
                if buffer.write_all(&chunk).is_err() {
                    return Err(buffer.refused.unwrap_or(Reply::Overloaded));
                }
            }
            // Decoder a chunk takes some milliseconds at worst; others have their turn between two.
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

/// Reads on and forgets, up to a limit: a sender that is still writing when the connection closes may never see why.
pub(super) async fn drain(body: &mut axum::body::BodyDataStream, most: usize) {
    let mut drained = 0;
    while let Some(Ok(chunk)) = body.next().await {
        drained += chunk.len();
        if drained > most {
            return;
        }
    }
}

/// The chunks of a request's body.
pub(super) fn chunks(body: Body) -> axum::body::BodyDataStream {
    body.into_data_stream()
}
