//! Secrets never leave: a marker is planted in every place of an event that can hold one, and all that comes out of the
//! process is searched for it, as it is, in base64 and escaped.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{alerts, pullwatch, scan};
use serde_json::{Value, json};

/// Hands out markers, each once.
#[derive(Default)]
struct Markers(Vec<String>);

impl Markers {
    fn next(&mut self) -> String {
        let marker = format!("loot{:04}loot", self.0.len());
        self.0.push(marker.clone());
        marker
    }

    fn encoded(&mut self) -> String {
        STANDARD.encode(format!("a{}", self.next()))
    }

    /// What a marker can look like: plain, in capitals, with JSON's escapes, in base64, and in base64 twice.
    fn spellings(&self) -> Vec<String> {
        let mut spellings = Vec::new();
        for marker in &self.0 {
            spellings.extend([marker.clone(), marker.to_uppercase()]);
            let escaped: Vec<String> =
                marker.chars().map(|letter| format!("\\u{:04x}", u32::from(letter))).collect();
            spellings.push(escaped.concat());
            for once in encoded(marker) {
                spellings.extend(encoded(&once));
                spellings.push(once);
            }
        }
        spellings
    }
}

/// A text in base64, at each of the three offsets that it can have in a longer one.
fn encoded(text: &str) -> Vec<String> {
    let at = |offset: usize| {
        let encoded = STANDARD.encode(format!("{}{text}", "x".repeat(offset)));
        // What stands before and behind it decides its first and last letters.
        encoded[4..encoded.len() - 4].to_owned()
    };
    (0..3).map(at).collect()
}

/// How many spellings a marker has.
const SPELLINGS: usize = 15;

fn docker(markers: &mut Markers) -> String {
    let auth = STANDARD.encode(format!("robot:{}", markers.next()));
    json!({"auths": {"ghcr.io": {"username": "robot", "password": markers.next(), "auth": auth, "identitytoken": markers.next()}}})
        .to_string()
}

fn secret(markers: &mut Markers) -> Value {
    let applied = json!({"stringData": {"a": markers.next()}, "data": {"b": markers.encoded()}}).to_string();
    json!({
        "kind": "Secret", "metadata": {"name": "regcred", "namespace": "prod",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}},
        "data": {".dockerconfigjson": STANDARD.encode(docker(markers)), "token": markers.encoded(), "nested": {"a": [markers.next()]}},
        "stringData": {"password": markers.next()}, "binaryData": {"x": markers.encoded()},
        "type": "kubernetes.io/dockerconfigjson",
    })
}

fn pod_spec(markers: &mut Markers) -> Value {
    let mut container = || {
        json!({"name": "c", "image": "nginx", "command": ["sh", "-c", "true"],
            "env": [{"name": "P", "value": markers.next()}, {"name": "Q", "valueFrom": {"secretKeyRef": {"name": "regcred", "key": "k"}}}]})
    };
    json!({"containers": [container()], "initContainers": [container()], "ephemeralContainers": [container()]})
}

