//! One group of observations, and the search for a window in it.

mod eviction;
mod persist;
mod sliding;
mod tumbling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::{
    AlertId, CorrelationStats, Digest, Fired, MAX_IDS, MAX_VALUE_BYTES, MAX_VALUES, MIN_GROUP_CAPACITY,
    Observation,
};
use crate::detection::rules::ast::{Bounds, Correlation, CorrelationKind};

pub use persist::StoredPart;
use persist::StoredParts;

/// The part of a correlation's definition that groups need.
#[derive(Clone, Copy, Debug)]
pub struct GroupSpec {
    pub kind: CorrelationKind,
    /// Number of rules that feed it.
    pub feeds: usize,
    /// In nanoseconds.
    pub timespan: i64,
    pub bounds: Bounds,
    /// Minimum number of alerts in a window whose values are counted.
    pub min_alerts: usize,
    /// In nanoseconds.
    pub allowed_lateness: i64,
}

impl GroupSpec {
    pub fn new(correlation: &Correlation, allowed_lateness: i64) -> Self {
        GroupSpec {
            kind: correlation.kind,
            feeds: correlation.feeds.len(),
            timespan: correlation.timespan.max(1),
            bounds: correlation.bounds,
            min_alerts: usize::try_from(correlation.min_alerts).unwrap_or(usize::MAX),
            allowed_lateness: allowed_lateness.max(0),
        }
    }

    /// Whether the condition can only be evaluated on window close, because it has an upper bound.
    pub fn is_tumbling(&self) -> bool {
        self.stats() && self.bounds.at_most.is_some()
    }

    fn stats(&self) -> bool {
        matches!(self.kind, CorrelationKind::EventCount | CorrelationKind::ValueCount)
    }

    /// Number of observations, distinct values or rules that satisfies the condition.
    fn needed(&self) -> usize {
        if self.stats() {
            usize::try_from(self.bounds.at_least.max(1)).unwrap_or(usize::MAX)
        } else {
            self.feeds
        }
    }

    /// Maximum number of entries in one group, sufficient for any number in the condition.
    pub fn capacity(&self) -> usize {
        let most = self.bounds.at_most.unwrap_or(0).saturating_add(1);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.needed().max(most).saturating_mul(2).max(MIN_GROUP_CAPACITY)
    }

    /// How much older than the group's newest an observation may be, in nanoseconds.
    fn horizon(&self) -> i64 {
        self.timespan.max(self.allowed_lateness)
    }
}

/// Capacity, in entries, that is not worth releasing.
const MIN_CAPACITY: usize = 16;

/// One observation, or one value of one. Sorted by time, and within a nanosecond by source, so that all steps of a sequence may have the
/// same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    time: i64,
    /// What has to be distinct: the value, or the source if rules are counted; constant otherwise.
    value: Digest,
    id: AlertId,
    source: u32,
}

/// The state of one group.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Sorted.
    entries: VecDeque<Entry>,
    /// Number of entries with each value.
    values: BTreeMap<Digest, u32>,
    /// The text of some values.
    texts: BTreeMap<Digest, Box<[u8]>>,
    /// Notes by event time; at most one per window.
    notes: BTreeMap<i64, Box<[u8]>>,
    newest: Option<i64>,
    /// Suppressed intervals, from start to end: a window fired there, and no other may.
    suppressed: BTreeMap<i64, i64>,
    /// End of the last tumbling window that closed.
    closed_until: Option<i64>,
    /// Time of the newest dropped entry that may have affected a window.
    dropped_until: Option<i64>,
    /// How the group is stored; none if it is not stored.
    parts: Option<Box<StoredParts>>,
}

impl Group {
    /// Memory use, in entries.
    pub fn weight(&self) -> usize {
        const ENTRY: usize = size_of::<Entry>();
        let bytes: usize =
            self.texts.values().chain(self.notes.values()).map(|text| text.len() + ENTRY).sum();
        // An empty group takes some 400 bytes.
        8 + self.entries.len() + self.values.len() + self.suppressed.len() + bytes / ENTRY
    }

