//! A body as it comes in: unpacked on the way, within its limit and the budget.

use std::io::{self, Write};

use axum::body::Body;
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt as _;

use super::budget::Share;
use super::response::Answer;

/// Room for a body is made in steps of at least so many bytes.
const STEP: usize = 64 << 10;

/// What was read so far.
struct Gathered {
    bytes: Vec<u8>,
    share: Share,
    largest: usize,
    /// Why no more is taken.
    refused: Option<Answer>,
}

impl Gathered {
    /// Room for so many bytes more, out of the budget.
    fn make_room(&mut self, more: usize) -> Result<(), Answer> {
        let length = self.bytes.len() + more;
        if length > self.largest {
            return Err(Answer::TooLarge { largest: self.largest });
        }
        let capacity = self.bytes.capacity();
        if length > capacity {
            let wanted = length.max(capacity * 2).max(STEP).min(self.largest);
            if !self.share.grow(wanted - capacity) {
                return Err(Answer::TooMuch);
            }
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        Ok(())
    }
}

impl Write for Gathered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.make_room(bytes.len()) {
            Ok(()) => {
                self.bytes.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Err(answer) => {
                self.refused = Some(answer);
                Err(io::ErrorKind::FileTooLarge.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Unpacking {
    Plain(Gathered),
    Gzip(Box<MultiGzDecoder<Gathered>>),
}

/// Reads a body to its end.
///
/// Where it is refused, `body` is left where reading stopped.
pub(super) async fn read(
    body: &mut axum::body::BodyDataStream,
    is_packed: bool,
    largest: usize,
    share: Share,
) -> Result<(Vec<u8>, Share), Answer> {
    let gathered = Gathered { bytes: Vec::new(), share, largest, refused: None };
    let mut unpacking = if is_packed {
        Unpacking::Gzip(Box::new(MultiGzDecoder::new(gathered)))
    } else {
        Unpacking::Plain(gathered)
    };
    let mut received = 0;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|_| Answer::Torn)?;
        received += piece.len();
        // Empty members of gzip unpack to nothing, for ever.
        if received > largest {
            return Err(Answer::TooLarge { largest });
        }
        match &mut unpacking {
            Unpacking::Plain(gathered) => {
                if gathered.write_all(&piece).is_err() {
                    return Err(gathered.refused.unwrap_or(Answer::TooMuch));
                }
            }
            // Unpacking a piece takes some milliseconds at worst; others have their turn between two.
            Unpacking::Gzip(decoder) => {
                for part in piece.chunks(STEP) {
                    if decoder.write_all(part).is_err() {
                        return Err(decoder.get_ref().refused.unwrap_or(Answer::Unpackable));
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    let gathered = match unpacking {
        Unpacking::Plain(gathered) => gathered,
        Unpacking::Gzip(mut decoder) => {
            if decoder.try_finish().is_err() {
                return Err(decoder.get_ref().refused.unwrap_or(Answer::Unpackable));
            }
            match decoder.finish() {
                Ok(gathered) => gathered,
                Err(_) => return Err(Answer::Unpackable),
            }
        }
    };
    Ok((gathered.bytes, gathered.share))
}

/// Reads on and forgets, up to a limit: a sender that is still writing when the connection closes may never see why.
pub(super) async fn drain(body: &mut axum::body::BodyDataStream, most: usize) {
    let mut drained = 0;
    while let Some(Ok(piece)) = body.next().await {
        drained += piece.len();
        if drained > most {
            return;
        }
    }
}

/// The pieces of a request's body.
pub(super) fn pieces(body: Body) -> axum::body::BodyDataStream {
    body.into_data_stream()
}
