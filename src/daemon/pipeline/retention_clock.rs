//! A clock for retention by age that does not immediately follow jumps of the wall clock.
//!
//! Takes the wall clock and the monotonic clock, and returns the time from which ages are counted. A wall clock that is set 400 days ahead
//! by mistake must not delete all alerts. So a jump, even between two runs, is only accepted after the process has run for [`CONFIRMATION`]
//! with it; until then time advances as before. The state is stored, so that restarts neither confirm a jump nor start the confirmation
//! again.

use std::time::{Duration, Instant};

use crate::detection::state::StateChange;

/// Time that the process must run after a jump until the new time is accepted.
const CONFIRMATION: Duration = Duration::from_secs(24 * 3600);

/// Maximum deviation between wall clock and monotonic clock that does not count as a jump: time synchronization, and the time between the
/// two runs of a restart.
const TOLERANCE: Duration = Duration::from_secs(600);

/// Kind of the stored state's only entry.
pub(super) const KIND: &str = "retention_clock";

#[derive(Debug)]
pub(super) struct RetentionClock {
    /// The last accepted time, in nanoseconds since 1970-01-01T00:00:00Z.
    believed: i64,
    /// When `believed` was set.
    updated: Instant,
    /// How long the process has run since the wall clock jumped; zero if it did not.
    unconfirmed: Duration,
    is_jump_logged: bool,
}

impl RetentionClock {
    /// Starts with the stored state or, for a store without one, with the time of its latest alert.
    pub(super) fn new(stored: Option<&[u8]>, latest_alert: Option<i64>, now: i64, at: Instant) -> Self {
        let parsed = stored.and_then(parse);
        let (believed, unconfirmed) = parsed.unwrap_or((latest_alert.unwrap_or(now), Duration::ZERO));
        RetentionClock { believed, updated: at, unconfirmed, is_jump_logged: false }
    }

    /// The time from which ages are counted, which is never later than the wall clock.
    pub(super) fn observe(&mut self, now: i64, at: Instant) -> i64 {
        let elapsed = at.saturating_duration_since(self.updated);
        self.updated = at;
        let expected = self.believed.saturating_add(nanos(elapsed));
        let deviation = now.saturating_sub(expected);
        if deviation.unsigned_abs() <= TOLERANCE.as_nanos().try_into().unwrap_or(u64::MAX) {
            self.believed = now;
            self.unconfirmed = Duration::ZERO;
            self.is_jump_logged = false;
            return now;
        }
        self.unconfirmed += elapsed;
        if self.unconfirmed >= CONFIRMATION {
            self.believed = now;
            self.unconfirmed = Duration::ZERO;
            self.is_jump_logged = false;
            return now;
        }
        if !self.is_jump_logged {
            self.is_jump_logged = true;
            tracing::warn!(
                seconds = deviation / 1_000_000_000,
                "the clock jumped, or pullwatch was stopped for long: retention by age uses the previous time for the next 24 hours"
            );
        }
        self.believed = expected;
        expected.min(now)
    }

    /// The state change that stores this clock.
    pub(super) fn to_change(&self) -> StateChange {
        let seconds = self.unconfirmed.as_secs().to_be_bytes();
        let value = [&self.believed.to_be_bytes()[..], &seconds].concat();
        StateChange { kind: KIND, key: Vec::new(), value: Some(value) }
    }
}

fn parse(stored: &[u8]) -> Option<(i64, Duration)> {
    let (believed, seconds) = stored.split_first_chunk::<8>()?;
    let seconds = u64::from_be_bytes(seconds.try_into().ok()?);
    Some((i64::from_be_bytes(*believed), Duration::from_secs(seconds.min(CONFIRMATION.as_secs()))))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: i64 = 24 * 3_600_000_000_000;
    const NOW: i64 = 20_000 * DAY;

    #[test]
    fn follows_a_clock_that_does_not_jump() {
        let start = Instant::now();
        let mut clock = RetentionClock::new(None, None, NOW, start);
        for hours in 1..50 {
            let now = NOW + nanos(HOUR) * i64::from(hours) + 1_000_000_000;
            assert_eq!(clock.observe(now, start + HOUR * hours), now);
        }
    }

    #[test]
    fn believes_a_jump_ahead_only_after_a_day() {
        let start = Instant::now();
        let mut clock = RetentionClock::new(None, None, NOW, start);
        let jumped = NOW + 400 * DAY;
        for hours in 0..24 {
            let elapsed = nanos(HOUR) * i64::from(hours);
            assert_eq!(clock.observe(jumped + elapsed, start + HOUR * hours), NOW + elapsed);
        }
        let day_later = jumped + DAY;
        assert_eq!(clock.observe(day_later, start + HOUR * 24), day_later);
    }

    #[test]
    fn a_clock_that_is_set_back_right_away_has_no_effect() {
        let start = Instant::now();
        let mut clock = RetentionClock::new(None, None, NOW, start);
        assert_eq!(clock.observe(NOW + 400 * DAY, start), NOW);
        let later = NOW + nanos(HOUR);
        assert_eq!(clock.observe(later, start + HOUR), later);
        // The confirmation of a second jump starts from the beginning.
        assert!(clock.observe(NOW + 400 * DAY, start + HOUR * 24) < NOW + 2 * DAY);
    }

    #[test]
    fn a_jump_back_counts_at_once_and_the_way_forward_too() {
        let start = Instant::now();
        let mut clock = RetentionClock::new(None, None, NOW, start);
        assert_eq!(clock.observe(0, start), 0);
        let later = NOW + nanos(HOUR);
        assert_eq!(clock.observe(later, start + HOUR), later);
    }

    #[test]
    fn restarts_neither_confirm_a_jump_nor_start_over() {
        let start = Instant::now();
        let mut stored = RetentionClock::new(None, Some(NOW), NOW, start).to_change().value.unwrap();
        for day in 0..4 {
            // Each run lasts for eight hours, with a clock that is 400 days ahead.
            let mut clock = RetentionClock::new(Some(&stored), None, NOW + 400 * DAY, start);
            let time = clock.observe(NOW + 400 * DAY, start + HOUR * 8);
            assert_eq!(time < NOW + 2 * DAY, day < 2, "run {day}");
            stored = clock.to_change().value.unwrap();
        }
        assert_eq!(parse(&stored[1..]), None);
    }
}
