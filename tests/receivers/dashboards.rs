//! The Grafana dashboards as files: their panels, the form of their queries, and what the queries count (promtool).

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use pullwatch::internals::daemon::metrics::TABLE;
use regex::Regex;
use serde_json::{Value, json};

use crate::common::project;
use crate::rig::program;

pub const DASHBOARDS: [&str; 2] =
    ["samples/grafana/dashboards/exposures.json", "samples/grafana/dashboards/operations.json"];

/// What every selector of a metric of pullwatch starts with.
const SELECTOR: &str = r#"job=~"$job",cluster=~"$cluster",instance=~"$instance""#;

/// Metrics that no panel shows, and why.
const NOT_SHOWN: [(&str, &str); 7] = [
    ("process_open_fds", "a limit of the operating system, not of pullwatch"),
    ("process_max_fds", "a limit of the operating system, not of pullwatch"),
    ("process_virtual_memory_bytes", "resident memory says more"),
    ("process_threads", "constant"),
    ("pullwatch_webhook_batches_total", "requests with code 200 say the same"),
    ("pullwatch_http_requests_total", "requests to the page and the API"),
    ("pullwatch_http_alert_streams", "clients of the page and the API"),
];

/// A query of a panel, an annotation or a variable.
pub struct Query {
    /// Title of the panel, or name of the annotation or variable.
    pub title: String,
    pub is_loki: bool,
    /// Whether it has one result for the selected range, instead of one for each point of a graph.
    pub is_instant: bool,
    pub legend: String,
    pub expression: String,
}

pub fn dashboards() -> Vec<(&'static str, Value)> {
    let read = |path| serde_json::from_str(&fs::read_to_string(project(path)).unwrap()).unwrap();
    DASHBOARDS.into_iter().map(|path| (path, read(path))).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The panels, also those in collapsed rows.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = list(&dashboard["panels"]).iter();
    panels.flat_map(|panel| std::iter::once(panel).chain(list(&panel["panels"]))).collect()
}

pub fn queries(dashboard: &Value) -> Vec<Query> {
    let mut found = Vec::new();
    for panel in panels(dashboard) {
        for target in list(&panel["targets"]) {
            found.push(Query {
                title: text(&panel["title"]).to_owned(),
                is_loki: target["datasource"]["type"] == "loki",
                is_instant: target["instant"] == true,
                legend: text(&target["legendFormat"]).to_owned(),
                expression: text(&target["expr"]).to_owned(),
            });
        }
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        found.push(Query {
            title: text(&annotation["name"]).to_owned(),
            is_loki: false,
            is_instant: false,
            legend: text(&annotation["titleFormat"]).to_owned(),
            expression: text(&annotation["expr"]).to_owned(),
        });
    }
    found
}

/// The part of a panel's grid that it covers: columns and rows, from and to.
fn area(panel: &Value) -> [u64; 4] {
    let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
    assert!(w > 0 && h > 0, "{panel}");
    [x, x + w, y, y + h]
}

