//! Properties that hold for any input.

#![allow(clippy::unwrap_used)]

mod common;
mod naive;

use proptest::prelude::*;
use pullwatch::internals::detection::detector::{Detector, Options};
use pullwatch::internals::detection::rules::{self, SourceFile};

fn load(text: &str) -> rules::Loaded {
    let file = SourceFile { name: "r.yaml".into(), text: text.to_owned() };
    let loaded =
        rules::load(std::slice::from_ref(&file), &rules::Options { matching: rules::Matching::First });
    // Every diagnostic can be rendered.
    let shown = rules::render(&loaded.diagnostics, &[file], false);
    assert!(loaded.diagnostics.is_empty() || !shown.is_empty());
    loaded
}

/// The alerts of a text, and the statistics.
fn evaluate(
    detector: &Detector,
    bytes: &[u8],
) -> (Vec<String>, pullwatch::internals::detection::detector::Stats) {
    let mut session = detector.session();
    let mut alerts = Vec::new();
    session.chunk(bytes, &mut |alert| {
        let mut json = Vec::new();
        alert.write_json(&mut json);
        alerts.push(String::from_utf8(json).unwrap());
    });
    (alerts, session.take_stats())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_agrees_with_a_naive_one(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        naive::check(&bytes);
    }

    #[test]
    fn any_text_is_a_rule_file_or_an_error(text in r#"[ -~\n"'\[\]{}:,&*<|>%#-]{0,200}"#) {
        load(&text);
    }

    #[test]
    fn a_rule_file_with_a_few_bytes_changed_is_one_or_an_error(at in 0_usize..4000, with in any::<String>(), length in 0_usize..30) {
        let text = include_str!("../rules.d/10-reads.yaml");
        let start = text.floor_char_boundary(at.min(text.len()));
        let end = text.floor_char_boundary((start + length).min(text.len()));
        load(&format!("{}{with}{}", &text[..start], &text[end..]));
    }

    #[test]
    fn evaluates_any_bytes_and_every_alert_is_json(
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
        at in 0_usize..700,
        length in 0_usize..40,
    ) {
        let loaded = load("- rule: r\n  desc: d\n  condition: not ka.verb = x\n  output: '%jevt.obj %ka.user.groups %ka.uri.param[a]'\n  priority: INFO\n");
        let detector = Detector::new(&loaded.rules, Options::default());
        let line = common::event("a1", "get", "registry-1").into_bytes();
        let at = at.min(line.len());
        let end = (at + length).min(line.len());
        let text = [&line[..at], &bytes, &line[end..], b"\n", &line, b"\n"].concat();
        let (alerts, _) = evaluate(&detector, &text);
        for alert in &alerts {
            let parsed: serde_json::Value = serde_json::from_str(alert).unwrap();
            prop_assert_eq!(&parsed["rule"], "r");
            prop_assert!(!alert.chars().any(char::is_control));
        }
        // The unchanged line is evaluated, whatever precedes it.
        prop_assert!(alerts.iter().any(|alert| alert.contains("\"auditID\":\"a1\"")));
    }

    /// The prefilter skips no line that has an alert.
    #[test]
    fn the_prefilter_skips_no_match(seeds in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..12)) {
        let rule = |condition: &str| format!("- rule: r\n  desc: d\n  condition: {condition}\n  output: x\n  priority: INFO\n");
        // Two equal conditions: one has a literal to search for, the other has none.
        let quick = load(&rule("ka.target.name contains registry"));
        let slow = load(&rule("ka.target.name contains registry or toupper(ka.target.name) contains REGISTRY and ka.target.name contains registry"));
        let text: Vec<u8> = seeds
            .iter()
            .enumerate()
            .flat_map(|(number, seed)| {
                let name: String = seed.iter().map(|byte| match byte % 5 {
                    0 => "registry".to_owned(),
                    1 => r"r\u0065gistry".to_owned(),
                    2 => r"regis\u0074\u0072y".to_owned(),
                    3 => "reg".to_owned(),
                    _ => "x".to_owned(),
                }).collect();
                (common::event(&format!("a{number}"), "get", &name) + "\n").into_bytes()
            })
            .collect();
        let ids = |loaded: &rules::Loaded| {
            let (alerts, counts) = evaluate(&Detector::new(&loaded.rules, Options::default()), &text);
            (alerts.len(), counts.events)
        };
        prop_assert_eq!(ids(&quick), ids(&slow));
    }
}
