//! Timestamps of events: parses RFC 3339, stores nanoseconds since 1970-01-01T00:00:00Z, and prints several formats.

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// Formats of a time in outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clock {
    /// `10:00:00.654321000`
    Time,
    /// `10:00:00`
    TimeSeconds,
    /// `2026-11-23T10:00:00.654321000+0000`
    Iso8601,
    /// `2026-11-23 10:00:00.654321000`
    DateTime,
    /// `2026-11-23 10:00:00`
    DateTimeSeconds,
}

/// The current time, against which timestamps of events are checked. It is set when a log is read live, so that one apiserver with a wrong
/// clock cannot make the events of all others late.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceClock(Option<i64>);

impl ReferenceClock {
    /// How far the clock of an apiserver may be ahead, in nanoseconds.
    pub const MAX_SKEW: i64 = 5 * 60 * SECOND;

    /// A clock fixed at `now`, in nanoseconds since 1970-01-01T00:00:00Z.
    pub fn at(now: i64) -> Self {
        ReferenceClock(Some(now))
    }

    /// Replaces a timestamp that is more than [`MAX_SKEW`](Self::MAX_SKEW) in the future by the current time. The default clock, which has
    /// no time, returns every timestamp unchanged.
    pub fn clamp(self, time: i64) -> i64 {
        self.0.filter(|now| time.saturating_sub(*now) > Self::MAX_SKEW).unwrap_or(time)
    }
}

/// Parses an RFC 3339 timestamp. The apiserver writes microseconds and `Z`; any fraction and offset are accepted.
pub fn parse(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_at_checked(19)?;
    let digits = |from: usize, to: usize| -> Option<i64> {
        date[from..to]
            .iter()
            .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
    };
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if marks.iter().any(|&(at, mark)| date[at] != mark) || !matches!(date[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix(b".") {
        None => (0, rest),
        Some(rest) => {
            let length = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
            let mut fraction = 0;
            for place in 0..9 {
                fraction = fraction * 10 + rest[..length].get(place).map_or(0, |byte| i64::from(byte - b'0'));
            }
            (fraction, &rest[length..])
        }
    };
    let offset = match zone {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2]
            if [h1, h2, m1, m2].iter().all(|d| d.is_ascii_digit()) =>
        {
            let two = |a: &u8, b: &u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
            let seconds = two(h1, h2) * 3600 + two(m1, m2) * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(SECOND)?.checked_add(fraction)
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date that is this many days after 1970-01-01 (the same source, `civil_from_days`).
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

struct DateTimeParts {
    date: (i64, i64, i64),
    clock: (i64, i64, i64),
    fraction: i64,
}

fn parts(nanoseconds: i64) -> DateTimeParts {
    let seconds = nanoseconds.div_euclid(SECOND);
    let of_day = seconds.rem_euclid(DAY);
    DateTimeParts {
        date: date(seconds.div_euclid(DAY)),
        clock: (of_day / 3600, of_day / 60 % 60, of_day % 60),
        fraction: nanoseconds.rem_euclid(SECOND),
    }
}

/// Appends `10:00:00.654321000`.
pub fn write_clock(out: &mut Vec<u8>, nanoseconds: i64) {
    let DateTimeParts { clock: (h, m, s), fraction, .. } = parts(nanoseconds);
    // Without `write!`: every alert has two timestamps, and formatting them took 4 % of the time of a scan.
    for (number, end) in [(h, b':'), (m, b':'), (s, b'.')] {
        push_digits(out, number, 2);
        out.push(end);
    }
    push_digits(out, fraction, 9);
}

/// Appends the last `count` digits of a non-negative number, with leading zeros. `count` is at most 9.
fn push_digits(out: &mut Vec<u8>, mut number: i64, count: usize) {
    let mut digits = [b'0'; 9];
    for digit in digits[..count].iter_mut().rev() {
        // A digit fits into a byte.
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
    out.extend_from_slice(&digits[..count]);
}

/// Appends `2026-11-23T10:00:00.654321000Z`.
pub fn write_rfc3339(out: &mut Vec<u8>, nanoseconds: i64) {
    let DateTimeParts { date: (year, month, day), .. } = parts(nanoseconds);
    // A 64-bit number of nanoseconds ends in the year 2262.
    for (number, count, end) in [(year, 4, b'-'), (month, 2, b'-'), (day, 2, b'T')] {
        push_digits(out, number, count);
        out.push(end);
    }
    write_clock(out, nanoseconds);
    out.push(b'Z');
}

/// Formats a time as one of the `evt.*` fields does.
pub fn format(clock: Clock, nanoseconds: i64) -> String {
    let DateTimeParts { date: (year, month, day), clock: (h, m, s), fraction } = parts(nanoseconds);
    match clock {
        Clock::Time => format!("{h:02}:{m:02}:{s:02}.{fraction:09}"),
        Clock::TimeSeconds => format!("{h:02}:{m:02}:{s:02}"),
        Clock::Iso8601 => format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{fraction:09}+0000"),
        Clock::DateTime => format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}.{fraction:09}"),
        Clock::DateTimeSeconds => format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}"),
    }
}

/// Formats a time for people: `2026-11-23 03:45:32Z`.
pub fn utc_seconds(nanoseconds: i64) -> String {
    format(Clock::DateTimeSeconds, nanoseconds) + "Z"
}

/// Formats a time for people: `2026-11-23 03:45:32.270Z`.
pub fn utc_milliseconds(nanoseconds: i64) -> String {
    let mut text = format(Clock::DateTime, nanoseconds);
    text.truncate("2026-11-23 03:45:32.270".len());
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_timestamps_of_the_apiserver() {
        assert_eq!(parse(b"2026-11-23T03:45:32.270783Z"), Some(1_795_405_532_270_783_000));
        assert_eq!(parse(b"2018-10-26T13:42:46Z"), Some(1_540_561_366_000_000_000));
        assert_eq!(parse(b"2026-11-23T05:45:32.27+02:00"), Some(1_795_405_532_270_000_000));
        for wrong in [&b"2026-13-23T03:45:32Z"[..], b"2026-11-23T03:45:32", b"now", b"9999-99-99T99:99:99Z"] {
            assert_eq!(parse(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn dates_agree_with_jiff(nanoseconds in 0_i64..4_000_000_000_000_000_000) {
            let time = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap();
            let mut text = Vec::new();
            write_rfc3339(&mut text, nanoseconds);
            prop_assert_eq!(parse(&text), Some(nanoseconds));
            prop_assert_eq!(String::from_utf8(text).unwrap(), format!("{time:.9}"));
        }
    }
}
