//! State of the cluster, learned from earlier events: which secrets are registry credentials, which secrets pods hold, which verbs on
//! secrets roles grant, what Pod Security enforces in namespaces, which long-running requests were seen, which addresses nodes have.
//!
//! Takes facts from the other files of this module and returns them for later events; stores and restores them entry by entry. Every map is
//! bounded; what is evicted is decided by evidence and by shares ([`eviction`](super::eviction)). Only names, types and verbs may enter it,
//! never the data of a secret.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::docker_config::RegistryLogins;
use super::eviction::{EvictionPriority, make_room};
use super::evidence::Evidence;
use super::inventory::{DeclaredSecret, Inventory};
use super::long_running::LongRunningRequests;
use super::node_addresses::{ClientNode, NodeAddresses, NodeRequest};
use super::readers::{Assessment, Read, ReaderProfiles};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::Raw;
use crate::detection::audit::time::ReferenceClock;
use crate::detection::lru::LruMap;
use crate::detection::state::{StateChange, kind};
use crate::text::name_patterns::NamePatterns;

/// Maximum number of secrets: credentials, and others whose name matches a credential pattern.
const MAX_SECRETS: usize = 50_000;

/// Maximum number of pods that hold a secret.
const MAX_PODS: usize = 20_000;

/// Maximum number of secrets of one pod.
pub(super) const MAX_SECRETS_PER_POD: usize = 64;

/// Maximum number of roles and bindings. Those that grant nothing of interest are evicted first.
const MAX_ROLES: usize = 10_000;

/// Prefix of the marks for a pod's rights over its node, which are stored among the names of its secrets. No secret name starts with it.
pub(super) const MARK: char = '+';

/// Number of characters that the server appends to a prefix to generate the name of a pod.
pub(super) const GENERATED_SUFFIX_LEN: usize = 5;

const MAX_NAMESPACES: usize = 10_000;

/// Maximum number of objects other than secrets that hold a registry credential.
const MAX_COPIES: usize = 10_000;

/// Maximum number of evicted credentials named per event.
const MAX_EVICTED: usize = 100;

/// A secret that is known to be a registry credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KnownCredential<'s> {
    pub(super) namespace: &'s str,
    pub(super) name: &'s str,
    pub(super) evidence: Evidence,
}

/// What is known of one secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SecretState {
    /// Whether its type is that of a registry credential; none if the type is unknown.
    #[serde(rename = "credential", default, skip_serializing_if = "Option::is_none")]
    is_credential: Option<bool>,
    /// Whether its data contains a registry credential.
    #[serde(rename = "content", default, skip_serializing_if = "std::ops::Not::not")]
    has_content: bool,
    /// Whether an `imagePullSecrets` list names it.
    #[serde(rename = "referenced", default, skip_serializing_if = "std::ops::Not::not")]
    is_referenced: bool,
    /// When it was last created or changed, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<i64>,
    /// Hash of the identity that wrote it or references to it; 0 if it was only seen in reads, or if there are several.
    #[serde(default, skip_serializing_if = "is_zero")]
    writer: u64,
    /// Whether it may have been deleted without an event that proves it.
    #[serde(rename = "deleted", default, skip_serializing_if = "std::ops::Not::not")]
    may_be_deleted: bool,
    /// When it was certainly deleted, if the inventory declares it: earlier declarations do not apply to the next secret of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<i64>,
    /// When it was created, if the inventory declares it with another type: the new secret may have any type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<i64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // The signature that serde asks for.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl SecretState {
    /// A known type overrides all other evidence.
    fn evidence(self) -> Option<Evidence> {
        match self.is_credential {
            Some(true) => Some(Evidence::Type),
            _ if self.has_content => Some(Evidence::Content),
            Some(false) => None,
            None => self.is_referenced.then_some(Evidence::Reference),
        }
    }

    fn standing(self) -> EvictionPriority {
        let class = match self.evidence() {
            Some(Evidence::Type) => 3,
            Some(Evidence::Content) => CREDENTIAL_CLASS,
            Some(Evidence::Reference) => 1,
            _ => 0,
        };
        EvictionPriority { class, writer: self.writer }
    }

    /// Returns whether any evidence shows that it is, or is not, a credential.
    fn is_known(self) -> bool {
        self.is_credential.is_some() || self.has_content || self.is_referenced
    }

    /// Returns whether it is a credential, if only by its name: the time of writes is only stored for credentials.
    fn is_known_credential(self) -> bool {
        self.evidence().is_some() || self.is_credential.is_none() && self.written.is_some()
    }
}

/// The lowest eviction class of secrets that are certainly credentials.
const CREDENTIAL_CLASS: u8 = 2;