    /// The time after which no content of the group can affect an observation; none while a tumbling window is open.
    pub fn end(&self, spec: &GroupSpec) -> Option<i64> {
        if spec.is_tumbling() && !self.entries.is_empty() {
            return None;
        }
        let suppressed = self.suppressed.last_key_value().map(|(_, until)| *until);
        let last = self.newest.max(self.closed_until).max(suppressed).unwrap_or(i64::MIN);
        Some(last.saturating_add(spec.timespan).saturating_add(spec.allowed_lateness))
    }

    /// The fraction of the condition's requirements that the group satisfies, in thousandths. Groups of a higher rank are evicted later.
    ///
    /// It is 0 for a group that satisfies less than half of the requirements and fewer than two, so that there is always room for new
    /// groups; for groups that fired, since losing them can only repeat an alert; and for tumbling windows, which all matter equally.
    pub fn rank(&self, spec: &GroupSpec) -> u32 {
        let is_suppressed = self.newest.is_some_and(|newest| {
            self.suppressed.range(..=newest).next_back().is_some_and(|(_, until)| newest <= *until)
        });
        if spec.is_tumbling() || is_suppressed {
            return 0;
        }
        let needed = spec.needed();
        let progress = match spec.kind {
            CorrelationKind::EventCount => self.entries.len(),
            CorrelationKind::ValueCount | CorrelationKind::Temporal => self.values.len(),
            // A sequence has to start with its first rule.
            CorrelationKind::TemporalOrdered => {
                let sources = u32::try_from(spec.feeds).unwrap_or(u32::MAX);
                (0..sources).take_while(|&source| self.values.contains_key(&Digest::number(source))).count()
            }
        }
        .min(needed);
        if progress < 2 && progress.saturating_mul(2) < needed {
            return 0;
        }
        let thousandths = progress as u128 * 1000 / needed.max(1) as u128;
        u32::try_from(thousandths).unwrap_or(1000).max(u32::from(progress > 0))
    }

    /// Adds an observation. Returns false if it does not count.
    fn insert(&mut self, spec: &GroupSpec, observation: &Observation, stats: &mut CorrelationStats) -> bool {
        let (time, id) = (observation.time, observation.id);
        let source = u32::try_from(observation.source).unwrap_or(u32::MAX);
        let mut is_new = false;
        let mut add = |group: &mut Group, value: Digest| {
            let entry = Entry { time, value, id, source };
            let Err(at) = group.entries.binary_search(&entry) else { return };
            group.entries.insert(at, entry);
            if let Some(parts) = &mut group.parts {
                parts.entry_added(&entry);
            }
            if spec.kind != CorrelationKind::EventCount {
                *group.values.entry(value).or_default() += 1;
            }
            is_new = true;
        };
        match spec.kind {
            CorrelationKind::EventCount => add(self, Digest::default()),
            CorrelationKind::Temporal | CorrelationKind::TemporalOrdered => add(self, Digest::number(source)),
            CorrelationKind::ValueCount => {
                for text in observation.values.iter().take(spec.capacity()) {
                    let value = Digest::of(&[text]);
                    add(self, value);
                    if self.texts.len() < MAX_VALUES && !self.texts.contains_key(&value) {
                        self.texts.insert(value, text[..text.len().min(MAX_VALUE_BYTES)].into());
                        self.note_change(StoredParts::texts_changed);
                    }
                }
                let too_many = observation.values.len().saturating_sub(spec.capacity());
                if too_many > 0 {
                    stats.dropped += too_many as u64;
                    self.dropped_until = self.dropped_until.max(Some(time));
                }
                if observation.values.is_empty() {
                    return false;
                }
            }
        }
        if is_new {
            self.newest = self.newest.max(Some(time));
        } else {
            stats.repeated += 1;
        }
        is_new
    }

    fn retain(&mut self, mut keep: impl FnMut(usize, &Entry) -> bool) {
        let mut at = 0;
        let (values, texts) = (&mut self.values, &mut self.texts);
        self.entries.retain(|entry| {
            let kept = keep(at, entry);
            at += 1;
            if !kept {
                release_value(values, texts, entry.value);
            }
            kept
        });
        self.note_change(StoredParts::all_changed);
    }

