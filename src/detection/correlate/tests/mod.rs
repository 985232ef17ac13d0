//! Behavior of windows and throttles, and memory bounds under hostile input.

mod bounds;
mod model;
mod restart;
mod throttles;

use super::{Correlator, DEFAULT_ALLOWED_LATENESS, Fired, Observation};
use crate::detection::alert::Priority;
use crate::detection::rules::ast::{Bounds, Correlation, CorrelationKind, Feed, Location, Template};

pub const SECOND: i64 = 1_000_000_000;

/// A correlation of this number of rules, with a timespan in seconds.
pub fn correlation(
    kind: CorrelationKind,
    feeds: usize,
    seconds: i64,
    at_least: u64,
    at_most: Option<u64>,
) -> Correlation {
    Correlation {
        name: "c".into(),
        desc: String::new(),
        kind,
        feeds: (0..feeds).map(Feed::Rule).collect(),
        group_by: Vec::new(),
        timespan: seconds * SECOND,
        field: None,
        bounds: Bounds { at_least, at_most },
        min_alerts: 1,
        output: Template::default(),
        throttle: None,
        priority: Priority::Error,
        tags: Vec::new(),
        enabled: true,
        show: crate::detection::audit::redact::ShowList::EMPTY,
        location: Location { file: "r.yaml".into(), line: 1 },
    }
}

/// An alert of a rule at a second, identified by a number.
pub fn seen(source: usize, seconds: i64, number: u64, values: &[&str]) -> Observation {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let values = values.iter().map(|value| value.as_bytes().into()).collect();
    Observation { source, time: seconds * SECOND, id, values, ..Observation::default() }
}

/// The seconds at which alerts of one rule, in this order, fire.
fn fires(kind: CorrelationKind, bounds: (u64, Option<u64>), alerts: &[(usize, i64, &[&str])]) -> Vec<Fired> {
    let feeds = alerts.iter().map(|(source, ..)| source + 1).max().unwrap_or(1);
    let mut correlator = Correlator::new(&[correlation(kind, feeds, 10, bounds.0, bounds.1)]);
    let mut fired = Vec::new();
    for (number, (source, seconds, values)) in (1..).zip(alerts) {
        fired.extend(correlator.observe(0, &seen(*source, *seconds, number, values)));
        fired.extend(correlator.advance(seconds * SECOND));
    }
    fired.extend(correlator.finish());
    assert!(correlator.finish().is_empty());
    fired
}

fn at(fired: &[Fired]) -> Vec<(i64, u64)> {
    fired.iter().map(|fired| (fired.time / SECOND, fired.count)).collect()
}

#[test]
fn event_count_fires_once_per_window() {
    let every =
        |step: i64| -> Vec<(usize, i64, &[&str])> { (0..30).map(|n| (0, n * step, &[][..])).collect() };
    // The window is inclusive, so eleven alerts share it from then on.
    assert_eq!(at(&fires(CorrelationKind::EventCount, (5, None), &every(1))), [(4, 5), (15, 11), (26, 11)]);
    assert_eq!(
        at(&fires(CorrelationKind::EventCount, (3, None), &every(5))),
        [(10, 3), (25, 3), (40, 3), (55, 3), (70, 3), (85, 3), (100, 3), (115, 3), (130, 3), (145, 3)]
    );
    assert!(fires(CorrelationKind::EventCount, (3, None), &every(6)).is_empty());
}

#[test]
fn value_count_counts_members_of_lists() {
    let alerts: [(usize, i64, &[&str]); 6] = [
        (0, 0, &["a", "b"]),
        (0, 1, &["b"]),
        (0, 2, &[]),
        (0, 3, &["b", "a", "b"]),
        (0, 11, &["c", "d"]),
        (1, 12, &["e"]),
    ];
    let fired = fires(CorrelationKind::ValueCount, (4, None), &alerts);
    let [one] = &fired[..] else { panic!("{fired:?}") };
    assert_eq!((one.time / SECOND, one.count, one.value_count), (11, 3, 4));
    assert_eq!((one.first / SECOND, one.last / SECOND, &one.sources[..]), (1, 11, &[0][..]));
    let values: Vec<&[u8]> = one.values.iter().map(|value| &**value).collect();
    assert_eq!(values, [b"a", b"b", b"c", b"d"]);
    assert_eq!(one.ids.iter().map(|id| id[7]).collect::<Vec<_>>(), [2, 4, 5]);
    assert!(!one.is_partial);
}

