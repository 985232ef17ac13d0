//! The LogQL of dashboards and documentation, held against answers of a real Loki and against what the sink sends today.
//!
//! `tests/receivers/loki/record.py` runs the queries on a Loki and records its answers.

use std::collections::BTreeSet;
use std::fs;

use regex::Regex;
use serde_json::Value;

use crate::common::{project, sample, wait_for};
use crate::dashboards::{DASHBOARDS, dashboards, panels};
use crate::rig::{Daemon, Hook};

/// What Loki adds to entries.
const OF_LOKI: [&str; 2] = ["service_name", "detected_level"];

type Names = BTreeSet<String>;

fn recording() -> Value {
    serde_json::from_str(&fs::read_to_string(project("tests/data/loki/answers.json")).unwrap()).unwrap()
}

/// The recorded names of labels or of metadata, without those of Loki.
fn recorded(key: &str) -> Names {
    let names = recording()[key].as_array().unwrap().clone();
    let names = names.iter().map(|name| name.as_str().unwrap().to_owned());
    names.filter(|name| !OF_LOKI.contains(&name.as_str())).collect()
}

/// A query, and the panel that has it, unless it is in the documentation.
struct Query {
    file: String,
    expression: String,
    target: Value,
    panel: Value,
}

/// Every LogQL query.
fn logql() -> Vec<Query> {
    let mut found = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                if target["datasource"]["type"] == "loki" {
                    found.push(Query {
                        file: file.to_owned(),
                        expression: target["expr"].as_str().unwrap().to_owned(),
                        target: target.clone(),
                        panel: panel.clone(),
                    });
                }
            }
        }
        // Variables and annotations could ask Loki too; none does. `logql.mjs` and `record.py` read those as well.
        for other in ["annotations", "templating"] {
            assert!(!dashboard[other].to_string().contains(r#""type":"loki""#), "{file}: {other}");
        }
    }
    let block = Regex::new(r"(?s)```logql\n(.*?)```").unwrap();
    for entry in fs::read_dir(project("docs/receivers")).unwrap() {
        let path = entry.unwrap().path();
        // Its query is about what falcosidekick sends to Loki; `logql.mjs` checks its grammar.
        if path.ends_with("falcosidekick.md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for found_block in block.captures_iter(&text) {
            found.extend(found_block[1].lines().map(|line| Query {
                file: format!("docs/receivers/{}", path.file_name().unwrap().to_str().unwrap()),
                expression: line.to_owned(),
                target: Value::Null,
                panel: Value::Null,
            }));
        }
    }
    found
}

/// The recorded answer to a query.
fn answer(query: &Query) -> Value {
    let recording = recording();
    let recorded = recording["queries"].as_array().unwrap();
    let found = recorded.iter().find(|one| one["file"] == *query.file && one["expr"] == *query.expression);
    let found = found.unwrap_or_else(|| {
        panic!(
            "no answer is recorded, run tests/receivers/loki/record.py: {} in {}",
            query.expression, query.file
        )
    });
    found["answer"].clone()
}

/// The labels that an answer has, all results together.
fn labels(answer: &Value) -> Names {
    let key = if answer["resultType"] == "streams" { "stream" } else { "metric" };
    let results = answer["result"].as_array().unwrap().iter();
    results.flat_map(|result| result[key].as_object().unwrap().keys().cloned()).collect()
}

#[test]
fn loki_answered_every_query_with_data() {
    let queries = logql();
    for file in [DASHBOARDS[0], "docs/receivers/grafana-loki.md"] {
        assert!(queries.iter().any(|query| query.file == file), "{file} has no query");
    }
    for query in &queries {
        let answer = answer(query);
        let is_metric = !query.expression.starts_with('{');
        let is_instant = query.target["queryType"] == "instant" || query.panel.is_null();
        let expected = match (is_metric, is_instant) {
            (false, _) => "streams",
            (true, true) => "vector",
            (true, false) => "matrix",
        };
        assert_eq!(answer["resultType"], expected, "{}", query.expression);
        let results = answer["result"].as_array().unwrap();
        assert!(!results.is_empty(), "{}", query.expression);
        for result in results {
            assert!(
                result["value"].is_array() || !result["values"].as_array().unwrap().is_empty(),
                "{}",
                query.expression
            );
        }
    }
    let recording = recording();
    for recorded in recording["queries"].as_array().unwrap() {
        let is_used = queries
            .iter()
            .any(|query| recorded["file"] == *query.file && recorded["expr"] == *query.expression);
        assert!(is_used, "no longer a query: {recorded}");
    }
}

