//! The scalar fields of alerts, as receivers of Falco's events read them.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Output;

use common::{alerts, event, pullwatch};
use serde_json::Value;

const FIELDS: [&str; 7] =
    ["actor", "credential", "namespace", "registry_host", "exposure", "verb", "cluster"];

/// The labels that falcosidekick's Alertmanager output makes of an event: strings and numbers of `output_fields`; it drops
/// lists and null. Its Slack and Opsgenie outputs drop the same.
fn falcosidekick_labels(alert: &Value) -> BTreeMap<String, String> {
    // What falcosidekick requires of an event.
    assert!(alert["rule"].is_string() && alert["priority"].is_string() && alert["output"].is_string());
    assert!(alert["time"].as_str().unwrap().ends_with('Z') && alert["source"] == "k8s_audit");
    assert!(alert["tags"].as_array().unwrap().iter().all(Value::is_string));
    let fields = alert["output_fields"].as_object().unwrap();
    let mut labels = BTreeMap::new();
    for (name, value) in fields {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => continue,
        };
        let safe: String =
            name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
        labels.insert(safe.replace("__", "_").trim_matches('_').to_owned(), text);
    }
    labels
}

/// The alerts of the daemon for a log, with these rules or with the built-in ones.
fn alerts_of(rules: Option<&str>, log: &[u8]) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rules.yaml"), rules.unwrap_or_default()).unwrap();
    let folder = dir.path().display();
    let rules = if rules.is_some() { format!("{folder}/rules.yaml") } else { "builtin".to_owned() };
    let config = dir.path().join("pullwatch.yaml");
    std::fs::write(
        &config,
        format!("state_dir: {folder}/state\nrules: {rules}\nsources: [{{type: stdin}}]\nserver: false\nsinks: [{{type: file, path: {folder}/alerts.jsonl}}]\n"),
    )
    .unwrap();
    let mut child = pullwatch()
        .args(["run", "--config"])
        .arg(&config)
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(log).unwrap();
    assert!(child.wait().unwrap().success());
    let stdout = std::fs::read(dir.path().join("alerts.jsonl")).unwrap();
    alerts(&Output { stdout, stderr: Vec::new(), status: std::process::ExitStatus::default() })
}

#[test]
fn every_alert_of_every_sample_has_the_same_scalar_fields() {
    let mut rules = std::collections::BTreeSet::new();
    for sample in ["kubernetes-1.36", "metadata", "objects", "request-response"] {
        for alert in alerts_of(None, &common::sample(&format!("{sample}.log.gz"))) {
            for name in FIELDS {
                let (top, field) = (alert.get(name), alert["output_fields"].get(name));
                assert!(top.is_some() && top == field, "{name}: {alert}");
                assert!(top.unwrap().is_string() || top.unwrap().is_null(), "{name}: {alert}");
            }
            assert!(alert["actor"].is_string() && alert["exposure"].is_string() && alert["verb"].is_string());
            let secrets = alert["registry"]["secrets"].as_array().map_or(0, Vec::len);
            if secrets > 0 {
                let credential = alert["credential"].as_str().unwrap();
                assert!(credential.starts_with(alert["registry"]["secrets"][0].as_str().unwrap()), "{alert}");
                assert_eq!(credential.ends_with(" more)"), secrets > 1, "{alert}");
                assert_eq!(alert["exposure"], alert["registry"]["exposure"]);
            }
            if let Some(host) = alert["registry"]["hosts"].get(0) {
                assert!(alert["registry_host"].as_str().unwrap().starts_with(host.as_str().unwrap()));
            }
            assert_eq!(falcosidekick_labels(&alert)["actor"], alert["actor"].as_str().unwrap());
            rules.insert(alert["rule"].as_str().unwrap().to_owned());
        }
    }
    assert!(rules.len() > 15, "{rules:?}");
}

#[test]
fn fields_do_not_depend_on_the_output_of_the_rule() {
    let rules = "- {rule: R, desc: d, condition: ka.target.resource = secrets, output: read, priority: INFO}";
    let impersonated = event("a1", "get", "regcred").replace(
        r#""sourceIPs""#,
        r#""impersonatedUser":{"username":"system:serviceaccount:prod:ci"},"sourceIPs""#,
    );
    let found = alerts_of(Some(rules), (impersonated + "\n").as_bytes());
    let labels = falcosidekick_labels(&found[0]);
    assert_eq!(labels["actor"], "mallory as system:serviceaccount:prod:ci");
    assert_eq!(labels["credential"], "prod/regcred");
    assert_eq!(labels["namespace"], "prod");
    assert_eq!(labels["exposure"], "presumed");
    assert_eq!(labels["verb"], "get");
    assert!(!labels.contains_key("registry_host") && !labels.contains_key("cluster"));
}

