//! Sliding windows: the interval around an observation that satisfies the condition and ends first.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::{CorrelationStats, Digest, Fired, Observation};
use super::{Entry, Group, GroupSpec};
use crate::detection::alert::AlertId;
use crate::detection::rules::ast::CorrelationKind;

/// Maximum number of suppressed intervals of a group. More exist only with an allowed lateness of hours; then the
/// oldest is dropped, and a window there may fire again.
pub(super) const MAX_SUPPRESSED_INTERVALS: usize = 256;

impl Group {
    /// Adds an observation; returns the window that it completed.
    pub fn observe(
        &mut self,
        spec: &GroupSpec,
        observation: &Observation,
        stats: &mut CorrelationStats,
    ) -> Option<Fired> {
        if !self.admit(spec, observation, stats) {
            return None;
        }
        let time = observation.time;
        if self.suppressed.range(..=time).next_back().is_some_and(|(_, until)| time <= *until) {
            return None;
        }
        let range = self.search(spec, time)?;
        let start = self.entries.get(range.start).map_or(time, |first| first.time);
        let end = self.entries.get(range.end - 1).map_or(time, |last| last.time);
        self.has_fired(spec, start, end);
        let mut fired = self.describe(spec, range, end.saturating_sub(spec.timespan));
        fired.time = time;
        Some(fired)
    }

    /// Adds an observation without searching for a window. Returns false if it does not count.
    pub fn admit(
        &mut self,
        spec: &GroupSpec,
        observation: &Observation,
        stats: &mut CorrelationStats,
    ) -> bool {
        if let Some(newest) = self.newest {
            let behind = newest.saturating_sub(observation.time);
            stats.late += u64::from(behind > spec.allowed_lateness);
            if behind > spec.horizon() {
                stats.too_late += 1;
                return false;
            }
        }
        if !self.insert(spec, observation, stats) {
            return false;
        }
        self.drop_expired(spec);
        if self.entries.len() > spec.capacity() {
            self.compact(spec, stats);
        }
        true
    }

    /// Records that a window fired, from its first observation to its last.
    pub fn has_fired(&mut self, spec: &GroupSpec, first: i64, last: i64) {
        self.suppress(first.saturating_sub(spec.timespan), last.saturating_add(spec.timespan));
        while self.suppressed.len() > MAX_SUPPRESSED_INTERVALS {
            self.suppressed.pop_first();
        }
    }

    /// Drops entries and suppressed intervals that no observation within the allowed lateness can reach.
    pub(super) fn drop_expired(&mut self, spec: &GroupSpec) {
        let Some(newest) = self.newest else { return };
        let latest = newest.saturating_sub(spec.horizon());
        self.drop_oldest(self.index_at(latest.saturating_sub(spec.timespan)));
        while self.suppressed.len() > MAX_SUPPRESSED_INTERVALS
            || self.suppressed.first_key_value().is_some_and(|(_, until)| *until < latest)
        {
            self.suppressed.pop_first();
        }
    }

    /// Suppresses an interval. Overlapping intervals are merged, so that continuous activity needs only one.
    fn suppress(&mut self, mut from: i64, mut until: i64) {
        while let Some((&start, &end)) =
            self.suppressed.range(..=until).next_back().filter(|(_, end)| **end >= from)
        {
            self.suppressed.remove(&start);
            from = from.min(start);
            until = until.max(end);
        }
        self.suppressed.insert(from, until);
    }

    /// The window that contains this time, satisfies the condition and ends first.
    fn search(&self, spec: &GroupSpec, time: i64) -> Option<Range<usize>> {
        let enough = match spec.kind {
            CorrelationKind::EventCount => self.entries.len() >= spec.needed(),
            _ => self.values.len() >= spec.needed(),
        };
        if !enough {
            return None;
        }
        if spec.kind == CorrelationKind::EventCount {
            return self.search_count(spec, time);
        }
        let mut tally = Tally::new(spec);
        let mut left = self.index_at(time.saturating_sub(spec.timespan));
        let mut right = left;
        while let Some(last) = self.entries.get(right) {
            let end = last.time;
            let from = end.saturating_sub(spec.timespan);
            if from > time {
                break;
            }
            while let Some(entry) = self.entries.get(right).filter(|entry| entry.time == end) {
                tally.add(entry);
                right += 1;
            }
            while let Some(entry) = self.entries.get(left).filter(|entry| entry.time < from) {
                tally.remove(entry);
                left += 1;
            }
            if end >= time && tally.is_enough(from) {
                return Some(left..right);
            }
        }
        None
    }

    /// Search for conditions on the number of observations, which takes two binary searches per candidate.
    fn search_count(&self, spec: &GroupSpec, time: i64) -> Option<Range<usize>> {
        let mut right = self.index_after(time);
        loop {
            let end = self.entries.get(right.checked_sub(1)?)?.time;
            let from = end.saturating_sub(spec.timespan);
            if from > time {
                return None;
            }
            let left = self.index_at(from);
            if right - left >= spec.needed() {
                return Some(left..right);
            }
            right = self.index_after(self.entries.get(right)?.time);
        }
    }
}

/// The content of the interval while the search moves it.
enum Tally {
    /// Number of observations of each value, and the required number of distinct values.
    Values(BTreeMap<Digest, u32>, usize),
    /// The same, with the number of observations of each alert, and the required number of alerts.
    ValuesOfAlerts(BTreeMap<Digest, u32>, usize, BTreeMap<AlertId, u32>, usize),
    /// For each source, the latest start of a sequence that reached it.
    Sequence(Vec<Option<i64>>),
}

impl Tally {
    fn new(spec: &GroupSpec) -> Self {
        match spec.kind {
            CorrelationKind::TemporalOrdered => Tally::Sequence(vec![None; spec.feeds]),
            CorrelationKind::ValueCount if spec.min_alerts > 1 => {
                Tally::ValuesOfAlerts(BTreeMap::new(), spec.needed(), BTreeMap::new(), spec.min_alerts)
            }
            _ => Tally::Values(BTreeMap::new(), spec.needed()),
        }
    }

    fn add(&mut self, entry: &Entry) {
        match self {
            Tally::Values(values, _) => *values.entry(entry.value).or_default() += 1,
            Tally::ValuesOfAlerts(values, _, alerts, _) => {
                *values.entry(entry.value).or_default() += 1;
                *alerts.entry(entry.id).or_default() += 1;
            }
            Tally::Sequence(starts) => {
                let source = entry.source as usize;
                let start = match source.checked_sub(1) {
                    None => Some(entry.time),
                    Some(before) => starts.get(before).copied().flatten(),
                };
                if let Some(own) = starts.get_mut(source) {
                    *own = start.or(*own);
                }
            }
        }
    }

    fn remove(&mut self, entry: &Entry) {
        // Sequences that start too early are recognized by their start time.
        match self {
            Tally::Values(values, _) => subtract(values, &entry.value),
            Tally::ValuesOfAlerts(values, _, alerts, _) => {
                subtract(values, &entry.value);
                subtract(alerts, &entry.id);
            }
            Tally::Sequence(_) => {}
        }
    }

    fn is_enough(&self, from: i64) -> bool {
        match self {
            Tally::Values(values, needed) => values.len() >= *needed,
            Tally::ValuesOfAlerts(values, needed, alerts, min_alerts) => {
                values.len() >= *needed && alerts.len() >= *min_alerts
            }
            Tally::Sequence(starts) => {
                starts.last().is_some_and(|start| start.is_some_and(|start| start >= from))
            }
        }
    }
}

/// Decrements the count of a key.
fn subtract<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
