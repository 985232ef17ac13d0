//! Declared inventories: the commands, and what they change in `scan` and `run`.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Output, Stdio};

use common::{alerts, event, pullwatch, said, sample, scan};
use serde_json::{Value, json};

const TABLE: &str = "NAMESPACE   NAME   TYPE                             DATA   AGE
prod        x7     kubernetes.io/dockerconfigjson   1      3d
prod        tls    kubernetes.io/tls                2      3d
";

fn inventory(state: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = pullwatch();
    command.arg("inventory").args(arguments).arg("--state-dir").arg(state);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn imports_lists_and_exports_without_loss() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    assert!(
        out(&inventory(&state, &["import"], TABLE))
            .contains("2 objects read, 0 ignored: 1 registry credential (1 new)")
    );
    let roles = r#"{"kind":"ClusterRole","metadata":{"name":"reader"},"rules":[{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}]}"#;
    out(&inventory(&state, &["import", "-"], roles));
    let list = out(&inventory(&state, &["list"], ""));
    assert!(list.contains("x7") && !list.contains("tls"), "{list}");
    let export = out(&inventory(&state, &["export"], ""));
    let copy = folder.path().join("copy");
    out(&inventory(&copy, &["import"], &export));
    assert_eq!(out(&inventory(&copy, &["export"], "")), export);
    // A failed import changes nothing.
    let failed = inventory(&state, &["import", "--replace"], "NAMESPACE  NAME  TYPE\np\n");
    assert_eq!(failed.status.code(), Some(2));
    assert!(said(&failed).contains("line 2"), "{}", said(&failed));
    assert_eq!(out(&inventory(&state, &["export"], "")), export);
    out(&inventory(
        &state,
        &["import", "--replace"],
        "NAMESPACE  NAME  TYPE\np  q  kubernetes.io/dockercfg\n",
    ));
    assert!(!out(&inventory(&state, &["export"], "")).contains("x7"));
}

