//! Undoes the encodings around a value: byte order marks, UTF-16 and UTF-32, gzip, zlib, zip, hexadecimal, octal, percent signs, base32,
//! strings and arrays of JSON, and base64 in addition to that of the API.
//!
//! Takes a value of a secret or config map and returns its text. Each layer is recognized by its first bytes, so that a value without one
//! costs a comparison. The result is bounded by the length of the value and by [`MAX_UNZIPPED_LEN`].

use std::borrow::Cow;
use std::io::Read as _;

use base64::Engine as _;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::{Decompress, FlushDecompress, Status};

use super::login::BASE64;
use crate::detection::audit::json::{Raw, Type};

/// Maximum number of layers that are decoded.
const MAX_LAYERS: usize = 4;

/// Maximum length of decompressed data. The API allows 1 MiB for all data of a secret.
const MAX_UNZIPPED_LEN: usize = 4 << 20;

/// Maximum compression ratio of gzip, so that the time is proportional to the size of the event. Text has a ratio of 2 to 10.
const MAX_RATIO: usize = 16;

/// Number of leading base64 characters that are examined to recognize base64, as text or as a separate layer.
const HEAD_LEN: usize = 32;

/// Minimum length of base64 to be recognized: some shorter words decode to text by chance.
const MIN_HEAD_LEN: usize = 16;

/// Prefixes of keys, certificates and tokens.
const OTHER_TEXTS: [&[u8]; 4] = [b"-----BEGIN", b"eyJhbGci", b"eyJ0eXAi", b"eyJraWQi"];

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const GZIP: &[u8] = b"\x1f\x8b\x08";

const ZIP: &[u8] = b"PK\x03\x04";

/// Prefixes of data that is compressed or encrypted in a way that is not decoded: bzip2, xz, zstd, LZ4, 7-Zip, `compress`, Snappy, `openssl
/// enc`, age and GnuPG.
const OPAQUE: [&[u8]; 10] = [
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"7z\xbc\xaf\x27\x1c",
    b"\x1f\x9d",
    b"\xff\x06\0\0sNaPpY",
    b"Salted__",
    b"age-encryption.org/",
    b"-----BEGIN AGE ENCRYPTED FILE",
    b"-----BEGIN PGP MESSAGE",
];

/// Prefixes of a zlib stream with the usual window size, at each compression level.
const ZLIB: [&[u8]; 4] = [b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"];

fn is_zlib(value: &[u8]) -> bool {
    ZLIB.iter().any(|start| value.starts_with(start))
}

/// Returns whether a text, as returned by [`plain`], is compressed or encrypted, so that its content cannot be read.
pub(super) fn is_opaque(text: &[u8]) -> bool {
    // The bzip2 magic bytes are letters; they are followed by the block size and a number.
    let is_bzip2 = || text.starts_with(b"BZh") && text.get(4..10).is_some_and(|start| start == b"1AY&SY");
    text.starts_with(GZIP) || OPAQUE.iter().any(|start| text.starts_with(start)) || is_bzip2()
}

/// Returns whether a text, as returned by [`plain`], has more layers of encoding than the limit. Nothing legitimate needs this number of layers,
/// so it counts as hidden.
pub(super) fn is_nested_too_deep(text: &[u8]) -> bool {
    !is_zip(text) && layer(text).is_some()
}

fn is_zip(text: &[u8]) -> bool {
    text.starts_with(GZIP) || text.starts_with(ZIP) || is_zlib(text)
}

/// Returns the text of a value without the encodings around it.
pub(super) fn plain(value: &[u8]) -> Cow<'_, [u8]> {
    let mut text = Cow::Borrowed(value);
    let mut was_zipped = false;
    for _ in 0..MAX_LAYERS {
        // Nested gzip would multiply the compression ratio.
        let is_zipped = is_zip(&text);
        let next = if is_zipped && was_zipped { None } else { layer(&text) };
        was_zipped |= is_zipped;
        match next {
            Some(next) => text = Cow::Owned(next),
            None => break,
        }
    }
    text
}

