//! Settings with which controllers copy secrets into other namespaces: annotations of secrets, and policies that generate copies.
//!
//! Takes a written secret or a Kyverno policy and returns the settings in it that request copies.

use std::collections::BTreeSet;

use super::patch::{Write, Written, last, writes};
use super::{RequestInfo, is, shown, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};

/// Annotations of Kubernetes Replicator, Reflector and Config Syncer (Kubed), on the copied secret or on its copy.
const ANNOTATIONS: [&str; 12] = [
    TO_NAMESPACES,
    "kubed.appscode.com/sync-contexts",
    "reflector.v1.k8s.emberstack.com/reflection-allowed",
    "reflector.v1.k8s.emberstack.com/reflection-allowed-namespaces",
    "reflector.v1.k8s.emberstack.com/reflection-auto-enabled",
    "reflector.v1.k8s.emberstack.com/reflection-auto-namespaces",
    "reflector.v1.k8s.emberstack.com/reflects",
    "replicator.v1.mittwald.de/replicate-from",
    "replicator.v1.mittwald.de/replicate-to",
    "replicator.v1.mittwald.de/replicate-to-matching",
    "replicator.v1.mittwald.de/replication-allowed",
    "replicator.v1.mittwald.de/replication-allowed-namespaces",
];

/// The label selector of the namespaces to which Config Syncer copies. An empty one selects all of them, and any other value those with a
/// matching label.
const TO_NAMESPACES: &str = "kubed.appscode.com/sync";

/// Maximum nesting of a policy that is searched.
const MAX_DEPTH: usize = 32;

/// Returns the settings in a written secret or policy that ask a controller to copy secrets: annotations as `key=value`, and `clone` for a
/// Kyverno rule.
pub(crate) fn replicated(event: &mut Event<'_>, request: &RequestInfo<'_>) -> Vec<String> {
    let is_policy = matches!(
        &*request.resource,
        "clusterpolicies" | "policies" | "generatingpolicies" | "namespacedgeneratingpolicies"
    );
    if !is_policy && !request.is_about_secrets() {
        return Vec::new();
    }
    let body = event.get(Member::RequestObject).or_else(|| event.get(Member::ResponseObject));
    let Some(body) = body else { return Vec::new() };
    let writes = writes(body);
    if is_policy {
        let is_found = writes.iter().any(|write| clones_secrets(write, &request.resource));
        return is_found.then(|| "clone".to_owned()).into_iter().collect();
    }
    let mut found = BTreeSet::new();
    for annotation in ANNOTATIONS {
        let path = ["metadata", "annotations", annotation];
        match writes.iter().filter_map(|write| write.at(&path)).next_back() {
            Some(Written::Value(value)) => {
                let is_off = |value: &str| matches!(value, "" | "false") && annotation != TO_NAMESPACES;
                let value = text(Some(value)).filter(|value| !is_off(value));
                found.extend(value.map(|value| format!("{annotation}={}", shown(value))));
            }
            Some(Written::Unknown) => {
                found.insert(format!("{annotation}=*"));
            }
            Some(Written::Removed) | None => {}
        }
    }
    found.into_iter().collect()
}

/// Returns whether what is written into a policy generates copies of secrets.
fn clones_secrets(write: &Write<'_>, resource: &str) -> bool {
    let Written::Value(value) = write.value else { return false };
    if resource.ends_with("generatingpolicies") {
        // A CEL expression names the resource.
        return memchr::memmem::find(value.bytes(), b"secrets").is_some();
    }
    let is_inside = |key: &str| write.path.iter().any(|part| **part == *key.as_bytes());
    if is_inside("generate") {
        // If a rule is only changed in part, the rest of it is unknown.
        return is_inside("clone") || is_inside("cloneList") || is_clone(value);
    }
    has_clone(value, MAX_DEPTH)
}

fn has_clone(value: Raw<'_>, depth: usize) -> bool {
    if depth == 0 {
        return true;
    }
    match value.kind() {
        Type::Object => value
            .members()
            .map_while(Result::ok)
            .any(|(key, member)| key.is("generate") && is_clone(member) || has_clone(member, depth - 1)),
        Type::Array => value.items().map_while(Result::ok).any(|item| has_clone(item, depth - 1)),
        Type::String | Type::Scalar => false,
    }
}

