//! Audit annotations whose names a shipper changed.
//!
//! Elasticsearch treats a dot in a name as a nested object. So shippers write `authorization_k8s_io/decision`, or a nested object, for
//! `authorization.k8s.io/decision`. Takes the text of an event; returns it with the names that the apiserver wrote.

use super::super::event::Member;
use super::super::json::{Cursor, Raw, Type};
use crate::text::escape::push_json_string;

/// Deeper objects are left as they are.
const MAX_DEPTH: usize = 16;

/// Whether an event has annotations with changed names.
pub(super) fn is_dedotted(record: Raw<'_>) -> bool {
    record.get("annotations").is_some_and(is_changed)
}

fn is_changed(annotations: Raw<'_>) -> bool {
    annotations
        .members()
        .map_while(Result::ok)
        .any(|(key, value)| value.kind() == Type::Object || undotted(&key.text()).is_some())
}

/// The name with its dots restored. The prefix of a Kubernetes annotation is a domain, which contains no underscore.
fn undotted(name: &[u8]) -> Option<Vec<u8>> {
    let slash = memchr::memchr(b'/', name)?;
    let (domain, rest) = name.split_at(slash);
    let is_changed = domain.contains(&b'_') && !domain.contains(&b'.');
    is_changed.then(|| {
        let dotted = domain.iter().map(|byte| if *byte == b'_' { b'.' } else { *byte });
        dotted.chain(rest.iter().copied()).collect()
    })
}

/// The event with the names of its annotations as the apiserver wrote them; `None` if they are unchanged.
pub(super) fn with_dots(event: &[u8]) -> Option<Vec<u8>> {
    let mut cursor = Cursor::new(event, b'{');
    loop {
        let (key, value) = cursor.member()?.ok()?;
        if Member::named(&key.text()) != Some(Member::Annotations) {
            continue;
        }
        if !is_changed(value) {
            return None;
        }
        let end = cursor.position();
        let mut out = Vec::with_capacity(event.len());
        out.extend_from_slice(&event[..end - value.bytes().len()]);
        out.push(b'{');
        let start = out.len();
        push_flat(value, &mut Vec::new(), 0, start, &mut out);
        out.push(b'}');
        out.extend_from_slice(&event[end..]);
        return Some(out);
    }
}

/// Appends the members of an object, prefixed with the names of the enclosing objects.
fn push_flat(object: Raw<'_>, name: &mut Vec<u8>, depth: usize, start: usize, out: &mut Vec<u8>) {
    let length = name.len();
    for (key, value) in object.members().map_while(Result::ok) {
        if length > 0 {
            name.push(b'.');
        }
        name.extend_from_slice(&key.text());
        if value.kind() == Type::Object && depth < MAX_DEPTH {
            push_flat(value, name, depth + 1, start, out);
        } else {
            if out.len() > start {
                out.push(b',');
            }
            push_json_string(&undotted(name).unwrap_or_else(|| name.clone()), out);
            out.push(b':');
            out.extend_from_slice(value.bytes());
        }
        name.truncate(length);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn annotations_get_their_names_back() {
        let plain = r#"{"kind":"Event","annotations":{"authorization.k8s.io/decision":"allow","pod-security.kubernetes.io/enforce-policy":"x","a_b":"c"},"x":1}"#;
        for changed in [
            r#"{"kind":"Event","annotations":{"authorization_k8s_io/decision":"allow","pod-security_kubernetes_io/enforce-policy":"x","a_b":"c"},"x":1}"#,
            r#"{"kind":"Event","annotations":{"authorization":{"k8s":{"io/decision":"allow"}},"pod-security":{"kubernetes":{"io/enforce-policy":"x"}},"a_b":"c"},"x":1}"#,
        ] {
            assert_eq!(String::from_utf8(with_dots(changed.as_bytes()).unwrap()).unwrap(), plain);
            assert!(is_dedotted(Raw::assume(changed.as_bytes())));
        }
        assert_eq!(with_dots(plain.as_bytes()), None);
        assert_eq!(with_dots(br#"{"annotations":1}"#), None);
        assert_eq!(with_dots(br#"{"annotations":{"a_b/"#), None);
    }
}
