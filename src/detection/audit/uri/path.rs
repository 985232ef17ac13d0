//! Determines what a request path refers to, as the apiserver's `RequestInfoFactory` does.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`. The apiserver writes the result to `objectRef`; this module is for
//! events whose line was truncated before `objectRef`.

use super::{decode_percent, query::Readings};

/// The object that a path refers to. Members are empty if the path does not contain them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: Vec<u8>,
    pub(crate) version: Vec<u8>,
    pub(crate) namespace: Vec<u8>,
    pub(crate) resource: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) subresource: Vec<u8>,
}

impl Target {
    /// Reads a URI; `None` if it is not a request for a resource. Takes the verb of the event, if known: the apiserver reads the name of an
    /// object from the field selector of a list or watch, but not of a deletion.
    pub(crate) fn of(uri: &[u8], verb: Option<&[u8]>) -> Option<Self> {
        let path = memchr::memchr(b'?', uri).map_or(uri, |question| &uri[..question]);
        // Decoded first, then split: `%2F` separates like `/`.
        let path = decode_percent(path, false);
        let path = trim_slashes(&path);
        let mut parts = path.split(|byte| *byte == b'/');
        let group = match parts.next()? {
            b"api" => &[][..],
            b"apis" => parts.next()?,
            _ => return None,
        };
        let version = parts.next()?;
        let mut parts: Vec<&[u8]> = parts.collect();
        let mut has_subresource = true;
        if matches!(parts.first(), Some(&(b"watch" | b"proxy"))) && parts.len() > 1 {
            has_subresource = parts[0] != b"proxy";
            parts.remove(0);
        }
        let mut namespace = &[][..];
        if let [b"namespaces", name, rest @ ..] = &parts[..] {
            namespace = *name;
            if rest.first().is_some_and(|part| !matches!(*part, b"status" | b"finalize")) {
                parts.drain(..2);
            }
        }
        let part = |at: usize| parts.get(at).copied().unwrap_or_default().to_vec();
        let mut target = Target {
            group: group.to_vec(),
            version: version.to_vec(),
            namespace: namespace.to_vec(),
            resource: part(0),
            name: part(1),
            subresource: if has_subresource { part(2) } else { Vec::new() },
        };
        if target.resource.is_empty() {
            return None;
        }
        if target.name.is_empty() && matches!(verb, None | Some(b"list" | b"watch")) {
            target.name = selected_name(uri).unwrap_or_default();
        }
        Some(target)
    }
}

/// The name that a field selector requires. The apiserver uses it as the name of the request.
fn selected_name(uri: &[u8]) -> Option<Vec<u8>> {
    let readings = Readings::of(uri);
    let selector = readings.current().field_selector().ok()?;
    let name = selector.required("metadata.name").next()?.to_vec();
    let is_segment = name != b"." && name != b".." && !name.iter().any(|byte| matches!(byte, b'/' | b'%'));
    is_segment.then_some(name)
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(start, |last| last + 1);
    &path[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_the_apiserver_reads_them() {
        for (uri, expected) in [
            ("/api/v1/secrets", Some(" v1  secrets  ")),
            ("/api/v1/namespaces/p/secrets/x?watch=1", Some(" v1 p secrets x ")),
            ("/api/v1/namespaces/p/secrets/?limit=5", Some(" v1 p secrets  ")),
            ("//api/v1/namespaces/p/%73ecrets%2Fx", Some(" v1 p secrets x ")),
            ("/api/v1/namespaces/p/secrets/a+b", Some(" v1 p secrets a+b ")),
            ("/api/v1/watch/namespaces/p/secrets/x", Some(" v1 p secrets x ")),
            ("/api/v1/namespaces/p/pods/x/exec?command=cat", Some(" v1 p pods x exec")),
            ("/api/v1/namespaces/p", Some(" v1 p namespaces p ")),
            ("/api/v1/namespaces/p/finalize", Some(" v1 p namespaces p finalize")),
            ("/apis/apps/v1/namespaces/p/deployments/x/scale", Some("apps v1 p deployments x scale")),
            (
                "/api/v1/secrets?fieldSelector=metadata.name%3Dx%2Cmetadata.namespace%3Dp",
                Some(" v1  secrets x "),
            ),
            ("/api/v1/secrets?fieldSelector=metadata.name!%3Dx", Some(" v1  secrets  ")),
            ("/api/v1", None),
            ("/apis/apps/v1", None),
            ("/healthz", None),
            ("/", None),
            ("", None),
            ("/API/v1/secrets", None),
        ] {
            let target = Target::of(uri.as_bytes(), None).map(|target| {
                [
                    target.group,
                    target.version,
                    target.namespace,
                    target.resource,
                    target.name,
                    target.subresource,
                ]
                .map(|part| String::from_utf8(part).unwrap())
                .join(" ")
            });
            assert_eq!(target.as_deref(), expected, "{uri}");
        }
    }
}
