//! Determines what a role grants on secrets and beyond, and to whom a binding grants it.
//!
//! Takes roles and bindings, whole or as patches, and returns the verbs on secrets, the permissions through which a subject gains others,
//! the subjects of a binding, and the default roles into which a role is aggregated. The cluster state records what roles grant, because a
//! binding only names its role and a patch omits what it does not change.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use super::cluster_state::ClusterState;
use super::patch::{Write, Written, last, writes};
use super::privileges::{self, Grant, Grants};
use super::request_info::Deletion;
use super::{RequestInfo, is, shown, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};

/// The roles that exist in every cluster by default, by `namespace/name`; the namespace of a cluster role is empty.
static BUILT_IN_ROLES: LazyLock<HashMap<String, Grants>> = LazyLock::new(|| {
    // The first line names the source of the table.
    let roles = include_str!("built_in_roles.jsonl").lines().skip(1).map(|line| Raw::assume(line.as_bytes()));
    roles
        .map(|role| {
            let [namespace, name] = ["namespace", "name"].map(|key| text(role.get(key)).unwrap_or_default());
            let mut grants = Grants::new();
            if let Some(rules) = role.get("rules") {
                privileges::add_rules(rules, &mut grants);
            }
            (format!("{namespace}/{name}"), grants)
        })
        .collect()
});

/// Default roles that grant nothing of interest and are not in the table, by `namespace/name`. The last one is kubeadm's. Roles that lead
/// to a node certificate (`system:node-bootstrapper`) are missing on purpose.
const HARMLESS_BUILT_IN_ROLES: [&str; 17] = [
    "/system:auth-delegator",
    "/system:basic-user",
    "/system:discovery",
    "/system:heapster",
    "/system:kube-aggregator",
    "/system:kube-dns",
    "/system:kube-scheduler",
    "/system:monitoring",
    "/system:node-problem-detector",
    "/system:node-proxier",
    "/system:persistent-volume-provisioner",
    "/system:public-info-viewer",
    "/system:service-account-issuer-discovery",
    "/system:volume-scheduler",
    "kube-public/system:controller:bootstrap-signer",
    "kube-system/extension-apiserver-authentication-reader",
    "kube-public/kubeadm:bootstrap-signer-clusterinfo",
];

/// The default roles into which other roles are aggregated, and the labels that cause it.
const AGGREGATION_LABELS: [(&str, &str); 3] = [
    ("admin", "rbac.authorization.k8s.io/aggregate-to-admin"),
    ("edit", "rbac.authorization.k8s.io/aggregate-to-edit"),
    ("view", "rbac.authorization.k8s.io/aggregate-to-view"),
];

/// Prefix of cluster state entries for bindings. No namespace contains a colon.
const BINDING: &str = "binding:";

/// Prefix of entries for roles that are bound to all users: by which bindings, with which subjects.
const BOUND: &str = "bound:";

/// Prefix of entries for bindings to all users: which role they bind.
const BOUND_ROLE: &str = "bound-role:";

/// Maximum number of bindings to all users that are remembered per role.
const MAX_BINDINGS: usize = 16;

/// Subjects that represent all clients, all users or all service accounts. `*` was such a user in RBAC's alpha version, and
/// `system:authenticated:oauth` is the group of human users in OpenShift. The list `all_user_subjects` of the shipped rules has the same
/// members.
const ALL_USERS: [&str; 6] = [
    "*",
    "system:anonymous",
    "system:authenticated",
    "system:authenticated:oauth",
    "system:serviceaccounts",
    "system:unauthenticated",
];

/// The cluster roles that are bound to all users by default.
const BOUND_BY_DEFAULT: [(&str, &str); 5] = [
    ("system:basic-user", "system:authenticated"),
    ("system:discovery", "system:authenticated"),
    ("system:public-info-viewer", "system:authenticated"),
    ("system:public-info-viewer", "system:unauthenticated"),
    ("system:service-account-issuer-discovery", "system:serviceaccounts"),
];

/// Returns the verbs on secrets, sorted, granted by a written role, or by the role of a written binding.
pub(crate) fn granted_verbs(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    state: Option<&mut ClusterState>,
) -> Vec<String> {
    let grants = grants(event, request, state).into_iter();
    grants
        .filter_map(|grant| match grant {
            Grant::OnSecrets(verb) => Some(verb.to_owned()),
            Grant::Privilege(_) => None,
        })
        .collect()
}

