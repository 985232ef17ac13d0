//! Events in the wrappers of log shippers and clouds have the same alerts as without them.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write as _;

use common::{alerts, project, pullwatch, said, scan};
use serde_json::{Value, json};

/// Rule and id of each alert of a sample.
fn rules_and_ids(name: &str, more: &[&str]) -> Vec<(String, String)> {
    let path = project("samples/envelopes").join(name).display().to_string();
    let output = scan(&[&[&*path], more].concat());
    let text = |alert: &Value, key: &str| alert[key].as_str().unwrap().to_owned();
    alerts(&output).iter().map(|alert| (text(alert, "rule"), text(alert, "id"))).collect()
}

#[test]
fn an_event_has_the_same_alerts_in_every_wrapper() {
    let raw = rules_and_ids("raw.jsonl", &[]);
    assert_eq!(raw.len(), 3);
    for name in [
        "fluent-bit.jsonl",
        "vector.jsonl",
        "filebeat.jsonl",
        "filebeat-parsed.jsonl",
        "containerd.jsonl",
        "opentelemetry.jsonl",
        "azure-event-hubs.jsonl",
        "cloudwatch.jsonl",
        "firehose.jsonl",
        "lambda-kinesis.jsonl",
        "lambda-logs.jsonl",
    ] {
        assert_eq!(rules_and_ids(name, &[]), raw, "{name}");
        assert_eq!(rules_and_ids(name, &["--threads", "3"]), raw, "{name}, on several threads");
    }
    // Their text differs, and so do their ids.
    for name in ["viaq.jsonl", "viaq-sorted.jsonl"] {
        let rules =
            |alerts: Vec<(String, String)>| alerts.into_iter().map(|(rule, _)| rule).collect::<Vec<_>>();
        assert_eq!(rules(rules_and_ids(name, &[])), rules(raw.clone()), "{name}");
    }
}

#[test]
fn every_sample_is_tested() {
    let names = fs::read_dir(project("samples/envelopes")).unwrap().map(|entry| entry.unwrap().file_name());
    let own = fs::read_to_string(project("tests/envelopes.rs")).unwrap();
    for name in names {
        assert!(own.contains(&format!("\"{}\"", name.to_str().unwrap())), "{}", name.display());
    }
}

#[test]
fn reads_entries_of_google_cloud_logging() {
    let path = project("samples/envelopes/google.jsonl").display().to_string();
    let found = alerts(&scan(&[&path]));
    let rules: Vec<&str> = found.iter().map(|alert| alert["rule"].as_str().unwrap()).collect();
    assert_eq!(
        rules,
        ["Registry Credential Read", "Secrets Listed", "Secret Access Denied", "Secrets Listed"]
    );
    let read = &found[0]["event"];
    assert_eq!(read["verb"], "get");
    assert_eq!(read["user"]["groups"], json!(["system:authenticated"]));
    assert_eq!(read["objectRef"]["resource"], "secrets");
    assert_eq!((&read["code"], &found[2]["event"]["code"]), (&json!(200), &json!(403)));
    // A list across all namespaces has no namespace.
    assert_eq!(found[3]["registry"]["scope"], "cluster");
    assert_eq!(rules_and_ids("pubsub.jsonl", &[]), rules_and_ids("google.jsonl", &[])[..2]);
}

#[test]
fn counts_records_without_an_event_by_reason() {
    let folder = tempfile::tempdir().unwrap();
    let counted = |text: &str| {
        let path = folder.path().join("log");
        fs::write(&path, text).unwrap();
        said(&pullwatch().arg("scan").arg(&path).output().unwrap())
    };
    let azure = fs::read_to_string(project("samples/envelopes/azure-event-hubs.jsonl")).unwrap();
    assert!(counted(&azure).contains("Skipped records: 2"), "{}", counted(&azure));
    for (text, reason) in [
        (r#"{"log":"I1123 scheduler.go: started"}"#, "line of another log"),
        (r#"{"message":""}"#, "empty"),
        (r#"{"records":[{"category":"kube-scheduler","properties":{"log":"x"}}]}"#, "record of another kind"),
        (r#"{"messageType":"CONTROL_MESSAGE","logEvents":[]}"#, "control message"),
        (r#"{"message":{"data":"!!"}}"#, "unreadable packing"),
        (r#"{"message":{"data":"H4sIAAAA"}}"#, "unreadable packing"),
        (r#"{"records":[{"properties":{"log":"skipped-too-big-size-object"}}]}"#, "left out by its sender"),
    ] {
        assert!(counted(text).contains(reason), "{text}: {}", counted(text));
    }
    let deep = (0..40)
        .fold("{}".to_owned(), |inner, _| json!({ "log": inner }).to_string().replace("\\\\\\\\", "\\"));
    assert!(counted(&deep[..deep.len().min(1 << 20)]).len() < 4000);
}

#[test]
fn evaluates_a_truncated_wrapped_event_by_its_beginning() {
    let raw = fs::read_to_string(project("samples/envelopes/raw.jsonl")).unwrap();
    let list = raw.lines().nth(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let record = json!({ "time": "2026-11-23T03:46:20Z", "log": list }).to_string();
    let end = record.find("responseObject").unwrap() + 60;
    let cloudwatch = json!({
        "messageType": "DATA_MESSAGE", "logStream": "kube-apiserver-audit-1",
        "logEvents": [{"message": format!("{}[Truncated...]", &list[..list.find("responseObject").unwrap() + 40])}],
    });
    // Wherever the line ends, also inside an escape.
    for end in (end..end + 12).chain([record.len() - 1]) {
        fs::write(&path, &record[..end]).unwrap();
        let found = alerts(&scan(&[path.to_str().unwrap()]));
        assert!(found.iter().any(|alert| alert["rule"] == "Secrets Listed"), "{end}: {found:?}");
    }
    let mut file = fs::File::create(&path).unwrap();
    writeln!(file, "{cloudwatch}").unwrap();
    let found = alerts(&scan(&[path.to_str().unwrap()]));
    assert_eq!(found[0]["event"]["truncated"], true, "{found:?}");
    // Longer than the limit.
    fs::write(&path, format!("{record}\n")).unwrap();
    let found = alerts(&scan(&["--max-event-size", "1K", path.to_str().unwrap()]));
    assert!(found.iter().any(|alert| alert["rule"] == "Secrets Listed"), "{found:?}");
}
