//! Generates requests for secrets from bytes, renders them as an apiserver logs them, and checks that the detector reports
//! each one that handed over a registry credential according to the [model](super::apiserver).
//!
//! Used by `tests/evasion_model.rs` with random bytes, and by the fuzz target `evasion`.

use std::sync::OnceLock;

use pullwatch::Priority;
use pullwatch::internals::detection::detector::{Detector, Options, Session};
use pullwatch::internals::{detection::rules, shipped};
use serde_json::{Value, json};

use super::apiserver::{Accept, Answer, Form, Request, SECRETS, Secret, handle};

/// Choices made of bytes. When they are used up, the first alternative is chosen.
struct Choices<'b>(&'b [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.byte() % from.len()]
    }

    /// True in one of `n` cases.
    fn one_in(&mut self, n: usize) -> bool {
        self.byte() % n == n - 1
    }
}

/// How an audit policy logs a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Metadata,
    Request,
    RequestResponse,
}

const PARAMETERS: &[&str] = &[
    "",
    "watch=true",
    "watch=1",
    "watch=",
    "watch",
    "watch=false",
    "watch=0",
    "WATCH=true",
    "%77atch=true",
    "watch=%66alse",
    "fieldSelector=type%3DOpaque",
    "fieldSelector=type=Opaque",
    "fieldSelector=",
    "fieldSelector",
    "fieldSelector=type%21%3DOpaque",
    "fieldSelector=type!=kubernetes.io/dockerconfigjson",
    "fieldSelector=type%3D%3Dkubernetes.io%2Fdockerconfigjson",
    "fieldSelector=metadata.name%3Dprod-images",
    "fieldSelector=metadata.name%3Dapp",
    "fieldSelector=metadata.name=builder",
    "fieldSelector=metadata.name!=app",
    "fieldSelector=metadata.namespace%3Dstaging",
    "fieldSelector=metadata.namespace=production,metadata.name=prod-images",
    "fieldSelector=metadata.namespace!=kube-system",
    "fieldSelector=type%3DOpaque%zz",
    "x;fieldSelector=type%3DOpaque",
    "fieldSelector=type%3DOpaque;x",
    "%66ieldSelector=type%3DOpaque",
    "fieldSelector%00=type%3DOpaque",
    "FieldSelector=type%3DOpaque",
    "fieldSelector=,",
    "fieldSelector=,type!=Opaque,",
    "fieldSelector=type%3DOpa%5Cque",
    "fieldSelector=type%3Da%3Db",
    "fieldSelector=data.x=y",
    "fieldSelector=type%3D+Opaque",
    "labelSelector=",
    "labelSelector=app",
    "labelSelector=%21app",
    "labelSelector=app%3Dweb",
    "labelSelector=app!=web",
    "labelSelector=app+in+(web,api)",
    "labelSelector=app+notin+(web)",
    "labelSelector=app%3Dweb,tier!%3Dpull",
    "labelSelector=app=web,tier",
    "labelSelector=x!=y",
    "labelSelector=x=",
    "labelSelector=x%3Dy%zz",
    "x;labelSelector=x%3D",
    "limit=1",
    "limit=2",
    "limit=500",
    "limit=0",
    "limit=-1",
    "limit=",
    "limit=1;",
    "limit=%31",
    "resourceVersion=",
    "resourceVersion=0",
    "resourceVersion=77",
    "sendInitialEvents=true",
    "allowWatchBookmarks=true",
    "timeoutSeconds=300",
    "dryRun=All",
    "dryRun=all",
    "dryRun=",
    "dryRun=All;x",
    "dryRun=All%zz",
    "%64ryRun=All",
    "propagationPolicy=Foreground",
    "propagationPolicy=Orphan",
    "propagationPolicy=Background",
    "propagationPolicy=x",
    "gracePeriodSeconds=30",
    "fieldManager=x",
    "force=true",
    "includeObject=Object",
    "includeObject=None",
    "pretty=true",
    "as=x",
];

