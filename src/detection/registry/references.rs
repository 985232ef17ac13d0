//! References in a pod, a workload, a volume or a service account: image pull secrets, secrets that it mounts, host paths, image
//! registries, cloud roles.
//!
//! Takes request and response objects and returns the credentials among the secrets that they name, and all other references. References
//! and the secrets of pods are recorded in the cluster state. Only names and paths are stored.
//!
//! If the request is logged, it counts: the server adds a token to each pod, and the response to a patch shows everything that was there
//! before. If a patch does not show what it writes, the response decides; if that is not logged either, the worst case is presumed.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use super::cluster_state::{ClusterState, GENERATED_SUFFIX_LEN, MARK};
use super::host_privileges::{could_have_host_privileges, effective_privileges, privilege_of};
use super::patch::{Write, Written, is_index, last, last_of_each, writes};
use super::request_info::Deletion;
use super::{RequestInfo, host_paths, is, node_proxy, shown, storage_classes, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};
use crate::detection::audit::redact::{REDACTED, is_host};
use crate::text::name_patterns::NamePatterns;

/// Maximum nesting that is searched. The most deeply nested secret name, in the template of a cron job, is at half of this depth.
const MAX_DEPTH: usize = 32;

/// Maximum number of names of each kind read from one object, which has at most 3 MiB. More count as unknown.
const MAX_NAMES: usize = 10_000;

/// The mark of a pod that mounts a path of the host with credentials, or a writable one with code that the host runs.
const HOST_PATH: &str = "hostPath";

/// Maximum length of the prefix from which the server generates a name of 63 characters.
const MAX_GENERATED_PREFIX_LEN: usize = 63 - GENERATED_SUFFIX_LEN;

/// Placeholder for secrets or paths that the event does not show.
const UNKNOWN: &str = "*";

/// Annotations of service accounts that name a cloud role.
const CLOUD_IDENTITIES: [&str; 4] = [
    "azure.workload.identity/client-id",
    "eks.amazonaws.com/role-arn",
    "iam.gke.io/gcp-service-account",
    "pod-identity.alibabacloud.com/role-name",
];

/// A secret by name. The namespace is empty if it is that of the object.
type SecretName = (Box<str>, Box<str>);

/// The references of an object.
#[derive(Debug, Default)]
struct References {
    /// Secrets in `imagePullSecrets`.
    image_pull: BTreeSet<Box<str>>,
    /// Secrets in volumes, projected volumes, environments and references of storage drivers.
    mounted: BTreeSet<SecretName>,
    host_paths: BTreeSet<Box<str>>,
    /// Settings that give rights over the node.
    host_privileges: BTreeSet<&'static str>,
    images: BTreeSet<Box<str>>,
    /// Whether there may be more of each, because a patch copies a value from the previous object, or because there are too many.
    is_partial: bool,
}

impl References {
    /// Collects the references of an object, or of a patch of one.
    fn of(body: Raw<'_>) -> Self {
        let mut references = References::default();
        for write in writes(body) {
            references.add_write(&write);
        }
        references
    }

    fn add_write(&mut self, write: &Write<'_>) {
        let keys: Vec<&[u8]> = write.path.iter().map(|key| &**key).filter(|key| !is_index(key)).collect();
        if keys.iter().any(|key| is_free_text(key)) {
            return;
        }
        let depth = MAX_DEPTH.saturating_sub(write.path.len());
        match write.value {
            Written::Removed => {}
            Written::Unknown => self.is_partial = true,
            Written::Value(value) => {
                let (parent, key) = match keys[..] {
                    [] => (&b""[..], &b""[..]),
                    [key] => (&b""[..], key),
                    [.., parent, key] => (parent, key),
                };
                self.add(parent, key, value, depth);
            }
        }
    }

    /// Adds the references in a value that is the member `key` of an object which is itself the member `parent`. Arrays are transparent:
    /// their elements have the key of the array.
    fn add(&mut self, parent: &[u8], key: &[u8], value: Raw<'_>, depth: usize) {
        if depth == 0 {
            self.is_partial = true;
            return;
        }
        match value.kind() {
            Type::Object => {
                let mut named = NamingMembers::default();
                for (name, member) in value.members().map_while(Result::ok) {
                    let name = name.text();
                    named.take(&name, member);
                    if !is_free_text(&name) && !matches!(&*name, b"name" | b"secretName") {
                        self.add(key, &name, member, depth - 1);
                    }
                }
                self.add_secrets_of(key, &named);
            }
            Type::Array => {
                for item in value.items().map_while(Result::ok) {
                    self.add(parent, key, item, depth - 1);
                }
            }
            Type::String => self.add_text(parent, key, value),
            Type::Scalar => {}
        }
        self.host_privileges.extend(privilege_of(parent, key, value));
    }

