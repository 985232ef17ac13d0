//! Clients cannot fill memory, nor hide their activity, by the values they choose.

use super::{SECOND, correlation, seen};
use crate::detection::correlate::{
    Correlator, MAX_GROUPS, MAX_IDS, MAX_NOTE_BYTES, MAX_OBSERVATIONS, MAX_VALUE_BYTES, MAX_VALUES,
    MIN_GROUPS, Observation,
};
use crate::detection::rules::ast::CorrelationKind as Kind;

#[test]
fn groups_are_bounded_and_counted() {
    let rules: Vec<_> = (0..256).map(|_| correlation(Kind::EventCount, 1, 10, 3, None)).collect();
    let mut correlator = Correlator::new(&rules);
    let key = |number: u64| vec![vec![0_u8; 10_000].into(), number.to_le_bytes().as_slice().into()];
    for number in 0..2000 {
        let observation = Observation { key: key(number), ..seen(0, 0, number, &[]) };
        assert!(correlator.observe(0, &observation).is_none());
        // A group with new observations is not evicted.
        let observation = Observation { key: key(0), ..seen(0, 0, 0, &[]) };
        assert!(correlator.observe(0, &observation).is_none());
    }
    assert_eq!(correlator.groups(), MIN_GROUPS.max(MAX_GROUPS / 256));
    assert_eq!(correlator.stats().evicted_groups, 2000 - correlator.groups() as u64);
    for number in 5000..5002 {
        let fired = correlator.observe(0, &Observation { key: key(0), ..seen(0, 1, number, &[]) });
        assert_eq!(fired.is_some(), number == 5001);
    }
    correlator.expire(i64::MAX);
    assert_eq!((correlator.groups(), correlator.weight()), (0, 0));
}

/// Groups of five denials, of a sequence of three rules, and of four values, each flooded by 60,000 other groups between any two of its
/// steps from the second on.
#[test]
fn flood_of_groups_does_not_hide_one_close_to_its_condition() {
    for (kind, sources, needed) in
        [(Kind::EventCount, 1, 5), (Kind::TemporalOrdered, 3, 3), (Kind::ValueCount, 1, 4)]
    {
        let rules: Vec<_> = (0..7).map(|_| correlation(kind, sources, 3600, needed, None)).collect();
        let mut correlator = Correlator::new(&rules);
        let (mut number, mut fired) = (0_u64, Vec::new());
        let mut identity = 0_u64;
        for step in 0..usize::try_from(needed).unwrap() {
            number += 1;
            let value = format!("{step}");
            let source = step % sources;
            let key = vec![b"mallory".as_slice().into()];
            fired.extend(correlator.observe(0, &Observation { key, ..seen(source, 0, number, &[&value]) }));
            // A single step does not exceed what each group of the flood has.
            if step == 0 {
                continue;
            }
            for _ in 0..60_000 {
                number += 1;
                identity += 1;
                let key = vec![identity.to_le_bytes().as_slice().into()];
                let source = sources - 1;
                fired.extend(correlator.observe(0, &Observation { key, ..seen(source, 1, number, &["x"]) }));
            }
        }
        assert_eq!(fired.len(), 1, "{kind}");
        assert!(correlator.groups() <= MAX_GROUPS / 7 && correlator.stats().evicted_groups > 100_000);
    }
}

/// Groups with many entries must not keep new ones from growing.
#[test]
fn advanced_groups_leave_room_for_new_ones() {
    let mut correlator = Correlator::new(&[correlation(Kind::EventCount, 1, 3600, 5, None)]);
    let mut number = 0_u64;
    for identity in 0..100_000_u64 {
        for _ in 0..4 {
            number += 1;
            let key = vec![identity.to_le_bytes().as_slice().into()];
            assert!(correlator.observe(0, &Observation { key, ..seen(0, 0, number, &[]) }).is_none());
        }
    }
    assert!(correlator.stats().evicted_advanced_groups > 10_000);
    let fires = (0..5).filter(|step| {
        let key = vec![b"mallory".as_slice().into()];
        correlator.observe(0, &Observation { key, ..seen(0, 1, 1_000_000 + step, &[]) }).is_some()
    });
    assert_eq!(fires.count(), 1);
}

/// Groups whose window is over are removed first, and do not count as evicted.
#[test]
fn groups_that_ended_make_room_for_others() {
    let mut correlator = Correlator::new(&[correlation(Kind::EventCount, 1, 10, 5, None)]);
    for identity in 0..200_000_u64 {
        let seconds = i64::try_from(identity / 1000).unwrap();
        let key = vec![identity.to_le_bytes().as_slice().into()];
        for number in 0..3 {
            correlator.observe(
                0,
                &Observation { key: key.clone(), ..seen(0, seconds, identity * 3 + number, &[]) },
            );
        }
    }
    assert_eq!(correlator.stats().evicted_groups, 0);
}

