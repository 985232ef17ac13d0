//! How a change of a namespace changes what Pod Security enforces in it.
//!
//! Takes updates and patches of namespaces and returns whether the `enforce` label was removed, lowered or raised. The label
//! of each namespace is recorded in the cluster state.

use super::cluster_state::ClusterState;
use super::{RequestInfo, bodies, is, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};

const ENFORCE_LABEL: &str = "pod-security.kubernetes.io/enforce";

/// The path of the label in a JSON patch (RFC 6901 escapes the slash).
const ENFORCE_LABEL_PATH: &str = "/metadata/labels/pod-security.kubernetes.io~1enforce";

/// What an object or patch says of the label.
enum Label {
    Unchanged,
    /// The object does not have it, or the patch removes it.
    Absent,
    Level(String),
}

impl Label {
    /// The label of a whole namespace.
    fn of(namespace: Raw<'_>) -> Self {
        text(namespace.path(&["metadata", "labels", ENFORCE_LABEL])).map_or(Label::Absent, Label::Level)
    }
}

/// Returns `removed`, `lowered` or `raised`; none if nothing changed, or if the event does not show it.
pub(crate) fn change(
    event: &mut Event<'_>,
    request: &RequestInfo,
    state: Option<&mut ClusterState>,
) -> Option<&'static str> {
    if request.resource != "namespaces"
        || !request.is_built_in()
        || !matches!(&*request.verb, "patch" | "update")
        || request.name.is_empty()
    {
        return None;
    }
    let before = state.and_then(|state| state.enforced_level(&request.name));
    let requested = event.get(Member::RequestObject).map_or(Label::Unchanged, requested_label);
    let response = event.get(Member::ResponseObject).filter(|body| is(body.get("kind"), "Namespace"));
    let after = match response.map_or(Label::Unchanged, Label::of) {
        // A response without the label is a change only if it was there before, or if this request removed it.
        Label::Absent
            if !matches!(requested, Label::Absent) && before.as_deref().is_none_or(str::is_empty) =>
        {
            return None;
        }
        Label::Unchanged => requested,
        label => label,
    };
    let strictness = |level: &str| match level {
        "restricted" => 2,
        "baseline" => 1,
        _ => 0,
    };
    match (before.as_deref(), after) {
        (_, Label::Unchanged) | (Some("" | "privileged"), Label::Absent) => None,
        (_, Label::Absent) => Some("removed"),
        // Without the label the cluster's default applies, which only `privileged` can lower.
        (None | Some(""), Label::Level(after)) if strictness(&after) == 0 => Some("lowered"),
        (None | Some(""), Label::Level(_)) => Some("raised"),
        (Some(before), Label::Level(after)) => match strictness(&after).cmp(&strictness(before)) {
            std::cmp::Ordering::Less => Some("lowered"),
            std::cmp::Ordering::Greater => Some("raised"),
            std::cmp::Ordering::Equal => None,
        },
    }
}

/// What a request asks for. A patch may leave the label unchanged.
fn requested_label(request: Raw<'_>) -> Label {
    if request.kind() == Type::Array {
        let operations = request.items().map_while(Result::ok);
        return operations
            .filter(|operation| is(operation.get("path"), ENFORCE_LABEL_PATH))
            .map(|operation| match text(operation.get("value")) {
                Some(level) if !is(operation.get("op"), "remove") => Label::Level(level),
                _ => Label::Absent,
            })
            .last()
            .unwrap_or(Label::Unchanged);
    }
    match request.path(&["metadata", "labels", ENFORCE_LABEL]) {
        Some(value) => text(Some(value)).map_or(Label::Absent, Label::Level),
        None => Label::Unchanged,
    }
}

/// Records the label of a namespace, or of a list of namespaces.
pub(super) fn learn(event: &mut Event<'_>, request: &RequestInfo, state: &mut ClusterState) {
    if request.resource != "namespaces" || !request.may_have_persisted() || !request.is_built_in() {
        return;
    }
    for body in bodies(event) {
        if let Some(items) = body.get("items").filter(|items| items.kind() == Type::Array) {
            for item in items.items().map_while(Result::ok) {
                if let Some(name) = text(item.path(&["metadata", "name"])) {
                    let level = text(item.path(&["metadata", "labels", ENFORCE_LABEL]));
                    state.record_namespace(&name, level.unwrap_or_default());
                }
            }
        } else if !request.name.is_empty() {
            let label =
                if is(body.get("kind"), "Namespace") { Label::of(body) } else { requested_label(body) };
            match label {
                Label::Unchanged => continue,
                Label::Absent => state.record_namespace(&request.name, String::new()),
                Label::Level(level) => state.record_namespace(&request.name, level),
            }
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(state: &mut ClusterState, verb: &str, request: &str, answer: &str) -> Option<&'static str> {
        let event = format!(
            r#"{{"verb":"{verb}","objectRef":{{"resource":"namespaces","namespace":"p","name":"p"}},"responseStatus":{{"code":200}},"requestObject":{request},"responseObject":{answer}}}"#
        );
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        let change = change(&mut event, &request, Some(state));
        learn(&mut event, &request, state);
        change
    }

    #[test]
    fn returns_removed_lowered_and_raised() {
        let namespace = |level: &str| {
            format!(
                r#"{{"kind":"Namespace","metadata":{{"name":"p","labels":{{"{ENFORCE_LABEL}":"{level}"}}}}}}"#
            )
        };
        let bare = r#"{"kind":"Namespace","metadata":{"name":"p","labels":{"a":"b"}}}"#;
        let mut state = ClusterState::default();
        let known = &mut state;
        let patch = |level: &str| format!(r#"{{"metadata":{{"labels":{{"{ENFORCE_LABEL}":{level}}}}}}}"#);
        assert_eq!(of(known, "patch", r#"{"metadata":{"labels":{"a":"b"}}}"#, bare), None);
        assert_eq!(of(known, "patch", &patch("\"restricted\""), &namespace("restricted")), Some("raised"));
        assert_eq!(of(known, "update", &namespace("baseline"), &namespace("baseline")), Some("lowered"));
        assert_eq!(of(known, "update", &namespace("baseline"), &namespace("baseline")), None);
        assert_eq!(of(known, "update", bare, bare), Some("removed"));
        assert_eq!(of(known, "update", bare, bare), None);
        // Without cluster state the request decides.
        for (verb, request, change) in [
            ("patch", patch("null"), Some("removed")),
            ("patch", patch("\"privileged\""), Some("lowered")),
            ("patch", format!(r#"[{{"op":"remove","path":"{ENFORCE_LABEL_PATH}"}}]"#), Some("removed")),
            (
                "patch",
                format!(r#"[{{"op":"replace","path":"{ENFORCE_LABEL_PATH}","value":"privileged"}}]"#),
                Some("lowered"),
            ),
            ("create", namespace("privileged"), None),
        ] {
            assert_eq!(of(&mut ClusterState::default(), verb, &request, "null"), change, "{verb} {request}");
        }
    }
}
