//! Records when alerts were delivered to a receiver that resolves them on its own, and until when they are active there.
//!
//! Takes deliveries in the order of the alerts, and returns the end of each alert's activity, which is the same for every query, also after
//! a restart. Ends are stored per period, not per alert: all alerts delivered within a period have the same end. This bounds the memory and
//! the small file, whatever the number of alerts.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Length of a period, as a fraction of the time for which alerts are active. An alert ends at most this much too early.
const PERIODS: i64 = 256;

/// Maximum number of periods that are stored. More than [`PERIODS`] are only active after the configured time was shortened.
const MAX_PERIODS: usize = 1024;

/// The deliveries of one sink.
#[derive(Debug)]
pub(crate) struct Deliveries {
    /// How long an alert is active after its delivery, in nanoseconds.
    active_for: i64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Ordered by `first`. An alert belongs to the last one that does not begin after it.
    periods: VecDeque<Period>,
    /// The file; `None` if deliveries are not kept across restarts.
    path: Option<PathBuf>,
    /// The file does not contain the latest period yet.
    is_unsaved: bool,
}

/// Deliveries of alerts with the same end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    /// `seq` of the first alert.
    first: i64,
    /// Time of its delivery, in unix nanoseconds.
    start: i64,
    /// When the alerts end, in unix nanoseconds.
    pub(crate) ends: i64,
}

/// The file with the deliveries of a sink.
pub(crate) fn file(dir: &Path, sink: &str) -> PathBuf {
    let mut name = String::from("delivered-");
    for byte in sink.bytes() {
        match byte {
            b'-' | b'_' => name.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => name.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(name, "%{byte:02X}")),
        }
    }
    dir.join(name)
}

impl Deliveries {
    /// Keeps deliveries in memory only.
    pub(crate) fn new(active_for: Duration) -> Self {
        let active_for = i64::try_from(active_for.as_nanos()).unwrap_or(i64::MAX);
        Deliveries { active_for, state: Mutex::default() }
    }

    /// Stores deliveries in a file from now on, and continues with those in it.
    ///
    /// # Errors
    ///
    /// If the file exists and cannot be read. Its content is then lost.
    pub(crate) fn keep_in(&self, path: PathBuf) -> io::Result<()> {
        let content = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            other => other,
        };
        let mut state = self.state();
        state.path = Some(path);
        state.periods.clear();
        for period in content?.lines().filter_map(parse).take(MAX_PERIODS) {
            if state.periods.back().is_none_or(|last| last.first < period.first) {
                state.periods.push_back(period);
            }
        }
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When alerts delivered now will end.
    pub(crate) fn ends(&self, now: i64) -> i64 {
        let ends = now.saturating_add(self.active_for);
        match self.state().periods.back() {
            Some(last) if (0..self.active_for / PERIODS).contains(&(ends.saturating_sub(last.ends))) => {
                last.ends
            }
            _ => ends,
        }
    }

    /// Records a delivery that begins with this alert. Returns whether the change must be [saved](Self::save).
    pub(crate) fn record(&self, first: i64, ends: i64, now: i64) -> bool {
        let mut state = self.state();
        let periods = &mut state.periods;
        // Alerts that are delivered again end later.
        while periods.back().is_some_and(|last| last.first >= first) {
            periods.pop_back();
        }
        if periods.back().is_none_or(|last| last.ends != ends) {
            periods.push_back(Period { first, start: ends.saturating_sub(self.active_for), ends });
            while periods.front().is_some_and(|period| period.ends <= now) {
                periods.pop_front();
            }
            if periods.len() > MAX_PERIODS {
                // The receiver corrects an end that is too early, because it knows the later one, but not one that is too late.
                let merged = periods.remove(1);
                if let (Some(oldest), Some(merged)) = (periods.front_mut(), merged) {
                    oldest.ends = oldest.ends.min(merged.ends);
                }
            }
            state.is_unsaved = true;
        }
        state.is_unsaved && state.path.is_some()
    }

