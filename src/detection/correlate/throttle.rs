//! How often a rule may say the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Digest;
use super::lru::Kept;
use crate::detection::rules::ast::Rule;
use crate::detection::state::{StateChange, Track, decode, encode, kind};

/// So many combinations of values are known at once, over all rules.
const MAX_COMBINATIONS: usize = 1 << 16;

/// What to do with an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Show it.
    Emit {
        /// So many of its kind were held back since the last that was shown.
        throttled: u64,
    },
    /// Hold it back.
    Throttle,
}

/// Alerts that were held back, and that no later alert will tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled {
    /// Index of the rule.
    pub rule: usize,
    /// How many.
    pub count: u64,
    /// Time of the first of them.
    pub first: i64,
    /// Time of the last of them.
    pub last: i64,
}

/// Holds back alerts of rules that have a throttle.
///
/// Of each rule and combination of values the first alert is shown. Those that follow within `every`, by the time of
/// events, are held back and counted; the first that comes `every` later or more is shown and says how many. One that
/// comes late is held back too, but for one that is `every` older than the last shown: that is of another log, and
/// is shown like one that is as much later.
///
/// No count is lost: what no later alert tells of is in [`Throttle::due`] or, at the end, in [`Throttle::finish`]. When
/// there are too many combinations, the one not used for longest is forgotten; its next alert is shown, and what it
/// held back is due.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// For each rule, how long it holds back.
    every: Vec<Option<i64>>,
    /// For each rule, what it is called and what it holds back, so that it is known again.
    definitions: Vec<Digest>,
    states: Kept<State>,
    /// Where something is held back, and until when.
    waiting: BTreeSet<(i64, Digest)>,
    /// What was held back by combinations that were forgotten, by rule.
    forgotten: BTreeMap<usize, Throttled>,
    evicted: u64,
    /// Keys of stored entries that are gone, and the rules of which something else is [forgotten](Throttle::forgotten) than
    /// what is stored.
    gone: Track<Vec<u8>>,
    stored_forgotten: Track<Digest>,
}

/// One combination of values.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Index of the rule.
    rule: usize,
    /// When one was shown last.
    shown: Option<i64>,
    held: Option<Throttled>,
    is_stored: bool,
}

/// One combination of values, or what was held back of a rule by those that are forgotten, as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shown: Option<i64>,
    /// How many, first, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<(u64, i64, i64)>,
}

impl StoredState {
    fn new(shown: Option<i64>, held: Option<Throttled>) -> Self {
        StoredState { shown, held: held.map(|held| (held.count, held.first, held.last)) }
    }

    fn held(&self, rule: usize) -> Option<Throttled> {
        self.held.map(|(count, first, last)| Throttled { rule, count, first, last })
    }
}

impl State {
    fn until(&self, every: i64) -> i64 {
        self.shown.unwrap_or(i64::MIN).saturating_add(every)
    }
}

impl Throttle {
    /// For the rules of a rule set.
    pub fn new(rules: &[Rule]) -> Self {
        Self::with_capacity(rules, MAX_COMBINATIONS)
    }

    pub(super) fn with_capacity(rules: &[Rule], most: usize) -> Self {
        Throttle {
            every: rules.iter().map(|rule| rule.throttle.as_ref().map(|throttle| throttle.every)).collect(),
            definitions: rules.iter().map(definition).collect(),
            states: Kept::new(most, usize::MAX),
            waiting: BTreeSet::new(),
            forgotten: BTreeMap::new(),
            evicted: 0,
            gone: Track::default(),
            stored_forgotten: Track::default(),
        }
    }

    /// Whether a rule, by its index, has a throttle. One that has none need not be asked about.
    pub fn has(&self, rule: usize) -> bool {
        self.every(rule).is_some()
    }

    fn every(&self, rule: usize) -> Option<i64> {
        self.every.get(rule).copied().flatten()
    }

