//! What the stream of events taught: which secrets are registry credentials, which pods hold some, which roles let
//! read some.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use super::names::Names;
use super::recent::Recent;
use super::text;
use crate::audit::event::{Event, Member};

/// So many secrets are remembered: credentials, and others whose name could be taken for one.
const MOST_SECRETS: usize = 50_000;

/// So many pods are remembered that take a secret.
const MOST_PODS: usize = 20_000;

/// So many secrets of one pod are remembered.
pub const MOST_OF_A_POD: usize = 64;

/// So many roles are remembered that let read secrets.
const MOST_ROLES: usize = 10_000;

/// So many namespaces are remembered.
const MOST_NAMESPACES: usize = 10_000;

/// So many requests that last are remembered, twice, to know their end by their start.
const MOST_LASTING: usize = 50_000;

/// How it is known that a secret is a registry credential, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// It has a name that such secrets go by, and nothing better is known.
    Name,
    /// A pod, a workload or a service account names it in `imagePullSecrets`.
    Reference,
    /// Its type was seen.
    Type,
}

impl Evidence {
    /// The word in rules.
    pub const fn name(self) -> &'static str {
        match self {
            Evidence::Name => "name",
            Evidence::Reference => "reference",
            Evidence::Type => "type",
        }
    }
}

/// What is known of one secret.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Whether its type is one of a registry credential; nothing where none was seen.
    is_credential: Option<bool>,
    /// Whether something names it in `imagePullSecrets`.
    is_referenced: bool,
}

impl Standing {
    /// A type that was seen beats all else.
    fn evidence(self) -> Option<Evidence> {
        match self.is_credential {
            Some(true) => Some(Evidence::Type),
            Some(false) => None,
            None => self.is_referenced.then_some(Evidence::Reference),
        }
    }
}

/// What was learned, bounded: of each kind the least recently used goes first, and is counted.
#[derive(Clone, Debug)]
pub struct Knowledge {
    secrets: Recent<Standing>,
    /// Secrets that a pod takes as volume or in its environment, by pod.
    pods: Recent<Box<[Box<str>]>>,
    /// Verbs on secrets that a role grants, by role.
    roles: Recent<Vec<String>>,
    /// Pod Security's `enforce` label, by namespace; empty where it is known to have none.
    namespaces: Recent<String>,
    lasting: [HashSet<[u8; 16]>; 2],
}

impl Default for Knowledge {
    fn default() -> Self {
        Knowledge {
            secrets: Recent::new(MOST_SECRETS),
            pods: Recent::new(MOST_PODS),
            roles: Recent::new(MOST_ROLES),
            namespaces: Recent::new(MOST_NAMESPACES),
            lasting: Default::default(),
        }
    }
}

