//! Determines which stream a record comes from, if its wrapper says so.
//!
//! Any pod can print an audit event to its own log, so if a wrapper names the pod, file or log stream that a record was read from, only
//! records of the apiserver count. Takes the names and values of a wrapper, whether they are members of an object, nested or with dots in
//! their names, labels, attributes, or columns of a table; returns whether they name a different source.

use super::super::json::{Raw, Type};
use super::pod::Pod;
use super::skipped;

/// Longer names are not among the known ones.
const MAX_NAME_LEN: usize = 64;

/// Objects whose members describe the source of a record, in lower case.
const SCOPES: [&[u8]; 24] = [
    b"kube",
    b"metadata",
    b"@metadata",
    b"meta",
    b"tags",
    b"attrs",
    b"resources",
    b"resources_string",
    b"attributes_string",
    b"kubernetes",
    b"k8s",
    b"labels",
    b"stream",
    b"resource",
    b"attributes",
    b"resourceattributes",
    b"resource_attributes",
    b"logattributes",
    b"fields",
    b"log",
    b"file",
    b"docker",
    b"pod",
    b"container",
];

/// Maximum number of elements read from a list that describes the source of a record.
const MAX_LIST_LEN: usize = 256;

/// Maximum nesting of these objects: `resource.labels.pod_name`, `resource.attributes.k8s.pod.name`.
const MAX_SCOPE_DEPTH: usize = 4;

/// Prefixes of names that describe the collector itself, such as `collector.k8s.pod.name`.
const COLLECTORS: [&[u8]; 5] = [b"agent", b"collector", b"shipper", b"forwarder", b"observer"];

/// Azure diagnostic categories of the other control plane logs.
const OTHER_CATEGORIES: [&[u8]; 10] = [
    b"kube-apiserver",
    b"kube-controller-manager",
    b"kube-scheduler",
    b"cluster-autoscaler",
    b"cloud-controller-manager",
    b"guard",
    b"csi-azuredisk-controller",
    b"csi-azurefile-controller",
    b"csi-snapshot-controller",
    b"karpenter-events",
];

/// Whether a CloudWatch log stream contains the apiserver's audit events.
pub(super) fn is_apiserver_stream(name: &[u8]) -> bool {
    name.starts_with(b"kube-apiserver-audit")
}

/// Whether a docker container is a control plane node of k3d, kind or minikube.
fn is_node(container: &[u8]) -> bool {
    let is_of_k3d = container.starts_with(b"k3d-") && memchr::memmem::find(container, b"-server-").is_some();
    is_of_k3d || container.ends_with(b"-control-plane") || container == b"minikube"
}

/// Whether a path names the log of a container other than an apiserver.
pub(super) fn is_other_path(path: &[u8]) -> bool {
    Pod::of_path(path).is_some_and(|pod| !pod.is_apiserver())
}

/// What a wrapper states about the source of a record. Unknown properties count as matching.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordSource {
    /// Whether the namespace, pod and container, if named, are those of an apiserver.
    namespace: Option<bool>,
    pod: Option<bool>,
    container: Option<bool>,
    /// Whether a path, tag or log stream belongs to another log.
    is_other: bool,
    /// Whether the Azure category, if named, belongs to another log.
    is_other_category: Option<bool>,
    has_log_stream: bool,
    /// Another member identifies an Azure record; the categories of other records have a different meaning.
    is_azure: bool,
}

impl RecordSource {
    /// Reads the members of a record.
    pub(super) fn of(record: Raw<'_>) -> Self {
        let mut source = RecordSource::default();
        source.add_members(record, &mut Vec::new(), 0);
        source
    }

    /// Reads the attributes of an OpenTelemetry resource or record.
    pub(super) fn of_attributes(attributes: Raw<'_>) -> Self {
        let mut source = RecordSource::default();
        source.add_list(attributes, &mut b"attributes.".to_vec());
        source
    }