const PATCHES: &[(&str, &str)] = &[
    ("application/merge-patch+json", "{}"),
    ("application/json-patch+json", "[]"),
    ("application/strategic-merge-patch+json", r#"{"metadata":{"labels":{"a":"b"}}}"#),
    ("application/json-patch+json", r#"[{"op":"test","path":"/kind","value":"Secret"}]"#),
    (
        "application/apply-patch+yaml",
        r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"prod-images","namespace":"production"}}"#,
    ),
];

const DELETE_BODIES: &[&str] = &[
    "",
    r#"{"kind":"DeleteOptions","apiVersion":"v1"}"#,
    r#"{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"]}"#,
    r#"{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Foreground"}"#,
    r#"{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"],"propagationPolicy":"Orphan"}"#,
    r#"{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}"#,
    r#"{"propagationPolicy":"Foreground"}"#,
];

fn request(choices: &mut Choices<'_>) -> Request {
    let method = choices.pick(&["GET", "GET", "GET", "GET", "DELETE", "PATCH", "DELETE", "GET"]);
    let (namespace, name) = choices.pick(&[
        ("production", "prod-images"),
        ("production", ""),
        ("", ""),
        ("staging", "images"),
        ("staging", ""),
        ("production", "app"),
        ("staging", "builder"),
    ]);
    let mut path = String::from("/api/v1");
    if method == "GET" && choices.one_in(6) {
        path.push_str("/watch");
    }
    if !namespace.is_empty() {
        path.push_str("/namespaces/");
        path.push_str(namespace);
    }
    path.push_str("/secrets");
    if !name.is_empty() {
        path.push('/');
        path.push_str(name);
        if choices.one_in(16) {
            path.push_str("/status");
        }
    }
    if choices.one_in(8) {
        path.push('/');
    }
    if choices.one_in(4) {
        path = escaped(&path, choices);
    }
    for at in 0..choices.byte() % 5 {
        path.push(if at == 0 { '?' } else { '&' });
        path.push_str(choices.pick(PARAMETERS));
    }
    let (content_type, patch) = choices.pick(PATCHES);
    let body = match method {
        "PATCH" => patch,
        "DELETE" => choices.pick(DELETE_BODIES),
        _ => "",
    };
    Request {
        method,
        uri: path,
        accept: choices.pick(&[Accept::Json, Accept::Json, Accept::Table, Accept::PartialMetadata]),
        content_type,
        body: body.to_owned(),
        is_websocket: choices.one_in(3),
        is_authorized: !choices.one_in(12),
    }
}

/// Percent-encodes some characters behind `/api/`.
fn escaped(path: &str, choices: &mut Choices<'_>) -> String {
    let mut out = String::new();
    for (at, byte) in path.bytes().enumerate() {
        if at > 4 && choices.one_in(5) {
            // Writing to a String does not fail.
            let _ = std::fmt::Write::write_fmt(&mut out, format_args!("%{byte:02X}"));
        } else {
            out.push(char::from(byte));
        }
    }
    out
}

/// The metadata that an object has in answers.
fn metadata(secret: &Secret) -> Value {
    let labels: serde_json::Map<String, Value> =
        secret.labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    json!({"name": secret.name, "namespace": secret.namespace, "uid": "u", "resourceVersion": "7", "labels": labels})
}

fn object(secret: &Secret) -> Value {
    json!({
        "kind": "Secret", "apiVersion": "v1", "metadata": metadata(secret),
        "data": {secret.data.0: secret.data.1}, "type": secret.kind,
    })
}

/// The `responseObject` of an answer with data in it, or of one without.
fn response_object(answer: &Answer) -> Value {
    let secrets = &answer.handed_over;
    match answer.form {
        None => json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
        Some(Form::Object) => secrets.first().map(object).unwrap_or_default(),
        Some(Form::List) => {
            let items: Vec<Value> = secrets
                .iter()
                .map(|secret| {
                    json!({"metadata": metadata(secret), "data": {secret.data.0: secret.data.1}, "type": secret.kind})
                })
                .collect();
            json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": items})
        }
        Some(Form::Table { includes_objects }) => {
            let rows: Vec<Value> = secrets
                .iter()
                .filter(|_| includes_objects)
                .map(|secret| json!({"cells": [secret.name, secret.kind, 1, "5d"], "object": object(secret)}))
                .collect();
            json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": [], "rows": rows})
        }
        Some(Form::PartialMetadata { is_list: false }) => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "x"}})
        }
        Some(Form::PartialMetadata { is_list: true }) => {
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": []})
        }
    }
}

