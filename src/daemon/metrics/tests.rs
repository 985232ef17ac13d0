use std::collections::{BTreeMap, BTreeSet};

use super::identities::MAX_SERIES;
use super::rotations::MAX_ROTATIONS;
use super::*;
use crate::daemon::source::webhook::WebhookObserver as _;

fn metrics() -> Arc<Metrics> {
    Metrics::new(&["audit".to_owned(), "hook".to_owned()]).unwrap()
}

fn metrics_with_all_series() -> Arc<Metrics> {
    let metrics = metrics();
    metrics.set_rules(RuleNames {
        rules: vec![("Registry Credential Read".to_owned(), Priority::Warning)],
        version: "abc".to_owned(),
    });
    metrics.credential_rotated("default", "regcred", 1_790_000_000_000_000_000);
    metrics.exposed(&exposed("alice", "prod/regcred"));
    metrics.config_reloaded(true);
    let _ = WebhookMetrics::new(metrics.clone(), "hook");
    KafkaMetrics::new(metrics.clone(), "kafka").lag("audit", 0, 1);
    let _ = ListenerMetrics::new(metrics.clone(), &["/metrics"]);
    let sinks = crate::daemon::sink::SinkMetrics::new(&metrics);
    let _ = (sinks.of("stdout"), sinks.of_resends("alertmanager"));
    metrics
}

#[test]
fn the_table_matches_the_output() {
    let text = metrics_with_all_series().render();
    let mut kinds = BTreeMap::new();
    let mut helps = BTreeMap::new();
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            kinds.insert(name.to_owned(), kind.to_owned());
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            helps.insert(name.to_owned(), help.to_owned());
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|name| kinds.contains_key(*name)))
                .unwrap_or(name);
            let inner = line
                .split_once('{')
                .and_then(|(_, rest)| rest.split_once('}'))
                .map_or("", |(inner, _)| inner);
            let names =
                inner.split(',').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name.to_owned());
            labels.entry(name.to_owned()).or_default().extend(names.filter(|name| name != "le"));
        }
    }
    for definition in TABLE {
        let name = definition.name;
        assert_eq!(kinds.remove(name).as_deref(), Some(definition.kind), "{name}");
        assert_eq!(helps.remove(name).as_deref(), Some(definition.help), "{name}");
        let documented: BTreeSet<_> = definition.labels.iter().map(ToString::to_string).collect();
        assert_eq!(labels.remove(name), Some(documented), "{name}");
    }
    assert!(kinds.is_empty(), "not in the table: {kinds:?}");
}

#[test]
fn names_follow_the_conventions() {
    for definition in TABLE {
        let name = definition.name;
        assert!(name.starts_with("pullwatch_") || name.starts_with("process_"), "{name}");
        assert_eq!(definition.kind == "counter", name.ends_with("_total"), "{name}");
        assert!(definition.help.ends_with('.'), "{name}");
    }
}