/// Decodes the outermost encoding of a value; none if there is none.
fn layer(value: &[u8]) -> Option<Vec<u8>> {
    if let Some(rest) = value.strip_prefix(UTF8_MARK) {
        return Some(rest.to_vec());
    }
    if value.starts_with(GZIP) {
        return Some(unzip(MultiGzDecoder::new(value), value.len()));
    }
    if is_zlib(value) {
        // A text may also start with these letters.
        return Some(unzip(ZlibDecoder::new(value), value.len())).filter(|text| !text.is_empty());
    }
    if value.starts_with(ZIP) {
        return Some(unzip_archive(value)).filter(|text| !text.is_empty());
    }
    if let Some(is_little) = utf32_order(value) {
        return Some(from_utf32(value, is_little));
    }
    if let Some(is_little) = utf16_order(value) {
        return Some(from_utf16(value, is_little));
    }
    if let Some(text) = from_json(value).or_else(|| from_escapes(value)) {
        return Some(text);
    }
    // Their characters are also valid base64.
    let digits = decode_digits(value, 4, hex_digit)
        .or_else(|| decode_digits(value, 5, base32_digit))
        .or_else(|| decode_digits(value, 5, base32_hex_digit));
    if digits.is_some() {
        return digits;
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
        b'a'..=b'z' => Some(byte - b'a'),
        b'2'..=b'7' => Some(byte - b'2' + 26),
        _ => None,
    }
}

/// The base32 alphabet that preserves the sort order (RFC 4648).
fn base32_hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(32).and_then(|digit| u8::try_from(digit).ok())
}

/// Decodes digits of a given number of bits, on one or several lines; none if the text contains another character, or does not decode to
/// text.
fn decode_digits(text: &[u8], bits: u32, digit: impl Fn(u8) -> Option<u8>) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    let text = &text[..text.len() - text.iter().rev().take_while(|byte| **byte == b'=').count()];
    // Some tools write bytes separated by colons.
    let letters = || text.iter().filter(|byte| !byte.is_ascii_whitespace() && **byte != b':');
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
    // The data before an error counts.
    let _ = stream.take(limit as u64).read_to_end(&mut text);
    text
}

/// Returns the concatenated content of the files in a zip archive. Each file starts with its own header, so the directory at the end of the
/// archive is not needed.
fn unzip_archive(archive: &[u8]) -> Vec<u8> {
    const HEADER_LEN: usize = 30;
    let limit = MAX_UNZIPPED_LEN.min(archive.len().saturating_mul(MAX_RATIO));
    let (mut at, mut text) = (0, Vec::new());
    // One decompressor for all files: it needs a thousand times the memory of a file header, and an archive may consist of nothing but
    // headers.
    let mut inflater = Decompress::new(false);
    while let Some(start) = memchr::memmem::find(&archive[at..], ZIP)
        && text.len() < limit
    {
        let header = at + start;
        at = header + ZIP.len();
        let Some(fields) = archive.get(header..header + HEADER_LEN) else { break };
        let number = |at: usize| usize::from(u16::from_le_bytes([fields[at], fields[at + 1]]));
        let data = header + HEADER_LEN + number(26) + number(28);
        let Some(data_bytes) = archive.get(data..) else { continue };
        if number(8) == 8 {
            inflater.reset(false);
            at = data + inflate(&mut inflater, data_bytes, limit, &mut text);
        } else {
            // Stored without compression, up to the next file.
            let end = memchr::memmem::find(data_bytes, b"PK").unwrap_or(data_bytes.len());
            text.extend_from_slice(&data_bytes[..end.min(limit - text.len())]);
            at = data + end;
        }
        text.push(b'\n');
    }
    text
}