#[test]
fn long_lists_in_many_groups_are_bounded() {
    let rules: Vec<_> = (0..16).map(|_| correlation(Kind::ValueCount, 1, 1000, 10_000, None)).collect();
    let mut correlator = Correlator::new(&rules);
    let long = "x".repeat(300);
    let values: Vec<String> = (0..1000).map(|number| format!("{number}{long}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    for number in 0..40_u64 {
        let key = vec![number.to_le_bytes().as_slice().into()];
        assert!(correlator.observe(0, &Observation { key, ..seen(0, 0, number, &values) }).is_none());
        assert!(correlator.weight() <= (MAX_OBSERVATIONS / 16).max(42_000));
    }
    assert!(correlator.stats().evicted_groups > 0);
}

#[test]
fn flood_of_one_value_does_not_hide_others() {
    for late in [0, 2] {
        let mut correlator = Correlator::new(&[correlation(Kind::ValueCount, 1, 100_000, 5, None)]);
        let mut number = 0;
        let mut read = |value: &str, seconds: i64| {
            number += 1;
            correlator.observe(0, &seen(0, seconds, number, &[value]))
        };
        for (at, value) in (0..).zip(["a", "b", "c", "d"]) {
            assert!(read(value, at).is_none());
        }
        for at in 0..20_000 {
            assert!(read("a", 10 + at - late * (at % 2)).is_none());
        }
        let fired = read("e", 20_020).unwrap();
        assert_eq!((fired.value_count, fired.is_partial), (5, true));
        assert!(fired.count > 5 && fired.ids.len() == MAX_IDS);
        assert_eq!(correlator.stats().dropped, 0);
        assert!(correlator.weight() < 2048);
    }
}

#[test]
fn flood_does_not_hide_a_sequence() {
    let mut correlator = Correlator::new(&[correlation(Kind::TemporalOrdered, 4, 100_000, 0, None)]);
    let mut number = 0;
    let mut alert = |source: usize, seconds: i64| {
        number += 1;
        correlator.observe(0, &seen(source, seconds, number, &[]))
    };
    for (source, at) in (0..3).zip(0..) {
        assert!(alert(source, at).is_none());
    }
    for at in 0..10_000 {
        assert!(alert(1, 10 + 2 * at).is_none());
        assert!(alert(0, 11 + 2 * at).is_none());
    }
    assert_eq!(alert(3, 20_020).unwrap().sources, [0, 1, 2, 3]);
    assert!(correlator.weight() < 2048);
}

#[test]
fn largest_allowed_counts_are_reached() {
    for (kind, number) in [(Kind::EventCount, 100_000), (Kind::ValueCount, 10_000)] {
        let mut correlator = Correlator::new(&[correlation(kind, 1, 1000, number, None)]);
        for at in 1..=number {
            let fired = correlator.observe(0, &seen(0, 0, at, &[&at.to_string()]));
            assert_eq!(fired.is_some(), at == number);
        }
        let mut correlator = Correlator::new(&[correlation(kind, 1, 1000, 0, Some(number))]);
        for at in 0..=number {
            assert!(correlator.observe(0, &seen(0, 0, at, &[&at.to_string()])).is_none());
        }
        assert!(correlator.finish().is_empty());
    }
}

#[test]
fn shown_values_are_a_sample() {
    let mut correlator = Correlator::new(&[correlation(Kind::ValueCount, 1, 1000, 100, None)]);
    let values: Vec<String> = (0..5000).map(|number| format!("{number:0>400}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let fired = correlator.observe(0, &seen(0, 0, 1, &values)).unwrap();
    assert_eq!((fired.values.len(), fired.values[0].len()), (MAX_VALUES, MAX_VALUE_BYTES));
    // A list is cut at the boundary of a group.
    assert!(fired.is_partial && fired.value_count >= 100);
    assert!(correlator.stats().dropped > 0);
}

#[test]
fn tumbling_group_is_bounded_without_advance() {
    for kind in [Kind::EventCount, Kind::ValueCount] {
        let mut correlator = Correlator::new(&[correlation(kind, 1, 2, 0, Some(1))]);
        let mut fired = 0;
        let note: Box<[u8]> = vec![0; MAX_NOTE_BYTES].into();
        // Every window holds one, so none can be dropped: they are evaluated early.
        for (at, seconds) in (0..5000).zip((0..).step_by(3)) {
            let observation = Observation { note: Some(note.clone()), ..seen(0, seconds, at, &["x"]) };
            fired += usize::from(correlator.observe(0, &observation).is_some());
            assert!(correlator.weight() < 4096);
        }
        assert_eq!(fired + correlator.finish().len(), 5000);
        // A group with very many entries shows this by not firing.
        for at in 10_000..20_000 {
            assert!(correlator.observe(0, &seen(0, 100_000, at, &[&at.to_string()])).is_none());
        }
        assert!(correlator.finish().is_empty());
    }
}

#[test]
fn extreme_times_are_harmless() {
    for kind in Kind::ALL {
        for most in [None, Some(3)] {
            let mut correlator = Correlator::new(&[correlation(kind, 2, 10, 2, most)]);
            let times = [i64::MIN, i64::MAX, 0, i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - SECOND, -1];
            for (number, time) in (0..).zip(times) {
                for source in [0, 1, 77] {
                    correlator.observe(0, &Observation { time, ..seen(source, 0, number, &["a", "b"]) });
                }
                correlator.advance(time);
            }
            while !correlator.finish().is_empty() {}
            correlator.expire(i64::MIN);
        }
    }
}