/// Renders one event as the apiserver writes it: members in its order, and escaped like Go's encoder does.
fn event(
    number: usize,
    stage: &str,
    level: Level,
    request: &Request,
    answer: &Answer,
    (user, impersonated): (&str, Option<&str>),
) -> String {
    let level_name = match level {
        Level::Metadata => "Metadata",
        Level::Request => "Request",
        Level::RequestResponse => "RequestResponse",
    };
    let info = &answer.info;
    let time = format!("2026-11-23T04:00:{:02}.{:06}Z", number / 10 % 60, number % 10);
    let mut members = vec![
        ("kind", json!("Event")),
        ("apiVersion", json!("audit.k8s.io/v1")),
        ("level", json!(level_name)),
        ("auditID", json!(format!("00000000-0000-4000-8000-{number:012}"))),
        ("stage", json!(stage)),
        ("requestURI", json!(request.uri)),
        ("verb", json!(info.verb)),
        ("user", json!({"username": user, "groups": ["system:authenticated"]})),
    ];
    if let Some(impersonated) = impersonated {
        members.push((
            "impersonatedUser",
            json!({"username": impersonated, "groups": ["system:authenticated"]}),
        ));
    }
    members.push(("sourceIPs", json!(["10.0.0.66"])));
    members.push(("userAgent", json!("client/1.0")));
    let mut reference = vec![("resource", json!(info.resource))];
    for (key, value) in [("namespace", &info.namespace), ("name", &info.name)] {
        if !value.is_empty() {
            reference.push((key, json!(value)));
        }
    }
    reference.push(("apiVersion", json!("v1")));
    if !info.subresource.is_empty() {
        reference.push(("subresource", json!(info.subresource)));
    }
    members.push(("objectRef", reference.into_iter().collect()));
    let status = if answer.code < 400 {
        json!({"metadata": {}, "code": answer.code})
    } else {
        json!({"metadata": {}, "status": "Failure", "reason": "x", "code": answer.code})
    };
    members.push(("responseStatus", status));
    if level != Level::Metadata && !request.body.is_empty() {
        members.push(("requestObject", serde_json::from_str(&request.body).unwrap_or_default()));
    }
    if level == Level::RequestResponse && !answer.is_long_running {
        let object = if answer.code < 400 {
            response_object(answer)
        } else {
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": answer.code})
        };
        members.push(("responseObject", object));
    }
    members.push(("requestReceivedTimestamp", json!(time)));
    members.push(("stageTimestamp", json!(time)));
    let decision = if request.is_authorized { "allow" } else { "forbid" };
    members.push(("annotations", json!({"authorization.k8s.io/decision": decision})));
    let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    let text = format!("{{{}}}\n", members.join(","));
    text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

fn detector() -> &'static Detector {
    static DETECTOR: OnceLock<Detector> = OnceLock::new();
    DETECTOR.get_or_init(|| {
        let loaded = rules::load(&shipped::files(), &rules::Options::default());
        assert!(!loaded.has_errors());
        Detector::new(&loaded.rules, Options::default())
    })
}

/// The rules of priority notice or higher that report an event.
fn alerts(session: &mut Session<'_>, event: &str) -> Vec<String> {
    let mut rules = Vec::new();
    session.chunk(event.as_bytes(), &mut |alert| {
        if alert.priority() <= Priority::Notice && !alert.rule_name().to_lowercase().contains("audit log") {
            rules.push(alert.rule_name().to_owned());
        }
    });
    rules
}

