//! All correlations of a rule set, with their groups.

use std::collections::{BTreeSet, HashMap};

use super::group::{Group, Spec};
use super::handoff::WindowMarker;
use super::lru::Kept;
use super::stored::Stored;
use super::{
    CorrelationStats, DEFAULT_ALLOWED_LATENESS, Digest, Fired, MAX_GROUPS, MAX_OBSERVATIONS, MIN_GROUPS,
    Observation,
};
use crate::detection::audit::time::ReferenceClock;
use crate::detection::rules::ast::{Correlation, Feed};

/// Where the alerts of a rule or of a correlation are to be observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Index of the correlation.
    pub correlation: usize,
    /// Which of its rules this is: [`Observation::source`].
    pub source: usize,
}

/// The windows of all correlations.
///
/// ```
/// use pullwatch::detection::correlate::{Correlator, Observation};
/// use pullwatch::detection::rules::{self, SourceFile, ast::Feed};
///
/// let text = "
/// - {rule: Read, desc: d, condition: ka.verb = get, output: x, priority: INFO}
/// - correlation: Many
///   type: event_count
///   rules: [Read]
///   timespan: 1m
///   condition: {gte: 2}
///   output: '%correlation.count reads'
///   priority: ERROR
/// ";
/// let file = SourceFile { name: "r.yaml".into(), text: text.to_owned() };
/// let rules = rules::load(&[file], &rules::Options::default()).rules;
/// let mut correlator = Correlator::new(&rules.correlations);
/// let to = correlator.fed_by(Feed::Rule(0))[0];
/// let mut alert = |time, id| {
///     correlator.observe(to.correlation, &Observation { source: to.source, time, id: [id; 16], ..Default::default() })
/// };
/// assert!(alert(0, 1).is_none());
/// assert_eq!(alert(60_000_000_000, 2).unwrap().count, 2);
/// ```
#[derive(Clone, Debug)]
pub struct Correlator {
    pub(super) parts: Vec<Part>,
    consumers: HashMap<Feed, Vec<Consumer>>,
    pub(super) stats: CorrelationStats,
    /// The latest time that anybody spoke of.
    pub(super) now: i64,
    /// What of it is stored.
    pub(super) stored: Stored,
    /// What came of windows, for others; nothing where nobody asks.
    pub(super) markers: Option<Vec<WindowMarker>>,
}

/// One correlation.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub spec: Spec,
    /// What it is and what it is called, so that it is known again.
    pub definition: Digest,
    pub groups: Kept<Group>,
    /// When which group has a window to judge; empty where windows slide.
    pub due: BTreeSet<(i64, Digest)>,
}

impl Part {
    /// Changes a group, and keeps what is known of all groups.
    pub fn change<T>(&mut self, key: Digest, change: impl FnOnce(&Spec, &mut Group) -> T) -> T {
        let group = self.groups.touch(key);
        let before = group.due(&self.spec);
        let result = change(&self.spec, group);
        if self.spec.is_tumbling() {
            let after = group.due(&self.spec);
            if before != after {
                self.due.extend(after.map(|due| (due, key)));
                before.and_then(|due| self.due.take(&(due, key)));
            }
        }
        let weight = group.weight();
        self.groups.weigh(&key, weight);
        result
    }
}

impl Correlator {
    /// For the correlations of a rule set. Those that are disabled are never fed.
    pub fn new(correlations: &[Correlation]) -> Self {
        Self::with_allowed_lateness(correlations, DEFAULT_ALLOWED_LATENESS)
    }

    /// The same for observations that come out of order by up to so many nanoseconds. `i64::MAX` is for logs that
    /// are read one after the other and tell of the same time: whatever is still known counts then, and windows that are
    /// judged at their close are judged by [`Correlator::finish`].
    pub fn with_allowed_lateness(correlations: &[Correlation], allowed_lateness: i64) -> Self {
        Self::with_shares(1, correlations, allowed_lateness)
    }

    /// One of several that share the bounds, each with groups of its own.
    pub(super) fn with_shares(several: usize, correlations: &[Correlation], allowed_lateness: i64) -> Self {
        let share = correlations.len().max(1).saturating_mul(several.max(1));
        let mut consumers: HashMap<Feed, Vec<Consumer>> = HashMap::new();
        let mut parts = Vec::new();
        for (index, correlation) in correlations.iter().enumerate() {
            let spec = Spec::new(correlation, allowed_lateness);
            let groups = Kept::new(
                (MAX_GROUPS / share).max(MIN_GROUPS),
                // Of values, each is there twice, and what they are as text comes on top.
                (MAX_OBSERVATIONS / share).max(spec.capacity().saturating_mul(2).saturating_add(1024)),
            );
            let definition = definition(correlation, |feed| format!("{feed:?}"));
            parts.push(Part { spec, definition, groups, due: BTreeSet::new() });
            if correlation.enabled {
                for (source, feed) in correlation.feeds.iter().enumerate() {
                    consumers.entry(*feed).or_default().push(Consumer { correlation: index, source });
                }
            }
        }
        Correlator {
            parts,
            consumers,
            stats: CorrelationStats::default(),
            now: i64::MIN,
            stored: Stored::default(),
            markers: None,
        }
    }

