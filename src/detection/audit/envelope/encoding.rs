//! Base64 and gzip.
//!
//! Takes encoded bytes; returns what they contain, up to a limit.

use std::io::Read as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Accepts padding and missing padding, since senders differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes base64; `None` if it is malformed.
pub fn base64(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(text.trim_ascii()).ok()
}

/// Whether bytes start with the gzip magic number.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x1f\x8b")
}

/// How decompression ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The end of the compressed data.
    Complete,
    /// At the limit.
    TooLarge,
    /// At malformed data.
    Malformed,
}

/// Decompressed data.
#[derive(Debug)]
pub struct Unpacked {
    pub bytes: Vec<u8>,
    pub end: End,
}

/// Decompresses gzip, which may have several members, up to `limit` bytes.
pub fn gunzip(bytes: &[u8], limit: usize) -> Unpacked {
    let mut reader = flate2::read::MultiGzDecoder::new(bytes);
    let mut unpacked = Vec::new();
    let max = u64::try_from(limit).unwrap_or(u64::MAX);
    let end = match reader.by_ref().take(max).read_to_end(&mut unpacked) {
        Err(_) => End::Malformed,
        Ok(read) if read < limit => End::Complete,
        Ok(_) => match reader.read(&mut [0]) {
            Ok(0) => End::Complete,
            Ok(_) => End::TooLarge,
            Err(_) => End::Malformed,
        },
    };
    Unpacked { bytes: unpacked, end }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn stops_at_the_limit() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..8 {
            encoder.write_all(&vec![b'x'; 1 << 20]).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        let unpacked = gunzip(&bomb, 1000);
        assert_eq!((unpacked.bytes.len(), unpacked.end), (1000, End::TooLarge));
        assert_eq!(gunzip(&bomb, 8 << 20).end, End::Complete);
        assert_eq!(gunzip(&bomb[..bomb.len() / 2], 1 << 30).end, End::Malformed);
        assert_eq!(gunzip(b"\x1f\x8bnothing", 10).end, End::Malformed);
    }

    #[test]
    fn reads_base64_with_and_without_padding() {
        assert_eq!(base64(b"e30=\n").unwrap(), b"{}");
        assert_eq!(base64(b"e30").unwrap(), b"{}");
        assert_eq!(base64(b"{}"), None);
    }
}