/// A request that handed over a registry credential without an alert.
#[derive(Debug)]
pub struct Evasion {
    /// What was handed over.
    pub secrets: Vec<String>,
    /// All events so far; the last ones are silent.
    pub log: String,
}

/// Up to four requests of an attacker, and a plain read of each credential that exists then. Returns the first one that
/// handed over a credential silently, otherwise the verbs of all that handed over one.
pub fn check(bytes: &[u8]) -> Result<Vec<String>, Evasion> {
    let mut choices = Choices(bytes);
    let mut session = detector().session();
    let mut log = String::new();
    let mut number = 0;
    // The credentials are known from their creation.
    for secret in &SECRETS {
        let create = Request {
            method: "POST",
            uri: format!("/api/v1/namespaces/{}/secrets", secret.namespace),
            accept: Accept::Json,
            content_type: "application/json",
            body: object(secret).to_string(),
            is_websocket: false,
            is_authorized: true,
        };
        let Some(mut answer) = handle(&create, &SECRETS) else { continue };
        secret.name.clone_into(&mut answer.info.name);
        answer.code = 201;
        answer.form = Some(Form::Object);
        answer.handed_over = vec![*secret];
        number += 1;
        let line = event(
            number,
            "ResponseComplete",
            Level::RequestResponse,
            &create,
            &answer,
            ("system:apiserver", None),
        );
        alerts(&mut session, &line);
        log.push_str(&line);
    }
    let mut secrets = SECRETS.to_vec();
    let mut verbs = Vec::new();
    for _ in 0..=choices.byte() % 4 {
        let request = request(&mut choices);
        let level = choices.pick(&[Level::Metadata, Level::Request, Level::RequestResponse]);
        let actor = choices.pick(&[
            ("mallory", None),
            ("system:serviceaccount:default:app", None),
            ("mallory", Some("bob")),
            ("system:anonymous", None),
            ("mallory", Some("system:serviceaccount:default:app")),
        ]);
        let stages = choices.pick(&[
            &["ResponseStarted", "ResponseComplete"][..],
            &["ResponseComplete"][..],
            &["ResponseStarted"][..],
        ]);
        number += 1;
        verbs.extend(step(&mut session, &mut log, number, (&request, level, actor, stages), &mut secrets)?);
    }
    for secret in secrets.clone().iter().filter(|secret| secret.is_credential()) {
        number += 1;
        let read = Request {
            method: "GET",
            uri: format!("/api/v1/namespaces/{}/secrets/{}", secret.namespace, secret.name),
            accept: Accept::Json,
            content_type: "",
            body: String::new(),
            is_websocket: false,
            is_authorized: true,
        };
        let what = (&read, Level::Metadata, ("oskar", None), &["ResponseComplete"][..]);
        step(&mut session, &mut log, number, what, &mut secrets)?;
    }
    Ok(verbs)
}

type Logged<'r> = (&'r Request, Level, (&'r str, Option<&'r str>), &'r [&'r str]);

/// Lets the detector see one request, and compares its alerts with the model. Returns the verb if it handed over a credential.
fn step(
    session: &mut Session<'_>,
    log: &mut String,
    number: usize,
    (request, level, actor, stages): Logged<'_>,
    secrets: &mut Vec<Secret>,
) -> Result<Option<String>, Evasion> {
    let Some(answer) = handle(request, secrets) else { return Ok(None) };
    let stages = if answer.is_long_running { stages } else { &["ResponseComplete"] };
    let mut rules = Vec::new();
    for stage in stages {
        let line = event(number, stage, level, request, &answer, actor);
        rules.extend(alerts(session, &line));
        log.push_str(&line);
    }
    let stolen: Vec<String> =
        answer.handed_over.iter().filter(|secret| secret.is_credential()).map(Secret::key).collect();
    let is_theft = answer.is_certain && answer.code < 400 && !stolen.is_empty();
    if is_theft && rules.is_empty() {
        return Err(Evasion { secrets: stolen, log: log.clone() });
    }
    secrets.retain(|secret| !answer.deleted.contains(secret));
    Ok(is_theft.then_some(answer.info.verb))
}
