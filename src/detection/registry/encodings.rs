//! The text of a value when the encodings around it are undone: byte order marks, UTF-16, gzip, zlib, hexadecimal, base32, and base64 on top
//! of that of the API.
//!
//! Takes a value of a secret or config map and returns its text. Each layer is recognized by its first bytes, so that a value without
//! one costs a comparison. The result is bounded by the length of the value and by [`MAX_UNZIPPED_LEN`].

use std::borrow::Cow;
use std::io::Read as _;

use base64::Engine as _;
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use super::login::BASE64;

/// Maximum number of layers that are undone.
const MAX_LAYERS: usize = 4;

/// Maximum length of what gzip held. The API allows 1 MiB for all data of a secret.
const MAX_UNZIPPED_LEN: usize = 4 << 20;

/// Maximum ratio of what gzip held to its length, so that reading takes time in proportion to the event. Text has 2 to 10.
const MAX_RATIO: usize = 16;

/// Number of bytes at the start of base64 by which it is recognized, as a text, or as a layer of its own.
const HEAD_LEN: usize = 32;

/// Minimum length of base64 that is recognized as such: of shorter words some spell a text by chance.
const MIN_HEAD_LEN: usize = 16;

/// How keys, certificates and tokens start.
const OTHER_TEXTS: [&[u8]; 4] = [b"-----BEGIN", b"eyJhbGci", b"eyJ0eXAi", b"eyJraWQi"];

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const GZIP: &[u8] = b"\x1f\x8b\x08";

/// How a zlib stream of the usual window starts, at each level of compression.
const ZLIB: [&[u8]; 4] = [b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"];

fn is_zlib(value: &[u8]) -> bool {
    ZLIB.iter().any(|start| value.starts_with(start))
}

/// Returns the text of a value without the encodings around it.
pub(super) fn plain(value: &[u8]) -> Cow<'_, [u8]> {
    let mut text = Cow::Borrowed(value);
    let mut was_zipped = false;
    for _ in 0..MAX_LAYERS {
        // Gzip in gzip would multiply the ratio.
        let is_zipped = text.starts_with(GZIP) || is_zlib(&text);
        let next = if is_zipped && was_zipped { None } else { layer(&text) };
        was_zipped |= is_zipped;
        match next {
            Some(next) => text = Cow::Owned(next),
            None => break,
        }
    }
    text
}

/// Returns what the outermost encoding of a value holds; none if there is none.
fn layer(value: &[u8]) -> Option<Vec<u8>> {
    if let Some(rest) = value.strip_prefix(UTF8_MARK) {
        return Some(rest.to_vec());
    }
    if value.starts_with(GZIP) {
        return Some(unzip(MultiGzDecoder::new(value), value.len()));
    }
    if is_zlib(value) {
        // A text may start with these letters.
        return Some(unzip(ZlibDecoder::new(value), value.len())).filter(|text| !text.is_empty());
    }
    if let Some(is_little) = utf16_order(value) {
        return Some(from_utf16(value, is_little));
    }
    // Their letters are those of base64, too.
    if let Some(text) = decode_digits(value, 4, hex_digit).or_else(|| decode_digits(value, 5, base32_digit)) {
        return Some(text);
    }
    let head = decode_head(value)?;
    if could_be_text(&head) { decode(value) } else { None }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn base32_digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'2'..=b'7' => Some(byte - b'2' + 26),
        _ => None,
    }
}

/// Decodes digits of some bits each, in lines or in one; none if the text has another character, or spells no text.
fn decode_digits(text: &[u8], bits: u32, digit: impl Fn(u8) -> Option<u8>) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    let text = &text[..text.len() - text.iter().rev().take_while(|byte| **byte == b'=').count()];
    let letters = || text.iter().filter(|byte| !byte.is_ascii_whitespace());
    let digits = letters().take(HEAD_LEN).take_while(|byte| digit(**byte).is_some());
    if digits.count() < HEAD_LEN {
        return None;
    }
    let mut decoded = Vec::new();
    let (mut pending, mut length) = (0_u32, 0);
    for byte in letters() {
        pending = pending << bits | u32::from(digit(*byte)?);
        length += bits;
        if length >= 8 {
            length -= 8;
            decoded.push((pending >> length).to_le_bytes()[0]);
            pending &= (1 << length) - 1;
            if decoded.len() == MIN_HEAD_LEN && !could_be_text(&decoded) {
                return None;
            }
        }
    }
    Some(decoded)
}

fn unzip(stream: impl std::io::Read, len: usize) -> Vec<u8> {
    let limit = MAX_UNZIPPED_LEN.min(len.saturating_mul(MAX_RATIO));
    let mut text = Vec::new();
    // What was read before an error counts.
    let _ = stream.take(limit as u64).read_to_end(&mut text);
    text
}

/// Returns whether a text in UTF-16 is little-endian, by its mark or by its first two characters; none for other texts.
fn utf16_order(value: &[u8]) -> Option<bool> {
    match *value.first_chunk::<4>()? {
        [0xff, 0xfe, ..] => Some(true),
        [0xfe, 0xff, ..] => Some(false),
        [first, 0, second, 0] if first != 0 && second != 0 => Some(true),
        [0, first, 0, second] if first != 0 && second != 0 => Some(false),
        _ => None,
    }
}

fn from_utf16(value: &[u8], is_little: bool) -> Vec<u8> {
    let units = value.chunks_exact(2).map(|unit| {
        let unit = [unit[0], unit[1]];
        if is_little { u16::from_le_bytes(unit) } else { u16::from_be_bytes(unit) }
    });
    let text: String =
        char::decode_utf16(units).map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    text.strip_prefix('\u{feff}').unwrap_or(&text).as_bytes().to_vec()
}

