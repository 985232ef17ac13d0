//! Windows and throttles that are stored and restored behave as if there had been no restart.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::{Alerts, alerts, kinds, observations};
use super::{SECOND, correlation, seen};
use crate::detection::correlate::{Correlator, Decision, Fired, MIN_GROUPS, Observation, Throttle};
use crate::detection::rules::ast::{Correlation, CorrelationKind as Kind};
use crate::detection::state::StateChange;

/// What a store would hold.
#[derive(Default)]
struct Store {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes written so far.
    written: usize,
}

impl Store {
    fn apply(&mut self, changes: Vec<StateChange>) {
        let mut keys = std::collections::BTreeSet::new();
        for StateChange { key, value, .. } in changes {
            assert!(keys.insert(key.clone()), "a key has one change");
            match value {
                Some(value) => {
                    self.written += key.len() + value.len();
                    self.entries.insert(key, value);
                }
                None => assert!(self.entries.remove(&key).is_some(), "what goes was there"),
            }
        }
    }

    fn correlator(&self, rules: &[Correlation], allowed_lateness: i64, is_backwards: bool) -> Correlator {
        let mut correlator = Correlator::with_allowed_lateness(rules, allowed_lateness);
        correlator.track();
        let entries: Vec<_> = self.entries.iter().collect();
        let entries: Vec<_> = if is_backwards { entries.into_iter().rev().collect() } else { entries };
        for (key, value) in entries {
            assert!(correlator.restore(key, value));
        }
        correlator
    }
}

/// What a correlator returns for observations, and at the end of input.
fn drive(correlator: &mut Correlator, one: &Observation) -> Vec<Fired> {
    let mut fired = correlator.advance(one.time);
    fired.extend(correlator.observe(0, one));
    fired
}

