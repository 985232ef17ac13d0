//! Which roles let read secrets, and who is bound to one.

use super::cluster_state::{ClusterState, object_name};
use super::{bodies, is, namespace_of, succeeded, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};

/// Cluster roles that every cluster has and that let read secrets (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy`).
const BUILT_IN: [(&str, &[&str]); 3] = [
    ("cluster-admin", &["*"]),
    ("admin", &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
    ("edit", &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
];

/// A role has at most so many verbs; the API has a dozen.
const MOST_VERBS: usize = 32;

/// The verbs on secrets that a role grants which is created or changed, or that the role grants which is bound, sorted.
pub fn granted_verbs(event: &mut Event<'_>, cluster_state: Option<&mut ClusterState>) -> Vec<String> {
    let object = event.object();
    if is(object.resource, "roles") || is(object.resource, "clusterroles") {
        return match body(event) {
            Some(body) => verbs_of(body),
            None => Vec::new(),
        };
    }
    let namespace = namespace_of(object);
    let Some(role) = body(event).and_then(|body| body.get("roleRef")) else { return Vec::new() };
    let Some(name) = text(role.get("name")) else { return Vec::new() };
    let is_cluster_role = is(role.get("kind"), "ClusterRole");
    if is_cluster_role && let Some((_, verbs)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        return verbs.iter().map(|verb| (*verb).to_owned()).collect();
    }
    let namespace = if is_cluster_role { "" } else { &namespace };
    cluster_state.and_then(|cluster_state| cluster_state.granted_by(namespace, &name)).unwrap_or_default()
}

/// The answer is the whole role, where the request may be a patch. A failed request has a `Status` for an answer.
fn body<'a>(event: &mut Event<'a>) -> Option<Raw<'a>> {
    bodies(event).find(|body| !is(body.get("kind"), "Status"))
}

/// The verbs on secrets in a role's rules; of a JSON patch in its values.
fn verbs_of(body: Raw<'_>) -> Vec<String> {
    let mut verbs = Vec::new();
    if body.kind() == Type::Array {
        for operation in body.items().map_while(Result::ok) {
            if let Some(value) = operation.get("value") {
                add_verbs(value, &mut verbs);
                value.items().map_while(Result::ok).for_each(|rule| add_verbs(rule, &mut verbs));
            }
        }
    }
    let rules = body.get("rules").into_iter().flat_map(Raw::items).map_while(Result::ok);
    rules.for_each(|rule| add_verbs(rule, &mut verbs));
    verbs.sort_unstable();
    verbs.dedup();
    verbs
}

fn add_verbs(rule: Raw<'_>, verbs: &mut Vec<String>) {
    let any = |key: &str, words: &[&str]| {
        rule.get(key)
            .into_iter()
            .flat_map(Raw::items)
            .map_while(Result::ok)
            .any(|item| words.iter().any(|word| is(Some(item), word)))
    };
    if !any("apiGroups", &["", "*"]) || !any("resources", &["secrets", "*"]) {
        return;
    }
    let granted = rule.get("verbs").into_iter().flat_map(Raw::items).map_while(Result::ok);
    for verb in granted.filter_map(|verb| text(Some(verb))) {
        if verbs.len() < MOST_VERBS && verb.len() < 32 {
            verbs.push(verb);
        }
    }
}

/// Learns what roles grant, from one or a list of them.
pub(super) fn learn(event: &mut Event<'_>, cluster_state: &mut ClusterState) {
    let object = event.object();
    let is_cluster_role = is(object.resource, "clusterroles");
    if !is_cluster_role && !is(object.resource, "roles") || !succeeded(event) {
        return;
    }
    let namespace = if is_cluster_role { String::new() } else { namespace_of(object) };
    let name = object_name(event);
    if is(event.get(Member::Verb), "delete") {
        if let Some(name) = name {
            cluster_state.saw_role(&namespace, &name, Vec::new());
        }
        return;
    }
    let Some(body) = body(event) else { return };
    if let Some(items) = body.get("items").filter(|items| items.kind() == Type::Array) {
        for role in items.items().map_while(Result::ok) {
            let part = |key: &str| text(role.get("metadata").and_then(|metadata| metadata.get(key)));
            if let Some(name) = part("name") {
                cluster_state.saw_role(
                    part("namespace").as_deref().unwrap_or(&namespace),
                    &name,
                    verbs_of(role),
                );
            }
        }
    } else if let Some(name) = name {
        let verbs = verbs_of(body);
        // A patch that adds nothing about secrets says nothing of what was there before.
        if !verbs.is_empty() || body.get("rules").is_some() {
            cluster_state.saw_role(&namespace, &name, verbs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cluster_state: &mut ClusterState, resource: &str, name: &str, body: &str) -> Vec<String> {
        let event = format!(
            r#"{{"verb":"create","objectRef":{{"resource":"{resource}","namespace":"p","name":"{name}"}},"responseStatus":{{"code":201}},"requestObject":{body}}}"#
        );
        let mut event = Event::new(event.as_bytes());
        learn(&mut event, cluster_state);
        granted_verbs(&mut event, Some(cluster_state))
    }

    #[test]
    fn rules_grant_by_group_resource_and_verb_together() {
        let mut cluster_state = ClusterState::default();
        let mut role = |body: &str| of(&mut cluster_state, "roles", "r", body);
        assert_eq!(
            role(r#"{"rules":[{"apiGroups":[""],"resources":["pods","secrets"],"verbs":["list","get"]}]}"#),
            ["get", "list"]
        );
        assert_eq!(role(r#"{"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]}"#), ["*"]);
        assert!(role(r#"{"rules":[{"apiGroups":["apps"],"resources":["*"],"verbs":["*"]},{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}"#).is_empty());
        let patch = r#"[{"op":"add","path":"/rules/-","value":{"apiGroups":[""],"resources":["secrets"],"verbs":["watch"]}}]"#;
        assert_eq!(role(patch), ["watch"]);
    }

    #[test]
    fn a_binding_grants_what_its_role_does() {
        let mut cluster_state = ClusterState::default();
        let rules = r#"{"rules":[{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}]}"#;
        of(&mut cluster_state, "roles", "reader", rules);
        of(&mut cluster_state, "clusterroles", "wide", rules);
        let mut binding = |kind: &str, name: &str| {
            of(
                &mut cluster_state,
                "rolebindings",
                "b",
                &format!(r#"{{"roleRef":{{"kind":"{kind}","name":"{name}"}}}}"#),
            )
        };
        assert_eq!(binding("Role", "reader"), ["get"]);
        assert_eq!(binding("ClusterRole", "wide"), ["get"]);
        assert_eq!(binding("ClusterRole", "cluster-admin"), ["*"]);
        assert!(binding("ClusterRole", "reader").is_empty() && binding("Role", "cluster-admin").is_empty());
    }
}
