//! Detects sources whose records are mostly or entirely something other than audit events.
//!
//! Takes the counts of each batch; returns when a source becomes degraded, stays degraded, or recovers. A detector that reads the wrong
//! input reports nothing, which looks the same as a quiet cluster, so this state is logged, exported as a metric and shown by `/readyz`.

use std::time::{Duration, Instant};

use crate::detection::detector::Stats;

/// Maximum number of records in a window.
const MAX_WINDOW_RECORDS: u64 = 1000;

/// Number of records after which the first window ends if none of them is an audit event.
const FIRST_WINDOW_RECORDS: u64 = 10;

/// Maximum duration of a window that contains records of unknown kinds.
const WINDOW_TIME: Duration = Duration::from_secs(5);

/// Maximum duration of a window with only known kinds of other records. It is longer, because a cloud service's export that several logs
/// share may contain no audit event for a while.
const QUIET_WINDOW_TIME: Duration = Duration::from_secs(60);

/// Time between two log lines about a source that stays degraded.
const REPEAT_INTERVAL: Duration = Duration::from_secs(3600);

/// The result of a check of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    Unchanged,
    /// The source is degraded, with this description and whether to log it.
    Degraded(String, bool),
    /// Its records are audit events again.
    Recovered,
}

/// The counts of one source in its current window.
#[derive(Debug, Default)]
pub(super) struct EventYield {
    window: Stats,
    started: Option<Instant>,
    is_decided: bool,
    /// When it was last logged; present while the source is degraded.
    degraded: Option<Instant>,
}

impl EventYield {
    /// Adds the counts of a batch.
    pub(super) fn add(&mut self, counts: &Stats, now: Instant) -> Verdict {
        if counts.events == 0 && counts.records_without_event() == 0 {
            return Verdict::Unchanged;
        }
        self.started.get_or_insert(now);
        self.window.events += counts.events;
        self.window.add(&Stats {
            malformed: counts.malformed.clone(),
            skipped: counts.skipped.clone(),
            shapes: counts.shapes.clone(),
            ..Stats::default()
        });
        self.check(now)
    }

    /// When [`EventYield::check`] has to be called if no further record arrives.
    pub(super) fn next_check(&self) -> Option<Instant> {
        let started = self.started?;
        (self.window.records_without_event() > 0).then(|| started + self.window_time())
    }

    fn window_time(&self) -> Duration {
        if self.window.foreign_records() > 0 { WINDOW_TIME } else { QUIET_WINDOW_TIME }
    }

    /// If the current window is complete, returns its result and starts the next window.
    pub(super) fn check(&mut self, now: Instant) -> Verdict {
        let Some(started) = self.started else { return Verdict::Unchanged };
        let (events, foreign) = (self.window.events, self.window.foreign_records());
        let is_old = now.saturating_duration_since(started) >= self.window_time();
        let is_first = !self.is_decided && events == 0 && foreign >= FIRST_WINDOW_RECORDS;
        let is_recovery = self.degraded.is_some() && events > foreign;
        if !is_old && !is_first && !is_recovery && events + foreign < MAX_WINDOW_RECORDS {
            return Verdict::Unchanged;
        }
        let window = std::mem::take(&mut self.window);
        self.started = None;
        self.is_decided = true;
        let is_degraded = foreign > events || window.is_without_events();
        match (is_degraded, self.degraded) {
            (true, last) => {
                let is_due = last.is_none_or(|at| now.saturating_duration_since(at) >= REPEAT_INTERVAL);
                if is_due {
                    self.degraded = Some(now);
                }
                Verdict::Degraded(window.describe_non_events(), is_due)
            }
            (false, Some(_)) => {
                self.degraded = None;
                Verdict::Recovered
            }
            (false, None) => Verdict::Unchanged,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::detection::audit::envelope::skipped;
    use crate::detection::detector::malformed;

    fn batch(events: u64, not_json: u64, other_kind: u64) -> Stats {
        let mut stats = Stats { events, ..Stats::default() };
        if not_json > 0 {
            stats.malformed.insert(malformed::NOT_JSON, not_json);
        }
        if other_kind > 0 {
            stats.skipped.insert(skipped::OTHER_KIND, other_kind);
        }
        stats
    }

    fn is_logged(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Degraded(_, true))
    }

    #[test]
    fn a_source_without_events_is_logged_once_and_then_every_hour() {
        let start = Instant::now();
        let mut one = EventYield::default();
        assert!(is_logged(&one.add(&batch(0, 10, 0), start)));
        for second in 1..3600 {
            let verdict = one.add(&batch(0, 1000, 0), start + Duration::from_secs(second));
            assert!(matches!(verdict, Verdict::Degraded(_, false)), "{second}");
        }
        assert!(is_logged(&one.add(&batch(0, 1000, 0), start + Duration::from_secs(3600))));
        assert_eq!(one.add(&batch(1, 0, 0), start + Duration::from_secs(3601)), Verdict::Recovered);
        assert_eq!(one.add(&batch(1, 0, 0), start + Duration::from_secs(3602)), Verdict::Unchanged);
    }

    #[test]
    fn one_foreign_record_counts_when_nothing_else_arrives() {
        let start = Instant::now();
        let mut one = EventYield::default();
        assert_eq!(one.next_check(), None);
        assert_eq!(one.add(&batch(0, 1, 0), start), Verdict::Unchanged);
        assert_eq!(one.next_check(), Some(start + WINDOW_TIME));
        assert!(is_logged(&one.check(start + WINDOW_TIME)));
    }

    #[test]
    fn the_majority_of_a_window_decides() {
        let start = Instant::now();
        let mut one = EventYield::default();
        assert_eq!(one.add(&batch(600, 400, 0), start), Verdict::Unchanged);
        assert!(is_logged(&one.add(&batch(400, 600, 0), start)));
        let mut mixed = EventYield::default();
        assert_eq!(mixed.add(&batch(1, 0, 1_000_000), start), Verdict::Unchanged);
        assert_eq!(mixed.check(start + QUIET_WINDOW_TIME), Verdict::Unchanged, "an export of many logs");
        assert_eq!(mixed.add(&batch(0, 0, 50), start), Verdict::Unchanged);
        assert!(is_logged(&mixed.check(start + QUIET_WINDOW_TIME)), "no event at all");
    }
}
