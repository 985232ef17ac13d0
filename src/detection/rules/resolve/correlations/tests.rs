//! Tests of correlations and throttles.

use crate::detection::rules::ast::{Bounds, Correlation, CorrelationKind, Feed};
use crate::detection::rules::{Loaded, Options, SourceFile, load, render};

const RULES: &str = "\
- rule: Read
  desc: d
  condition: ka.verb = get
  output: x
  priority: INFO
- {rule: Listed, desc: d, condition: ka.verb = list, output: x, priority: INFO}
- {rule: Off, desc: d, condition: ka.verb = watch, output: x, priority: INFO, enabled: false}
- {rule: Elsewhere, source: syscall, desc: d, condition: evt.num = 1, output: x, priority: INFO}
";

fn file(text: &str) -> SourceFile {
    SourceFile { name: "c.yaml".into(), text: text.to_owned() }
}

/// Loads a file after the rules.
fn loaded(text: &str) -> Loaded {
    load(&[file(RULES), file(text)], &Options::default())
}

fn sound(text: &str) -> Vec<Correlation> {
    let found = loaded(text);
    assert!(!found.has_errors(), "{:?}", found.diagnostics);
    found.rules.correlations
}

/// Returns the rendered diagnostics, without those of the rules.
fn said(text: &str) -> String {
    let files = [file(RULES), file(text)];
    let mut found = load(&files, &Options::default());
    found.diagnostics.retain(|diagnostic| diagnostic.code != "other-source" || diagnostic.span.file == 1);
    render(&found.diagnostics, &files, false)
}

/// Returns a correlation in flow style, with keys replaced or added.
fn item(name: &str, keys: &str) -> String {
    let mut text = format!("- correlation: {name}\n");
    for default in [
        "type: event_count",
        "rules: [Read]",
        "timespan: 10m",
        "condition: {gte: 5}",
        "output: x",
        "priority: ERROR",
    ] {
        let key = default.split(':').next().unwrap_or_default();
        if !keys.lines().any(|line| line.trim_start_matches('-').starts_with(key)) {
            text.extend(["  ", default, "\n"]);
        }
    }
    for line in keys.lines().filter(|line| !line.starts_with('-')) {
        text.extend(["  ", line, "\n"]);
    }
    text
}

#[test]
fn reads_a_correlation() {
    let text = "\
- correlation: Harvested
  desc: One user read many.
  type: value_count
  rules: [Read, Listed]
  group-by: [ka.user.name, tolower(ka.verb)]
  timespan: 1h30m
  condition: {field: registry.secrets, gt: 5, lte: 9}
  output: \"%ka.user.name read %correlation.value_count %correlation.values in %correlation.timespan\"
  priority: CRITICAL
  tags: [b, a, b]
";
    let found = sound(text);
    let [one] = &found[..] else { panic!() };
    assert_eq!(
        (&*one.name, one.kind, one.timespan),
        ("Harvested", CorrelationKind::ValueCount, 5_400_000_000_000)
    );
    assert_eq!(one.feeds, [Feed::Rule(0), Feed::Rule(1)]);
    assert_eq!(
        one.group_by.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["ka.user.name", "tolower(ka.verb)"]
    );
    assert_eq!(one.field.as_ref().map(ToString::to_string).as_deref(), Some("registry.secrets"));
    assert_eq!(one.bounds, Bounds { at_least: 6, at_most: Some(9) });
    assert_eq!((one.tags.join(" ").as_str(), one.enabled, one.location.line), ("a b", true, 1));
    assert!(
        one.bounds.contains(6)
            && one.bounds.contains(9)
            && !one.bounds.contains(5)
            && !one.bounds.contains(10)
    );
}

#[test]
fn reads_comparisons_as_ranges() {
    for (condition, at_least, at_most) in [
        ("{gte: 5}", 5, None),
        ("{gt: 5}", 6, None),
        ("{lt: 5}", 0, Some(4)),
        ("{eq: 5}", 5, Some(5)),
        ("{gte: 2, gt: 2, lt: 9, lte: 9}", 3, Some(8)),
        ("{gte: 100000}", 100_000, None),
    ] {
        let found = sound(&item("c", &format!("condition: {condition}")));
        assert_eq!(found[0].bounds, Bounds { at_least, at_most }, "{condition}");
    }
}

#[test]
fn allows_forward_references_and_correlations_of_correlations() {
    // The first is fed by the last, and all of them precede the rules.
    let text = item("Top", "type: temporal_ordered\nrules: [Deep, Read]\n-condition")
        + &item("Middle", "rules: Bottom")
        + &item("Deep", "type: temporal\nrules: [Middle, Listed]\n-condition")
        + &item("Bottom", "");
    let found = load(&[file(&text), file(RULES)], &Options::default());
    assert!(!found.has_errors(), "{:?}", found.diagnostics);
    let names: Vec<&str> = found.rules.correlations.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["Bottom", "Middle", "Deep", "Top"]);
    assert!(!loaded(&item("Elsewhere", "")).has_errors());
    let feeds: Vec<_> = found.rules.correlations.iter().map(|one| one.feeds.clone()).collect();
    assert_eq!(feeds[1], [Feed::Correlation(0)]);
    assert_eq!(feeds[2], [Feed::Correlation(1), Feed::Rule(1)]);
    assert_eq!(feeds[3], [Feed::Correlation(2), Feed::Rule(0)]);
    for (index, feeds) in feeds.iter().enumerate() {
        assert!(feeds.iter().all(|feed| !matches!(feed, Feed::Correlation(at) if *at >= index)));
    }
}