    /// Writes the file. May block for the time of a disk access.
    ///
    /// # Errors
    /// If it cannot be written. The next delivery tries again.
    pub(crate) fn save(&self) -> io::Result<()> {
        let mut state = self.state();
        let Some(path) = state.path.clone() else { return Ok(()) };
        let new =
            path.with_file_name(format!("{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
        let lines =
            state.periods.iter().map(|Period { first, start, ends }| format!("{first} {start} {ends}\n"));
        std::fs::write(&new, lines.collect::<String>())?;
        std::fs::rename(&new, &path)?;
        state.is_unsaved = false;
        Ok(())
    }

    /// The period in which an alert was delivered, if it was. `seq` must be below the cursor of the sink.
    pub(crate) fn of(&self, seq: i64) -> Option<Period> {
        let state = self.state();
        let after = state.periods.partition_point(|period| period.first <= seq);
        after.checked_sub(1).and_then(|at| state.periods.get(at)).copied()
    }

    /// `seq` of the first alert that may be active.
    pub(crate) fn first_active(&self, now: i64) -> Option<i64> {
        self.state().periods.iter().find(|period| period.ends > now).map(|period| period.first)
    }

    /// Whether an alert stored at this time can have been delivered in a period. If not, it is a dead letter.
    pub(crate) fn contains(&self, period: &Period, stored: i64) -> bool {
        stored <= period.start.saturating_add(self.active_for / PERIODS)
    }
}

fn parse(line: &str) -> Option<Period> {
    let mut numbers = line.split(' ').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Period { first: next()?, start: next()?, ends: next()? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// Alerts are active for 256 s, so a period is one second long.
    fn deliveries() -> Deliveries {
        Deliveries::new(Duration::from_secs(256))
    }

    fn deliver(deliveries: &Deliveries, first: i64, now: i64) -> i64 {
        let ends = deliveries.ends(now);
        deliveries.record(first, ends, now);
        ends
    }

    fn ends(deliveries: &Deliveries, seq: i64) -> Option<i64> {
        deliveries.of(seq).map(|period| period.ends)
    }

    #[test]
    fn alerts_of_a_period_end_together() {
        let deliveries = deliveries();
        let first = deliver(&deliveries, 10, 0);
        assert_eq!((first, deliver(&deliveries, 12, SECOND - 1)), (256 * SECOND, 256 * SECOND));
        let second = deliver(&deliveries, 20, SECOND);
        assert_eq!(second, 257 * SECOND);
        assert_eq!(
            [9, 10, 19, 20, 99].map(|seq| ends(&deliveries, seq)),
            [None, Some(first), Some(first), Some(second), Some(second)]
        );
        assert_eq!(
            [0, 256 * SECOND, second].map(|now| deliveries.first_active(now)),
            [Some(10), Some(20), None]
        );
        let period = deliveries.of(10).unwrap();
        assert!(deliveries.contains(&period, SECOND) && !deliveries.contains(&period, SECOND + 1));
    }

    #[test]
    fn a_repeated_delivery_replaces_the_first() {
        let deliveries = deliveries();
        deliver(&deliveries, 10, 0);
        deliver(&deliveries, 20, 2 * SECOND);
        let again = deliver(&deliveries, 15, 3 * SECOND);
        assert_eq!(
            [14, 15, 20].map(|seq| ends(&deliveries, seq)),
            [Some(256 * SECOND), Some(again), Some(again)]
        );
        // After the clock was set back, new periods are computed from the new time.
        assert_eq!(deliver(&deliveries, 30, SECOND), 257 * SECOND);
    }

    #[test]
    fn a_file_keeps_them_and_a_damaged_one_keeps_what_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "a b/c");
        assert_eq!(path.file_name().unwrap(), "delivered-a%20b%2Fc");
        let first = deliveries();
        first.keep_in(path.clone()).unwrap();
        assert!(first.record(10, 256 * SECOND, 0) && first.record(11, 256 * SECOND, 0));
        first.save().unwrap();
        assert!(!first.record(12, 256 * SECOND, 0) && first.record(20, 300 * SECOND, 0));
        first.save().unwrap();
        let second = deliveries();
        second.keep_in(path.clone()).unwrap();
        assert_eq!([10, 20].map(|seq| second.of(seq)), [10, 20].map(|seq| first.of(seq)));
        std::fs::write(&path, "10 0 100\nx\n5 0 900\n20 0 200\n30 0").unwrap();
        second.keep_in(path).unwrap();
        assert_eq!([5, 10, 40].map(|seq| ends(&second, seq)), [None, Some(100), Some(200)]);
    }

    #[test]
    fn the_number_of_periods_is_bounded() {
        let deliveries = deliveries();
        let count = i64::try_from(MAX_PERIODS).unwrap() + 10;
        for seq in 1..=count {
            // The alerts were active for a longer time before.
            deliveries.record(seq, 100_000 * SECOND + seq, 0);
        }
        assert_eq!(deliveries.state().periods.len(), MAX_PERIODS);
        assert_eq!(
            [1, 11, 12, count].map(|seq| ends(&deliveries, seq).unwrap() - 100_000 * SECOND),
            [1, 1, 12, count]
        );
        deliver(&deliveries, count + 1, 200_000 * SECOND);
        assert_eq!(deliveries.state().periods.len(), 1);
        assert_eq!(deliveries.of(count), None);
    }
}