#[test]
fn temporal_matches_in_any_order_and_temporal_ordered_in_sequence() {
    let alerts = |order: &[(usize, i64)]| -> Vec<(usize, i64, &'static [&'static str])> {
        order.iter().map(|(source, seconds)| (*source, *seconds, &[][..])).collect()
    };
    let any = |order: &[(usize, i64)]| at(&fires(CorrelationKind::Temporal, (0, None), &alerts(order)));
    let ordered =
        |order: &[(usize, i64)]| at(&fires(CorrelationKind::TemporalOrdered, (0, None), &alerts(order)));
    assert_eq!(any(&[(2, 0), (0, 4), (0, 5), (1, 10)]), [(10, 4)]);
    assert!(any(&[(2, 0), (0, 4), (1, 11)]).is_empty());
    assert!(ordered(&[(2, 0), (0, 4), (1, 5)]).is_empty());
    assert_eq!(ordered(&[(0, 0), (1, 4), (0, 8), (2, 10)]), [(10, 4)]);
    // The first alert of the sequence is too old, and nothing follows the later one.
    assert!(ordered(&[(0, 0), (1, 4), (0, 8), (2, 11)]).is_empty());
    // All at the same time, in any order.
    assert_eq!(ordered(&[(2, 0), (1, 0), (0, 0)]), [(0, 3)]);
    // The missing alert in the middle is late.
    assert_eq!(ordered(&[(0, 0), (2, 4), (1, 3)]), [(3, 3)]);
}

#[test]
fn upper_bounds_are_evaluated_on_window_close() {
    let alerts = |times: &[i64]| -> Vec<(usize, i64, &'static [&'static str])> {
        times.iter().map(|seconds| (0, *seconds, &[][..])).collect()
    };
    let few = |times: &[i64]| at(&fires(CorrelationKind::EventCount, (0, Some(2)), &alerts(times)));
    // Three from 0 to 10, one from 11 to 21, two from 40.
    assert_eq!(few(&[0, 5, 10, 11, 40, 41]), [(21, 1), (50, 2)]);
    let exactly = |times: &[i64]| at(&fires(CorrelationKind::EventCount, (2, Some(2)), &alerts(times)));
    assert_eq!(exactly(&[0, 5, 10, 11, 40, 41]), [(50, 2)]);
    // Not before the allowed lateness has passed.
    let mut correlator = Correlator::new(&[correlation(CorrelationKind::EventCount, 1, 10, 0, Some(1))]);
    assert!(correlator.is_tumbling(0));
    let note = |seconds, number, note: &[u8]| Observation {
        note: Some(note.into()),
        ..seen(0, seconds, number, &[])
    };
    assert!(correlator.observe(0, &note(20, 1, b"second")).is_none());
    assert!(correlator.advance(20 * SECOND + 10 * SECOND + DEFAULT_ALLOWED_LATENESS).is_empty());
    // It starts before the other window, takes over its alerts, and so breaks the condition.
    assert!(correlator.observe(0, &note(18, 2, b"first")).is_none());
    assert!(correlator.advance(40 * SECOND).is_empty());
    for (number, seconds) in [(3, 25), (5, 28)] {
        assert!(correlator.observe(0, &note(seconds, number, b"gone")).is_none());
    }
    assert_eq!(correlator.stats().too_late, 2);
    correlator.observe(0, &note(30, 4, b"third"));
    let fired = correlator.advance(100 * SECOND);
    assert_eq!(at(&fired), [(40, 1)]);
    assert_eq!(fired[0].note.as_deref(), Some(&b"third"[..]));
}

#[test]
fn value_count_supports_upper_bounds() {
    let alerts: [(usize, i64, &[&str]); 4] =
        [(0, 0, &["a"]), (0, 1, &["a", "a"]), (0, 20, &["a", "b"]), (0, 21, &["c"])];
    let fired = fires(CorrelationKind::ValueCount, (1, Some(2)), &alerts);
    assert_eq!(
        fired.iter().map(|one| (one.time / SECOND, one.value_count, one.count)).collect::<Vec<_>>(),
        [(10, 1, 2)]
    );
}

