//! Parses the times of `--since` and `--until`.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

/// Parses an RFC 3339 time, a date (its start in UTC) or an age. Returns nanoseconds since 1970-01-01T00:00:00Z.
pub fn parse(text: &str) -> Result<i64, String> {
    let expected = || {
        "invalid time: expected 2026-11-23T10:00:00Z, 2026-11-23, or an age such as 30m, 2h or 7d".to_owned()
    };
    let text = text.trim();
    let time = if let Ok(time) = text.parse::<Timestamp>() {
        time
    } else if let Ok(zoned) = text.parse::<Zoned>() {
        zoned.timestamp()
    } else if let Ok(date) = text.parse::<Date>() {
        date.to_zoned(TimeZone::UTC).map_err(|_| expected())?.timestamp()
    } else {
        let ago = text.strip_suffix("ago").unwrap_or(text).trim();
        let span: Span = ago.parse().map_err(|_| expected())?;
        let now = Timestamp::now().to_zoned(TimeZone::UTC);
        now.checked_sub(span).map_err(|_| expected())?.timestamp()
    };
    i64::try_from(time.as_nanosecond())
        .map_err(|_| "time out of range: expected a year from 1678 to 2262".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_times_dates_and_ages() {
        assert_eq!(parse("2026-11-23T10:00:00Z").unwrap(), 1_795_428_000_000_000_000);
        assert_eq!(parse("2026-11-23").unwrap(), 1_795_392_000_000_000_000);
        let (hour, now) = (parse("1h").unwrap(), parse("0s").unwrap());
        assert!((now - hour - 3_600_000_000_000).abs() < 5_000_000_000);
        assert!(parse("7d").is_ok() && parse("yesterday").is_err());
    }
}
