//! The queries of the dashboards, alerting rules and Grafana's alert rules on a real Prometheus that scrapes a daemon under load.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regex::Regex;

use crate::common::{event, free_port, project, sample, wait_for};
use crate::dashboards::{dashboards, queries};
use crate::rig::{Daemon, Hook, Process, get_json, program, serve};

/// Metrics without series in this test, and why.
const WITHOUT_SERIES: [(&str, &str); 1] = [("pullwatch_kafka_", "there is no Kafka source")];

/// Counters that stay 0 in this test, and why. Their panels show what is above 0; the test asks for all.
const STAY_ZERO: [(&str, &str); 8] = [
    ("pullwatch_source_errors_total", "the log can be read"),
    ("pullwatch_evictions_total", "no limit of memory is reached"),
    ("pullwatch_alerts_throttled_total", "whether a throttle applies depends on the speed of this machine"),
    ("pullwatch_webhook_requests_total", "no apiserver sends to the webhook"),
    ("pullwatch_sink_dropped_total", "the dead-letter file can be written"),
    ("pullwatch_sink_truncated_total", "no alert is longer than a message may be"),
    ("pullwatch_rule_reloads_total", "the rules do not change"),
    ("pullwatch_secret_file_reloads_total", "there are no certificates"),
];

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
fn with_values(expression: &str, instance: &str) -> String {
    let mut text = expression.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "5m"),
        ("$__range", "10m"),
        ("$job", "pullwatch"),
        ("$cluster", "prod-eu"),
        ("$instance", instance),
    ] {
        text = text.replace(variable, value);
    }
    assert!(!text.contains('$'), "unknown variable in {text}");
    text
}

/// Title and expression of every query that must have data, of dashboards and of Grafana's alert rules.
fn expressions(instance: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut without_series, mut stay_zero) = (BTreeSet::new(), BTreeSet::new());
    for (_, dashboard) in dashboards() {
        for query in queries(&dashboard) {
            // With Loki's answers, in logql.rs.
            if query.is_loki {
                continue;
            }
            let uses = |&&(metric, _): &&(&str, &str)| query.expression.contains(metric);
            if let Some((metric, _)) = WITHOUT_SERIES.iter().find(uses) {
                without_series.insert(metric);
                continue;
            }
            let mut expression = with_values(&query.expression, instance);
            if let Some((metric, _)) = STAY_ZERO.iter().find(uses) {
                stay_zero.insert(metric);
                assert!(expression.ends_with(" > 0"), "{expression}");
                expression.truncate(expression.len() - " > 0".len());
            }
            found.push((query.title, expression));
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let Some(definition) = variable["definition"].as_str() else { continue };
            let (selector, label) =
                definition.strip_prefix("label_values(").unwrap().split_once(", ").unwrap();
            let expression = format!("count by ({}) ({selector}) == 1", label.trim_end_matches(')'));
            found.push((format!("variable {definition}"), with_values(&expression, instance)));
        }
    }
    assert_eq!((without_series.len(), stay_zero.len()), (WITHOUT_SERIES.len(), STAY_ZERO.len()));
    assert!(found.len() > 60, "{}", found.len());

    let rules = fs::read_to_string(project("samples/grafana/provisioning/alerting/rules.yaml")).unwrap();
    let rule = Regex::new(r"(?s)expr: >-\n(.*?)\n +- refId: C").unwrap();
    let before = found.len();
    found.extend(
        rule.captures_iter(&rules).map(|rule| ("an alert rule of Grafana".to_owned(), rule[1].to_owned())),
    );
    assert_eq!(found.len() - before, rules.matches("- uid:").count());
    found
}

/// A daemon that fails in the ways that panels show: a sink whose receiver refuses everything, and one whose receiver is down. Another
/// sink sends active alerts again.
fn failing_daemon(refusing: &Hook, accepting: &Hook) -> Daemon {
    let sinks = format!(
        "- {{type: stdout, format: json}}\n- {{type: stdout, name: critical, format: json, priority: critical}}\n\
         - {{type: http, name: refusing, url: '{}'}}\n- {{type: http, name: down, url: 'http://127.0.0.1:1/'}}\n\
         - {{type: alertmanager, urls: ['{}'], resend_interval: 1s}}",
        refusing.url, accepting.url
    );
    let mut daemon = Daemon::with_built_in_rules(&sinks, "");
    daemon.kill();
    let config = daemon.dir.path().join("pullwatch.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let webhook =
        format!("sources:\n- {{type: webhook, name: webhook, listen: '127.0.0.1:{}'}}\n", free_port());
    fs::write(&config, text.replace("sources:\n", &webhook)).unwrap();
    daemon.restart();
    daemon
}

/// Records beside the events: of another kind, broken, and an event that the apiserver truncated.
fn defects(round: usize) -> String {
    let truncated = event(&format!("truncated-{round}"), "get", "registry-1")
        .replace(r#""annotations":{"#, r#""annotations":{"audit.k8s.io/truncated":"true","#);
    format!(
        "{}\n{}\n{truncated}",
        r#"{"apiVersion":"v1","kind":"Event","reason":"Started","involvedObject":{"kind":"Pod","name":"web-0"}}"#,
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":]}"#
    )
}

/// Whether a query has data.
fn has_data(address: &str, expression: &str) -> bool {
    let answer = get_json(address, &format!("/api/v1/query?query={}", encode(expression)));
    assert_eq!(answer["status"], "success", "{expression}: {answer}");
    answer["data"]["result"].as_array().is_some_and(|result| !result.is_empty())
}

#[test]
fn every_panel_has_data() {
    let refusing = Hook::answering("400 Bad Request");
    let accepting = Hook::start();
    let mut daemon = failing_daemon(&refusing, &accepting);
    let dir = tempfile::tempdir().unwrap();
    let Some((_prometheus, address)) = prometheus(dir.path(), &daemon.address, "127.0.0.1:1") else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let log = String::from_utf8(sample("request-response.log.gz")).unwrap();
    let mut rest = expressions(&daemon.address);
    wait_for("a scrape", || has_data(&address, "pullwatch_build_info"));
    // Prometheus has the start of the first process, and counters of the second at 0.
    let start =
        get_json(&address, "/api/v1/query?query=process_start_time_seconds")["data"]["result"][0]["value"][1]
            .as_str()
            .unwrap()
            .to_owned();
    daemon.restart();
    let restarted = format!("process_start_time_seconds != {start}");
    wait_for("a scrape after the restart", || has_data(&address, &restarted));

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
                    daemon.log(&defects(round));
                    std::thread::sleep(std::time::Duration::from_millis(200));
                }
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut missing = String::new();
            let mut rounds = 0;
            wait_for("every query has data", || {
                rest.retain(|(_, expression)| !has_data(&address, expression));
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
