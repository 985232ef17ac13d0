//! Determines how an update of a namespace changes what Pod Security enforces in it.
//!
//! Takes updates and patches of namespaces and returns whether the `enforce` label was removed, lowered or raised. The label
//! of each namespace is recorded in the cluster state. The subresources `status` and `finalize` store labels, too.

use super::cluster_state::ClusterState;
use super::patch::{Written, last, writes};
use super::{RequestInfo, is, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};

const ENFORCE_LABEL: &str = "pod-security.kubernetes.io/enforce";

const ENFORCE_LABEL_KEYS: [&str; 3] = ["metadata", "labels", ENFORCE_LABEL];

/// A level that a patch copies from elsewhere in the object. Like every level that the server does not know, it enforces nothing.
const UNKNOWN_LEVEL: &str = "unknown";

/// What an object or patch states about the label.
enum Label {
    Unchanged,
    /// The patch removes it.
    Removed,
    /// The complete object does not have it.
    Missing,
    Level(String),
}

impl Label {
    /// The label of a complete namespace object.
    fn of(namespace: Raw<'_>) -> Self {
        text(namespace.path(&ENFORCE_LABEL_KEYS)).map_or(Label::Missing, Label::Level)
    }
}

/// Returns `removed`, `lowered` or `raised`; none if nothing changed, or if the event does not show it.
pub(crate) fn change(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
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
    let requested = event
        .get(Member::RequestObject)
        .map_or(Label::Unchanged, |body| requested_label(body, &request.verb));
    let response = event.get(Member::ResponseObject).filter(|body| is(body.get("kind"), "Namespace"));
    let after = match response.map_or(Label::Unchanged, Label::of) {
        Label::Unchanged => requested,
        Label::Missing if matches!(requested, Label::Removed) => requested,
        label => label,
    };
    let strictness = |level: &str| match level {
        "restricted" => 2,
        "baseline" => 1,
        _ => 0,
    };
    match (before.as_deref(), after) {
        (_, Label::Unchanged)
        | (None | Some("" | "privileged"), Label::Missing)
        | (Some("" | "privileged"), Label::Removed) => None,
        (_, Label::Removed | Label::Missing) => Some("removed"),
        // Without the label the cluster's default applies. Compared with the default, only `privileged` is lower.
        (None | Some(""), Label::Level(after)) if strictness(&after) == 0 => Some("lowered"),
        (None | Some(""), Label::Level(_)) => Some("raised"),
        (Some(before), Label::Level(after)) => match strictness(&after).cmp(&strictness(before)) {
            std::cmp::Ordering::Less => Some("lowered"),
            std::cmp::Ordering::Greater => Some("raised"),
            std::cmp::Ordering::Equal => None,
        },
    }
}

/// The label that a request sets. A patch may leave it unchanged.
fn requested_label(request: Raw<'_>, verb: &str) -> Label {
    if request.kind() == Type::Array {
        let written =
            writes(request).into_iter().filter_map(|write| write.at(&ENFORCE_LABEL_KEYS)).next_back();
        return match written {
            Some(Written::Value(value)) => text(Some(value)).map_or(Label::Removed, Label::Level),
            Some(Written::Removed) => Label::Removed,
            Some(Written::Unknown) => Label::Level(UNKNOWN_LEVEL.to_owned()),
            None => Label::Unchanged,
        };
    }
    let mut value = request;
    for key in ENFORCE_LABEL_KEYS {
        let Some(member) = last(value, key) else {
            // A strategic merge patch with this key replaces or deletes the whole map.
            if last(value, "$patch").is_some() {
                return Label::Removed;
            }
            // An applied object is complete, and the server removes labels that its author applied before and then omitted.
            let is_whole =
                verb == "update" || last(request, "apiVersion").is_some() && last(request, "kind").is_some();
            return if is_whole { Label::Missing } else { Label::Unchanged };
        };
        // In a merge patch, null deletes a member.
        if member.kind() == Type::Scalar {
            return Label::Removed;
        }
        value = member;
    }
    text(Some(value)).map_or(Label::Removed, Label::Level)
}

