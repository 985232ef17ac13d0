//! The profiles of all identities that read secrets, and the comparison of reads with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::catalog;
use super::profile::{Facet, LastDeviation, Profile, WITHOUT_POD};
use super::read::{Breadth, NodeAccess, Read, RequestKind, list_key, service_account, watch_key};
use super::trust::TrustedReader;
use crate::detection::lru::LruMap;
use crate::detection::registry::eviction::{EvictionPriority, make_room};
use crate::detection::state::{StateChange, kind};

/// Maximum number of identities. A profile takes at most a few kilobytes.
const MAX_PROFILES: usize = 4096;

/// Maximum number of trusted identities.
const MAX_TRUSTED: usize = 1000;

/// Minimum time between two writes of a profile to the store if only its counters changed, in nanoseconds.
const STORE_INTERVAL: i64 = 3_600_000_000_000;

/// Product tokens of interactive clients, and of the default user agents of scripting libraries. Use of one of them never becomes routine
/// for an identity with other programs in its profile.
const INTERACTIVE_PROGRAMS: [&str; 22] = [
    "kubectl",
    "curl",
    "Wget",
    "HTTPie",
    "k9s",
    "Lens",
    "Headlamp",
    "Mozilla",
    "PostmanRuntime",
    "python-requests",
    "helm",
    "Helm",
    "python",
    "Python-urllib",
    "OpenAPI-Generator",
    "fabric8-kubernetes-client",
    "Go-http-client",
    "okhttp",
    "node-fetch",
    "axios",
    "Java",
    "kubernetes-client",
];

fn is_interactive(program: &str) -> bool {
    program.is_empty()
        || program == "(none)"
        || program.starts_with("kubectl-")
        || INTERACTIVE_PROGRAMS.contains(&program)
}

/// Returns whether a user agent is that of a client that people or scripts use, or is missing.
pub(crate) fn is_interactive_agent(agent: &str) -> bool {
    is_interactive(agent.split(['/', ' ', '\t']).next().unwrap_or_default())
}

/// How a read compares with the profile of its identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Status {
    /// Not a service account: a person, an anonymous client, a node, a part of the control plane, or an impersonation.
    /// Its reads are never routine.
    #[default]
    Unprofiled,
    /// The identity made equal reads on three distinct days, or is a platform controller of which this read is expected.
    Routine,
    /// An operator marked exactly this kind of read as trusted.
    Trusted,
    /// A watch that continues a list whose response contained only metadata, and that was reported on an earlier day. It may nevertheless
    /// request whole secrets.
    Metadata,
    /// The identity has been known for less than three days, and a reported list of the same day handed over what this read does.
    Listed,
    /// The identity has been known for less than three days, and what it does follows from a read of the same day that was reported.
    Repeated,
    /// The identity has been known for less than three days.
    New,
    /// The identity has been known for three days or longer, and this read differs from its profile.
    Deviating,
    /// The identity is the account of a platform controller, and this read is not one that the controller makes.
    Mismatch,
}

impl Status {
    /// Returns the value of `reader.status`.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Unprofiled => "unprofiled",
            Status::Routine => "routine",
            Status::Trusted => "trusted",
            Status::Metadata => "metadata",
            Status::Listed => "listed",
            Status::Repeated => "repeated",
            Status::New => "new",
            Status::Deviating => "deviating",
            Status::Mismatch => "mismatch",
        }
    }
}

/// How a read compares with the profile of its identity before the read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assessment {
    pub status: Status,
    pub is_new: bool,
    /// The values that are new; none for aspects without a new value.
    pub new_verb: Option<String>,
    pub new_scope: Option<String>,
    pub new_program: Option<String>,
    pub new_client: Option<String>,
    pub new_credentials: Vec<String>,
    /// Number of earlier equal reads on the same day, at most [`MAX_REPEATS`](super::profile::MAX_REPEATS).
    pub repeats: u8,
    /// Number of distinct days on which the identity read secrets, including the day of this read.
    pub days_seen: u16,
    pub program: Option<String>,
    pub network: Option<String>,
    pub scope: String,
    /// The platform controller that the account belongs to.
    pub controller: Option<&'static str>,
    /// Whether an operator marked the identity as distrusted, so that its reads are never routine.
    pub is_distrusted: bool,
    /// Differences from the controller's expected behavior.
    pub mismatches: Vec<String>,
    /// Whether a pod on the node that reads a secret uses it, as far as the authorizer's reason shows.
    pub used_on_node: Option<bool>,
    /// Whether the request failed: only its client was compared.
    pub has_failed: bool,
}

