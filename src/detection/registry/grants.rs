//! Which verbs on secrets a role grants, and whom a binding grants them.
//!
//! Takes roles and bindings and returns the verbs on secrets. The verbs of roles are recorded in the cluster state, since a
//! binding only names its role.

use super::cluster_state::ClusterState;
use super::{RequestInfo, bodies, is, text};
use crate::detection::audit::event::Event;
use crate::detection::audit::json::{Raw, Type};

/// Cluster roles of every cluster that grant verbs on secrets (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy`).
const BUILT_IN_ROLES: [(&str, &[&str]); 3] = [
    ("cluster-admin", &["*"]),
    ("admin", &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
    ("edit", &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
];

/// Maximum number of verbs of a role. The API has a dozen.
const MAX_VERBS: usize = 32;

/// Returns the verbs on secrets, sorted, that a written role grants, or the role of a written binding.
pub(crate) fn granted_verbs(
    event: &mut Event<'_>,
    request: &RequestInfo,
    state: Option<&mut ClusterState>,
) -> Vec<String> {
    if is_role(request) {
        return body(event).map(verbs_of).unwrap_or_default();
    }
    let Some(role) = body(event).and_then(|body| body.get("roleRef")) else { return Vec::new() };
    let Some(name) = text(role.get("name")) else { return Vec::new() };
    let is_cluster_role = is(role.get("kind"), "ClusterRole");
    if is_cluster_role && let Some((_, verbs)) = BUILT_IN_ROLES.iter().find(|(built_in, _)| *built_in == name)
    {
        return verbs.iter().map(|verb| (*verb).to_owned()).collect();
    }
    let namespace = if is_cluster_role { "" } else { &request.namespace };
    state.and_then(|state| state.verbs_of_role(namespace, &name)).unwrap_or_default()
}

fn is_role(request: &RequestInfo) -> bool {
    matches!(&*request.resource, "roles" | "clusterroles")
}

/// The response, which is the whole role where the request may be a patch; the request where the response is the `Status`
/// of a failure.
fn body<'a>(event: &mut Event<'a>) -> Option<Raw<'a>> {
    bodies(event).find(|body| !is(body.get("kind"), "Status"))
}

/// Returns the verbs on secrets in a role's rules, or in the values of a JSON patch.
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
    let contains = |key: &str, accepted: &[&str]| {
        rule.get(key)
            .into_iter()
            .flat_map(Raw::items)
            .map_while(Result::ok)
            .any(|item| accepted.iter().any(|text| is(Some(item), text)))
    };
    if !contains("apiGroups", &["", "*"]) || !contains("resources", &["secrets", "*"]) {
        return;
    }
    let granted = rule.get("verbs").into_iter().flat_map(Raw::items).map_while(Result::ok);
    for verb in granted.filter_map(|verb| text(Some(verb))) {
        if verbs.len() < MAX_VERBS && verb.len() < 32 {
            verbs.push(verb);
        }
    }
}

/// Records the verbs of a role, or of a list of roles.
pub(super) fn learn(event: &mut Event<'_>, request: &RequestInfo, state: &mut ClusterState) {
    if !is_role(request) || !request.has_succeeded {
        return;
    }
    let is_cluster_role = request.resource == "clusterroles";
    let namespace = if is_cluster_role { "" } else { &*request.namespace };
    let name = &*request.name;
    if request.verb == "delete" {
        if !name.is_empty() {
            state.record_role(namespace, name, Vec::new());
        }
        return;
    }
    let Some(body) = body(event) else { return };
    if let Some(items) = body.get("items").filter(|items| items.kind() == Type::Array) {
        for role in items.items().map_while(Result::ok) {
            let metadata = |key: &str| text(role.get("metadata").and_then(|metadata| metadata.get(key)));
            if let Some(name) = metadata("name") {
                state.record_role(
                    metadata("namespace").as_deref().unwrap_or(namespace),
                    &name,
                    verbs_of(role),
                );
            }
        }
    } else if !name.is_empty() {
        let verbs = verbs_of(body);
        // A patch without verbs on secrets does not say which verbs the role had before.
        if !verbs.is_empty() || body.get("rules").is_some() {
            state.record_role(namespace, name, verbs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(state: &mut ClusterState, resource: &str, name: &str, body: &str) -> Vec<String> {
        let event = format!(
            r#"{{"verb":"create","objectRef":{{"resource":"{resource}","namespace":"p","name":"{name}"}},"responseStatus":{{"code":201}},"requestObject":{body}}}"#
        );
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        learn(&mut event, &request, state);
        granted_verbs(&mut event, &request, Some(state))
    }

    #[test]
    fn rules_grant_verbs_by_api_group_and_resource() {
        let mut state = ClusterState::default();
        let mut role = |body: &str| of(&mut state, "roles", "r", body);
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
    fn a_binding_grants_the_verbs_of_its_role() {
        let mut state = ClusterState::default();
        let rules = r#"{"rules":[{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}]}"#;
        of(&mut state, "roles", "reader", rules);
        of(&mut state, "clusterroles", "wide", rules);
        let mut binding = |kind: &str, name: &str| {
            of(
                &mut state,
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
