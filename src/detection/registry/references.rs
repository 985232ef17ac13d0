//! Which secrets a pod, a workload or a service account names: to pull images with, and as volume or environment variable.
//!
//! Takes request and response objects and returns the credentials among the secrets that they name, and the registries of
//! their images. References and the secrets of pods are recorded in the cluster state. Only names enter it.

use std::collections::BTreeSet;

use super::cluster_state::{ClusterState, MAX_SECRETS_PER_POD};
use super::request_info::Deletion;
use super::{RequestInfo, is, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};
use crate::text::name_patterns::NamePatterns;

/// Maximum nesting that is searched. The deepest name of a secret, in the template of a cron job, is at half of this.
const MAX_DEPTH: usize = 32;

/// The secrets that an object names.
#[derive(Debug, Default)]
struct References {
    /// Secrets in `imagePullSecrets`.
    image_pull: BTreeSet<Box<str>>,
    /// Secrets in volumes, projected volumes and environments.
    mounted: BTreeSet<Box<str>>,
}

impl References {
    /// Collects the names at any depth: pod specs are at different places in each kind of workload, in lists and in
    /// patches, but their keys are the same. Metadata is left out: keys of annotations are free text.
    fn of(value: Raw<'_>) -> Self {
        let mut references = References::default();
        if could_name_secrets(value) {
            references.walk(value, MAX_DEPTH);
        }
        references
    }

    fn walk(&mut self, value: Raw<'_>, depth: usize) {
        if depth == 0 {
            return;
        }
        match value.kind() {
            Type::Object => {
                for (key, member) in value.members().map_while(Result::ok) {
                    match &*key.text() {
                        b"imagePullSecrets" => self.add_image_pull(member),
                        b"secretName" => add(&mut self.mounted, Some(member)),
                        b"secretRef" | b"secretKeyRef" => add(&mut self.mounted, member.get("name")),
                        // A volume's `secret` has a `secretName`, a projected volume's a `name`.
                        b"secret" => {
                            add(&mut self.mounted, member.get("name"));
                            add(&mut self.mounted, member.get("secretName"));
                        }
                        // Without references, large or free text.
                        b"metadata" | b"status" => {}
                        // The path of a JSON patch operation (RFC 6902) says what its value is.
                        b"value" if patches_image_pull_secrets(value) => self.add_image_pull(member),
                        _ => self.walk(member, depth - 1),
                    }
                }
            }
            Type::Array => {
                for item in value.items().map_while(Result::ok) {
                    self.walk(item, depth - 1);
                }
            }
            Type::String | Type::Scalar => {}
        }
    }

    fn add_image_pull(&mut self, secrets: Raw<'_>) {
        add(&mut self.image_pull, secrets.get("name"));
        for secret in secrets.items().map_while(Result::ok) {
            add(&mut self.image_pull, secret.get("name"));
        }
    }
}

fn add(names: &mut BTreeSet<Box<str>>, name: Option<Raw<'_>>) {
    if names.len() < MAX_SECRETS_PER_POD
        && let Some(name) = text(name).filter(|name| !name.is_empty() && name.len() <= 253)
    {
        names.insert(name.into());
    }
}

fn patches_image_pull_secrets(operation: Raw<'_>) -> bool {
    operation
        .get("path")
        .and_then(Raw::string)
        .is_some_and(|path| memchr::memmem::find(&path, b"/imagePullSecrets").is_some())
}

/// Returns whether a value can name a secret at all: each key that does so contains these letters, unless they are escaped.
pub(super) fn could_name_secrets(value: Raw<'_>) -> bool {
    ["ecret", "\\u006", "\\u007"]
        .iter()
        .any(|letters| memchr::memmem::find(value.bytes(), letters.as_bytes()).is_some())
}

/// Records what a pod, a workload or a service account names, or a list of them.
///
/// The response is the persisted object. A request says only what was added, and only where the response is not logged or
/// left out by the client (`as=Table`, `as=PartialObjectMetadata`).
pub(super) fn learn(event: &mut Event<'_>, request: &RequestInfo, state: &mut ClusterState) {
    if !request.may_have_persisted() || !request.is_built_in() {
        return;
    }
    let is_pod = request.resource == "pods";
    match &*request.verb {
        "delete" => {
            if is_pod && request.has_name && request.deletion(event) == Deletion::Proven {
                state.remove_pod(&request.namespace, &request.name);
            }
            return;
        }
        "deletecollection" => return,
        _ => {}
    }
    let response = event.get(Member::ResponseObject).filter(|body| is_whole(*body));
    let Some(body) = response.or_else(|| event.get(Member::RequestObject)) else { return };
    let Some(items) = body.get("items").filter(|items| items.kind() == Type::Array) else {
        record(body, is_pod, response.is_some(), &request.namespace, &request.name, state);
        return;
    };
    for item in items.items().map_while(Result::ok) {
        let metadata = |key: &str| text(item.get("metadata").and_then(|metadata| metadata.get(key)));
        let namespace = metadata("namespace");
        let name = metadata("name").unwrap_or_default();
        record(item, is_pod, true, namespace.as_deref().unwrap_or(&request.namespace), &name, state);
    }
}