impl Assessment {
    /// What is the same for all requests of an identity.
    fn of(profile: &Profile, read: &Read<'_>, is_new: bool) -> Self {
        let days_seen = match read.day() {
            Some(day) if profile.last_day.is_none_or(|last| day > last) => profile.days.saturating_add(1),
            _ => profile.days.max(1),
        };
        Assessment {
            is_new,
            program: read.program.clone(),
            network: read.network.clone(),
            scope: read.scope.clone(),
            days_seen,
            ..Assessment::default()
        }
    }

    /// Adds what the catalog of platform controllers and the decisions of people say of the identity.
    fn compare_with_catalog(&mut self, trusted: Option<&TrustedReader>, read: &Read<'_>) {
        if read.impersonated.is_none()
            && let Some(controller) = catalog::find(&read.user)
        {
            self.controller = Some(controller.name());
            if !read.is_service_account {
                self.mismatches.push("user is not a service account".to_owned());
            }
            self.mismatches.extend(controller.mismatches(read));
            if controller.moves() {
                self.new_client = None;
            }
        }
        self.is_distrusted = read.is_service_account && trusted.is_some_and(|trusted| trusted.is_distrusted);
    }

    fn status_of_controller(&self) -> Status {
        let is_expected = self.mismatches.is_empty() && self.new_client.is_none();
        if is_expected { Status::Routine } else { Status::Mismatch }
    }

    /// Whether a person trusts the identity with this.
    pub fn is_trusted(&self) -> bool {
        self.status == Status::Trusted
    }

    /// What is new or unexpected, each with the name of its aspect.
    pub fn deviations(&self) -> Vec<String> {
        let one =
            |aspect: &str, value: &Option<String>| value.as_ref().map(|value| format!("{aspect} {value}"));
        let mut all = self.mismatches.clone();
        if self.is_distrusted {
            all.push("reader distrusted".to_owned());
        }
        all.extend(one("client", &self.new_client));
        // For a controller, only unexpected behavior counts.
        if self.controller.is_none() {
            let new = [
                one("program", &self.new_program),
                one("verb", &self.new_verb),
                one("scope", &self.new_scope),
            ];
            let credentials = self.new_credentials.iter().map(|name| format!("credential {name}"));
            all.extend(new.into_iter().flatten().chain(credentials));
        }
        all
    }
}

/// The profiles of all identities. Bounded; see `make_room`: identities of one namespace, and those impersonated by one user, displace each
/// other, and new identities never displace established ones.
#[derive(Clone, Debug)]
pub struct ReaderProfiles {
    profiles: LruMap<Arc<str>, Profile>,
    trusted: BTreeMap<String, TrustedReader>,
    evicted: u64,
    /// Whether the Node authorizer is enabled in this cluster, as shown by a current or past profile of a node.
    has_node_authorizer: bool,
    /// How the read of the current event compares with the profile.
    current: Option<Assessment>,
}

impl Default for ReaderProfiles {
    fn default() -> Self {
        ReaderProfiles {
            profiles: LruMap::new(MAX_PROFILES),
            trusted: BTreeMap::new(),
            evicted: 0,
            has_node_authorizer: false,
            current: None,
        }
    }
}

/// The key of an identity: its eviction share, a slash, and the names. The names in a key cannot contain a line break, so a user name
/// cannot imitate an impersonation.
fn key(user: &str, impersonated: Option<&str>) -> String {
    let plain = |name: &str| name.replace('\\', "\\\\").replace('\n', "\\n");
    let share = match (impersonated, service_account(user)) {
        (Some(_), _) => format!("as:{}", plain(user).replace('/', "|")),
        (None, Some((namespace, _))) => format!("sa:{namespace}"),
        (None, None) if user.starts_with("system:node:") => "node".to_owned(),
        (None, None) => "user".to_owned(),
    };
    match impersonated {
        Some(other) => format!("{share}/{}\n{}", plain(user), plain(other)),
        None => format!("{share}/{}", plain(user)),
    }
}