    /// Says what the rules and correlations are called that feed these correlations, which are those that it was made for.
    /// Without it they are known by their place, and what is stored means nothing once there are others.
    pub fn name_feeds(&mut self, correlations: &[Correlation], name: impl Fn(Feed) -> String) {
        for (part, correlation) in self.parts.iter_mut().zip(correlations) {
            part.definition = definition(correlation, &name);
        }
    }

    /// Which correlations the alerts of a rule, or of a correlation, are for.
    pub fn fed_by(&self, feed: Feed) -> &[Consumer] {
        self.consumers.get(&feed).map_or(&[], Vec::as_slice)
    }

    /// Whether a correlation judges windows that have closed, so that it wants a [`note`](Observation::note).
    pub fn is_tumbling(&self, correlation: usize) -> bool {
        self.parts.get(correlation).is_some_and(|part| part.spec.is_tumbling())
    }

    /// Takes in that a rule of a correlation alerted, and gives the window that this completed. A correlation that judges
    /// windows at their close gives one here only where a group is too full to wait.
    pub fn observe(&mut self, correlation: usize, observation: &Observation) -> Option<Fired> {
        self.finish_restore();
        let part = self.parts.get_mut(correlation)?;
        self.stats.observed += 1;
        self.now = self.now.max(observation.time);
        let key = Digest::of(&observation.key);
        let stats = &mut self.stats;
        let (fired, closed) = part.change(key, |spec, group| {
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

    /// Says that it is so late, by the time of events, and gives the windows that have closed and satisfy their
    /// condition. To be asked now and then, as [`Correlator::finish`] is: until it gives nothing.
    pub fn advance(&mut self, time: i64) -> Vec<Fired> {
        self.now = self.now.max(time);
        let now = self.now;
        self.close(|due| due < now)
    }

    /// Says which times are believed: where a clock was wrong for a while, windows must not close at once for ever.
    pub fn set_clock(&mut self, clock: ReferenceClock) {
        self.now = clock.clamp(self.now);
    }

    /// Judges what is still open, at the end of all input. To be asked until it gives nothing, and what it gives is
    /// to be observed where [`Correlator::fed_by`] says before it is asked again: it may feed a correlation that is not
    /// closed yet.
    pub fn finish(&mut self) -> Vec<Fired> {
        self.close(|_| true)
    }

    /// Closes windows of the first correlation that has any to give: those behind it may be fed by it.
    fn close(&mut self, is_due: impl Fn(i64) -> bool) -> Vec<Fired> {
        self.finish_restore();
        for correlation in 0..self.parts.len() {
            let mut found = Vec::new();
            let part = &mut self.parts[correlation];
            while let Some((_, key)) = part.due.first().copied().filter(|(due, _)| is_due(*due)) {
                part.due.pop_first();
                let Some(group) = part.groups.get(&key) else { continue };
                while group.due(&part.spec).is_some_and(&is_due) {
                    found.extend(group.close_first(&part.spec).map(|fired| (key, fired)));
                    if let (Some(markers), Some(until)) = (&mut self.markers, group.closed_until()) {
                        markers.push(WindowMarker::closed(correlation, key, until));
                    }
                }
                part.due.extend(group.due(&part.spec).map(|due| (due, key)));
                let weight = group.weight();
                part.groups.weigh(&key, weight);
                part.groups.changed(&key);
            }
            if !found.is_empty() {
                return found.into_iter().map(|(key, fired)| self.named(correlation, key, fired)).collect();
            }
        }
        Vec::new()
    }

    /// Forgets the groups of a correlation that there is no room for.
    pub(super) fn make_room(&mut self, correlation: usize) {
        let Some(part) = self.parts.get_mut(correlation) else { return };
        while let Some((key, group)) = part.groups.evict() {
            self.stats.evicted_groups += 1;
            group.due(&part.spec).and_then(|due| part.due.take(&(due, key)));
            self.stored.gone(part.definition, key, &group);
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

    /// Forgets the groups whose windows ended before this time. They are bounded without it; this is for whoever
    /// stores them.
    pub fn expire(&mut self, before: i64) {
        self.finish_restore();
        for part in &mut self.parts {
            let keys: Vec<Digest> = part.groups.keys().collect();
            for key in keys {
                let is_over = part.groups.get(&key).is_some_and(|group| group.is_over(&part.spec, before));
                if is_over && let Some(group) = part.groups.remove(&key) {
                    self.stored.gone(part.definition, key, &group);
                }
            }
        }
    }

    /// What was seen and lost so far.
    pub fn stats(&self) -> CorrelationStats {
        self.stats
    }

    /// How many groups are known.
    pub fn groups(&self) -> usize {
        self.parts.iter().map(|part| part.groups.len()).sum()
    }

    /// How much they hold together, in observations.
    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        self.parts.iter().map(|part| part.groups.weight()).sum()
    }
}

/// What a correlation is and what it is called. What it says, and how bad it is, is no part of it.
fn definition(correlation: &Correlation, name: impl Fn(Feed) -> String) -> Digest {
    let Correlation { kind, timespan, bounds, .. } = correlation;
    let mut parts = vec![
        correlation.name.to_string(),
        format!("{kind} {timespan} {} {:?}", bounds.at_least, bounds.at_most),
        correlation.field.as_ref().map(ToString::to_string).unwrap_or_default(),
        correlation.group_by.len().to_string(),
    ];
    parts.extend(correlation.group_by.iter().map(ToString::to_string));
    parts.extend(correlation.feeds.iter().map(|feed| name(*feed)));
    Digest::of(&parts)
}