    /// Adds a list of names and values, each in an object, as OpenTelemetry and its exporters write attributes.
    fn add_list(&mut self, list: Raw<'_>, path: &mut Vec<u8>) {
        let length = path.len();
        for attribute in list.items().map_while(Result::ok).take(MAX_LIST_LEN) {
            let [key, value, exported_key, exported_value, name] =
                attribute.get_all(["key", "value", "Key", "Value", "name"]);
            let key = key.or(exported_key).or(name).and_then(Raw::string);
            let text = value.or(exported_value).and_then(|value| match value.kind() {
                Type::Object => {
                    let texts = value.get_all(["stringValue", "string_value", "Value", "value"]);
                    texts.into_iter().flatten().find_map(Raw::string)
                }
                _ => value.string(),
            });
            if let (Some(key), Some(text)) = (key, text) {
                path.extend_from_slice(&key);
                self.add(path, &text);
                path.truncate(length);
            }
        }
    }

    /// Whether the record comes from a source other than an apiserver.
    pub(super) fn is_other(self) -> bool {
        self.skip_reason().is_some()
    }

    /// The reason to skip the record, if it comes from a source other than an apiserver.
    pub(super) fn skip_reason(self) -> Option<&'static str> {
        let is_pod_known = self.pod.is_some() || self.container.is_some();
        let is_other_pod = is_pod_known && [self.namespace, self.pod, self.container].contains(&Some(false));
        match self {
            _ if self.is_other || is_other_pod => Some(skipped::OTHER_STREAM),
            _ if self.is_other_category == Some(true) && self.is_azure => Some(skipped::OTHER_KIND),
            _ => None,
        }
    }

    /// Whether a CloudWatch log stream or an Azure category is named.
    pub(super) fn is_stream_named(self) -> bool {
        self.has_log_stream || self.is_other_category.is_some()
    }

    fn add_members(&mut self, object: Raw<'_>, path: &mut Vec<u8>, depth: usize) {
        let length = path.len();
        for (key, value) in object.members().map_while(Result::ok) {
            let key = key.text();
            if length + key.len() > MAX_NAME_LEN {
                continue;
            }
            path.extend_from_slice(&key);
            match value.kind() {
                Type::String => {
                    let text = value.string().unwrap_or_default();
                    self.add(path, &text);
                    // Labels as JSON text, as in Grafana exports.
                    if depth < MAX_SCOPE_DEPTH && text.starts_with(b"{") && is_scope(path, &key) {
                        if text.starts_with(b"{\"") {
                            path.push(b'.');
                            self.add_members(Raw::assume(&text), path, depth + 1);
                        } else {
                            self.add_labels(&text);
                        }
                    }
                }
                Type::Array if is_known(path) => {
                    // Elasticsearch returns every field of a document as a list; tags are a list in any case.
                    let count = if Role::named(path) == Some(Role::Tags) { MAX_LIST_LEN } else { 1 };
                    for text in value.items().map_while(Result::ok).take(count).filter_map(Raw::string) {
                        self.add(path, &text);
                    }
                }
                Type::Array if depth < MAX_SCOPE_DEPTH && is_scope(path, &key) => {
                    path.push(b'.');
                    self.add_list(value, path);
                }
                Type::Object if depth < MAX_SCOPE_DEPTH && is_scope(path, &key) => {
                    path.push(b'.');
                    self.add_members(value, path, depth + 1);
                }
                _ => {}
            }
            path.truncate(length);
        }
    }

    /// Adds labels as Loki writes them, `{name="value", …}`, and returns the position after them.
    pub(super) fn add_labels(&mut self, labels: &[u8]) -> Option<usize> {
        let mut at = 1;
        if labels.get(at) == Some(&b'}') {
            return Some(at + 1);
        }
        loop {
            let name_len = memchr::memchr(b'=', labels.get(at..)?)?;
            let name = labels[at..at + name_len].trim_ascii();
            at += name_len + 1;
            if name.is_empty() || labels.get(at) != Some(&b'"') {
                return None;
            }
            let start = at + 1;
            at = start;
            while *labels.get(at)? != b'"' {
                at += if labels[at] == b'\\' { 2 } else { 1 };
            }
            self.add(&[b"labels.", name].concat(), &labels[start..at]);
            at += 1;
            match labels.get(at)? {
                b',' => at += 1,
                b'}' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// Adds a named value: of a member (with dots between the names of nested objects), a label or a column.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        let Some(role) = Role::named(name) else { return };
        // An empty table cell, or a placeholder such as a dash: a name starts with a letter or a digit.
        let is_name = value.first().is_some_and(u8::is_ascii_alphanumeric);
        let is_of_pod = matches!(role, Role::Namespace | Role::PodNamespace | Role::Pod | Role::Container);
        if value.is_empty() || is_of_pod && !is_name {
            return;
        }
        let is_other = |pod: Option<Pod<'_>>| pod.is_some_and(|pod| pod.is_known() && !pod.is_apiserver());
        let of = |namespace, name, container| Pod { namespace, name, container }.is_apiserver();
        let add = |slot: &mut Option<bool>, is_apiserver| *slot = Some(slot.unwrap_or(true) && is_apiserver);
        match role {
            Role::Namespace => add(&mut self.namespace, of(Some(value), None, None)),
            // Inside a description of a pod, this decides even without the name of the pod.
            Role::PodNamespace => self.is_other |= !of(Some(value), None, None),
            Role::Pod => add(&mut self.pod, of(None, Some(value), None)),
            Role::Container if Pod::of_docker(value).is_some() => {
                self.is_other |= is_other(Pod::of_docker(value));
            }
            Role::Container => add(&mut self.container, is_node(value) || of(None, None, Some(value))),
            Role::DockerName => self.is_other |= is_other(Pod::of_docker(value)),
            // Splunk's connector writes the container name into the source type.
            Role::SourceType => {
                if let Some(container) = value.strip_prefix(b"kube:container:") {
                    add(&mut self.container, of(None, None, Some(container)));
                }
            }
            Role::Path => self.is_other |= is_other(Pod::of_path(value)),
            Role::Tag => self.is_other |= is_other(Pod::of_tag(value).or(Pod::of_docker(value))),
            Role::Instance => self.is_other |= is_other(Pod::of_instance(value)),
            Role::Tags => {
                for tag in value.split(|byte| *byte == b',').take(MAX_LIST_LEN) {
                    let mut parts = tag.trim_ascii().splitn(2, |byte| *byte == b':');
                    if let (Some(name), Some(value)) = (parts.next(), parts.next())
                        && Role::named(name) != Some(Role::Tags)
                    {
                        self.add(name, value);
                    }
                }
            }
            Role::LogStream => {
                self.has_log_stream = true;
                self.is_other |= !is_apiserver_stream(value);
            }
            Role::AzureMember => self.is_azure = true,
            Role::Category => {
                let is_other = self.is_other_category == Some(true) || OTHER_CATEGORIES.contains(&value);
                self.is_other_category = Some(is_other);
            }
        }
    }

    /// Adds a value of a table without column names, if its format reveals what it is.
    pub(super) fn add_unnamed(&mut self, value: &[u8]) {
        for name in [&b"file"[..], b"tag", b"_container_name"] {
            self.add(name, value);
        }
        // The other EKS control plane log streams, which end in a number; pods can have similar names.
        let others =
            [&b"kube-apiserver-"[..], b"authenticator-", b"kube-controller-manager-", b"kube-scheduler-"];
        let number = others.iter().find_map(|start| value.strip_prefix(*start));
        self.is_other |=
            number.is_some_and(|number| number.len() == 32 && number.iter().all(u8::is_ascii_hexdigit));
    }
}

/// The meaning of a value, determined by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Namespace,
    /// The same, inside a description of a pod: below `kubernetes`.
    PodNamespace,
    Pod,
    Container,
    /// A container name outside a description of a pod: it only decides if it has the format that the kubelet uses.
    DockerName,
    Path,
    Tag,
    /// A target of Grafana's collector: `NAMESPACE/POD:CONTAINER`.
    Instance,
    /// Datadog tags: `NAME:VALUE`.
    Tags,
    /// A Splunk source type.
    SourceType,
    /// A CloudWatch log stream.
    LogStream,
    /// The category of an Azure diagnostic record.
    Category,
    /// A member that identifies such a record.
    AzureMember,
}

