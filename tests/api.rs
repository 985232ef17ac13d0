//! The HTTP API of the real binary, held against its description (docs/openapi.json).

#![allow(clippy::unwrap_used)]

mod common;
mod daemon;

use common::project;
use daemon::{Daemon, TOKEN};
use serde_json::{Value, json};

fn openapi() -> Value {
    serde_json::from_slice(&std::fs::read(project("docs/openapi.json")).unwrap()).unwrap()
}

/// Checks a value against a schema; returns where it differs. Knows the keywords that the description uses, and no others.
fn check(api: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().unwrap() {
        let is_right = match keyword.as_str() {
            "$ref" => {
                check(api, api.pointer(&rule.as_str().unwrap()[1..]).unwrap(), value, at, wrong);
                true
            }
            "type" => {
                let types = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                types.iter().any(|one| match one.as_str().unwrap() {
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "boolean" => value.is_boolean(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    "null" => value.is_null(),
                    other => panic!("type {other}"),
                })
            }
            "oneOf" => {
                let fits = |one: &&Value| {
                    let mut wrong = Vec::new();
                    check(api, one, value, at, &mut wrong);
                    wrong.is_empty()
                };
                rule.as_array().unwrap().iter().filter(fits).count() == 1
            }
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_i64().is_none_or(|number| number >= rule.as_i64().unwrap()),
            "pattern" => {
                let pattern = regex::Regex::new(rule.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "format" => value.as_str().is_none_or(|text| text.parse::<jiff::Timestamp>().is_ok()),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(api, rule, item, &format!("{at}/{index}"), wrong);
                }
                true
            }
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    match rule.get(name) {
                        Some(schema) => check(api, schema, member, &format!("{at}/{name}"), wrong),
                        None => wrong.push(format!("{at}/{name} is not described")),
                    }
                }
                true
            }
            "required" => {
                rule.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "description" | "additionalProperties" => true,
            other => panic!("{at}: keyword {other}"),
        };
        if !is_right {
            wrong.push(format!("{at}: {value} is not {keyword} {rule}"));
        }
    }
}

/// Checks an answer against the description of its operation.
fn check_answer(path: &str, method: &str, (code, body): &(u16, Value)) {
    let api = openapi();
    let operation = &api["paths"][path][method];
    let response = &operation["responses"][code.to_string()];
    assert!(response.is_object(), "{method} {path}: status {code} is not described: {body}");
    let schema = &response["content"]["application/json"]["schema"];
    let mut wrong = Vec::new();
    check(&api, schema, body, "", &mut wrong);
    assert!(wrong.is_empty(), "{method} {path}: {wrong:#?}");
}

fn seqs(page: &Value) -> Vec<i64> {
    page["alerts"].as_array().unwrap().iter().map(|alert| alert["seq"].as_i64().unwrap()).collect()
}

#[test]
fn answers_are_as_described() {
    let daemon = Daemon::start(&[]);
    let total = daemon.wait_for_alerts();
    let page = daemon.get("/api/v1/alerts?limit=1000");
    assert_eq!(seqs(&page.1).len(), total);
    check_answer("/api/v1/alerts", "get", &page);
    for alert in page.1["alerts"].as_array().unwrap() {
        let id = alert["id"].as_str().unwrap();
        let one = daemon.get(&format!("/api/v1/alerts/{id}"));
        check_answer("/api/v1/alerts/{id}", "get", &one);
        assert_eq!(one.1["alert"], alert["alert"]);
        assert_eq!(one.1["explanation"]["rule"]["name"], alert["alert"]["rule"]);
        assert_eq!(one.1["explanation"]["rule"]["state"], "enabled");
    }
    let exposures = daemon.get("/api/v1/exposures");
    check_answer("/api/v1/exposures", "get", &exposures);
    assert!(exposures.1["summary"]["credentials"].as_u64().unwrap() > 3, "{}", exposures.1);
    let status = daemon.get("/api/v1/status");
    check_answer("/api/v1/status", "get", &status);
    assert_eq!(status.1["sources"][0]["type"], "file");
    let fired: u64 =
        status.1["rules"].as_array().unwrap().iter().map(|rule| rule["alerts"].as_u64().unwrap()).sum();
    assert_eq!(fired, total as u64);
    assert_eq!(daemon.get("/api/v1/openapi.json").1, openapi());
    for (path, request) in [
        ("/api/v1/alerts", "/api/v1/alerts?since=yesterday"),
        ("/api/v1/alerts", "/api/v1/alerts?user=eve"),
        ("/api/v1/alerts/{id}", "/api/v1/alerts/xyz"),
        ("/api/v1/alerts/{id}", "/api/v1/alerts/00000000000000000000000000000000"),
        ("/api/v1/exposures", "/api/v1/exposures?actor=eve"),
        ("/api/v1/alerts/stream", "/api/v1/alerts/stream?after=x"),
    ] {
        let answer = daemon.get(request);
        assert!((400..500).contains(&answer.0), "{request}");
        check_answer(path, "get", &answer);
    }
}