    /// Whether an alert of a rule is shown. `key` are the values of its [`per`](crate::detection::rules::ast::Throttle::per).
    pub fn decide<V: AsRef<[u8]>>(&mut self, rule: usize, key: &[V], time: i64) -> Decision {
        let Some(every) = self.every(rule) else { return Decision::Emit { throttled: 0 } };
        // The same after a restart, whatever other rules there are.
        let definition = self.definitions.get(rule).copied().unwrap_or_default();
        let whole: Vec<&[u8]> =
            std::iter::once(&definition.0[..]).chain(key.iter().map(AsRef::as_ref)).collect();
        let key = Digest::of(&whole);
        let state = self.states.touch(key);
        state.rule = rule;
        let is_quiet = state
            .shown
            .is_some_and(|shown| time < shown.saturating_add(every) && time > shown.saturating_sub(every));
        if is_quiet {
            let held = state.held.get_or_insert(Throttled { rule, count: 0, first: time, last: time });
            held.count = held.count.saturating_add(1);
            held.first = held.first.min(time);
            held.last = held.last.max(time);
            self.waiting.insert((state.until(every), key));
            return Decision::Throttle;
        }
        self.waiting.remove(&(state.until(every), key));
        let throttled = state.held.take().map_or(0, |held| held.count);
        state.shown = Some(time);
        self.make_room();
        Decision::Emit { throttled }
    }

    /// Forgets the combinations that there is no room for.
    fn make_room(&mut self) {
        while let Some((key, state)) = self.states.evict() {
            self.evicted += 1;
            self.has_gone(key, state);
            let Some(held) = state.held else { continue };
            let every = self.every(held.rule).unwrap_or(0);
            self.waiting.remove(&(state.until(every), key));
            self.add_forgotten(held);
        }
    }

    fn add_forgotten(&mut self, held: Throttled) {
        let sum = self.forgotten.entry(held.rule).or_insert(Throttled { count: 0, ..held });
        sum.count = sum.count.saturating_add(held.count);
        sum.first = sum.first.min(held.first);
        sum.last = sum.last.max(held.last);
        self.stored_forgotten.changed(&self.definitions[held.rule]);
    }

    fn has_gone(&mut self, key: Digest, state: State) {
        if state.is_stored {
            self.gone.gone(&store_key(self.definitions.get(state.rule).copied(), key), true);
        }
    }

    /// What was held back and is over by this time, in the order in which it was over; what was forgotten comes first.
    /// Each is given once, so that the next alert does not tell of it again.
    pub fn due(&mut self, time: i64) -> Vec<Throttled> {
        self.over(|until| until <= time)
    }

    /// All that is held back, at the end of all input.
    pub fn finish(&mut self) -> Vec<Throttled> {
        self.over(|_| true)
    }

    /// Forgets the combinations whose next alert at this time or later is shown anyway, and that hold nothing back. They are
    /// bounded without it; this is for whoever stores them.
    pub fn expire(&mut self, before: i64) {
        let keys: Vec<Digest> = self.states.keys().collect();
        for key in keys {
            let Some(state) = self.states.get(&key).copied() else { continue };
            if state.held.is_none() && state.until(self.every(state.rule).unwrap_or(0)) <= before {
                self.states.remove(&key);
                self.has_gone(key, state);
            }
        }
    }

    fn over(&mut self, is_over: impl Fn(i64) -> bool) -> Vec<Throttled> {
        let mut found: Vec<Throttled> = std::mem::take(&mut self.forgotten).into_values().collect();
        for held in &found {
            self.stored_forgotten.changed(&self.definitions[held.rule]);
        }
        while let Some((_, key)) = self.waiting.first().copied().filter(|(until, _)| is_over(*until)) {
            self.waiting.pop_first();
            found.extend(self.states.get(&key).and_then(|state| state.held.take()));
            self.states.changed(&key);
        }
        found
    }

    /// How many combinations were forgotten to make room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// How many of them hold something back.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many combinations are known.
    pub fn keys(&self) -> usize {
        self.states.len()
    }
}