#[test]
fn panels_show_fields_that_the_answers_have() {
    let name = Regex::new(r"\{\{(\w+)\}\}").unwrap();
    let grouped = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    for query in logql() {
        let labels = labels(&answer(&query));
        if let Some(list) = grouped.captures(&query.expression) {
            let by: Names = list[1].split(',').map(|name| name.trim().to_owned()).collect();
            assert_eq!(by, labels, "{}", query.expression);
        }
        let legend = query.target["legendFormat"].as_str().unwrap_or_default();
        for found in name.captures_iter(legend) {
            assert!(labels.contains(&found[1]), "{legend}");
        }
        // The columns of a table: time, labels and value, with the letter of the query in some versions.
        let mut columns = labels.clone();
        columns.extend(["Time", "Value", "Value #A"].map(str::to_owned));
        for transformation in query.panel["transformations"].as_array().into_iter().flatten() {
            let options = &transformation["options"];
            for key in ["excludeByName", "renameByName", "indexByName"] {
                for column in options[key].as_object().into_iter().flat_map(|names| names.keys()) {
                    assert!(columns.contains(column), "no column {column} for {key}");
                }
            }
            let renamed = options["renameByName"].as_object().into_iter().flatten();
            columns.extend(renamed.map(|(_, title)| title.as_str().unwrap().to_owned()));
        }
        for change in query.panel["fieldConfig"]["overrides"].as_array().into_iter().flatten() {
            if change["matcher"]["id"] == "byName" {
                let column = change["matcher"]["options"].as_str().unwrap();
                assert!(columns.contains(column), "no column {column}");
            }
        }
        if query.panel["type"] == "logs" {
            // What its description promises.
            for label in ["actor", "credential", "alert_id"] {
                assert!(labels.contains(label), "{labels:?}");
            }
        }
    }
}

/// The names that a query uses are labels and metadata of entries; only labels select streams.
#[test]
fn queries_use_names_that_entries_have() {
    let selector = Regex::new(r"\{([^}]*)\}").unwrap();
    let name = Regex::new(r#"(\w+)\s*(?:=~|!~|!=|=)\s*""#).unwrap();
    let grouped = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    let (labels, metadata) = (recorded("labels"), recorded("metadata"));
    for Query { expression, .. } in logql() {
        let selectors: Vec<String> =
            selector.captures_iter(&expression).map(|found| found[1].to_owned()).collect();
        assert_eq!(selectors.len(), 1, "{expression}");
        for found in name.captures_iter(&selectors[0]) {
            assert!(labels.contains(&found[1]), "{} is not a label, in {expression}", &found[1]);
        }
        let rest = selector.replace_all(&expression, "").into_owned();
        let mut names: Names = name.captures_iter(&rest).map(|found| found[1].to_owned()).collect();
        for list in grouped.captures_iter(&rest) {
            names.extend(list[1].split(',').map(|name| name.trim().to_owned()));
        }
        for name in names {
            assert!(
                labels.contains(&name) || metadata.contains(&name),
                "entries have no {name}, in {expression}"
            );
        }
    }
}

#[test]
fn the_sink_sends_the_labels_and_metadata_of_the_recorded_entries() {
    let hook = Hook::start();
    let daemon =
        Daemon::with_built_in_rules(&format!("- {{type: loki, url: '{}', gzip: false}}", hook.url), "");
    daemon.log(std::str::from_utf8(&sample("request-response.log.gz")).unwrap().trim_end());
    let sent = |place: fn(&Value) -> Vec<Value>| -> Names {
        let objects = hook.bodies().into_iter().flat_map(|body| place(&body["streams"][0]));
        objects.flat_map(|object| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>()).collect()
    };
    let labels = || sent(|stream| vec![stream["stream"].clone()]);
    let metadata =
        || sent(|stream| stream["values"].as_array().unwrap().iter().map(|entry| entry[2].clone()).collect());
    let recorded_metadata = recorded("metadata");
    wait_for("entries with all metadata", || metadata().is_superset(&recorded_metadata));
    assert_eq!(labels(), recorded("labels"));
    assert_eq!(metadata(), recorded_metadata);
}
