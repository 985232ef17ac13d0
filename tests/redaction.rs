//! Secrets never leave pullwatch: markers are planted wherever an event can hold a secret, and all outputs are searched for them,
//! plain, in base64 and escaped.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{alerts, free_port, pullwatch, scan};
use serde_json::{Value, json};

/// Hands out markers, each once.
#[derive(Default)]
struct Markers(Vec<String>);

impl Markers {
    fn next(&mut self) -> String {
        // Long enough that no spelling below is as short as a part of a hash.
        let marker = format!("loot{:04}lootlootloot", self.0.len());
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

/// An event of each kind of object and place that has leaked once, or could: environments of every shape, charts and applications,
/// text in other formats, annotations of tools, messages, command lines, patches of every type, URIs, names.
fn more_events(markers: &mut Markers) -> Vec<Value> {
    let template = |id: usize, verb: &str, resource: &str, request: Value, response: Value| {
        json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": format!("m{id}"),
            "stage": "ResponseComplete", "requestURI": "/apis/example.com/v1/x", "verb": verb, "user": {"username": "mallory"},
            "sourceIPs": ["192.0.2.1"], "objectRef": {"resource": resource, "namespace": "prod", "name": "x"},
            "responseStatus": {"code": 200}, "requestObject": request, "responseObject": response,
            "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z", "stageTimestamp": "2026-01-01T00:00:00.000001Z"})
    };
    let mut bodies = vec![
        (
            "helmreleases",
            json!({"kind": "HelmRelease", "spec": {"values": {"env": {"DB_PASS": markers.next(), "password": markers.next()},
            "extraEnv": [{"name": "P", "value": markers.next()}], "registryPassword": markers.next(), "client_secret": markers.next(),
            "access_token": markers.next(), "AWS_SECRET_ACCESS_KEY": markers.next(), "list": [markers.next(), {"deep": [[markers.next()]]}]}}}),
        ),
        (
            "applications",
            json!({"kind": "Application", "spec": {"source": {"repoURL": format!("https://bot:{}@git.example.com/x", markers.next()),
            "helm": {"values": format!("password: {}\nnested:\n  token: {}\n", markers.next(), markers.next()),
                "parameters": [{"name": "p", "value": markers.next()}], "valuesObject": {"x": markers.next()}},
            "plugin": {"env": [{"name": "X", "value": markers.next()}]}, "kustomize": {"patches": [{"patch": markers.next()}]}}}}),
        ),
        (
            "pods",
            json!({"kind": "Pod", "spec": {"containers": [{"name": "c", "image": format!("bot:{}@registry.example.com/x", markers.next()),
            "command": ["sh", "-c", format!("curl -H 'Authorization: {}'", markers.next())], "args": [format!("--token={}", markers.next())],
            "env": [format!("PASSWORD={}", markers.next())], "lifecycle": {"postStart": {"exec": {"command": [markers.next()]}}},
            "livenessProbe": {"httpGet": {"path": format!("/x?key={}", markers.next()), "httpHeaders": [{"name": "A", "value": markers.next()}]}}}],
            "volumes": [{"name": "v", "flexVolume": {"options": {"x": markers.next()}}, "csi": {"driver": "d", "volumeAttributes": {"x": markers.next()}}}],
            "hostAliases": [{"hostnames": [markers.next()]}]}}),
        ),
        (
            "pods",
            json!({"kind": "Pod", "spec": {"containers": [{"env": {"A": markers.next()}}], "initContainers": {"env": [[markers.next()]]}}}),
        ),
        (
            "routes",
            json!({"kind": "Route", "spec": {"tls": {"key": markers.next(), "certificate": markers.next()}},
            "metadata": {"annotations": {"openshift.io/token-secret.value": markers.next(), "kapp.k14s.io/original": json!({"data": {"x": markers.next()}}).to_string(),
                "objectset.rio.cattle.io/applied": markers.next(), "example.com/x": markers.next()},
                "managedFields": [{"fieldsV1": {"f:spec": {format!("v:\"{}\"", markers.next()): {}}}}]}}),
        ),
        (
            "databases",
            json!({"apiVersion": "example.com/v1", "kind": "Database", "spec": {"connectionString": format!("postgres://u:{}@h/d", markers.next()),
            "users": {"a": {"credential": markers.next()}}, "items": [markers.next()], "data": [markers.next()], "config": json!({"a": markers.next()}).to_string()},
            "status": {"message": markers.next(), "conditions": [{"type": "Ready", "message": markers.next()}], "adminKey": markers.next()},
            "extra": markers.next(), "encoded": markers.encoded()}),
        ),
        (
            "secrets",
            json!({"kind": "Status", "status": "Failure", "message": format!("cannot be handled: {{\"x\":\"{}\"}}", markers.next()),
            "details": {"causes": [{"reason": "Invalid", "message": markers.next(), "field": "data"}]}}),
        ),
        ("secrets", json!(json!({"data": {"x": markers.next()}}).to_string())),
        ("secrets", json!([markers.next(), {"data": markers.next()}, [markers.next()]])),
        ("events", json!({"kind": "Event", "message": markers.next(), "note": markers.next()})),
        (
            "certificatesigningrequests",
            json!({"kind": "CertificateSigningRequest", "spec": {"request": markers.encoded()}, "status": {"certificate": markers.encoded()}}),
        ),
        (
            "webhooks",
            json!({"kind": "MutatingWebhookConfiguration", "webhooks": [{"name": "w", "clientConfig": {"url": format!("https://x/?k={}", markers.next()), "caBundle": markers.encoded()}}]}),
        ),
        (
            "tables",
            json!({"kind": "Table", "columnDefinitions": [{"name": "A", "description": markers.next()}], "rows": [{"cells": [markers.next(), [markers.next()]], "object": {"spec": {"x": markers.next()}}}]}),
        ),
        (
            "configmaps",
            json!({"kind": "ConfigMap", "data": {"app.yaml": format!("password: {}", markers.next())}, "binaryData": {"x": markers.encoded()}}),
        ),
        (
            "x",
            json!({"auths": {format!("https://ghcr.io/v2?token={}", markers.next()): {"auth": markers.next()}}}),
        ),
        // Patches: JSON patches of every depth, merge and strategic patches, server-side apply.
        (
            "deployments",
            json!([
            {"op": "add", "path": "/spec/template/spec/containers/0/env/0/value", "value": markers.next()},
            {"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "c", "image": "nginx", "env": [{"name": "A", "value": markers.next()}], "args": [markers.next()]}},
            {"op": "add", "path": "/spec/template/spec/containers/0/args/0", "value": markers.next()},
            {"op": "test", "path": "/metadata/annotations/example.com~1x", "value": markers.next()},
            {"op": "replace", "path": "", "value": {"data": {"x": markers.next()}, "spec": {"x": markers.next()}}},
            {"op": "add", "path": "/metadata/labels/a", "path": "/data/x", "value": markers.next()},
            {"op": "add", "path": format!("/data/{}?", markers.next()), "value": "x"}]),
        ),
        (
            "deployments",
            json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "c"}], "containers": [{"name": "c", "$patch": "merge",
            "env": [{"name": "A", "value": markers.next()}, {"$patch": "delete", "name": "B", "value": markers.next()}]}]}}}}),
        ),
        (
            "configmaps",
            json!({"data": {"x": markers.next()}, "metadata": {"annotations": {"x": markers.next()}}}),
        ),
        (
            "deployments",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "managedFields": null},
            "spec": {"x": markers.next(), "template": {"metadata": {"annotations": {"x": markers.next()}}}}}),
        ),
    ];
    let twice =
        format!("{{\"kind\":\"ConfigMap\",\"kind\":\"Secret\",\"data\":{{\"x\":\"{}\"}}}}", markers.next());
    bodies.push(("secrets", serde_json::from_str(&twice).unwrap()));
    let mut events: Vec<Value> = Vec::new();
    for (resource, body) in bodies {
        let verb = if body.is_array() { "patch" } else { "create" };
        events.push(template(events.len(), verb, resource, body.clone(), Value::Null));
        events.push(template(events.len(), "get", resource, Value::Null, body));
    }
    for query in [
        "private_token=M",
        "X-Amz-Signature=M",
        "sig=M",
        "token[]=M",
        "token%5B%5D=M",
        "command=sh&command=-c&command=M",
        "M",
        "%4d=1&limit=M",
        "fieldSelector=a%3bM",
        "continue=M",
        "limit=1;x=M",
        "watch=M",
        "x=1#M",
        "a=b?c=M",
        "command=M",
        "M%20=1",
        "dryRun=M+x",
    ] {
        let mut event = template(events.len(), "connect", "pods", Value::Null, Value::Null);
        event["requestURI"] =
            json!(format!("/api/v1/namespaces/p/pods/x/exec?{}", query.replace('M', &markers.next())));
        events.push(event);
    }
    let mut token = || format!("ghp_{}ABCDEF0123", markers.next());
    let mut names = template(events.len(), "list", "secrets", Value::Null, Value::Null);
    names["user"] = json!({"username": token(), "groups": ["a", token()], "uid": token(), "extra": {"a": [token()], token(): ["b"]}});
    names["impersonatedUser"] = json!({"username": token(), "groups": [token()]});
    names["requestURI"] =
        json!(format!("/api/v1/namespaces/x/services/y/proxy/{}?{}={}", token(), token(), token()));
    names["requestObject"] = json!({"kind": "RoleBinding", "subjects": [{"kind": "User", "name": token()}], "metadata": {"labels": {"a": token()}, "name": token()}});
    names["annotations"] = json!({"example.com/x": token(), "authentication.openshift.io/username": token()});
    names["responseStatus"] =
        json!({"code": 400, "message": token(), "details": {"causes": [{"message": token()}]}});
    names["unknownMember"] = json!(token());
    // Such as a command line whose arguments are in another order than was meant.
    names["userAgent"] = json!(format!("curl/8 {}", token()));
    names["auditID"] = json!(token());
    names["sourceIPs"] = json!([token(), "192.0.2.1"]);
    names["objectRef"] =
        json!({"resource": "secrets", "namespace": token(), "name": token(), "uid": token()});
    events.push(names);
    let mut agent = template(events.len(), "get", "secrets", Value::Null, Value::Null);
    agent["userAgent"] = json!(format!("x (authorization: bearer {})", markers.next()));
    events.push(agent);
    let login = STANDARD.encode(format!("{}:x-oauth-basic", markers.next()));
    let empty = STANDARD.encode(format!("{}:", markers.next()));
    let docker = json!({"auths": {format!("https://ghcr.io/v2?token={}", markers.next()): {"auth": login}, "quay.io": {"auth": empty},
        format!("bot:{}@docker.io", markers.next()): {"username": format!("ghp_{}ABCDEF0123", markers.next()), "password": markers.next()}}});
    let secret = json!({"kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "metadata": {"name": "regcred", "namespace": "prod"},
        "data": {".dockerconfigjson": STANDARD.encode(docker.to_string())}});
    events.push(template(events.len(), "get", "secrets", Value::Null, secret));
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
    %ka.req.pod.containers.command %ka.req.pod.containers.args %ka.req.pod.containers.image %ka.req.binding.subjects
    %ka.req.binding.subjects.user_names %ka.uri.param[command] %ka.uri.param[private_token] %ka.uri.param[limit] %ka.user.name %ka.user.groups
    %ka.impuser.name %audit.user.extra[a] %audit.user.uid %ka.req.pod.volumes.volume_type
    %jevt.value[/requestObject/spec] %jevt.value[/requestObject/spec/values/env/DB_PASS] %jevt.value[/responseStatus]
    %jevt.value[/responseStatus/message] %jevt.value[/user] %jevt.value[/unknownMember] %jevt.value[/requestObject/2/value]
    %concat(jevt.value[/requestObject/stringData/password], ka.verb) %registry.secrets %registry.hosts %registry.usernames
    %registry.copied %registry.referenced %audit.actor %audit.client %ka.useragent %ka.sourceips %ka.auditid %ka.target.name %ka.target.namespace
  priority: INFO
