//! Declared state of the cluster, in addition to what is learned from events: secrets, the pods that hold them, roles, bindings, the labels
//! of namespaces and the addresses of nodes.
//!
//! Keeps names, types, registry hosts, user names, verbs and addresses, and where and when each entry was declared; never the data of a
//! secret. It is bounded, and no event changes it: a flood of events can evict what was learned, not what was declared. `declared_objects`
//! fills it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use super::docker_config::{RegistryLogins, SECRET_TYPES};
use super::shown;

/// Maximum number of entries of each kind.
pub(crate) const MAX_ENTRIES: usize = 200_000;

/// Maximum length of the name of an object or a namespace, and of the type of a secret, in bytes.
const MAX_NAME_LEN: usize = 253;

/// Where and when an entry was declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Name of the file, or of another source of the entry.
    pub source: String,
    /// When it was read, or when the file was last modified, in nanoseconds since 1970-01-01T00:00:00Z.
    pub time: i64,
}

/// A secret that was declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredSecret {
    /// Its type, if it is known.
    pub secret_type: Option<String>,
    /// Whether the secret's data contained a registry credential.
    pub has_content: bool,
    /// Whether an `imagePullSecrets` list names it.
    pub is_referenced: bool,
    /// Whether an operator declared the secret to be a registry credential.
    pub is_asserted: bool,
    pub hosts: Vec<String>,
    pub usernames: Vec<String>,
    /// Index into [`Inventory::origins`].
    pub origin: usize,
}

impl DeclaredSecret {
    /// Returns whether it is a registry credential; none if nothing about its type is known.
    pub(crate) fn is_credential(&self) -> Option<bool> {
        if self.has_content || self.is_asserted {
            return Some(true);
        }
        match &self.secret_type {
            Some(secret_type) => Some(SECRET_TYPES.contains(&secret_type.as_bytes())),
            None => self.is_referenced.then_some(true),
        }
    }

    /// Returns whether it is a credential regardless of its type.
    pub(super) fn is_credential_of_any_type(&self) -> bool {
        self.has_content || self.is_asserted
    }

    /// Merges a later declaration into this one.
    fn update(&mut self, new: DeclaredSecret) {
        // A table, a reference or a name alone contains less information than the object.
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

/// An entry of another kind: the secrets of a pod, the verbs of a role, the label of a namespace, the addresses of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared<T> {
    pub value: T,
    /// Index into [`Inventory::origins`].
    pub origin: usize,
}

/// Maximum number of addresses stored per node. Further ones are ignored and identify no node.
pub(crate) const MAX_NODE_ADDRESSES: usize = 16;

/// A node that was declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredNode {
    /// The addresses from which it may reach the apiserver.
    pub addresses: Vec<IpAddr>,
}

impl DeclaredNode {
    /// Adds an address, unless it is one that every host has.
    pub(crate) fn add_address(&mut self, text: &str) {
        let Ok(address) = text.parse::<IpAddr>() else { return };
        let address = address.to_canonical();
        let is_of_node = !address.is_loopback() && !address.is_unspecified() && !address.is_multicast();
        if is_of_node && !self.addresses.contains(&address) && self.addresses.len() < MAX_NODE_ADDRESSES {
            self.addresses.push(address);
        }
    }
}

/// The names in a list, such as the secrets of a pod.
type Names = Box<[Box<str>]>;

/// The declared state. Keys are `namespace/name`.
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
    /// By name.
    pub(crate) nodes: BTreeMap<Box<str>, Declared<DeclaredNode>>,
    /// The names of all credentials.
    names: BTreeSet<Box<str>>,
}

/// A limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {MAX_ENTRIES} {0}: the limit of an inventory. Declare only registry credentials and what names them"
)]
pub struct InventoryFull(&'static str);

impl Inventory {
    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.credentials.len()
            + self.other_secrets.len()
            + self.pods.len()
            + self.roles.len()
            + self.namespaces.len()
            + self.nodes.len()
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
        self.roles.values().filter(|role| !role.value.is_empty()).count()
    }

    /// Returns the nodes with their addresses, in the order of their names.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &DeclaredNode)> {
        self.nodes.iter().map(|(name, node)| (&**name, &node.value))
    }

    /// Returns the origin of a node.
    pub fn node_origin(&self, name: &str) -> Option<&Origin> {
        self.origin(self.nodes.get(name)?.origin)
    }

    /// Returns a node, and when it was declared.
    pub(super) fn node(&self, name: &str) -> Option<(&DeclaredNode, i64)> {
        let node = self.nodes.get(name)?;
        Some((&node.value, self.node_origin(name).map_or(i64::MAX, |origin| origin.time)))
    }

    /// Returns the origin of an entry.
    pub fn origin(&self, index: usize) -> Option<&Origin> {
        self.origins.get(index)
    }

    /// Adds an origin if it is new, and returns its index.
    pub(crate) fn add_origin(&mut self, origin: Origin) -> usize {
        if let Some(index) = self.origins.iter().position(|known| *known == origin) {
            return index;
        }
        self.origins.push(origin);
        self.origins.len() - 1
    }

    /// Removes origins without entries, so that repeated imports do not accumulate them.
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
        self.nodes.values_mut().for_each(|entry| renumber(&mut entry.origin));
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

    /// Adds a secret, or merges it with the existing entry.
    pub(crate) fn add_secret(&mut self, key: &str, new: DeclaredSecret) -> Result<(), InventoryFull> {
        let known = self.credentials.remove(key).or_else(|| self.other_secrets.remove(key));
        if known.is_none() && self.credentials.len() + self.other_secrets.len() >= MAX_ENTRIES {
            return Err(InventoryFull("secrets"));
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

    /// Adds all entries of another inventory, whose origins are later than those of this one.
    pub(crate) fn merge(&mut self, other: Inventory) -> Result<(), InventoryFull> {
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
        for (key, entry) in other.nodes {
            insert(&mut self.nodes, "nodes", &key, entry.value, origin(entry.origin))?;
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
) -> Result<(), InventoryFull> {
    if entries.len() >= MAX_ENTRIES && !entries.contains_key(key) {
        return Err(InventoryFull(kind));
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

impl From<&DeclaredSecret> for RegistryLogins {
    fn from(secret: &DeclaredSecret) -> Self {
        RegistryLogins { hosts: secret.hosts.clone(), usernames: secret.usernames.clone() }
    }
}
