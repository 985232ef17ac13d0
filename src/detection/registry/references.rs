//! Which secrets a pod, or what makes pods, names: to pull its images with, and to take as a file or a variable.

use std::collections::BTreeSet;

use super::cluster_state::{ClusterState, MOST_OF_A_POD, object_name};
use super::{bodies, is, namespace_of, succeeded, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};
use crate::text::name_patterns::NamePatterns;

/// The deepest place of a secret's name, in a cron job's template, is at half of this.
const DEEPEST: usize = 32;

/// The secrets that an object names.
#[derive(Debug, Default)]
struct References {
    /// In `imagePullSecrets`.
    pulls: BTreeSet<Box<str>>,
    /// As volume, projected volume or environment.
    taken: BTreeSet<Box<str>>,
}

impl References {
    /// All that is named in a value, at any depth: pod specs stand at other places in each kind of workload, in lists and
    /// in patches, but their keys are the same.
    fn of(value: Raw<'_>) -> Self {
        let mut found = References::default();
        if could_name_secrets(value) {
            found.walk(value, DEEPEST);
        }
        found
    }

    fn walk(&mut self, value: Raw<'_>, depth: usize) {
        if depth == 0 {
            return;
        }
        match value.kind() {
            Type::Object => {
                for (key, member) in value.members().map_while(Result::ok) {
                    match &*key.text() {
                        b"imagePullSecrets" => self.pull(member),
                        b"secretName" => take(&mut self.taken, Some(member)),
                        b"secretRef" | b"secretKeyRef" => take(&mut self.taken, member.get("name")),
                        // A volume's `secret` has a `secretName`, a projected volume's a `name`.
                        b"secret" => {
                            take(&mut self.taken, member.get("name"));
                            take(&mut self.taken, member.get("secretName"));
                        }
                        // Large, and of no interest.
                        b"managedFields" | b"status" => {}
                        // A JSON patch (RFC 6902) says in a neighbour what its value is.
                        b"value" if patches_pull_secrets(value) => self.pull(member),
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

    fn pull(&mut self, secrets: Raw<'_>) {
        take(&mut self.pulls, secrets.get("name"));
        for secret in secrets.items().map_while(Result::ok) {
            take(&mut self.pulls, secret.get("name"));
        }
    }
}

fn take(names: &mut BTreeSet<Box<str>>, name: Option<Raw<'_>>) {
    if names.len() < MOST_OF_A_POD
        && let Some(name) = text(name).filter(|name| !name.is_empty() && name.len() <= 253)
    {
        names.insert(name.into());
    }
}

fn patches_pull_secrets(patch: Raw<'_>) -> bool {
    patch
        .get("path")
        .and_then(Raw::string)
        .is_some_and(|path| memchr::memmem::find(&path, b"/imagePullSecrets").is_some())
}

/// Whether a value can name a secret at all: each key that does has these letters, unless they are spelt with escapes.
pub(super) fn could_name_secrets(value: Raw<'_>) -> bool {
    ["ecret", "\\u006", "\\u007"]
        .iter()
        .any(|letters| memchr::memmem::find(value.bytes(), letters.as_bytes()).is_some())
}

/// Learns from pods, workloads and service accounts, one or a list of them.
pub(super) fn learn(event: &mut Event<'_>, cluster_state: &mut ClusterState) {
    if !succeeded(event) {
        return;
    }
    let object = event.object();
    let is_pod = is(object.resource, "pods");
    let namespace = namespace_of(object);
    if is(event.get(Member::Verb), "delete") {
        if let (true, Some(name)) = (is_pod, text(object.name)) {
            cluster_state.forget_pod(&namespace, &name);
        }
        return;
    }
    let name = object_name(event);
    for body in bodies(event) {
        let Some(items) = body.get("items").filter(|items| items.kind() == Type::Array) else {
            keep(body, is_pod, &namespace, name.as_deref(), cluster_state);
            continue;
        };
        for item in items.items().map_while(Result::ok) {
            let part = |key: &str| text(item.get("metadata").and_then(|metadata| metadata.get(key)));
            let own = part("namespace");
            keep(item, is_pod, own.as_deref().unwrap_or(&namespace), part("name").as_deref(), cluster_state);
        }
    }
}

fn keep(
    object: Raw<'_>,
    is_pod: bool,
    namespace: &str,
    name: Option<&str>,
    cluster_state: &mut ClusterState,
) {
    let references = References::of(object);
    for name in &references.pulls {
        cluster_state.saw_reference(namespace, name);
    }
    if let (true, Some(name), false) = (is_pod, name, references.taken.is_empty()) {
        cluster_state.saw_pod(namespace, name, references.taken.into_iter().collect());
    }
}

/// The credentials, as `namespace/name`, that a pod or workload takes which is created or changed, and those that a pod
/// holds into which somebody looks.
pub fn referenced_credentials(
    event: &mut Event<'_>,
    names: &NamePatterns,
    mut cluster_state: Option<&mut ClusterState>,
) -> Vec<String> {
    let object = event.object();
    let namespace = namespace_of(object);
    let mut taken: Vec<Box<str>> = Vec::new();
    if object.subresource.is_some()
        && is(object.resource, "pods")
        && let (Some(pod), Some(cluster_state)) = (text(object.name), cluster_state.as_deref_mut())
        // One that lasts has two events, or one, as the policy goes. It is told once.
        && (is(object.subresource, "ephemeralcontainers") || cluster_state.is_first_of_request(event))
    {
        taken.extend(cluster_state.held_by(&namespace, &pod));
    }
    // What the client asked for; the server adds tokens to it.
    let body = event.get(Member::RequestObject).or_else(|| event.get(Member::ResponseObject));
    if let Some(body) = body {
        taken.extend(References::of(body).taken);
    }
    taken.sort_unstable();
    taken.dedup();
    taken
        .into_iter()
        .filter(|name| match cluster_state.as_deref_mut() {
            Some(cluster_state) => cluster_state.evidence(&namespace, name, names).is_some(),
            None => names.matches(name),
        })
        .map(|name| format!("{namespace}/{name}"))
        .collect()
}

/// The registries that the images of a pod or workload come from, each once.
pub fn image_hosts(event: &mut Event<'_>) -> Vec<String> {
    let mut hosts = BTreeSet::new();
    let body = event.get(Member::RequestObject).or_else(|| event.get(Member::ResponseObject));
    if let Some(body) = body {
        walk_images(body, DEEPEST, &mut hosts);
    }
    hosts.into_iter().collect()
}

fn walk_images(value: Raw<'_>, depth: usize, hosts: &mut BTreeSet<String>) {
    if depth == 0 || hosts.len() >= MOST_OF_A_POD {
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

/// Where an image comes from. What stands before the first slash is a host only if it looks like one; all else is on
/// Docker Hub (`distribution/reference`, `splitDockerDomain`).
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

    fn learnt(cluster_state: &mut ClusterState, event: &str) {
        learn(&mut Event::new(event.as_bytes()), cluster_state);
    }

    #[test]
    fn every_way_to_take_a_secret_is_seen() {
        let spec = r#"{"volumes":[{"name":"a","secret":{"secretName":"reg-a"}},{"projected":{"sources":[{"secret":{"name":"reg-b"}}]}}],
            "initContainers":[{"env":[{"name":"X","valueFrom":{"secretKeyRef":{"name":"reg-c","key":"k"}}}]}],
            "ephemeralContainers":[{"envFrom":[{"secretRef":{"name":"reg-d"}}]}],"containers":[{"image":"x","env":[{"name":"reg-x","value":"secret"}]}]}"#;
        let taken = |resource: &str, body: String| {
            let event = event("create", resource, "w", &body);
            referenced_credentials(&mut Event::new(event.as_bytes()), &names(&["reg-*"]), None)
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
    fn pull_secrets_are_credentials_whatever_their_name() {
        let mut cluster_state = ClusterState::default();
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
            learnt(&mut cluster_state, &event("update", resource, "w", body));
        }
        let known: Vec<&str> = cluster_state.credentials(None).map(|(key, _)| key).collect();
        assert_eq!(known, ["p/five", "p/four", "p/one", "p/three", "p/two", "q/six"]);
        assert_eq!(cluster_state.credentials(Some("q")).count(), 1);
        assert_eq!(cluster_state.credentials(Some("")).count(), 0);
        assert!(cluster_state.evidence("p", "token", &none).is_none());
        let denied = event("create", "pods", "w", r#"{"spec":{"imagePullSecrets":[{"name":"no"}]}}"#)
            .replace("200", "403");
        learnt(&mut cluster_state, &denied);
        assert!(cluster_state.evidence("p", "no", &none).is_none());
    }

    #[test]
    fn what_a_pod_holds_is_within_reach_of_who_looks_into_it() {
        let mut cluster_state = ClusterState::default();
        let names = names(&["reg*"]);
        let pod = event(
            "create",
            "pods",
            "w",
            r#"{"spec":{"volumes":[{"secret":{"secretName":"regcred"}},{"secret":{"secretName":"tls"}}]}}"#,
        );
        learnt(&mut cluster_state, &pod);
        let exec = r#"{"verb":"get","objectRef":{"resource":"pods","namespace":"p","name":"w","subresource":"exec"}}"#;
        let within = |cluster_state: &mut ClusterState| {
            referenced_credentials(&mut Event::new(exec.as_bytes()), &names, Some(cluster_state))
        };
        assert_eq!(within(&mut cluster_state), ["p/regcred"]);
        learnt(&mut cluster_state, &event("delete", "pods", "w", "{}"));
        assert!(within(&mut cluster_state).is_empty());
    }

    #[test]
    fn images_come_from_hosts() {
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