/// What is stored. The key of an entry is the digest of the rule's name and throttle, and that of the combination; without
/// the latter it is what forgotten combinations of the rule held back.
impl Throttle {
    /// From now on remembers what changes, until it is asked for. To be called before anything is restored: what is there
    /// already counts as changed.
    pub fn track(&mut self) {
        self.gone.switch_on();
        self.stored_forgotten.switch_on();
        self.states.track();
        for &rule in self.forgotten.keys() {
            self.stored_forgotten.changed(&self.definitions[rule]);
        }
    }

    /// What changed since the last call; nothing unless it is [tracked](Throttle::track).
    pub fn take_changes(&mut self) -> Vec<StateChange> {
        let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        changes.extend(self.gone.take().0.into_iter().map(|key| (key, None)));
        for key in self.states.take_changed() {
            let Some((used, state)) = self.states.used(&key) else { continue };
            state.is_stored = true;
            let value = encode(used, &StoredState::new(state.shown, state.held));
            changes.insert(store_key(self.definitions.get(state.rule).copied(), key), Some(value));
        }
        for definition in self.stored_forgotten.take().1 {
            let held = self.rule_of(definition).and_then(|rule| self.forgotten.get(&rule));
            let value = held.map(|held| encode(0, &StoredState::new(None, Some(*held))));
            changes.insert(definition.0.to_vec(), value);
        }
        changes.into_iter().map(|(key, value)| StateChange { kind: kind::THROTTLE, key, value }).collect()
    }

    /// Takes a stored entry back. False where it means nothing to this version, or to these rules.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Some((used, stored)) = decode::<StoredState>(value) else { return false };
        let Some((definition, key)) = key.split_first_chunk() else { return false };
        let Some(rule) = self.rule_of(Digest(*definition)) else { return false };
        let held = stored.held(rule);
        if key.is_empty() {
            if let Some(held) = held {
                self.add_forgotten(held);
            }
            return true;
        }
        let Ok(key) = key.try_into().map(Digest) else { return false };
        self.states.restore_use(key, used);
        let state = State { rule, shown: stored.shown, held, is_stored: true };
        *self.states.restore(key) = state;
        if held.is_some() {
            self.waiting.insert((state.until(self.every(rule).unwrap_or(0)), key));
        }
        self.make_room();
        true
    }

    /// Takes over what another knows, whose rules may be others: the combinations of those that are the same. Gives how
    /// many were dropped.
    pub fn take_over(&mut self, mut old: Throttle) -> u64 {
        let is_tracked = self.gone.is_on();
        let mut dropped = 0;
        let rules: Vec<Option<usize>> =
            old.definitions.iter().map(|definition| self.rule_of(*definition)).collect();
        let now_is = |rule: usize| rules.get(rule).copied().flatten();
        let keys: Vec<Digest> = old.states.keys().collect();
        for key in keys {
            let Some(state) = old.states.get(&key) else { continue };
            match now_is(state.rule) {
                Some(rule) => {
                    state.rule = rule;
                    if let Some(held) = &mut state.held {
                        held.rule = rule;
                        self.waiting.insert((state.until(self.every(rule).unwrap_or(0)), key));
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
        let forgotten = std::mem::take(&mut old.forgotten);
        for rule in forgotten.keys().filter(|rule| now_is(**rule).is_none()) {
            old.stored_forgotten.changed(&old.definitions[*rule]);
        }
        self.gone = old.gone;
        self.stored_forgotten = old.stored_forgotten;
        self.evicted = old.evicted;
        self.states.take_over(old.states);
        if is_tracked && !self.gone.is_on() {
            self.track();
        }
        for (rule, held) in forgotten {
            if let Some(rule) = now_is(rule) {
                self.add_forgotten(Throttled { rule, ..held });
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

/// What a rule is called and how it holds back.
fn definition(rule: &Rule) -> Digest {
    let mut parts = vec![rule.name.to_string()];
    if let Some(throttle) = &rule.throttle {
        parts.push(throttle.every.to_string());
        parts.extend(throttle.per.iter().map(ToString::to_string));
    }
    Digest::of(&parts)
}