impl Role {
    fn named(name: &[u8]) -> Option<Self> {
        if name.len() > MAX_NAME_LEN {
            return None;
        }
        // Shippers write the same name with dots, underscores or slashes, in upper or lower case.
        let mut plain = [0; MAX_NAME_LEN];
        for (to, from) in plain.iter_mut().zip(name) {
            *to = if matches!(from, b'_' | b'/') { b'.' } else { from.to_ascii_lowercase() };
        }
        let mut rest = &plain[..name.len()];
        // Alibaba's tags, and underscores around a name.
        rest = rest.strip_prefix(b"..tag..:").unwrap_or(rest);
        while let [b'.', inner @ ..] | [inner @ .., b'.'] = rest {
            rest = inner;
        }
        let strip = |rest: &mut &[u8], starts: &[&[u8]]| {
            let found = starts.iter().find_map(|start| rest.strip_prefix(*start));
            *rest = found.unwrap_or(rest);
            found.is_some()
        };
        // Most names start with none of these prefixes.
        let starts: &[&[u8]] = match rest.first() {
            Some(b'r') => &[
                b"resource.labels.",
                b"resource.attributes.",
                b"resourceattributes.",
                b"resource.",
                b"resources.string.",
                b"resources.",
            ],
            Some(b'a') => &[b"attributes.string.", b"attributes.", b"attrs."],
            Some(b'l') => &[b"labels.", b"logattributes."],
            Some(b'@' | b'm') => &[b"@metadata.", b"metadata.", b"meta."],
            Some(b's') => &[b"stream."],
            Some(b't') => &[b"tags."],
            Some(b'f') => &[b"fields."],
            _ => &[],
        };
        let mut is_scoped = strip(&mut rest, starts);
        // Anything before the name of the system is a record name: `data.kubernetes.pod_name`.
        let mut at = 0;
        let mut system = None;
        for segment in rest.split(|byte| *byte == b'.') {
            let end = at + segment.len() + 1;
            if matches!(segment, b"kubernetes" | b"k8s" | b"kube") && end < rest.len() {
                system = Some((at, end));
            }
            at = end;
        }
        if let Some((at, end)) = system {
            let mut before = rest[..at].split(|byte| *byte == b'.');
            if before.any(|segment| COLLECTORS.contains(&segment)) {
                return None;
            }
            (rest, is_scoped) = (&rest[end..], true);
        }
        let role = match rest {
            b"namespace" | b"namespace.name" | b"namespacename" | b"pod.namespace" | b"podnamespace" => {
                if system.is_some() {
                    Role::PodNamespace
                } else {
                    Role::Namespace
                }
            }
            b"pod" | b"pod.name" | b"podname" | b"pod.s" => Role::Pod,
            b"container" | b"container.name" | b"containername" if is_scoped => Role::Container,
            b"container.name" | b"containername" | b"docker.container.name" | b"name" => Role::DockerName,
            b"instance" if is_scoped => Role::Instance,
            b"ddtags" | b"tags" => Role::Tags,
            b"file" | b"filename" | b"file.name" | b"file.path" | b"path" | b"source" | b"log.file"
            | b"log.path" | b"log.file.path" => Role::Path,
            b"sourcetype" => Role::SourceType,
            b"tag" | b"fluentbit.tag" | b"fluent.tag" | b"fluentd.tag" | b"@log.name" => Role::Tag,
            b"logstream"
            | b"@logstream"
            | b"logstreamname"
            | b"aws.cloudwatch.log.stream"
            | b"awscloudwatch.log.stream" => Role::LogStream,
            b"category" => Role::Category,
            b"resourceid" | b"operationname" | b"timegenerated" | b"log.s" => Role::AzureMember,
            _ => return None,
        };
        Some(role)
    }
}

