//! The groups and windows of all correlations of a rule set.

use std::collections::BTreeSet;

use super::group::{Group, GroupSpec};
use super::stored::StoreTracking;
use super::window_marker::WindowMarker;
use super::{
    CorrelationStats, DEFAULT_ALLOWED_LATENESS, Digest, Fired, MAX_GROUPS, MAX_OBSERVATIONS, MIN_GROUPS,
    Observation,
};
use crate::detection::audit::time::ReferenceClock;
use crate::detection::lru::LruMap;
use crate::detection::rules::ast::{Correlation, Feed};

#[derive(Clone, Debug)]
pub struct Correlator {
    pub(super) correlations: Vec<CorrelationGroups>,
    pub(super) stats: CorrelationStats,
    /// The latest event time seen.
    pub(super) now: i64,
    pub(super) stored: StoreTracking,
    /// Outcomes of windows for a future owner of the groups; none if they are not recorded.
    pub(super) markers: Option<Vec<WindowMarker>>,
}

/// One correlation with its groups.
#[derive(Clone, Debug)]
pub(super) struct CorrelationGroups {
    pub spec: GroupSpec,
    /// Digest of the correlation's name and definition, by which stored entries and other replicas refer to it.
    pub definition: Digest,
    pub groups: LruMap<Digest, Group>,
    /// Closing time of each group's first tumbling window; empty for sliding windows.
    pub due: BTreeSet<(i64, Digest)>,
    /// The time after which each group cannot affect anything; without groups that have an open tumbling window.
    pub ends: BTreeSet<(i64, Digest)>,
}

impl CorrelationGroups {
    /// Changes a group, and updates what is derived from it.
    pub fn change<T>(&mut self, key: Digest, change: impl FnOnce(&GroupSpec, &mut Group) -> T) -> T {
        let group = self.groups.touch(&key);
        let before = (group.due(&self.spec), group.end(&self.spec));
        let result = change(&self.spec, group);
        self.update_indexes(key, before);
        result
    }

    /// Updates what is derived from a group that had these times ([`Group::due`], [`Group::end`]) before it changed.
    pub fn update_indexes(&mut self, key: Digest, before: (Option<i64>, Option<i64>)) {
        let Some(group) = self.groups.peek_mut(&key) else { return };
        let (weight, rank) = (group.weight(), group.rank(&self.spec));
        let (due, end) = (group.due(&self.spec), group.end(&self.spec));
        if self.spec.is_tumbling() {
            move_in_index(&mut self.due, key, before.0, due);
        }
        move_in_index(&mut self.ends, key, before.1, end);
        self.groups.set_weight(&key, weight);
        self.groups.set_rank(&key, rank);
    }

    /// Removes a group.
    pub fn remove(&mut self, key: &Digest) -> Option<Group> {
        let group = self.groups.remove(key)?;
        self.forget_indexes(key, &group);
        Some(group)
    }

    fn forget_indexes(&mut self, key: &Digest, group: &Group) {
        group.due(&self.spec).and_then(|due| self.due.take(&(due, *key)));
        group.end(&self.spec).and_then(|end| self.ends.take(&(end, *key)));
    }

    /// Removes the group that ended first, if that was before a time.
    fn remove_ended(&mut self, before: i64) -> Option<(Digest, Group)> {
        while let Some((end, key)) = self.ends.first().copied().filter(|(end, _)| *end < before) {
            let is_current =
                self.groups.peek_mut(&key).is_some_and(|group| group.end(&self.spec) == Some(end));
            if is_current {
                return self.remove(&key).map(|group| (key, group));
            }
            self.ends.remove(&(end, key));
        }
        None
    }
}

fn move_in_index(index: &mut BTreeSet<(i64, Digest)>, key: Digest, before: Option<i64>, after: Option<i64>) {
    if before != after {
        before.and_then(|time| index.take(&(time, key)));
    }
    index.extend(after.map(|time| (time, key)));
}

