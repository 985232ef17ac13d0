//! How often a rule may say the same.

use std::collections::{BTreeMap, BTreeSet};

use super::Digest;
use super::kept::Kept;
use crate::rules::ast::Rule;

/// So many combinations of values are known at once, over all rules.
const MOST_KEYS: usize = 1 << 16;

/// What to do with an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Show it.
    Show {
        /// So many of its kind were held back since the last that was shown.
        held_back: u64,
    },
    /// Hold it back.
    Hold,
}

/// Alerts that were held back, and that no later alert will tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBack {
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
    states: Kept<State>,
    /// Where something is held back, and until when.
    waiting: BTreeSet<(i64, Digest)>,
    /// What was held back by combinations that were forgotten, by rule.
    forgotten: BTreeMap<usize, HeldBack>,
    evicted: u64,
}

/// One combination of values.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// When one was shown last.
    shown: Option<i64>,
    held: Option<HeldBack>,
}

impl State {
    fn until(&self, every: i64) -> i64 {
        self.shown.unwrap_or(i64::MIN).saturating_add(every)
    }
}

impl Throttle {
    /// For the rules of a rule set.
    pub fn new(rules: &[Rule]) -> Self {
        Self::with_room_for(rules, MOST_KEYS)
    }

    pub(super) fn with_room_for(rules: &[Rule], most: usize) -> Self {
        Throttle {
            every: rules.iter().map(|rule| rule.throttle.as_ref().map(|throttle| throttle.every)).collect(),
            states: Kept::new(most, usize::MAX),
            waiting: BTreeSet::new(),
            forgotten: BTreeMap::new(),
            evicted: 0,
        }
    }

    /// Whether a rule, by its index, has a throttle. One that has none need not be asked about.
    pub fn has(&self, rule: usize) -> bool {
        self.every(rule).is_some()
    }

    fn every(&self, rule: usize) -> Option<i64> {
        self.every.get(rule).copied().flatten()
    }

    /// Whether an alert of a rule is shown. `key` are the values of its [`per`](crate::rules::ast::Throttle::per).
    pub fn decide<V: AsRef<[u8]>>(&mut self, rule: usize, key: &[V], time: i64) -> Decision {
        let Some(every) = self.every(rule) else { return Decision::Show { held_back: 0 } };
        let number = rule.to_le_bytes();
        let whole: Vec<&[u8]> =
            std::iter::once(number.as_slice()).chain(key.iter().map(AsRef::as_ref)).collect();
        let key = Digest::of(&whole);
        let state = self.states.touch(key);
        let is_quiet = state
            .shown
            .is_some_and(|shown| time < shown.saturating_add(every) && time > shown.saturating_sub(every));
        if is_quiet {
            let held = state.held.get_or_insert(HeldBack { rule, count: 0, first: time, last: time });
            held.count += 1;
            held.first = held.first.min(time);
            held.last = held.last.max(time);
            self.waiting.insert((state.until(every), key));
            return Decision::Hold;
        }
        self.waiting.remove(&(state.until(every), key));
        let held_back = state.held.take().map_or(0, |held| held.count);
        state.shown = Some(time);
        while let Some((key, state)) = self.states.evict() {
            self.evicted += 1;
            let Some(held) = state.held else { continue };
            let every = self.every.get(held.rule).copied().flatten().unwrap_or(0);
            self.waiting.remove(&(state.until(every), key));
            let sum = self.forgotten.entry(held.rule).or_insert(HeldBack { count: 0, ..held });
            sum.count += held.count;
            sum.first = sum.first.min(held.first);
            sum.last = sum.last.max(held.last);
        }
        Decision::Show { held_back }
    }

    /// What was held back and is over by this time, in the order in which it was over; what was forgotten comes first.
    /// Each is given once, so that the next alert does not tell of it again.
    pub fn due(&mut self, time: i64) -> Vec<HeldBack> {
        self.over(|until| until <= time)
    }

    /// All that is held back, at the end of all input.
    pub fn finish(&mut self) -> Vec<HeldBack> {
        self.over(|_| true)
    }

    fn over(&mut self, is_over: impl Fn(i64) -> bool) -> Vec<HeldBack> {
        let mut found: Vec<HeldBack> = std::mem::take(&mut self.forgotten).into_values().collect();
        while let Some((_, key)) = self.waiting.first().copied().filter(|(until, _)| is_over(*until)) {
            self.waiting.pop_first();
            found.extend(self.states.get(&key).and_then(|state| state.held.take()));
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
