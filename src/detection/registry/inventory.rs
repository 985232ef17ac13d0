//! What is declared of the cluster, beside what is learned from its events: secrets, the pods that hold them, roles, bindings
//! and the labels of namespaces.
//!
//! Takes objects as the apiserver returns them, one by one, and reads them with the code that reads the objects of events. Keeps
//! names, types, registry hosts, user names and verbs, and where and when each entry was declared; never the data of a secret.
//! It is bounded, and no event changes it: a flood of events can evict what was learned, not what was declared.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::cluster_state::MAX_SECRETS_PER_POD;
use super::content::logins_of;
use super::docker_config::{RegistryLogins, SECRET_TYPES};
use super::secret_view::{SecretView, for_each_secret};
use super::{grants, pod_security, references, shown, text};
use crate::detection::audit::json::{Raw, Type};

/// Maximum number of entries of each kind.
pub(crate) const MAX_ENTRIES: usize = 200_000;

/// Maximum number of hosts, and of user names, of one secret.
const MAX_LOGINS: usize = 32;

/// Maximum length of the name of an object or a namespace, and of the type of a secret, in bytes.
const MAX_NAME_LEN: usize = 253;

/// Maximum nesting of lists in lists.
const MAX_LIST_DEPTH: usize = 4;

/// Where and when an entry was declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Name of the file, or of what else the entry was read from.
    pub source: String,
    /// When it was read or, of a file, last modified, in nanoseconds since 1970-01-01T00:00:00Z.
    pub time: i64,
}

/// A secret that was declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredSecret {
    /// Its type, if it is known.
    pub secret_type: Option<String>,
    /// Whether its data was a registry credential.
    pub has_content: bool,
    /// Whether an `imagePullSecrets` list names it.
    pub is_referenced: bool,
    /// Whether a person declared that it is a registry credential.
    pub is_asserted: bool,
    pub hosts: Vec<String>,
    pub usernames: Vec<String>,
    /// Index into [`Inventory::origins`].
    pub origin: usize,
}

impl DeclaredSecret {
    /// Returns whether it is a registry credential; none if nothing is known of its type.
    pub(crate) fn is_credential(&self) -> Option<bool> {
        if self.has_content || self.is_asserted {
            return Some(true);
        }
        match &self.secret_type {
            Some(secret_type) => Some(SECRET_TYPES.contains(&secret_type.as_bytes())),
            None => self.is_referenced.then_some(true),
        }
    }

    /// Returns whether it is a credential whatever its type is.
    pub(super) fn is_credential_of_any_type(&self) -> bool {
        self.has_content || self.is_asserted
    }

    /// Takes over what a later declaration says.
    fn update(&mut self, new: DeclaredSecret) {
        // A table, a reference or a name alone says less than the object did.
        if new.secret_type.is_some() {
            if self.secret_type != new.secret_type {
                self.has_content = false;
            }
            self.secret_type = new.secret_type;
        }
        self.has_content |= new.has_content;
        self.is_referenced |= new.is_referenced;
        self.is_asserted |= new.is_asserted;
        if !new.hosts.is_empty() || !new.usernames.is_empty() {
            (self.hosts, self.usernames) = (new.hosts, new.usernames);
        }
        self.origin = new.origin;
    }
}

/// An entry of another kind: the secrets of a pod, the verbs of a role, the label of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared<T> {
    pub value: T,
    /// Index into [`Inventory::origins`].
    pub origin: usize,
}

/// The names in a list, such as the secrets of a pod.
type Names = Box<[Box<str>]>;

/// What is declared. Keys are `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    pub(crate) origins: Vec<Origin>,
    /// Secrets that are registry credentials.
    credentials: BTreeMap<Box<str>, DeclaredSecret>,
    other_secrets: BTreeMap<Box<str>, DeclaredSecret>,
    pub(crate) pods: BTreeMap<Box<str>, Declared<Names>>,
    /// Verbs on secrets and privileges, as the cluster state keeps them, of roles and of the roles of bindings.
    pub(crate) roles: BTreeMap<Box<str>, Declared<Vec<String>>>,
    /// Pod Security's `enforce` label; empty for none.
    pub(crate) namespaces: BTreeMap<Box<str>, Declared<String>>,
    /// The names of all credentials.
    names: BTreeSet<Box<str>>,
}

