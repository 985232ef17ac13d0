//! Renders alerts in the Elastic Common Schema, version 8.

use serde_json::{Map, Value, json};

use super::view::{View, set};
use crate::detection::alert::StoredAlert;
use crate::detection::shorten;

/// Version of the schema, which contains all fields used here.
const VERSION: &str = "8.17.0";

/// Returns the document of an alert, on one line.
pub(crate) fn write(alert: &StoredAlert) -> Vec<u8> {
    let mut out = Vec::new();
    shorten::write(&document(&View::new(alert)), &mut out);
    out
}

fn document(view: &View<'_>) -> Value {
    let alert = view.alert;
    let mut document = Map::new();
    let mut put = |path: &str, value: Value| set(&mut document, path, value);
    put("@timestamp", view.time().into());
    put("message", alert.message.trim().into());
    put("ecs.version", VERSION.into());
    put("tags", view.tags().into());
    put("event.kind", "alert".into());
    put("event.category", json!(["iam"]));
    put("event.type", json!([if view.is_allowed() { "info" } else { "denied" }]));
    put("event.action", view.text("/event/verb"));
    put("event.outcome", view.outcome().into());
    put("event.severity", view.severity().into());
    put("event.id", view.id.clone().into());
    put("event.dataset", "pullwatch.alert".into());
    put("event.module", "pullwatch".into());
    put("event.provider", "k8s_audit".into());
    put("event.created", view.stored().into());
    put("rule.name", alert.rule.clone().into());
    put("rule.ruleset", view.text("/rule_set"));
    let user = view.text("/event/user/username");
    put("user.name", user.clone());
    put("user.id", view.text("/event/user/uid"));
    put("user.effective.name", view.text("/event/impersonatedUser/username"));
    put("user_agent.original", view.text("/event/userAgent"));
    put("source.ip", view.client().into());
    put("http.response.status_code", view.value("/event/code"));
    put("url.original", view.text("/event/requestURI"));
    put("orchestrator.type", "kubernetes".into());
    put("orchestrator.cluster.name", view.text("/cluster"));
    put("orchestrator.namespace", view.text("/namespace"));
    put("orchestrator.resource.type", view.text("/event/objectRef/resource"));
    put("orchestrator.resource.name", view.text("/event/objectRef/name"));
    put("orchestrator.api_version", view.text("/event/objectRef/apiVersion"));
    let techniques = view.techniques();
    if !techniques.is_empty() {
        put("threat.framework", "MITRE ATT&CK".into());
        let (sub, main): (Vec<&str>, Vec<&str>) = techniques.iter().partition(|id| id.contains('.'));
        let mut ids: Vec<&str> = main;
        ids.extend(sub.iter().filter_map(|id| id.split_once('.')).map(|(id, _)| id));
        ids.sort_unstable();
        ids.dedup();
        put("threat.technique.id", ids.into());
        put("threat.technique.subtechnique.id", sub.into());
    }
    let users: Vec<Value> = [user, view.text("/event/impersonatedUser/username")]
        .into_iter()
        .filter(|user| !user.is_null())
        .collect();
    put("related.user", users.into());
    put("related.ip", view.client().map(|ip| vec![ip]).into());
    put("related.hosts", view.value("/registry/hosts"));
    put("observer.vendor", "pullwatch".into());
    put("observer.product", "pullwatch".into());
    put("observer.version", env!("CARGO_PKG_VERSION").into());
    put("observer.hostname", view.text("/hostname"));
    for (name, value) in view.fields.labels() {
        set_label(&mut document, name, value);
    }
    // Data without a field in the schema.
    let mut own = Map::new();
    for (name, path) in [
        ("priority", "/priority"),
        ("credential", "/credential"),
        ("registry_host", "/registry_host"),
        ("exposure", "/exposure"),
        ("registry", "/registry"),
        ("correlation", "/correlation"),
        ("audit_id", "/event/auditID"),
        ("subresource", "/event/objectRef/subresource"),
        ("groups", "/event/user/groups"),
        ("shortened", "/shortened"),
    ] {
        set(&mut own, name, view.value(path));
    }
    set(&mut own, "actor", alert.actor.clone().into());
    set(&mut own, "target", alert.target.clone().into());
    document.insert("pullwatch".to_owned(), own.into());
    document.into()
}

fn set_label(document: &mut Map<String, Value>, name: &str, value: &str) {
    let labels = document.entry("labels").or_insert_with(|| Map::new().into());
    if let Value::Object(labels) = labels {
        labels.insert(name.to_owned(), value.into());
    }
}
