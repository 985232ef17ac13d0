//! What the stream of events taught: which secrets are registry credentials, which pods hold some, which roles let
//! read some.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::long_running::LongRunningRequests;
use super::lru::Recent;
use super::text;
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::time::ReferenceClock;
use crate::detection::state::{StateChange, kind};
use crate::text::name_patterns::NamePatterns;

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

/// How it is known that a secret is a registry credential, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Standing {
    /// Whether its type is one of a registry credential; nothing where none was seen.
    #[serde(rename = "credential", default, skip_serializing_if = "Option::is_none")]
    is_credential: Option<bool>,
    /// Whether something names it in `imagePullSecrets`.
    #[serde(rename = "referenced", default, skip_serializing_if = "std::ops::Not::not")]
    is_referenced: bool,
    /// When it was created or changed last, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<i64>,
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

    /// Whether it is a credential, if only by its name: others are not kept for having been written.
    fn is_known_credential(self) -> bool {
        self.evidence().is_some() || self.is_credential.is_none() && self.written.is_some()
    }
}

/// What was learned, bounded: of each kind the least recently used goes first, and is counted.
#[derive(Clone, Debug)]
pub struct ClusterState {
    secrets: Recent<Standing>,
    /// Secrets that a pod takes as volume or in its environment, by pod.
    pods: Recent<Box<[Box<str>]>>,
    /// Verbs on secrets that a role grants, by role.
    roles: Recent<Vec<String>>,
    /// Pod Security's `enforce` label, by namespace; empty where it is known to have none.
    namespaces: Recent<String>,
    lasting: LongRunningRequests,
    /// Which times are believed.
    clock: ReferenceClock,
}

/// How much is known, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Secrets that are registry credentials.
    pub credentials: usize,
    /// Other secrets whose name could be a credential's.
    pub other_secrets: usize,
    /// Pods that take a secret.
    pub pods: usize,
    /// Roles that let read secrets.
    pub roles: usize,
    /// Namespaces.
    pub namespaces: usize,
}

impl Default for ClusterState {
    fn default() -> Self {
        ClusterState {
            secrets: Recent::new(MOST_SECRETS),
            pods: Recent::new(MOST_PODS),
            roles: Recent::new(MOST_ROLES),
            namespaces: Recent::new(MOST_NAMESPACES),
            lasting: LongRunningRequests::default(),
            clock: ReferenceClock::default(),
        }
    }
}