fn finish(correlator: &mut Correlator) -> Vec<Fired> {
    let mut fired = Vec::new();
    loop {
        let more = correlator.finish();
        if more.is_empty() {
            return fired;
        }
        fired.extend(more);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_stop_changes_nothing(
        alerts in alerts(),
        kind in kinds(),
        seconds in prop::sample::select(vec![1, 3, 10, 30]),
        at_least in 1..7_u64,
        at_most in prop::option::of(1..9_u64),
        allowed_lateness in prop::sample::select(vec![0, 5, 20, 10_000]),
        actions in prop::collection::vec(0..4_u8, 60),
        groups in 1..4_u8,
    ) {
        let rule = correlation(kind, 3, seconds, at_least, at_most);
        let rules = std::slice::from_ref(&rule);
        let mut straight = Correlator::with_allowed_lateness(rules, allowed_lateness * SECOND);
        let mut broken = Correlator::with_allowed_lateness(rules, allowed_lateness * SECOND);
        broken.track();
        let mut store = Store::default();
        let alerts: Alerts = alerts;
        for (mut one, action) in observations(alerts).into_iter().zip(actions) {
            one.key = vec![vec![one.id[7] % groups].into()];
            one.note = Some(one.id.into());
            prop_assert_eq!(drive(&mut straight, &one), drive(&mut broken, &one), "{:?}", one);
            if action > 1 {
                store.apply(broken.take_changes());
            }
            if action > 2 {
                broken = store.correlator(rules, allowed_lateness * SECOND, one.id[7] % 2 == 0);
                prop_assert_eq!(broken.weight(), 0);
                prop_assert_eq!(broken.take_changes(), vec![]);
                prop_assert_eq!((broken.weight(), broken.groups()), (straight.weight(), straight.groups()));
            }
        }
        prop_assert_eq!(finish(&mut straight), finish(&mut broken));
    }
}

#[test]
fn large_groups_are_stored_in_pieces() {
    for kind in Kind::ALL {
        let most = (kind == Kind::EventCount).then_some(5000);
        for bounds in [(1600, None), (0, most)] {
            let rules = [correlation(kind, 4, 2000, bounds.0, bounds.1)];
            let mut straight = Correlator::new(&rules);
            let mut broken = Correlator::new(&rules);
            broken.track();
            let mut store = Store::default();
            for number in 0..12_000_u64 {
                let seconds = i64::try_from(number).unwrap() - i64::from(number % 7 == 0) * 3;
                let value = (number % 1700).to_string();
                let one = seen(usize::from(number % 50 == 0), seconds, number, &[&value, "x"]);
                assert_eq!(drive(&mut straight, &one), drive(&mut broken, &one));
                store.apply(broken.take_changes());
                if number % 1777 == 0 {
                    broken = store.correlator(
                        &rules,
                        crate::detection::correlate::DEFAULT_ALLOWED_LATENESS,
                        false,
                    );
                    store.apply(broken.take_changes());
                }
            }
            // A piece, a head and some texts, while the group has up to a few thousand entries.
            assert!(store.written / 12_000 < 12_000, "{kind}: {}", store.written / 12_000);
            let stored: usize = store.entries.values().map(Vec::len).sum();
            assert!(stored < straight.weight() * 60 + 20_000, "{kind}: {stored} {}", straight.weight());
            broken.expire(i64::MAX);
            while !broken.finish().is_empty() {}
            broken.expire(i64::MAX);
            store.apply(broken.take_changes());
            assert!(store.entries.len() <= 2, "{:?}", store.entries.keys());
        }
    }
}

#[test]
fn evicted_groups_leave_the_store_and_order_is_restored() {
    let rules: Vec<_> = (0..256)
        .map(|number: u64| Correlation {
            name: number.to_string().into(),
            ..correlation(Kind::ValueCount, 1, 10, 3, None)
        })
        .collect();
    let (mut straight, mut broken) = (Correlator::new(&rules), Correlator::new(&rules));
    broken.track();
    let mut store = Store::default();
    let mut random = 7_u64;
    for number in 0..6000_u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = vec![((random >> 33) % 400).to_le_bytes().as_slice().into()];
        let one = Observation { key, ..seen(0, 0, number, &[&number.to_string()]) };
        assert_eq!(straight.observe(3, &one), broken.observe(3, &one));
        if number % 20 == 0 {
            store.apply(broken.take_changes());
        }
        if number % 500 == 0 {
            broken = store.correlator(&rules, crate::detection::correlate::DEFAULT_ALLOWED_LATENESS, false);
        }
    }
    store.apply(broken.take_changes());
    assert_eq!((broken.groups(), broken.weight()), (straight.groups(), straight.weight()));
    assert!(straight.stats().evicted_groups > 1000 && straight.groups() <= MIN_GROUPS);
    // Each has a head, texts and one piece; in addition, there is the time.
    assert_eq!(store.entries.len(), 3 * broken.groups() + 1);
}

#[test]
fn unchanged_correlations_take_over_their_groups() {
    let named = |name: &str, seconds: i64| Correlation {
        name: name.into(),
        ..correlation(Kind::EventCount, 1, seconds, 2, None)
    };
    let old = [named("a", 10), named("b", 10), named("c", 10)];
    let new = [named("c", 10), named("b", 20), named("d", 10)];
    let mut store = Store::default();
    let mut correlator = Correlator::new(&old);
    correlator.track();
    for at in 0..3 {
        assert!(correlator.observe(at, &seen(0, 0, 1, &[])).is_none());
    }
    store.apply(correlator.take_changes());
    let mut restored = Correlator::new(&new);
    let refused = store.entries.iter().filter(|(key, value)| !restored.restore(key, value)).count();
    // A head and a piece each.
    assert_eq!(refused, 4);
    let mut taken_over = Correlator::new(&new);
    assert_eq!(taken_over.take_over(correlator), 2);
    store.apply(taken_over.take_changes());
    assert_eq!(store.entries.len(), 3);
    for one in [&mut restored, &mut taken_over] {
        let fired = [0, 1, 2].map(|at| one.observe(at, &seen(0, 1, 2, &[])).is_some());
        assert_eq!(fired, [true, false, false]);
    }
    store.apply(taken_over.take_changes());
    assert_eq!(store.entries.len(), 7);
}