";

#[test]
fn no_secret_leaves() {
    let mut markers = Markers::default();
    let mut events = events(&mut markers);
    events.extend(more_events(&mut markers));
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
    }
    for event in events.iter().filter(|event| event["objectRef"]["resource"] == "configmaps") {
        run(&["rules", "explain", "--rule", "Registry Credential Copied", &event.to_string()]);
    }
    let found = scan(&["--rules", &all, &log]);
    assert_eq!(alerts(&found).len(), events.len(), "{}", common::said(&found));
    let spellings = AhoCorasick::new(&spellings).unwrap();
    for text in said {
        assert_clean(&text, &spellings);
    }
}

/// Fails if a marker is in an output, in any spelling.
fn assert_clean(output: &[u8], spellings: &AhoCorasick) {
    if let Some(found) = spellings.find(output) {
        let around = &output[found.start().saturating_sub(200)..(found.end() + 200).min(output.len())];
        panic!("a marker left: {}", String::from_utf8_lossy(around));
    }
}

/// A receiver over HTTP; `answer` returns the status and the body for the body of a request. Returns its port and what it receives.
fn http_receiver(answer: fn(&[u8]) -> (&'static str, String)) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = Arc::new(Mutex::new(Vec::new()));
    let all = received.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, all) = (std::io::BufReader::new(stream.unwrap()), all.clone());
            std::thread::spawn(move || {
                loop {
                    let mut length = 0;
                    loop {
                        let mut line = String::new();
                        if stream.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        all.lock().unwrap().extend_from_slice(line.as_bytes());
                        if line == "\r\n" {
                            break;
                        }
                        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                    }
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).unwrap();
                    all.lock().unwrap().extend_from_slice(&body);
                    let (status, body) = answer(&body);
                    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                    stream.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
                }
            });
        }
    });
    (port, received)
}

