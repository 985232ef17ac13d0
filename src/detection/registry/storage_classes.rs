//! Secrets that storage classes name: a driver receives them with each volume or snapshot of the class.
//!
//! Takes storage classes, snapshot classes, and the contents and volumes that carry on what a class named, and returns the registry
//! credentials among the secrets that their parameters and annotations name. A name can contain variables, which the driver's sidecars fill
//! with the names and annotations of a claim.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster_state::ClusterState;
use super::patch::{Written, last, writes};
use super::{is, shown, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::Raw;
use crate::text::name_patterns::NamePatterns;

/// The resources whose parameters or annotations name secrets. Persistent volumes name others as well.
pub(super) const RESOURCES: [&str; 7] = [
    "storageclasses",
    "volumeattributesclasses",
    "volumesnapshotclasses",
    "volumesnapshotcontents",
    "volumegroupsnapshotclasses",
    "volumegroupsnapshotcontents",
    "persistentvolumes",
];

/// Maximum number of credentials that are returned.
const MAX_NAMED: usize = 100;

/// Maximum length of a parameter or annotation that is read as a name.
const MAX_NAME_LEN: usize = 1024;

/// The maps that name secrets.
const MAPS: [&[&str]; 2] = [&["parameters"], &["metadata", "annotations"]];

/// Returns the registry credentials, as `namespace/name`, that a written storage class names. `*` represents a namespace or a name that the
/// event does not show.
pub(super) fn named_credentials(
    event: &mut Event<'_>,
    names: &NamePatterns,
    mut state: Option<&mut ClusterState>,
) -> BTreeSet<String> {
    let [request, response] = [event.get(Member::RequestObject), event.get(Member::ResponseObject)];
    let mut values = request.map(values_of).unwrap_or_default();
    // A patch may show only one of name and namespace.
    let completes = request.is_none() || !values.is_empty() && is(event.get(Member::Verb), "patch");
    if completes && let Some(response) = response.filter(|body| last(*body, "metadata").is_some()) {
        values.extend(values_of(response));
    }
    let mut credentials = BTreeSet::new();
    for (key, name) in values.iter().filter(|(key, _)| is_name_key(key)) {
        let namespace = values.get(&format!("{key}space")).map(String::as_str);
        let [namespace, name] = [namespace.unwrap_or(UNKNOWN), name].map(Template::of);
        add_credentials(&namespace, &name, names, state.as_deref_mut(), &mut credentials);
    }
    credentials
}

/// A value that the event does not show.
const UNKNOWN: &str = "${}";

/// Whether a parameter names a secret: `csi.storage.k8s.io/node-stage-secret-name`, `adminSecretName`. Names of parameters for its
/// namespace end in `space`.
fn is_name_key(key: &str) -> bool {
    key.ends_with("secret-name") || key.ends_with("secretname")
}

/// Returns the secret-related parameters and annotations that an object, or a patch of one, writes, by key in lower case: the in-tree
/// drivers ignore case.
fn values_of(body: Raw<'_>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut add = |key: &[u8], value: Written<'_>| {
        let key = String::from_utf8_lossy(key).to_lowercase();
        if is_name_key(key.strip_suffix("space").unwrap_or(&key)) {
            let value = match value {
                Written::Value(value) => text(Some(value)),
                Written::Unknown => Some(UNKNOWN.to_owned()),
                Written::Removed => None,
            };
            if let Some(value) = value.filter(|value| !value.is_empty() && value.len() <= MAX_NAME_LEN) {
                values.insert(key, value);
            }
        }
    };
    for write in writes(body) {
        for map in MAPS {
            match (write.at(map), write.path.split_last()) {
                (Some(Written::Value(map)), _) => {
                    map.members()
                        .map_while(Result::ok)
                        .for_each(|(key, value)| add(&key.text(), Written::Value(value)));
                }
                (None, Some((key, above)))
                    if above.iter().map(|key| &**key).eq(map.iter().map(|key| key.as_bytes())) =>
                {
                    add(key, write.value);
                }
                _ => {}
            }
        }
    }
    values
}

/// Adds the credentials that a namespace and a name can refer to.
fn add_credentials(
    namespace: &Template<'_>,
    name: &Template<'_>,
    names: &NamePatterns,
    state: Option<&mut ClusterState>,
    credentials: &mut BTreeSet<String>,
) {
    // Any secret of any namespace: one for each volume, chosen by its user.
    if namespace.is_open() && name.is_open() {
        return;
    }
    let before = credentials.len();
    if let Some(state) = state {
        if let (Some(namespace), Some(name)) = (namespace.literal(), name.literal()) {
            if state.evidence(namespace, name, names).is_some() {
                credentials.insert(shown(format!("{namespace}/{name}")));
            }
            return;
        }
        let (known, _) = state.select_credentials(namespace.literal(), MAX_NAMED, |known| {
            namespace.matches(known.namespace) && name.matches(known.name)
        });
        for known in known {
            if credentials.len() < MAX_NAMED {
                credentials.insert(format!("{}/{}", known.namespace, known.name));
            }
        }
    }
    if credentials.len() == before && !name.is_open() && names.matches(&name.pieces.concat()) {
        credentials.insert(shown(format!("{}/{}", namespace.pieces.join("*"), name.pieces.join("*"))));
    }
}

/// A name with variables: `${pvc.namespace}`, `${pvc.annotations['team/key']}`.
struct Template<'t> {
    /// The texts before, between and after the variables.
    pieces: Vec<&'t str>,
}