/// Returns the permissions, sorted, through which the subjects of a written role, or of the role of a written binding, gain others.
pub(crate) fn privileges(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    state: Option<&mut ClusterState>,
) -> Vec<String> {
    let grants = grants(event, request, state).into_iter();
    grants
        .filter_map(|grant| match grant {
            Grant::OnSecrets(_) => None,
            Grant::Privilege(name) => Some(name.to_owned()),
        })
        .collect()
}

/// Returns the name of the role of a binding.
pub(crate) fn bound_role(event: &mut Event<'_>, request: &RequestInfo<'_>) -> Option<String> {
    if !is_binding(request) {
        return None;
    }
    let (body, _) = body(event)?;
    text(body.path(&["roleRef", "name"])).map(shown)
}

/// Returns the names of the subjects of a written binding, those with the prefix `system:` first. Service accounts are returned by their
/// user name. For a written role, returns the subjects representing all users to which it is known to be bound.
pub(crate) fn subjects(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    state: Option<&mut ClusterState>,
) -> Vec<String> {
    if is_role(request) && request.is_built_in() {
        return all_users_bound_to(namespace_of(request), &request.name, state);
    }
    if !is_binding(request) {
        return Vec::new();
    }
    let Some((body, _)) = body(event) else { return Vec::new() };
    let mut names = Vec::new();
    for write in writes(body) {
        let Written::Value(value) = write.value else { continue };
        let keys: Vec<&[u8]> = write.path.iter().map(|key| &**key).collect();
        match keys[..] {
            [] => names.extend(last(value, "subjects").into_iter().flat_map(names_of)),
            [b"subjects"] => names.extend(names_of(value)),
            [b"subjects", _] => names.extend(name_of(value)),
            [b"subjects", _, b"name"] => names.extend(text(Some(value))),
            _ => {}
        }
    }
    names.sort_unstable_by_key(|name| (!name.starts_with("system:"), name.clone()));
    names.dedup();
    names.into_iter().map(shown).collect()
}

/// Returns the subjects representing all users to which a role is bound.
fn all_users_bound_to(namespace: &str, role: &str, state: Option<&mut ClusterState>) -> Vec<String> {
    let recorded = state.and_then(|state| state.verbs_of_role(&format!("{BOUND}{namespace}"), role));
    let recorded = recorded.unwrap_or_default();
    let learned = recorded.iter().filter_map(|entry| entry.rsplit_once(' ')).map(|(_, subject)| subject);
    let by_default = BOUND_BY_DEFAULT.iter().filter(|(name, _)| namespace.is_empty() && *name == role);
    let subjects: BTreeSet<&str> = learned.chain(by_default.map(|(_, subject)| *subject)).collect();
    subjects.into_iter().map(str::to_owned).collect()
}

fn names_of(subjects: Raw<'_>) -> impl Iterator<Item = String> {
    subjects.items().map_while(Result::ok).filter_map(name_of)
}

fn name_of(subject: Raw<'_>) -> Option<String> {
    let name = text(last(subject, "name"))?;
    if is(last(subject, "kind"), "ServiceAccount") {
        let namespace = text(last(subject, "namespace")).unwrap_or_default();
        return Some(format!("system:serviceaccount:{namespace}:{name}"));
    }
    Some(name)
}

/// Returns the default roles into which a written cluster role is aggregated by its labels.
pub(crate) fn aggregated_into(event: &mut Event<'_>, request: &RequestInfo<'_>) -> Vec<&'static str> {
    if request.resource != "clusterroles" {
        return Vec::new();
    }
    body(event).map(|(body, _)| aggregated_by_labels(&writes(body))).unwrap_or_default()
}