#[test]
fn panels_have_places_and_ids_of_their_own_and_say_what_they_show() {
    let mut wrong = Vec::new();
    for (path, dashboard) in dashboards() {
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        let panels = panels(&dashboard);
        for (i, panel) in panels.iter().enumerate() {
            let title = text(&panel["title"]);
            let mut complain = |what: &str| wrong.push(format!("{path}, {title}: {what}"));
            if !ids.insert(panel["id"].as_u64().unwrap()) {
                complain("another panel has the same id");
            }
            let [left, right, top, bottom] = area(panel);
            if right > 24 {
                complain("wider than the grid");
            }
            for other in &panels[..i] {
                let [other_left, other_right, other_top, other_bottom] = area(other);
                if left < other_right && other_left < right && top < other_bottom && other_top < bottom {
                    complain(&format!("overlaps {}", other["title"]));
                }
            }
            if panel["type"] == "row" {
                continue;
            }
            if !titles.insert(title) {
                complain("another panel has the same title");
            }
            if !text(&panel["description"]).ends_with('.') {
                complain("its description is not a sentence");
            }
            let defaults = &panel["fieldConfig"]["defaults"];
            // A number would be taken for a measurement.
            if text(&defaults["noValue"]).parse::<f64>().is_ok() || text(&defaults["noValue"]).len() < 5 {
                complain("does not say what it means that there is no data");
            }
            if panel["type"] != "logs" && text(&defaults["unit"]).is_empty() {
                complain("no unit");
            }
            if ["stat", "state-timeline"].contains(&text(&panel["type"]))
                && list(&defaults["thresholds"]["steps"]).is_empty()
            {
                complain("no thresholds");
            }
            let (mut refs, source) = (BTreeSet::new(), &panel["datasource"]);
            let loki = source["type"] == "loki";
            if source["uid"] != if loki { "${loki}" } else { "${datasource}" } {
                complain("its data source is not that of the variable");
            }
            if list(&panel["targets"]).is_empty() {
                complain("no query");
            }
            for target in list(&panel["targets"]) {
                if target["datasource"] != *source || !refs.insert(text(&target["refId"])) {
                    complain("a query has another data source, or the refId of another query");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn queries_use_all_variables_and_the_windows_of_grafana() {
    let metric = Regex::new(r"\b(?:(?:pullwatch|process)_\w+|up)\b(\{[^}]*\})?").unwrap();
    let window = Regex::new(r"\[([^\]]*)\]( offset)?").unwrap();
    let grouped = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    let mut wrong = Vec::new();
    for (path, dashboard) in dashboards() {
        let names: Vec<&str> =
            list(&dashboard["templating"]["list"]).iter().map(|variable| text(&variable["name"])).collect();
        let has_loki = names.contains(&"loki");
        for name in ["datasource", "job", "cluster", "instance"] {
            assert!(names.contains(&name), "{path} has no variable {name}");
        }
        for query in queries(&dashboard) {
            let Query { title, expression, legend, .. } = &query;
            let mut complain = |what: &str| wrong.push(format!("{path}, {title}: {what}: {expression}"));
            if query.is_loki {
                assert!(has_loki, "{path} has no variable loki");
                if !expression.contains(r#"{job="$logjob",cluster=~"$cluster"}"#) {
                    complain("does not use the variables");
                }
            }
            for found in metric.captures_iter(expression).filter(|_| !query.is_loki) {
                let selector = found.get(1).map_or("", |selector| selector.as_str());
                // `up` has the labels of the scrape alone, and is joined to a metric with the other labels.
                let is_up = found[0].starts_with("up");
                let wanted = if is_up { r#"{job=~"$job",instance=~"$instance"}"# } else { SELECTOR };
                if !selector.contains(wanted) || (is_up && !expression.contains("and on (job, instance)")) {
                    complain(&format!("{} does not use the variables", &found[0]));
                }
            }
            for found in window.captures_iter(expression) {
                let is_usual = match &found[1] {
                    "$__range" => query.is_instant,
                    "$__rate_interval" => !query.is_instant && !query.is_loki,
                    "$__auto" => !query.is_instant && query.is_loki,
                    // The lookback of Prometheus, before the window that counts.
                    "5m" => found.get(2).is_some(),
                    _ => false,
                };
                if !is_usual {
                    complain(&format!("window {}", &found[1]));
                }
            }
            if expression.contains("vector(") {
                complain("a constant looks like data");
            }
            if query.is_instant || query.is_loki {
                continue;
            }
            // The first aggregation is the outermost: it makes the labels of the result.
            let labels = grouped.captures(expression).map_or(String::new(), |found| found[1].to_owned());
            for label in labels.split(", ").filter(|label| !["", "le"].contains(label)) {
                if !legend.contains(&format!("{{{{{label}}}}}")) {
                    complain(&format!("legend without {label}"));
                }
            }
            if legend.is_empty() {
                complain("no legend");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_variable_offers_what_the_ones_before_it_leave() {
    for (path, dashboard) in dashboards() {
        let variable = |name: &str| {
            let all = list(&dashboard["templating"]["list"]);
            all.iter().find(|variable| variable["name"] == *name).unwrap().clone()
        };
        for (name, before) in
            [("job", ""), ("cluster", r#"job=~"$job""#), ("instance", r#"job=~"$job",cluster=~"$cluster""#)]
        {
            let selector = if before.is_empty() { String::new() } else { format!("{{{before}}}") };
            let query = format!("label_values(pullwatch_build_info{selector}, {name})");
            assert_eq!(variable(name)["definition"], query, "{path}");
            assert_eq!(variable(name)["query"]["query"], query, "{path}");
        }
        // With `.*`, All would be every job of Prometheus; a cluster need not exist.
        assert!(variable("job").get("allValue").is_none(), "{path}");
        assert_eq!(variable("cluster")["allValue"], ".*", "{path}");
    }
}

#[test]
fn every_metric_is_on_a_dashboard() {
    let expressions: Vec<String> = dashboards()
        .iter()
        .flat_map(|(_, dashboard)| queries(dashboard))
        .map(|query| query.expression)
        .collect();
    let shown = |name: &str| {
        let word = Regex::new(&format!(r"\b{name}(?:_bucket)?\{{")).unwrap();
        expressions.iter().any(|expression| word.is_match(expression))
    };
    for metric in TABLE {
        let is_left_out = NOT_SHOWN.iter().any(|(name, _)| *name == metric.name);
        assert_eq!(shown(metric.name), !is_left_out, "{}", metric.name);
    }
}

/// Answers that promtool expects for the queries with these titles; the unit of time is a minute.
struct Case {
    name: &'static str,
    series: Vec<(String, String)>,
    at: &'static str,
    expected: Vec<(&'static str, Vec<(&'static str, f64)>)>,
}

fn series(metric: &str, labels: &str, values: &str) -> (String, String) {
    (
        format!(r#"{metric}{{job="pullwatch",cluster="prod-eu",instance="a:9417",{labels}}}"#),
        values.to_owned(),
    )
}

fn actor(labels: &str, values: &str) -> (String, String) {
    series("pullwatch_actor_exposures_total", &format!(r#"{labels},verb="get""#), values)
}

fn credential(labels: &str, values: &str) -> (String, String) {
    series("pullwatch_credential_exposures_total", &format!(r#"{labels},verb="get""#), values)
}

fn alerts(values: &str) -> (String, String) {
    series("pullwatch_alerts_total", r#"rule="R",priority="Critical""#, values)
}

/// The series that exist from the start.
fn rest(credentials: &str) -> Vec<(String, String)> {
    vec![
        actor(r#"actor="_other_",exposure="_other_""#, "0x200"),
        credential(r#"namespace="_other_",secret="_other_",exposure="_other_""#, credentials),
    ]
}

fn cases() -> Vec<Case> {
    let mut first = rest("0x200");
    first.extend([
        actor(r#"actor="mallory",exposure="denied""#, "_x100 1 1 4x90"),
        actor(r#"actor="mallory",exposure="payload""#, "_x110 1x90"),
        credential(r#"namespace="prod",secret="regcred",exposure="payload""#, "_x110 1x90"),
        alerts("_x110 1x90"),
        // Read before the range; a scrape fails.
        actor(r#"actor="eve",exposure="payload""#, "7x106 stale 7x90"),
    ]);
    vec![
        Case {
            name: "the first count of a new series counts",
            series: first,
            at: "112m",
            expected: vec![
                ("Denied attempts", vec![("{}", 4.0)]),
                ("Credentials exposed", vec![("{}", 1.0)]),
                ("Readers", vec![("{}", 1.0)]),
                ("Reads", vec![("{}", 1.0)]),
                ("Critical alerts", vec![("{}", 1.0), (r#"{rule="R"}"#, 1.0)]),
                ("Critical and above", vec![("{}", 1.0)]),
                ("Rules that fired", vec![(r#"{rule="R",priority="Critical"}"#, 1.0)]),
                ("Alerts by rule", vec![(r#"{rule="R"}"#, 1.0)]),
                ("Reads by actor", vec![(r#"{actor="mallory",exposure="payload",verb="get"}"#, 1.0)]),
                (
                    "Reads by credential",
                    vec![(r#"{namespace="prod",secret="regcred",exposure="payload",verb="get"}"#, 1.0)],
                ),
                ("Reads over time by actor", vec![(r#"{actor="mallory"}"#, 1.0)]),
                ("Reads over time by verb", vec![(r#"{verb="get"}"#, 1.0)]),
                ("Top actors", vec![(r#"{actor="mallory"}"#, 1.0)]),
                ("First seen in this range", vec![(r#"{actor="mallory"}"#, 1.0)]),
            ],
        },
        Case {
            name: "an increase of a known series counts",
            series: [
                rest("0x105 2x90"),
                vec![
                    actor(r#"actor="eve",exposure="denied""#, "5x100 8x90"),
                    actor(r#"actor="eve",exposure="payload""#, "5x100 8x90"),
                ],
            ]
            .concat(),
            at: "110m",
            expected: vec![
                ("Denied attempts", vec![("{}", 3.0)]),
                ("Reads", vec![("{}", 3.0)]),
                ("Readers", vec![("{}", 1.0)]),
                // Of actors none, of credentials two.
                ("Exposures without a name", vec![("{}", 2.0)]),
                ("First seen in this range", vec![]),
            ],
        },
        Case {
            name: "one of two metrics is missing",
            series: rest("0x105 2x90").split_off(1),
            at: "110m",
            expected: vec![("Exposures without a name", vec![("{}", 2.0)])],
        },
        Case {
            name: "nothing was read",
            series: rest("0x200"),
            at: "110m",
            expected: vec![
                ("Denied attempts", vec![("{}", 0.0)]),
                ("Credentials exposed", vec![("{}", 0.0)]),
                ("Readers", vec![("{}", 0.0)]),
                ("Reads", vec![("{}", 0.0)]),
                ("Exposures without a name", vec![("{}", 0.0)]),
                ("Reads by actor", vec![]),
            ],
        },
        Case {
            name: "without pullwatch there is no data, and no 0",
            series: vec![("up{job=\"node\",instance=\"b:9100\"}".to_owned(), "1x200".to_owned())],
            at: "110m",
            expected: [
                "Denied attempts",
                "Credentials exposed",
                "Readers",
                "Reads",
                "Exposures without a name",
                "Critical alerts",
                "Instances",
                "Rules",
                "Store",
                "Configuration",
            ]
            .map(|title| (title, vec![]))
            .to_vec(),
        },
        Case {
            name: "instances of pullwatch alone count, also those that are down",
            series: vec![
                ("up{job=\"node\",instance=\"b:9100\"}".to_owned(), "1x200".to_owned()),
                ("up{job=\"pullwatch\",instance=\"a:9417\"}".to_owned(), "1x200".to_owned()),
                ("up{job=\"pullwatch\",instance=\"c:9417\"}".to_owned(), "1x100 0x100".to_owned()),
                series("pullwatch_build_info", r#"version="1""#, "1x200"),
                (
                    r#"pullwatch_build_info{job="pullwatch",cluster="prod-eu",instance="c:9417",version="1"}"#
                        .to_owned(),
                    "1x100 stale".to_owned(),
                ),
            ],
            at: "110m",
            // One is up, one is down.
            expected: vec![("Instances", vec![("{}", 1.0), ("{}", 1.0)])],
        },
    ]
}

#[test]
fn panels_count_the_first_of_a_new_series_and_show_no_0_without_data() {
    let Some(promtool) = program("promtool") else { return };
    let all: Vec<Query> = dashboards().iter().flat_map(|(_, dashboard)| queries(dashboard)).collect();
    let mut tests = Vec::new();
    for case in cases() {
        let series: Vec<Value> =
            case.series.iter().map(|(series, values)| json!({"series": series, "values": values})).collect();
        let mut checks = Vec::new();
        for (title, expected) in &case.expected {
            let queries: Vec<&Query> = all.iter().filter(|query| query.title == *title).collect();
            assert!(!queries.is_empty(), "nothing has the title {title}");
            for (i, query) in queries.iter().enumerate() {
                let mut expression = query.expression.clone();
                for (variable, value) in [
                    ("$__rate_interval", "5m"),
                    ("$__range", "1h"),
                    ("$job", ".*"),
                    ("$cluster", ".*"),
                    ("$instance", ".*"),
                ] {
                    expression = expression.replace(variable, value);
                }
                // One answer for each query, or the same for all.
                let is_one_each = expected.len() > 1 && expected.len() == queries.len();
                let expected = if is_one_each { &expected[i..=i] } else { expected };
                let samples: Vec<Value> = expected
                    .iter()
                    .map(|(labels, value)| json!({"labels": labels, "value": value}))
                    .collect();
                // An increase is extrapolated to the window.
                let expression = format!("round({expression})");
                checks.push(json!({"expr": expression, "eval_time": case.at, "exp_samples": samples}));
            }
        }
        tests.push(json!({
            "name": case.name, "interval": "1m", "input_series": series, "promql_expr_test": checks,
        }));
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dashboards.test.yml");
    // JSON is YAML.
    let content = json!({"rule_files": [], "evaluation_interval": "1m", "tests": tests});
    fs::write(&file, content.to_string()).unwrap();
    let output = Command::new(promtool).args(["test", "rules"]).arg(&file).output().unwrap();
    let says = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{says}");
}