/// `namespace/name`; a cluster role's namespace is empty.
fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl Knowledge {
    /// How many secrets, pods, roles and namespaces are remembered.
    pub fn len(&self) -> usize {
        self.secrets.len() + self.pods.len() + self.roles.len() + self.namespaces.len()
    }

    /// Whether nothing was learned yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How much had to be forgotten for something newer.
    pub fn evicted(&self) -> u64 {
        self.secrets.evicted() + self.pods.evicted() + self.roles.evicted() + self.namespaces.evicted()
    }

    /// A secret's type was seen.
    pub(super) fn saw_type(&mut self, namespace: &str, name: &str, is_credential: bool, names: &Names) {
        let key = key(namespace, name);
        // Of other secrets only those are of interest that could be taken for a credential.
        if !is_credential && !names.match_name(name) && self.secrets.get(&key).is_none() {
            return;
        }
        if let Some(standing) = self.secrets.get_or_insert_with(&key, Standing::default) {
            standing.is_credential = Some(is_credential);
        }
    }

    /// Something names a secret in `imagePullSecrets`.
    pub(super) fn saw_reference(&mut self, namespace: &str, name: &str) {
        if let Some(standing) = self.secrets.get_or_insert_with(&key(namespace, name), Standing::default) {
            standing.is_referenced = true;
        }
    }

    /// A pod takes these secrets.
    pub(super) fn saw_pod(&mut self, namespace: &str, pod: &str, secrets: Vec<Box<str>>) {
        if let Some(held) = self.pods.get_or_insert_with(&key(namespace, pod), Box::default) {
            *held = secrets.into();
        }
    }

    /// The names of the secrets that a pod takes.
    pub(super) fn held_by(&mut self, namespace: &str, pod: &str) -> Box<[Box<str>]> {
        self.pods.get(&key(namespace, pod)).cloned().unwrap_or_default()
    }

    /// A pod is gone.
    pub(super) fn forget_pod(&mut self, namespace: &str, pod: &str) {
        self.pods.remove(&key(namespace, pod));
    }

    /// A role grants these verbs on secrets. A cluster role has no namespace.
    pub(super) fn saw_role(&mut self, namespace: &str, role: &str, verbs: Vec<String>) {
        let key = key(namespace, role);
        if verbs.is_empty() {
            self.roles.remove(&key);
        } else if let Some(granted) = self.roles.get_or_insert_with(&key, Vec::new) {
            *granted = verbs;
        }
    }

    /// The verbs on secrets that a role grants.
    pub(super) fn granted_by(&mut self, namespace: &str, role: &str) -> Option<Vec<String>> {
        self.roles.get(&key(namespace, role)).cloned()
    }

    /// A namespace has this `enforce` label; empty for none.
    pub(super) fn saw_namespace(&mut self, namespace: &str, enforced: String) {
        if let Some(known) = self.namespaces.get_or_insert_with(namespace, String::new) {
            *known = enforced;
        }
    }

    /// The `enforce` label of a namespace, empty where it has none; nothing where it is not known.
    pub(super) fn enforced_in(&mut self, namespace: &str) -> Option<String> {
        self.namespaces.get(namespace).cloned()
    }

    /// How it is known that a secret is a registry credential; nothing where it is none.
    pub(super) fn evidence(&mut self, namespace: &str, name: &str, names: &Names) -> Option<Evidence> {
        match self.secrets.get(&key(namespace, name)).copied() {
            Some(standing) if standing.is_credential.is_some() || standing.is_referenced => {
                standing.evidence()
            }
            _ => names.match_name(name).then_some(Evidence::Name),
        }
    }

    /// The known credentials of a namespace, or with none of the cluster, in alphabetical order.
    pub(super) fn credentials<'k>(
        &'k self,
        namespace: Option<&'k str>,
    ) -> impl Iterator<Item = (&'k str, Evidence)> {
        let prefix = namespace.unwrap_or_default();
        self.secrets
            .starting_with(prefix)
            // `prod` is also how `production/x` starts.
            .filter(move |(key, _)| namespace.is_none() || key.as_bytes().get(prefix.len()) == Some(&b'/'))
            .filter_map(|(key, standing)| Some((key, standing.evidence()?)))
    }

    /// A secret is gone: one that comes after it by that name may be something else.
    pub(super) fn forget_secret(&mut self, namespace: &str, name: &str) {
        self.secrets.remove(&key(namespace, name));
    }

    /// All secrets of a namespace are gone.
    pub(super) fn forget_secrets_of(&mut self, namespace: &str) {
        self.secrets.remove_prefix(&key(namespace, ""));
    }

    /// Whether this is the first event of a request that lasts (watch, exec and the like) and has one when it starts and one
    /// when it ends. It is told by what a client cannot choose together: the time at which it was received, who asked, from
    /// where, for what; the audit id alone can be anything.
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
        let [young, old] = &mut self.lasting;
        if young.contains(&request) || old.contains(&request) {
            return false;
        }
        if young.len() >= MOST_LASTING {
            *old = std::mem::take(young);
        }
        young.insert(request)
    }
}

/// The name of the object that a request was about, or, where the server made it up, that of the answer.
pub(super) fn object_name(event: &mut Event<'_>) -> Option<String> {
    text(event.object().name).or_else(|| text(event.path(&["responseObject", "metadata", "name"])))
}