fn aggregated_by_labels(writes: &[Write<'_>]) -> Vec<&'static str> {
    let labels: Vec<_> = writes.iter().map(|write| write.at(&["metadata", "labels"])).collect();
    let is_set = |label: &str| {
        let mut written = writes.iter().zip(&labels).filter_map(|(write, labels)| match labels {
            Some(Written::Value(labels)) => {
                Some(last(*labels, label).map_or(Written::Removed, Written::Value))
            }
            // Removed, unknown, or a write of one label.
            _ => write.at(&["metadata", "labels", label]),
        });
        // Of several operations of a JSON patch on one place the last decides.
        match written.next_back() {
            Some(Written::Value(value)) => is(Some(value), "true"),
            Some(Written::Unknown) => true,
            Some(Written::Removed) | None => false,
        }
    };
    AGGREGATION_LABELS.iter().filter(|(_, label)| is_set(label)).map(|(role, _)| *role).collect()
}

fn is_role(request: &RequestInfo<'_>) -> bool {
    matches!(&*request.resource, "roles" | "clusterroles")
}

fn is_binding(request: &RequestInfo<'_>) -> bool {
    matches!(&*request.resource, "rolebindings" | "clusterrolebindings")
}

/// The namespace of a role or binding; empty for a cluster-wide one.
fn namespace_of<'r>(request: &'r RequestInfo<'_>) -> &'r str {
    if request.resource.starts_with("cluster") { "" } else { &request.namespace }
}

/// Returns the response and true if it contains the whole role or binding; otherwise the request, which may be a patch. The response to a
/// failed request is a `Status`, and clients can ask for a `Table` or `PartialObjectMetadata`, which do not contain rules.
fn body<'a>(event: &mut Event<'a>) -> Option<(Raw<'a>, bool)> {
    let is_whole = |body: &Raw<'_>| ["rules", "roleRef", "items"].iter().any(|key| body.get(key).is_some());
    if let Some(response) = event.get(Member::ResponseObject).filter(is_whole) {
        return Some((response, true));
    }
    let request = event.get(Member::RequestObject).or_else(|| event.get(Member::ResponseObject));
    request.map(|request| (request, false))
}

/// Determines what a written role grants, or the role of a written binding.
fn grants(event: &mut Event<'_>, request: &RequestInfo<'_>, state: Option<&mut ClusterState>) -> Grants {
    if !request.is_built_in() {
        return Grants::new();
    }
    if is_role(request) {
        let Some((body, is_whole)) = body(event) else { return Grants::new() };
        let role = RoleWrite::of(body);
        let known = if is_whole { None } else { state.and_then(|state| recorded(state, request)) };
        return role.granted(known, request.verb == "patch" && !is_whole);
    }
    if !is_binding(request) {
        return Grants::new();
    }
    let role = body(event).and_then(|(body, _)| body.get("roleRef"));
    let Some((name, is_cluster_role)) =
        role.and_then(|role| Some((text(role.get("name"))?, is(role.get("kind"), "ClusterRole"))))
    else {
        // A patch omits the role, which cannot change. Most built-in bindings have the name of their role.
        let known = state.and_then(|state| {
            state.verbs_of_role(&format!("{BINDING}{}", namespace_of(request)), &request.name)
        });
        return match known {
            Some(known) => from_texts(&known),
            None => built_in("", &request.name),
        };
    };
    let namespace = if is_cluster_role { "" } else { &*request.namespace };
    let mut grants = built_in(namespace, &name);
    let known = state.and_then(|state| state.verbs_of_role(namespace, &name)).unwrap_or_default();
    grants.extend(from_texts(&known));
    grants
}

/// Returns whether a request leaves a role without rules, or a binding without subjects, which has the effect of a deletion. Aggregated
/// roles have no rules until a controller fills them. If one rule or subject is removed and the response is not logged, it is presumed to
/// be the last one.
pub(crate) fn is_emptied(event: &mut Event<'_>, request: &RequestInfo<'_>) -> bool {
    if !(is_role(request) || is_binding(request))
        || !matches!(&*request.verb, "update" | "patch")
        || !request.is_built_in()
    {
        return false;
    }
    let key = if is_role(request) { "rules" } else { "subjects" };
    let has_none = |list: Option<Raw<'_>>| list.is_none_or(|list| list.items().next().is_none());
    let is_empty = |object: Raw<'_>| has_none(last(object, key)) && last(object, "aggregationRule").is_none();
    let is_whole = |body: &Raw<'_>| {
        text(body.get("kind")).is_some_and(|kind| kind.ends_with("Role") || kind.ends_with("RoleBinding"))
    };
    if let Some(response) = event.get(Member::ResponseObject).filter(is_whole) {
        return is_empty(response);
    }
    let Some(body) = event.get(Member::RequestObject) else { return false };
    if request.verb == "update"
        || body.kind() == Type::Object && is_whole(&body) && last(body, "apiVersion").is_some()
    {
        return is_empty(body);
    }
    match writes(body).iter().filter_map(|write| written_list(write, key)).next_back() {
        Some(Written::Value(list)) => has_none(Some(list)),
        Some(Written::Removed) => true,
        Some(Written::Unknown) | None => false,
    }
}