/// Refuses all alerts, so that they become dead letters.
fn refusal(_: &[u8]) -> (&'static str, String) {
    ("400 Bad Request", String::new())
}

/// Accepts all alerts as each product does: Elasticsearch answers for each item, Splunk with a code.
fn acceptance(body: &[u8]) -> (&'static str, String) {
    let items = body.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"{\"create\"")).count();
    let items = vec![r#"{"create":{"status":201}}"#; items].join(",");
    ("200 OK", format!("{{\"code\":0,\"errors\":false,\"items\":[{items}]}}"))
}

/// A receiver of datagrams.
fn datagram_receiver() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let received = Arc::new(Mutex::new(Vec::new()));
    let all = received.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok(length) = socket.recv(&mut buffer) {
            all.lock().unwrap().extend_from_slice(&buffer[..length]);
        }
    });
    (port, received)
}

/// Sends a GET request; returns what arrives until the end, or until the last of these parts: a stream does not end by itself.
fn get(port: u16, path: &str, last: Option<&str>) -> Vec<u8> {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return Vec::new() };
    stream.set_read_timeout(Some(common::WAIT_TIMEOUT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 65536]);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..length]);
        if last.is_some_and(|last| memchr::memmem::find(&answer, last.as_bytes()).is_some()) {
            break;
        }
    }
    answer
}

