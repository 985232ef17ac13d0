//! How often a rule may emit the same alert.

use super::SECOND;
use crate::detection::correlate::throttle::Throttled;
use crate::detection::correlate::{Decision, Throttle};
use crate::detection::rules::ast::RuleSet;
use crate::detection::rules::{Options, SourceFile, load};

/// Two rules: the first throttles for ten seconds, the second never.
pub fn rules() -> RuleSet {
    let rule = |name: &str, rest: &str| {
        format!("- {{rule: {name}, desc: d, condition: ka.verb = get, output: x, priority: INFO{rest}}}\n")
    };
    let text = rule("a", ", throttle: {per: [ka.user.name], every: 10s}") + &rule("b", "");
    load(&[SourceFile { name: "r.yaml".into(), text }], &Options::default()).rules
}

fn show(throttled: u64) -> Decision {
    Decision::Emit { throttled }
}

#[test]
fn first_alert_is_emitted_and_the_next_carries_the_throttled_count() {
    let mut throttle = Throttle::new(&rules());
    assert!(throttle.has(0) && !throttle.has(1) && !throttle.has(2));
    let mut at = |key: &str, seconds: i64| throttle.decide(0, &[key], seconds * SECOND);
    assert_eq!(
        [at("a", 0), at("a", 1), at("b", 2), at("a", 9)],
        [show(0), Decision::Throttle, show(0), Decision::Throttle]
    );
    assert_eq!(
        [at("a", 10), at("a", 11), at("a", 20), at("a", 40)],
        [show(2), Decision::Throttle, show(1), show(0)]
    );
    // A late alert is not emitted; one from another log is.
    assert_eq!([at("a", 38), at("a", 1)], [Decision::Throttle, show(1)]);
    for seconds in 0..5 {
        assert_eq!(throttle.decide(1, &["a"], seconds), show(0));
        assert_eq!(throttle.decide(9, &["a"], seconds), show(0));
    }
}

#[test]
fn unmentioned_throttled_alerts_are_due() {
    let mut throttle = Throttle::new(&rules());
    for (key, seconds) in [("a", 0), ("a", 3), ("a", 1), ("b", 5), ("b", 6)] {
        throttle.decide(0, &[key], seconds * SECOND);
    }
    assert!(throttle.due(10 * SECOND - 1).is_empty());
    assert_eq!(throttle.due(10 * SECOND), [Throttled { rule: 0, count: 2, first: SECOND, last: 3 * SECOND }]);
    assert_eq!(throttle.decide(0, &["a"], 10 * SECOND), show(0));
    assert_eq!(throttle.finish().iter().map(|held| held.count).collect::<Vec<_>>(), [1]);
    assert!(throttle.finish().is_empty() && throttle.due(i64::MAX).is_empty());
}

#[test]
fn evicted_combinations_keep_their_counts() {
    let mut throttle = Throttle::with_capacity(&rules(), 100);
    let (mut shown, mut reported) = (0, 0);
    let mut number = 7_u64;
    for step in 0..20_000_i64 {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = (number >> 33) % 300;
        match throttle.decide(0, &[key.to_le_bytes()], step * SECOND / 100) {
            Decision::Emit { throttled } => {
                shown += 1;
                reported += throttled;
            }
            Decision::Throttle => {}
        }
        if step % 1000 == 0 {
            reported += throttle.due(step * SECOND / 100).iter().map(|held| held.count).sum::<u64>();
        }
        assert!(throttle.keys() <= 100 && throttle.ending() <= 100);
    }
    reported += throttle.finish().iter().map(|held| held.count).sum::<u64>();
    assert_eq!(shown + reported, 20_000);
    assert!(throttle.evicted() > 0);
}

#[test]
fn extreme_times_are_harmless() {
    let mut throttle = Throttle::new(&rules());
    for time in [i64::MIN, i64::MAX, 0, i64::MIN, i64::MIN + 1, i64::MAX] {
        throttle.decide::<&[u8]>(0, &[], time);
    }
    throttle.due(i64::MAX);
}