/// State learned so far. Bounded: entries are evicted, and evictions are counted.
#[derive(Clone, Debug)]
pub struct ClusterState {
    /// Declared state, which is consulted if nothing better was learned.
    inventory: Arc<Inventory>,
    secrets: LruMap<Arc<str>, SecretState>,
    /// Number of learned credentials by name, over all namespaces.
    names: HashMap<Box<str>, u32, foldhash::fast::RandomState>,
    /// Secrets that a pod holds as volumes or in its environment, and marks of its rights over its node.
    pods: LruMap<Arc<str>, Box<[Box<str>]>>,
    /// Verbs on secrets that a role grants.
    roles: LruMap<Arc<str>, Vec<String>>,
    /// Pod Security's `enforce` label by namespace; empty if the namespace is known to have none.
    namespaces: LruMap<Arc<str>, String>,
    /// Objects other than secrets that hold a registry credential, by `namespace/resource/name`, each with a hash of its writer's identity.
    copies: LruMap<Arc<str>, u64>,
    long_running: LongRunningRequests,
    readers: ReaderProfiles,
    nodes: NodeAddresses,
    /// Whether the current event is the one that is reported among those of its request.
    is_counted: bool,
    /// Hash of the identity that sent the current event, if it writes objects; otherwise 0.
    writer: u64,
    evicted: u64,
    evicted_credentials: u64,
    /// Credentials that were evicted while learning from the current event, at most [`MAX_EVICTED`].
    evicted_now: Vec<String>,
    /// Limits how far in the future the time of a write may be.
    clock: ReferenceClock,
}

/// How many objects of each kind are tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub credentials: usize,
    /// Secrets without any other evidence whose name matches a credential pattern.
    pub other_secrets: usize,
    pub pods: usize,
    pub roles: usize,
    pub namespaces: usize,
}

impl Default for ClusterState {
    fn default() -> Self {
        ClusterState {
            inventory: Arc::default(),
            secrets: LruMap::new(MAX_SECRETS),
            names: HashMap::default(),
            pods: LruMap::new(MAX_PODS),
            roles: LruMap::new(MAX_ROLES),
            namespaces: LruMap::new(MAX_NAMESPACES),
            copies: LruMap::new(MAX_COPIES),
            long_running: LongRunningRequests::default(),
            readers: ReaderProfiles::default(),
            nodes: NodeAddresses::default(),
            is_counted: false,
            writer: 0,
            evicted: 0,
            evicted_credentials: 0,
            evicted_now: Vec::new(),
            clock: ReferenceClock::default(),
        }
    }
}

/// The key of a namespaced object, `namespace/name`. The namespace of a cluster role is empty.
fn key(namespace: &str, name: &str) -> String {
    // Not `format!`, which takes several times as long.
    let mut key = String::with_capacity(namespace.len() + 1 + name.len());
    key.push_str(namespace);
    key.push('/');
    key.push_str(name);
    key
}

/// The key of an object other than a secret. The namespace comes first, since shares are by namespace.
fn copy_key(resource: &str, namespace: &str, name: &str) -> String {
    format!("{namespace}/{resource}/{name}")
}

impl ClusterState {
    /// Returns the number of secrets, pods, roles, namespaces and copies of credentials.
    pub fn len(&self) -> usize {
        self.secrets.len() + self.pods.len() + self.roles.len() + self.namespaces.len() + self.copies.len()
    }