/// Returns what a request writes to a list of the object, or that it removes an element of the list.
fn written_list<'a>(write: &Write<'a>, key: &str) -> Option<Written<'a>> {
    match (&*write.path, write.value) {
        // In a merge patch, a missing member means no change.
        ([], Written::Value(value)) => last(value, key).map(Written::Value),
        ([first], value) if **first == *key.as_bytes() => Some(value),
        // The rules or subjects left after the removal are unknown.
        ([first, _], Written::Removed) if **first == *key.as_bytes() => Some(Written::Removed),
        ([first, ..], _) if **first == *key.as_bytes() => Some(Written::Unknown),
        _ => None,
    }
}

/// Returns whether it is known what the role of a written binding grants, because it is built in, or because the log or an inventory has
/// shown it. None if no binding is written.
pub(crate) fn is_role_known(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    state: Option<&mut ClusterState>,
) -> Option<bool> {
    if !is_binding(request) || !request.is_built_in() {
        return None;
    }
    let role = body(event).and_then(|(body, _)| body.get("roleRef"));
    let name = role.and_then(|role| text(role.get("name")));
    // A patch omits the role, which cannot change. Most built-in bindings have the name of their role.
    let (recorded_in, in_table, name) = match name {
        Some(name) => {
            let is_cluster_role = is(role.and_then(|role| role.get("kind")), "ClusterRole");
            let namespace = if is_cluster_role { "" } else { &*request.namespace };
            (namespace.to_owned(), namespace, name)
        }
        None => (binding_namespace(namespace_of(request)), "", request.name.to_string()),
    };
    let is_built_in = is_built_in(&format!("{in_table}/{name}"));
    Some(is_built_in || state.is_some_and(|state| state.verbs_of_role(&recorded_in, &name).is_some()))
}

/// Returns what a role of an inventory grants, as the cluster state records it.
pub(super) fn declared_grants(role: Raw<'_>) -> Vec<String> {
    to_texts(RoleWrite::of(role).grants)
}

/// Returns what a binding of an inventory grants; none if its role is unknown. `known` returns what a role, by `namespace/name`,
/// grants.
pub(super) fn declared_binding(
    binding: Raw<'_>,
    namespace: &str,
    known: impl Fn(&str) -> Option<Vec<String>>,
) -> Option<Vec<String>> {
    let role = binding.get("roleRef");
    let name = role.and_then(|role| text(role.get("name")))?;
    let is_cluster_role = is(role.and_then(|role| role.get("kind")), "ClusterRole");
    let namespace = if is_cluster_role { "" } else { namespace };
    let key = format!("{namespace}/{name}");
    let known = known(&key);
    if known.is_none() && !is_built_in(&key) {
        return None;
    }
    let mut grants = built_in(namespace, &name);
    grants.extend(from_texts(&known.unwrap_or_default()));
    Some(to_texts(grants))
}

/// Returns the namespace under which the cluster state records the bindings of a namespace.
pub(super) fn binding_namespace(namespace: &str) -> String {
    format!("{BINDING}{namespace}")
}

fn is_built_in(key: &str) -> bool {
    BUILT_IN_ROLES.contains_key(key) || HARMLESS_BUILT_IN_ROLES.contains(&key)
}

fn built_in(namespace: &str, name: &str) -> Grants {
    BUILT_IN_ROLES.get(&format!("{namespace}/{name}")).cloned().unwrap_or_default()
}

fn recorded(state: &mut ClusterState, request: &RequestInfo<'_>) -> Option<Grants> {
    let known = state.verbs_of_role(namespace_of(request), &request.name)?;
    Some(from_texts(&known))
}

fn from_texts(texts: &[String]) -> Grants {
    texts.iter().filter_map(|text| Grant::from_text(text)).collect()
}

/// The changes that a request makes to a role.
struct RoleWrite {
    grants: Grants,
    /// Whether the write replaces all rules of the role.
    replaces_rules: bool,
    /// Whether the write sets a label by which the role is aggregated into a default role.
    is_aggregated: bool,
}

