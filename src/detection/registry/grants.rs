//! Which verbs on secrets a role grants, and whom a binding grants them.
//!
//! Takes roles and bindings and returns the verbs on secrets. The verbs of roles are recorded in the cluster state, since a
//! binding only names its role.

use std::collections::BTreeSet;

use super::cluster_state::ClusterState;
use super::request_info::Deletion;
use super::{RequestInfo, is, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};

/// Cluster roles of every cluster that grant verbs on secrets (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy`).
const BUILT_IN_ROLES: [(&str, &[&str]); 3] = [
    ("cluster-admin", &["*"]),
    ("admin", &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
    ("edit", &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
];

/// The verbs of the API on secrets, which are kept whatever else a role lists.
const API_VERBS: [&str; 9] =
    ["*", "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Maximum number of other verbs of a role, and their maximum length. A role with more counts as granting all verbs.
const MAX_OTHER_VERBS: usize = 32;
const MAX_VERB_LEN: usize = 32;

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

/// The response if it is the whole role or binding; else the request, which may be a patch. The response to a failure is a
/// `Status`, and clients can ask for a `Table` or `PartialObjectMetadata`, which say nothing of rules.
fn body<'a>(event: &mut Event<'a>) -> Option<Raw<'a>> {
    let is_whole = |body: &Raw<'_>| ["rules", "roleRef", "items"].iter().any(|key| body.get(key).is_some());
    let response = event.get(Member::ResponseObject).filter(is_whole);
    response.or_else(|| event.get(Member::RequestObject)).or_else(|| event.get(Member::ResponseObject))
}

/// Returns the verbs on secrets in a role's rules, or in the values of a JSON patch.
fn verbs_of(body: Raw<'_>) -> Vec<String> {
    let mut verbs = BTreeSet::new();
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
    verbs.into_iter().collect()
}

fn add_verbs(rule: Raw<'_>, verbs: &mut BTreeSet<String>) {
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
        if API_VERBS.contains(&&*verb) {
            verbs.insert(verb);
        } else if verb.len() <= MAX_VERB_LEN && verbs.len() < API_VERBS.len() + MAX_OTHER_VERBS {
            verbs.insert(verb);
        } else {
            verbs.insert("*".to_owned());
        }
    }
}

/// Records the verbs of a role, or of a list of roles.
pub(super) fn learn(event: &mut Event<'_>, request: &RequestInfo, state: &mut ClusterState) {
    if !is_role(request) || !request.may_have_persisted() || !request.is_built_in() {
        return;
    }
    let namespace = if request.resource == "clusterroles" { "" } else { &*request.namespace };
    let name = &*request.name;
    match &*request.verb {
        "delete" => {
            if !name.is_empty() && request.deletion(event) == Deletion::Proven {
                state.record_role(namespace, name, Vec::new());
            }
            return;
        }
        "deletecollection" => return,
        _ => {}
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
        // A patch says what it adds, and not which verbs the role had before; its response is the whole role.
        if request.verb == "patch" && body.get("rules").is_none() {
            state.add_verbs_to_role(namespace, name, verbs);
        } else if !verbs.is_empty() || body.get("rules").is_some() {
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

    #[test]
    fn verbs_behind_many_others_are_found_and_too_many_count_as_all() {
        let mut state = ClusterState::default();
        let role = |verbs: Vec<String>| {
            let verbs = verbs.iter().map(|verb| format!("\"{verb}\"")).collect::<Vec<_>>().join(",");
            format!(r#"{{"rules":[{{"apiGroups":[""],"resources":["secrets"],"verbs":[{verbs}]}}]}}"#)
        };
        let numbered = |count: usize| (0..count).map(|number| format!("v{number}")).collect::<Vec<_>>();
        let few = of(&mut state, "roles", "r", &role([numbered(30), vec!["get".to_owned()]].concat()));
        assert!(few.contains(&"get".to_owned()) && !few.contains(&"*".to_owned()));
        let many = of(&mut state, "roles", "r", &role([numbered(60), vec!["get".to_owned()]].concat()));
        assert!(many.contains(&"get".to_owned()) && many.contains(&"*".to_owned()) && many.len() < 50);
        assert_eq!(of(&mut state, "roles", "r", &role(vec!["g".repeat(40)])), ["*"]);
    }

    #[test]
    fn what_was_not_persisted_changes_no_role() {
        let rules = |verbs: &str| {
            format!(r#""rules":[{{"apiGroups":[""],"resources":["secrets"],"verbs":[{verbs}]}}]"#)
        };
        for (verb, query, code, group, bodies) in [
            ("update", "?dryRun=All", 200, "", format!(r#","requestObject":{{{0}}},"responseObject":{{{0}}}"#, rules(""))),
            ("update", "", 403, "", format!(r#","requestObject":{{{}}},"responseObject":{{"kind":"Status"}}"#, rules(""))),
            ("update", "", 200, "evil.io", format!(r#","responseObject":{{{}}}"#, rules(""))),
            ("delete", "?dryRun=All", 200, "", String::new()),
            ("delete", "", 200, "", r#","requestObject":{"dryRun":["All"]},"responseObject":{"kind":"Status","status":"Success"}"#.to_owned()),
            ("delete", "", 404, "", r#","responseObject":{"kind":"Status","status":"Failure"}"#.to_owned()),
            ("delete", "", 200, "", r#","responseObject":{"kind":"ClusterRole","metadata":{"finalizers":["a/b"]}}"#.to_owned()),
            ("patch", "", 200, "", r#","requestObject":{"metadata":{"labels":{"a":"b"}}}"#.to_owned()),
            ("patch", "", 200, "", r#","requestObject":[{"op":"add","path":"/rules/-","value":{"apiGroups":[""],"resources":["secrets"],"verbs":["create"]}}]"#.to_owned()),
        ] {
            let mut state = ClusterState::default();
            of(&mut state, "clusterroles", "wide", &format!("{{{}}}", rules(r#""get""#)));
            let event = format!(
                r#"{{"level":"RequestResponse","requestURI":"/x{query}","verb":"{verb}","objectRef":{{"resource":"clusterroles","name":"wide","apiGroup":"{group}"}},"responseStatus":{{"code":{code}}}{bodies}}}"#
            );
            let mut event = Event::new(event.as_bytes());
            let request = RequestInfo::of(&mut event);
            learn(&mut event, &request, &mut state);
            let verbs = state.verbs_of_role("", "wide").unwrap_or_default();
            assert!(verbs.contains(&"get".to_owned()), "{verb} {query} {code} {bodies}");
        }
        // As a client can ask for it: the response says nothing of rules, the request does.
        let mut state = ClusterState::default();
        let event = format!(
            r#"{{"verb":"create","objectRef":{{"resource":"clusterroles","name":"r"}},"responseStatus":{{"code":201}},"requestObject":{{{}}},"responseObject":{{"kind":"PartialObjectMetadata","metadata":{{"name":"r"}}}}}}"#,
            rules(r#""get""#)
        );
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        assert_eq!(granted_verbs(&mut event, &request, None), ["get"]);
        learn(&mut event, &request, &mut state);
        assert_eq!(state.verbs_of_role("", "r").unwrap_or_default(), ["get"]);
    }
}