#[test]
fn the_first_credential_is_the_one_with_the_strongest_evidence() {
    let rules = "- {rule: R, desc: d, condition: ka.verb = list, output: listed, priority: INFO}";
    let secret = |name: &str, kind: &str, data: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"prod"}},"type":"{kind}","data":{{".dockerconfigjson":"{data}"}}}}"#
        )
    };
    // {"auths":{"ghcr.io":{"username":"u","password":"p"},"quay.io":{"username":"u","password":"p"}}}
    let config = "eyJhdXRocyI6eyJnaGNyLmlvIjp7InVzZXJuYW1lIjoidSIsInBhc3N3b3JkIjoicCJ9LCJxdWF5LmlvIjp7InVzZXJuYW1lIjoidSIsInBhc3N3b3JkIjoicCJ9fX0=";
    let items = [
        secret("a", "Opaque", "YQ=="),
        secret("z", "kubernetes.io/dockerconfigjson", config),
        secret("y", "kubernetes.io/dockerconfigjson", config),
    ];
    let list =
        event("a1", "list", "x").replace("/secrets/x", "/secrets").replace(r#""name":"x","#, "").replace(
            r#""requestReceived"#,
            &format!(
                r#""responseObject":{{"kind":"SecretList","apiVersion":"v1","items":[{}]}},"requestReceived"#,
                items.join(",")
            ),
        );
    let found = alerts_of(Some(rules), (list + "\n").as_bytes());
    let labels = falcosidekick_labels(&found[0]);
    assert_eq!(labels["credential"], "prod/z (+1 more)", "{}", found[0]);
    assert_eq!(labels["registry_host"], "ghcr.io (+1 more)");
    assert_eq!(labels["exposure"], "payload");
}

#[test]
fn correlations_have_them_too() {
    let rules = "
- {rule: R, desc: d, condition: ka.target.resource = secrets and registry.exposure = presumed, output: read, priority: INFO}
- correlation: Sliding
  type: event_count
  rules: [R]
  group-by: [ka.user.name]
  timespan: 30s
  condition: {gte: 2}
  output: two
  priority: ERROR
- correlation: Tumbling
  type: event_count
  rules: [R]
  group-by: [ka.user.name]
  timespan: 30s
  condition: {lte: 5}
  output: few
  priority: ERROR
";
    // That the secret is a credential is known by a reference alone, which the head of the event does not show.
    let pod = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"p","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/prod/pods","verb":"create","user":{"username":"ci"},"objectRef":{"resource":"pods","namespace":"prod","name":"p","apiVersion":"v1"},"responseStatus":{"code":201},"requestObject":{"kind":"Pod","spec":{"containers":[{"name":"c","image":"a"}],"imagePullSecrets":[{"name":"hidden"}]}},"stageTimestamp":"2026-11-23T09:59:00.000100Z"}"#;
    let log = format!("{pod}\n{}\n{}\n", event("a1", "get", "hidden"), event("a2", "get", "hidden"));
    // A scan ends all windows.
    let dir = tempfile::tempdir().unwrap();
    let (rule_file, log_file) = (dir.path().join("rules.yaml"), dir.path().join("audit.log"));
    std::fs::write(&rule_file, rules).unwrap();
    std::fs::write(&log_file, log).unwrap();
    let found =
        alerts(&common::scan(&["-q", "--rules", rule_file.to_str().unwrap(), log_file.to_str().unwrap()]));
    for name in ["R", "Sliding", "Tumbling"] {
        let alert = found.iter().find(|alert| alert["rule"] == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(alert["actor"], "mallory", "{alert}");
        assert_eq!(alert["credential"], "prod/hidden", "{alert}");
        assert_eq!(alert["exposure"], "presumed", "{alert}");
    }
}

#[test]
fn static_labels_are_in_the_alert_and_in_its_fields() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    write("rules.yaml", common::RULE);
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = write(
        "pullwatch.yaml",
        &format!(
            "state_dir: {0}/state\nrules: {0}/rules.yaml\nlabels: {{cluster: prod-eu, team: '${{TEAM}}'}}\nsources: [{{type: stdin}}]\nserver: false\nsinks: [{{type: stdout, format: json}}, {{type: file, path: {0}/text, format: text}}, {{type: syslog, address: 'udp://{1}', format: cef}}]\n",
            dir.path().display(),
            receiver.local_addr().unwrap(),
        ),
    );
    let mut child = pullwatch()
        .args(["run", "--config"])
        .arg(&config)
        .env("TEAM", "registry")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all((event("a1", "get", "registry-1") + "\n").as_bytes()).unwrap();
    let found = alerts(&child.wait_with_output().unwrap());
    assert_eq!(found.len(), 1);
    for members in [&found[0], &found[0]["output_fields"]] {
        assert_eq!(members["cluster"], "prod-eu", "{}", found[0]);
        assert_eq!(members["team"], "registry", "{}", found[0]);
    }

    let text = std::fs::read_to_string(dir.path().join("text")).unwrap();
    assert!(text.trim_end().ends_with(" [cluster=prod-eu team=registry]"), "{text}");
    let mut datagram = [0; 4096];
    let length = receiver.recv(&mut datagram).unwrap();
    let message = String::from_utf8_lossy(&datagram[..length]).into_owned();
    assert!(message.contains(r#" cluster="prod-eu" team="registry"]"#), "{message}");
    assert!(
        message.contains(" cs6=prod-eu cs6Label=cluster ") && message.contains(" pullwatchTeam=registry "),
        "{message}"
    );

    for (labels, message) in [
        ("{actor: x}", "reserved"),
        ("{severity: x}", "reserved"),
        ("{a-b: x}", "invalid label name"),
        ("{a: ''}", "invalid value"),
        ("{sink: x}\nmetrics: {labels: true}", "have a label"),
    ] {
        let config = write("bad.yaml", &format!("labels: {labels}\n"));
        let output = pullwatch().args(["config", "check"]).arg(config).output().unwrap();
        let said = common::said(&output) + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(message), "{labels}: {said}");
    }
}