/// Returns the label of a complete namespace object, as the cluster state records it: empty for none.
pub(super) fn enforced_label(namespace: Raw<'_>) -> String {
    match Label::of(namespace) {
        Label::Level(level) => level,
        _ => String::new(),
    }
}

/// Records the label of a namespace, or of a list of namespaces.
pub(super) fn learn(event: &mut Event<'_>, request: &RequestInfo<'_>, state: &mut ClusterState) {
    if request.resource != "namespaces" || !request.may_have_persisted() || !request.is_built_in() {
        return;
    }
    let response = event.get(Member::ResponseObject);
    if let Some(items) = response.and_then(|response| response.get("items")) {
        for item in items.items().map_while(Result::ok) {
            if let Some(name) = text(item.path(&["metadata", "name"])) {
                state.record_namespace(&name, text(item.path(&ENFORCE_LABEL_KEYS)).unwrap_or_default());
            }
        }
        return;
    }
    if request.name.is_empty() {
        return;
    }
    let response = response.filter(|response| is(response.get("kind"), "Namespace"));
    let label = match response {
        Some(response) => Label::of(response),
        None => match event.get(Member::RequestObject) {
            Some(body) if request.verb == "create" => Label::of(body),
            Some(body) => requested_label(body, &request.verb),
            None => Label::Unchanged,
        },
    };
    match label {
        Label::Unchanged => {}
        // It is unknown whether the author of an applied object had applied the label.
        Label::Missing if request.verb == "patch" && response.is_none() => {}
        Label::Removed | Label::Missing => state.record_namespace(&request.name, String::new()),
        Label::Level(level) => state.record_namespace(&request.name, level),
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
        // Without cluster state, the request decides.
        for (verb, request, change) in [
            ("patch", patch("null"), Some("removed")),
            ("patch", patch("\"privileged\""), Some("lowered")),
            ("patch", r#"[{"op":"remove","path":"/metadata/labels/pod-security.kubernetes.io~1enforce"}]"#.to_string(), Some("removed")),
            (
                "patch",
                r#"[{"op":"replace","path":"/metadata/labels/pod-security.kubernetes.io~1enforce","value":"privileged"}]"#.to_string(),
                Some("lowered"),
            ),
            ("patch", r#"{"metadata":{"labels":null}}"#.to_owned(), Some("removed")),
            ("patch", r#"{"metadata":{"labels":{"$patch":"replace","a":"b"}}}"#.to_owned(), Some("removed")),
            ("patch", r#"[{"op":"replace","path":"/metadata/labels","value":{"a":"b"}}]"#.to_owned(), Some("removed")),
            ("patch", r#"[{"op":"remove","path":"/metadata/labels"}]"#.to_owned(), Some("removed")),
            ("patch", r#"[{"op":"test","path":"/a","value":1},{"op":"add","path":"/metadata/labels","value":{"pod-security.kubernetes.io/enforce":"privileged"}}]"#.to_owned(), Some("lowered")),
            ("patch", r#"[{"op":"copy","from":"/metadata/labels/a","path":"/metadata/labels/pod-security.kubernetes.io~1enforce"}]"#.to_owned(), Some("lowered")),
            ("patch", r#"[{"op":"add","path":"/metadata/annotations/a","value":"b"}]"#.to_owned(), None),
            ("update", bare.to_owned(), None),
            ("create", namespace("privileged"), None),
        ] {
            assert_eq!(of(&mut ClusterState::default(), verb, &request, "null"), change, "{verb} {request}");
        }
    }

    #[test]
    fn an_object_without_the_label_removes_one_that_is_known() {
        let mut state = ClusterState::default();
        let named = |label: &str| {
            format!(
                r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"p","labels":{{{label}}}}}}}"#
            )
        };
        let restricted = named(r#""pod-security.kubernetes.io/enforce":"restricted""#);
        assert_eq!(of(&mut state, "update", &restricted, "null"), Some("raised"));
        // Applied without it, and updated without it, if no response is logged.
        assert_eq!(of(&mut state, "patch", &named(""), "null"), Some("removed"));
        assert_eq!(of(&mut state, "update", &named(""), "null"), Some("removed"));
        assert_eq!(of(&mut state, "update", &named(""), "null"), None);
    }
}