/// Returns whether the `generate` of a rule copies secrets.
fn is_clone(generate: Raw<'_>) -> bool {
    let is_single = is(last(generate, "kind"), "Secret") && last(generate, "clone").is_some();
    let kinds = last(generate, "cloneList").and_then(|list| last(list, "kinds"));
    let is_secret =
        |kind: Raw<'_>| text(Some(kind)).is_some_and(|kind| kind.ends_with("Secret") || kind.contains('*'));
    is_single
        || kinds.is_some_and(|kinds| kinds.items().map_while(Result::ok).any(is_secret))
        || last(generate, "foreach").is_some_and(|each| each.items().map_while(Result::ok).any(is_clone))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(resource: &str, verb: &str, body: &str) -> Vec<String> {
        let event = format!(
            r#"{{"verb":"{verb}","objectRef":{{"resource":"{resource}","name":"x"}},"requestObject":{body}}}"#
        );
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        replicated(&mut event, &request)
    }

    #[test]
    fn annotations_of_secrets_ask_for_copies() {
        let to = "replicator.v1.mittwald.de/replicate-to";
        let annotated =
            |key: &str, value: &str| format!(r#"{{"metadata":{{"annotations":{{"{key}":"{value}"}}}}}}"#);
        assert_eq!(of("secrets", "create", &annotated(to, "mallory")), [format!("{to}=mallory")]);
        let patch = r#"[{"op":"add","path":"/metadata/annotations/replicator.v1.mittwald.de~1replicate-to","value":"mallory"}]"#;
        assert_eq!(of("secrets", "patch", patch), [format!("{to}=mallory")]);
        let copied = r#"[{"op":"copy","from":"/metadata/name","path":"/metadata/annotations/replicator.v1.mittwald.de~1replicate-to"}]"#;
        assert_eq!(of("secrets", "patch", copied), [format!("{to}=*")]);
        assert!(of("secrets", "create", &annotated(to, "")).is_empty());
        for selector in ["", "false", "app=kubed"] {
            let copied = annotated("kubed.appscode.com/sync", selector);
            assert_eq!(of("secrets", "create", &copied), [format!("kubed.appscode.com/sync={selector}")]);
        }
        assert!(
            of(
                "secrets",
                "create",
                &annotated("reflector.v1.k8s.emberstack.com/reflection-allowed", "false")
            )
            .is_empty()
        );
        assert!(of("configmaps", "create", &annotated(to, "mallory")).is_empty());
        assert!(of("secrets", "create", &annotated("example.com/replicate-to", "a")).is_empty());
    }

    #[test]
    fn policies_that_generate_copies_of_secrets_are_found() {
        let policy = |generate: &str| {
            format!(r#"{{"spec":{{"rules":[{{"name":"a"}},{{"name":"b","generate":{generate}}}]}}}}"#)
        };
        let clone = r#"{"kind":"Secret","name":"x","clone":{"namespace":"prod","name":"regcred"}}"#;
        let list =
            r#"{"namespace":"x","cloneList":{"namespace":"prod","kinds":["v1/Secret","v1/ConfigMap"]}}"#;
        for generate in [clone.to_owned(), list.to_owned(), format!(r#"{{"foreach":[{clone}]}}"#)] {
            assert_eq!(of("clusterpolicies", "create", &policy(&generate)), ["clone"], "{generate}");
        }
        let patch = |path: &str, value: &str| format!(r#"[{{"op":"add","path":"{path}","value":{value}}}]"#);
        assert_eq!(
            of("policies", "patch", &patch("/spec/rules/-", &format!(r#"{{"generate":{clone}}}"#))),
            ["clone"]
        );
        assert_eq!(
            of("policies", "patch", &patch("/spec/rules/0/generate/clone/name", r#""regcred""#)),
            ["clone"]
        );
        let cel =
            r#"{"spec":{"variables":[{"expression":"resource.Get('v1', 'secrets', 'prod', 'regcred')"}]}}"#;
        assert_eq!(of("generatingpolicies", "create", cel), ["clone"]);
        for other in [
            r#"{"kind":"ConfigMap","clone":{"name":"x"}}"#,
            r#"{"kind":"Secret","data":{"kind":"Secret"}}"#,
            r#"{"cloneList":{"kinds":["v1/ConfigMap"]}}"#,
        ] {
            assert!(of("clusterpolicies", "create", &policy(other)).is_empty(), "{other}");
        }
        assert!(of("policies", "patch", &patch("/spec/rules/0/validate/message", r#""clone""#)).is_empty());
    }
}
