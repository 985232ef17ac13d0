//! An alert has a bounded size, whatever a client sends: padded requests and long lists through the real binary.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{alerts, project, scan};
use serde_json::{Value, json};

/// A list of all secrets of a cluster, with a response of this number of registry credentials.
fn listed(id: &str, selector: &str, credentials: usize) -> Value {
    let config = r#"{"auths":{"registry.example.com":{"username":"robot","password":"x"}}}"#;
    let config = <base64::engine::GeneralPurpose as base64::Engine>::encode(
        &base64::engine::general_purpose::STANDARD,
        config,
    );
    let items: Vec<Value> = (0..credentials)
        .map(|i| {
            json!({"metadata": {"name": format!("registry-credential-{i}"), "namespace": format!("team-{i}")},
                "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": config}})
        })
        .collect();
    json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": id, "stage": "ResponseComplete",
        "requestURI": format!("/api/v1/secrets?fieldSelector={selector}"), "verb": "list",
        "user": {"username": "mallory", "groups": ["system:authenticated"]}, "sourceIPs": ["10.1.2.3"], "userAgent": selector,
        "objectRef": {"resource": "secrets", "apiVersion": "v1"}, "responseStatus": {"code": 200},
        "responseObject": {"kind": "SecretList", "apiVersion": "v1", "items": items},
        "requestReceivedTimestamp": "2026-11-23T03:45:32.270783Z", "stageTimestamp": "2026-11-23T03:45:32.270783Z"})
}

#[test]
fn padded_requests_and_long_lists_make_bounded_alerts() {
    let folder = tempfile::tempdir().unwrap();
    let padded = format!("type=kubernetes.io/dockerconfigjson,metadata.name!={}", "a".repeat(400_000));
    let events = [
        listed("padded", &padded, 1),
        listed("hundred", "", 100),
        listed("thousands", "", 5000),
        listed("both", &padded, 5000),
    ];
    let lines: Vec<String> = events.iter().map(|event| format!("{event}\n")).collect();
    let log = folder.path().join("audit.log");
    fs::write(&log, lines.concat()).unwrap();
    let output = scan(&["--rules", project("rules.d").to_str().unwrap(), log.to_str().unwrap()]);
    let lines: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    assert!(
        lines.iter().all(|line| line.len() <= 64 << 10),
        "{:?}",
        lines.iter().map(|line| line.len()).collect::<Vec<_>>()
    );
    let found = alerts(&output);
    for id in ["padded", "hundred", "thousands", "both"] {
        let mut of = found.iter().filter(|alert| alert["event"]["auditID"] == id).peekable();
        assert!(of.peek().is_some(), "{id}");
        for alert in of {
            assert_eq!(alert["event"]["user"]["username"], "mallory");
            assert_eq!(alert["event"]["objectRef"]["resource"], "secrets");
            let registry = &alert["registry"];
            assert_eq!(registry["hosts"], json!(["registry.example.com"]), "{alert}");
            assert!(alert["event"]["requestURI"].as_str().unwrap().len() <= 1024);
            if id == "hundred" {
                assert_eq!(registry["secrets"].as_array().unwrap().len(), 100);
                assert!(alert["shortened"].is_null());
            }
            if id == "padded" {
                let text = alert["event"]["userAgent"].as_str().unwrap();
                assert!(text.len() <= 1024 && text.ends_with(" bytes omitted]"), "{alert}");
                assert!(alert["output"].as_str().unwrap().len() < 8 << 10);
            }
        }
    }
}