#[test]
fn every_reason_has_a_label_value() {
    let counts = Stats {
        malformed: MALFORMED.iter().map(|(reason, _)| (*reason, 1)).collect(),
        skipped: SKIPPED.iter().map(|(reason, _)| (*reason, 1)).collect(),
        truncated: TRUNCATED.iter().map(|(reason, _)| (*reason, 2)).collect(),
        evicted: EVICTIONS.iter().map(|(kind, _)| (*kind, 3)).collect(),
        ..Stats::default()
    };
    let metrics = metrics_with_all_series();
    metrics.add_counts("audit", &counts);
    let text = metrics.render();
    assert!(!text.contains(OTHER) || !text.contains("=\"other\""), "{text}");
    assert!(text.contains(r#"malformed_total{reason="lone_surrogate",source="audit"} 1"#), "{text}");
    // The tables are complete: they have as many entries as the modules have constants.
    let source = include_str!("../../detection/detector/stats.rs");
    for (module, known) in
        [("malformed", MALFORMED.len()), ("truncated", TRUNCATED.len()), ("evicted", EVICTIONS.len())]
    {
        let start = source.find(&format!("pub mod {module} {{")).unwrap();
        let end = start + source[start..].find("\n}").unwrap();
        assert_eq!(source[start..end].matches("pub const").count(), known, "{module}");
    }
}

#[test]
fn series_of_unloaded_rules_are_removed() {
    let metrics = metrics_with_all_series();
    metrics.alert_stored(0, 1);
    metrics.alert_stored(7, 1);
    assert!(
        metrics
            .render()
            .contains(r#"pullwatch_alerts_total{priority="Warning",rule="Registry Credential Read"} 1"#)
    );
    metrics.set_rules(RuleNames {
        rules: vec![("New".to_owned(), Priority::Notice)],
        version: "def".to_owned(),
    });
    let text = metrics.render();
    assert!(!text.contains("Registry Credential Read"), "{text}");
    assert!(text.contains(r#"pullwatch_alerts_total{priority="Notice",rule="New"} 0"#), "{text}");
    assert!(text.contains(r#"rule_set_info{version="def"} 1"#) && !text.contains("abc"), "{text}");
}

#[test]
fn rotations_are_bounded_and_keep_the_newest() {
    let metrics = metrics();
    for i in 0..2500_i64 {
        metrics.credential_rotated("ns", &format!("secret-{i}"), (i + 1) * 1_000_000_000);
    }
    // Older than all entries, so it is not exported.
    metrics.credential_rotated("ns", "old", 1);
    let text = metrics.render();
    let exported =
        |text: &str| text.matches("\npullwatch_credential_last_rotation_timestamp_seconds{").count();
    assert_eq!(exported(&text), MAX_ROTATIONS);
    assert!(text.contains("secret-2499") && !text.contains("secret-1499\"") && !text.contains("\"old\""));
    assert!(text.contains(r#"evictions_total{kind="credential_rotations"} 1501"#));
    metrics.credential_deleted("ns", "secret-2499");
    assert_eq!(exported(&metrics.render()), MAX_ROTATIONS - 1);
}

#[test]
fn a_hostile_name_cannot_break_a_line() {
    let metrics = metrics();
    metrics.credential_rotated("a\nb\"c\\", &"x".repeat(5000), 1);
    let text = metrics.render();
    let line = text.lines().find(|line| line.starts_with("pullwatch_credential_last_rotation")).unwrap();
    assert!(line.contains(r#"namespace="ab\"c\\""#) && line.len() < 400, "{line}");
}

#[test]
fn a_webhook_source_has_its_series() {
    let metrics = metrics();
    let hook = WebhookMetrics::new(metrics.clone(), "hook");
    hook.answered(429);
    hook.submitted(10);
    hook.duplicates(3);
    let text = metrics.render();
    assert!(text.contains(r#"pullwatch_webhook_requests_total{code="429",source="hook"} 1"#));
    assert!(text.contains(r#"pullwatch_webhook_requests_total{code="200",source="hook"} 0"#));
    assert!(text.contains(r#"pullwatch_source_bytes_total{source="hook"} 10"#));
    assert!(text.contains(r#"pullwatch_webhook_duplicate_events_total{source="hook"} 3"#));
}

fn exposed(actor: &str, secret: &str) -> Exposed {
    Exposed {
        actor: actor.to_owned(),
        kind: crate::detection::registry::ExposureKind::Payload,
        verb: "get".to_owned(),
        secrets: vec![secret.to_owned()],
    }
}

#[test]
fn exposures_beyond_the_limit_share_a_series_and_none_is_reset() {
    let metrics = metrics();
    for i in 0..2500 {
        metrics.exposed(&exposed(&format!("user-{i}"), &format!("ns/secret-{i}")));
    }
    metrics.exposed(&exposed("user-0", "ns/secret-0"));
    let text = metrics.render();
    let series = |name: &str| text.matches(&format!("\npullwatch_{name}_exposures_total{{")).count();
    assert_eq!((series("credential"), series("actor")), (MAX_SERIES + 1, MAX_SERIES + 1));
    for line in [
        r#"pullwatch_actor_exposures_total{actor="user-0",exposure="payload",verb="get"} 2"#,
        r#"pullwatch_actor_exposures_total{actor="_other_",exposure="_other_",verb="_other_"} 1500"#,
        r#"pullwatch_credential_exposures_total{exposure="payload",namespace="ns",secret="secret-0",verb="get"} 2"#,
        r#"pullwatch_credential_exposures_total{exposure="_other_",namespace="_other_",secret="_other_",verb="_other_"} 1500"#,
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[test]
fn names_can_be_left_out_and_labels_added() {
    let settings = Settings { identities: false, labels: vec![("cluster".to_owned(), "prod-eu".to_owned())] };
    let metrics = Metrics::with_settings(&["audit".to_owned()], &settings).unwrap();
    metrics.exposed(&exposed("alice", "prod/regcred"));
    metrics.credential_rotated("prod", "regcred", 1);
    let text = metrics.render();
    assert!(!text.contains("alice") && !text.contains("regcred"), "{text}");
    let series: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(series.len() > 30 && series.iter().all(|line| line.contains(r#"cluster="prod-eu""#)), "{text}");
}

#[test]
fn verbs_and_names_that_clients_choose_are_bounded() {
    let metrics = metrics();
    let hostile = Exposed { verb: "x".repeat(5000), ..exposed(&"é\n".repeat(3000), &"y".repeat(5000)) };
    metrics.exposed(&hostile);
    let text = metrics.render();
    let lines: Vec<_> = text.lines().filter(|line| line.contains(r#"verb="other""#)).collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.len() < 800), "{lines:?}");
}