/// A limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {MAX_ENTRIES} {0}: the limit of an inventory. Declare only registry credentials and what names them"
)]
pub struct Full(&'static str);

impl Inventory {
    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.credentials.len()
            + self.other_secrets.len()
            + self.pods.len()
            + self.roles.len()
            + self.namespaces.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all secrets, credentials first.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &DeclaredSecret)> {
        self.credentials.iter().chain(&self.other_secrets).map(|(key, secret)| (&**key, secret))
    }

    pub fn credentials(&self) -> impl Iterator<Item = (&str, &DeclaredSecret)> {
        self.credentials.iter().map(|(key, secret)| (&**key, secret))
    }

    /// Returns the number of pods that hold secrets.
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// Returns the number of roles and bindings that grant something of interest.
    pub fn role_count(&self) -> usize {
        self.roles.len()
    }

    /// Returns the origin of an entry.
    pub fn origin(&self, index: usize) -> Option<&Origin> {
        self.origins.get(index)
    }

    /// Adds an origin, if it is new, and returns its index.
    pub(crate) fn add_origin(&mut self, origin: Origin) -> usize {
        if let Some(index) = self.origins.iter().position(|known| *known == origin) {
            return index;
        }
        self.origins.push(origin);
        self.origins.len() - 1
    }

    /// Removes origins of which no entry is left, so that repeated imports do not add up.
    pub(crate) fn remove_unused_origins(&mut self) {
        let mut new_indexes: Vec<Option<usize>> = vec![None; self.origins.len()];
        let mut origins = Vec::new();
        let mut renumber = |origin: &mut usize| {
            let Some(new) = new_indexes.get_mut(*origin) else { return };
            *origin = *new.get_or_insert_with(|| {
                origins.push(self.origins[*origin].clone());
                origins.len() - 1
            });
        };
        self.credentials.values_mut().for_each(|entry| renumber(&mut entry.origin));
        self.other_secrets.values_mut().for_each(|entry| renumber(&mut entry.origin));
        self.pods.values_mut().for_each(|entry| renumber(&mut entry.origin));
        self.roles.values_mut().for_each(|entry| renumber(&mut entry.origin));
        self.namespaces.values_mut().for_each(|entry| renumber(&mut entry.origin));
        self.origins = origins;
    }

    pub(super) fn secret(&self, key: &str) -> Option<&DeclaredSecret> {
        self.credentials.get(key).or_else(|| self.other_secrets.get(key))
    }

    /// When an entry was declared.
    pub(super) fn time(&self, secret: &DeclaredSecret) -> i64 {
        self.origins.get(secret.origin).map_or(i64::MAX, |origin| origin.time)
    }

    /// Returns the credentials whose keys have a prefix, in key order.
    pub(super) fn credentials_starting_with<'i>(
        &'i self,
        prefix: &str,
    ) -> impl Iterator<Item = (&'i str, &'i DeclaredSecret)> {
        self.credentials
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, secret)| (&**key, secret))
    }

    /// Returns whether a credential of any namespace has this name.
    pub(super) fn has_credential_named(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Adds a secret, or what is new about it.
    pub(crate) fn add_secret(&mut self, key: &str, new: DeclaredSecret) -> Result<(), Full> {
        let known = self.credentials.remove(key).or_else(|| self.other_secrets.remove(key));
        if known.is_none() && self.credentials.len() + self.other_secrets.len() >= MAX_ENTRIES {
            return Err(Full("secrets"));
        }
        let secret = match known {
            Some(mut known) => {
                known.update(new);
                known
            }
            None => new,
        };
        if secret.is_credential() == Some(true) {
            self.names.insert(key.split_once('/').map_or(key, |(_, name)| name).into());
            self.credentials.insert(key.into(), secret);
        } else {
            self.other_secrets.insert(key.into(), secret);
        }
        Ok(())
    }

    /// Adds all entries of another inventory. Its origins are later than those of this one.
    pub(crate) fn merge(&mut self, other: Inventory) -> Result<(), Full> {
        let origins: Vec<usize> = other.origins.into_iter().map(|origin| self.add_origin(origin)).collect();
        let origin = |index: usize| origins.get(index).copied().unwrap_or_default();
        for (key, mut secret) in other.credentials.into_iter().chain(other.other_secrets) {
            secret.origin = origin(secret.origin);
            self.add_secret(&key, secret)?;
        }
        for (key, entry) in other.pods {
            insert(&mut self.pods, "pods", &key, entry.value, origin(entry.origin))?;
        }
        for (key, entry) in other.roles {
            insert(&mut self.roles, "roles and bindings", &key, entry.value, origin(entry.origin))?;
        }
        for (key, entry) in other.namespaces {
            insert(&mut self.namespaces, "namespaces", &key, entry.value, origin(entry.origin))?;
        }
        Ok(())
    }
}

