//! Which stream a record comes from, where its wrapper says so.
//!
//! Any pod can print an audit event to its own log. Where a wrapper names the pod, the file or the log stream that a record was read
//! from, only those of the apiserver count.

use super::super::json::Raw;
use super::pod::Pod;
use super::prefix::Prefix;
use super::skipped;

/// Whether a log stream of CloudWatch is one of the apiserver's audit events.
pub(super) fn is_apiserver_stream(name: &[u8]) -> bool {
    name.starts_with(b"kube-apiserver-audit")
}

/// Checks what a header says of the stream.
///
/// # Errors
/// Returns the reason to skip the line if it is not the apiserver's.
pub(super) fn check(prefix: &Prefix<'_>) -> Result<(), &'static str> {
    let is_other = prefix.pod.is_some_and(|pod| !pod.is_apiserver())
        || prefix.log_stream.is_some_and(|stream| !is_apiserver_stream(stream));
    if is_other { Err(skipped::OTHER_STREAM) } else { Ok(()) }
}

/// Whether a path names the log of a container that is not an apiserver.
pub(super) fn is_other_path(path: &[u8]) -> bool {
    Pod::of_path(path).is_some_and(|pod| !pod.is_apiserver())
}

/// Whether a record names another source than an apiserver.
pub(super) fn is_foreign(record: Raw<'_>) -> bool {
    const FILES: [&str; 5] = ["file", "filename", "path", "source", "log_file"];
    const TAGS: [&str; 4] = ["tag", "_tag", "fluentbit_tag", "@log_name"];
    const CONTAINERS: [&str; 3] = ["CONTAINER_NAME", "_container_name", "container_name"];
    let is_other = |pod: Option<Pod<'_>>| pod.is_some_and(|pod| pod.is_known() && !pod.is_apiserver());
    record.members().map_while(Result::ok).any(|(key, value)| {
        let key = key.text();
        let is = |names: &[&str]| names.iter().any(|name| name.as_bytes() == &*key);
        let Some(text) = value.string() else {
            return match &*key {
                b"kubernetes" | b"labels" | b"stream" => is_other(Some(Pod::of_object(value))),
                // Labels of a monitored resource of Google.
                b"resource" => {
                    value.get("labels").is_some_and(|labels| is_other(Some(Pod::of_object(labels))))
                }
                b"log" => {
                    let path = value.path(&["file", "path"]).and_then(Raw::string);
                    is_other(path.as_deref().and_then(Pod::of_path))
                }
                _ => false,
            };
        };
        (is(&FILES) && is_other(Pod::of_path(&text)))
            || (is(&TAGS) && is_other(Pod::of_tag(&text)))
            || (is(&CONTAINERS) && is_other(Pod::of_docker(&text)))
            // What a node's agents collect of containers, in CloudWatch.
            || (&*key == b"logStream" && is_other(Pod::of_tag(&text)))
    })
}

/// Whether the attributes of an OpenTelemetry resource name another source than an apiserver.
pub(super) fn is_foreign_resource(attributes: Raw<'_>) -> bool {
    let mut pod = Pod::default();
    let mut is_other_file = false;
    for attribute in attributes.items().map_while(Result::ok) {
        let [key, value] = attribute.get_all(["key", "value"]);
        let text = value.and_then(|value| value.get("stringValue")).map(Raw::bytes).unwrap_or_default();
        let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
        match key.and_then(Raw::string).as_deref() {
            Some(b"k8s.namespace.name") => pod.namespace = Some(text),
            Some(b"k8s.pod.name") => pod.name = Some(text),
            Some(b"k8s.container.name") => pod.container = Some(text),
            Some(b"log.file.path") => {
                is_other_file |= Pod::of_path(text).is_some_and(|pod| !pod.is_apiserver());
            }
            _ => {}
        }
    }
    is_other_file || pod.is_known() && !pod.is_apiserver()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_apiserver_counts_where_a_pod_is_named() {
        for (record, is_other) in [
            (
                r#"{"kubernetes":{"namespace_name":"kube-system","pod_name":"kube-apiserver-cp1","container_name":"kube-apiserver"}}"#,
                false,
            ),
            (r#"{"kubernetes":{"host":"cp-1","labels":{}}}"#, false),
            (
                r#"{"kubernetes":{"namespace":"kube-system","pod":{"name":"kube-apiserver-cp1"},"container":{"name":"kube-apiserver"}}}"#,
                false,
            ),
            (r#"{"kubernetes":{"namespace":"default","pod":{"name":"kube-apiserver-cp1"}}}"#, true),
            (r#"{"kubernetes":{"namespace_name":"default","pod_name":"web-0"}}"#, true),
            (
                r#"{"kubernetes":{"pod_namespace":"kube-system","pod_name":"coredns-1","container_name":"coredns"}}"#,
                true,
            ),
            (r#"{"file":"/var/log/kubernetes/audit.log"}"#, false),
            (r#"{"file":"/var/log/pods/default_web-0_1/web/0.log"}"#, true),
            (r#"{"file":"/var/log/pods/kube-system_kube-apiserver-cp1_1/kube-apiserver/0.log"}"#, false),
            (r#"{"log":{"file":{"path":"/var/log/containers/web-0_default_web-12ab.log"}}}"#, true),
            (r#"{"tag":"kube.var.log.containers.web-0_default_web-12ab.log"}"#, true),
            (
                r#"{"tag":"kube.var.log.containers.kube-apiserver-cp1_kube-system_kube-apiserver-12ab.log"}"#,
                false,
            ),
            (r#"{"tag":"audit"}"#, false),
            (r#"{"CONTAINER_NAME":"k8s_web_web-0_default_1_0"}"#, true),
            (r#"{"labels":{"namespace":"default","pod":"web-0"}}"#, true),
            (r#"{"labels":{"job":"audit"}}"#, false),
            (
                r#"{"resource":{"type":"k8s_container","labels":{"namespace_name":"default","pod_name":"web-0"}}}"#,
                true,
            ),
            (r#"{"logStream":"n-application.var.log.containers.web-0_default_web-12ab.log"}"#, true),
        ] {
            assert_eq!(is_foreign(Raw::assume(record.as_bytes())), is_other, "{record}");
        }
    }
}