impl RoleWrite {
    fn of(body: Raw<'_>) -> Self {
        let writes = writes(body);
        let mut grants = Grants::new();
        for write in &writes {
            privileges::add_write(write, &mut grants);
            add_aggregation(write, &mut grants);
        }
        let replaces_rules =
            writes.iter().any(|write| matches!(write.at(&["rules"]), Some(Written::Value(_))));
        RoleWrite { grants, replaces_rules, is_aggregated: !aggregated_by_labels(&writes).is_empty() }
    }

    /// Returns what the role grants after the request, given the grants recorded before it. An unknown role that a patch aggregates into a
    /// default role is presumed to grant reads.
    fn granted(mut self, known: Option<Grants>, is_patch: bool) -> Grants {
        if is_patch && !self.replaces_rules {
            match known {
                Some(known) => self.grants.extend(known),
                None if self.is_aggregated => privileges::presume_secrets(&mut self.grants),
                None => {}
            }
        }
        self.grants
    }
}

/// Adds the grants of the built-in roles that an aggregation rule selects. Other selected roles were evaluated when they were written, and
/// the aggregated role is evaluated when its controller fills it.
fn add_aggregation(write: &Write<'_>, grants: &mut Grants) {
    let Some(written) = write.at(&["aggregationRule"]) else {
        if write.path.first().is_some_and(|key| **key == *b"aggregationRule") {
            match (write.path.len(), write.value) {
                (2, Written::Value(selectors)) => add_selectors(selectors, grants),
                (3, Written::Value(selector)) => add_selector(selector, grants),
                (_, Written::Removed) => {}
                _ => privileges::presume_secrets(grants),
            }
        }
        return;
    };
    match written {
        Written::Value(rule) => {
            if let Some(selectors) = last(rule, "clusterRoleSelectors") {
                add_selectors(selectors, grants);
            }
        }
        Written::Unknown => privileges::presume_secrets(grants),
        Written::Removed => {}
    }
}

fn add_selectors(selectors: Raw<'_>, grants: &mut Grants) {
    selectors.items().map_while(Result::ok).for_each(|selector| add_selector(selector, grants));
}

fn add_selector(selector: Raw<'_>, grants: &mut Grants) {
    let has_expressions =
        last(selector, "matchExpressions").is_some_and(|expressions| expressions.items().next().is_some());
    let labels: Vec<_> =
        last(selector, "matchLabels").into_iter().flat_map(Raw::members).map_while(Result::ok).collect();
    let is_bootstrap = |key: &[u8]| key == b"kubernetes.io/bootstrapping";
    if has_expressions || labels.iter().all(|(key, _)| is_bootstrap(&key.text())) {
        grants.extend(built_in("", "cluster-admin"));
        return;
    }
    for (role, label) in AGGREGATION_LABELS {
        if labels.iter().all(|(key, _)| key.is(label) || is_bootstrap(&key.text())) {
            grants.extend(built_in("", role));
        }
    }
}

/// Records what a role, each role of a list, or the role of a binding grants.
pub(super) fn learn(event: &mut Event<'_>, request: &RequestInfo<'_>, state: &mut ClusterState) {
    if !request.may_have_persisted() || !request.is_built_in() {
        return;
    }
    if is_binding(request) {
        learn_binding(event, request, state);
        return;
    }
    if !is_role(request) {
        return;
    }
    let namespace = namespace_of(request);
    let name = &*request.name;
    match &*request.verb {
        "delete" => {
            if !name.is_empty() && request.deletion(event) == Deletion::Proven {
                state.remove_role(namespace, name);
            }
            return;
        }
        "deletecollection" => return,
        _ => {}
    }
    let Some((body, is_whole)) = body(event) else { return };
    if let Some(items) = body.get("items").filter(|items| items.kind() == Type::Array) {
        for role in items.items().map_while(Result::ok) {
            let metadata = |key: &str| text(role.get("metadata").and_then(|metadata| metadata.get(key)));
            if let Some(name) = metadata("name") {
                let namespace = metadata("namespace");
                let grants = RoleWrite::of(role).grants;
                state.record_role(
                    namespace.as_deref().unwrap_or(namespace_of(request)),
                    &name,
                    to_texts(grants),
                );
            }
        }
    } else if !name.is_empty() {
        let role = RoleWrite::of(body);
        if is_whole || role.replaces_rules || matches!(&*request.verb, "create" | "update") {
            state.record_role(namespace, name, to_texts(role.grants));
        } else {
            // A patch shows what it adds, and not what the role granted before.
            state.add_verbs_to_role(namespace, name, to_texts(role.grants));
        }
    }
}