#[test]
fn no_secret_leaves_the_daemon() {
    let mut markers = Markers::default();
    let mut events = events(&mut markers);
    events.extend(more_events(&mut markers));
    let spellings = markers.spellings();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let lines: Vec<String> = events.iter().map(|event| format!("{event}\n")).collect();
    fs::write(path("audit.log"), lines.concat()).unwrap();
    fs::write(path("all.yaml"), format!("{EVERYTHING}{GROUPED}")).unwrap();
    let (http, posted) = http_receiver(refusal);
    let (udp, datagrams) = datagram_receiver();
    let port = free_port();
    let syslog = |format: &str| {
        format!(
            "{{type: syslog, name: syslog-{format}, address: 'udp://127.0.0.1:{udp}', format: {format}, max_message: 60K}}"
        )
    };
    let (products, sent) = http_receiver(acceptance);
    let url = format!("http://127.0.0.1:{products}");
    let receivers = [
        format!("{{type: loki, name: loki, url: '{url}/loki/api/v1/push', gzip: false, format: falco}}"),
        format!("{{type: alertmanager, name: alertmanager, urls: ['{url}']}}"),
        format!("{{type: elasticsearch, name: elasticsearch, url: '{url}'}}"),
        format!("{{type: splunk_hec, name: splunk, url: '{url}', token: t}}"),
        format!("{{type: otlp, name: otlp, url: '{url}/v1/logs'}}"),
        format!("{{type: http, name: slack, url: '{url}/slack', body: {{template: slack}}}}"),
        format!(
            "{{type: http, name: pagerduty, url: '{url}/pd', body: {{template: pagerduty, values: {{routing_key: r}}}}}}"
        ),
        format!("{{type: file, name: ecs, path: {}, format: ecs}}", path("ecs.jsonl")),
        format!("{{type: file, name: ocsf, path: {}, format: ocsf}}", path("ocsf.jsonl")),
    ]
    .map(|sink| format!("  - {sink}\n"));
    let config = format!(
        "sources: [{{type: file, name: log, poll: 200ms, paths: [{}]}}]\nrules: [{}, {}]\nstate_dir: {}\nserver: {{listen: 127.0.0.1:{port}}}\nsinks:\n  - {{type: file, name: json, path: {}, format: json}}\n  - {{type: file, name: text, path: {}, format: text}}\n  - {{type: file, name: events, path: {}, events: {{rules: '*'}}}}\n  - {{type: http, name: http, url: 'http://127.0.0.1:{http}/', body: alert, retry: {{max_refusals: 0}}}}\n  - {}\n  - {}\n  - {}\n{}",
        path("audit.log"),
        path("all.yaml"),
        common::project("rules.d").display(),
        path("state"),
        path("alerts.jsonl"),
        path("alerts.txt"),
        path("events.jsonl"),
        syslog("json"),
        syslog("cef"),
        syslog("text"),
        receivers.concat(),
    );
    fs::write(path("pullwatch.yaml"), config).unwrap();
    // Not beside the log that is followed: at trace level, its directory's changes would be logged to it.
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("stderr");
    let mut child = pullwatch()
        .args(["run", "-vv", "--config", &path("pullwatch.yaml")])
        .env("PULLWATCH_LOG", "trace")
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let dead_letters = folder.path().join("state/dead-letters.jsonl");
    let count = |file: &Path| fs::read(file).map_or(0, |text| text.split(|&byte| byte == b'\n').count() - 1);
    let deadline = Instant::now() + common::WAIT_TIMEOUT;
    let has_all = |name: &str| count(Path::new(&path(name))) >= events.len();
    while count(&dead_letters) < events.len() || !has_all("alerts.jsonl") || !has_all("events.jsonl") {
        assert!(
            Instant::now() < deadline && child.try_wait().unwrap().is_none(),
            "{}",
            fs::read_to_string(&log).unwrap()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let backlog = |sink: &str| format!("pullwatch_sink_backlog_alerts{{sink=\"{sink}\"}} 0\n");
    let names =
        ["loki", "alertmanager", "elasticsearch", "splunk", "otlp", "slack", "pagerduty", "ecs", "ocsf"];
    common::wait_for("each receiver has all alerts", || {
        let metrics = String::from_utf8(get(port, "/metrics", None)).unwrap();
        names.iter().all(|name| metrics.contains(&backlog(name)))
    });
    let mut outputs: Vec<Vec<u8>> = [
        "/metrics",
        "/readyz",
        "/healthz",
        "/",
        "/api/v1/alerts?limit=1000",
        "/api/v1/exposures",
        "/api/v1/status",
    ]
    .iter()
    .map(|request| get(port, request, None))
    .collect();
    let newest = String::from_utf8_lossy(&get(port, "/api/v1/alerts?limit=1", None)).into_owned();
    let newest: Value = serde_json::from_str(newest.split_once("\r\n\r\n").unwrap().1).unwrap();
    let last = format!("id: {}\n", newest["alerts"][0]["seq"]);
    outputs.push(get(port, "/api/v1/alerts/stream?after=0", Some(&last)));
    assert!(memchr::memmem::find(outputs.last().unwrap(), last.as_bytes()).is_some());
    assert!(outputs.iter().all(|answer| answer.starts_with(b"HTTP/1.1 200")));
    let status = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(status.success() && child.wait().unwrap().success());
    outputs.push(posted.lock().unwrap().clone());
    outputs.push(datagrams.lock().unwrap().clone());
    outputs.push(sent.lock().unwrap().clone());
    assert!(outputs.iter().all(|output| !output.is_empty()));
    let mut files = vec![
        log,
        path("alerts.jsonl").into(),
        path("alerts.txt").into(),
        path("events.jsonl").into(),
        path("ecs.jsonl").into(),
        path("ocsf.jsonl").into(),
    ];
    files.extend(fs::read_dir(folder.path().join("state")).unwrap().map(|entry| entry.unwrap().path()));
    assert!(files.iter().any(|file: &PathBuf| file.ends_with("pullwatch.db")));
    outputs.extend(files.iter().map(|file| fs::read(file).unwrap()));
    for arguments in [["list", "--format", "json"], ["list", "--format", "table"]] {
        let state = path("state");
        outputs.push(
            pullwatch().arg("alerts").args(arguments).args(["--state-dir", &state]).output().unwrap().stdout,
        );
    }
    let spellings = AhoCorasick::new(&spellings).unwrap();
    for output in outputs {
        assert_clean(&output, &spellings);
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
    use pullwatch::internals::detection::detector::{Detector, Options, repartition::Settings};
    use pullwatch::internals::detection::rules::{self, SourceFile};
    let mut markers = Markers::default();
    let mut events = events(&mut markers);
    events.extend(more_events(&mut markers));
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
