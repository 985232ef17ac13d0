//! Compares the windows with a model that remembers all observations and examines each interval again.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{SECOND, correlation, seen};
use crate::detection::correlate::{Correlator, DEFAULT_ALLOWED_LATENESS, Fired, Observation};
use crate::detection::rules::ast::{Correlation, CorrelationKind};

/// Everything that counted so far.
#[derive(Default)]
struct Model {
    seen: Vec<Observation>,
    /// The first and last time of each window that fired.
    fired: Vec<(i64, i64)>,
}

impl Model {
    fn satisfied(rule: &Correlation, window: &[&Observation]) -> bool {
        match rule.kind {
            CorrelationKind::EventCount => rule.bounds.contains(window.len() as u64),
            CorrelationKind::ValueCount => {
                let values: BTreeSet<_> = window.iter().flat_map(|one| &one.values).collect();
                rule.bounds.contains(values.len() as u64)
            }
            CorrelationKind::Temporal => {
                (0..rule.feeds.len()).all(|source| window.iter().any(|one| one.source == source))
            }
            CorrelationKind::TemporalOrdered => {
                // The earliest end for each step.
                let mut from = i64::MIN;
                (0..rule.feeds.len()).all(|source| {
                    let next = window
                        .iter()
                        .filter(|one| one.source == source && one.time >= from)
                        .map(|one| one.time)
                        .min();
                    from = next.unwrap_or(from);
                    next.is_some()
                })
            }
        }
    }

    /// The first and last second and the number of the window that an observation completes.
    fn observe(
        &mut self,
        rule: &Correlation,
        allowed_lateness: i64,
        new: &Observation,
    ) -> Option<(i64, i64, u64)> {
        if rule.kind == CorrelationKind::ValueCount && new.values.is_empty() {
            return None;
        }
        let newest = self.seen.iter().map(|one| one.time).max().unwrap_or(i64::MIN);
        let is_late = !self.seen.is_empty() && newest - new.time > rule.timespan.max(allowed_lateness);
        if is_late || self.seen.iter().any(|one| one.id == new.id) {
            return None;
        }
        self.seen.push(new.clone());
        let is_quiet =
            |(first, last): &(i64, i64)| (first - rule.timespan..=last + rule.timespan).contains(&new.time);
        if self.fired.iter().any(is_quiet) {
            return None;
        }
        let mut ends: Vec<i64> = self.seen.iter().map(|one| one.time).collect();
        ends.sort_unstable();
        for end in ends.into_iter().filter(|end| (new.time..=new.time + rule.timespan).contains(end)) {
            let window: Vec<&Observation> =
                self.seen.iter().filter(|one| (end - rule.timespan..=end).contains(&one.time)).collect();
            if Self::satisfied(rule, &window) {
                let first = window.iter().map(|one| one.time).min().unwrap_or(end);
                let count = window.len() as u64;
                self.fired.push((first, end));
                return Some((first, end, count));
            }
        }
        None
    }

    /// Tumbling windows.
    fn closed(mut self, rule: &Correlation) -> Vec<(i64, i64, u64)> {
        self.seen.sort_by_key(|one| one.time);
        let mut fired = Vec::new();
        let mut rest = self.seen.iter().peekable();
        while let Some(first) = rest.next() {
            let mut window = vec![first];
            while let Some(one) = rest.next_if(|one| one.time <= first.time + rule.timespan) {
                window.push(one);
            }
            if Self::satisfied(rule, &window) {
                fired.push((first.time, window[window.len() - 1].time, window.len() as u64));
            }
        }
        fired
    }
}

fn of(fired: &Fired) -> (i64, i64, u64) {
    assert!(!fired.is_partial);
    (fired.first, fired.last, fired.count)
}

/// Alerts: source, seconds since the previous one (may be negative), number, values.
pub type Alerts = Vec<(usize, i64, u64, Vec<u8>)>;

pub fn alerts() -> impl Strategy<Value = Alerts> {
    let one = (
        0..3_usize,
        prop_oneof![6 => 0..4_i64, 2 => -4..0_i64, 1 => -40..40_i64],
        0..60_u64,
        prop::collection::vec(0..9_u8, 0..4),
    );
    prop::collection::vec(one, 1..60)
}

/// Converts them to observations. Equal numbers are equal alerts, so all other members are equal too.
pub fn observations(alerts: Alerts) -> Vec<Observation> {
    let mut now = 1000;
    let mut known: Vec<Observation> = Vec::new();
    for (source, step, number, values) in alerts {
        now += step;
        let values: Vec<String> = values.iter().map(u8::to_string).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let new = seen(source, now, number, &values);
        let same = known.iter().find(|one| one.id == new.id).cloned();
        known.push(same.unwrap_or(new));
    }
    known
}

pub fn kinds() -> impl Strategy<Value = CorrelationKind> {
    prop::sample::select(CorrelationKind::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn sliding_windows_are_those_of_a_plain_reading(alerts in alerts(), kind in kinds(), seconds in prop::sample::select(vec![1, 3, 10, 30]), at_least in 1..7_u64, allowed_lateness in prop::sample::select(vec![0, 5, 20, 10_000])) {
        let rule = correlation(kind, 3, seconds, at_least, None);
        let mut correlator = Correlator::with_allowed_lateness(std::slice::from_ref(&rule), allowed_lateness * SECOND);
        let mut model = Model::default();
        for one in observations(alerts) {
            let expected = model.observe(&rule, allowed_lateness * SECOND, &one);
            let fired = correlator.observe(0, &one);
            prop_assert_eq!(fired.as_ref().map(of), expected, "{:?}", one);
        }
        prop_assert!(correlator.finish().is_empty());
    }

    #[test]
    fn windows_that_close_do_not_depend_on_the_order_within_the_tolerance(
        mut times in prop::collection::vec((0..200_i64, 0..9_u8), 1..40),
        seconds in prop::sample::select(vec![1, 3, 10, 30]),
        at_least in 0..4_u64,
        more in 0..4_u64,
        counts_values: bool,
        shuffle in prop::collection::vec(0..6_i64, 40),
    ) {
        let kind = if counts_values { CorrelationKind::ValueCount } else { CorrelationKind::EventCount };
        let rule = correlation(kind, 1, seconds, at_least, Some(at_least + more));
        // An alert that is up to five seconds late still counts.
        times.sort_unstable();
        let mut order: Vec<(i64, Observation)> = times.iter().zip(&shuffle).zip(0..)
            .map(|(((time, value), late), number)| (time + late, seen(0, *time, number, &[&value.to_string()])))
            .collect();
        order.sort_by_key(|(comes, _)| *comes);
        let mut correlator = Correlator::new(std::slice::from_ref(&rule));
        let mut model = Model::default();
        let mut fired = Vec::new();
        for (_, one) in order {
            prop_assert!(correlator.observe(0, &one).is_none());
            fired.extend(correlator.advance(one.time));
            model.seen.push(one);
        }
        fired.extend(correlator.finish());
        prop_assert_eq!(fired.iter().map(of).collect::<Vec<_>>(), model.closed(&rule));
        prop_assert_eq!(correlator.stats().too_late, 0);
        prop_assert!(DEFAULT_ALLOWED_LATENESS == 5 * SECOND);
    }
}