#[test]
fn the_data_of_secrets_is_neither_stored_nor_shown() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let secret = json!({
        "kind": "Secret", "apiVersion": "v1", "type": "Opaque",
        "metadata": {"namespace": "p", "name": "a", "labels": {"x": "MARKER-1"}, "annotations": {
            "note": "MARKER-2",
            "kubectl.kubernetes.io/last-applied-configuration": r#"{"stringData":{"x":"MARKER-3"}}"#}},
        "data": {"x": "TUFSS0VSLTQ="},
        "stringData": {"x": "MARKER-5", "config.json": r#"{"auths":{"reg.example":{"username":"bob","password":"MARKER-6"}}}"#},
    });
    let texts = [
        out(&inventory(&state, &["import"], &secret.to_string())),
        out(&inventory(&state, &["list", "--all"], "")),
        out(&inventory(&state, &["export"], "")),
        fs::read_to_string(state.join("inventory/inventory.json")).unwrap(),
    ];
    assert!(texts[3].contains("reg.example") && texts[3].contains("bob"));
    for text in texts {
        assert!(!text.contains("MARKER") && !text.contains("TUFSS0VS"), "{text}");
    }
}

#[test]
fn a_declared_credential_is_recognized_whatever_its_name_is() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    fs::write(&log, format!("{}\n{}\n", event("1", "get", "x7"), event("2", "get", "tls"))).unwrap();
    let table = folder.path().join("secrets.txt");
    fs::write(&table, TABLE).unwrap();
    let log = log.to_str().unwrap();
    assert!(alerts(&scan(&[log])).is_empty());
    let found = alerts(&scan(&[log, "--inventory", table.to_str().unwrap()]));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["registry"]["secrets"], json!(["prod/x7"]));
    assert_eq!(found[0]["output_fields"]["registry.evidence"], "inventory");
    let report =
        pullwatch().args(["report", log, "--format", "json", "--inventory"]).arg(&table).output().unwrap();
    assert!(out(&report).contains("prod/x7"));
    // The same name in another namespace is one too: pull secrets are copied.
    fs::write(&table, TABLE.replace("prod ", "other")).unwrap();
    let found = alerts(&scan(&[log, "--inventory", table.to_str().unwrap()]));
    assert_eq!(found[0]["output_fields"]["registry.evidence"], "same-name");
    let missing = scan(&[log, "--inventory", "/does/not/exist"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(said(&missing).contains("cannot read the inventory"));
}

#[test]
fn a_running_daemon_takes_over_an_inventory() {
    let folder = tempfile::tempdir().unwrap();
    let (log, state) = (folder.path().join("audit.log"), folder.path().join("state"));
    let table = folder.path().join("secrets.txt");
    fs::write(&table, "NAMESPACE  NAME  TYPE\nprod  y  kubernetes.io/dockercfg\n").unwrap();
    fs::write(&log, format!("{}\n{}\n", event("1", "get", "x7"), event("2", "get", "y"))).unwrap();
    let config = folder.path().join("pullwatch.yaml");
    let text = json!({
        "state_dir": state, "inventory": table, "server": false, "sources": [{"type": "file", "paths": [log]}],
        "sinks": [{"type": "stdout"}],
    });
    fs::write(&config, text.to_string()).unwrap();
    let mut daemon = pullwatch()
        .args(["run", "--config"])
        .arg(&config)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
    let mut next = || {
        let alert: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        (alert["event"]["auditID"].clone(), alert["output_fields"]["registry.evidence"].clone())
    };
    assert_eq!(next(), (json!("2"), json!("inventory")));
    out(&inventory(&state, &["import"], TABLE));
    let mut messages = BufReader::new(daemon.stderr.take().unwrap()).lines();
    messages.find(|line| line.as_ref().unwrap().contains("rules reloaded")).unwrap().unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    writeln!(file, "{}", event("3", "get", "x7")).unwrap();
    assert_eq!(next(), (json!("3"), json!("inventory")));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// A request for secrets at a time of an hour.
fn request(id: &str, user: &Value, agent: &str, address: &str, minute: usize) -> String {
    let time = format!("2026-01-01T00:{minute:02}:00.000000Z");
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": id, "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/shop/secrets/settings", "verb": "get", "user": user, "sourceIPs": [address],
        "userAgent": agent, "objectRef": {"resource": "secrets", "namespace": "shop", "name": "settings", "apiVersion": "v1"},
        "responseStatus": {"code": 200}, "requestReceivedTimestamp": time, "stageTimestamp": time,
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
    })
    .to_string()
}

fn pod_on(node: &str) -> Value {
    json!({
        "username": "system:serviceaccount:shop:cart", "groups": ["system:serviceaccounts", "system:serviceaccounts:shop"],
        "extra": {
            "authentication.kubernetes.io/credential-id": [format!("JTI={node}")],
            "authentication.kubernetes.io/pod-name": [format!("cart-{node}")],
            "authentication.kubernetes.io/node-name": [node],
        },
    })
}

fn node(name: &str) -> Value {
    json!({"username": format!("system:node:{name}"), "groups": ["system:nodes", "system:authenticated"]})
}

#[test]
fn declared_nodes_are_where_their_tokens_and_certificates_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = |items: &[(&str, &str)]| {
        let item = |(name, address): &(&str, &str)| {
            json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name},
                "status": {"addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]}})
        };
        json!({"kind": "List", "apiVersion": "v1", "items": items.iter().map(item).collect::<Vec<_>>()})
            .to_string()
    };
    let objects = nodes(&[("server", "192.168.5.1"), ("agent-1", "192.168.5.2"), ("agent-2", "192.168.5.3")]);
    let state = folder.path().join("state");
    assert!(
        out(&inventory(&state, &["import"], &objects))
            .contains("3 objects read, 0 ignored: 0 registry credentials (0 new), 3 nodes")
    );
    let list = out(&inventory(&state, &["list"], ""));
    assert!(list.contains("agent-2") && list.contains("192.168.5.3"), "{list}");
    let declared = folder.path().join("nodes.json");
    fs::write(&declared, out(&inventory(&state, &["export"], ""))).unwrap();
    let kubelet = "kubelet/v1.36.3 (linux/amd64) kubernetes/x";
    let log = [
        // The kubelet of a server of K3s comes over loopback.
        request("1", &node("server"), "k3s/v1.36.3+k3s1 (linux/amd64)", "127.0.0.1", 0),
        request("stolen-1", &pod_on("agent-1"), "cart/1", "192.168.5.3", 0),
        request("stolen-2", &pod_on("server"), "cart/1", "192.168.5.2", 1),
        request("stolen-3", &pod_on("agent-1"), "cart/1", "192.168.5.1", 1),
        request("2", &pod_on("agent-2"), "cart/1", "192.168.5.3", 2),
        request("3", &pod_on("agent-2"), "cart/1", "10.42.2.7", 2),
        request("4", &node("agent-1"), kubelet, "192.168.5.2", 3),
        request("node-1", &node("agent-1"), kubelet, "192.168.5.1", 4),
        // A node that is newer than the inventory.
        request("5", &node("agent-9"), kubelet, "192.168.5.9", 5),
        request("6", &pod_on("agent-9"), "cart/1", "192.168.5.9", 5),
    ];
    assert!(used_from_another_node(&log, None).is_empty());
    let stolen = ["node-1", "stolen-1", "stolen-2", "stolen-3"].map(str::to_owned);
    assert_eq!(used_from_another_node(&log, Some(&declared)), BTreeSet::from(stolen));
    // One address that all have, as behind a gateway.
    fs::write(
        &declared,
        nodes(&[("server", "192.168.5.1"), ("agent-1", "192.168.5.1"), ("agent-2", "192.168.5.1")]),
    )
    .unwrap();
    assert!(used_from_another_node(&log, Some(&declared)).is_empty());
}