/// Adds an entry of one kind, or replaces it.
pub(crate) fn insert<T>(
    entries: &mut BTreeMap<Box<str>, Declared<T>>,
    kind: &'static str,
    key: &str,
    value: T,
    origin: usize,
) -> Result<(), Full> {
    if entries.len() >= MAX_ENTRIES && !entries.contains_key(key) {
        return Err(Full(kind));
    }
    entries.insert(key.into(), Declared { value, origin });
    Ok(())
}

/// Returns whether a text can be the name of an object or a namespace.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME_LEN
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'%')
}

/// Returns a type of secrets that may be shown.
pub(crate) fn checked_type(text: String) -> Option<String> {
    (!text.is_empty() && text.len() <= MAX_NAME_LEN).then(|| shown(text))
}

/// What an object was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// Entries were added, or it is of a kind that has some.
    Known,
    /// It is of a kind of which nothing is kept.
    Ignored,
    /// It has no kind, and is not a list.
    NoKind,
}

/// Adds objects to an inventory.
#[derive(Debug)]
pub(crate) struct Builder<'i> {
    pub(crate) inventory: &'i mut Inventory,
    pub(crate) origin: usize,
    /// The namespace of objects that do not name one.
    pub(crate) namespace: &'i str,
    /// Whether secrets of an unknown type are registry credentials.
    pub(crate) asserts_credentials: bool,
    /// Number of objects that were read, without those of kinds of which nothing is kept.
    pub(crate) objects: u64,
    pub(crate) ignored: u64,
    /// Number of secrets of which nothing but the name is known.
    pub(crate) untyped: u64,
}