#[test]
fn the_description_names_all_parameters() {
    let daemon = Daemon::start(&[]);
    let api = openapi();
    let parameters = api["paths"]["/api/v1/alerts"]["get"]["parameters"].as_array().unwrap().clone();
    let names: Vec<&str> = parameters.iter().map(|one| one["name"].as_str().unwrap()).collect();
    let (code, body) = daemon.get("/api/v1/alerts?no_such=1");
    assert_eq!(code, 400);
    let error = body["error"].as_str().unwrap();
    assert_eq!(error.matches(',').count() + 2, names.len(), "{error}: {names:?}");
    for name in names {
        assert!(error.contains(name), "{name}: {error}");
    }
}

/// Whether a filter has to select an alert.
type Test<'t> = &'t dyn Fn(&Value) -> bool;

#[test]
fn filters_select_and_pages_are_complete() {
    let daemon = Daemon::start(&[]);
    daemon.wait_for_alerts();
    let all = daemon.get("/api/v1/alerts?limit=1000").1;
    let all = all["alerts"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let has = |list: &Value, name: &str| list.as_array().is_some_and(|list| list.contains(&json!(name)));
    let cases: [(&str, Test<'_>); 9] = [
        ("actor=mallory", &|one| text(&one["actor"]) == "mallory"),
        ("actor=*mal*", &|one| text(&one["actor"]).contains("mal")),
        ("rule=Secrets%20Listed", &|one| one["alert"]["rule"] == "Secrets Listed"),
        ("rule=Registry*", &|one| text(&one["alert"]["rule"]).starts_with("Registry")),
        ("credential=production/regcred", &|one| {
            has(&one["alert"]["registry"]["secrets"], "production/regcred")
        }),
        ("registry=ghcr.io", &|one| has(&one["alert"]["registry"]["hosts"], "ghcr.io")),
        ("priority=critical", &|one| {
            ["Critical", "Alert", "Emergency"].contains(&one["alert"]["priority"].as_str().unwrap())
        }),
        ("text=HARBOR-PULL", &|one| {
            format!("{}{}", one["alert"]["output"], one["target"]).contains("harbor-pull")
        }),
        ("acknowledged=false", &|_| true),
    ];
    for (filter, is_expected) in cases {
        let expected: Vec<i64> =
            all.iter().filter(|one| is_expected(one)).map(|one| one["seq"].as_i64().unwrap()).collect();
        assert!(!expected.is_empty(), "{filter}");
        // Every page is full except for the last one, and `next` is null on that alone.
        for limit in [3, 1000] {
            let (mut seen, mut next) = (Vec::new(), String::new());
            loop {
                let (code, page) = daemon.get(&format!("/api/v1/alerts?{filter}&limit={limit}{next}"));
                assert_eq!(code, 200, "{page}");
                seen.extend(seqs(&page));
                let Some(before) = page["next"].as_i64() else { break };
                assert_eq!(seqs(&page).len(), limit, "{filter}");
                next = format!("&before={before}");
            }
            assert_eq!(seen, expected, "{filter} in pages of {limit}");
        }
    }
    // The events are old: relative times select none, or all.
    assert_eq!(daemon.get("/api/v1/alerts?since=5m").1["alerts"], json!([]));
    assert_eq!(seqs(&daemon.get("/api/v1/alerts?until=5m&limit=1000").1).len(), all.len());
    let id = all[0]["id"].as_str().unwrap();
    assert_eq!(daemon.get(&format!("/api/v1/alerts?id={}", &id[..12])).1["alerts"][0]["id"], id);
}

#[test]
fn the_status_shows_what_does_not_work() {
    let daemon = Daemon::start(&[]);
    daemon.wait_for_alerts();
    // Nothing listens there.
    daemon.reconfigure(
        "sources: [{type: file, paths: [audit.log]}]\nsinks: [{type: http, name: siem, url: 'http://127.0.0.1:9/'}]\n",
    );
    common::wait_for("the sink", || daemon.get("/api/v1/status").1["sinks"][0]["name"] == "siem");
    daemon.append(&common::sample("request-response.log.gz"));
    daemon.append(common::event("new", "get", "regcred").as_bytes());
    daemon.append(b"\n");
    common::wait_for("its problem", || daemon.get("/api/v1/status").1["sinks"][0]["ok"] == false);
    let status = daemon.get("/api/v1/status");
    check_answer("/api/v1/status", "get", &status);
    assert!(status.1["sinks"][0]["backlog"].as_u64().unwrap() > 0, "{}", status.1);
    assert!(status.1["sinks"][0]["problem"].is_string());
}

#[test]
fn a_report_on_the_store_answers_as_one_on_the_log() {
    let daemon = Daemon::start(&[]);
    daemon.wait_for_alerts();
    let report = |arguments: &[&str]| -> Value {
        let output = common::pullwatch()
            .current_dir(daemon.folder.path())
            .arg("report")
            .args(arguments)
            .args(["--format", "json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", common::said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (stored, logged) = (report(&["--state-dir", "state"]), report(&["audit.log"]));
    // Whole scopes that a rule reported are alerts too.
    assert_eq!(stored["answer"], logged["answer"]);
    assert_eq!(stored["registries"], logged["registries"]);
    let pairs = |report: &Value| -> std::collections::BTreeSet<String> {
        let pair = |one: &Value| format!("{} {} {}", one["credential"], one["user"], one["impersonated"]);
        report["reported"].as_array().unwrap().iter().map(pair).collect()
    };
    assert_eq!(pairs(&stored), pairs(&logged));
    assert_eq!(stored["log"], Value::Null);
    let summary = daemon.get("/api/v1/exposures").1["summary"].clone();
    assert_eq!(summary["actors"], stored["answer"]["readers"]);
    for name in ["credentials", "registries", "credentials_without_registry", "whole_scopes"] {
        assert_eq!(summary[name], stored["answer"][name], "{name}");
    }
    assert_eq!(report(&["--state-dir", "state", "--since", "1h"])["answer"]["credentials"], 0);
    let refused = common::pullwatch().args(["report", "--state-dir", "state", "audit.log"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let missing = common::pullwatch().args(["report", "--state-dir", "/nonexistent"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn acknowledging_requires_a_token() {
    let without = Daemon::start(&[]);
    without.wait_for_alerts();
    let id = |daemon: &Daemon| {
        let page = daemon.get("/api/v1/alerts?limit=1").1;
        page["alerts"][0]["id"].as_str().unwrap().to_owned()
    };
    let path = format!("/api/v1/alerts/{}/ack", id(&without));
    let refused = without.post(&path, &json!({ "by": "ada" }).to_string());
    assert_eq!(refused.0, 403, "{}", refused.1);
    check_answer("/api/v1/alerts/{id}/ack", "post", &refused);
    assert_eq!(without.get("/api/v1/status").1["can_acknowledge"], false);
    drop(without);

    let daemon = Daemon::start(&["token"]);
    daemon.wait_for_alerts();
    let path = format!("/api/v1/alerts/{}/ack", id(&daemon));
    assert_eq!(daemon.request("POST", &path, Some("wrong-token-wrong-token"), "{}").0, 403);
    assert_eq!(daemon.request("POST", &path, None, "{}").0, 401);
    for body in ["", "{}", "{\"by\":\" \"}", "{\"by\":\"ada\",\"more\":1}", &"x".repeat(100_000)] {
        assert!([400, 413].contains(&daemon.post_raw(&path, body).0), "{body:.40}");
    }
    let answer = daemon.post(&path, &json!({ "by": "ada", "note": "drill" }).to_string());
    check_answer("/api/v1/alerts/{id}/ack", "post", &answer);
    assert_eq!(answer.1["acknowledged"]["by"], "ada");
    // The first one wins.
    let answer = daemon.post(&path, &json!({ "by": "bob" }).to_string());
    assert_eq!((answer.0, &answer.1["acknowledged"]["note"]), (200, &json!("drill")));
    assert_eq!(seqs(&daemon.get("/api/v1/alerts?acknowledged=true").1).len(), 1);
    assert_eq!(daemon.request("GET", "/api/v1/alerts", Some(TOKEN), "").0, 200);
    assert_eq!(daemon.request("GET", "/api/v1/alerts", None, "").0, 401);
}

#[test]
fn the_environment_sets_the_address_and_a_warning_names_the_risk() {
    let daemon = Daemon::start(&["everywhere"]);
    assert!(daemon.address.starts_with("0.0.0.0:"), "{}", daemon.address);
    common::wait_for("the warning", || {
        daemon.log.lock().unwrap().iter().any(|line| line.contains("anyone who can reach this address"))
    });
    let daemon = Daemon::start(&["everywhere", "token"]);
    daemon.wait_for_alerts();
    assert!(!daemon.log.lock().unwrap().iter().any(|line| line.contains("anyone who can reach")));
    let refused = |listen: &str| {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["run", "-", "--state-dir", folder.path().to_str().unwrap()];
        let output = common::pullwatch().args(arguments).env("PULLWATCH_LISTEN", listen).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        common::said(&output)
    };
    assert!(refused("nowhere").contains("invalid PULLWATCH_LISTEN `nowhere`"));
    assert!(refused("0.0.0.0:0").contains("set `server.token_file`"));
}
