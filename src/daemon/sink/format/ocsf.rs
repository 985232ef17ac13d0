//! Renders alerts as Detection Findings of the Open Cybersecurity Schema Framework (class 2004).

use serde_json::{Map, Value, json};

use super::view::{View, set};
use crate::detection::alert::{Priority, StoredAlert};
use crate::detection::shorten;

/// Version of the schema.
const VERSION: &str = "1.8.0";

/// Returns the finding of an alert, on one line.
pub(crate) fn write(alert: &StoredAlert) -> Vec<u8> {
    let mut out = Vec::new();
    shorten::write(&finding(&View::new(alert)), &mut out);
    out
}

/// Severity, from 1 (informational) to 6 (fatal).
fn severity(priority: Priority) -> (u8, &'static str) {
    match priority {
        Priority::Emergency => (6, "Fatal"),
        Priority::Alert | Priority::Critical => (5, "Critical"),
        Priority::Error => (4, "High"),
        Priority::Warning => (3, "Medium"),
        Priority::Notice => (2, "Low"),
        Priority::Informational | Priority::Debug => (1, "Informational"),
    }
}

fn finding(view: &View<'_>) -> Value {
    let alert = view.alert;
    let (severity_id, severity) = severity(alert.priority);
    let milliseconds = |nanos: i64| nanos / 1_000_000;
    let time = if alert.time == 0 { alert.stored } else { alert.time };
    let mut finding = Map::new();
    for (name, value) in [
        ("activity_id", json!(1)),
        ("activity_name", "Create".into()),
        ("category_uid", json!(2)),
        ("category_name", "Findings".into()),
        ("class_uid", json!(2004)),
        ("class_name", "Detection Finding".into()),
        ("type_uid", json!(200_401)),
        ("type_name", "Detection Finding: Create".into()),
        ("time", milliseconds(time).into()),
        ("severity_id", severity_id.into()),
        ("severity", severity.into()),
        ("status_id", json!(1)),
        ("status", "New".into()),
        ("is_alert", true.into()),
        ("message", alert.message.trim().into()),
        ("count", view.value("/correlation/count")),
        ("metadata", metadata(view, milliseconds(alert.stored))),
        ("finding_info", info(view, milliseconds(time))),
        ("resources", resources(view).into()),
        ("evidences", json!([evidence(view)])),
        ("unmapped", unmapped(view)),
    ] {
        set(&mut finding, name, value);
    }
    finding.into()
}

fn metadata(view: &View<'_>, stored: i64) -> Value {
    let mut metadata = Map::new();
    set(&mut metadata, "version", VERSION.into());
    set(
        &mut metadata,
        "product",
        json!({"name": "pullwatch", "vendor_name": "pullwatch", "version": env!("CARGO_PKG_VERSION")}),
    );
    set(&mut metadata, "uid", view.id.clone().into());
    set(&mut metadata, "logged_time", stored.into());
    set(&mut metadata, "log_name", "k8s_audit".into());
    set(&mut metadata, "log_provider", view.text("/hostname"));
    set(&mut metadata, "original_event_uid", view.text("/event/auditID"));
    set(&mut metadata, "is_truncated", view.value("/shortened"));
    let labels: Vec<Value> =
        view.fields.labels().map(|(name, value)| format!("{name}:{value}").into()).collect();
    set(&mut metadata, "labels", labels.into());
    metadata.into()
}

fn info(view: &View<'_>, time: i64) -> Value {
    let mut info = Map::new();
    set(&mut info, "uid", view.id.clone().into());
    set(&mut info, "title", view.alert.rule.clone().into());
    set(&mut info, "desc", view.alert.message.trim().into());
    set(&mut info, "created_time", time.into());
    set(&mut info, "analytic", json!({"name": view.alert.rule, "type_id": 1, "type": "Rule"}));
    set(&mut info, "data_sources", json!(["kubernetes audit"]));
    set(&mut info, "types", view.tags().into());
    let attacks: Vec<Value> = view
        .techniques()
        .into_iter()
        .map(|id| match id.split_once('.') {
            Some((technique, _)) => json!({"technique": {"uid": technique}, "sub_technique": {"uid": id}}),
            None => json!({"technique": {"uid": id}}),
        })
        .collect();
    set(&mut info, "attacks", attacks.into());
    info.into()
}

/// The object of the request, the credentials that it exposed, and the registries to rotate.
fn resources(view: &View<'_>) -> Vec<Value> {
    let mut all = Vec::new();
    let mut object = Map::new();
    set(&mut object, "type", view.text("/event/objectRef/resource"));
    set(&mut object, "name", view.text("/event/objectRef/name"));
    set(&mut object, "namespace", view.text("/event/objectRef/namespace"));
    if !object.is_empty() {
        all.push(object.into());
    }
    for secret in view.list("/registry/secrets") {
        let (namespace, name) = secret.split_once('/').unwrap_or(("", secret));
        let mut credential = Map::new();
        set(&mut credential, "type", "registry credential".into());
        set(&mut credential, "name", name.into());
        if !namespace.is_empty() {
            set(&mut credential, "namespace", namespace.into());
        }
        all.push(credential.into());
    }
    all.extend(view.list("/registry/hosts").map(|host| json!({"type": "registry", "name": host})));
    all
}

fn evidence(view: &View<'_>) -> Value {
    let mut user = Map::new();
    set(&mut user, "name", view.text("/event/user/username"));
    set(&mut user, "uid", view.text("/event/user/uid"));
    let groups: Vec<Value> = view.list("/event/user/groups").map(|name| json!({"name": name})).collect();
    set(&mut user, "groups", groups.into());
    if user.is_empty() {
        set(&mut user, "name", view.alert.actor.clone().into());
    }
    let mut api = Map::new();
    set(&mut api, "operation", view.value("/event/verb"));
    if api.is_empty() {
        set(&mut api, "operation", "unknown".into());
    }
    set(&mut api, "version", view.text("/event/objectRef/apiVersion"));
    set(&mut api, "response", view.value("/event/code").as_i64().map(|code| json!({"code": code})).into());
    let mut evidence = Map::new();
    set(&mut evidence, "actor", json!({"user": user}));
    set(
        &mut evidence,
        "user",
        view.text("/event/impersonatedUser/username").as_str().map(|name| json!({"name": name})).into(),
    );
    set(&mut evidence, "api", api.into());
    set(&mut evidence, "src_endpoint", view.client().map(|ip| json!({"ip": ip})).into());
    let mut request = Map::new();
    set(&mut request, "user_agent", view.text("/event/userAgent"));
    if !request.is_empty() {
        set(&mut evidence, "http_request", request.into());
    }
    evidence.into()
}

/// Data without an attribute in the schema.
fn unmapped(view: &View<'_>) -> Value {
    let mut unmapped = Map::new();
    for (name, path) in [
        ("exposure", "/exposure"),
        ("credential", "/credential"),
        ("registry_host", "/registry_host"),
        ("scope", "/registry/scope"),
        ("registry_usernames", "/registry/usernames"),
        ("request_uri", "/event/requestURI"),
        ("subresource", "/event/objectRef/subresource"),
        ("rule_set", "/rule_set"),
        ("correlation", "/correlation"),
    ] {
        set(&mut unmapped, name, view.value(path));
    }
    unmapped.into()
}
