//! Audit log entries of Google Cloud Logging.
//!
//! Takes a `LogEntry` with a `google.cloud.audit.AuditLog` payload; returns the audit event of the same request. The verb is the last part
//! of the method name, the path is the resource name, and the status is a gRPC code. Members that an entry lacks, such as the groups of
//! human users and the request headers, are omitted. Sources: the reference of both types, and `google/rpc/code.proto` for the codes.

use super::super::json::{Raw, Type};
use super::skipped;
use crate::text::escape::push_json_string;

/// The object that a resource name identifies: `core/v1/namespaces/NS/secrets/NAME`, `core/v1/secrets`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Target<'n> {
    group: &'n str,
    version: &'n str,
    namespace: &'n str,
    resource: &'n str,
    name: &'n str,
    subresource: &'n str,
}

impl<'n> Target<'n> {
    fn read(name: &'n str) -> Option<Self> {
        let mut parts = name.trim_matches('/').split('/');
        let (group, version) = (parts.next()?, parts.next()?);
        let parts: Vec<&str> = parts.collect();
        let (namespace, rest) = match parts[..] {
            // Subresources of the namespace itself.
            ["namespaces", _, "status" | "finalize"] => ("", &parts[..]),
            ["namespaces", namespace, _, ..] => (namespace, &parts[2..]),
            _ => ("", &parts[..]),
        };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default();
        let namespace = if part(0) == "namespaces" { part(1) } else { namespace };
        Some(Target {
            group: if group == "core" { "" } else { group },
            version,
            namespace,
            resource: part(0),
            name: part(1),
            subresource: part(2),
        })
    }

    /// The path of a request for the object.
    fn path(&self) -> String {
        let mut path =
            if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        path.push('/');
        path.push_str(self.version);
        if !self.namespace.is_empty() && self.resource != "namespaces" {
            path.push_str("/namespaces/");
            path.push_str(self.namespace);
        }
        for part in [self.resource, self.name, self.subresource] {
            if !part.is_empty() {
                path.push('/');
                path.push_str(part);
            }
        }
        path
    }
}

