//! The queries of the dashboards, alerting rules and Grafana's alert rules on a real Prometheus that scrapes a daemon under load.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regex::Regex;
use serde_json::Value;

use crate::common::{project, sample, wait_for};
use crate::rig::{Daemon, Hook, Process, free_port, get_json, program, serve};

const DASHBOARDS: [&str; 2] =
    ["samples/grafana/dashboards/exposures.json", "samples/grafana/dashboards/operations.json"];

/// Panels without data in this test, and why.
const WITHOUT_DATA: [(&str, &str); 8] = [
    ("Messages", "there is no Kafka source"),
    ("Consumer lag", "there is no Kafka source"),
    ("Rebalances", "there is no Kafka source"),
    ("Consumer errors", "there is no Kafka source"),
    ("Webhook requests", "there is no webhook source"),
    ("Failed deliveries", "no delivery fails"),
    ("Dead letters, dropped alerts, truncated messages", "no alert is refused"),
    ("Restarts", "pullwatch does not restart"),
];

/// Labels and structured metadata of the entries in Loki; `loki.rs` checks them in VictoriaLogs.
const LOKI_LABELS: [&str; 4] = ["job", "cluster", "rule", "priority"];
const LOKI_METADATA: [&str; 8] =
    ["actor", "credential", "namespace", "registry", "exposure", "verb", "alert_id", "event_time"];

/// A Prometheus that scrapes the daemon every second and evaluates these rules as often.
fn prometheus(dir: &std::path::Path, target: &str, alertmanager: &str) -> Option<(Process, String)> {
    let server = program("prometheus")?;
    let address = format!("127.0.0.1:{}", free_port());
    let rules = project("samples/compose");
    let config = dir.join("prometheus.yml");
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{0}/alerts.yml', '{0}/recording.yml']\nalerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}\nscrape_configs:\n- job_name: pullwatch\n  static_configs: [{{targets: ['{target}'], labels: {{cluster: prod-eu}}}}]\n",
            rules.display()
        ),
    )
    .unwrap();
    let process = serve(
        Command::new(server)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}")),
        &address,
        "/-/ready",
    );
    Some((process, address))
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}

/// Replaces the variables of Grafana.
fn with_values(expression: &str) -> String {
    let mut text = expression.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "10s"),
        ("$__range", "5m"),
        ("$job", ".*"),
        ("$cluster", ".*"),
        ("$instance", ".*"),
    ] {
        text = text.replace(variable, value);
    }
    assert!(!text.contains('$'), "unknown variable in {text}");
    text
}

/// Title, kind of data source and query of each panel, annotation and variable.
fn queries(dashboard: &Value) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let inner = panel["panels"].as_array().unwrap_or(const { &Vec::new() });
        for panel in std::iter::once(panel).chain(inner) {
            for target in panel["targets"].as_array().unwrap_or(const { &Vec::new() }) {
                let kind = target["datasource"]["type"].as_str().unwrap();
                assert_eq!(
                    target["datasource"]["uid"],
                    if kind == "loki" { "${loki}" } else { "${datasource}" },
                    "{panel}"
                );
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                found.push((text(&panel["title"]), kind.to_owned(), text(&target["expr"])));
            }
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        let text = |name: &str| annotation[name].as_str().unwrap().to_owned();
        found.push((text("name"), "prometheus".to_owned(), text("expr")));
    }
    found
}