#[test]
fn groups_are_independent_and_an_alert_counts_once() {
    let mut correlator = Correlator::new(&[correlation(CorrelationKind::EventCount, 1, 10, 2, None)]);
    let of = |key: &[&str], number| Observation {
        key: key.iter().map(|value| value.as_bytes().into()).collect(),
        ..seen(0, 0, number, &[])
    };
    assert!(correlator.observe(0, &of(&["ab", "c"], 1)).is_none());
    assert!(correlator.observe(0, &of(&["a", "bc"], 2)).is_none());
    assert!(correlator.observe(0, &of(&["ab", "c"], 1)).is_none());
    assert_eq!((correlator.stats().repeated, correlator.groups()), (1, 2));
    let fired = correlator.observe(0, &of(&["ab", "c"], 3)).unwrap();
    assert_eq!(fired.count, 2);
    assert!(correlator.observe(7, &of(&[], 1)).is_none());
}

#[test]
fn late_observations_count_within_the_horizon() {
    let mut correlator = Correlator::new(&[correlation(CorrelationKind::EventCount, 1, 10, 3, None)]);
    for (number, seconds) in [(1, 0), (2, 1), (3, 13)] {
        assert!(correlator.observe(0, &seen(0, seconds, number, &[])).is_none());
    }
    // No window that ends now contains three; the one that ended then does.
    let fired = correlator.observe(0, &seen(0, 9, 4, &[])).unwrap();
    assert_eq!((fired.time / SECOND, fired.first / SECOND, fired.last / SECOND, fired.count), (9, 0, 9, 3));
    assert!(correlator.observe(0, &seen(0, 3, 5, &[])).is_none());
    assert!(correlator.observe(0, &seen(0, 2, 6, &[])).is_none());
    let stats = correlator.stats();
    assert_eq!((stats.late, stats.too_late, stats.observed, stats.fired), (2, 1, 6, 1));
}

#[test]
fn fired_windows_feed_other_correlations_at_the_end() {
    let mut few = correlation(CorrelationKind::EventCount, 1, 10, 0, Some(1));
    few.feeds = vec![Feed::Rule(4)];
    let mut twice = correlation(CorrelationKind::EventCount, 1, 100, 2, Some(3));
    twice.feeds = vec![Feed::Correlation(0)];
    let mut correlator = Correlator::new(&[few, twice]);
    for (number, seconds) in [(1, 0), (2, 30)] {
        correlator.observe(0, &seen(0, seconds, number, &[]));
    }
    let mut names = Vec::new();
    loop {
        let fired = correlator.finish();
        if fired.is_empty() {
            break;
        }
        for one in fired {
            names.push(one.correlation);
            if one.correlation == 0 {
                let fed = Observation { time: one.time, id: one.ids[0], ..Observation::default() };
                correlator.observe(1, &fed);
            }
        }
    }
    assert_eq!(names, [0, 0, 1]);
}

#[test]
fn unbounded_lateness_supports_logs_read_one_after_the_other() {
    let rules = [
        correlation(CorrelationKind::EventCount, 1, 10, 5, None),
        correlation(CorrelationKind::EventCount, 1, 10, 0, Some(4)),
    ];
    let mut correlator = Correlator::with_allowed_lateness(&rules, i64::MAX);
    let mut fired = Vec::new();
    let servers = [vec![100, 101, 102, 500, 900], vec![101, 103, 500, 501, 900], vec![500, 500, 2000]];
    for (number, seconds) in (0..).zip(servers.into_iter().flatten()) {
        for correlation in 0..2 {
            fired.extend(correlator.observe(correlation, &seen(0, seconds, number, &[])));
        }
        fired.extend(correlator.advance(seconds * SECOND));
    }
    assert_eq!(at(&fired), [(103, 5), (500, 5)]);
    assert_eq!(at(&correlator.finish()), [(910, 2), (2010, 1)]);
    assert_eq!((correlator.stats().late, correlator.stats().too_late), (0, 0));
}