impl Correlator {
    pub fn new(correlations: &[Correlation]) -> Self {
        Self::with_allowed_lateness(correlations, DEFAULT_ALLOWED_LATENESS)
    }

    /// Sets another allowed lateness, in nanoseconds. `i64::MAX` is for logs that are read one after the other and cover the same time:
    /// then every observation counts as long as it is kept, and tumbling windows are closed only by [`Correlator::finish`].
    pub fn with_allowed_lateness(correlations: &[Correlation], allowed_lateness: i64) -> Self {
        Self::with_shares(1, correlations, allowed_lateness)
    }

    /// Creates one of `shares` correlators that share the limits, each with its own groups.
    pub(super) fn with_shares(shares: usize, correlations: &[Correlation], allowed_lateness: i64) -> Self {
        let share = correlations.len().max(1).saturating_mul(shares.max(1));
        let mut all = Vec::new();
        for correlation in correlations {
            let spec = GroupSpec::new(correlation, allowed_lateness);
            let groups = LruMap::with_weight_limit(
                (MAX_GROUPS / share).max(MIN_GROUPS),
                // Each value counts twice, once with its observation and once as a value; texts come on top.
                (MAX_OBSERVATIONS / share).max(spec.capacity().saturating_mul(2).saturating_add(1024)),
            );
            let definition = definition(correlation, |feed| format!("{feed:?}"));
            all.push(CorrelationGroups {
                spec,
                definition,
                groups,
                due: BTreeSet::new(),
                ends: BTreeSet::new(),
            });
        }
        Correlator {
            correlations: all,
            stats: CorrelationStats::default(),
            now: i64::MIN,
            stored: StoreTracking::default(),
            markers: None,
        }
    }

    /// Names the rules and correlations that feed these correlations, which must be the ones passed to the constructor.
    /// Without names, feeds are identified by index, and stored state is lost when the rules change.
    pub fn name_feeds(&mut self, correlations: &[Correlation], name: impl Fn(Feed) -> String) {
        for (entry, correlation) in self.correlations.iter_mut().zip(correlations) {
            entry.definition = definition(correlation, &name);
        }
    }

    /// Whether a correlation has tumbling windows, so that it needs a [`note`](Observation::note).
    pub fn is_tumbling(&self, correlation: usize) -> bool {
        self.correlations.get(correlation).is_some_and(|entry| entry.spec.is_tumbling())
    }

    /// Adds an observation, and returns the window that it completed. A correlation with tumbling windows returns one
    /// here only if its group is too full to wait.
    pub fn observe(&mut self, correlation: usize, observation: &Observation) -> Option<Fired> {
        self.finish_restore();
        let entry = self.correlations.get_mut(correlation)?;
        self.stats.observed += 1;
        self.now = self.now.max(observation.time);
        let key = Digest::of(&observation.key);
        let stats = &mut self.stats;
        let (fired, closed) = entry.change(key, |spec, group| {
            if !spec.is_tumbling() {
                return (group.observe(spec, observation, stats), None);
            }
            let before = group.closed_until();
            let fired = group.observe_tumbling(spec, observation, stats);
            (fired, group.closed_until().filter(|until| Some(*until) != before))
        });
        self.make_room(correlation);
        if let Some(until) = closed {
            self.mark(|| WindowMarker::closed(correlation, key, until));
        } else if let Some(fired) = &fired {
            self.mark(|| WindowMarker::fired(correlation, key, fired.first, fired.last));
        }
        fired.map(|fired| self.named(correlation, key, fired))
    }

    /// Moves the event time forward, and returns the tumbling windows that closed and satisfy their condition. Call it until it returns
    /// nothing, since what it returns may feed other correlations.
    pub fn advance(&mut self, time: i64) -> Vec<Fired> {
        self.now = self.now.max(time);
        let now = self.now;
        self.close(|due| due < now)
    }

    /// Limits the event time by a clock. Otherwise, after a period with a wrong clock, windows would keep closing at once.
    pub fn set_clock(&mut self, clock: ReferenceClock) {
        self.now = clock.clamp(self.now);
    }