    /// Adds the secrets that an object, the member `key` of another, names itself.
    fn add_secrets_of(&mut self, key: &[u8], object: &NamingMembers<'_>) {
        if key == b"imagePullSecrets"
            && let Some(name) = name_in(object.name)
        {
            insert(&mut self.image_pull, name, &mut self.is_partial);
        } else if is_secret_reference(key)
            && let Some(name) = name_in(object.name)
        {
            let namespace = name_in(object.namespace).unwrap_or_default();
            insert(&mut self.mounted, (namespace, name), &mut self.is_partial);
        }
        // Volumes of secrets, and of Azure, which have a namespace in persistent volumes.
        if let Some(name) = name_in(object.secret_name) {
            let namespace = name_in(object.secret_namespace).unwrap_or_default();
            insert(&mut self.mounted, (namespace, name), &mut self.is_partial);
        }
    }

    /// Adds the references in a string, by its key and that of the enclosing object.
    fn add_text(&mut self, parent: &[u8], key: &[u8], value: Raw<'_>) {
        match (parent, key) {
            (b"imagePullSecrets", b"name") => {
                if let Some(name) = name_in(Some(value)) {
                    insert(&mut self.image_pull, name, &mut self.is_partial);
                }
            }
            (parent, b"name") if !is_secret_reference(parent) => {}
            (_, b"name" | b"secretName") => {
                if let Some(name) = name_in(Some(value)) {
                    insert(&mut self.mounted, (Box::default(), name), &mut self.is_partial);
                }
            }
            (b"hostPath" | b"local", b"path") => {
                if let Some(path) = text(Some(value)) {
                    insert(&mut self.host_paths, path.into(), &mut self.is_partial);
                }
            }
            // Volumes of images, and containers.
            (b"image", b"reference") | (_, b"image") => {
                if let Some(image) = text(Some(value)).filter(|image| !image.is_empty()) {
                    insert(&mut self.images, image.into(), &mut self.is_partial);
                }
            }
            _ => {}
        }
    }
}

/// The members of an object by which it names a secret. Of several with one name the last counts, as in the apiserver.
#[derive(Debug, Default)]
struct NamingMembers<'a> {
    name: Option<Raw<'a>>,
    namespace: Option<Raw<'a>>,
    secret_name: Option<Raw<'a>>,
    secret_namespace: Option<Raw<'a>>,
}

impl<'a> NamingMembers<'a> {
    fn take(&mut self, name: &[u8], value: Raw<'a>) {
        match name {
            b"name" => self.name = Some(value),
            b"namespace" => self.namespace = Some(value),
            b"secretName" => self.secret_name = Some(value),
            b"secretNamespace" => self.secret_namespace = Some(value),
            _ => {}
        }
    }
}

/// The secrets that an object of an inventory names.
#[derive(Debug, Default)]
pub(super) struct DeclaredReferences {
    /// Secrets in `imagePullSecrets`.
    pub(super) image_pull: BTreeSet<Box<str>>,
    /// Marks of rights over its node, and secrets of its own namespace that it mounts; `*` if there are more.
    pub(super) mounted: Vec<Box<str>>,
}

/// Returns the secrets that an inventory object names.
pub(super) fn declared(object: Raw<'_>) -> DeclaredReferences {
    if !could_name_secrets(object) && !could_have_host_privileges(object) {
        return DeclaredReferences::default();
    }
    let mut references = References::of(object);
    let image_pull = std::mem::take(&mut references.image_pull);
    let mounted = std::mem::take(&mut references.mounted).into_iter().map(|(_, name)| name);
    let unknown = references.is_partial.then(|| UNKNOWN.into());
    let marks = marks(object, references);
    let mounted = marks.into_iter().chain(unknown).chain(mounted).collect();
    DeclaredReferences { image_pull, mounted }
}

/// Returns whether the member of this name is metadata, or a map whose keys are free text.
fn is_free_text(key: &[u8]) -> bool {
    const FREE_TEXT: [&[u8]; 7] = [
        b"metadata",
        b"status",
        b"nodeSelector",
        b"matchLabels",
        b"selector",
        b"volumeAttributes",
        b"options",
    ];
    FREE_TEXT.contains(&key)
}

/// Returns whether the member of this name is a reference to a secret: `secretRef`, `secretKeyRef`, the `secret` of a
/// projected volume, `nodePublishSecretRef` and its like.
fn is_secret_reference(key: &[u8]) -> bool {
    matches!(key, b"secret" | b"secretRef" | b"secretKeyRef") || key.ends_with(b"SecretRef")
}

/// The name of an object, if it can be one.
fn name_in(value: Option<Raw<'_>>) -> Option<Box<str>> {
    text(value).filter(|name| !name.is_empty() && name.len() <= 253).map(String::into_boxed_str)
}

fn insert<T: Ord>(names: &mut BTreeSet<T>, name: T, is_partial: &mut bool) {
    if names.len() < MAX_NAMES {
        names.insert(name);
    } else {
        *is_partial = true;
    }
}

/// What a request writes; the response if the request is not logged or does not show it.
fn requested(event: &mut Event<'_>) -> References {
    let response = event.get(Member::ResponseObject).filter(|body| is_whole(*body));
    let Some(request) = event.get(Member::RequestObject) else {
        return response.map(References::of).unwrap_or_default();
    };
    let mut references = References::of(request);
    if references.is_partial
        && let Some(response) = response
    {
        let mut all = References::of(response);
        references.image_pull.append(&mut all.image_pull);
        references.mounted.append(&mut all.mounted);
        references.host_paths.append(&mut all.host_paths);
        references.host_privileges.append(&mut all.host_privileges);
        references.images.append(&mut all.images);
        references.is_partial = all.is_partial;
    }
    references
}

