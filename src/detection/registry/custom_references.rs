//! Registry credentials that a custom resource names, and that an operator passes to what it runs or installs for the resource.
//!
//! Takes a written custom resource, whole or as a patch, of any kind, and returns the credentials among the secrets that it names. The
//! schema is not known, so a name is recognized by its place: the value of a member whose name contains `secret`, the name in an object
//! below such a member, or the name in an object of the kind Secret. A name alone proves little, so the secret must be known to be a
//! credential by stronger evidence than its name.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::cluster_state::ClusterState;
use super::evidence::Evidence;
use super::patch::{Written, is_index, last, writes};
use super::{RequestInfo, is, shown, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};
use crate::text::name_patterns::NamePatterns;

/// Maximum nesting that is searched.
const MAX_DEPTH: usize = 32;

/// Maximum number of different names read from one object. If there are more, the rest counts as an unknown credential.
const MAX_NAMES: usize = 1000;

/// Maximum length of the name of a secret or a namespace.
const MAX_NAME_LEN: usize = 253;

/// Letters that every object contains that names a credential, unless they are escaped.
pub(crate) const LITERAL: &str = "ecret";

/// API groups of Kubernetes itself that contain a dot, and of its snapshots (whose classes name secrets), without `.k8s.io`.
const BUILT_IN_GROUPS: [&str; 19] = [
    "admissionregistration",
    "apiextensions",
    "apiregistration",
    "authentication",
    "authorization",
    "certificates",
    "coordination",
    "discovery",
    "events",
    "flowcontrol.apiserver",
    "groupsnapshot.storage",
    "internal.apiserver",
    "networking",
    "node",
    "rbac.authorization",
    "resource",
    "scheduling",
    "snapshot.storage",
    "storage",
];

/// Flux API groups whose objects pull from registries with the secrets that they name: such a login is only sent to its own registry.
const PULLING_GROUPS: [&str; 2] = ["image.toolkit.fluxcd.io", "source.toolkit.fluxcd.io"];

/// Returns the registry credentials, as `namespace/name`, that a written custom resource names for purposes other than pulling images.
/// `namespace/*` represents unknown ones.
pub(crate) fn named_by_custom_resource(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    names: &NamePatterns,
    state: Option<&mut ClusterState>,
) -> Vec<String> {
    let Some(state) = state.filter(|_| is_custom(request.api_group())) else { return Vec::new() };
    let body = event.get(Member::RequestObject).or_else(|| event.get(Member::ResponseObject));
    let mut found = Names::default();
    for write in body.into_iter().flat_map(writes) {
        let keys: Vec<Cow<'_, [u8]>> = write.path.into_iter().filter(|key| !is_index(key)).collect();
        if let Written::Value(value) = write.value
            && !keys.iter().any(|key| is_skipped(key))
        {
            let is_of_secret = match &keys[..] {
                [.., parent, key] => names_secret(key) || **key == *b"name" && names_secret(parent),
                [key] => names_secret(key),
                [] => false,
            };
            found.add(is_of_secret, value, MAX_DEPTH.saturating_sub(keys.len()));
        }
    }
    let Names { names: found, is_partial } = found;
    let mut credentials: BTreeSet<String> = found
        .into_iter()
        .map(|(namespace, name)| (namespace.unwrap_or_else(|| request.namespace.to_string()), name))
        .filter(|(namespace, name)| {
            state.evidence(namespace, name, names).is_some_and(|evidence| evidence >= Evidence::Reference)
        })
        .map(|(namespace, name)| shown(format!("{namespace}/{name}")))
        .collect();
    if is_partial {
        credentials.insert(format!("{}/*", request.namespace));
    }
    credentials.into_iter().collect()
}

/// Returns whether an API group is one of custom resources.
pub(crate) fn is_custom(group: &str) -> bool {
    let is_built_in = group.strip_suffix(".k8s.io").is_some_and(|name| BUILT_IN_GROUPS.contains(&name));
    group.contains('.') && !is_built_in && !PULLING_GROUPS.contains(&group)
}

/// The secrets that an object names.
#[derive(Debug, Default)]
struct Names {
    /// Namespace, unless it is that of the object, and name.
    names: BTreeSet<(Option<String>, String)>,
    is_partial: bool,
}

impl Names {
    /// Adds the secrets that a value names. Arrays are transparent: their elements have the key of the array.
    fn add(&mut self, is_of_secret: bool, value: Raw<'_>, depth: usize) {
        if depth == 0 {
            self.is_partial = true;
            return;
        }
        match value.kind() {
            Type::Object => {
                let is_secret = is_of_secret || is(last(value, "kind"), "Secret");
                if is_secret && let Some(name) = last(value, "name") {
                    self.insert(text(last(value, "namespace")), name);
                }
                for (key, member) in value.members().map_while(Result::ok) {
                    let key = key.text();
                    if !is_skipped(&key) {
                        self.add(names_secret(&key), member, depth - 1);
                    }
                }
            }
            Type::Array => {
                for item in value.items().map_while(Result::ok) {
                    self.add(is_of_secret, item, depth - 1);
                }
            }
            Type::String if is_of_secret => self.insert(None, value),
            Type::String | Type::Scalar => {}
        }
    }

    fn insert(&mut self, namespace: Option<String>, name: Raw<'_>) {
        let Some(name) = text(Some(name)).filter(|name| !name.is_empty() && name.len() <= MAX_NAME_LEN)
        else {
            return;
        };
        let namespace = namespace.filter(|name| !name.is_empty() && name.len() <= MAX_NAME_LEN);
        if self.names.len() < MAX_NAMES {
            self.names.insert((namespace, name));
        } else {
            self.is_partial = true;
        }
    }
}

