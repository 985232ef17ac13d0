//! Throttles: limit how often a rule or correlation alerts for the same combination of values.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Digest;
use crate::detection::lru::LruMap;
use crate::detection::rules::ast::{self, RuleSet};
use crate::detection::state::{ChangeTracker, StateChange, decode, encode, kind};

/// Maximum number of tracked combinations, over all rules.
const MAX_COMBINATIONS: usize = 1 << 16;

/// What to do with an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Emit it.
    Emit {
        /// Number of alerts of this combination that were throttled since the last emitted one.
        throttled: u64,
    },
    /// Drop it and count it.
    Throttle,
}

/// Throttled alerts that no later alert mentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled {
    /// Index of the rule.
    pub rule: usize,
    pub count: u64,
    /// Event time of the first of them.
    pub first: i64,
    /// Event time of the last of them.
    pub last: i64,
}

/// Throttles the alerts of rules and correlations that have a throttle. A correlation counts as a rule here, with an index that follows
/// those of the rules.
///
/// The first alert of each rule and combination of values is emitted. Those that follow within `every`, by event time, are throttled and
/// counted; the first one `every` later or more is emitted with that count. A late alert is throttled too, unless it is at least `every`
/// older than the last emitted one: then it belongs to another log, and is emitted.
///
/// No count is lost: a count that no later alert mentions is returned by [`Throttle::due`] or, at the end, [`Throttle::finish`]. Beyond
/// [`MAX_COMBINATIONS`] the least recently used combination is evicted; its next alert is emitted, and its count is returned.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// For each rule the duration of its throttle in nanoseconds.
    every: Vec<Option<i64>>,
    /// For each rule the digest of its name and throttle, to which stored entries are bound.
    definitions: Vec<Digest>,
    states: LruMap<Digest, State>,
    /// Combinations with throttled alerts, by the end of their throttle.
    ending: BTreeSet<(i64, Digest)>,
    /// Throttled alerts of evicted combinations, by rule.
    evicted_counts: BTreeMap<usize, Throttled>,
    evicted: u64,
    /// Keys of removed store entries, and the rules whose count of [evicted](Throttle::evicted_counts) combinations
    /// differs from the stored one.
    gone: ChangeTracker<Vec<u8>>,
    changed_evicted_counts: ChangeTracker<Digest>,
}

/// One combination of values.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Index of the rule.
    rule: usize,
    /// Event time of the last emitted alert.
    emitted: Option<i64>,
    throttled: Option<Throttled>,
    is_stored: bool,
}

/// A combination, or the counts of a rule's evicted combinations, as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    emitted: Option<i64>,
    /// Count, time of the first, time of the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    throttled: Option<(u64, i64, i64)>,
}

impl StoredState {
    fn new(emitted: Option<i64>, throttled: Option<Throttled>) -> Self {
        StoredState {
            emitted,
            throttled: throttled.map(|throttled| (throttled.count, throttled.first, throttled.last)),
        }
    }

    fn throttled(&self, rule: usize) -> Option<Throttled> {
        self.throttled.map(|(count, first, last)| Throttled { rule, count, first, last })
    }
}

impl State {
    fn until(&self, every: i64) -> i64 {
        self.emitted.unwrap_or(i64::MIN).saturating_add(every)
    }
}

impl Throttle {
    pub fn new(rules: &RuleSet) -> Self {
        Self::with_capacity(rules, MAX_COMBINATIONS)
    }

    pub(super) fn with_capacity(rules: &RuleSet, limit: usize) -> Self {
        Throttle {
            every: rules.throttles().map(|(_, throttle)| throttle.map(|throttle| throttle.every)).collect(),
            definitions: rules.throttles().map(|(name, throttle)| definition(name, throttle)).collect(),
            states: LruMap::new(limit),
            ending: BTreeSet::new(),
            evicted_counts: BTreeMap::new(),
            evicted: 0,
            gone: ChangeTracker::default(),
            changed_evicted_counts: ChangeTracker::default(),
        }
    }

    /// Whether a rule has a throttle.
    pub fn has(&self, rule: usize) -> bool {
        self.every(rule).is_some()
    }

    fn every(&self, rule: usize) -> Option<i64> {
        self.every.get(rule).copied().flatten()
    }