/// Whether the value under this name identifies the source of a record.
pub(super) fn is_known(name: &[u8]) -> bool {
    Role::named(name).is_some()
}

/// Whether the members of the object at a path, whose last name is `key`, describe the source of a record. Pod labels do not, because the
/// creator of the pod chooses them.
fn is_scope(path: &[u8], key: &[u8]) -> bool {
    match key {
        _ if path.len() == key.len() => SCOPES.iter().any(|scope| scope.eq_ignore_ascii_case(key)),
        b"labels" => path.starts_with(b"resource."),
        _ => [&b"pod"[..], b"container", b"namespace", b"file", b"kubernetes", b"k8s", b"attributes"]
            .iter()
            .any(|scope| scope.eq_ignore_ascii_case(key)),
    }
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
            // The creator of a pod chooses its labels.
            (
                r#"{"kubernetes":{"labels":{"pod":"web"},"namespace_name":"kube-system","pod_name":"kube-apiserver-a"}}"#,
                false,
            ),
            (r#"{"kubernetes.namespace_name":"default","kubernetes.pod_name":"web-0"}"#, true),
            (r#"{"kubernetes.pod.name":"web-0"}"#, true),
            (r#"{"kubernetes.namespace":"kube-system","kubernetes.pod.name":"kube-apiserver-cp1"}"#, false),
            (r#"{"k8s.pod.name":"web-0"}"#, true),
            (r#"{"fields":{"kubernetes.pod.name":["web-0"]}}"#, true),
            (r#"{"fields":{"pod":"web-0","namespace":"default"},"source":"x"}"#, true),
            (r#"{"fields":{"message":["x"]}}"#, false),
            (r#"{"resource":{"attributes":{"k8s.pod.name":"web-0"}}}"#, true),
            (r#"{"namespace":"default"}"#, false),
            (r#"{"file":"/var/log/kubernetes/audit.log"}"#, false),
            (r#"{"file":"/var/log/pods/default_web-0_1/web/0.log"}"#, true),
            (r#"{"file":{"path":"/var/log/pods/default_web-0_1/web/0.log"}}"#, true),
            (r#"{"file":"/var/log/pods/kube-system_kube-apiserver-cp1_1/kube-apiserver/0.log"}"#, false),
            (r#"{"log":{"file":{"path":"/var/log/containers/web-0_default_web-12ab.log"}}}"#, true),
            (r#"{"log.file.path":"/var/log/containers/web-0_default_web-12ab.log"}"#, true),
            (r#"{"tag":"kube.var.log.containers.web-0_default_web-12ab.log"}"#, true),
            (
                r#"{"tag":"kube.var.log.containers.kube-apiserver-cp1_kube-system_kube-apiserver-12ab.log"}"#,
                false,
            ),
            (r#"{"tag":"audit"}"#, false),
            (r#"{"CONTAINER_NAME":"k8s_web_web-0_default_1_0"}"#, true),
            (r#"{"CONTAINER_NAME":"k3d-a-server-0"}"#, false),
            (r#"{"labels":{"namespace":"default","pod":"web-0"}}"#, true),
            (r#"{"labels":{"job":"audit"}}"#, false),
            (r#"{"labels":{"filename":"/var/log/pods/default_web-0_1/web/0.log"}}"#, true),
            (r#"{"stream":{"filename":"/var/log/pods/default_web-0_1/web/0.log"}}"#, true),
            (r#"{"stream":{"filename":"/var/log/kubernetes/audit.log"}}"#, false),
            (
                r#"{"resource":{"type":"k8s_container","labels":{"namespace_name":"default","pod_name":"web-0"}}}"#,
                true,
            ),
            (r#"{"logStream":"n-application.var.log.containers.web-0_default_web-12ab.log"}"#, true),
            (r#"{"@logStream":"authenticator-1"}"#, true),
            (r#"{"logStreamName":"kube-apiserver-audit-1"}"#, false),
            (r#"{"aws.cloudwatch.log_stream":"kube-scheduler-1"}"#, true),
            (r#"{"Category":"kube-scheduler","log_s":"x"}"#, true),
            (r#"{"category":"kube-apiserver","log":"x"}"#, false),
            (r#"{"labels":"{\"pod\":\"web-0\",\"namespace\":\"default\"}"}"#, true),
            (r#"{"Category":"kube-audit-admin"}"#, false),
            (r#"{"Resource":{"k8s.pod.name":"web-0"}}"#, true),
            (r#"{"Resource":[{"Key":"k8s.pod.name","Value":{"Type":"STRING","Value":"web-0"}}]}"#, true),
            (r#"{"Resource":{"attributes":{"k8s":{"pod":{"name":"web-0"}}}}}"#, true),
            (r#"{"ResourceAttributes":{"k8s.pod.name":"web-0"}}"#, true),
            (r#"{"ResourceAttributes":{"k8s.pod.name":"kube-apiserver-a"}}"#, false),
            (r#"{"Attributes":{"log.file.path":"/var/log/pods/default_web-0_1/web/0.log"}}"#, true),
            (r#"{"LogAttributes":{"log.file.path":"/var/log/pods/default_web-0_1/web/0.log"}}"#, true),
            (r#"{"attributes":[{"key":"k8s.pod.name","value":{"stringValue":"web-0"}}]}"#, true),
            (r#"{"attributes":[{"key":"k8s.pod.name","value":"web-0"}]}"#, true),
            (r#"{"attributes":[{"key":"k8s.pod.name","value":"kube-apiserver-a"}]}"#, false),
            (r#"{"_pod_name_":"web-0","_namespace_":"default"}"#, true),
            (r#"{"_pod_name_":"kube-apiserver-a","_namespace_":"kube-system"}"#, false),
            (r#"{"__tag__:_pod_name_":"web-0"}"#, true),
            (r#"{"__tag__:__path__":"/var/log/pods/default_web-0_1/web/0.log"}"#, true),
            (r#"{"_kubernetes_pod_name":"web-0"}"#, true),
            (r#"{"_k8s_namespace_name":"default","_k8s_pod_name":"kube-apiserver-a"}"#, true),
            (r#"{"podName":"web-0"}"#, true),
            (r#"{"PodName":"kube-apiserver-a","PodNamespace":"default"}"#, true),
            (r#"{"pod":{"name":"web-0"}}"#, true),
            (r#"{"pod":{"name":"kube-apiserver-a","namespace":"default"}}"#, true),
            (r#"{"data.kubernetes.pod_name":"web-0"}"#, true),
            (r#"{"docker.container.labels.io.kubernetes.pod.name":"web-0"}"#, true),
            (r#"{"sourcetype":"kube:container:web"}"#, true),
            (r#"{"sourcetype":"kube:container:kube-apiserver"}"#, false),
            (r#"{"sourcetype":"kube:audit"}"#, false),
            (r#"{"pod_s":"web-0"}"#, true),
            (r#"{"kubernetes.pod.name":"-","kubernetes.namespace":"","logStream":""}"#, false),
            (r#"{"kubernetes":{"namespace_name":"default"}}"#, true),
            (r#"{"kubernetes":{"namespace_name":"kube-system"}}"#, false),
            (r#"{"k8s.namespace.name":"default"}"#, true),
            (r#"{"labels":"{pod=\"web-0\"}"}"#, true),
            (r#"{"stream":"{job=\"audit\"}"}"#, false),
            (r#"{"metadata":{"kubernetes":{"pod_name":"web-0"}}}"#, true),
            (r#"{"@metadata":{"pod":"web-0"}}"#, true),
            (r#"{"ddtags":"env:a,pod_name:web-0,kube_namespace:default"}"#, true),
            (r#"{"tags":["env:a","pod_name:web-0"]}"#, true),
            (r#"{"tags":["pod_name:kube-apiserver-a","kube_namespace:kube-system"]}"#, false),
            (r#"{"tags":"tags:tags:pod_name"}"#, false),
            (r#"{"kube":{"pod":"web-0"}}"#, true),
            (r#"{"resources_string":{"k8s.pod.name":"web-0"}}"#, true),
            (r#"{"attributes_string":{"log.file.path":"/var/log/pods/default_web-0_1/web/0.log"}}"#, true),
            (r#"{"Name":"k8s_web_web-0_default_1_0"}"#, true),
            (r#"{"name":"audit"}"#, false),
            (r#"{"attrs":{"io.kubernetes.pod.name":"web-0"}}"#, true),
            (r#"{"attrs":{"tag":"k8s_web_web-0_default_1_0"}}"#, true),
            (r#"{"labels":{"instance":"default/web-0:web"}}"#, true),
            (r#"{"labels":{"instance":"kube-system/kube-apiserver-a:kube-apiserver"}}"#, false),
            (r#"{"labels":{"instance":"cp-1:9100"}}"#, false),
            (r#"{"labels":{"instance":"https://cp-1:6443"}}"#, false),
            (r#"{"labels":{"instance":"a/cp-1:6443"}}"#, false),
            // Metadata of the collector itself.
            (r#"{"collector.k8s.pod.name":"otel-1"}"#, false),
            (r#"{"agent":{"kubernetes":{"pod_name":"fluent-bit-1"}}}"#, false),
            (r#"{"resource":{"attributes":{"collector.k8s.pod.name":"otel-1"}}}"#, false),
            (r#"{"k8s.pod.name":"otel-1"}"#, true),
            // Nodes that run as containers.
            (r#"{"labels":{"container":"k3d-a-server-0"}}"#, false),
            (r#"{"labels":{"container":"minikube"}}"#, false),
            (r#"{"labels":{"container":"kind-control-plane"}}"#, false),
            (r#"{"labels":{"container":"k3d-a-agent-0"}}"#, true),
            (r#"{"labels":{"container":"minikube","pod":"web-0"}}"#, true),
            (
                r#"{"kubernetes":{"namespace_name":"openshift-authentication","pod_name":"oauth-openshift-1"}}"#,
                false,
            ),
        ] {
            assert_eq!(RecordSource::of(Raw::assume(record.as_bytes())).is_other(), is_other, "{record}");
        }
    }

    #[test]
    fn values_of_a_table_without_names_are_known_by_their_form() {
        for (value, is_other) in [
            ("/var/log/pods/default_web-0_1/web/0.log", true),
            ("/var/log/kubernetes/audit.log", false),
            ("n-application.var.log.containers.web-0_default_web-12ab.log", true),
            ("authenticator-0123456789abcdef0123456789abcdef", true),
            ("kube-apiserver-0123456789abcdef0123456789abcdef", true),
            ("kube-apiserver-audit-0123456789abcdef0123456789abcdef", false),
            // The name of a pod, and of a container.
            ("kube-apiserver-cp1", false),
            ("kube-apiserver", false),
            ("kube-audit", false),
            ("2026-11-23T03:46:20Z", false),
        ] {
            let mut source = RecordSource::default();
            source.add_unnamed(value.as_bytes());
            assert_eq!(source.is_other(), is_other, "{value}");
        }
    }
}
