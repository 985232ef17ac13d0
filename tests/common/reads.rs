//! Events of reads of secrets, and the alerts of a log of them.

use serde_json::{Value, json};

/// A read of secrets at an hour of a day.
pub struct Read<'a> {
    pub user: &'a str,
    pub agent: &'a str,
    pub address: &'a str,
    pub pod: Option<&'a str>,
    pub verb: &'a str,
    /// `namespace`, `namespace/name`, or empty for the cluster.
    pub target: &'a str,
    pub query: &'a str,
}

/// An event at level Metadata, as the apiserver writes it.
pub fn event(read: &Read<'_>, day: u8, minute: usize, id: &mut u32) -> String {
    *id += 1;
    let (namespace, name) = read.target.split_once('/').unwrap_or((read.target, ""));
    let mut target = json!({"resource": "secrets", "apiVersion": "v1"});
    if !namespace.is_empty() {
        target["namespace"] = namespace.into();
    }
    if !name.is_empty() {
        target["name"] = name.into();
    }
    let mut user = json!({"username": read.user, "groups": ["system:authenticated"]});
    if let Some((_, account)) = read.user.split_once("system:serviceaccount:") {
        let group = format!("system:serviceaccounts:{}", account.split(':').next().unwrap());
        user["groups"] = json!(["system:serviceaccounts", group, "system:authenticated"]);
    }
    if let Some(pod) = read.pod {
        user["extra"] = json!({"authentication.kubernetes.io/pod-uid": [pod]});
    }
    let time =
        format!("2024-10-{day:02}T{:02}:{:02}:00.{:06}Z", 1 + minute / 60, minute % 60, *id % 1_000_000);
    let path = match (namespace, name) {
        ("", _) => "/api/v1/secrets".to_owned(),
        (namespace, "") => format!("/api/v1/namespaces/{namespace}/secrets"),
        // The apiserver takes the name of a list from its field selector.
        (namespace, _) if read.verb != "get" => format!("/api/v1/namespaces/{namespace}/secrets"),
        (namespace, name) => format!("/api/v1/namespaces/{namespace}/secrets/{name}"),
    };
    let stage = if read.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": format!("benign-{id}"),
        "stage": stage, "requestURI": format!("{path}?{}", read.query), "verb": read.verb, "user": user,
        "sourceIPs": [read.address], "userAgent": read.agent, "objectRef": target,
        "responseStatus": {"metadata": {}, "code": if read.verb == "create" { 201 } else { 200 }}, "requestReceivedTimestamp": time, "stageTimestamp": time,
        "annotations": {"authorization.k8s.io/decision": "allow"},
    })
    .to_string()
}

const LOUD: [&str; 5] = ["Emergency", "Alert", "Critical", "Error", "Warning"];

/// Whether an alert is a warning or worse.
pub fn is_loud(alert: &Value) -> bool {
    LOUD.contains(&alert["priority"].as_str().unwrap())
}

/// Alerts of a scan of a log.
pub fn evaluate(log: &[String]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    std::fs::write(&path, log.join("\n")).unwrap();
    let rules = super::project("rules.d");
    let output = super::scan(&["--rules", rules.to_str().unwrap(), path.to_str().unwrap()]);
    assert!(output.stderr.is_empty() || output.status.code() != Some(2), "{}", super::said(&output));
    super::alerts(&output)
}