/// Returns whether a response shows what the object names, or is a list of objects.
fn is_whole(response: Raw<'_>) -> bool {
    is(response.get("kind"), "ServiceAccount")
        || ["spec", "template", "items", "imagePullSecrets"].iter().any(|key| response.get(key).is_some())
}

fn record(
    object: Raw<'_>,
    is_pod: bool,
    is_whole: bool,
    namespace: &str,
    name: &str,
    state: &mut ClusterState,
) {
    let references = References::of(object);
    for name in &references.image_pull {
        state.record_reference(namespace, name);
    }
    if is_pod && !name.is_empty() && !references.mounted.is_empty() {
        state.record_pod(namespace, name, references.mounted, is_whole);
    }
}

/// Returns the credentials, as `namespace/name`, that a written pod or workload mounts, and those that a pod holds on which
/// a subresource such as exec is used.
pub(crate) fn referenced_credentials(
    event: &mut Event<'_>,
    request: &RequestInfo,
    names: &NamePatterns,
    mut state: Option<&mut ClusterState>,
) -> Vec<String> {
    let namespace = &request.namespace;
    let mut mounted: Vec<Box<str>> = Vec::new();
    if !request.subresource.is_empty()
        && request.resource == "pods"
        && request.has_name
        && let Some(state) = state.as_deref_mut()
        // A long-running request has one event or two, depending on the policy, and counts once.
        && (request.subresource == "ephemeralcontainers" || state.is_first_of_request(event))
    {
        mounted.extend(state.secrets_of_pod(namespace, &request.name));
    }
    if let Some(body) = requested_object(event) {
        mounted.extend(References::of(body).mounted);
    }
    mounted.sort_unstable();
    mounted.dedup();
    mounted
        .into_iter()
        .filter(|name| match state.as_deref_mut() {
            Some(state) => state.evidence(namespace, name, names).is_some(),
            None => names.matches(name),
        })
        .map(|name| format!("{namespace}/{name}"))
        .collect()
}

/// The object as the client sent it, since the server adds a token to it; the response where the request is not logged.
fn requested_object<'a>(event: &mut Event<'a>) -> Option<Raw<'a>> {
    event.get(Member::RequestObject).or_else(|| event.get(Member::ResponseObject))
}

/// Returns the registries of the images of a pod or workload, sorted and without duplicates.
pub(crate) fn image_hosts(event: &mut Event<'_>) -> Vec<String> {
    let mut hosts = BTreeSet::new();
    if let Some(body) = requested_object(event) {
        walk_images(body, MAX_DEPTH, &mut hosts);
    }
    hosts.into_iter().collect()
}

fn walk_images(value: Raw<'_>, depth: usize, hosts: &mut BTreeSet<String>) {
    if depth == 0 || hosts.len() >= MAX_SECRETS_PER_POD {
        return;
    }
    match value.kind() {
        Type::Object => {
            for (key, member) in value.members().map_while(Result::ok) {
                match &*key.text() {
                    b"image" if member.kind() == Type::String => {
                        if let Some(image) = text(Some(member)).filter(|image| !image.is_empty()) {
                            hosts.insert(image_host(&image).to_owned());
                        }
                    }
                    b"managedFields" | b"status" => {}
                    _ => walk_images(member, depth - 1, hosts),
                }
            }
        }
        Type::Array => {
            for item in value.items().map_while(Result::ok) {
                walk_images(item, depth - 1, hosts);
            }
        }
        Type::String | Type::Scalar => {}
    }
}

