//! How a change of a namespace changes what Pod Security enforces there.

use super::cluster_state::ClusterState;
use super::{bodies, is, object_name, succeeded, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};

const LABEL: &str = "pod-security.kubernetes.io/enforce";

/// The label in a JSON patch's path (RFC 6901 escapes the slash).
const IN_A_PATCH: &str = "/metadata/labels/pod-security.kubernetes.io~1enforce";

/// What an event says of the label.
enum Said {
    /// Nothing.
    Nothing,
    /// It is not there, or is taken away.
    Absent,
    /// Its value.
    Level(String),
}

/// `removed`, `lowered` or `raised`; nothing where nothing changed, or the event does not show it.
pub fn change(event: &mut Event<'_>, cluster_state: Option<&mut ClusterState>) -> Option<&'static str> {
    if !is(event.object().resource, "namespaces")
        || !(is(event.get(Member::Verb), "patch") || is(event.get(Member::Verb), "update"))
    {
        return None;
    }
    let name = object_name(event)?;
    let before = cluster_state.and_then(|cluster_state| cluster_state.enforced_in(&name));
    let asked = event.get(Member::RequestObject).map_or(Said::Nothing, asked);
    let after = match said(event) {
        // An answer without the label is news only if it was there, or if this request took it away.
        Said::Absent if !matches!(asked, Said::Absent) && before.as_deref().is_none_or(str::is_empty) => {
            return None;
        }
        Said::Nothing => asked,
        said => said,
    };
    let strictness = |level: &str| match level {
        "restricted" => 2,
        "baseline" => 1,
        _ => 0,
    };
    match (before.as_deref(), after) {
        (_, Said::Nothing) | (Some("" | "privileged"), Said::Absent) => None,
        (_, Said::Absent) => Some("removed"),
        // Without the label the cluster's default holds, which `privileged` lowers if anything does.
        (None | Some(""), Said::Level(after)) if strictness(&after) == 0 => Some("lowered"),
        (None | Some(""), Said::Level(_)) => Some("raised"),
        (Some(before), Said::Level(after)) => match strictness(&after).cmp(&strictness(before)) {
            std::cmp::Ordering::Less => Some("lowered"),
            std::cmp::Ordering::Greater => Some("raised"),
            std::cmp::Ordering::Equal => None,
        },
    }
}

/// What a request asks for: a patch may leave the label alone.
fn asked(request: Raw<'_>) -> Said {
    if request.kind() == Type::Array {
        let operations = request.items().map_while(Result::ok);
        return operations
            .filter(|operation| is(operation.get("path"), IN_A_PATCH))
            .map(|operation| match text(operation.get("value")) {
                Some(level) if !is(operation.get("op"), "remove") => Said::Level(level),
                _ => Said::Absent,
            })
            .last()
            .unwrap_or(Said::Nothing);
    }
    match request.path(&["metadata", "labels", LABEL]) {
        Some(value) => text(Some(value)).map_or(Said::Absent, Said::Level),
        None => Said::Nothing,
    }
}

/// What the answer says: it is the whole namespace.
fn said(event: &mut Event<'_>) -> Said {
    match event.get(Member::ResponseObject).filter(|answer| is(answer.get("kind"), "Namespace")) {
        Some(answer) => text(answer.path(&["metadata", "labels", LABEL])).map_or(Said::Absent, Said::Level),
        None => Said::Nothing,
    }
}

/// Learns the labels of namespaces, from one or a list of them.
pub(super) fn learn(event: &mut Event<'_>, cluster_state: &mut ClusterState) {
    if !is(event.object().resource, "namespaces") || !succeeded(event) {
        return;
    }
    let name = object_name(event);
    for body in bodies(event) {
        if let Some(items) = body.get("items").filter(|items| items.kind() == Type::Array) {
            for item in items.items().map_while(Result::ok) {
                if let Some(name) = text(item.path(&["metadata", "name"])) {
                    let level = text(item.path(&["metadata", "labels", LABEL]));
                    cluster_state.saw_namespace(&name, level.unwrap_or_default());
                }
            }
        } else if let Some(name) = &name {
            let is_whole = is(body.get("kind"), "Namespace");
            let said = if is_whole {
                text(body.path(&["metadata", "labels", LABEL])).map_or(Said::Absent, Said::Level)
            } else {
                asked(body)
            };
            match said {
                Said::Nothing => continue,
                Said::Absent => cluster_state.saw_namespace(name, String::new()),
                Said::Level(level) => cluster_state.saw_namespace(name, level),
            }
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cluster_state: &mut ClusterState, verb: &str, request: &str, answer: &str) -> Option<&'static str> {
        let event = format!(
            r#"{{"verb":"{verb}","objectRef":{{"resource":"namespaces","namespace":"p","name":"p"}},"responseStatus":{{"code":200}},"requestObject":{request},"responseObject":{answer}}}"#
        );
        let mut event = Event::new(event.as_bytes());
        let change = change(&mut event, Some(cluster_state));
        learn(&mut event, cluster_state);
        change
    }

    #[test]
    fn removed_lowered_and_raised() {
        let namespace = |level: &str| {
            format!(r#"{{"kind":"Namespace","metadata":{{"name":"p","labels":{{"{LABEL}":"{level}"}}}}}}"#)
        };
        let bare = r#"{"kind":"Namespace","metadata":{"name":"p","labels":{"a":"b"}}}"#;
        let mut cluster_state = ClusterState::default();
        let known = &mut cluster_state;
        let patch = |level: &str| format!(r#"{{"metadata":{{"labels":{{"{LABEL}":{level}}}}}}}"#);
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
            ("patch", format!(r#"[{{"op":"remove","path":"{IN_A_PATCH}"}}]"#), Some("removed")),
            (
                "patch",
                format!(r#"[{{"op":"replace","path":"{IN_A_PATCH}","value":"privileged"}}]"#),
                Some("lowered"),
            ),
            ("create", namespace("privileged"), None),
        ] {
            assert_eq!(of(&mut ClusterState::default(), verb, &request, "null"), change, "{verb} {request}");
        }
    }
}