/// One event for each kind of request that carries secrets.
fn events(markers: &mut Markers) -> Vec<Value> {
    let list = json!({"kind": "SecretList", "items": [secret(markers), secret(markers)]});
    let table = json!({"kind": "Table", "rows": [{"cells": ["regcred", "kubernetes.io/dockerconfigjson", 1, "1d"], "object": secret(markers)}]});
    let patch = json!([
        {"op": "add", "path": "/data/x", "value": markers.encoded()},
        {"op": "replace", "path": "/data", "value": {"y": markers.encoded()}},
        {"op": "add", "path": "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration", "value": markers.next()},
        {"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "P", "value": markers.next()}},
    ]);
    let token = json!({"kind": "TokenRequest", "status": {"token": markers.next()}});
    let review = json!({"kind": "TokenReview", "spec": {"token": markers.next()}});
    let bootstrap = json!({"kind": "Secret", "type": "bootstrap.kubernetes.io/token", "data": {"token-secret": markers.encoded()}});
    let account = json!({"kind": "Secret", "type": "kubernetes.io/service-account-token", "data": {"token": markers.encoded(), "ca.crt": markers.encoded()}});
    let configmap = json!({"kind": "ConfigMap", "data": {"config.json": docker(markers)}});
    let pod = json!({"kind": "Pod", "spec": pod_spec(markers)});
    let deployment = json!({"kind": "Deployment", "spec": {"template": {"spec": pod_spec(markers)}}});
    let webhook = json!({"patch.webhook.admission.k8s.io/round_0_index_0": json!({"patch": [{"value": markers.next()}]}).to_string()});
    let uri = format!("/api/v1/secrets?token={}&access_token={}&watch=0", markers.next(), markers.next());
    let event = |verb: &str, resource: &str, name: Value, request: Value, response: Value| {
        json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "a",
            "stage": "ResponseComplete", "requestURI": "/api/v1/x", "verb": verb, "user": {"username": "mallory"},
            "sourceIPs": ["192.0.2.1"], "objectRef": {"resource": resource, "namespace": "prod", "name": name},
            "responseStatus": {"code": 200}, "requestObject": request, "responseObject": response,
            "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z", "stageTimestamp": "2026-01-01T00:00:00.000001Z"})
    };
    let none = Value::Null;
    let mut events = vec![
        event("get", "secrets", json!("regcred"), none.clone(), secret(markers)),
        event("list", "secrets", none.clone(), none.clone(), list),
        event("list", "secrets", none.clone(), none.clone(), table),
        event("create", "secrets", json!("regcred"), secret(markers), secret(markers)),
        event("patch", "secrets", json!("regcred"), patch, secret(markers)),
        event("create", "secrets", json!("bootstrap-token-x"), bootstrap.clone(), bootstrap),
        event("create", "secrets", json!("account"), account.clone(), account),
        event("create", "serviceaccounts", json!("deployer"), none.clone(), token),
        event("create", "tokenreviews", none.clone(), review.clone(), review),
        event("create", "configmaps", json!("notes"), configmap.clone(), configmap),
        event("create", "pods", json!("p"), pod.clone(), pod),
        event("create", "deployments", json!("d"), deployment.clone(), deployment),
        event("get", "secrets", json!("regcred"), none.clone(), none.clone()),
        event("get", "secrets", json!("regcred"), none.clone(), none),
    ];
    let last = events.len() - 1;
    events[last - 1]["annotations"] = webhook;
    events[last]["requestURI"] = json!(uri);
    events[7]["objectRef"]["subresource"] = json!("token");
    events
}

const EVERYTHING: &str = r"
- rule: Everything
  desc: Prints all that a rule can print.
  condition: ka.auditid exists
  output: >-
    %jevt.obj %json.obj %evt.plugininfo %ka.uri %ka.uri.param[token] %ka.req.configmap.obj %jevt.value[/requestObject]
    %jevt.value[/responseObject] %jevt.value[/requestObject/data] %jevt.value[/responseObject/data/.dockerconfigjson]
    %jevt.value[/responseObject/items] %jevt.value[/responseObject/items/0/data] %jevt.value[/responseObject/rows/0/object]
    %jevt.value[/requestObject/0] %jevt.value[/requestObject/0/value] %jevt.value[/requestObject/1/value/y]
    %jevt.value[/requestObject/3/value/value] %jevt.value[/responseObject/status/token] %jevt.value[/requestObject/spec/token]
    %jevt.value[/requestObject/spec/containers/0/env] %jevt.value[/requestObject/spec/template/spec/initContainers/0/env/0/value]
    %jevt.value[/responseObject/metadata/annotations] %jevt.value[/annotations]
    %jevt.value[/annotations/patch.webhook.admission.k8s.io~1round_0_index_0]
    %toupper(jevt.value[/responseObject/data/token]) %b64(jevt.value[/responseObject/data/token]) %200jevt.value[/requestObject]
    %concat(jevt.value[/requestObject/stringData/password], ka.verb) %registry.secrets %registry.hosts %registry.usernames
    %registry.copied %registry.referenced %audit.actor
  priority: INFO
";