    /// Returns the number of objects by kind. Iterates over all secrets.
    pub fn sizes(&self) -> Sizes {
        let learned = self.secrets.starting_with("");
        let learned_credentials =
            learned.filter(|(_, secret)| secret.is_known_credential() && !secret.may_be_deleted).count();
        Sizes {
            credentials: self.credentials_with_times().count(),
            other_secrets: self.secrets.len() - learned_credentials,
            pods: self.pods.len(),
            roles: self.roles.len(),
            namespaces: self.namespaces.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of entries that were evicted.
    pub fn evicted(&self) -> u64 {
        self.evicted + self.namespaces.evicted() + self.nodes.evicted()
    }

    /// Returns the number of evicted credentials that were known by type or content.
    pub fn evicted_credentials(&self) -> u64 {
        self.evicted_credentials
    }

    /// Returns the credentials, known by type or content, that were evicted while learning from the current event.
    pub(crate) fn evicted_now(&self) -> Vec<String> {
        self.evicted_now.clone()
    }

    /// Starts learning from an event. `writer` is the identity that sent it to write objects; 0 for a read.
    pub(super) fn start_event(&mut self, writer: u64) {
        self.writer = writer;
        self.evicted_now.clear();
        self.is_counted = false;
        self.readers.start_event();
        self.nodes.start_event();
    }

    /// Records that the current event is the one that is reported among those of its request.
    pub(super) fn count_request(&mut self) {
        self.is_counted = true;
    }

    /// Returns whether the current event is the one that is reported among those of its request.
    pub(super) fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// Compares a read with the profile of its identity, and learns from it.
    pub(super) fn observe_read(&mut self, mut read: Read<'_>) {
        read.time = read.time.map(|time| self.clock.clamp(time));
        self.readers.observe(&read);
    }

    /// Determines the node that a client runs on, and learns from its request if it `counts`.
    pub(super) fn observe_node(&mut self, mut request: NodeRequest, counts: bool) {
        request.time = request.time.map(|time| self.clock.clamp(time));
        self.nodes.observe(&request, counts);
    }

    /// Removes the addresses of a node that was deleted.
    pub(super) fn remove_node(&mut self, event: &mut Event<'_>, name: &str) {
        let time = event.time().map(|time| self.clock.clamp(time));
        self.nodes.remove(event, name, time);
    }

    /// Returns the node that the client of the current event runs on.
    pub(crate) fn client_node(&self) -> &ClientNode {
        self.nodes.current()
    }

    /// Returns how the read of the current event compares with the profile of its identity; none if it is not a read.
    pub(crate) fn reader(&self) -> Option<&Assessment> {
        self.readers.current()
    }

    /// Returns the profiles of identities that read secrets.
    pub fn readers(&self) -> &ReaderProfiles {
        &self.readers
    }

    /// Returns the profiles of identities that read secrets, for setting which are trusted.
    pub fn readers_mut(&mut self) -> &mut ReaderProfiles {
        &mut self.readers
    }

    /// Changes what is known of a secret. `change` returns whether it differs afterwards.
    fn change_secret(&mut self, key: &str, change: impl FnOnce(&mut SecretState) -> bool) {
        let evicted = make_room(&mut self.secrets, MAX_SECRETS, key, |_, secret| secret.standing());
        self.evicted += evicted.len() as u64;
        for (key, class) in &evicted {
            if *class > 0 {
                self.count_name(key, false);
            }
        }
        for (key, _) in evicted.into_iter().filter(|(_, class)| *class >= CREDENTIAL_CLASS) {
            self.evicted_credentials += 1;
            if self.evicted_now.len() < MAX_EVICTED {
                self.evicted_now.push(key.as_ref().to_owned());
            }
        }
        let writer = self.writer;
        let is_new = !self.secrets.contains(key);
        let had_evidence = self.has_learned_evidence(key);
        self.secrets.change(key, SecretState::default, |secret| {
            let before = secret.writer;
            if is_new {
                secret.writer = writer;
            } else if writer != 0 && before != writer {
                secret.writer = 0;
            }
            let has_changed = change(secret);
            has_changed || secret.writer != before
        });
        let has_evidence = self.has_learned_evidence(key);
        if has_evidence != had_evidence {
            self.count_name(key, has_evidence);
        }
    }

    fn has_learned_evidence(&self, key: &str) -> bool {
        self.secrets.peek(key).is_some_and(|secret| secret.evidence().is_some())
    }

    /// Increments or decrements the number of credentials with a name.
    fn count_name(&mut self, key: &str, is_added: bool) {
        let name = key.split_once('/').unwrap_or_default().1;
        match (self.names.get_mut(name), is_added) {
            (Some(count), true) => *count += 1,
            (Some(count), false) if *count > 1 => *count -= 1,
            (Some(_), false) => {
                self.names.remove(name);
            }
            (None, true) => {
                self.names.insert(name.into(), 1);
            }
            (None, false) => {}
        }
    }

    /// Removes what was learned of a secret.
    fn forget_secret(&mut self, key: &str) {
        if self.has_learned_evidence(key) {
            self.count_name(key, false);
        }
        self.secrets.remove(key);
    }

    /// Records the type of a secret, and whether its data contains a registry credential, if the event shows them.
    pub(super) fn record_type(
        &mut self,
        namespace: &str,
        name: &str,
        is_credential: bool,
        has_content: Option<bool>,
        names: &NamePatterns,
    ) {
        let key = key(namespace, name);
        // Other secrets matter only if their name matches a pattern, or if something was learned of them already.
        if !is_credential
            && has_content != Some(true)
            && !names.matches(name)
            && self.secrets.get(&*key).is_none()
            && self.inventory.secret(&key).is_none()
            && !self.has_credential_named(name)
        {
            return;
        }
        self.change_secret(&key, |secret| {
            let before = *secret;
            secret.may_be_deleted = false;
            secret.is_credential = Some(is_credential);
            secret.has_content = has_content.unwrap_or(secret.has_content);
            *secret != before
        });
    }

    /// Records that a secret was read.
    pub(super) fn record_existence(&mut self, namespace: &str, name: &str) {
        let key = key(namespace, name);
        if self.secrets.get(&*key).is_some_and(|secret| secret.may_be_deleted) {
            self.secrets
                .change(&key, SecretState::default, |secret| std::mem::take(&mut secret.may_be_deleted));
        }
    }

    /// Records that an `imagePullSecrets` list names a secret.
    pub(super) fn record_reference(&mut self, namespace: &str, name: &str) {
        self.change_secret(&key(namespace, name), |secret| {
            !std::mem::replace(&mut secret.is_referenced, true)
        });
    }

    /// Records when a secret was created or changed, if it is a registry credential.
    pub(super) fn record_write(&mut self, namespace: &str, name: &str, time: i64, names: &NamePatterns) {
        if self.evidence(namespace, name, names).is_some() {
            let time = Some(self.clock.clamp(time));
            self.change_secret(&key(namespace, name), |secret| {
                let is_later = secret.written < time;
                secret.written = secret.written.max(time);
                is_later | std::mem::take(&mut secret.may_be_deleted)
            });
        }
    }

    /// Records the secrets that a pod holds: either all of them, or some in addition to others.
    pub(super) fn record_pod(
        &mut self,
        namespace: &str,
        pod: &str,
        mut secrets: Vec<Box<str>>,
        are_all: bool,
    ) {
        let key = key(namespace, pod);
        if !are_all && let Some(known) = self.pods.get(&*key) {
            secrets.extend(known.iter().filter(|name| !secrets.contains(name)).cloned().collect::<Vec<_>>());
        }
        if secrets.len() > MAX_SECRETS_PER_POD {
            secrets.truncate(MAX_SECRETS_PER_POD - 1);
            secrets.push("*".into());
        }
        self.make_room_for_pod(&key);
        self.pods.set(&key, secrets.into());
    }

    /// Eviction order: pods that hold a known credential last, pods with rights over their node before them, other pods first.
    fn make_room_for_pod(&mut self, key: &str) {
        let secrets = &self.secrets;
        let is_marked = |names: &[Box<str>]| names.iter().any(|name| name.starts_with(MARK));
        let holds_credential = |pod: &str, names: &[Box<str>]| {
            let namespace = pod.split_once('/').unwrap_or_default().0;
            names.iter().any(|name| {
                let secret = secrets.peek(&*self::key(namespace, name));
                // The mark of a pod that holds more secrets than are stored.
                &**name == "*" || secret.is_some_and(|secret| secret.evidence().is_some())
            })
        };
        #[allow(clippy::borrowed_box)] // The map's values are boxes.
        let standing = |pod: &str, names: &Box<[Box<str>]>| EvictionPriority {
            class: if holds_credential(pod, names) { 2 } else { u8::from(is_marked(names)) },
            writer: 0,
        };
        self.evicted += make_room(&mut self.pods, MAX_PODS, key, standing).len() as u64;
    }

    /// Eviction order: roles that grant reads, or permissions that lead to others, are evicted last.
    fn set_role(&mut self, key: &str, verbs: Vec<String>) {
        let grants_reads = |verbs: &Vec<String>| {
            verbs
                .iter()
                .any(|verb| matches!(&**verb, "*" | "get" | "list" | "watch") || verb.starts_with('+'))
        };
        let standing = |_: &str, verbs: &Vec<String>| EvictionPriority {
            class: u8::from(grants_reads(verbs)),
            writer: 0,
        };
        self.evicted += make_room(&mut self.roles, MAX_ROLES, key, standing).len() as u64;
        self.roles.set(key, verbs);
    }

    /// Returns the names of the secrets that a pod holds.
    pub(super) fn secrets_of_pod(&mut self, namespace: &str, pod: &str) -> Box<[Box<str>]> {
        let key = key(namespace, pod);
        if let Some(secrets) = self.pods.get(&*key) {
            return secrets.clone();
        }
        if let Some(pod) = self.inventory.pods.get(&*key) {
            return pod.value.clone();
        }
        // A pod whose name the server generated, and whose own creation did not show its name.
        let prefix = pod.len().checked_sub(GENERATED_SUFFIX_LEN).and_then(|end| pod.get(..end));
        let prefix = prefix.filter(|prefix| !prefix.is_empty());
        let generated =
            prefix.and_then(|prefix| self.pods.get(&*self::key(namespace, &format!("{prefix}*"))));
        generated.cloned().unwrap_or_default()
    }

    pub(super) fn remove_pod(&mut self, namespace: &str, pod: &str) {
        let key = key(namespace, pod);
        if self.inventory.pods.contains_key(&*key) {
            // An explicit entry, so that the inventory's entry is ignored.
            self.pods.set(&key, Box::default());
        } else {
            self.pods.remove(&*key);
        }
    }

    /// Records the verbs on secrets that a role grants. A role that grants none is recorded as well.
    pub(super) fn record_role(&mut self, namespace: &str, role: &str, verbs: Vec<String>) {
        self.set_role(&key(namespace, role), verbs);
    }

    /// Removes a deleted role.
    pub(super) fn remove_role(&mut self, namespace: &str, role: &str) {
        let key = key(namespace, role);
        if self.inventory.roles.contains_key(&*key) {
            // An explicit entry, so that the inventory's entry is ignored.
            self.set_role(&key, Vec::new());
        } else {
            self.roles.remove(&*key);
        }
    }

    /// Records verbs on secrets that a role grants in addition to others.
    pub(super) fn add_verbs_to_role(&mut self, namespace: &str, role: &str, mut verbs: Vec<String>) {
        if verbs.is_empty() {
            return;
        }
        verbs.extend(self.verbs_of_role(namespace, role).unwrap_or_default());
        verbs.sort_unstable();
        verbs.dedup();
        self.set_role(&key(namespace, role), verbs);
    }

    /// Returns the verbs on secrets that a role grants; none if the role is unknown.
    pub(super) fn verbs_of_role(&mut self, namespace: &str, role: &str) -> Option<Vec<String>> {
        let key = key(namespace, role);
        let learned = self.roles.get(&*key).cloned();
        learned.or_else(|| self.inventory.roles.get(&*key).map(|role| role.value.clone()))
    }

    /// Records that an object other than a secret holds a registry credential.
    pub(super) fn record_copy(&mut self, resource: &str, namespace: &str, name: &str) {
        let key = copy_key(resource, namespace, name);
        if self.copies.get(&*key).is_some() {
            return;
        }
        let standing = |_: &str, writer: &u64| EvictionPriority { class: 0, writer: *writer };
        self.evicted += make_room(&mut self.copies, MAX_COPIES, &key, standing).len() as u64;
        self.copies.set(&key, self.writer);
    }

    /// Records that an object other than a secret holds no registry credential, or was deleted.
    pub(super) fn remove_copy(&mut self, resource: &str, namespace: &str, name: &str) {
        if self.copies.len() > 0 {
            self.copies.remove(&*copy_key(resource, namespace, name));
        }
    }

    /// Calls a function with the namespace and the name of each object of a resource that holds a registry credential; restricted to a name
    /// and a namespace, if given.
    pub(super) fn copies(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        each: &mut impl FnMut(&str, &str),
    ) {
        if !namespace.is_empty() && !name.is_empty() {
            if self.copies.peek(&*copy_key(resource, namespace, name)).is_some() {
                each(namespace, name);
            }
            return;
        }
        let prefix = if namespace.is_empty() { String::new() } else { copy_key(resource, namespace, "") };
        for (key, _) in self.copies.starting_with(&prefix) {
            let (own_namespace, rest) = key.split_once('/').unwrap_or_default();
            let (own_resource, own_name) = rest.split_once('/').unwrap_or_default();
            if own_resource == resource && (name.is_empty() || own_name == name) {
                each(own_namespace, own_name);
            }
        }
    }

    /// Records the `enforce` label of a namespace; empty for none.
    pub(super) fn record_namespace(&mut self, namespace: &str, enforced_level: String) {
        self.namespaces.set(namespace, enforced_level);
    }

    /// Returns the `enforce` label of a namespace: empty if it has none, `None` if the namespace is unknown.
    pub(super) fn enforced_level(&mut self, namespace: &str) -> Option<String> {
        let learned = self.namespaces.get(namespace).cloned();
        learned.or_else(|| self.inventory.namespaces.get(namespace).map(|declared| declared.value.clone()))
    }

    /// Returns why a secret counts as a registry credential; none if it does not.
    pub(super) fn evidence(&mut self, namespace: &str, name: &str, names: &NamePatterns) -> Option<Evidence> {
        let key = key(namespace, name);
        let learned = self.secrets.get(&*key).copied().unwrap_or_default();
        let declared = self.declared(&key, learned);
        if let Some(evidence) = combined_evidence(learned, declared) {
            return Some(evidence);
        }
        if learned.is_known() || declared.is_some_and(|secret| secret.is_credential().is_some()) {
            return None;
        }
        if self.has_credential_named(name) {
            return Some(Evidence::SameName);
        }
        names.matches(name).then_some(Evidence::Name)
    }

    /// Returns the inventory's entry for a secret, unless the secret was deleted, or created with another type, since then.
    fn declared(&self, key: &str, learned: SecretState) -> Option<&DeclaredSecret> {
        let declared = self.inventory.secret(key)?;
        let time = Some(self.inventory.time(declared));
        let is_replaced = learned.created > time && declared.is_credential() != Some(true);
        (learned.gone <= time && !is_replaced).then_some(declared)
    }

    /// Returns whether a secret of this name is a credential in any namespace.
    fn has_credential_named(&self, name: &str) -> bool {
        self.names.contains_key(name) || self.inventory.has_credential_named(name)
    }

    /// Returns whether the inventory declares a secret to be a credential for a reason that its type does not refute.
    pub(super) fn is_declared_of_any_type(&self, namespace: &str, name: &str, shows_data: bool) -> bool {
        let key = key(namespace, name);
        let learned = self.secrets.peek(&*key).copied().unwrap_or_default();
        self.declared(&key, learned)
            .is_some_and(|secret| secret.is_asserted || secret.has_content && !shows_data)
    }

    /// Returns the registries and user names of a secret that the inventory declares.
    pub(super) fn declared_logins(&self, namespace: &str, name: &str) -> Option<RegistryLogins> {
        let key = key(namespace, name);
        let learned = self.secrets.peek(&*key).copied().unwrap_or_default();
        let declared = self.declared(&key, learned)?;
        (!declared.hosts.is_empty() || !declared.usernames.is_empty()).then(|| declared.into())
    }

    /// Returns the credentials whose keys have a prefix, in key order, each with its evidence and what was learned of it.
    fn known_credentials<'s>(
        &'s self,
        prefix: &str,
    ) -> impl Iterator<Item = (&'s str, Evidence, SecretState)> {
        let mut learned = self.secrets.starting_with(prefix).peekable();
        let mut declared = self.inventory.credentials_starting_with(prefix).peekable();
        std::iter::from_fn(move || {
            loop {
                let key = match (learned.peek(), declared.peek()) {
                    (None, None) => return None,
                    (Some((key, _)), None) | (None, Some((key, _))) => *key,
                    (Some((one, _)), Some((other, _))) => (*one).min(*other),
                };
                let own = learned.next_if(|(other, _)| *other == key);
                let own = own.map(|(_, secret)| *secret).unwrap_or_default();
                let declared = declared.next_if(|(other, _)| *other == key);
                let declared = declared.and_then(|_| self.declared(key, own));
                if let Some(evidence) = combined_evidence(own, declared) {
                    return Some((key, evidence, own));
                }
            }
        })
    }

    /// Returns known credentials of a namespace, or of the cluster, that `accept` accepts, and the number of all of them. If there are more
    /// than `max`, those with stronger evidence come first, alternating between namespaces, so that a namespace with many does not displace
    /// others.
    pub(super) fn select_credentials(
        &self,
        namespace: Option<&str>,
        max: usize,
        accept: impl Fn(&KnownCredential<'_>) -> bool,
    ) -> (Vec<KnownCredential<'_>>, usize) {
        let prefix = namespace.map(|namespace| key(namespace, "")).unwrap_or_default();
        let (mut count, mut place, mut current) = (0, 0, "");
        let mut selected: BinaryHeap<(Reverse<Evidence>, usize, KnownCredential<'_>)> = BinaryHeap::new();
        for (key, evidence, _) in self.known_credentials(&prefix) {
            let (namespace, name) = key.split_once('/').unwrap_or_default();
            let credential = KnownCredential { namespace, name, evidence };
            if !accept(&credential) {
                continue;
            }
            count += 1;
            place = if namespace == current { place + 1 } else { 0 };
            current = namespace;
            let rank = (Reverse(evidence), place);
            if selected.len() < max {
                selected.push((rank.0, rank.1, credential));
            } else if selected.peek().is_some_and(|last| rank < (last.0, last.1)) {
                selected.pop();
                selected.push((rank.0, rank.1, credential));
            }
        }
        (selected.into_sorted_vec().into_iter().map(|(_, _, credential)| credential).collect(), count)
    }

    /// Returns the known credentials of a namespace, or of the cluster, in the order of their keys.
    #[cfg(test)]
    pub(super) fn credentials(&self, namespace: Option<&str>) -> impl Iterator<Item = (&str, Evidence)> {
        let prefix = namespace.map(|namespace| key(namespace, "")).unwrap_or_default();
        let known = self.known_credentials("").filter(move |(key, ..)| key.starts_with(&prefix));
        known.map(|(key, evidence, _)| (key, evidence))
    }

    /// Removes a deleted secret: the next one of that name may be something else.
    pub(super) fn remove_secret(&mut self, namespace: &str, name: &str, time: Option<i64>) {
        let key = key(namespace, name);
        self.forget_secret(&key);
        if let Some(time) = time.filter(|_| self.inventory.secret(&key).is_some()) {
            let time = self.clock.clamp(time);
            self.change_secret(&key, |secret| {
                secret.gone = Some(time);
                true
            });
        }
    }

    /// Records that a secret was created. The inventory's entry may be about an earlier secret of that name.
    pub(super) fn record_creation(&mut self, namespace: &str, name: &str, time: i64) {
        let key = key(namespace, name);
        if self.inventory.secret(&key).is_some_and(|secret| secret.is_credential() != Some(true)) {
            let time = self.clock.clamp(time);
            self.change_secret(&key, |secret| secret.created.replace(time) != Some(time));
        }
    }

    /// Removes a secret that does not exist, if its deletion was suspected but not proven.
    pub(super) fn remove_absent_secret(&mut self, namespace: &str, name: &str, time: Option<i64>) {
        if self.secrets.get(&*key(namespace, name)).is_some_and(|secret| secret.may_be_deleted) {
            self.remove_secret(namespace, name, time);
        }
    }

    /// Records that a secret may have been deleted. It stays known.
    pub(super) fn record_unproven_deletion(&mut self, namespace: &str, name: &str) {
        let key = key(namespace, name);
        if self.secrets.get(&*key).is_some() || self.inventory.secret(&key).is_some() {
            self.change_secret(&key, |secret| !std::mem::replace(&mut secret.may_be_deleted, true));
        }
    }

    /// Records that all secrets of a namespace may have been deleted.
    pub(super) fn record_unproven_deletions(&mut self, namespace: &str) {
        let prefix = key(namespace, "");
        let secrets = self.secrets.starting_with(&prefix).filter(|(_, secret)| !secret.may_be_deleted);
        let names: Vec<String> = secrets.map(|(key, _)| key[prefix.len()..].to_owned()).collect();
        for name in names {
            self.record_unproven_deletion(namespace, &name);
        }
    }

    /// Records that an identity requested the deletion of a secret.
    pub(super) fn record_deletion_by(&mut self, event: &mut Event<'_>, namespace: &str, name: &str) {
        let deletion = deletion_by(event, namespace, name);
        self.long_running.insert(deletion);
    }

    /// Returns whether the identity of an event has requested the deletion of a secret.
    pub(super) fn was_deleted_by(&self, event: &mut Event<'_>, namespace: &str, name: &str) -> bool {
        self.long_running.contains(&deletion_by(event, namespace, name))
    }

    /// Returns whether this is the first event of a long-running request, and remembers the request.
    ///
    /// The key is a hash of several properties, not all of which a client can choose: the time at which the request was received, its
    /// sender, address and target. The audit id alone can be chosen by the client.
    pub(super) fn is_first_of_request(&mut self, event: &mut Event<'_>) -> bool {
        let mut hash = Sha256::new();
        for member in [
            Member::AuditId,
            Member::RequestUri,
            Member::User,
            Member::ImpersonatedUser,
            Member::SourceIps,
            Member::RequestReceivedTimestamp,
        ] {
            let bytes = event.get(member).map_or(&b""[..], |raw| raw.bytes());
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        let mut request = [0; 16];
        request.copy_from_slice(&hash.finalize()[..16]);
        self.long_running.insert(request)
    }
}

/// Persistence, and data for metrics.
impl ClusterState {
    /// Returns all known registry credentials as `namespace/name`, sorted, each with the time of its last write in nanoseconds since 1970
    /// (time of the event), if one was seen. Includes secrets that are only known by their name, if a write to them was seen, and omits
    /// those that may have been deleted.
    pub fn credentials_with_times(&self) -> impl Iterator<Item = (&str, Option<i64>)> {
        let by_name = self.secrets.starting_with("").filter(|(key, secret)| {
            secret.is_known_credential()
                && combined_evidence(**secret, self.declared(key, **secret)).is_none()
        });
        let by_name = by_name.map(|(key, secret)| (key, *secret));
        let known = self.known_credentials("").map(|(key, _, secret)| (key, secret));
        merge_sorted(known, by_name)
            .filter(|(_, secret)| !secret.may_be_deleted)
            .map(|(key, secret)| (key, secret.written))
    }

    /// Sets the declared state of the cluster, replacing the previous one.
    pub(crate) fn set_inventory(&mut self, inventory: Arc<Inventory>) {
        self.nodes.set_inventory(inventory.clone());
        self.inventory = inventory;
    }

    /// Sets the clock that limits the times of writes.
    pub(crate) fn set_clock(&mut self, clock: ReferenceClock) {
        self.clock = clock;
    }

    /// Starts tracking changes. Call it before restoring: existing entries count as changed.
    pub(crate) fn track(&mut self) {
        self.secrets.track();
        self.pods.track();
        self.roles.track();
        self.namespaces.track();
        self.copies.track();
        self.long_running.track();
        self.readers.track();
        self.nodes.track();
    }

    /// Returns the changes since the last call; none unless [tracked](ClusterState::track).
    pub(crate) fn take_changes(&mut self) -> Vec<StateChange> {
        let mut changes = Vec::new();
        self.secrets.take_changes(kind::SECRET, &mut changes);
        self.pods.take_changes(kind::POD, &mut changes);
        self.roles.take_changes(kind::ROLE, &mut changes);
        self.namespaces.take_changes(kind::NAMESPACE, &mut changes);
        self.copies.take_changes(kind::COPY, &mut changes);
        self.long_running.take_changes(&mut changes);
        self.readers.take_changes(&mut changes);
        self.nodes.take_changes(&mut changes);
        changes
    }

    /// Restores a stored entry; entries may come in any order. Returns false if this version cannot read it.
    pub(crate) fn restore(&mut self, kind: &str, key: &[u8], value: &[u8]) -> bool {
        match kind {
            kind::SECRET => self.restore_secret(key, value),
            kind::POD => self.pods.restore(key, value, |secrets| secrets.len() <= MAX_SECRETS_PER_POD),
            kind::ROLE => self.roles.restore(key, value, |_| true),
            kind::NAMESPACE => self.namespaces.restore(key, value, |_| true),
            kind::COPY => self.copies.restore(key, value, |_| true),
            kind::REQUEST => self.long_running.restore(key, value),
            kind::READER => self.readers.restore(key, value),
            kind::NODE => self.nodes.restore(key, value),
            _ => false,
        }
    }

    fn restore_secret(&mut self, key: &[u8], value: &[u8]) -> bool {
        // If the store contains more entries than the limit, another version wrote it; the map evicts the excess.
        if self.secrets.len() >= MAX_SECRETS
            && std::str::from_utf8(key).is_ok_and(|key| !self.secrets.contains(key))
        {
            return false;
        }
        let text = std::str::from_utf8(key).unwrap_or_default();
        let had_evidence = self.has_learned_evidence(text);
        let is_restored = self.secrets.restore(key, value, |_| true);
        let has_evidence = self.has_learned_evidence(text);
        if had_evidence != has_evidence {
            self.count_name(text, has_evidence);
        }
        is_restored
    }
}

/// Returns why a secret counts as a credential, based only on what was learned and declared of it. A type that was seen overrides all other
/// evidence.
fn combined_evidence(learned: SecretState, declared: Option<&DeclaredSecret>) -> Option<Evidence> {
    let is_declared = declared.is_some_and(|secret| match learned.is_credential {
        Some(_) => secret.is_credential_of_any_type(),
        None => secret.is_credential() == Some(true),
    });
    match learned.evidence() {
        Some(Evidence::Type) => Some(Evidence::Type),
        _ if is_declared => Some(Evidence::Inventory),
        learned => learned,
    }
}

/// A hash of an identity and the secret that it deleted. It shares a bounded set with long-running requests.
fn deletion_by(event: &mut Event<'_>, namespace: &str, name: &str) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(b"deletion");
    let user = |member: Member| event.get(member).and_then(|user| user.get("username")).map(Raw::text);
    let [user, impersonated] =
        [Member::User, Member::ImpersonatedUser].map(user).map(Option::unwrap_or_default);
    for part in [&*user, &*impersonated, namespace.as_bytes(), name.as_bytes()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut deletion = [0; 16];
    deletion.copy_from_slice(&hash.finalize()[..16]);
    deletion
}

/// Merges two sequences in key order.
fn merge_sorted<'k, T>(
    one: impl Iterator<Item = (&'k str, T)>,
    other: impl Iterator<Item = (&'k str, T)>,
) -> impl Iterator<Item = (&'k str, T)> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some((first, _)), Some((second, _))) if second < first => other.next(),
        (Some(_), _) => one.next(),
        (None, _) => other.next(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::registry::learn;

    #[test]
    fn records_the_time_of_the_last_write_to_a_credential() {
        let names = NamePatterns::new(["*regcred*"]).unwrap();
        let mut state = ClusterState::default();
        let mut write = |verb: &str, name: &str, kind: &str, second: u8, rest: &str| {
            let event = format!(
                r#"{{"stage":"ResponseComplete","requestURI":"/s?{rest}","verb":"{verb}","objectRef":{{"resource":"secrets","namespace":"p","name":"{name}"}},"responseStatus":{{"code":{}}},"requestObject":{{"type":"{kind}"}},"stageTimestamp":"1970-01-01T00:00:0{second}Z"}}"#,
                if rest == "refused" { 403 } else { 200 },
            );
            learn(&mut Event::new(event.as_bytes()), &names, &mut state);
            let known = state.credentials_with_times();
            known
                .map(|(key, time)| (key.to_owned(), time.map(|time| time / 1_000_000_000)))
                .collect::<Vec<_>>()
        };
        let x = |second| vec![("p/x".to_owned(), Some(second))];
        assert_eq!(write("create", "x", "kubernetes.io/dockercfg", 1, ""), x(1));
        assert_eq!(write("update", "x", "kubernetes.io/dockercfg", 2, "dryRun=All"), x(1));
        assert_eq!(write("patch", "x", "", 3, ""), x(3));
        assert_eq!(write("update", "x", "kubernetes.io/dockercfg", 2, ""), x(3));
        assert_eq!(write("get", "x", "", 5, ""), x(3));
        assert_eq!(write("update", "x", "kubernetes.io/dockercfg", 6, "refused"), x(3));
        assert_eq!(write("create", "y", "Opaque", 6, ""), x(3));
        // Only by its name, until a type is seen.
        assert_eq!(write("patch", "regcred", "", 7, "").len(), 2);
        assert_eq!(write("update", "regcred", "Opaque", 8, ""), x(3));
        assert!(write("delete", "x", "", 9, "").is_empty());
    }
}
