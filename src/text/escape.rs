//! Escapes untrusted text for output.
//!
//! Takes bytes of events and names from files; returns the content of JSON strings, or text for a terminal. The result never contains a
//! control character or one that changes the direction of text.

use wide::u8x16;

/// Maximum length of a value that is shown, in bytes. An event may contain all secrets of a cluster; an alert is one line.
pub const MAX_SHOWN_LEN: usize = 64 * 1024;

/// Appends `text` as the content of a JSON string.
///
/// Invalid UTF-8 becomes U+FFFD. Control characters (C0, DEL, C1), line and paragraph separators, and characters that change the direction
/// of text are escaped, so that the JSON can be printed on a terminal and stays on one line.
pub fn escape_json(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        let plain = plain_length(rest);
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        let Some(&byte) = rest.first() else { return };
        if byte < 0x80 {
            escape_ascii(byte, out);
            rest = &rest[1..];
        } else {
            // A run of non-ASCII text.
            let run = rest.iter().position(u8::is_ascii).unwrap_or(rest.len());
            for chunk in rest[..run].utf8_chunks() {
                for letter in chunk.valid().chars() {
                    if is_disruptive(letter) {
                        push_unit(u32::from(letter), out);
                    } else {
                        out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
                if !chunk.invalid().is_empty() {
                    out.extend_from_slice("\u{fffd}".as_bytes());
                }
            }
            rest = &rest[run..];
        }
    }
}

/// The length of the longest prefix that needs no escapes in a JSON string: printable ASCII other than `"` and `\\`.
fn plain_length(text: &[u8]) -> usize {
    let is_plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    let (lanes, rest) = text.as_chunks::<16>();
    for (i, lane) in lanes.iter().enumerate() {
        let lane = u8x16::new(*lane);
        let range = lane.max(u8x16::splat(0x20)).simd_eq(lane) & lane.min(u8x16::splat(0x7e)).simd_eq(lane);
        let special = lane.simd_eq(u8x16::splat(b'"')) | lane.simd_eq(u8x16::splat(b'\\'));
        let odd = !range.to_bitmask() & 0xffff | special.to_bitmask();
        if odd != 0 {
            return i * 16 + odd.trailing_zeros() as usize;
        }
    }
    lanes.len() * 16 + rest.iter().position(|&byte| !is_plain(byte)).unwrap_or(rest.len())
}

/// Whether a JSON string is what [`push_json_string`] would write for its content: no escapes, nothing to escape, and not longer
/// than [`MAX_SHOWN_LEN`].
pub fn is_plain_string(json: &[u8]) -> bool {
    let inner = json.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\""));
    inner.is_some_and(|inner| inner.len() <= MAX_SHOWN_LEN && plain_length(inner) == inner.len())
}

fn escape_ascii(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        8 => b'b',
        12 => b'f',
        _ => return push_unit(u32::from(byte), out),
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn push_unit(unit: u32, out: &mut Vec<u8>) {
    use std::io::Write as _;
    // Writing to a Vec does not fail.
    let _ = write!(out, "\\u{unit:04x}");
}

/// Whether a character would move the cursor of a terminal, break the line, or change the direction of the text around it.
pub fn is_disruptive(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
        || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Appends `text` as a JSON string, quotes included.
pub fn push_json_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    escape_json(text, out);
    out.push(b'"');
}

/// Escapes [disruptive](is_disruptive) characters, so that text of events and files can be printed on a terminal.
pub fn visible(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if is_disruptive(letter) => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn json_readers_return_the_original_text(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in any::<String>()) {
            for bytes in [bytes, text.into_bytes()] {
                let mut out = Vec::new();
                push_json_string(&bytes, &mut out);
                let read: String = serde_json::from_slice(&out).unwrap();
                prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
                let out = String::from_utf8(out).unwrap();
                prop_assert!(!out.chars().any(is_disruptive));
            }
        }
    }

    #[test]
    fn escapes_control_characters() {
        assert_eq!(visible("a\n\u{1b}[2J\u{202e}b"), "a\\n\\u{1b}[2J\\u{202e}b");
    }
}