#[test]
fn every_panel_has_data() {
    let daemon = Daemon::with_built_in_rules("- {type: stdout, format: json}", "");
    let dir = tempfile::tempdir().unwrap();
    let Some((_prometheus, address)) = prometheus(dir.path(), &daemon.address, "127.0.0.1:1") else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let log = String::from_utf8(sample("request-response.log.gz")).unwrap();
    let mut rest: Vec<(String, String)> = Vec::new();
    for path in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(project(path)).unwrap()).unwrap();
        for (title, kind, expression) in queries(&dashboard) {
            if kind == "loki" {
                check_logql(&expression);
            } else if WITHOUT_DATA.iter().all(|(known, _)| *known != title) {
                rest.push((title, with_values(&expression)));
            }
        }
    }
    assert!(rest.len() > 40, "{}", rest.len());
    // Grafana's own alert rules.
    let rules = fs::read_to_string(project("samples/grafana/provisioning/alerting/rules.yaml")).unwrap();
    let rule = Regex::new(r"(?s)expr: >-\n(.*?)\n +- refId: C").unwrap();
    let expressions: Vec<String> = rule.captures_iter(&rules).map(|found| found[1].to_owned()).collect();
    assert_eq!(expressions.len(), rules.matches("- uid:").count());
    rest.extend(
        expressions.into_iter().map(|expression| ("an alert rule of Grafana".to_owned(), expression)),
    );

    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The same log again and again, as other events.
            let lines: Vec<&str> = log.lines().collect();
            for round in 0.. {
                for part in lines.chunks(400) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let part = part.join("\n").replace(r#""auditID":""#, &format!(r#""auditID":"{round}-"#));
                    daemon.log(&part);
                    std::thread::sleep(std::time::Duration::from_millis(200));
                }
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut missing = String::new();
            let mut rounds = 0;
            wait_for("every query has data", || {
                rest.retain(|(title, expression)| {
                    let answer = get_json(&address, &format!("/api/v1/query?query={}", encode(expression)));
                    assert_eq!(answer["status"], "success", "{title}: {expression}: {answer}");
                    answer["data"]["result"].as_array().is_some_and(Vec::is_empty)
                });
                let now = format!("{rest:#?}");
                rounds += 1;
                if now != missing && rounds % 50 == 0 {
                    eprintln!("no data yet: {now}");
                    missing = now;
                }
                rest.is_empty()
            });
        }));
        stop.store(true, Ordering::Relaxed);
        assert!(result.is_ok(), "no data: {rest:#?}");
    });
}

/// The names that a LogQL query uses are labels and metadata of entries.
fn check_logql(expression: &str) {
    let selector = Regex::new(r"\{([^}]*)\}").unwrap();
    let name = Regex::new(r#"(\w+)\s*(?:=~|!~|!=|=)\s*""#).unwrap();
    let grouped = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    let selectors: Vec<String> =
        selector.captures_iter(expression).map(|found| found[1].to_owned()).collect();
    assert_eq!(selectors.len(), 1, "{expression}");
    for found in name.captures_iter(&selectors[0]) {
        assert!(LOKI_LABELS.contains(&&found[1]), "{} is not a label, in {expression}", &found[1]);
    }
    let rest = selector.replace_all(expression, "").into_owned();
    let mut names: BTreeSet<String> = name.captures_iter(&rest).map(|found| found[1].to_owned()).collect();
    for list in grouped.captures_iter(&rest) {
        names.extend(list[1].split(',').map(|name| name.trim().to_owned()));
    }
    for name in names {
        assert!(
            LOKI_LABELS.contains(&&*name) || LOKI_METADATA.contains(&&*name),
            "entries have no {name}, in {expression}"
        );
    }
}

#[test]
fn a_second_reader_is_a_notification_of_its_own_through_prometheus() {
    let Some(alertmanager) = program("prometheus-alertmanager") else { return };
    let dir = tempfile::tempdir().unwrap();
    let hook = Hook::start();
    let config = dir.path().join("alertmanager.yml");
    // The routes of the sample, with a receiver.
    let routes = fs::read_to_string(project("samples/compose/alertmanager.yml")).unwrap();
    let routes = routes.replace(
        "  - name: page\n",
        &format!("  - name: page\n    webhook_configs: [{{url: '{0}'}}]\n", hook.url),
    );
    let routes = routes.replace(
        "  - name: review",
        &format!("  - name: review\n    webhook_configs: [{{url: '{0}'}}]", hook.url),
    );
    fs::write(&config, routes).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let _alertmanager = serve(
        Command::new(alertmanager)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address="),
        &address,
        "/-/ready",
    );
    let daemon = Daemon::start("- {type: stdout, format: json}", "");
    let Some((_prometheus, _)) = prometheus(dir.path(), &daemon.address, &address) else { return };
    daemon.read("a1", "mallory", "registry-1");
    wait_for("a notification about mallory", || hook.has("firing", "mallory"));
    daemon.read("a2", "eve", "registry-1");
    wait_for("a notification about eve", || hook.has("firing", "eve"));
    assert!(!hook.has("resolved", "mallory"), "the first alert still fires");
    let names: BTreeSet<String> =
        hook.alerts().iter().map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect();
    assert!(names.contains("PullwatchCredentialReader"), "{names:?}");
}