/// Returns the first bytes that base64 spells; none if the text does not start with base64.
pub(super) fn decode_head(text: &[u8]) -> Option<Vec<u8>> {
    let start = text.iter().take(2 * HEAD_LEN).filter(|byte| !byte.is_ascii_whitespace());
    let mut head: Vec<u8> = start.take(HEAD_LEN).copied().collect();
    head.truncate(head.len() / 4 * 4);
    if head.len() < MIN_HEAD_LEN { None } else { decode(&head) }
}

/// Decodes base64 of either alphabet, in lines or in one; none if the text has any other character.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    if let Ok(decoded) = BASE64.decode(text) {
        return Some(decoded);
    }
    let is_known = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_\r\n \t".contains(byte);
    if !text.iter().all(is_known) {
        return None;
    }
    let letters = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    let letters: Vec<u8> = letters
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => *byte,
        })
        .collect();
    BASE64.decode(letters).ok()
}

/// Returns whether the first bytes of a value may be those of a text, or of one of the layers. Keys, certificates and tokens of service
/// accounts are none.
pub(super) fn could_be_text(head: &[u8]) -> bool {
    if head.starts_with(GZIP) || is_zlib(head) || utf16_order(head).is_some() {
        return true;
    }
    // A character may be cut at the end.
    let is_text = std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true);
    is_text
        && !head.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace())
        && !OTHER_TEXTS.iter().any(|other| head.starts_with(other))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    const TEXT: &str = r#"{"auths":{"ghcr.io":{"auth":"eA=="}}} and ~~~ more ???"#;

    fn zip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn hex(text: &[u8]) -> Vec<u8> {
        text.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
    }

    fn base32(text: &[u8]) -> Vec<u8> {
        let bits: Vec<u8> =
            text.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
        let digit = |bits: &[u8]| {
            let value = (0..5).fold(0, |value, bit| value << 1 | bits.get(bit).copied().unwrap_or_default());
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(value)]
        };
        bits.chunks(5).map(digit).collect()
    }

    #[test]
    fn undoes_each_encoding() {
        let marked = [UTF8_MARK, TEXT.as_bytes()].concat();
        let little: Vec<u8> = TEXT.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = TEXT.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let in_lines: Vec<String> = STANDARD
            .encode(TEXT)
            .as_bytes()
            .chunks(20)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        for value in [
            TEXT.as_bytes().to_vec(),
            marked.clone(),
            little.clone(),
            big.clone(),
            [b"\xff\xfe", &*little].concat(),
            [b"\xfe\xff", &*big].concat(),
            zip(TEXT.as_bytes()),
            zip(&marked),
            STANDARD.encode(TEXT).into_bytes(),
            format!("\n{}\n", STANDARD.encode(TEXT)).into_bytes(),
            zip(STANDARD.encode(TEXT).as_bytes()),
            URL_SAFE_NO_PAD.encode(TEXT).into_bytes(),
            in_lines.join("\r\n").into_bytes(),
            STANDARD.encode(STANDARD.encode(TEXT)).into_bytes(),
            STANDARD.encode(zip(TEXT.as_bytes())).into_bytes(),
            STANDARD.encode(&little).into_bytes(),
            STANDARD.encode(&marked).into_bytes(),
            hex(TEXT.as_bytes()),
            hex(TEXT.as_bytes()).to_ascii_uppercase(),
            hex(&zip(TEXT.as_bytes())),
            STANDARD.encode(hex(TEXT.as_bytes())).into_bytes(),
            base32(TEXT.as_bytes()),
            [&base32(TEXT.as_bytes())[..64], b"\n", &base32(TEXT.as_bytes())[64..], b"===="].concat(),
            // In lines shorter than what is looked at first.
            hex(TEXT.as_bytes()).chunks(16).collect::<Vec<_>>().join(&b"\n"[..]),
            base32(TEXT.as_bytes()).chunks(20).collect::<Vec<_>>().join(&b"\r\n"[..]),
            STANDARD.encode(base32(TEXT.as_bytes())).into_bytes(),
            deflate(TEXT.as_bytes()),
            STANDARD.encode(deflate(TEXT.as_bytes())).into_bytes(),
            hex(&deflate(TEXT.as_bytes())),
        ] {
            assert_eq!(String::from_utf8_lossy(&plain(&value)), TEXT);
        }
    }

    #[test]
    fn other_values_stay_as_they_are() {
        for value in [
            "",
            "a",
            "loot",
            "c2VjcmV0LXBhc3N3b3Jk!",
            "x9Kd7Qm2Zp4Lw8Rt5Vb1",
            "eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.c2ln",
            "\u{1}\u{2}",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "JBSWY3DPEBLW64TMMQQQ",
            "x^2 + y^2 is a text",
        ] {
            assert_eq!(plain(value.as_bytes()), value.as_bytes());
            assert!(matches!(plain(value.as_bytes()), Cow::Borrowed(_)), "{value}");
        }
        assert!(!could_be_text(b"-----BEGIN CERTIFICATE-----") && !could_be_text(b"\x30\x82\x04\x00abc"));
    }

    #[test]
    fn gzip_is_read_up_to_a_limit() {
        let bomb = zip(&vec![b'a'; 8 << 20]);
        assert!(plain(&bomb).len() <= MAX_UNZIPPED_LEN.min(bomb.len() * MAX_RATIO));
        assert!(plain(&zip(&bomb)).starts_with(GZIP));
        assert!(plain(&deflate(&vec![b'a'; 8 << 20])).len() <= MAX_UNZIPPED_LEN);
        assert!(plain(&deflate(&zip(&bomb))).starts_with(GZIP));
        let cut = &zip(TEXT.as_bytes())[..40];
        assert!(TEXT.as_bytes().starts_with(&plain(cut)));
    }
}