    /// Decides on an alert of a rule. `key` holds the values of its
    /// [`per`](crate::detection::rules::ast::Throttle::per).
    pub fn decide<V: AsRef<[u8]>>(&mut self, rule: usize, key: &[V], time: i64) -> Decision {
        let Some(every) = self.every(rule) else { return Decision::Emit { throttled: 0 } };
        // The digest does not depend on which other rules there are, so it is stable across reloads.
        let definition = self.definitions.get(rule).copied().unwrap_or_default();
        let whole: Vec<&[u8]> =
            std::iter::once(&definition.0[..]).chain(key.iter().map(AsRef::as_ref)).collect();
        let key = Digest::of(&whole);
        let state = self.states.touch(&key);
        state.rule = rule;
        let is_throttled = state.emitted.is_some_and(|emitted| {
            time < emitted.saturating_add(every) && time > emitted.saturating_sub(every)
        });
        if is_throttled {
            let throttled =
                state.throttled.get_or_insert(Throttled { rule, count: 0, first: time, last: time });
            throttled.count = throttled.count.saturating_add(1);
            throttled.first = throttled.first.min(time);
            throttled.last = throttled.last.max(time);
            self.ending.insert((state.until(every), key));
            return Decision::Throttle;
        }
        self.ending.remove(&(state.until(every), key));
        let throttled = state.throttled.take().map_or(0, |throttled| throttled.count);
        state.emitted = Some(time);
        self.make_room();
        Decision::Emit { throttled }
    }

    /// Evicts combinations beyond the limit.
    fn make_room(&mut self) {
        while let Some((key, state)) = self.states.evict() {
            self.evicted += 1;
            self.has_gone(key, state);
            let Some(throttled) = state.throttled else { continue };
            let every = self.every(throttled.rule).unwrap_or(0);
            self.ending.remove(&(state.until(every), key));
            self.add_evicted_count(throttled);
        }
    }

    fn add_evicted_count(&mut self, throttled: Throttled) {
        let sum = self.evicted_counts.entry(throttled.rule).or_insert(Throttled { count: 0, ..throttled });
        sum.count = sum.count.saturating_add(throttled.count);
        sum.first = sum.first.min(throttled.first);
        sum.last = sum.last.max(throttled.last);
        self.changed_evicted_counts.changed(&self.definitions[throttled.rule]);
    }

    fn has_gone(&mut self, key: Digest, state: State) {
        if state.is_stored {
            self.gone.gone(&store_key(self.definitions.get(state.rule).copied(), key), true);
        }
    }

    /// Throttled alerts whose throttle ended by this time, in the order of its end, after those of evicted
    /// combinations. Each is returned once; no later alert mentions it.
    pub fn due(&mut self, time: i64) -> Vec<Throttled> {
        self.over(|until| until <= time)
    }

    /// All throttled alerts, at the end of input.
    pub fn finish(&mut self) -> Vec<Throttled> {
        self.over(|_| true)
    }

    /// Removes combinations that throttle nothing at this time or later, so they need not be stored.
    pub fn expire(&mut self, before: i64) {
        let keys: Vec<Digest> = self.states.keys().copied().collect();
        for key in keys {
            let Some(state) = self.states.peek_mut(&key).copied() else { continue };
            if state.throttled.is_none() && state.until(self.every(state.rule).unwrap_or(0)) <= before {
                self.states.remove(&key);
                self.has_gone(key, state);
            }
        }
    }

    fn over(&mut self, is_over: impl Fn(i64) -> bool) -> Vec<Throttled> {
        let mut found: Vec<Throttled> = std::mem::take(&mut self.evicted_counts).into_values().collect();
        for throttled in &found {
            self.changed_evicted_counts.changed(&self.definitions[throttled.rule]);
        }
        while let Some((_, key)) = self.ending.first().copied().filter(|(until, _)| is_over(*until)) {
            self.ending.pop_first();
            found.extend(self.states.peek_mut(&key).and_then(|state| state.throttled.take()));
            self.states.mark_changed(&key);
        }
        found
    }

    /// Number of combinations that were evicted.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Number of combinations with throttled alerts.
    #[cfg(test)]
    pub(super) fn ending(&self) -> usize {
        self.ending.len()
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.states.len()
    }
}

/// Saved state. The key of an entry is the digest of the rule's name and throttle, followed by that of the combination;
/// without the latter it holds the counts of the rule's evicted combinations.
impl Throttle {
    /// Starts recording changes. Call it before restoring: existing state counts as changed.
    pub fn track(&mut self) {
        self.gone.switch_on();
        self.changed_evicted_counts.switch_on();
        self.states.track();
        for &rule in self.evicted_counts.keys() {
            self.changed_evicted_counts.changed(&self.definitions[rule]);
        }
    }