/// Appends the content of a deflate stream, up to a total of `limit`, and returns how much of the stream was read.
fn inflate(inflater: &mut Decompress, stream: &[u8], limit: usize, text: &mut Vec<u8>) -> usize {
    const CHUNK: usize = 16 << 10;
    loop {
        let read = usize::try_from(inflater.total_in()).unwrap_or(usize::MAX).min(stream.len());
        let before = text.len();
        if before >= limit {
            return read;
        }
        text.reserve(CHUNK);
        let status = inflater.decompress_vec(&stream[read..], text, FlushDecompress::Finish);
        let has_progress = text.len() > before || inflater.total_in() > read as u64;
        if !matches!(status, Ok(Status::Ok | Status::BufError)) || !has_progress {
            text.truncate(limit);
            return usize::try_from(inflater.total_in()).unwrap_or(usize::MAX).min(stream.len());
        }
    }
}

/// Decodes a JSON string, or a JSON array of byte values.
fn from_json(value: &[u8]) -> Option<Vec<u8>> {
    let value = value.trim_ascii();
    if !matches!(value, [b'"', ..] | [b'[', b' ' | b'\n' | b'\r' | b'\t' | b'0'..=b'9', ..]) {
        return None;
    }
    let json = Raw::first(value).ok()?;
    match json.kind() {
        Type::String => json.string().map(std::borrow::Cow::into_owned),
        Type::Array => {
            let bytes = json.items().map(|item| std::str::from_utf8(item.ok()?.bytes()).ok()?.parse().ok());
            bytes.collect::<Option<Vec<u8>>>().filter(|bytes| could_be_text_of(bytes))
        }
        Type::Object | Type::Scalar => None,
    }
}

/// Decodes a value that spells each byte: `%7B…`, `\x7b…`, `0x7b,0x22…`, `\173…`.
fn from_escapes(value: &[u8]) -> Option<Vec<u8>> {
    let value = value.trim_ascii();
    let (is_octal, mark): (bool, &[u8]) = match value {
        [b'%', ..] => (false, b"%"),
        [b'\\', b'x', ..] => (false, b"\\x"),
        [b'0', b'x', ..] => (false, b"0x"),
        [b'\\', b'0'..=b'3', ..] => (true, b"\\"),
        _ => return None,
    };
    let (length, base) = if is_octal { (3, 8) } else { (2, 16) };
    let mut text = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let escaped = rest.strip_prefix(mark).and_then(|rest| rest.get(..length));
        let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = escaped.and_then(|digits| u8::from_str_radix(digits, base).ok()) {
            text.push(byte);
            rest = &rest[mark.len() + length..];
            // There may be one prefix for all bytes: `0x7b22…`.
            if text.len() == 1 && mark == b"0x" && rest.first().is_some_and(u8::is_ascii_hexdigit) {
                return decode_digits(&value[mark.len()..], 4, hex_digit);
            }
        } else {
            if mark != b"0x" || !matches!(rest[0], b',' | b' ' | b'\n' | b'\r' | b'\t') {
                text.push(rest[0]);
            }
            rest = &rest[1..];
        }
        if text.len() == MIN_HEAD_LEN && !could_be_text(&text) {
            return None;
        }
    }
    (text.len() >= MIN_HEAD_LEN && text.len() < value.len()).then_some(text)
}

/// Returns whether bytes are long enough and start like text or one of the encodings.
fn could_be_text_of(bytes: &[u8]) -> bool {
    bytes.len() >= MIN_HEAD_LEN && could_be_text(&bytes[..bytes.len().min(HEAD_LEN)])
}

/// The same check for UTF-32.
fn utf32_order(value: &[u8]) -> Option<bool> {
    match *value.first_chunk::<8>()? {
        [0xff, 0xfe, 0, 0, ..] => Some(true),
        [0, 0, 0xfe, 0xff, ..] => Some(false),
        [first, 0, 0, 0, second, 0, 0, 0] if first != 0 && second != 0 => Some(true),
        [0, 0, 0, first, 0, 0, 0, second] if first != 0 && second != 0 => Some(false),
        _ => None,
    }
}

fn from_utf32(value: &[u8], is_little: bool) -> Vec<u8> {
    let units = value.as_chunks::<4>().0.iter().map(|unit| {
        let unit = if is_little { u32::from_le_bytes(*unit) } else { u32::from_be_bytes(*unit) };
        char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)
    });
    let text: String = units.collect();
    text.strip_prefix('\u{feff}').unwrap_or(&text).as_bytes().to_vec()
}

