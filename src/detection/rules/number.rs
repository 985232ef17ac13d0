//! Numbers as rules write them.

/// A number: decimal, with fraction and exponent, or hexadecimal. Finite.
pub fn parse(text: &str) -> Option<f64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // Rules compare codes, counts and times; 2^53 ns is far beyond the first two and close enough for the last.
        #[allow(clippy::cast_precision_loss)]
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(|number| number as f64),
        None if text.contains(|letter: char| letter.is_ascii_digit()) => {
            text.trim_start_matches('+').parse().ok().filter(|number: &f64| number.is_finite())
        }
        None => None,
    }
}

/// Whether a text is a number.
pub fn is_number(text: &str) -> bool {
    parse(text).is_some()
}