#[test]
fn applies_redefinitions_and_overrides() {
    let text = item("c", "tags: [a]\ndesc: one")
        + &item("c", "tags: [b]\ndesc: two\nrules: [Listed]")
        + "- correlation: c\n  rules: [Read]\n  tags: [c]\n  desc: more\n  output: and more\n  priority: DEBUG\n  condition: {eq: 3}\n  timespan: 1s\n"
        + "  override: {rules: append, tags: append, desc: append, output: append, priority: replace, condition: replace, timespan: replace}\n"
        + "- {correlation: c, enabled: false}\n";
    let found = sound(&text);
    let [one] = &found[..] else { panic!() };
    assert_eq!(one.feeds, [Feed::Rule(1), Feed::Rule(0)]);
    assert_eq!((one.tags.join(" ").as_str(), one.desc.as_str(), one.enabled), ("b c", "two more", false));
    assert_eq!((one.bounds.at_most, one.timespan, one.priority.name()), (Some(3), 1_000_000_000, "Debug"));
    let replaced = sound(
        &(item("c", "tags: [a]")
            + "- {correlation: c, rules: [Listed], tags: [z], group-by: [ka.verb], type: event_count, enabled: true, override: {rules: replace, tags: replace, group-by: append, type: replace, enabled: replace}}\n"),
    );
    assert_eq!(
        (replaced[0].feeds.clone(), replaced[0].tags.join(" ")),
        (vec![Feed::Rule(1)], "z".to_owned())
    );
}

#[test]
fn reports_errors_at_their_location() {
    let text = item("Type", "type: evnt_count")
        + &item("Rule", "rules: [Raed, Read, Read, Elsewhere]")
        + &item("Time", "timespan: ten minutes")
        + &item("Keys", "contidion: {}\ngroup_by: [ka.verb]")
        + &item("Missing", "-condition")
        + &item("Extra", "type: temporal\nrules: [Read, Listed]")
        + &item("Field", "condition: {field: ka.verb, gte: 2}")
        + &item("No field", "type: value_count")
        + &item("Word", "condition: {gtr: 5, gte: many, lt: -1}")
        + &item("Alone", "type: temporal\n-condition")
        + &item("Large", "type: value_count\ncondition: {field: ka.verb, gte: 50000}")
        + &item(
            "Fields",
            "group-by: [ka.user.nam, correlation.count]\noutput: \"%correlation.cuont %correlation.nothing\"",
        )
        + &item("Read", "")
        + "- correlation: Empty\n- correlation:\n- {correlation: Unknown, enabled: false}\n";
    insta::assert_snapshot!(said(&text));
}

#[test]
fn reports_cycles() {
    let text = item("a", "rules: [b]")
        + &item("b", "rules: [c, Read]")
        + &item("c", "rules: [a]")
        + &item("self", "rules: [self]")
        + &item("behind", "rules: [a]");
    insta::assert_snapshot!(said(&text));
}

#[test]
fn warns_about_correlations_that_never_fire() {
    let text = item("Off only", "rules: [Off]")
        + &item("Off too", "rules: [Off, Read]")
        + &item("Needs all", "type: temporal\nrules: [Off, Read]\n-condition")
        + &item("Fed by none", "rules: [Off only]")
        + &item("Off itself", "rules: [Off]\nenabled: false")
        + &item("No number", "condition: {gt: 5, lt: 6}")
        + &item("None at all", "condition: {lt: 1}");
    insta::assert_snapshot!(said(&text));
}

#[test]
fn skips_correlations_of_invalid_rules_silently() {
    let text = "- {rule: Wrong, desc: d, condition: ka.nosuch = 1, output: x, priority: INFO}\n\
        - {rule: Skipped, desc: d, condition: ka.nosuch = 1, output: x, priority: INFO, skip-if-unknown-filter: true}\n"
        .to_owned()
        + &item("w", "rules: [Wrong]")
        + &item("s", "rules: [Skipped]")
        + &item("t", "rules: [s]");
    let found = loaded(&text);
    let codes: Vec<_> =
        found.diagnostics.iter().filter(|one| one.span.file == 1).map(|one| one.code).collect();
    assert_eq!(codes, ["unknown-field", "skipped", "skipped", "skipped"]);
    assert!(found.rules.correlations.is_empty());
}