/// Returns whether a value can name a secret at all: every key that does contains these letters, unless they are escaped.
pub(super) fn could_name_secrets(value: Raw<'_>) -> bool {
    contains_any(value, &["ecret", "\\u006", "\\u007"])
}

/// Returns whether a value can name a host path, or copies one from the object that it patches.
fn could_name_host_paths(value: Raw<'_>) -> bool {
    contains_any(value, &["hostPath", "local", "\"from\"", "\\u00"])
}

fn contains_any(value: Raw<'_>, letters: &[&str]) -> bool {
    letters.iter().any(|letters| memchr::memmem::find(value.bytes(), letters.as_bytes()).is_some())
}

/// Records what a pod, a workload or a service account names, or a list of them.
///
/// The response is the persisted object. A request only shows what was added, and is only used if the response is not logged or was omitted
/// by the client (`as=Table`, `as=PartialObjectMetadata`).
pub(super) fn learn(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    names: &NamePatterns,
    state: &mut ClusterState,
) {
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
        let generated = if is_pod && request.name.is_empty() { generated_names(body) } else { None };
        let pod = is_pod.then(|| generated.as_deref().unwrap_or(&request.name));
        record(body, pod, response.is_some(), &request.namespace, names, state);
        return;
    };
    for item in items.items().map_while(Result::ok) {
        let metadata = |key: &str| text(item.get("metadata").and_then(|metadata| metadata.get(key)));
        let namespace = metadata("namespace");
        let name = metadata("name").unwrap_or_default();
        let pod = is_pod.then_some(&*name);
        record(item, pod, true, namespace.as_deref().unwrap_or(&request.namespace), names, state);
    }
}

/// Returns the name under which the cluster state stores pods with a name generated from a prefix, if the response is not logged: the
/// prefix as truncated by the server (`maxGeneratedNameLength` in k8s.io/apiserver/pkg/storage/names), and a star.
fn generated_names(pod: Raw<'_>) -> Option<String> {
    let mut prefix =
        text(last(last(pod, "metadata")?, "generateName")).filter(|prefix| !prefix.is_empty())?;
    let end = (0..=MAX_GENERATED_PREFIX_LEN.min(prefix.len())).rfind(|end| prefix.is_char_boundary(*end));
    prefix.truncate(end.unwrap_or_default());
    prefix.push_str(UNKNOWN);
    Some(prefix)
}

/// Returns whether a response shows the references of an object, or is a list of objects.
fn is_whole(response: Raw<'_>) -> bool {
    is(response.get("kind"), "ServiceAccount")
        || ["spec", "template", "items", "imagePullSecrets"].iter().any(|key| response.get(key).is_some())
}

fn record(
    object: Raw<'_>,
    pod: Option<&str>,
    is_whole: bool,
    namespace: &str,
    names: &NamePatterns,
    state: &mut ClusterState,
) {
    if !(could_name_secrets(object) || pod.is_some() && could_have_host_privileges(object)) {
        return;
    }
    let mut references = References::of(object);
    for name in &references.image_pull {
        state.record_reference(namespace, name);
    }
    let Some(pod) = pod.filter(|pod| !pod.is_empty()) else { return };
    // Credentials first: the state stores a bounded number per pod, and a client can choose any number of other names.
    let mounted = std::mem::take(&mut references.mounted);
    let (mut secrets, others): (Vec<_>, Vec<_>) = mounted
        .into_iter()
        .map(|(_, name)| name)
        .partition(|name| state.evidence(namespace, name, names).is_some());
    if references.is_partial {
        secrets.insert(0, UNKNOWN.into());
    }
    let marks = marks(object, references);
    secrets.splice(0..0, marks);
    secrets.extend(others);
    if !secrets.is_empty() {
        state.record_pod(namespace, pod, secrets, is_whole);
    }
}

/// The name of the pod in a request for a subresource. A proxy request may name `NAME:PORT` or `SCHEME:NAME:PORT` (`SplitSchemeNamePort` in
/// k8s.io/apimachinery/pkg/util/net).
fn pod_name<'n>(name: &'n str, subresource: &str) -> &'n str {
    let parts: Vec<&str> = name.split(':').collect();
    match parts[..] {
        [pod, _] | [_, pod, _] if subresource == "proxy" => pod,
        _ => name,
    }
}