#[test]
fn invalid_entries_are_rejected() {
    let mut store = Store::default();
    for kind in Kind::ALL {
        for most in [None, Some(3)] {
            let rules = [correlation(kind, 2, 10, 2, most)];
            let mut correlator = Correlator::new(&rules);
            correlator.track();
            for number in 0..5 {
                let note = Some(b"note".as_slice().into());
                correlator.observe(0, &Observation { note, ..seen(0, 0, number, &["a", "b"]) });
            }
            store.apply(correlator.take_changes());
            for (key, value) in &store.entries {
                let bytes = (0..value.len()).flat_map(|at| [0, 1, 0x7f, 0xff].map(|byte| (at, byte)));
                for (at, byte) in bytes {
                    let mut value = value.clone();
                    value[at] = byte;
                    let mut other = Correlator::new(&rules);
                    other.restore(key, &value);
                    other.restore(key, &value[..at]);
                    for time in [i64::MIN, 0, i64::MAX] {
                        other.observe(0, &Observation { time, ..seen(0, 0, 9, &["a", "c"]) });
                        other.advance(time);
                    }
                    while !other.finish().is_empty() {}
                    other.take_changes();
                }
                let mut other = Correlator::new(&rules);
                assert!(!other.restore(&key[1..], value) && !other.restore(b"", value));
                assert!(!other.restore(key, b"") && !other.restore(key, b"{}"));
                let mut newer = value.clone();
                newer[0] = 2;
                assert!(!other.restore(key, &newer));
            }
            store.entries.clear();
        }
    }
}

fn throttle(store: &BTreeMap<Vec<u8>, Vec<u8>>) -> Throttle {
    let mut throttle = Throttle::with_capacity(&super::throttles::rules(), 100);
    throttle.track();
    for (key, value) in store {
        assert!(throttle.restore(key, value));
    }
    throttle
}

#[test]
fn throttles_survive_a_restart() {
    let mut store = Store::default();
    let mut straight = throttle(&store.entries);
    let mut broken = throttle(&store.entries);
    let mut random = 7_u64;
    for step in 0..20_000_i64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = [((random >> 33) % 130).to_le_bytes()];
        let time = step * SECOND / 10;
        assert_eq!(straight.decide(0, &key, time), broken.decide(0, &key, time));
        if step % 13 == 0 {
            store.apply(broken.take_changes());
            assert!(store.entries.len() <= 101);
        }
        if step % 169 == 0 {
            broken = throttle(&store.entries);
        }
        if step % 1000 == 0 {
            assert_eq!(straight.due(time), broken.due(time));
        }
    }
    assert!(straight.evicted() > 0);
    broken.expire(2000 * SECOND - 5 * SECOND);
    assert!(broken.keys() < straight.keys());
    store.apply(broken.take_changes());
    // Expired combinations that throttle nothing are removed; a rule may have an entry for evicted ones as well.
    assert!(store.entries.len() - broken.keys() <= 1);
    let mut restored = throttle(&store.entries);
    let mut taken_over = Throttle::with_capacity(&super::throttles::rules(), 100);
    assert_eq!(taken_over.take_over(broken), 0);
    let due = straight.finish();
    assert_eq!((restored.finish(), taken_over.finish()), (due.clone(), due));
}

#[test]
fn throttles_of_other_rules_are_dropped() {
    let rules = super::throttles::rules();
    let mut old = Throttle::new(&rules);
    old.track();
    old.decide(0, &["a"], 0);
    assert_eq!(old.decide(0, &["a"], 1), Decision::Throttle);
    let mut store = Store::default();
    store.apply(old.take_changes());
    let mut other = rules.clone();
    other.rules.reverse();
    let mut same = Throttle::new(&other);
    assert_eq!(same.take_over(old.clone()), 0);
    assert_eq!(same.decide(1, &["a"], 2), Decision::Throttle);
    assert_eq!(same.finish()[0].rule, 1);
    other.rules[1].throttle.as_mut().unwrap().every += 1;
    let mut changed = Throttle::new(&other);
    for (key, value) in &store.entries {
        assert!(!changed.restore(key, value) && !Throttle::new(&rules).restore(key, &value[1..]));
        assert!(!Throttle::new(&rules).restore(&key[1..], value));
    }
    assert_eq!(changed.take_over(old), 1);
    store.apply(changed.take_changes());
    assert!(store.entries.is_empty());
}