/// Returns the registry of an image. The part before the first slash is a host only if it looks like one; other images are
/// on Docker Hub (`distribution/reference`, `splitDockerDomain`).
fn image_host(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _))
            if host.contains(['.', ':']) || host == "localhost" || host != host.to_lowercase() =>
        {
            host
        }
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(patterns: &[&str]) -> NamePatterns {
        NamePatterns::new(patterns.iter().copied()).unwrap()
    }

    fn event(verb: &str, resource: &str, name: &str, body: &str) -> String {
        format!(
            r#"{{"kind":"Event","verb":"{verb}","objectRef":{{"resource":"{resource}","namespace":"p","name":"{name}"}},"responseStatus":{{"code":200}},"requestObject":{body}}}"#
        )
    }

    fn credentials_of(event: &str, names: &NamePatterns, state: Option<&mut ClusterState>) -> Vec<String> {
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        referenced_credentials(&mut event, &request, names, state)
    }

    fn record_event(state: &mut ClusterState, event: &str) {
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        learn(&mut event, &request, state);
    }

    #[test]
    fn finds_every_way_to_mount_a_secret() {
        let spec = r#"{"volumes":[{"name":"a","secret":{"secretName":"reg-a"}},{"projected":{"sources":[{"secret":{"name":"reg-b"}}]}}],
            "initContainers":[{"env":[{"name":"X","valueFrom":{"secretKeyRef":{"name":"reg-c","key":"k"}}}]}],
            "ephemeralContainers":[{"envFrom":[{"secretRef":{"name":"reg-d"}}]}],"containers":[{"image":"x","env":[{"name":"reg-x","value":"secret"}]}]}"#;
        let taken = |resource: &str, body: String| {
            let event = event("create", resource, "w", &body);
            credentials_of(&event, &names(&["reg-*"]), None)
        };
        let all = ["p/reg-a", "p/reg-b", "p/reg-c", "p/reg-d"];
        assert_eq!(taken("pods", format!(r#"{{"spec":{spec}}}"#)), all);
        assert_eq!(taken("deployments", format!(r#"{{"spec":{{"template":{{"spec":{spec}}}}}}}"#)), all);
        assert_eq!(
            taken(
                "cronjobs",
                format!(r#"{{"spec":{{"jobTemplate":{{"spec":{{"template":{{"spec":{spec}}}}}}}}}}}"#)
            ),
            all
        );
        let patch =
            r#"[{"op":"add","path":"/spec/volumes/-","value":{"name":"v","secret":{"secretName":"reg-a"}}}]"#;
        assert_eq!(taken("deployments", patch.to_owned()), ["p/reg-a"]);
        assert!(taken("pods", format!("{}1{}", "[".repeat(5000), "]".repeat(5000))).is_empty());
    }

    #[test]
    fn image_pull_secrets_are_credentials_by_any_name() {
        let mut state = ClusterState::default();
        let none = NamePatterns::default();
        for (resource, body) in [
            ("pods", r#"{"spec":{"imagePullSecrets":[{"name":"one"}]}}"#),
            ("serviceaccounts", r#"{"imagePullSecrets":[{"name":"two"}],"secrets":[{"name":"token"}]}"#),
            ("deployments", r#"{"spec":{"template":{"spec":{"imagePullSecrets":[{"name":"three"}]}}}}"#),
            (
                "deployments",
                r#"[{"op":"add","path":"/spec/template/spec/imagePullSecrets","value":[{"name":"four"}]}]"#,
            ),
            ("serviceaccounts", r#"[{"op":"add","path":"/imagePullSecrets/-","value":{"name":"five"}}]"#),
            (
                "pods",
                r#"{"items":[{"metadata":{"namespace":"q","name":"x"},"spec":{"imagePullSecrets":[{"name":"six"}]}}]}"#,
            ),
        ] {
            record_event(&mut state, &event("update", resource, "w", body));
        }
        let known: Vec<&str> = state.credentials(None).map(|(key, _)| key).collect();
        assert_eq!(known, ["p/five", "p/four", "p/one", "p/three", "p/two", "q/six"]);
        assert_eq!(state.credentials(Some("q")).count(), 1);
        assert_eq!(state.credentials(Some("")).count(), 0);
        assert!(state.evidence("p", "token", &none).is_none());
        let denied = event("create", "pods", "w", r#"{"spec":{"imagePullSecrets":[{"name":"no"}]}}"#)
            .replace("200", "403");
        record_event(&mut state, &denied);
        assert!(state.evidence("p", "no", &none).is_none());
    }

    fn exec(state: &mut ClusterState, names: &NamePatterns, number: usize) -> Vec<String> {
        let event = format!(
            r#"{{"auditID":"{number}","verb":"get","objectRef":{{"resource":"pods","namespace":"p","name":"w","subresource":"exec"}}}}"#
        );
        credentials_of(&event, names, Some(state))
    }

    #[test]
    fn exec_reaches_the_credentials_of_a_pod_once_per_request() {
        let mut state = ClusterState::default();
        let names = names(&["reg*"]);
        let pod = event(
            "create",
            "pods",
            "w",
            r#"{"spec":{"volumes":[{"secret":{"secretName":"regcred"}},{"secret":{"secretName":"tls"}}]}}"#,
        );
        record_event(&mut state, &pod);
        assert_eq!(exec(&mut state, &names, 1), ["p/regcred"]);
        assert!(exec(&mut state, &names, 1).is_empty());
    }

    #[test]
    fn a_pod_changes_by_what_was_persisted_alone() {
        let names = names(&["reg*"]);
        let other = r#"{"kind":"Pod","spec":{"volumes":[{"secret":{"secretName":"other"}}]}}"#;
        let whole = r#"{"kind":"Pod","metadata":{"name":"w","annotations":{"secretName":"zzz"}},"spec":{"volumes":[{"secret":{"secretName":"regcred"}}]}}"#;
        let annotated = r#"{"metadata":{"annotations":{"secretName":"zzz","imagePullSecrets":"x"}}}"#;
        let over = r#"{"kind":"Pod","metadata":{"deletionTimestamp":"x","deletionGracePeriodSeconds":0}}"#;
        for (verb, query, code, group, bodies, is_kept) in [
            ("patch", "", 200, "", format!(r#","requestObject":{annotated},"responseObject":{whole}"#), true),
            ("patch", "", 200, "", format!(r#","requestObject":{annotated}"#), true),
            ("patch", "", 200, "", format!(r#","requestObject":{other}"#), true),
            ("update", "?dryRun=All", 200, "", format!(r#","responseObject":{other}"#), true),
            ("create", "?dryRun=All", 201, "", format!(r#","responseObject":{other}"#), true),
            (
                "create",
                "",
                409,
                "",
                format!(r#","requestObject":{other},"responseObject":{{"kind":"Status"}}"#),
                true,
            ),
            ("create", "", 201, "evil.io", format!(r#","responseObject":{other}"#), true),
            ("delete", "", 200, "", String::new(), true),
            ("delete", "?dryRun=All", 200, "", format!(r#","responseObject":{over}"#), true),
            ("delete", "", 404, "", format!(r#","responseObject":{over}"#), true),
            ("delete", "", 200, "", format!(r#","responseObject":{whole}"#), true),
            (
                "delete",
                "",
                200,
                "",
                format!(r#","requestObject":{{"dryRun":["All"]}},"responseObject":{over}"#),
                true,
            ),
            (
                "deletecollection",
                "",
                200,
                "",
                r#","responseObject":{"kind":"PodList","items":[]}"#.to_owned(),
                true,
            ),
            ("delete", "", 200, "", format!(r#","responseObject":{over}"#), false),
            ("update", "", 200, "", format!(r#","responseObject":{other}"#), false),
        ] {
            let mut state = ClusterState::default();
            record_event(&mut state, &event("create", "pods", "w", whole));
            let text = format!(
                r#"{{"level":"RequestResponse","requestURI":"/x{query}","verb":"{verb}","objectRef":{{"resource":"pods","namespace":"p","name":"w","apiGroup":"{group}"}},"responseStatus":{{"code":{code}}}{bodies}}}"#
            );
            record_event(&mut state, &text);
            let kept = exec(&mut state, &names, 1) == ["p/regcred"];
            assert_eq!(kept, is_kept, "{text}");
        }
    }

    #[test]
    fn nothing_is_learned_from_dry_runs_failures_and_custom_resources() {
        let body = r#"{"spec":{"imagePullSecrets":[{"name":"x"}]}}"#;
        let pod = event("create", "pods", "w", body);
        for text in [
            pod.replacen('{', r#"{"requestURI":"/x?dryRun=All","#, 1),
            pod.replace("200", "403"),
            pod.replace(r#""resource":"pods""#, r#""resource":"pods","apiGroup":"evil.io""#),
            event("delete", "pods", "w", body),
            event(
                "patch",
                "pods",
                "w",
                r#"{"metadata":{"annotations":{"imagePullSecrets":[{"name":"x"}]}}}"#,
            ),
        ] {
            let mut state = ClusterState::default();
            record_event(&mut state, &text);
            assert_eq!(state.credentials(None).count(), 0, "{text}");
        }
        // The query does not ask for a dry run in the reading of current versions.
        let mut state = ClusterState::default();
        record_event(&mut state, &pod.replacen('{', r#"{"requestURI":"/x?a;dryRun=All","#, 1));
        assert_eq!(state.credentials(None).count(), 1);
    }

    #[test]
    fn returns_the_hosts_of_images() {
        for (image, host) in [
            ("nginx", "docker.io"),
            ("library/nginx:1", "docker.io"),
            ("localhost/x", "localhost"),
            ("registry:5000/x", "registry:5000"),
            ("quay.io/a/b@sha256:0", "quay.io"),
        ] {
            assert_eq!(image_host(image), host);
        }
        let event = event(
            "create",
            "deployments",
            "w",
            r#"{"spec":{"template":{"spec":{"containers":[{"image":"ghcr.io/a"}],"initContainers":[{"image":"b"}]}}}}"#,
        );
        assert_eq!(image_hosts(&mut Event::new(event.as_bytes())), ["docker.io", "ghcr.io"]);
    }
}