#[test]
fn rejects_correlation_fields_in_rules() {
    let text = "- {rule: r, desc: d, condition: correlation.count > 1, output: x, priority: INFO}\n\
        - {rule: q, desc: d, condition: ka.verb = x, output: \"%correlation.count\", priority: INFO}\n";
    insta::assert_snapshot!(said(text));
}

#[test]
fn reads_and_overrides_throttles() {
    let rule = |rest: &str| {
        format!("- {{rule: t, desc: d, condition: ka.verb = get, output: x, priority: INFO{rest}}}\n")
    };
    let first = |text: &str| {
        let found = load(&[file(text)], &Options::default());
        assert!(!found.has_errors(), "{:?}", found.diagnostics);
        found.rules.rules[0].throttle.clone()
    };
    let text = rule(", throttle: {per: [ka.user.name, ka.verb], every: 10m}");
    let throttle = first(&text).unwrap();
    assert_eq!((throttle.per.len(), throttle.every), (2, 600_000_000_000));
    let text = text + "- {rule: t, throttle: {every: 1s}, override: {throttle: replace}}\n";
    let throttle = first(&text).unwrap();
    assert_eq!((throttle.per.len(), throttle.every), (0, 1_000_000_000));
    assert!(first(&(text + "- {rule: t, throttle: null, override: {throttle: replace}}\n")).is_none());
    assert!(first(&rule("")).is_none());
    let wrong = rule(", throttle: 10m")
        + &rule(", throttle: {per: ka.nosuch, every: 1s, evry: 2s}")
        + &rule(", throttle: {per: []}")
        + &rule(", throttle: {every: 0s}");
    insta::assert_snapshot!(said(&wrong));
}

#[test]
fn reads_and_overrides_throttles_of_correlations() {
    let text = "- {rule: Read, desc: d, condition: ka.verb = get, output: x, priority: INFO}\n".to_owned()
        + "- {correlation: c, type: event_count, rules: [Read], timespan: 1m, condition: {gte: 2}, output: x, priority: INFO, \
           throttle: {per: [ka.user.name, correlation.values], every: 24h}}\n";
    let first = |text: &str| {
        let found = load(&[file(text)], &Options::default());
        assert!(!found.has_errors(), "{:?}", found.diagnostics);
        found.rules.correlations[0].throttle.clone()
    };
    let throttle = first(&text).unwrap();
    assert_eq!((throttle.per.len(), throttle.every), (2, 24 * 3_600_000_000_000));
    let replace = |throttle: &str| {
        format!("{text}- {{correlation: c, throttle: {throttle}, override: {{throttle: replace}}}}\n")
    };
    assert_eq!(first(&replace("{every: 1s}")).unwrap().every, 1_000_000_000);
    assert!(first(&replace("null")).is_none());
    assert!(said(&replace("{per: [correlation.nosuch], every: 1s}")).contains("unknown"));
}

proptest::proptest! {
    #[test]
    fn a_file_with_a_few_bytes_changed_is_one_or_an_error(at in 0_usize..900, with in "[ -~\n\u{e4}]{0,12}", length in 0_usize..20) {
        let text = item("a", "type: value_count\ncondition: {field: registry.secrets, gte: 5, lt: 10}\ngroup-by: [ka.user.name]")
            + &item("b", "type: temporal_ordered\nrules: [a, Read]\ntimespan: 1h30m\noutput: \"%correlation.values\"\n-condition")
            + "- {correlation: a, rules: [b], condition: {eq: 3}, override: {rules: append, condition: replace}}\n"
            + "- {rule: t, desc: d, condition: ka.verb = get, output: x, priority: INFO, throttle: {per: [ka.verb], every: 1m}}\n";
        let (at, length) = (at.min(text.len()), length.min(text.len() - at.min(text.len())));
        let changed = format!("{}{with}{}", &text[..at], &text[at + length..]);
        let found = loaded(&changed);
        for (index, one) in found.rules.correlations.iter().enumerate() {
            proptest::prop_assert!(!one.feeds.is_empty() && one.timespan > 0);
            let is_known = |feed: &Feed| match feed {
                Feed::Rule(rule) => *rule < found.rules.rules.len(),
                Feed::Correlation(other) => *other < index,
            };
            proptest::prop_assert!(one.feeds.iter().all(is_known));
        }
        said(&changed);
    }
}

#[test]
fn bounds_the_number_of_correlations() {
    let text: String = (0..300).map(|at| item(&format!("c{at}"), "")).collect();
    let found = loaded(&text);
    assert!(found.diagnostics.iter().any(|one| one.code == "too-large"));
    let names = (0..40).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
    let text: String = (0..40).map(|at| item(&format!("c{at}"), "")).collect::<String>()
        + &item("many", &format!("rules: [{names}]"));
    assert!(loaded(&text).diagnostics.iter().any(|one| one.code == "too-large"));
    let chain: String =
        (0..250).map(|at| item(&format!("c{at}"), &format!("rules: [c{}]", at + 1))).collect();
    let found = loaded(&(chain + &item("c250", "")));
    assert_eq!(found.rules.correlations.len(), 251);
}