/// Returns the credentials, as `namespace/name`, that a written pod, workload or volume mounts, or a storage class names; also those of a
/// pod that is the target of a subresource such as exec, or of a request through `nodes/proxy`. `namespace/*` represents unknown
/// credentials.
pub(crate) fn referenced_credentials(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    names: &NamePatterns,
    mut state: Option<&mut ClusterState>,
) -> Vec<String> {
    let is_class = request.subresource.is_empty() && storage_classes::RESOURCES.contains(&&*request.resource);
    let named = if is_class {
        storage_classes::named_credentials(event, names, state.as_deref_mut())
    } else {
        BTreeSet::new()
    };
    // The parameters of a class are not a volume.
    if is_class && request.resource != "persistentvolumes" {
        return named.into_iter().collect();
    }
    let mut mounted: BTreeSet<SecretName> = BTreeSet::new();
    let mut is_partial = false;
    let pod = if node_proxy::is_node_proxy(request) {
        node_proxy::pod(event)
    } else if !request.subresource.is_empty() && request.resource == "pods" && request.has_name {
        Some((request.namespace.to_string(), pod_name(&request.name, &request.subresource).to_owned()))
    } else {
        None
    };
    if let Some((namespace, pod)) = &pod
        && let Some(state) = state.as_deref_mut()
        // A long-running request has one event or two, depending on the policy, and is counted once. Requests through nodes/proxy are
        // counted by their path.
        && (request.subresource == "ephemeralcontainers"
            || node_proxy::is_node_proxy(request)
            || state.is_first_of_request(event))
    {
        let secrets = state.secrets_of_pod(namespace, pod);
        let names = secrets.iter().filter(|name| !name.starts_with(MARK));
        mounted.extend(names.map(|name| (namespace.clone().into_boxed_str(), name.clone())));
    }
    if pod.is_none() || request.subresource == "ephemeralcontainers" {
        let references = requested(event);
        mounted.extend(references.mounted);
        is_partial = references.is_partial;
    }
    let mut credentials: Vec<String> = mounted
        .into_iter()
        .map(|(namespace, name)| {
            if namespace.is_empty() {
                (Cow::from(&*request.namespace), name)
            } else {
                (Cow::from(String::from(namespace)), name)
            }
        })
        .filter(|(namespace, name)| {
            &**name == UNKNOWN
                || match state.as_deref_mut() {
                    Some(state) => state.evidence(namespace, name, names).is_some(),
                    None => names.matches(name),
                }
        })
        .map(|(namespace, name)| format!("{namespace}/{name}"))
        .chain(named)
        .collect();
    if is_partial {
        credentials.push(format!("{}/{UNKNOWN}", request.namespace));
    }
    credentials.sort_unstable();
    credentials.dedup();
    credentials
}

/// Returns the image pull secrets that the service account or workload in a write request references. Contains `*` if there may
/// be more that the event does not show.
pub(crate) fn pull_secrets(event: &mut Event<'_>) -> Vec<String> {
    let references = requested(event);
    let names = references.image_pull.into_iter().map(String::from).map(shown);
    names.chain(references.is_partial.then(|| UNKNOWN.to_owned())).collect()
}

/// Returns the host paths that the pod, workload or volume in a write request mounts and that give access to credentials.
/// Contains `*` if there may be more that the event does not show.
pub(crate) fn host_paths(event: &mut Event<'_>) -> Vec<String> {
    let bodies = [event.get(Member::RequestObject), event.get(Member::ResponseObject)];
    if !bodies.into_iter().flatten().any(could_name_host_paths) {
        return Vec::new();
    }
    let mut mounts = requested_mounts(event);
    let paths = std::mem::take(&mut mounts.references.host_paths);
    let counts = |path: &str| {
        host_paths::holds_credentials(path.as_bytes())
            || host_paths::serves_links(path.as_bytes()) && !mounts.is_read_only(path)
    };
    let paths = paths.into_iter().filter(|path| counts(path)).map(String::from).map(shown);
    paths.chain(mounts.references.is_partial.then(|| UNKNOWN.to_owned())).collect()
}

/// What a request mounts, and how.
#[derive(Debug)]
struct Mounts {
    references: References,
    /// Host paths to which no container can write, according to the object.
    read_only: BTreeSet<String>,
}

impl Mounts {
    fn new(references: References, object: Option<Raw<'_>>) -> Self {
        let read_only = match object {
            Some(object) if !references.host_paths.is_empty() => read_only_paths(object),
            _ => BTreeSet::new(),
        };
        Mounts { references, read_only }
    }

    fn is_read_only(&self, path: &str) -> bool {
        self.read_only.contains(path)
    }
}

/// Returns the rights over its node that a written pod, workload or volume requests, or that the pod entered by a request has. Contains `*`
/// if there may be more that the event does not show.
pub(crate) fn host_privileges(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    state: Option<&mut ClusterState>,
) -> Vec<String> {
    let mut privileges: BTreeSet<String> = BTreeSet::new();
    let is_entered = request.resource == "pods" && !request.subresource.is_empty();
    if is_entered && let Some(state) = state {
        let held = state.secrets_of_pod(&request.namespace, &request.name);
        privileges.extend(held.iter().filter_map(|mark| mark.strip_prefix(MARK)).map(str::to_owned));
    }
    let bodies = [event.get(Member::RequestObject), event.get(Member::ResponseObject)];
    if is_entered && request.subresource != "ephemeralcontainers"
        || !bodies.into_iter().flatten().any(could_have_host_privileges)
    {
        return privileges.into_iter().collect();
    }
    let mounts = requested_mounts(event);
    let references = &mounts.references;
    privileges.extend(effective_privileges(&references.host_privileges).map(str::to_owned));
    let code = references.host_paths.iter().filter(|path| runs_code(&mounts, path));
    privileges.extend(code.map(|path| shown(String::from(&**path))));
    privileges.extend(references.is_partial.then(|| UNKNOWN.to_owned()));
    privileges.into_iter().collect()
}

