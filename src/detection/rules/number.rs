//! Numbers in rules.

/// Parses a finite number: decimal, optionally with fraction and exponent, or hexadecimal.
pub fn parse(text: &str) -> Option<f64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // Rules compare status codes, counts and times. A double is exact for the first two and close enough for the last.
        #[allow(clippy::cast_precision_loss)]
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(|number| number as f64),
        None if text.contains(|letter: char| letter.is_ascii_digit()) => {
            text.trim_start_matches('+').parse().ok().filter(|number: &f64| number.is_finite())
        }
        None => None,
    }
}

pub fn is_number(text: &str) -> bool {
    parse(text).is_some()
}