    /// Closes all tumbling windows at the end of input. Call it until it returns nothing, and observe what it returns
    /// before each further call: it may feed a correlation that is not closed yet.
    pub fn finish(&mut self) -> Vec<Fired> {
        self.close(|_| true)
    }

    /// Closes windows of the first correlation that has any, since later correlations may be fed by it.
    fn close(&mut self, is_due: impl Fn(i64) -> bool) -> Vec<Fired> {
        self.finish_restore();
        for correlation in 0..self.correlations.len() {
            let mut closed = Vec::new();
            let entry = &mut self.correlations[correlation];
            while let Some((_, key)) = entry.due.first().copied().filter(|(due, _)| is_due(*due)) {
                entry.due.pop_first();
                let Some(group) = entry.groups.peek_mut(&key) else { continue };
                let before = (None, group.end(&entry.spec));
                while group.due(&entry.spec).is_some_and(&is_due) {
                    closed.extend(group.close_first(&entry.spec).map(|fired| (key, fired)));
                    if let (Some(markers), Some(until)) = (&mut self.markers, group.closed_until()) {
                        markers.push(WindowMarker::closed(correlation, key, until));
                    }
                }
                entry.update_indexes(key, before);
                entry.groups.mark_changed(&key);
            }
            if !closed.is_empty() {
                return closed.into_iter().map(|(key, fired)| self.named(correlation, key, fired)).collect();
            }
        }
        Vec::new()
    }

    /// Removes groups of a correlation until it is within its limits: first those that can no longer affect anything, then those furthest
    /// from satisfying the condition ([`Group::rank`]).
    pub(super) fn make_room(&mut self, correlation: usize) {
        let Some(entry) = self.correlations.get_mut(correlation) else { return };
        while entry.groups.exceeds_limits() {
            let (key, group) = match entry.remove_ended(self.now) {
                Some(ended) => ended,
                None => {
                    let Some((key, group)) = entry.groups.evict() else { return };
                    entry.forget_indexes(&key, &group);
                    self.stats.evicted_groups += 1;
                    self.stats.evicted_advanced_groups += u64::from(group.rank(&entry.spec) > 0);
                    (key, group)
                }
            };
            self.stored.gone(entry.definition, key, &group);
        }
    }

    fn mark(&mut self, mark: impl FnOnce() -> WindowMarker) {
        if let Some(markers) = &mut self.markers {
            markers.push(mark());
        }
    }

    fn named(&mut self, correlation: usize, group: Digest, fired: Fired) -> Fired {
        self.stats.fired += 1;
        Fired { correlation, group, ..fired }
    }

    /// Removes groups whose windows ended before this time, so that they need not be stored.
    pub fn expire(&mut self, before: i64) {
        self.finish_restore();
        for entry in &mut self.correlations {
            while let Some((key, group)) = entry.remove_ended(before) {
                self.stored.gone(entry.definition, key, &group);
            }
        }
    }

    pub fn stats(&self) -> CorrelationStats {
        self.stats
    }

    #[cfg(test)]
    pub(super) fn groups(&self) -> usize {
        self.correlations.iter().map(|entry| entry.groups.len()).sum()
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        self.correlations.iter().map(|entry| entry.groups.weight()).sum()
    }
}

/// Digest of the properties that identify a correlation, without its output and priority.
fn definition(correlation: &Correlation, name: impl Fn(Feed) -> String) -> Digest {
    let Correlation { kind, timespan, bounds, min_alerts, .. } = correlation;
    let mut identity = vec![
        correlation.name.to_string(),
        format!("{kind} {timespan} {} {:?} {min_alerts}", bounds.at_least, bounds.at_most),
        correlation.field.as_ref().map(ToString::to_string).unwrap_or_default(),
        correlation.group_by.len().to_string(),
    ];
    identity.extend(correlation.group_by.iter().map(ToString::to_string));
    identity.extend(correlation.feeds.iter().map(|feed| name(*feed)));
    Digest::of(&identity)
}
