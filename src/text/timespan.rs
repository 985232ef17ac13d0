//! Durations as rules and configuration files write them: `90s`, `10m`, `1h30m`, `7d`.
//!
//! Takes text and returns nanoseconds, and the reverse.

const SECOND: i64 = 1_000_000_000;

/// Units in nanoseconds, the longest first.
const UNITS: [(char, i64); 4] =
    [('d', 86_400 * SECOND), ('h', 3600 * SECOND), ('m', 60 * SECOND), ('s', SECOND)];

/// The longest duration, in nanoseconds: more than a year, far beyond any window.
pub const MAX_DURATION: i64 = 366 * 86_400 * SECOND;

/// Parses a duration into nanoseconds: integers with units, the longest unit first. It has to be positive and at most
/// [`MAX_DURATION`].
///
/// # Errors
/// Returns what was expected.
pub fn parse(text: &str) -> Result<i64, &'static str> {
    const EXPECTED: &str = "expected a duration such as 90s, 10m, 1h30m or 7d";
    let mut rest = text.trim();
    let mut total: i64 = 0;
    let mut units = UNITS.as_slice();
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or(EXPECTED)?;
        let number = &rest[..digits];
        let letter = rest[digits..].chars().next().ok_or(EXPECTED)?;
        // Each unit at most once, and none after a shorter one: `30m1h` is a mistake.
        let at = units.iter().position(|(unit, _)| *unit == letter).ok_or(EXPECTED)?;
        if number.is_empty() {
            return Err(EXPECTED);
        }
        total = number
            .parse::<i64>()
            .ok()
            .and_then(|number| number.checked_mul(units[at].1))
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= MAX_DURATION)
            .ok_or("expected at most 366d")?;
        units = &units[at + 1..];
        rest = &rest[digits + letter.len_utf8()..];
    }
    if total > 0 { Ok(total) } else { Err(EXPECTED) }
}

/// Formats a duration. Fractions of a second are dropped.
pub fn format(nanoseconds: i64) -> String {
    let mut rest = nanoseconds.max(0);
    let mut text = String::new();
    for (unit, length) in UNITS {
        if rest >= length {
            text.push_str(&(rest / length).to_string());
            text.push(unit);
            rest %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_formats_durations() {
        for (text, seconds, again) in [
            ("90s", 90, "1m30s"),
            ("10m", 600, "10m"),
            ("1h30m", 5400, "1h30m"),
            ("7d", 604_800, "7d"),
            (" 1d0h1s ", 86_401, "1d1s"),
            ("366d", 366 * 86_400, "366d"),
        ] {
            assert_eq!(parse(text), Ok(seconds * SECOND), "{text}");
            assert_eq!(format(seconds * SECOND), again);
        }
        for text in ["", "10", "m", "0s", "1M", "-1s", "1.5h", "30m1h", "1m1m", "1 m", "1w", "10µs", "367d"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("99999999999999999999s").is_err() && parse("9223372036854775807d").is_err());
    }
}