impl Builder<'_> {
    /// Adds an object, or all objects of a list. Bindings are to be added after the roles that they bind.
    pub(crate) fn add(&mut self, object: Raw<'_>, phase: Phase) -> Result<Added, Full> {
        self.add_item(object, "", phase, MAX_LIST_DEPTH)
    }

    fn add_item(
        &mut self,
        object: Raw<'_>,
        kind_of_list: &str,
        phase: Phase,
        depth: usize,
    ) -> Result<Added, Full> {
        let own_kind = text(object.get("kind")).unwrap_or_default();
        // The items of a typed list have no kind of their own.
        let kind = if own_kind.is_empty() { kind_of_list } else { &*own_kind };
        let items = object.get("items").filter(|items| items.kind() == Type::Array);
        if let Some(items) = items.filter(|_| depth > 0 && (kind.ends_with("List") || kind.is_empty())) {
            let kind_of_items = kind.strip_suffix("List").unwrap_or_default().to_owned();
            for item in items.items().map_while(Result::ok) {
                self.add_item(item, &kind_of_items, phase, depth - 1)?;
            }
            return Ok(Added::Known);
        }
        if kind.is_empty() && object.get("rows").is_none() {
            return Ok(Added::NoKind);
        }
        let is_binding = matches!(kind, "RoleBinding" | "ClusterRoleBinding");
        if is_binding != (phase == Phase::Bindings) {
            return Ok(Added::Known);
        }
        let [namespace, name] = ["namespace", "name"].map(|key| text(object.path(&["metadata", key])));
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        let namespace = namespace.unwrap_or_else(|| self.namespace.to_owned());
        let name = name.unwrap_or_default();
        let added = match kind {
            "Secret" | "Table" => {
                self.add_secrets(object, &namespace)?;
                return Ok(Added::Known);
            }
            "SealedSecret" | "ExternalSecret" => self.add_generated_secret(object, &namespace, &name)?,
            "Role" => self.add_role(&namespace, &name, grants::declared_grants(object))?,
            "ClusterRole" => self.add_role("", &name, grants::declared_grants(object))?,
            "RoleBinding" => self.add_binding(object, &namespace, &name)?,
            "ClusterRoleBinding" => self.add_binding(object, "", &name)?,
            "Namespace" if is_name(&name) => {
                let label = pod_security::enforced_label(object);
                insert(&mut self.inventory.namespaces, "namespaces", &name, label, self.origin)?;
                true
            }
            _ => self.add_references(object, kind, &namespace, &name)?,
        };
        if added {
            self.objects += 1;
        } else {
            self.ignored += 1;
        }
        Ok(if added { Added::Known } else { Added::Ignored })
    }

    /// Adds a secret, or those of a table that the apiserver returned.
    fn add_secrets(&mut self, object: Raw<'_>, namespace: &str) -> Result<(), Full> {
        let mut result = Ok(());
        for_each_secret(object, |secret| {
            if result.is_ok() {
                result = self.add_view(secret, namespace);
            }
        });
        result
    }

    fn add_view(&mut self, view: &SecretView<'_>, namespace: &str) -> Result<(), Full> {
        let name = view.name.clone().unwrap_or_default();
        let namespace = view.namespace.as_deref().unwrap_or(namespace);
        let evidence = view.evidence();
        let (hosts, usernames) = evidence.map(|_| logins(view.raw())).unwrap_or_default();
        let secret = DeclaredSecret {
            secret_type: view.type_name().and_then(checked_type),
            has_content: evidence.is_some() && view.is_of_credential_type() != Some(true),
            hosts,
            usernames,
            ..DeclaredSecret::default()
        };
        self.add_named(namespace, &name, secret)
    }

    /// Adds a secret of which its type may be known.
    pub(crate) fn add_named(
        &mut self,
        namespace: &str,
        name: &str,
        mut secret: DeclaredSecret,
    ) -> Result<(), Full> {
        if !is_name(name) || !is_name(namespace) {
            self.ignored += 1;
            return Ok(());
        }
        self.objects += 1;
        if secret.secret_type.is_none() && !secret.has_content && !secret.is_referenced {
            secret.is_asserted |= self.asserts_credentials;
            self.untyped += u64::from(!secret.is_asserted);
        }
        secret.origin = self.origin;
        self.inventory.add_secret(&format!("{namespace}/{name}"), secret)
    }

    /// Adds the secret that a controller creates from a custom resource, if it has the type of a registry credential.
    fn add_generated_secret(&mut self, object: Raw<'_>, namespace: &str, name: &str) -> Result<bool, Full> {
        let path: &[&str] = match text(object.get("kind")).as_deref() {
            Some("ExternalSecret") => &["spec", "target", "template", "type"],
            _ => &["spec", "template", "type"],
        };
        let Some(secret_type) = text(object.path(path)).and_then(checked_type) else { return Ok(false) };
        let target = text(object.path(&["spec", "target", "name"])).filter(|target| is_name(target));
        let secret = DeclaredSecret { secret_type: Some(secret_type), ..DeclaredSecret::default() };
        let count = self.objects;
        self.add_named(namespace, target.as_deref().unwrap_or(name), secret)?;
        let is_added = self.objects > count;
        self.objects = count;
        Ok(is_added)
    }

    fn add_role(&mut self, namespace: &str, name: &str, grants: Vec<String>) -> Result<bool, Full> {
        if !is_name(name) || !namespace.is_empty() && !is_name(namespace) {
            return Ok(false);
        }
        // Of roles that grant nothing of interest it is enough that they are unknown.
        if !grants.is_empty() {
            let key = format!("{namespace}/{name}");
            insert(&mut self.inventory.roles, "roles and bindings", &key, grants, self.origin)?;
        }
        Ok(true)
    }

    fn add_binding(&mut self, object: Raw<'_>, namespace: &str, name: &str) -> Result<bool, Full> {
        let roles = &self.inventory.roles;
        let known = |key: &str| roles.get(key).map(|role| role.value.clone());
        let grants = grants::declared_binding(object, namespace, known);
        self.add_role(&grants::binding_namespace(namespace), name, grants)
    }

    /// Adds what a pod, a workload, a service account or a volume names. Returns false if it names no secret, and is of an
    /// unknown kind.
    fn add_references(
        &mut self,
        object: Raw<'_>,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<bool, Full> {
        let found = references::declared(object);
        for secret in &found.image_pull {
            if is_name(secret) && is_name(namespace) {
                let secret_entry =
                    DeclaredSecret { is_referenced: true, origin: self.origin, ..DeclaredSecret::default() };
                self.inventory.add_secret(&format!("{namespace}/{secret}"), secret_entry)?;
            }
        }
        if kind == "Pod" && is_name(name) && is_name(namespace) {
            let secrets: Vec<Box<str>> = self.secrets_of_pod(namespace, found.mounted);
            if !secrets.is_empty() {
                let key = format!("{namespace}/{name}");
                insert(&mut self.inventory.pods, "pods", &key, secrets.into(), self.origin)?;
            }
        }
        let is_of_interest = matches!(
            kind,
            "Pod"
                | "ServiceAccount"
                | "PodTemplate"
                | "ReplicationController"
                | "ReplicaSet"
                | "Deployment"
                | "StatefulSet"
                | "DaemonSet"
                | "Job"
                | "CronJob"
                | "PersistentVolume"
        );
        Ok(is_of_interest || !found.image_pull.is_empty())
    }

    /// Credentials come first, as for pods that are learned: the number per pod is bounded.
    fn secrets_of_pod(&self, namespace: &str, mounted: Vec<Box<str>>) -> Vec<Box<str>> {
        let is_credential = |name: &str| {
            let secret = self.inventory.secret(&format!("{namespace}/{name}"));
            secret.and_then(DeclaredSecret::is_credential) == Some(true)
        };
        let (mut secrets, others): (Vec<_>, Vec<_>) =
            mounted.into_iter().filter(|name| is_name(name)).partition(|name| is_credential(name));
        secrets.extend(others);
        if secrets.len() > MAX_SECRETS_PER_POD {
            secrets.truncate(MAX_SECRETS_PER_POD - 1);
            secrets.push("*".into());
        }
        secrets
    }
}

/// In which of two passes over the input an object is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Objects,
    Bindings,
}

/// The registry hosts and user names of a secret that shows its data.
fn logins(secret: Raw<'_>) -> (Vec<String>, Vec<String>) {
    let (mut hosts, mut usernames) = (Vec::new(), Vec::new());
    for login in logins_of(secret, MAX_LOGINS) {
        for (text, texts) in [(login.host, &mut hosts), (login.username, &mut usernames)] {
            if let Some(text) = text.filter(|text| !texts.contains(text)) {
                texts.push(text);
            }
        }
    }
    (hosts, usernames)
}

impl From<&DeclaredSecret> for RegistryLogins {
    fn from(secret: &DeclaredSecret) -> Self {
        RegistryLogins { hosts: secret.hosts.clone(), usernames: secret.usernames.clone() }
    }
}