impl ReaderProfiles {
    pub fn len(&self) -> usize {
        self.profiles.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of evicted profiles.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The profiles of all identities that read secrets, each with its user and the user that it impersonates.
    pub fn iter(&self) -> impl Iterator<Item = (String, Option<String>, &Profile)> {
        let readers = self.profiles.iter_with_use().filter(|(_, _, profile)| profile.reads > 0);
        readers.map(|(key, _, profile)| {
            let names = key.split_once('/').map_or(&**key, |(_, names)| names);
            let plain = |name: &str| name.replace("\\n", "\n").replace("\\\\", "\\");
            match names.split_once('\n') {
                Some((user, other)) => (plain(user), Some(plain(other)), profile),
                None => (plain(names), None, profile),
            }
        })
    }

    /// Sets the service accounts that a person trusts, by user name. All others are no longer trusted.
    pub fn set_trusted(&mut self, trusted: impl IntoIterator<Item = (String, TrustedReader)>) {
        self.trusted = trusted.into_iter().take(MAX_TRUSTED).collect();
    }

    /// Clears the read of the previous event.
    pub(in crate::detection::registry) fn start_event(&mut self) {
        self.current = None;
    }

    /// How the read of the current event compares with its profile; none if the event is not a read.
    pub(crate) fn current(&self) -> Option<&Assessment> {
        self.current.as_ref()
    }

    /// Compares a request with the profile of its identity, and learns from it.
    pub(in crate::detection::registry) fn observe(&mut self, read: &Read<'_>) {
        let key = key(&read.user, read.impersonated.as_deref());
        let trusted = self.trusted.get(&read.user).filter(|_| read.impersonated.is_none());
        let profile = self.profiles.get(&*key);
        let mut assessment = match read.kind {
            RequestKind::Read => assess(profile, trusted, read),
            RequestKind::Write | RequestKind::Failure => assess_other(profile, trusted, read),
        };
        assessment.used_on_node = match read.node_access {
            Some(NodeAccess::Pod) => Some(true),
            // Without the Node authorizer, it says nothing about the pods on the node.
            Some(NodeAccess::Rbac) => self.has_node_authorizer.then_some(false),
            None => None,
        };
        self.has_node_authorizer |= read.node_access == Some(NodeAccess::Pod);
        let evicted = make_room(&mut self.profiles, MAX_PROFILES, &key, |_, profile| EvictionPriority {
            class: u8::from(profile.is_established() && profile.is_service_account),
            writer: 0,
        });
        self.evicted += evicted.len() as u64;
        self.profiles.change(&key, Profile::default, |profile| match read.kind {
            RequestKind::Read => learn(profile, read, &assessment),
            RequestKind::Write | RequestKind::Failure => learn_other(profile, read, &assessment),
        });
        self.current = Some(assessment);
    }

    pub(in crate::detection::registry) fn track(&mut self) {
        self.profiles.track();
    }

    pub(in crate::detection::registry) fn take_changes(&mut self, changes: &mut Vec<StateChange>) {
        self.profiles.take_changes(kind::READER, changes);
    }

    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> bool {
        let mut is_authorized_node = false;
        let is_restored = self.profiles.restore(key, value, |profile| {
            is_authorized_node = profile.is_authorized_node;
            profile.is_valid()
        });
        self.has_node_authorizer |= is_restored && is_authorized_node;
        is_restored
    }
}

/// Whether a verb is `list` or `watch`, which informers use alternately.
fn is_bulk(verb: &str) -> bool {
    matches!(verb, "list" | "watch")
}

fn assess(profile: Option<&Profile>, trusted: Option<&TrustedReader>, read: &Read<'_>) -> Assessment {
    let blank = Profile::default();
    let is_new = profile.is_none_or(|profile| profile.reads == 0);
    let profile = profile.unwrap_or(&blank);
    let is_established = profile.was_established_before(read.day());
    let (is_moved, is_explained) = client(&[profile], read, is_established);
    let mut assessment = Assessment::of(profile, read, is_new);
    let is_known = |facet: &Facet, value: &str| {
        if is_established { facet.was_routine_before(value, read.day()) } else { facet.is_known(value) }
    };
    if !is_new {
        let known_verb = if is_bulk(&read.verb) {
            ["list", "watch"].into_iter().any(|verb| is_known(&profile.verbs, verb))
        } else {
            is_known(&profile.verbs, &read.verb)
        };
        assessment.new_verb = (!known_verb).then(|| read.verb.clone());
        let known_scope = is_known(&profile.scopes, &read.scope)
            || read.breadth == Breadth::Namespace && is_known(&profile.scopes, "cluster");
        assessment.new_scope = (!known_scope).then(|| read.scope.clone());
        let known_program = read.program.as_ref().is_some_and(|program| is_known(&profile.programs, program));
        assessment.new_program = (!known_program).then(|| shown_program(read));
        assessment.new_client = is_moved.then(|| client_name(&[profile], read, is_established));
    }
    // Where an identity writes from is known before its first read.
    if profile.networks.is_empty()
        && let Some(writes) = &profile.writes
    {
        let is_established = writes.was_established_before(read.day());
        let (is_moved, _) = client(&[writes], read, is_established);
        assessment.new_client = is_moved.then(|| client_name(&[writes], read, is_established));
    }
    // An identity that reads many credentials of a namespace by name is expected to read others there.
    let reads_many = is_established
        && profile.credentials.is_full()
        && profile.scopes.was_routine_before(&read.scope, read.day());
    if !reads_many {
        let new = read.credentials.iter().filter(|name| !is_known(&profile.credentials, name));
        assessment.new_credentials = new.cloned().collect();
    }
    if let Some(day) = read.day() {
        let of = |name: &String| profile.credentials.repeats_on(name, day);
        let by_name = read.credentials.iter().map(of).min();
        assessment.repeats = by_name.unwrap_or_else(|| profile.scopes.repeats_on(&read.scope, day));
    }
    assessment.compare_with_catalog(trusted, read);
    assessment.status = status(profile, trusted, read, &assessment, is_explained);
    assessment
}

/// Compares a write or a failure with what its identity read, and with its earlier writes or failures.
fn assess_other(profile: Option<&Profile>, trusted: Option<&TrustedReader>, read: &Read<'_>) -> Assessment {
    let blank = Profile::default();
    let profile = profile.unwrap_or(&blank);
    let all = [profile, profile.others(read.kind).unwrap_or(&blank)];
    let day = read.day();
    let is_new = all.iter().all(|one| one.reads == 0);
    let is_established = all.iter().any(|one| one.was_established_before(day));
    let mut assessment = Assessment::of(profile, read, is_new);
    let (is_moved, _) = client(&all, read, is_established);
    assessment.new_client = (!is_new && is_moved).then(|| client_name(&all, read, is_established));
    if read.kind == RequestKind::Failure {
        assessment.has_failed = true;
        return assessment;
    }
    let is_known = |facet: fn(&Profile) -> &Facet, value: &str| {
        all.iter().any(|one| {
            let facet = facet(one);
            if is_established { facet.was_routine_before(value, day) } else { facet.is_known(value) }
        })
    };
    let known_program = read.program.as_ref().is_some_and(|program| is_known(|one| &one.programs, program));
    assessment.new_program = (!is_new && !known_program).then(|| shown_program(read));
    let new = read.credentials.iter().filter(|name| !is_known(|one| &one.credentials, name));
    assessment.new_credentials = new.cloned().collect();
    if let Some(day) = day {
        let of = |name: &String| all.iter().map(|one| one.credentials.repeats_on(name, day)).max();
        assessment.repeats = read.credentials.iter().filter_map(of).min().unwrap_or_default();
    }
    assessment.compare_with_catalog(trusted, read);
    let is_same = assessment.new_program.is_none() && assessment.new_client.is_none();
    let was_on_day = |facet: fn(&Profile) -> &Facet, value: &str| {
        day.is_some_and(|day| all.iter().any(|one| facet(one).exposed_on(value, day)))
    };
    // What it read or wrote on that day, with the same program and kind of token, was reported.
    let was_reported = is_same
        && !read.credentials.is_empty()
        && (read.credentials.iter().all(|name| was_on_day(|one| &one.credentials, name))
            || day.is_some_and(|day| was_listed(profile, read, day)))
        && read.program.as_ref().is_some_and(|program| was_on_day(|one| &one.programs, program))
        && (read.pod.is_some()
            || all.iter().all(|one| one.pods.is_empty())
            || was_on_day(|one| &one.podless, WITHOUT_POD));
    assessment.status = if assessment.is_distrusted {
        Status::Deviating
    } else if assessment.controller.is_some() {
        assessment.status_of_controller()
    } else if is_established {
        let is_routine = is_same && assessment.new_credentials.is_empty();
        if is_routine { Status::Routine } else { Status::Deviating }
    } else if was_reported {
        Status::Repeated
    } else {
        Status::New
    };
    assessment
}

fn shown_program(read: &Read<'_>) -> String {
    read.program.clone().unwrap_or_else(|| "(not a product token)".to_owned())
}

/// Returns whether the client is elsewhere than before, and whether its pod is the reason. Compares with all that is known of one identity.
fn client(profiles: &[&Profile], read: &Read<'_>, is_established: bool) -> (bool, bool) {
    let Some(network) = &read.network else { return (true, false) };
    let is_known = profiles.iter().any(|profile| {
        if is_established {
            profile.networks.was_routine_before(network, read.day())
        } else {
            profile.networks.is_known(network)
        }
    });
    match &read.pod {
        Some(pod) => match profiles.iter().find_map(|profile| profile.network_of_pod(pod)) {
            // A pod keeps its address.
            Some(known) => (known != network && !is_known, known == network),
            // A new pod may run on another node, but only explains the network if it did before.
            None => {
                let has_pods = profiles.iter().any(|profile| !profile.pods.is_empty());
                let is_explained = has_pods || profiles.iter().all(|profile| profile.networks.is_empty());
                (!is_explained && !is_known, is_explained)
            }
        },
        None => (!is_known || is_new_without_pod(profiles, read, is_established), false),
    }
}

/// Returns whether the token of a read is bound to no pod, as those are that a person or a script requests, while others of
/// its identity were, and such tokens are none of its ways.
fn is_new_without_pod(profiles: &[&Profile], read: &Read<'_>, is_established: bool) -> bool {
    let is_known = profiles.iter().any(|profile| {
        if is_established {
            profile.podless.was_routine_before(WITHOUT_POD, read.day())
        } else {
            profile.podless.is_known(WITHOUT_POD)
        }
    });
    read.pod.is_none() && profiles.iter().any(|profile| !profile.pods.is_empty()) && !is_known
}

fn client_name(profiles: &[&Profile], read: &Read<'_>, is_established: bool) -> String {
    let network = read.network.as_deref().unwrap_or("(unknown)");
    if is_new_without_pod(profiles, read, is_established) {
        return format!("{network} without a pod");
    }
    network.to_owned()
}

fn status(
    profile: &Profile,
    trusted: Option<&TrustedReader>,
    read: &Read<'_>,
    assessment: &Assessment,
    is_explained: bool,
) -> Status {
    if read.is_service_account && trusted.is_some_and(|trusted| trusted.covers(read, is_explained)) {
        return Status::Trusted;
    }
    if assessment.is_distrusted {
        return Status::Deviating;
    }
    if assessment.controller.is_some() {
        return assessment.status_of_controller();
    }
    if !read.is_service_account {
        return Status::Unprofiled;
    }
    let is_script = read.program.as_deref().is_none_or(is_interactive);
    let is_same = assessment.new_verb.is_none()
        && assessment.new_scope.is_none()
        && assessment.new_program.is_none()
        && assessment.new_client.is_none()
        && assessment.new_credentials.is_empty();
    if profile.was_established_before(read.day()) {
        return if is_same { Status::Routine } else { Status::Deviating };
    }
    // Without a time, it is unknown which earlier reads were on the same day.
    let Some(day) = read.day() else { return Status::New };
    if let Some(status) = continuation(profile, read, assessment, day, is_script) {
        return status;
    }
    // The log does not show whether a watch requests metadata, so the first one is reported like any other.
    let is_metadata = |stream: String| profile.is_metadata_list(&stream, day);
    let mut verbs = profile.verbs.iter();
    let was_exposed = verbs.any(|(verb, seen)| is_bulk(verb) && seen.exposed.is_some_and(|last| last < day));
    if is_same && was_exposed && read.verb == "watch" && !is_script && read.stream().is_some_and(is_metadata)
    {
        return Status::Metadata;
    }
    Status::New
}

/// Returns the status of a read that follows from one of the same day that was reported: it is made with the same program, from where that came
/// from, and covers no more. Controllers list, watch, list again and get by name what they keep, and so on after each restart.
fn continuation(
    profile: &Profile,
    read: &Read<'_>,
    assessment: &Assessment,
    day: i64,
    is_script: bool,
) -> Option<Status> {
    let has_program = read.program.as_ref().is_some_and(|program| profile.programs.exposed_on(program, day));
    // Reads with pod-bound and with other tokens are reported separately, like reads with different programs.
    let has_binding =
        read.pod.is_some() || profile.pods.is_empty() || profile.podless.exposed_on(WITHOUT_POD, day);
    if !has_program || !has_binding || assessment.new_client.is_some() {
        return None;
    }
    // What other programs of the identity do explains nothing of what one does that must not become routine.
    if is_barred(profile, read) {
        let keys = repeat_keys(read);
        return keys.iter().all(|key| profile.listed.exposed_on(key, day)).then_some(Status::Repeated);
    }
    // Secrets that a list handed over are not counted again by name: controllers that cache all secrets of a scope get some of them again
    // before writing.
    if was_listed(profile, read, day) {
        return Some(Status::Listed);
    }
    let has_verb = |verbs: &[&str]| verbs.iter().any(|verb| profile.verbs.exposed_on(verb, day));
    let exposing = profile.scopes.iter().filter(|(_, seen)| seen.exposed == Some(day));
    let is_as_wide =
        exposing.map(|(scope, _)| breadth(scope)).max().is_some_and(|widest| read.breadth <= widest);
    let is_same_way = if is_bulk(&read.verb) {
        is_as_wide && has_verb(&["list", "watch"])
    } else if is_script && read.credentials.is_empty() {
        profile.scopes.exposed_on(&read.scope, day) && has_verb(&[&*read.verb])
    } else if is_script {
        // Scripts get by name what people look for, too.
        read.verb == "get" && read.credentials.iter().all(|name| was_named(profile, name, day))
    } else {
        is_as_wide && has_verb(&[&*read.verb])
    };
    let is_same_credential = !read.credentials.is_empty()
        && read.credentials.iter().all(|name| profile.credentials.exposed_on(name, day));
    // Without a selector, the watch of a namespace may hand over any secret of it.
    let is_watched = read.verb == "get" && was_received(profile, read, day, watch_key);
    (is_same_way || is_same_credential || is_watched).then_some(Status::Repeated)
}

/// Returns whether a credential of this name was read by name on a day, in whichever namespace: pull secrets are copied to many under one.
fn was_named(profile: &Profile, credential: &str, day: i64) -> bool {
    credential.split_once('/').is_some_and(|(_, wanted)| {
        let has_name = |known: &str| known.split_once('/').is_some_and(|(_, name)| name == wanted);
        profile.credentials.iter().any(|(known, seen)| seen.exposed == Some(day) && has_name(known))
    })
}

/// What is kept of a read by a program that must not become routine, to recognize the same read.
fn repeat_keys(read: &Read<'_>) -> Vec<String> {
    let program = read.program.as_deref().unwrap_or_default();
    let way = if is_bulk(&read.verb) { "list" } else { &*read.verb };
    let key = |what: &String| format!("{way} {what} {program}");
    if read.credentials.is_empty() {
        vec![key(&read.scope)]
    } else {
        read.credentials.iter().map(key).collect()
    }
}

/// Returns whether all secrets in the namespace of the named one were handed over to the same program on the given day.
fn was_listed(profile: &Profile, read: &Read<'_>, day: i64) -> bool {
    was_received(profile, read, day, list_key)
}

/// Returns whether a list or watch of the namespace of a named secret, or of the cluster, was reported on a day. `key` tells which: it returns
/// the key under which the profile stores it.
fn was_received(profile: &Profile, read: &Read<'_>, day: i64, key: fn(&str, &str) -> String) -> bool {
    let namespace = read.scope.strip_prefix("secret:").filter(|namespace| !namespace.is_empty());
    let (Some(namespace), Some(program)) = (namespace, &read.program) else { return false };
    let scopes = ["cluster".to_owned(), format!("namespace:{namespace}")];
    scopes.iter().any(|scope| profile.listed.exposed_on(&key(scope, program), day))
}

fn breadth(scope: &str) -> Breadth {
    match scope {
        "cluster" => Breadth::Cluster,
        scope if scope.starts_with("namespace:") => Breadth::Namespace,
        _ => Breadth::Secret,
    }
}

/// Learns from a read. Returns whether the profile is worth storing.
fn learn(profile: &mut Profile, read: &Read<'_>, assessment: &Assessment) -> bool {
    let day = read.day();
    let mut is_changed = profile.reads == 0;
    profile.reads = profile.reads.saturating_add(1);
    if let Some(time) = read.time {
        is_changed |= profile.last.is_none_or(|last| time.saturating_sub(last) >= STORE_INTERVAL);
        if is_changed || profile.last.is_some_and(|last| last > time) {
            profile.last = profile.last.max(Some(time));
        }
        profile.first = Some(profile.first.map_or(time, |first| first.min(time)));
    }
    profile.is_service_account = read.is_service_account;
    if read.node_access == Some(NodeAccess::Pod) {
        is_changed |= !std::mem::replace(&mut profile.is_authorized_node, true);
    }
    let is_different = matches!(assessment.status, Status::Deviating | Status::Mismatch);
    if is_different && read.exposes {
        let what = assessment.deviations().into_iter().take(8).map(Into::into).collect();
        profile.deviation = Some(LastDeviation { time: read.time, what });
        is_changed = true;
    }
    if let Some(stream) = read.stream() {
        if read.is_metadata
            && let Some(day) = day
        {
            is_changed |= profile.learn_metadata_list(&stream, day);
        } else if read.exposes && read.verb == "list" {
            is_changed |= profile.forget_metadata_list(&stream);
        }
    }
    // What another program does in the name of an identity says nothing of that identity, nor what a controller's account does
    // that the controller does not.
    let is_foreign = !assessment.is_new && assessment.new_program.is_some() && is_foreign(&[profile], read);
    if let Some(program) = &read.program {
        is_changed |= profile.programs.learn(program, day, read.exposes, is_foreign);
        is_changed |= is_foreign && day.is_none();
    }
    // Nor does a token without a pod where all others had one: a person or a script requested it.
    let is_minted = is_different && is_new_without_pod(&[profile], read, profile.was_established_before(day));
    if is_foreign || is_minted || is_barred(profile, read) || !assessment.mismatches.is_empty() {
        if read.exposes && assessment.mismatches.is_empty() && !is_minted {
            for key in repeat_keys(read) {
                is_changed |= profile.listed.learn(&key, day, true, true);
            }
        }
        return is_changed;
    }
    // A client that no alert has named is not known to the next read.
    if read.exposes || assessment.new_client.is_none() || profile.was_established_before(day) {
        is_changed |= learn_client(profile, read, assessment, read.exposes);
    }
    // What a list already handed over does not make reads by name of other secrets known.
    let is_news = !day.is_some_and(|day| was_listed(profile, read, day));
    is_changed |= profile.verbs.learn(&read.verb, day, read.exposes && is_news, false);
    is_changed |= profile.scopes.learn(&read.scope, day, read.exposes, false);
    if let Some(list) = &read.listed {
        is_changed |= profile.listed.learn(list, day, true, false);
    }
    // What follows from a list was not reported by name, and explains no other read by name. All else is counted.
    let counts = assessment.status != Status::Listed;
    for credential in read.credentials {
        is_changed |= profile.credentials.learn(credential, day, counts, false);
    }
    is_changed | (!is_different && learn_day(profile, day))
}

/// Learns from where a request came.
fn learn_client(profile: &mut Profile, read: &Read<'_>, assessment: &Assessment, exposes: bool) -> bool {
    let day = read.day();
    let mut is_changed = false;
    if read.pod.is_none() && assessment.controller.is_none() {
        is_changed |= profile.podless.learn(WITHOUT_POD, day, exposes, false);
    }
    if let Some(network) = &read.network {
        // If a controller has moved, it has a new pod; a read from elsewhere without one is not from the controller.
        let is_elsewhere = assessment.controller.is_some() && assessment.new_client.is_some();
        is_changed |= profile.networks.learn(network, day, exposes, is_elsewhere);
        if assessment.new_client.is_none()
            && let Some(pod) = &read.pod
        {
            is_changed |= profile.learn_pod(pod, network);
        }
    }
    is_changed
}

/// Counts a day. Returns whether it is another one.
fn learn_day(profile: &mut Profile, day: Option<i64>) -> bool {
    let Some(day) = day.filter(|day| profile.last_day.is_none_or(|last| *day > last)) else { return false };
    profile.days = profile.days.saturating_add(1);
    profile.last_day = Some(day);
    true
}

/// Learns from a write or a failure, apart from what the identity reads.
fn learn_other(profile: &mut Profile, read: &Read<'_>, assessment: &Assessment) -> bool {
    let mut other = profile.others_mut(read.kind).take().unwrap_or_default();
    let all = [&*profile, &*other];
    let is_different = matches!(assessment.status, Status::Deviating | Status::Mismatch);
    let is_foreign = !assessment.is_new && assessment.new_program.is_some() && is_foreign(&all, read);
    let is_established = all.iter().any(|one| one.was_established_before(read.day()));
    let is_minted = is_different && is_new_without_pod(&all, read, is_established);
    let mut is_changed = other.reads == 0;
    other.reads = other.reads.saturating_add(1);
    if read.kind == RequestKind::Failure {
        // What fails from elsewhere stays elsewhere.
        if assessment.new_client.is_none() {
            is_changed |= learn_client(&mut other, read, assessment, false);
            is_changed |= learn_day(&mut other, read.day());
        }
    } else {
        if let Some(program) = &read.program {
            is_changed |= other.programs.learn(program, read.day(), true, is_foreign);
        }
        if !is_foreign && !is_minted && !is_barred(&other, read) && assessment.mismatches.is_empty() {
            // A client that no alert has named is not known to the next write.
            if !read.credentials.is_empty() || assessment.new_client.is_none() {
                is_changed |= learn_client(&mut other, read, assessment, true);
            }
            for credential in read.credentials {
                is_changed |= other.credentials.learn(credential, read.day(), true, false);
            }
            is_changed |= !is_different && learn_day(&mut other, read.day());
        }
    }
    *profile.others_mut(read.kind) = Some(other);
    is_changed
}

/// Returns whether a program that is new to an identity must not become routine by itself: every program that joins an
/// established profile, and interactive ones where the others are not.
fn is_foreign(profiles: &[&Profile], read: &Read<'_>) -> bool {
    let Some(program) = &read.program else { return true };
    let mut programs = profiles.iter().flat_map(|profile| profile.programs.iter());
    let has_others = programs.any(|(known, seen)| !seen.is_barred && !is_interactive(known));
    let mut profiles = profiles.iter();
    profiles.any(|profile| profile.was_established_before(read.day()))
        || is_interactive(program) && has_others
}

fn is_barred(profile: &Profile, read: &Read<'_>) -> bool {
    let Some(program) = &read.program else { return true };
    profile.programs.get(program).is_none_or(|seen| seen.is_barred)
}