    fn drop_oldest(&mut self, count: usize) {
        let known = self.texts.len();
        for entry in self.entries.drain(..count.min(self.entries.len())) {
            release_value(&mut self.values, &mut self.texts, entry.value);
        }
        if self.texts.len() < known {
            self.note_change(StoredParts::texts_changed);
        }
        // The weight only covers entries in use, so the capacity of groups that used to be full must be released.
        if self.entries.capacity() / 4 > self.entries.len().max(MIN_CAPACITY) {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    fn note_change(&mut self, what: fn(&mut StoredParts)) {
        if let Some(parts) = &mut self.parts {
            what(parts);
        }
    }

    /// Index of the first entry at this time or later.
    fn index_at(&self, time: i64) -> usize {
        self.entries.partition_point(|entry| entry.time < time)
    }

    /// Index of the first entry after this time.
    fn index_after(&self, time: i64) -> usize {
        self.entries.partition_point(|entry| entry.time <= time)
    }

    /// Describes a window that starts at `from`, which may be before its first entry. The caller sets the remaining members.
    fn describe(&self, spec: &GroupSpec, range: Range<usize>, from: i64) -> Fired {
        let entries = || self.entries.range(range.clone());
        let (first, last) = match (entries().next(), entries().next_back()) {
            (Some(first), Some(last)) => (first.time, last.time),
            _ => (from, from),
        };
        let counts_values = spec.kind == CorrelationKind::ValueCount;
        let values: BTreeSet<Digest> =
            if counts_values { entries().map(|entry| entry.value).collect() } else { BTreeSet::new() };
        // An observation has one entry per value.
        let count = if counts_values {
            entries().map(|entry| entry.id).collect::<BTreeSet<_>>().len()
        } else {
            range.len()
        };
        let mut texts: Vec<Box<[u8]>> =
            values.iter().filter_map(|value| self.texts.get(value)).cloned().collect();
        texts.sort_unstable();
        let sources: BTreeSet<u32> = entries().map(|entry| entry.source).collect();
        let mut ids: Vec<AlertId> = Vec::new();
        for entry in entries().rev() {
            if ids.len() == MAX_IDS {
                break;
            }
            if !ids.contains(&entry.id) {
                ids.push(entry.id);
            }
        }
        ids.reverse();
        Fired {
            correlation: 0,
            group: Digest::default(),
            time: last,
            count: count as u64,
            value_count: values.len() as u64,
            values: texts,
            first,
            last,
            sources: sources.into_iter().map(|source| source as usize).collect(),
            ids,
            is_partial: self.dropped_until.is_some_and(|dropped| dropped >= from),
            note: None,
        }
    }
}

/// Removes one entry of a value.
fn release_value(values: &mut BTreeMap<Digest, u32>, texts: &mut BTreeMap<Digest, Box<[u8]>>, value: Digest) {
    if let Some(count) = values.get_mut(&value) {
        *count -= 1;
        if *count == 0 {
            values.remove(&value);
            texts.remove(&value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::correlate::DEFAULT_ALLOWED_LATENESS;
    use crate::detection::correlate::tests::{correlation, seen};

    #[test]
    fn full_group_returns_its_capacity() {
        for kind in CorrelationKind::ALL {
            let spec = GroupSpec::new(&correlation(kind, 2, 10, 10_000, None), DEFAULT_ALLOWED_LATENESS);
            let mut group = Group::default();
            let mut stats = CorrelationStats::default();
            for number in 0..1000 {
                group.observe(&spec, &seen(0, 0, number, &["a", "b"]), &mut stats);
            }
            assert!(group.weight() > 1000);
            group.observe(&spec, &seen(0, 1000, 5000, &["c"]), &mut stats);
            assert!(
                group.weight() < 20 && group.entries.capacity() <= 4 * MIN_CAPACITY,
                "{}",
                group.entries.capacity()
            );
        }
    }
}