fn to_texts(grants: Grants) -> Vec<String> {
    grants.into_iter().map(Grant::to_text).collect()
}

/// Records what the role of a binding grants, for later patches of the binding.
fn learn_binding(event: &mut Event<'_>, request: &RequestInfo<'_>, state: &mut ClusterState) {
    if request.name.is_empty() || !matches!(&*request.verb, "create" | "update" | "patch" | "get" | "delete")
    {
        return;
    }
    let namespace = format!("{BINDING}{}", namespace_of(request));
    if request.verb == "delete" {
        if request.deletion(event) == Deletion::Proven {
            state.remove_role(&namespace, &request.name);
            record_all_users(request, None, &[], state);
        }
        return;
    }
    learn_all_users(event, request, state);
    let is_known = is_role_known(event, request, Some(state)) == Some(true);
    let grants = grants(event, request, Some(state));
    if is_known || !grants.is_empty() {
        state.record_role(&namespace, &request.name, to_texts(grants));
    }
}

/// Records that a binding gives its role to all users, or that it no longer does.
fn learn_all_users(event: &mut Event<'_>, request: &RequestInfo<'_>, state: &mut ClusterState) {
    let Some((body, is_whole)) = body(event) else { return };
    let mut subjects = subjects(event, request, None);
    subjects.retain(|subject| ALL_USERS.contains(&&**subject));
    let role = body.get("roleRef");
    let name = role.and_then(|role| text(role.get("name")));
    let role = name.map(|name| {
        let is_cluster_role = is(role.and_then(|role| role.get("kind")), "ClusterRole");
        (if is_cluster_role { String::new() } else { request.namespace.to_string() }, name)
    });
    // A patch shows which subjects it adds, and not which were there before.
    if is_whole || request.verb != "patch" || !subjects.is_empty() {
        record_all_users(request, role, &subjects, state);
    }
}

