//! Base64 and gzip, in bounds.

use std::io::Read as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// With padding or without, as senders have it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes base64; nothing where it is none.
pub fn base64(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(text.trim_ascii()).ok()
}

/// Whether bytes start as gzip does.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x1f\x8b")
}

/// How unpacking ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the end of what was packed.
    Whole,
    /// At the limit.
    TooLarge,
    /// Where it is no gzip any more.
    Broken,
}

/// What was unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// As far as it went.
    pub bytes: Vec<u8>,
    /// And why no further.
    pub end: End,
}

/// Unpacks gzip, of several members too, up to so many bytes.
pub fn gunzip(bytes: &[u8], most: usize) -> Unpacked {
    let mut reader = flate2::read::MultiGzDecoder::new(bytes);
    let mut unpacked = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let end = match reader.by_ref().take(limit).read_to_end(&mut unpacked) {
        Err(_) => End::Broken,
        Ok(read) if read < most => End::Whole,
        Ok(_) => match reader.read(&mut [0]) {
            Ok(0) => End::Whole,
            Ok(_) => End::TooLarge,
            Err(_) => End::Broken,
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
    fn a_bomb_stops_at_the_limit() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..8 {
            encoder.write_all(&vec![b'x'; 1 << 20]).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        let unpacked = gunzip(&bomb, 1000);
        assert_eq!((unpacked.bytes.len(), unpacked.end), (1000, End::TooLarge));
        assert_eq!(gunzip(&bomb, 8 << 20).end, End::Whole);
        assert_eq!(gunzip(&bomb[..bomb.len() / 2], 1 << 30).end, End::Broken);
        assert_eq!(gunzip(b"\x1f\x8bnothing", 10).end, End::Broken);
    }

    #[test]
    fn base64_is_read_with_padding_and_without() {
        assert_eq!(base64(b"e30=\n").unwrap(), b"{}");
        assert_eq!(base64(b"e30").unwrap(), b"{}");
        assert_eq!(base64(b"{}"), None);
    }
}