/// The HTTP status of the apiserver that was converted to this gRPC status. Codes that it never returns count as server errors.
fn http_status(code: i64, verb: &str) -> u16 {
    match code {
        0 if verb == "create" => 201,
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// The groups that follow from a user name.
fn groups(user: &str) -> Vec<String> {
    let authenticated = "system:authenticated".to_owned();
    if let Some(account) = user.strip_prefix("system:serviceaccount:") {
        let namespace = account.split(':').next().unwrap_or_default();
        let of_namespace = format!("system:serviceaccounts:{namespace}");
        return vec!["system:serviceaccounts".to_owned(), of_namespace, authenticated];
    }
    if user.starts_with("system:node:") {
        return vec!["system:nodes".to_owned(), authenticated];
    }
    if user.is_empty() || user == "system:anonymous" {
        return vec!["system:unauthenticated".to_owned()];
    }
    vec![authenticated]
}

/// Builds the audit event of an entry.
///
/// # Errors
/// Returns a reason of [`skipped`] if the entry is of another service or has no resource name.
pub(super) fn event(entry: Raw<'_>, payload: Raw<'_>) -> Result<Vec<u8>, &'static str> {
    let text = |value: Option<Raw<'_>>| -> String {
        let text = value.and_then(Raw::string).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    };
    let [id, timestamp, labels, operation] = entry.get_all(["insertId", "timestamp", "labels", "operation"]);
    let [service, method, resource, authentication, authorization, metadata, request, response, status] =
        payload.get_all([
            "serviceName",
            "methodName",
            "resourceName",
            "authenticationInfo",
            "authorizationInfo",
            "requestMetadata",
            "request",
            "response",
            "status",
        ]);
    if text(service) != "k8s.io" {
        return Err(skipped::OTHER_KIND);
    }
    let resource = text(resource);
    let target = Target::read(&resource).ok_or(skipped::OTHER_KIND)?;
    let method = text(method);
    let verb = method.rsplit('.').next().unwrap_or_default();
    // Federated identities have a subject instead of an address; an entry with neither is unauthenticated.
    let principal =
        |key| Some(text(authentication.and_then(|info| info.get(key)))).filter(|name| !name.is_empty());
    let user = principal("principalEmail").or_else(|| principal("principalSubject"));
    let user = user.unwrap_or_else(|| "system:anonymous".to_owned());
    let status_code = status.and_then(|status| status.get("code"));
    let code = status_code.and_then(|code| std::str::from_utf8(code.bytes()).ok()?.parse().ok()).unwrap_or(0);
    let is_denied = authorization
        .into_iter()
        .flat_map(Raw::items)
        .map_while(Result::ok)
        .any(|info| info.get("granted").is_some_and(|granted| granted.bytes() == b"false"));
    let code = if is_denied && code == 0 { 7 } else { code };
    let is_object = |value: Option<Raw<'_>>| value.is_some_and(|value| value.kind() == Type::Object);
    let level = match (is_object(request), is_object(response)) {
        (_, true) => "RequestResponse",
        (true, false) => "Request",
        _ => "Metadata",
    };
    let is_true = |key: &str| {
        operation.and_then(|operation| operation.get(key)).is_some_and(|value| value.bytes() == b"true")
    };
    // As in Falco's plugin for GKE: an entry reports that a stream to a container was opened, and none reports that it ended.
    let is_stream = matches!(target.subresource, "exec" | "attach");
    let is_end = is_true("last") && !is_true("first");
    let is_start = is_true("first") && !is_true("last");
    let stage = if is_start || (is_stream && !is_end) { "ResponseStarted" } else { "ResponseComplete" };

    // A stream is opened by a connection upgrade.
    let http_status = if is_stream && code == 0 { 101 } else { http_status(code, verb) };

    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1""#);
    push(&mut out, "level", level);
    push(&mut out, "auditID", &text(id));
    push(&mut out, "stage", stage);
    push(&mut out, "requestURI", &target.path());
    push(&mut out, "verb", verb);
    out.extend_from_slice(br#","user":{"username":"#);
    push_json_string(user.as_bytes(), &mut out);
    out.extend_from_slice(br#","groups":["#);
    for (at, group) in groups(&user).iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_json_string(group.as_bytes(), &mut out);
    }
    out.extend_from_slice(b"]}");
    let address = text(metadata.and_then(|metadata| metadata.get("callerIp")));
    if !address.is_empty() {
        out.extend_from_slice(br#","sourceIPs":["#);
        push_json_string(address.as_bytes(), &mut out);
        out.push(b']');
    }
    push(&mut out, "userAgent", &text(metadata.and_then(|metadata| metadata.get("callerSuppliedUserAgent"))));
    out.extend_from_slice(br#","objectRef":{"resource":"#);
    push_json_string(target.resource.as_bytes(), &mut out);
    push(&mut out, "namespace", target.namespace);
    push(&mut out, "name", target.name);
    push(&mut out, "apiGroup", target.group);
    push(&mut out, "apiVersion", target.version);
    push(&mut out, "subresource", target.subresource);
    out.extend_from_slice(br#"},"responseStatus":{"metadata":{}"#);
    push(&mut out, "message", &text(status.and_then(|status| status.get("message"))));
    out.extend_from_slice(format!(",\"code\":{http_status}}}").as_bytes());
    for (key, object) in [("requestObject", request), ("responseObject", response)] {
        if let Some(object) = object.filter(|object| object.kind() == Type::Object) {
            out.extend_from_slice(format!(",\"{key}\":").as_bytes());
            push_object(object, &mut out);
        }
    }
    let time = text(timestamp);
    push(&mut out, "requestReceivedTimestamp", &time);
    push(&mut out, "stageTimestamp", &time);
    if let Some(labels) = labels.filter(|labels| labels.kind() == Type::Object) {
        out.extend_from_slice(b",\"annotations\":");
        out.extend_from_slice(&labels.compact());
    }
    out.push(b'}');
    Ok(out)
}

/// Appends a member, unless its value is empty.
fn push(out: &mut Vec<u8>, key: &str, value: &str) {
    if !value.is_empty() {
        out.extend_from_slice(format!(",\"{key}\":").as_bytes());
        push_json_string(value.as_bytes(), out);
    }
}

/// Appends an object, with its kind from `@type` (`core.k8s.io/v1.Secret`).
fn push_object(object: Raw<'_>, out: &mut Vec<u8>) {
    let compact = object.compact();
    let kind = object.get("@type").and_then(Raw::string).unwrap_or_default();
    let kind = String::from_utf8_lossy(&kind);
    match kind.rsplit('.').next() {
        Some(kind) if !kind.is_empty() && object.get("kind").is_none() => {
            out.extend_from_slice(b"{\"kind\":");
            push_json_string(kind.as_bytes(), out);
            out.push(b',');
            out.extend_from_slice(&compact[1..]);
        }
        _ => out.extend_from_slice(&compact),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_objects_from_resource_names() {
        let target = |name| Target::read(name).map(|target| (target.path(), target.namespace, target.name));
        for (name, path, namespace, object) in [
            ("core/v1/namespaces/a/secrets/b", "/api/v1/namespaces/a/secrets/b", "a", "b"),
            ("core/v1/secrets", "/api/v1/secrets", "", ""),
            ("core/v1/namespaces/a/secrets", "/api/v1/namespaces/a/secrets", "a", ""),
            ("core/v1/namespaces/a", "/api/v1/namespaces/a", "a", "a"),
            ("core/v1/namespaces/a/finalize", "/api/v1/namespaces/a/finalize", "a", "a"),
            ("core/v1/namespaces/a/pods/b/exec", "/api/v1/namespaces/a/pods/b/exec", "a", "b"),
            (
                "rbac.authorization.k8s.io/v1/clusterroles/c",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/c",
                "",
                "c",
            ),
        ] {
            assert_eq!(target(name), Some((path.to_owned(), namespace, object)), "{name}");
        }
        assert_eq!(target("projects"), None);
    }
}
