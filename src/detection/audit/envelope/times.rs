//! Times in the formats of wrappers.
//!
//! Takes the value of a member that holds a time; returns nanoseconds since 1970-01-01T00:00:00Z. Accepts a date with or without a time
//! zone, or a number of seconds, milliseconds, microseconds or nanoseconds, which are distinguished by their magnitude.

use super::super::json::{Raw, Type};
use super::super::time;

/// Maximum length of a time, in bytes.
const MAX_LEN: usize = 40;

/// The names of months in logs.
pub(super) const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The time in a member.
pub(super) fn of(value: Raw<'_>) -> Option<i64> {
    match value.kind() {
        Type::String => {
            let content = value.string()?;
            text(&content).or_else(|| epoch(&content))
        }
        Type::Scalar => epoch(value.bytes()),
        _ => None,
    }
}

/// Parses a date and a time of day. Without a time zone, UTC is assumed.
pub(super) fn text(text: &[u8]) -> Option<i64> {
    if text.len() > MAX_LEN {
        return None;
    }
    if let Some(time) = time::parse(text) {
        return Some(time);
    }
    let mut text = kibana(text).unwrap_or_else(|| text.to_vec());
    if let Some(comma) = memchr::memchr(b',', &text) {
        text[comma] = b'.';
    }
    match *text.get(19..).unwrap_or_default() {
        [.., b'+' | b'-', _, _, _, _] => text.insert(text.len() - 2, b':'),
        [.., b'+' | b'-', _, _] => text.extend_from_slice(b":00"),
        [.., b' ', b'U', b'T', b'C'] => {
            text.truncate(text.len() - 4);
            text.push(b'Z');
        }
        _ => text.push(b'Z'),
    }
    time::parse(&text)
}

/// Converts a time as Kibana shows it, `Nov 23, 2026 @ 03:46:20.873`, to a date and a time of day.
fn kibana(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let (date, clock) = text.split_once(" @ ")?;
    let [month, day, year] = date.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month.as_bytes())? + 1;
    let day: u8 = day.strip_suffix(',')?.parse().ok()?;
    Some(format!("{year}-{month:02}-{day:02}T{clock}").into_bytes())
}

/// Parses a number since 1970, with or without a fraction.
pub(super) fn epoch(text: &[u8]) -> Option<i64> {
    if text.len() > MAX_LEN {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok().filter(|number| *number > 0)?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // From 1973 to 5138.
    let unit: i64 = match whole {
        100_000_000..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1000,
        100_000_000_000_000_000.. => 1,
        _ => return None,
    };
    let nanos = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    whole.checked_mul(unit)?.checked_add(nanos / (1_000_000_000 / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_of_all_shippers() {
        for value in [
            r#""2026-11-23T03:46:20.873Z""#,
            r#""2026-11-23 03:46:20.873""#,
            r#""2026-11-23T04:46:20.873+0100""#,
            r#""2026-11-23T03:46:20.873000+00""#,
            r#""2026-11-23 03:46:20.873 UTC""#,
            r#""Nov 23, 2026 @ 03:46:20.873""#,
            "1795405580.873",
            "1795405580873",
            r#""1795405580873""#,
            r#""1795405580873000""#,
            "1795405580873000000",
            r#""1795405580873000000""#,
        ] {
            assert_eq!(of(Raw::assume(value.as_bytes())), Some(1_795_405_580_873_000_000), "{value}");
        }
        for value in ["12", "-1795405580", "null", r#""now""#, r#""2026""#, "{}", "1795405580.x"] {
            assert_eq!(of(Raw::assume(value.as_bytes())), None, "{value}");
        }
    }
}