    /// The changes since the last call; none unless [tracked](Throttle::track).
    pub fn take_changes(&mut self) -> Vec<StateChange> {
        let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        changes.extend(self.gone.take().0.into_iter().map(|key| (key, None)));
        for key in self.states.take_changed() {
            let Some((used, state)) = self.states.peek_with_use(&key) else { continue };
            state.is_stored = true;
            let value = encode(used, &StoredState::new(state.emitted, state.throttled));
            changes.insert(store_key(self.definitions.get(state.rule).copied(), key), Some(value));
        }
        for definition in self.changed_evicted_counts.take().1 {
            let throttled = self.rule_of(definition).and_then(|rule| self.evicted_counts.get(&rule));
            let value = throttled.map(|throttled| encode(0, &StoredState::new(None, Some(*throttled))));
            changes.insert(definition.0.to_vec(), value);
        }
        changes.into_iter().map(|(key, value)| StateChange { kind: kind::THROTTLE, key, value }).collect()
    }

    /// Restores a stored entry. Returns false if it has another version or belongs to no rule of this rule set.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Some((used, stored)) = decode::<StoredState>(value) else { return false };
        let Some((definition, key)) = key.split_first_chunk() else { return false };
        let Some(rule) = self.rule_of(Digest(*definition)) else { return false };
        let throttled = stored.throttled(rule);
        if key.is_empty() {
            if let Some(throttled) = throttled {
                self.add_evicted_count(throttled);
            }
            return true;
        }
        let Ok(key) = key.try_into().map(Digest) else { return false };
        self.states.restore_use(&key, used);
        let state = State { rule, emitted: stored.emitted, throttled, is_stored: true };
        *self.states.restore_entry(&key) = state;
        if throttled.is_some() {
            self.ending.insert((state.until(self.every(rule).unwrap_or(0)), key));
        }
        self.make_room();
        true
    }

    /// Takes over the combinations of another throttle, for rules that are unchanged. Returns the number of combinations that were dropped.
    pub fn take_over(&mut self, mut old: Throttle) -> u64 {
        let is_tracked = self.gone.is_on();
        let mut dropped = 0;
        let rules: Vec<Option<usize>> =
            old.definitions.iter().map(|definition| self.rule_of(*definition)).collect();
        let now_is = |rule: usize| rules.get(rule).copied().flatten();
        let keys: Vec<Digest> = old.states.keys().copied().collect();
        for key in keys {
            let Some(state) = old.states.peek_mut(&key) else { continue };
            match now_is(state.rule) {
                Some(rule) => {
                    state.rule = rule;
                    if let Some(throttled) = &mut state.throttled {
                        throttled.rule = rule;
                        self.ending.insert((state.until(self.every(rule).unwrap_or(0)), key));
                    }
                }
                None => {
                    dropped += 1;
                    let state = *state;
                    old.has_gone(key, state);
                    old.states.remove(&key);
                }
            }
        }
        let evicted_counts = std::mem::take(&mut old.evicted_counts);
        for rule in evicted_counts.keys().filter(|rule| now_is(**rule).is_none()) {
            old.changed_evicted_counts.changed(&old.definitions[*rule]);
        }
        self.gone = old.gone;
        self.changed_evicted_counts = old.changed_evicted_counts;
        self.evicted = old.evicted;
        self.states.take_over(old.states);
        if is_tracked && !self.gone.is_on() {
            self.track();
        }
        for (rule, throttled) in evicted_counts {
            if let Some(rule) = now_is(rule) {
                self.add_evicted_count(Throttled { rule, ..throttled });
            }
        }
        self.make_room();
        dropped
    }

    fn rule_of(&self, definition: Digest) -> Option<usize> {
        let at = self.definitions.iter().position(|own| *own == definition)?;
        self.has(at).then_some(at)
    }
}

fn store_key(definition: Option<Digest>, key: Digest) -> Vec<u8> {
    [definition.unwrap_or_default().0, key.0].concat()
}

/// Digest of a rule's name and throttle.
fn definition(name: &str, throttle: Option<&ast::Throttle>) -> Digest {
    let mut parts = vec![name.to_owned()];
    if let Some(throttle) = throttle {
        parts.push(throttle.every.to_string());
        parts.extend(throttle.per.iter().map(ToString::to_string));
    }
    Digest::of(&parts)
}