/// Records the subjects of a binding that represent all users; if the event does not show the role, the recorded one is used.
fn record_all_users(
    request: &RequestInfo<'_>,
    role: Option<(String, String)>,
    subjects: &[String],
    state: &mut ClusterState,
) {
    let bound_role = format!("{BOUND_ROLE}{}", namespace_of(request));
    let recorded = state.verbs_of_role(&bound_role, &request.name);
    if recorded.is_none() && subjects.is_empty() {
        return;
    }
    let recorded = recorded.iter().flatten().find_map(|role| role.strip_prefix('+')?.split_once('/'));
    // Most built-in bindings have the name of their role.
    let (namespace, role) = role
        .or_else(|| recorded.map(|(namespace, role)| (namespace.to_owned(), role.to_owned())))
        .unwrap_or_else(|| (String::new(), request.name.to_string()));
    let binding = format!("+{}/{} ", namespace_of(request), request.name);
    let bound = format!("{BOUND}{namespace}");
    let mut entries = state.verbs_of_role(&bound, &role).unwrap_or_default();
    entries.retain(|entry| !entry.starts_with(&binding));
    entries.extend(subjects.iter().map(|subject| format!("{binding}{subject}")));
    entries.truncate(MAX_BINDINGS * ALL_USERS.len());
    if entries.is_empty() {
        state.remove_role(&bound, &role);
    } else {
        state.record_role(&bound, &role, entries);
    }
    if subjects.is_empty() {
        state.remove_role(&bound_role, &request.name);
    } else {
        state.record_role(&bound_role, &request.name, vec![format!("+{namespace}/{role}")]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_learned_bindings_agree_on_who_all_users_are() {
        let files = crate::shipped::files();
        let list =
            files.iter().find_map(|file| file.text.split_once("- list: all_user_subjects\n  items: ["));
        let items = list.and_then(|(_, rest)| rest.split(']').next()).unwrap();
        let mut items: Vec<&str> = items.split(", ").map(|item| item.trim_matches('"')).collect();
        items.sort_unstable();
        assert_eq!(items, ALL_USERS);
    }

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
    fn verbs_behind_many_others_are_found() {
        let mut state = ClusterState::default();
        let verbs: Vec<String> = (0..1000).map(|number| format!("\"v{number}\"")).collect();
        let role = format!(
            r#"{{"rules":[{{"apiGroups":[""],"resources":["secrets"],"verbs":[{},"get"]}}]}}"#,
            verbs.join(",")
        );
        assert_eq!(of(&mut state, "roles", "r", &role), ["get"]);
    }

    fn patched(
        state: &mut ClusterState,
        resource: &str,
        patch: &str,
        response: &str,
    ) -> (Vec<String>, Vec<String>) {
        let event = format!(
            r#"{{"verb":"patch","objectRef":{{"resource":"{resource}","name":"r"}},"responseStatus":{{"code":200}},"requestObject":{patch},"responseObject":{response}}}"#
        );
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        learn(&mut event, &request, state);
        (granted_verbs(&mut event, &request, Some(state)), privileges(&mut event, &request, Some(state)))
    }

    #[test]
    fn every_kind_of_patch_grants_what_it_writes() {
        let rules = |verb: &str| {
            format!(r#"{{"rules":[{{"apiGroups":[""],"resources":["secrets"],"verbs":["{verb}"]}}]}}"#)
        };
        for (patch, response, expected) in [
            // Merge patch, strategic merge patch and apply.
            (rules("watch"), "null".to_owned(), &["watch"][..]),
            // JSON patch, at any depth.
            (r#"[{"op":"test","path":"/x","value":1},{"op":"add","path":"/rules/0/verbs/-","value":"get"}]"#.to_owned(), "null".to_owned(), &["get"]),
            (r#"[{"op":"add","path":"/rules/0/resources/-","value":"secrets"}]"#.to_owned(), "null".to_owned(), &["get", "list", "watch"]),
            (r#"[{"op":"move","from":"/metadata/annotations/a","path":"/rules"}]"#.to_owned(), "null".to_owned(), &["get", "list", "watch"]),
            // The response is the whole role.
            (r#"[{"op":"add","path":"/rules/0/verbs/-","value":"get"}]"#.to_owned(), rules("list"), &["list"]),
            (r#"{"metadata":{"labels":{"a":"b"}}}"#.to_owned(), rules("list"), &["list"]),
            // Aggregated into a default role, without rules.
            (r#"{"metadata":{"labels":{"rbac.authorization.k8s.io/aggregate-to-view":"true"}}}"#.to_owned(), "null".to_owned(), &["get", "list", "watch"]),
            (r#"{"metadata":{"labels":{"a":"b"}}}"#.to_owned(), "null".to_owned(), &[]),
        ] {
            let (verbs, _) = patched(&mut ClusterState::default(), "clusterroles", &patch, &response);
            assert_eq!(verbs, expected, "{patch} {response}");
        }
        // What was known before is kept.
        let mut state = ClusterState::default();
        of(&mut state, "clusterroles", "r", &rules("delete"));
        assert_eq!(
            patched(&mut state, "clusterroles", r#"{"metadata":{"labels":{"a":"b"}}}"#, "null").0,
            ["delete"]
        );
    }

    #[test]
    fn aggregation_rules_grant_what_they_select() {
        let of = |rule: &str| {
            patched(
                &mut ClusterState::default(),
                "clusterroles",
                &format!(r#"{{"aggregationRule":{rule}}}"#),
                "null",
            )
        };
        let labels = |labels: &str| format!(r#"{{"clusterRoleSelectors":[{{"matchLabels":{labels}}}]}}"#);
        for everything in [
            r#"{"clusterRoleSelectors":[{}]}"#.to_owned(),
            r#"{"clusterRoleSelectors":[{"matchExpressions":[{"key":"a","operator":"DoesNotExist"}]}]}"#
                .to_owned(),
            labels(r#"{"kubernetes.io/bootstrapping":"rbac-defaults"}"#),
        ] {
            assert_eq!(of(&everything).0, ["*"], "{everything}");
        }
        let edit = of(&labels(r#"{"rbac.authorization.k8s.io/aggregate-to-edit":"true"}"#));
        assert!(edit.0.contains(&"get".to_owned()) && edit.1.contains(&"impersonate".to_owned()));
        assert!(of(&labels(r#"{"rbac.authorization.k8s.io/aggregate-to-view":"true"}"#)).0.is_empty());
        assert!(of(&labels(r#"{"example.com/part":"true"}"#)).0.is_empty());
    }

    #[test]
    fn the_table_of_roles_is_from_every_minor_version() {
        let head = include_str!("built_in_roles.jsonl").lines().next().unwrap_or_default();
        for minor in 20..=37 {
            assert!(head.contains(&format!("\"v1.{minor}.")), "1.{minor} in {head}");
        }
    }

    #[test]
    fn built_in_roles_grant_what_kubernetes_gives_them() {
        for (role, verbs, privileges) in [
            (
                "system:controller:generic-garbage-collector",
                &["delete", "get", "list", "patch", "update", "watch"][..],
                "nodes/proxy",
            ),
            (
                "system:controller:namespace-controller",
                &["delete", "deletecollection", "get", "list", "watch"],
                "pods/exec",
            ),
            ("system:controller:resourcequota-controller", &["list", "watch"], ""),
            ("system:controller:persistent-volume-binder", &["get"], ""),
            ("system:controller:expand-controller", &["get"], ""),
            ("system:controller:legacy-service-account-token-cleaner", &["delete", "patch"], ""),
            (
                "system:controller:storage-version-migrator-controller",
                &["list", "patch"],
                "certificatesigningrequests/approval",
            ),
            ("system:node", &["get", "list", "watch"], "serviceaccounts/token"),
            (
                "system:kube-controller-manager",
                &["create", "delete", "get", "list", "update", "watch"],
                "serviceaccounts/token",
            ),
            (
                "system:aggregate-to-edit",
                &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                "impersonate",
            ),
            ("system:kubelet-api-admin", &[], "nodes/proxy"),
            ("system:controller:clusterrole-aggregation-controller", &[], "escalate"),
            ("system:certificates.k8s.io:kube-apiserver-client-kubelet-approver", &[], "signers"),
            ("view", &[], ""),
        ] {
            let grants = built_in("", role);
            let mut granted = Vec::new();
            let mut gained = Vec::new();
            for grant in grants {
                match grant {
                    Grant::OnSecrets(verb) => granted.push(verb),
                    Grant::Privilege(name) => gained.push(name),
                }
            }
            assert_eq!(granted, verbs, "{role}");
            assert!(
                if privileges.is_empty() { gained.is_empty() } else { gained.contains(&privileges) },
                "{role} {gained:?}"
            );
        }
        assert!(!built_in("kube-system", "system:controller:token-cleaner").is_empty());
        assert!(built_in("", "system:controller:token-cleaner").is_empty());
    }

    #[test]
    fn subjects_and_roles_of_bindings_are_read_from_any_body() {
        let read = |verb: &str, bodies: &str, state: Option<&mut ClusterState>| {
            let event = format!(
                r#"{{"verb":"{verb}","objectRef":{{"resource":"clusterrolebindings","name":"cluster-admin"}},"responseStatus":{{"code":200}},{bodies}}}"#
            );
            let mut event = Event::new(event.as_bytes());
            let request = RequestInfo::of(&mut event);
            (
                subjects(&mut event, &request, None),
                bound_role(&mut event, &request),
                granted_verbs(&mut event, &request, state),
            )
        };
        let add = r#""requestObject":[{"op":"add","path":"/subjects/-","value":{"kind":"Group","name":"system:authenticated"}}]"#;
        // The role cannot change, and the patch omits it: it has the name of the binding.
        assert_eq!(
            read("patch", add, None),
            (vec!["system:authenticated".to_owned()], None, vec!["*".to_owned()])
        );
        let whole = format!(
            r#"{add},"responseObject":{{"roleRef":{{"kind":"ClusterRole","name":"edit"}},"subjects":[{{"kind":"User","name":"eve"}},{{"kind":"ServiceAccount","namespace":"p","name":"s"}}]}}"#
        );
        let (subjects, role, verbs) = read("patch", &whole, None);
        assert_eq!(subjects, ["system:serviceaccount:p:s", "eve"]);
        assert_eq!((role.as_deref(), verbs.len()), (Some("edit"), 8));
    }

    #[test]
    fn a_binding_is_known_to_later_patches() {
        let mut state = ClusterState::default();
        of(&mut state, "clusterrolebindings", "r", r#"{"roleRef":{"kind":"ClusterRole","name":"edit"}}"#);
        let patch = r#"[{"op":"add","path":"/subjects/0","value":{"kind":"User","name":"eve"}}]"#;
        assert_eq!(patched(&mut state, "clusterrolebindings", patch, "null").0.len(), 8);
        assert!(patched(&mut ClusterState::default(), "clusterrolebindings", patch, "null").0.is_empty());
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
        // A client can ask for such a response: it does not contain rules, but the request does.
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