/// Returns whether a mounted path gives the right to run code on the host. Paths with credentials are reported as such.
fn runs_code(mounts: &Mounts, path: &str) -> bool {
    host_paths::runs_code(path.as_bytes())
        && !host_paths::holds_credentials(path.as_bytes())
        && !mounts.is_read_only(path)
}

/// Returns the marks of a pod, or those that a patch adds to it, which the cluster state stores next to the names of its secrets.
fn marks(object: Raw<'_>, references: References) -> Vec<Box<str>> {
    let mut names: BTreeSet<&str> = effective_privileges(&references.host_privileges).collect();
    let mounts = Mounts::new(references, Some(object));
    let paths = &mounts.references.host_paths;
    if paths.iter().any(|path| host_paths::holds_credentials(path.as_bytes()) || runs_code(&mounts, path)) {
        names.insert(HOST_PATH);
    }
    names.into_iter().map(|name| format!("{MARK}{name}").into()).collect()
}

/// Returns what a request mounts, including paths that a patch may have made writable.
fn requested_mounts(event: &mut Event<'_>) -> Mounts {
    let mut references = requested(event);
    let [request, response] = [event.get(Member::RequestObject), event.get(Member::ResponseObject)];
    let mut shown_in = request;
    if let Some(patch) = request.filter(|_| is(event.get(Member::Verb), "patch"))
        && let Some(response) = response.filter(|body| is_whole(*body))
    {
        shown_in = Some(response);
        // A patch can make a mount writable without showing the path.
        if contains_any(patch, &["olumeMounts", "readOnly", "\\u00"]) {
            let all = References::of(response).host_paths.into_iter();
            references.host_paths.extend(all.filter(|path| {
                host_paths::serves_links(path.as_bytes()) || host_paths::runs_code(path.as_bytes())
            }));
        }
    }
    Mounts::new(references, shown_in.or(response))
}

/// Returns the host paths that a container mounts, and that none can write to, according to the object. Reads the object once, since a
/// client chooses the number of paths.
fn read_only_paths(object: Raw<'_>) -> BTreeSet<String> {
    let Some(spec) = pod_spec(object) else { return BTreeSet::new() };
    let containers = ["containers", "initContainers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|kind| last_items(spec, kind));
    // By volume name, whether all mounts of the volume are read-only.
    let mut volumes: HashMap<Cow<'_, [u8]>, bool> = HashMap::new();
    for mount in containers.flat_map(|container| last_items(container, "volumeMounts")) {
        let [name, read_only] = last_of_each(mount, ["name", "readOnly"]);
        if let Some(name) = name.and_then(Raw::string) {
            let is_read_only = read_only.is_some_and(|value| value.bytes() == b"true");
            *volumes.entry(name).or_insert(true) &= is_read_only;
        }
    }
    // Whether a path is mounted, and whether all mounts of all its volumes are read-only.
    let mut paths: HashMap<String, (bool, bool)> = HashMap::new();
    for volume in last_items(spec, "volumes") {
        let [name, host_path] = last_of_each(volume, ["name", "hostPath"]);
        let Some(path) = text(host_path.and_then(|host_path| last(host_path, "path"))) else { continue };
        let name = name.and_then(Raw::string);
        let is_read_only = name.as_ref().map(|name| volumes.get(name).copied());
        let (is_mounted, all_read_only) = paths.entry(path).or_insert((false, true));
        *is_mounted |= matches!(is_read_only, Some(Some(_)));
        *all_read_only &= is_read_only.is_some_and(|is_read_only| is_read_only != Some(false));
    }
    let is_safe = |(path, (is_mounted, all_read_only)): (String, (bool, bool))| {
        (is_mounted && all_read_only).then_some(path)
    };
    paths.into_iter().filter_map(is_safe).collect()
}

/// The elements of the last member with this name.
fn last_items<'a>(object: Raw<'a>, name: &str) -> impl Iterator<Item = Raw<'a>> + use<'a> {
    last(object, name).into_iter().flat_map(Raw::items).map_while(Result::ok)
}