/// Returns whether the member of this name names a secret, or contains an object that does.
fn names_secret(key: &[u8]) -> bool {
    key.windows(LITERAL.len()).any(|letters| letters == LITERAL.as_bytes())
}

/// Returns whether the member of this name is excluded from the search: metadata, members that the operator itself writes, secrets for
/// pulling and pushing images, and secrets that an operator fills.
fn is_skipped(key: &[u8]) -> bool {
    const USES: [&[u8]; 2] = [b"pull", b"push"];
    matches!(key, b"metadata" | b"status" | b"matchLabels" | b"dockerRegistrySecret")
        || key.starts_with(b"write")
        || key.windows(4).any(|letters| USES.iter().any(|word| letters.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::registry::observe;

    fn names() -> NamePatterns {
        NamePatterns::new(["registry-*"]).unwrap()
    }

    fn state() -> ClusterState {
        let mut state = ClusterState::default();
        let created = r#"{"stage":"ResponseComplete","verb":"create","objectRef":{"resource":"secrets","namespace":"p","name":"blue"},"responseStatus":{"code":201},"requestObject":{"type":"kubernetes.io/dockerconfigjson"}}"#;
        let mut event = Event::new(created.as_bytes());
        let request = RequestInfo::of(&mut event);
        observe(&mut event, &request, &names(), &mut state);
        state
    }

    fn of(group: &str, verb: &str, body: &str) -> Vec<String> {
        let event = format!(
            r#"{{"stage":"ResponseComplete","verb":"{verb}","objectRef":{{"resource":"x","apiGroup":"{group}","namespace":"p","name":"x"}},"responseStatus":{{"code":200}},"requestObject":{body}}}"#
        );
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        named_by_custom_resource(&mut event, &request, &names(), Some(&mut state()))
    }

    #[test]
    fn every_form_of_a_reference_counts() {
        for spec in [
            r#"{"volumes":[{"secret":{"secretName":"blue"}}]}"#,
            r#"{"template":{"spec":{"containers":[{"envFrom":[{"secretRef":{"name":"blue"}}]}]}}}"#,
            r#"{"steps":[{"env":[{"valueFrom":{"secretKeyRef":{"name":"blue","key":"k"}}}]}]}"#,
            r#"{"valuesFrom":[{"kind":"Secret","name":"blue"}]}"#,
            r#"{"driver":{"secrets":[{"name":"blue","path":"/x"}]}}"#,
            r#"{"existingSecret":"blue"}"#,
            r#"{"envSecrets":["blue"]}"#,
            r#"{"bearerTokenSecret":{"key":"k","name":"blue"}}"#,
            r#"{"from":{"kind":"Secret","namespace":"p","name":"blue"}}"#,
        ] {
            assert_eq!(
                of("sparkoperator.k8s.io", "create", &format!(r#"{{"spec":{spec}}}"#)),
                ["p/blue"],
                "{spec}"
            );
            assert_eq!(of("example.com", "create", &format!(r#"{{"spec":{spec}}}"#)), ["p/blue"], "{spec}");
        }
        for operation in [
            r#"{"op":"add","path":"/spec/volumes/-","value":{"secret":{"secretName":"blue"}}}"#,
            r#"{"op":"replace","path":"/spec/volumes/0/secret/secretName","value":"blue"}"#,
            r#"{"op":"replace","path":"/spec/env/0/valueFrom/secretKeyRef/name","value":"blue"}"#,
            r#"{"op":"add","path":"/spec/valuesFrom/0","value":{"kind":"Secret","name":"blue"}}"#,
        ] {
            assert_eq!(of("example.com", "patch", &format!("[{operation}]")), ["p/blue"], "{operation}");
        }
        let many: Vec<String> = (0..=MAX_NAMES).map(|number| format!("\"s{number}\"")).collect();
        assert_eq!(
            of("example.com", "create", &format!(r#"{{"spec":{{"secrets":[{}]}}}}"#, many.join(","))),
            ["p/*"]
        );
    }

    #[test]
    fn what_pulls_images_or_names_another_secret_does_not_count() {
        for (group, spec) in [
            ("example.com", r#"{"imagePullSecrets":[{"name":"blue"}]}"#),
            ("example.com", r#"{"image":{"pullSecret":"blue"},"output":{"pushSecret":{"name":"blue"}}}"#),
            ("example.com", r#"{"writeConnectionSecretToRef":{"name":"blue"}}"#),
            ("example.com", r#"{"secretName":"green"}"#),
            ("example.com", r#"{"secretName":"registry-tls"}"#),
            ("example.com", r#"{"secretRef":{"name":"blue","namespace":"other"}}"#),
            ("example.com", r#"{"configMapRef":{"name":"blue"}}"#),
            ("example.com", r#"{"template":{"metadata":{"annotations":{"secret":"blue"}}}}"#),
            ("source.toolkit.fluxcd.io", r#"{"secretRef":{"name":"blue"}}"#),
            ("networking.k8s.io", r#"{"tls":[{"secretName":"blue"}]}"#),
            ("apps", r#"{"secretName":"blue"}"#),
        ] {
            let found = of(group, "create", &format!(r#"{{"spec":{spec}}}"#));
            // A secret that only shares its name with a credential of another namespace is not known to be one.
            assert!(found.is_empty(), "{group} {spec}: {found:?}");
        }
    }
}
