//! Parses sizes in bytes as people write them.

/// Parses a size in bytes: `64M`, `1 GiB`, `1000`.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn parses_binary_units() {
        for (text, size) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("64M", Some(64 << 20)),
            (" 1 GiB ", Some(1 << 30)),
            ("2kb", Some(2048)),
            ("", None),
            ("M", None),
            ("1.5M", None),
            ("-1", None),
            ("1T", None),
            ("99999999999G", None),
        ] {
            assert_eq!(parse(text), size, "{text:?}");
        }
    }
}