/// Returns the pod specification in a complete object.
fn pod_spec(object: Raw<'_>) -> Option<Raw<'_>> {
    let mut spec = last(object, "spec").or_else(|| last(object, "template"))?;
    while let Some(next) = ["jobTemplate", "template", "spec"].into_iter().find_map(|key| last(spec, key)) {
        spec = next;
    }
    Some(spec)
}

/// Returns the annotations that give a written service account a cloud role, as `key=value`. `*` represents an unknown value.
pub(crate) fn cloud_identities(event: &mut Event<'_>, request: &RequestInfo<'_>) -> Vec<String> {
    let body = event.get(Member::RequestObject).or_else(|| event.get(Member::ResponseObject));
    let Some(body) = body.filter(|_| request.resource == "serviceaccounts") else { return Vec::new() };
    let writes = writes(body);
    CLOUD_IDENTITIES
        .iter()
        .filter_map(|annotation| {
            let written = writes
                .iter()
                .filter_map(|write| write.at(&["metadata", "annotations", annotation]))
                .next_back();
            match written? {
                Written::Value(value) => {
                    text(Some(value)).map(|value| format!("{annotation}={}", shown(value)))
                }
                Written::Unknown => Some(format!("{annotation}={UNKNOWN}")),
                Written::Removed => None,
            }
        })
        .collect()
}

/// Returns the image registries of a pod or workload, sorted and without duplicates. `*` represents unknown ones.
pub(crate) fn image_hosts(event: &mut Event<'_>) -> Vec<String> {
    let references = requested(event);
    let mut hosts: BTreeSet<&str> = references.images.iter().map(|image| image_host(image)).collect();
    // An image name can have a login before its host.
    if hosts.iter().any(|host| !is_host(host.as_bytes())) {
        hosts.retain(|host| is_host(host.as_bytes()));
        hosts.insert(REDACTED);
    }
    if references.is_partial {
        hosts.insert(UNKNOWN);
    }
    hosts.into_iter().map(str::to_owned).collect()
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
        learn(&mut event, &request, &names(&["reg*"]), state);
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
    fn patches_are_read_in_meaning() {
        let taken = |patch: &str| {
            let event = event("patch", "deployments", "w", patch);
            credentials_of(&event, &names(&["reg-*"]), None)
        };
        let volumes = "/spec/template/spec/volumes";
        for patch in [
            r#"{"spec":{"template":{"spec":{"volumes":[{"name":"v","$retainKeys":["secret"],"secret":{"secretName":"reg-a"}}]}}}}"#.to_owned(),
            format!(r#"[{{"op":"replace","path":"{volumes}/0/secret/secretName","value":"reg-a"}}]"#),
            format!(r#"[{{"op":"replace","path":"{volumes}/0/secret","value":{{"secretName":"reg-a"}}}}]"#),
            format!(r#"[{{"op":"test","path":"/x","value":1}},{{"op":"add","path":"{volumes}","value":[{{"secret":{{"secretName":"reg-a"}}}}]}}]"#),
            r#"[{"op":"add","path":"/spec/template/spec/containers/0/envFrom/-","value":{"secretRef":{"name":"reg-a"}}}]"#.to_owned(),
            r#"[{"op":"add","path":"/spec/template/spec/containers/0/env/0/valueFrom/secretKeyRef/name","value":"reg-a"}]"#.to_owned(),
            format!(r#"[{{"op":"add","path":"{volumes}/0/projected/sources/0/secret/name","value":"reg-a"}}]"#),
            format!(r#"[{{"op":"add","path":"/metadata/annotations","value":{{"a":"reg-a"}}}},{{"op":"move","from":"/metadata/annotations/a","path":"{volumes}/0/secret/secretName"}}]"#),
            format!(r#"[{{"op":"add","path":"{volumes}/-","value":{{"csi":{{"driver":"d","nodePublishSecretRef":{{"name":"reg-a"}}}}}}}}]"#),
            format!(r#"[{{"op":"add","path":"{volumes}/-","value":{{"azureFile":{{"secretName":"reg-a"}}}}}}]"#),
            format!(r#"[{{"op":"add","path":"{volumes}/-","value":{{"rbd":{{"secretRef":{{"name":"reg-a"}}}}}}}}]"#),
        ] {
            assert_eq!(taken(&patch), ["p/reg-a"], "{patch}");
        }
        // A value from the object before the patch is unknown.
        let copied = format!(
            r#"[{{"op":"copy","from":"/metadata/annotations/a","path":"{volumes}/0/secret/secretName"}}]"#
        );
        assert_eq!(taken(&copied), ["p/*"]);
        for other in [
            r#"{"metadata":{"annotations":{"secretName":"reg-a"}}}"#,
            r#"{"spec":{"template":{"metadata":{"annotations":{"secretName":"reg-a"}},"spec":{"nodeSelector":{"secretName":"reg-a"}}}}}"#,
            r#"[{"op":"add","path":"/metadata/annotations/secretName","value":"reg-a"}]"#,
            r#"[{"op":"remove","path":"/spec/template/spec/volumes/0/secret/secretName"}]"#,
            r#"[{"op":"copy","from":"/metadata/labels/a","path":"/metadata/labels/b"}]"#,
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"reg-a","env":[{"name":"reg-a","value":"x"}]}]}}}}"#,
        ] {
            assert!(taken(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn the_response_decides_what_a_patch_does_not_say() {
        let patch =
            r#"[{"op":"copy","from":"/metadata/annotations/a","path":"/spec/volumes/0/secret/secretName"}]"#;
        let event = event("patch", "pods", "w", patch).replace(
            "\"requestObject\"",
            r#""responseObject":{"kind":"Pod","spec":{"volumes":[{"secret":{"secretName":"reg-a"}}]}},"requestObject""#,
        );
        assert_eq!(credentials_of(&event, &names(&["reg-*"]), None), ["p/reg-a"]);
    }

    #[test]
    fn persistent_volumes_name_secrets_of_any_namespace() {
        let event = event(
            "create",
            "persistentvolumes",
            "v",
            r#"{"spec":{"csi":{"nodePublishSecretRef":{"name":"reg-a","namespace":"prod"},"volumeAttributes":{"secretName":"reg-b"}},"azureFile":{"secretName":"reg-c","secretNamespace":"q"}}}"#,
        );
        assert_eq!(credentials_of(&event, &names(&["reg-*"]), None), ["prod/reg-a", "q/reg-c"]);
    }

    #[test]
    fn pods_with_generated_names_are_known_by_their_prefix() {
        let mut state = ClusterState::default();
        let names = names(&["reg*"]);
        let create = |prefix: &str| {
            event(
                "create",
                "pods",
                "",
                &format!(
                    r#"{{"metadata":{{"generateName":"{prefix}"}},"spec":{{"volumes":[{{"secret":{{"secretName":"regcred"}}}}]}}}}"#
                ),
            )
        };
        let entered = |state: &mut ClusterState, pod: &str| {
            let event = event("create", "pods", pod, "null")
                .replace("\"name\":\"", "\"subresource\":\"ephemeralcontainers\",\"name\":\"");
            credentials_of(&event, &names, Some(state))
        };
        record_event(&mut state, &create("web-7d9f-"));
        assert_eq!(entered(&mut state, "web-7d9f-x2x4z"), ["p/regcred"]);
        for other in ["web-7d9f-", "web-7d9f-x2x4", "web-7d9f-x2x4z9", "web-x2x4z", "x2x4z"] {
            assert!(entered(&mut state, other).is_empty(), "{other}");
        }
        let long = "w".repeat(80);
        record_event(&mut state, &create(&long));
        assert_eq!(entered(&mut state, &format!("{}x2x4z", &long[..58])), ["p/regcred"]);
        // Whole characters.
        record_event(&mut state, &create(&"ä".repeat(40)));
    }

    #[test]
    fn credentials_are_recorded_before_the_names_of_decoys() {
        let mut state = ClusterState::default();
        let names = names(&["reg*"]);
        let decoys: Vec<String> =
            (0..200).map(|number| format!(r#"{{"secret":{{"secretName":"a{number}"}}}}"#)).collect();
        let pod = format!(
            r#"{{"spec":{{"volumes":[{},{{"secret":{{"secretName":"regcred"}}}}]}}}}"#,
            decoys.join(",")
        );
        record_event(&mut state, &event("create", "pods", "w", &pod));
        let exec = r#"{"verb":"get","objectRef":{"resource":"pods","namespace":"p","name":"w","subresource":"exec"}}"#;
        assert_eq!(credentials_of(exec, &names, Some(&mut state)), ["p/*", "p/regcred"]);
    }

    #[test]
    fn paths_of_the_host_are_found_in_any_body() {
        let of = |resource: &str, body: &str| {
            let event = event("create", resource, "w", body);
            host_paths(&mut Event::new(event.as_bytes()))
        };
        assert_eq!(
            of(
                "pods",
                r#"{"spec":{"volumes":[{"hostPath":{"path":"/var/lib/kubelet"}},{"hostPath":{"path":"/var/log/app"}}]}}"#
            ),
            ["/var/lib/kubelet"]
        );
        assert_eq!(
            of("daemonsets", r#"{"spec":{"template":{"spec":{"volumes":[{"hostPath":{"path":"/"}}]}}}}"#),
            ["/"]
        );
        assert_eq!(
            of("persistentvolumes", r#"{"spec":{"local":{"path":"/run/containerd"}}}"#),
            ["/run/containerd"]
        );
        assert_eq!(
            of(
                "deployments",
                r#"[{"op":"replace","path":"/spec/template/spec/volumes/0/hostPath/path","value":"/etc/kubernetes"}]"#
            ),
            ["/etc/kubernetes"]
        );
        assert!(
            of(
                "pods",
                r#"{"metadata":{"annotations":{"hostPath":"/"}},"spec":{"volumes":[{"emptyDir":{}}]}}"#
            )
            .is_empty()
        );
    }

    #[test]
    fn directories_of_logs_count_where_a_container_can_write() {
        let log = r#"{"name":"log","hostPath":{"path":"/var/log"}}"#;
        let spec = |volumes: &str, containers: &str| {
            format!(r#"{{"volumes":[{volumes}],"containers":[{containers}]}}"#)
        };
        let mounts = |read_only: &str| {
            format!(r#"{{"volumeMounts":[{{"name":"log","mountPath":"/log"{read_only}}}]}}"#)
        };
        let [writable, read_only] = [mounts(""), mounts(r#","readOnly":true"#)];
        let of = |verb: &str, resource: &str, body: &str, response: &str| {
            let event = event(verb, resource, "w", &format!("{body}{response}"));
            host_paths(&mut Event::new(event.as_bytes()))
        };
        let response = |spec: &str| {
            format!(r#","responseObject":{{"kind":"Deployment","spec":{{"template":{{"spec":{spec}}}}}}}"#)
        };
        let app = r#"{"name":"log","hostPath":{"path":"/var/log/app"}}"#;
        for (resource, body, is_reported) in [
            ("pods", format!(r#"{{"spec":{}}}"#, spec(log, &writable)), true),
            ("pods", format!(r#"{{"spec":{}}}"#, spec(log, &read_only)), false),
            ("pods", format!(r#"{{"spec":{}}}"#, spec(log, &format!("{read_only},{writable}"))), true),
            ("pods", format!(r#"{{"spec":{}}}"#, spec(log, &mounts(r#","readOnly":false"#))), true),
            (
                "pods",
                format!(r#"{{"spec":{}}}"#, spec(log, &mounts(r#","readOnly":true,"readOnly":false"#))),
                true,
            ),
            ("pods", format!(r#"{{"spec":{}}}"#, spec(log, r#"{"name":"none"}"#)), true),
            ("pods", format!(r#"{{"spec":{}}}"#, spec(app, &writable)), false),
            (
                "daemonsets",
                format!(r#"{{"spec":{{"template":{{"spec":{}}}}}}}"#, spec(log, &read_only)),
                false,
            ),
            ("daemonsets", format!(r#"{{"spec":{{"template":{{"spec":{}}}}}}}"#, spec(log, &writable)), true),
            ("podtemplates", format!(r#"{{"template":{{"spec":{}}}}}"#, spec(log, &read_only)), false),
            (
                "cronjobs",
                format!(
                    r#"{{"spec":{{"jobTemplate":{{"spec":{{"template":{{"spec":{}}}}}}}}}}}"#,
                    spec(log, &read_only)
                ),
                false,
            ),
            ("persistentvolumes", r#"{"spec":{"hostPath":{"path":"/var/log/pods"}}}"#.to_owned(), true),
        ] {
            assert_eq!(!of("create", resource, &body, "").is_empty(), is_reported, "{resource} {body}");
        }
        let patch = |readonly: bool| {
            format!(
                r#"[{{"op":"replace","path":"/spec/template/spec/containers/0/volumeMounts/0/readOnly","value":{readonly}}}]"#
            )
        };
        for (patch, spec, is_reported) in [
            (patch(false), spec(log, &writable), true),
            (patch(true), spec(log, &read_only), false),
            (r#"{"metadata":{"annotations":{"a":"b"}}}"#.to_owned(), spec(log, &writable), false),
        ] {
            let found = of("patch", "deployments", &patch, &response(&spec));
            assert_eq!(!found.is_empty(), is_reported, "{patch} {spec}");
        }
    }

    #[test]
    fn tokens_in_the_place_of_names_are_not_shown() {
        let token = "ghp_0123456789ABCDEFabcdef0123456789ABCD";
        let body = format!(
            r#"{{"metadata":{{"annotations":{{"eks.amazonaws.com/role-arn":"{token}"}}}},"imagePullSecrets":[{{"name":"{token}"}}],
            "spec":{{"volumes":[{{"hostPath":{{"path":"/var/lib/kubelet/{token}"}}}}],"containers":[{{"image":"bot:{token}@registry.example/app"}}]}}}}"#
        );
        let event = event("create", "serviceaccounts", "d", &body);
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        let all = [
            pull_secrets(&mut event),
            host_paths(&mut event),
            cloud_identities(&mut event, &request),
            image_hosts(&mut event),
        ];
        for texts in &all {
            assert!(
                texts.len() == 1 && texts[0].contains(REDACTED) && !texts[0].contains(token),
                "{texts:?}"
            );
        }
    }

    #[test]
    fn service_accounts_get_pull_secrets_and_roles_of_a_cloud() {
        let of = |body: &str| {
            let event = event("patch", "serviceaccounts", "d", body);
            let mut event = Event::new(event.as_bytes());
            let request = RequestInfo::of(&mut event);
            (pull_secrets(&mut event), cloud_identities(&mut event, &request))
        };
        for body in [
            r#"{"imagePullSecrets":[{"name":"a"}]}"#,
            r#"[{"op":"test","path":"/metadata/name","value":"d"},{"op":"add","path":"/imagePullSecrets/-","value":{"name":"a"}}]"#,
            r#"[{"op":"add","path":"/imagePullSecrets","value":[{"name":"a"}]}]"#,
            r#"[{"op":"replace","path":"/imagePullSecrets/0/name","value":"a"}]"#,
        ] {
            assert_eq!(of(body).0, ["a"], "{body}");
        }
        for body in [
            r#"{"metadata":{"annotations":{"eks.amazonaws.com/role-arn":"r"}}}"#,
            r#"[{"op":"add","path":"/metadata/annotations/eks.amazonaws.com~1role-arn","value":"r"}]"#,
            r#"[{"op":"add","path":"/x","value":1},{"op":"replace","path":"/metadata/annotations","value":{"eks.amazonaws.com/role-arn":"r"}}]"#,
        ] {
            assert_eq!(of(body).1, ["eks.amazonaws.com/role-arn=r"], "{body}");
        }
        assert_eq!(
            of(r#"[{"op":"remove","path":"/metadata/annotations/eks.amazonaws.com~1role-arn"}]"#),
            (vec![], vec![])
        );
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
        // In the reading of current versions, the query does not request a dry run.
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