/// `namespace/name`; a cluster role's namespace is empty.
fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl ClusterState {
    /// How many secrets, pods, roles and namespaces are remembered.
    pub fn len(&self) -> usize {
        self.secrets.len() + self.pods.len() + self.roles.len() + self.namespaces.len()
    }

    /// The same, by kind. Looks at each secret.
    pub fn sizes(&self) -> Sizes {
        let credentials = self.credentials_with_times().count();
        Sizes {
            credentials,
            other_secrets: self.secrets.len() - credentials,
            pods: self.pods.len(),
            roles: self.roles.len(),
            namespaces: self.namespaces.len(),
        }
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
    pub(super) fn saw_type(
        &mut self,
        namespace: &str,
        name: &str,
        is_credential: bool,
        names: &NamePatterns,
    ) {
        let key = key(namespace, name);
        // Of other secrets only those are of interest that could be taken for a credential.
        if !is_credential && !names.matches(name) && self.secrets.get(&key).is_none() {
            return;
        }
        self.secrets.change(&key, Standing::default, |standing| {
            standing.is_credential.replace(is_credential) != Some(is_credential)
        });
    }

    /// Something names a secret in `imagePullSecrets`.
    pub(super) fn saw_reference(&mut self, namespace: &str, name: &str) {
        self.secrets.change(&key(namespace, name), Standing::default, |standing| {
            !std::mem::replace(&mut standing.is_referenced, true)
        });
    }

    /// A secret was created or changed; of interest where it is a registry credential.
    pub(super) fn saw_write(&mut self, namespace: &str, name: &str, time: i64, names: &NamePatterns) {
        if self.evidence(namespace, name, names).is_some() {
            let time = Some(self.clock.clamp(time));
            self.secrets.change(&key(namespace, name), Standing::default, |standing| {
                let is_later = standing.written < time;
                standing.written = standing.written.max(time);
                is_later
            });
        }
    }

    /// A pod takes these secrets.
    pub(super) fn saw_pod(&mut self, namespace: &str, pod: &str, secrets: Vec<Box<str>>) {
        self.pods.set(&key(namespace, pod), secrets.into());
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
        } else {
            self.roles.set(&key, verbs);
        }
    }

    /// The verbs on secrets that a role grants.
    pub(super) fn granted_by(&mut self, namespace: &str, role: &str) -> Option<Vec<String>> {
        self.roles.get(&key(namespace, role)).cloned()
    }

    /// A namespace has this `enforce` label; empty for none.
    pub(super) fn saw_namespace(&mut self, namespace: &str, enforced: String) {
        self.namespaces.set(namespace, enforced);
    }

    /// The `enforce` label of a namespace, empty where it has none; nothing where it is not known.
    pub(super) fn enforced_in(&mut self, namespace: &str) -> Option<String> {
        self.namespaces.get(namespace).cloned()
    }

    /// How it is known that a secret is a registry credential; nothing where it is none.
    pub(super) fn evidence(&mut self, namespace: &str, name: &str, names: &NamePatterns) -> Option<Evidence> {
        match self.secrets.get(&key(namespace, name)).copied() {
            Some(standing) if standing.is_credential.is_some() || standing.is_referenced => {
                standing.evidence()
            }
            _ => names.matches(name).then_some(Evidence::Name),
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
        self.lasting.is_first(request)
    }
}

/// What is stored, and what a metric asks.
impl ClusterState {
    /// All known registry credentials as `namespace/name`, in alphabetical order, and when each was created or changed
    /// last, by the time of events in nanoseconds since 1970, where that was seen. Those are among them that only their
    /// name gives away, if such a write was seen.
    pub fn credentials_with_times(&self) -> impl Iterator<Item = (&str, Option<i64>)> {
        let secrets = self.secrets.starting_with("");
        secrets
            .filter(|(_, standing)| standing.is_known_credential())
            .map(|(key, standing)| (key, standing.written))
    }

    /// Says which times of writes are to be believed.
    pub fn set_clock(&mut self, clock: ReferenceClock) {
        self.clock = clock;
    }

    /// From now on remembers what changes, until it is asked for. To be called before anything is restored: what is
    /// there already counts as changed.
    pub fn track(&mut self) {
        self.secrets.track();
        self.pods.track();
        self.roles.track();
        self.namespaces.track();
        self.lasting.track();
    }

    /// What changed since the last call; nothing unless it is [tracked](ClusterState::track).
    pub fn take_changes(&mut self) -> Vec<StateChange> {
        let mut changes = Vec::new();
        self.secrets.take_changes(kind::SECRET, &mut changes);
        self.pods.take_changes(kind::POD, &mut changes);
        self.roles.take_changes(kind::ROLE, &mut changes);
        self.namespaces.take_changes(kind::NAMESPACE, &mut changes);
        self.lasting.take_changes(&mut changes);
        changes
    }

    /// Takes a stored entry back, in any order. False where it means nothing to this version.
    pub fn restore(&mut self, kind: &str, key: &[u8], value: &[u8]) -> bool {
        match kind {
            kind::SECRET => self.secrets.restore(key, value, |_| true),
            kind::POD => self.pods.restore(key, value, |held| held.len() <= MOST_OF_A_POD),
            kind::ROLE => self.roles.restore(key, value, |verbs| !verbs.is_empty()),
            kind::NAMESPACE => self.namespaces.restore(key, value, |_| true),
            kind::REQUEST => self.lasting.restore(key, value),
            _ => false,
        }
    }
}

/// The name of the object that a request was about, or, where the server made it up, that of the answer.
pub(super) fn object_name(event: &mut Event<'_>) -> Option<String> {
    text(event.object().name).or_else(|| text(event.path(&["responseObject", "metadata", "name"])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::registry::learn;

    #[test]
    fn when_a_credential_was_written_last_is_remembered() {
        let names = NamePatterns::new(["*regcred*"]).unwrap();
        let mut cluster_state = ClusterState::default();
        let mut write = |verb: &str, name: &str, kind: &str, second: u8, rest: &str| {
            let event = format!(
                r#"{{"stage":"ResponseComplete","requestURI":"/s?{rest}","verb":"{verb}","objectRef":{{"resource":"secrets","namespace":"p","name":"{name}"}},"responseStatus":{{"code":{}}},"requestObject":{{"type":"{kind}"}},"stageTimestamp":"1970-01-01T00:00:0{second}Z"}}"#,
                if rest == "refused" { 403 } else { 200 },
            );
            learn(&mut Event::new(event.as_bytes()), &names, &mut cluster_state);
            let known = cluster_state.credentials_with_times();
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
        // By its name alone, until a type is seen.
        assert_eq!(write("patch", "regcred", "", 7, "").len(), 2);
        assert_eq!(write("update", "regcred", "Opaque", 8, ""), x(3));
        assert!(write("delete", "x", "", 9, "").is_empty());
    }
}
