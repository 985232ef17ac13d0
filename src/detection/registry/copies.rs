//! Registry credentials in objects other than secrets: config maps, and custom resources from which software is installed.
//!
//! Takes an event about such objects and returns those with a credential that the response handed over. If the response is logged, it
//! decides; otherwise, objects count if earlier events showed a credential in them. The cluster state records these objects, by name only.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::cluster_state::ClusterState;
use super::content::{CONFIG_MAPS, copied_configuration_keys, is_copy};
use super::failed_patch::{Quoted, quoted};
use super::request_info::{Deletion, RequestInfo};
use super::secret_view::{for_each_secret, is_known_form, unquoted};
use super::{shown, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{JsonError, Raw, Type};

/// Resources of controllers that install software, whose objects contain settings for it: Argo CD, Flux, and the Helm controller of K3s.
/// For other resources only the event itself counts.
const CUSTOM_RESOURCES: [&str; 5] =
    ["applications", "applicationsets", "helmchartconfigs", "helmcharts", "helmreleases"];

/// Maximum number of objects that an alert names, alternating between namespaces, so that a namespace with many does not displace those of
/// others.
const MAX_NAMED: usize = 100;

/// Placeholder for objects that are not named.
const UNKNOWN: &str = "*";

/// Returns whether credentials in objects of this resource are recorded.
pub(super) fn is_tracked(resource: &str) -> bool {
    resource == CONFIG_MAPS || CUSTOM_RESOURCES.contains(&resource)
}

/// Returns whether a request is about objects of such a resource. Responses to requests for the status of a custom resource contain the
/// whole object.
fn concerns_copies(request: &RequestInfo<'_>) -> bool {
    matches!(&*request.subresource, "" | "status")
        && request.resource != "secrets"
        && (request.resource != CONFIG_MAPS || request.is_built_in())
}

/// Calls a function with each object in the response, its namespace and its name. Returns false if the response does not show everything
/// that was handed over.
fn for_each_shown(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    mut each: impl FnMut(Raw<'_>, Cow<'_, str>, Cow<'_, str>),
) -> bool {
    let body = event.get(Member::ResponseObject);
    let text = unquoted(body);
    let quoted = text.as_ref().and_then(|text| Raw::first(text).ok());
    let Some(body) = quoted.or(body).filter(|body| body.kind() == Type::Object) else { return false };
    for_each_secret(body, |object| {
        let name = object.name.clone().unwrap_or_else(|| request.name.clone());
        let namespace = object.namespace.clone().unwrap_or_else(|| request.namespace.clone());
        let name = if name.is_empty() { UNKNOWN.into() } else { name };
        each(object.raw(), namespace, name);
    });
    let is_readable = request.resource != CONFIG_MAPS || is_known_form(body);
    is_readable && event.finish() != Err(JsonError::Truncated)
}

/// Records which objects the event shows with a credential, and which without one.
pub(super) fn learn(event: &mut Event<'_>, request: &RequestInfo<'_>, state: &mut ClusterState) {
    if !concerns_copies(request) || !request.may_have_persisted() {
        return;
    }
    let is_config_map = request.resource == CONFIG_MAPS;
    let mut is_shown = false;
    for_each_shown(event, request, |object, namespace, name| {
        let has_content = if is_config_map {
            object.get("data").is_some() || object.get("binaryData").is_some()
        } else {
            object.get("spec").is_some()
        };
        if is_copy(object, is_config_map) {
            is_shown = true;
            state.record_copy(&request.resource, &namespace, &name);
        } else if has_content && is_complete(object) {
            is_shown = true;
            state.remove_copy(&request.resource, &namespace, &name);
        }
    });
    let is_write = matches!(&*request.verb, "create" | "update" | "patch");
    if is_write && !is_shown && !request.name.is_empty() && sends_copy(event, request) {
        state.record_copy(&request.resource, &request.namespace, &request.name);
    }
}

/// Returns whether an object is complete: the missing part could contain the credential.
fn is_complete(object: Raw<'_>) -> bool {
    object.members().all(|member| member.is_ok())
}

/// Returns whether a request writes a credential.
fn sends_copy(event: &mut Event<'_>, request: &RequestInfo<'_>) -> bool {
    !copied_configuration_keys(event, request).is_empty()
}

/// Removes an object if the event proves that it was deleted.
pub(super) fn remove_deleted(event: &mut Event<'_>, request: &RequestInfo<'_>, state: &mut ClusterState) {
    if !request.subresource.is_empty() || request.deletion(event) != Deletion::Proven {
        return;
    }
    if request.verb == "delete" {
        state.remove_copy(&request.resource, &request.namespace, &request.name);
    }
}

/// Returns the objects with a registry credential that the response handed over, as `namespace/name`. `*` represents further ones.
pub(crate) fn copies(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    state: Option<&mut ClusterState>,
) -> Vec<String> {
    let is_watch = request.verb == "watch";
    let is_read =
        is_watch || matches!(&*request.verb, "get" | "list" | "patch" | "delete" | "deletecollection");
    if !is_read || !concerns_copies(request) {
        return Vec::new();
    }
    let stage = text(event.get(Member::Stage)).unwrap_or_default();
    let is_counted = match &*stage {
        "ResponseComplete" | "Panic" if !is_watch => true,
        "ResponseStarted" | "ResponseComplete" | "Panic" if is_watch => true,
        _ => false,
    };
    // Data that the client itself sends is not a read.
    if !is_counted || request.verb == "patch" && sends_copy(event, request) {
        return Vec::new();
    }
    let mut found = BTreeSet::new();
    let is_config_map = request.resource == CONFIG_MAPS;
    let mut add = |namespace: &str, name: &str| {
        found.insert((namespace.to_owned(), name.to_owned()));
    };
    let quoted = quoted(event, request);
    let is_whole = for_each_shown(event, request, |object, namespace, name| {
        if is_copy(object, is_config_map) {
            add(&namespace, &name);
        }
    }) && quoted.is_none();
    if let Some(Quoted::Object(text)) = &quoted
        && Raw::first(text).is_ok_and(|object| is_copy(object, is_config_map))
    {
        add(&request.namespace, &request.name);
    }
    let may_have_answered =
        request.may_have_succeeded() && request.code != Some(504) || stage == "Panic" || quoted.is_some();
    if !is_whole
        && may_have_answered
        && let Some(state) = state
    {
        state.copies(&request.resource, &request.namespace, &request.name, &mut add);
        // A watch has one or two events, depending on the policy, and counts once.
        if is_watch && !found.is_empty() && !state.is_first_of_request(event) {
            return Vec::new();
        }
    }
    selection(found)
}

fn selection(found: BTreeSet<(String, String)>) -> Vec<String> {
    let (mut place, mut current) = (0, String::new());
    let mut placed = Vec::new();
    for (namespace, name) in found {
        place = if namespace == current { place + 1 } else { 0 };
        placed.push((place, format!("{namespace}/{name}")));
        current = namespace;
    }
    placed.sort_unstable();
    let has_more = placed.len() > MAX_NAMED;
    let named = placed.into_iter().take(MAX_NAMED).map(|(_, name)| shown(name));
    named.chain(has_more.then(|| UNKNOWN.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::registry::learn;
    use crate::text::name_patterns::NamePatterns;

    const CONFIG: &str = r#"{\"auths\":{\"ghcr.io\":{\"auth\":\"Ym90Omxvb3Q=\"}}}"#;

    fn event(verb: &str, namespace: &str, name: &str, rest: &str) -> String {
        format!(
            r#"{{"level":"RequestResponse","stage":"ResponseComplete","requestURI":"/x","verb":"{verb}","objectRef":{{"resource":"configmaps","namespace":"{namespace}","name":"{name}"}},"responseStatus":{{"code":200}}{rest}}}"#
        )
    }

    fn observe(state: &mut ClusterState, event: &str) -> Vec<String> {
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        learn(&mut event, &NamePatterns::default(), state);
        copies(&mut event, &request, Some(state))
    }

    fn object(name: &str, value: &str) -> String {
        format!(r#"{{"kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"x":"{value}"}}}}"#)
    }

    #[test]
    fn copies_are_known_until_they_are_proven_to_be_gone() {
        let mut state = ClusterState::default();
        let write =
            |value: &str| event("update", "a", "x", &format!(r#","requestObject":{}"#, object("x", value)));
        let read = event("get", "a", "x", "");
        assert!(observe(&mut state, &read).is_empty());
        assert!(observe(&mut state, &write(CONFIG)).is_empty(), "a writer does not read");
        assert_eq!(observe(&mut state, &read), ["a/x"]);
        assert_eq!(observe(&mut state, &event("list", "a", "", "")), ["a/x"]);
        assert_eq!(observe(&mut state, &event("list", "", "", "")), ["a/x"]);
        for other in [event("list", "b", "", ""), event("get", "a", "y", ""), event("list", "", "y", "")] {
            assert!(observe(&mut state, &other).is_empty(), "{other}");
        }
        // The request does not show what the server stored.
        observe(&mut state, &write(""));
        assert_eq!(observe(&mut state, &read), ["a/x"]);
        let shown =
            |value: &str| event("get", "a", "x", &format!(r#","responseObject":{}"#, object("x", value)));
        assert_eq!(observe(&mut state, &shown(CONFIG)), ["a/x"]);
        let cut = shown("much more than this");
        observe(&mut state, &cut[..cut.len() - 20]);
        assert_eq!(observe(&mut state, &read), ["a/x"], "what was cut off may hold it");
        assert!(observe(&mut state, &shown("y")).is_empty());
        assert!(observe(&mut state, &read).is_empty());
        observe(&mut state, &shown(CONFIG));
        let status = r#","responseObject":{"kind":"Status","status":"Success"}"#;
        observe(&mut state, &event("delete", "a", "x", ""));
        assert_eq!(observe(&mut state, &read), ["a/x"]);
        observe(&mut state, &event("delete", "a", "x", status));
        assert!(observe(&mut state, &read).is_empty());
    }

    #[test]
    fn a_flood_does_not_evict_the_copies_of_another_namespace() {
        let mut state = ClusterState::default();
        state.record_copy(CONFIG_MAPS, "production", "x");
        for number in 0..25_000 {
            state.record_copy(CONFIG_MAPS, "mine", &number.to_string());
        }
        assert_eq!(observe(&mut state, &event("get", "production", "x", "")), ["production/x"]);
        let listed = observe(&mut state, &event("list", "", "", ""));
        assert_eq!(
            (listed.len(), &*listed[MAX_NAMED]),
            (MAX_NAMED + 1, UNKNOWN),
            "bounded, which is visible"
        );
        assert!(listed.contains(&"production/x".to_owned()));
    }

    #[test]
    fn copies_outlive_a_restart() {
        let mut state = ClusterState::default();
        state.track();
        state.record_copy(CONFIG_MAPS, "a", "x");
        let mut restored = ClusterState::default();
        for change in state.take_changes() {
            assert!(restored.restore(change.kind, &change.key, &change.value.unwrap()));
        }
        assert_eq!(observe(&mut restored, &event("get", "a", "x", "")), ["a/x"]);
    }
}