/// The audit ids of what is reported as used from another node.
fn used_from_another_node(log: &[String], inventory: Option<&Path>) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    fs::write(&path, log.join("\n")).unwrap();
    let mut arguments = vec![path.to_str().unwrap()];
    arguments.extend(inventory.iter().flat_map(|path| ["--inventory", path.to_str().unwrap()]));
    let alerts = alerts(&scan(&arguments));
    let of_nodes = alerts.iter().filter(|alert| {
        let rule = alert["rule"].as_str().unwrap();
        rule.ends_with("Its Pod's Node") || rule.ends_with("From Another Node")
    });
    of_nodes.map(|alert| alert["event"]["auditID"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_log_that_starts_late_loses_no_use_from_another_node_with_an_inventory_of_nodes() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evasion/nodes.jsonl");
    let log: Vec<String> = fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    let folder = tempfile::tempdir().unwrap();
    let nodes = folder.path().join("nodes.txt");
    fs::write(&nodes, "NAME  INTERNAL-IP\nn  192.168.5.1\nm  192.168.5.2\n").unwrap();
    let early = used_from_another_node(&log, None);
    assert_eq!(used_from_another_node(&log, Some(&nodes)), early);
    let mut lost_without = 0;
    for start in [1, 3, 6, 7, 9, 12, 17, 22, 60, 67, 69] {
        let tail = &log[start..];
        let is_in_tail = |id: &&String| tail.iter().any(|line| audit_id(line) == **id);
        let wanted: BTreeSet<String> = early.iter().filter(is_in_tail).cloned().collect();
        let with = used_from_another_node(tail, Some(&nodes));
        assert!(wanted.is_subset(&with), "from line {start}: {:?}", wanted.difference(&with));
        lost_without += wanted.difference(&used_from_another_node(tail, None)).count();
    }
    assert!(lost_without > 20, "the inventory made little difference: {lost_without}");
}

fn lines(log: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(log).lines().map(str::to_owned).collect()
}

/// Alerts at notice and above by event and rule, apart from those of correlations, which depend on earlier events.
fn found(log: &[String], inventory: Option<&str>) -> BTreeSet<(String, String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    fs::write(&path, log.join("\n") + "\n").unwrap();
    let declared = folder.path().join("inventory");
    let mut arguments = vec![path.to_str().unwrap(), "--priority", "notice"];
    if let Some(text) = inventory {
        fs::write(&declared, text).unwrap();
        // Before the first event: what the log shows of a secret is later.
        let file = fs::File::options().append(true).open(&declared).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        arguments.extend(["--inventory", declared.to_str().unwrap()]);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let output = scan(&arguments);
    let alerts = alerts(&output);
    let alerts = alerts.iter().filter(|alert| alert.get("correlation").is_none());
    alerts
        .map(|alert| (text(&alert["event"]["auditID"]), text(&alert["event"]["stage"]), text(&alert["rule"])))
        .collect()
}

/// The type of each secret that a log shows.
fn types(log: &[String]) -> BTreeMap<(String, String), String> {
    let mut types = BTreeMap::new();
    for line in log {
        let event: Value = serde_json::from_str(line).unwrap();
        for item in event["responseObject"]["items"].as_array().into_iter().flatten() {
            if let (Some(namespace), Some(name), Some(secret_type)) = (
                item["metadata"]["namespace"].as_str(),
                item["metadata"]["name"].as_str(),
                item["type"].as_str(),
            ) {
                types.insert((namespace.to_owned(), name.to_owned()), secret_type.to_owned());
            }
        }
    }
    types
}

/// What existed after the head of a log: the objects that it shows, and the secrets with their types.
fn existing(head: &[String], types: &BTreeMap<(String, String), String>) -> String {
    let (mut objects, mut secrets) = (BTreeMap::new(), BTreeSet::new());
    for line in head {
        let event: Value = serde_json::from_str(line).unwrap();
        let reference = &event["objectRef"];
        let text = |key: &str| reference[key].as_str().unwrap_or_default().to_owned();
        let is_success = event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300);
        let is_dry_run = event["requestURI"].as_str().is_some_and(|uri| uri.contains("dryRun"));
        if !is_success || is_dry_run || reference.get("subresource").is_some() {
            continue;
        }
        let key = (text("resource"), text("namespace"), text("name"));
        match event["verb"].as_str().unwrap_or_default() {
            "delete" => {
                secrets.remove(&(key.1.clone(), key.2.clone()));
                objects.remove(&key);
            }
            "create" | "update" | "patch" | "get" if key.0 == "secrets" => {
                secrets.insert((key.1, key.2));
            }
            "create" | "update" | "patch" => {
                let bodies = [&event["responseObject"], &event["requestObject"]];
                if let Some(body) = bodies.into_iter().find(|body| body["metadata"]["name"].is_string()) {
                    let mut body = body.clone();
                    body["metadata"]["namespace"] = json!(key.1);
                    objects.insert(key, body);
                }
            }
            _ => {}
        }
    }
    let secret = |(namespace, name): &(String, String)| {
        let secret_type = types.get(&(namespace.clone(), name.clone()))?;
        Some(
            json!({"kind": "Secret", "metadata": {"namespace": namespace, "name": name}, "type": secret_type}),
        )
    };
    let items: Vec<Value> = secrets.iter().filter_map(secret).chain(objects.into_values()).collect();
    json!({"kind": "List", "items": items}).to_string()
}

#[test]
fn a_log_that_starts_late_loses_nothing_with_an_inventory_of_what_existed() {
    let types = types(&lines(&sample("request-response.log.gz")));
    let mut lost_without = 0;
    for (name, tenths) in [("request-response.log.gz", 3), ("metadata.log.gz", 6), ("objects.log.gz", 6)] {
        let log = lines(&sample(name));
        let full = found(&log, None);
        let (head, tail) = log.split_at(log.len() * tenths / 10);
        let is_in_tail: BTreeSet<&str> = tail.iter().map(|line| audit_id(line)).collect();
        let is_in_head: BTreeSet<&str> = head.iter().map(|line| audit_id(line)).collect();
        let wanted = full.iter().filter(|(id, ..)| is_in_tail.contains(&**id) && !is_in_head.contains(&**id));
        let with = found(tail, Some(&existing(head, &types)));
        let without = found(tail, None);
        for alert in wanted {
            lost_without += usize::from(!without.contains(alert));
            // Where only a name spoke for a secret, its type is known now to be another.
            let is_lookalike =
                tail.iter().any(|line| audit_id(line) == alert.0 && reads_other_type(line, &types));
            assert!(with.contains(alert) || is_lookalike, "{name}, after {tenths} tenths: {alert:?}");
        }
    }
    assert!(lost_without > 0, "the inventory made no difference");
}

fn audit_id(line: &str) -> &str {
    let start = line.find("\"auditID\":\"").unwrap() + 11;
    &line[start..start + line[start..].find('"').unwrap()]
}

fn reads_other_type(line: &str, types: &BTreeMap<(String, String), String>) -> bool {
    let event: Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| event["objectRef"][key].as_str().unwrap_or_default().to_owned();
    types.get(&(text("namespace"), text("name"))).is_some_and(|secret_type| !secret_type.contains("docker"))
}

/// Names of the credentials in the recorded logs. In the test they say nothing.
const TELLING_NAMES: [&str; 5] =
    ["default-dockercfg-x7k2p", "registry-credentials", "harbor-pull-secret", "ghcr-login", "regcred"];

/// Replaces the names of credentials by ones that say nothing.
fn with_silent_names(line: &str) -> String {
    let mut line = line.to_owned();
    for (number, name) in TELLING_NAMES.iter().enumerate() {
        line = line.replace(name, &format!("obj-{number}"));
    }
    line
}

#[test]
fn names_that_say_nothing_are_recognized_at_level_metadata_with_an_inventory() {
    let log = lines(&sample("metadata.log.gz"));
    let silent: Vec<String> = log.iter().map(|line| with_silent_names(line)).collect();
    let mut table = "NAMESPACE  NAME  TYPE\n".to_owned();
    for ((namespace, name), secret_type) in types(&lines(&sample("request-response.log.gz"))) {
        writeln!(table, "{namespace}  {}  {secret_type}", with_silent_names(&name)).unwrap();
    }
    let full = found(&log, Some(&table_with_telling_names()));
    let with = found(&silent, Some(&table));
    let without = found(&silent, None);
    let reads = |found: &BTreeSet<(String, String, String)>| {
        found
            .iter()
            .filter(|(_, _, rule)| rule == "Registry Credential Read")
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    assert!(reads(&full).is_subset(&reads(&with)), "{:?}", reads(&full).difference(&reads(&with)));
    assert!(reads(&without).len() < reads(&with).len() / 2);
}

/// The inventory of the recorded log itself.
fn table_with_telling_names() -> String {
    let mut table = "NAMESPACE  NAME  TYPE\n".to_owned();
    for ((namespace, name), secret_type) in types(&lines(&sample("request-response.log.gz"))) {
        writeln!(table, "{namespace}  {name}  {secret_type}").unwrap();
    }
    table
}