impl<'t> Template<'t> {
    fn of(name: &'t str) -> Self {
        let mut parts = name.split("${");
        let first = parts.next();
        let rest = parts.map(|part| part.split_once('}').map_or("", |(_, after)| after));
        Template { pieces: first.into_iter().chain(rest).collect() }
    }

    fn literal(&self) -> Option<&'t str> {
        if let [name] = self.pieces[..] { Some(name) } else { None }
    }

    /// Whether it consists only of variables.
    fn is_open(&self) -> bool {
        self.pieces.iter().all(|piece| piece.is_empty())
    }

    fn matches(&self, name: &str) -> bool {
        let [first, between @ .., last] = &self.pieces[..] else { return self.literal() == Some(name) };
        let Some(mut rest) = name.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
            return false;
        };
        between.iter().all(|piece| {
            let found = rest.find(piece);
            rest = found.map_or("", |at| &rest[at + piece.len()..]);
            found.is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::registry::{RequestInfo, observe, referenced_credentials};

    fn names() -> NamePatterns {
        NamePatterns::new(["regcred*"]).unwrap()
    }

    fn known() -> ClusterState {
        let mut state = ClusterState::default();
        for (namespace, name) in [("prod", "images"), ("stage", "images"), ("prod", "pull-shop")] {
            let text = format!(
                r#"{{"kind":"Event","stage":"ResponseComplete","verb":"create","objectRef":{{"resource":"secrets","namespace":"{namespace}","name":"{name}"}},"responseStatus":{{"code":201}},"requestObject":{{"type":"kubernetes.io/dockerconfigjson"}}}}"#
            );
            let mut event = Event::new(text.as_bytes());
            let request = RequestInfo::of(&mut event);
            observe(&mut event, &request, &names(), &mut state);
        }
        state
    }

    /// The limit on the number of results does not hide a match.
    #[test]
    fn credentials_of_other_namespaces_do_not_displace_one_that_a_template_matches() {
        let mut state = known();
        for number in 0..3 * MAX_NAMED {
            let text = format!(
                r#"{{"kind":"Event","stage":"ResponseComplete","verb":"create","objectRef":{{"resource":"secrets","namespace":"mine-{number}","name":"a"}},"responseStatus":{{"code":201}},"requestObject":{{"type":"kubernetes.io/dockerconfigjson"}}}}"#
            );
            let mut event = Event::new(text.as_bytes());
            let request = RequestInfo::of(&mut event);
            observe(&mut event, &request, &names(), &mut state);
        }
        let body = format!(r#""requestObject":{}"#, csi("${pvc.name}", "st${pvc.labels}ge"));
        assert_eq!(named("create", "storageclasses", &body, Some(&mut state)), ["stage/images"]);
    }

    fn named(verb: &str, resource: &str, bodies: &str, state: Option<&mut ClusterState>) -> Vec<String> {
        let text = format!(
            r#"{{"kind":"Event","stage":"ResponseComplete","verb":"{verb}","objectRef":{{"resource":"{resource}","name":"c"}},"responseStatus":{{"code":200}},{bodies}}}"#
        );
        let mut event = Event::new(text.as_bytes());
        let request = RequestInfo::of(&mut event);
        referenced_credentials(&mut event, &request, &names(), state)
    }

    fn csi(name: &str, namespace: &str) -> String {
        format!(
            r#"{{"parameters":{{"csi.storage.k8s.io/node-publish-secret-name":"{name}","csi.storage.k8s.io/node-publish-secret-namespace":"{namespace}"}}}}"#
        )
    }

    #[test]
    fn finds_credentials_in_parameters_and_annotations() {
        let every = ["prod/images", "stage/images"];
        for (body, expected) in [
            (csi("images", "prod"), &["prod/images"][..]),
            (csi("other", "prod"), &[]),
            (csi("regcred", "any"), &["any/regcred"]),
            (csi("images", "${pvc.namespace}"), &every),
            (csi("regcred-${pvc.name}", "${pvc.namespace}"), &["*/regcred-*"]),
            (csi("pull-${pvc.annotations['x/y']}", "prod"), &["prod/pull-shop"]),
            (csi("${pvc.name}", "prod"), &["prod/images", "prod/pull-shop"]),
            (csi("${pvc.name}", "st${pvc.labels}ge"), &["stage/images"]),
            (csi("${pvc.name}", "${pvc.namespace}"), &[]),
            (r#"{"parameters":{"csi.storage.k8s.io/snapshotter-secret-name":"images"}}"#.to_owned(), &every),
            (r#"{"parameters":{"adminSecretName":"images","adminSecretNamespace":"stage"}}"#.to_owned(), &["stage/images"]),
            (r#"{"parameters":{"secretName":"images","secretNamespace":"prod"}}"#.to_owned(), &["prod/images"]),
            (r#"{"metadata":{"annotations":{"snapshot.storage.kubernetes.io/deletion-secret-name":"images","snapshot.storage.kubernetes.io/deletion-secret-namespace":"prod"}}}"#.to_owned(), &["prod/images"]),
            (r#"{"parameters":{"note":"images"},"metadata":{"annotations":{"a":"images"}}}"#.to_owned(), &[]),
            (r#"[{"op":"add","path":"/parameters/csi.storage.k8s.io~1provisioner-secret-name","value":"images"}]"#.to_owned(), &every),
            (r#"[{"op":"replace","path":"/parameters","value":{"csi.storage.k8s.io/provisioner-secret-name":"images"}}]"#.to_owned(), &every),
        ] {
            let found = named("create", "storageclasses", &format!(r#""requestObject":{body}"#), Some(&mut known()));
            assert_eq!(found, expected, "{body}");
        }
        for resource in RESOURCES {
            let body = format!(r#""requestObject":{}"#, csi("images", "prod"));
            assert_eq!(named("create", resource, &body, Some(&mut known())), ["prod/images"], "{resource}");
        }
        let body = format!(r#""requestObject":{}"#, csi("images", "prod"));
        assert!(named("create", "configmaps", &body, Some(&mut known())).is_empty());
        assert_eq!(
            named("create", "storageclasses", &body.replace("images", "regcred"), None),
            ["prod/regcred"]
        );
    }

    #[test]
    fn the_response_completes_a_patch() {
        let whole = csi("images", "prod").replacen('{', r#"{"metadata":{"name":"c"},"#, 1);
        let patch = r#"{"parameters":{"csi.storage.k8s.io/node-publish-secret-name":"images"}}"#;
        for (patch, expected) in
            [(patch, &["prod/images"][..]), (r#"{"metadata":{"labels":{"a":"b"}}}"#, &[])]
        {
            let bodies = format!(r#""requestObject":{patch},"responseObject":{whole}"#);
            assert_eq!(named("patch", "volumesnapshotclasses", &bodies, Some(&mut known())), expected);
        }
        let moved = r#""requestObject":[{"op":"move","from":"/parameters/a","path":"/parameters/csi.storage.k8s.io~1node-publish-secret-name"}]"#;
        let bodies = format!("{moved},\"responseObject\":{whole}");
        assert_eq!(named("patch", "volumesnapshotclasses", &bodies, Some(&mut known())), ["prod/images"]);
    }
}