#[test]
fn no_secret_leaves() {
    let mut markers = Markers::default();
    let events = events(&mut markers);
    let spellings = markers.spellings();
    let lines: Vec<String> = events.iter().map(|event| format!("{event}\n")).collect();
    let log = lines.concat();
    // The test is only as good as its search: in the log itself it finds each marker.
    for marker in spellings.chunks(SPELLINGS) {
        assert!(marker.iter().any(|spelling| log.contains(spelling)), "{} is not in the log", marker[0]);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("a.log"), &log).unwrap();
    // The same, cut off within each line.
    let cut: Vec<String> = lines.iter().map(|line| format!("{}\n", &line[..line.len() * 3 / 4])).collect();
    fs::write(path("cut.log"), cut.concat()).unwrap();
    fs::write(path("all.yaml"), EVERYTHING).unwrap();
    let tests = "rule_files: [all.yaml]\ntests: [{name: t, file: a.log, alerts: []}]";
    fs::write(path("tests.yaml"), tests).unwrap();

    let mut said: Vec<Vec<u8>> = Vec::new();
    let mut run = |arguments: &[&str]| {
        let output = pullwatch().args(arguments).env("PULLWATCH_LOG", "trace").output().unwrap();
        assert_ne!(output.status.code(), Some(101), "{arguments:?} panicked");
        said.extend([output.stdout, output.stderr]);
    };
    let (log, cut, all, tests) = (path("a.log"), path("cut.log"), path("all.yaml"), path("tests.yaml"));
    for log in [&log, &cut] {
        for format in ["text", "json"] {
            run(&["scan", "-vv", "--format", format, log]);
            run(&["scan", "-vv", "--format", format, "--rules", &all, log]);
        }
    }
    run(&["rules", "test", "-vv", &tests]);
    for format in ["table", "json", "html"] {
        run(&["report", "-vv", "--format", format, &log, &cut]);
    }
    run(&["baseline", "-vv", "--min-count", "1", &log]);
    for event in &events {
        let event = event.to_string();
        run(&["rules", "explain", "-vv", "--rules", &all, "--rule", "Everything", &event]);
        run(&["rules", "explain", "--rule", "Registry Credential Copied", &event]);
    }
    let found = scan(&["--rules", &all, &log]);
    assert_eq!(alerts(&found).len(), events.len(), "{}", common::said(&found));
    for text in said {
        let text = String::from_utf8(text).unwrap();
        for spelling in &spellings {
            if let Some(at) = text.find(spelling.as_str()) {
                let around = text.get(at.saturating_sub(200)..).unwrap_or_default();
                panic!("{spelling} left: {}", around.chars().take(400).collect::<String>());
            }
        }
    }
}

const GROUPED: &str = r"
- correlation: Grouped By Everything
  type: value_count
  rules: [Everything]
  group-by: ['jevt.value[/responseObject/data/token]', 'jevt.value[/requestObject/0/value]', ka.uri]
  timespan: 1m
  condition: {field: 'jevt.value[/responseObject]', gte: 1}
  output: '%correlation.values %jevt.value[/requestObject] %ka.uri'
  priority: INFO
";

#[test]
fn no_secret_is_handed_to_other_replicas() {
    use pullwatch::detection::detector::{Detector, Options, repartition::Settings};
    use pullwatch::detection::rules::{self, SourceFile};
    let mut markers = Markers::default();
    let events = events(&mut markers);
    let spellings = markers.spellings();
    let file = SourceFile { name: "r.yaml".into(), text: format!("{EVERYTHING}{GROUPED}") };
    let loaded = rules::load(std::slice::from_ref(&file), &rules::Options::default());
    assert!(!loaded.has_errors(), "{}", rules::render(&loaded.diagnostics, &[file], false));
    let repartition = Some(Settings { partitions: 1, allowed_lateness: 0 });
    let detector = Detector::new(&loaded.rules, Options { repartition, ..Options::default() });
    let mut session = detector.session();
    session.repartition().unwrap().assign(0, 0);
    let mut said: Vec<String> = Vec::new();
    for event in &events {
        session.chunk(event.to_string().as_bytes(), &mut |_| {});
    }
    let sent = session.repartition().unwrap().take_outbox();
    assert_eq!(sent.len(), events.len());
    let mut fired = 0;
    for (offset, message) in (0..).zip(&sent) {
        session.on_remote_match(0, offset, &message.value, &mut |alert| {
            fired += 1;
            let mut json = Vec::new();
            alert.write_json(&mut json);
            said.push(String::from_utf8(json).unwrap());
        });
        let text = String::from_utf8(message.value.clone()).unwrap();
        // Bytes are base64 there.
        let message: Value = serde_json::from_str(&text).unwrap();
        for list in ["key", "values"] {
            for value in message["match"][list].as_array().unwrap() {
                let value = value.as_str().unwrap();
                let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(value).unwrap();
                said.push(String::from_utf8(bytes).unwrap());
            }
        }
        said.push(text);
    }
    assert!(fired > 3, "{fired}");
    for text in said {
        let found = spellings.iter().find(|spelling| text.contains(spelling.as_str()));
        assert_eq!(found, None, "{}", text.chars().take(2000).collect::<String>());
    }
}