/// Returns whether a UTF-16 text is little-endian, from its byte order mark, or because most of its characters are Latin; none for other
/// texts.
fn utf16_order(value: &[u8]) -> Option<bool> {
    match *value.first_chunk::<4>()? {
        [0xff, 0xfe, ..] => return Some(true),
        [0xfe, 0xff, ..] => return Some(false),
        _ => {}
    }
    memchr::memchr(0, value)?;
    let units = value.as_chunks::<2>().0;
    let zeros = |at: usize| units.iter().filter(|unit| unit[at] == 0).count();
    let is = |high: usize| zeros(high) * 2 > units.len() && zeros(1 - high) * 8 <= units.len();
    if is(1) {
        Some(true)
    } else if is(0) {
        Some(false)
    } else {
        None
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

/// Returns the first decoded bytes of base64; none if the text does not start with base64.
pub(super) fn decode_head(text: &[u8]) -> Option<Vec<u8>> {
    let start = text.iter().take(2 * HEAD_LEN).filter(|byte| !byte.is_ascii_whitespace());
    let mut head: Vec<u8> = start.take(HEAD_LEN).copied().collect();
    head.truncate(head.len() / 4 * 4);
    if head.len() < MIN_HEAD_LEN { None } else { decode(&head) }
}

/// Decodes base64 in either alphabet, on one or several lines; none if the text contains any other character.
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

/// Returns whether the first bytes of a value may be those of a text or of one of the encodings. Keys, certificates and service account
/// tokens are excluded.
pub(super) fn could_be_text(head: &[u8]) -> bool {
    let head = head.strip_prefix(UTF8_MARK).unwrap_or(head);
    if is_zip(head) || utf32_order(head).is_some() || utf16_order(head).is_some() || is_opaque(head) {
        return true;
    }
    // A tar archive starts with the name of its first file, padded with zeros to a hundred bytes.
    let name_len = head.iter().position(|byte| *byte == 0).unwrap_or(head.len());
    let head =
        if name_len > 0 && head[name_len..].iter().all(|byte| *byte == 0) { &head[..name_len] } else { head };
    // The last character may be truncated.
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
        let utf32: Vec<u8> = TEXT.chars().flat_map(|letter| u32::from(letter).to_le_bytes()).collect();
        let escaped = |mark: &str| -> Vec<u8> {
            TEXT.bytes().flat_map(|byte| format!("{mark}{byte:02x}").into_bytes()).collect()
        };
        let octal: Vec<u8> = TEXT.bytes().flat_map(|byte| format!("\\{byte:03o}").into_bytes()).collect();
        let colons: Vec<String> = TEXT.bytes().map(|byte| format!("{byte:02X}")).collect();
        let bytes: Vec<String> = TEXT.bytes().map(|byte| byte.to_string()).collect();
        let base32_hex = |text: &[u8]| -> Vec<u8> {
            let from = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
            let place = |letter: u8| from.iter().position(|own| *own == letter).unwrap();
            base32(text)
                .into_iter()
                .map(|letter| b"0123456789ABCDEFGHIJKLMNOPQRSTUV"[place(letter)])
                .collect()
        };
        for value in [
            serde_json::to_vec(TEXT).unwrap(),
            serde_json::to_vec(&serde_json::to_string(TEXT).unwrap()).unwrap(),
            format!("[{}]", bytes.join(", ")).into_bytes(),
            utf32,
            escaped("%"),
            escaped("\\x"),
            [b"0x", &*hex(TEXT.as_bytes())].concat(),
            octal,
            colons.join(":").into_bytes(),
            base32(TEXT.as_bytes()).to_ascii_lowercase(),
            base32_hex(TEXT.as_bytes()),
            base32_hex(TEXT.as_bytes()).to_ascii_lowercase(),
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
            // On lines that are shorter than the examined prefix.
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
            "0x9f86d081884c7d659a2feaa0c55ad015",
            "[1, 2, 3]",
            "[10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 170]",
            "% of all",
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
