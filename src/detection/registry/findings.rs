//! The credentials that one event is about, and which of them an alert names.
//!
//! Takes findings in the order of the event, which an attacker chooses, and returns a bounded selection whose order the attacker cannot
//! choose: credentials that were handed over come first, then those known before the event, then those with stronger evidence, alternating
//! between namespaces, so that decoys in one namespace do not displace the credentials of others. For the same reason, hosts are selected
//! by alternating between credentials.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::cluster_state::KnownCredential;
use super::content::logins_of;
use super::docker_config::RegistryLogins;
use super::evidence::Evidence;
use super::exposure_kind::ExposureKind;
use super::login::Login;
use crate::detection::audit::json::Raw;

/// Maximum number of secrets named by an exposure. All are counted.
pub(super) const MAX_NAMED: usize = 1000;

/// Maximum number of hosts, and of user names.
const MAX_LOGINS: usize = 128;

/// Maximum number of logins read per secret.
const MAX_LOGINS_PER_SECRET: usize = 1024;

/// One registry credential of an event.
#[derive(Clone, Debug)]
pub(super) struct Finding<'e> {
    kind: ExposureKind,
    namespace: Cow<'e, str>,
    name: Cow<'e, str>,
    evidence: Evidence,
    /// Whether there was evidence other than its name before the event.
    is_known: bool,
    /// The secret, if the event shows it.
    secret: Option<Raw<'e>>,
}

impl<'e> Finding<'e> {
    /// A secret that the event does not show.
    pub(super) fn known(
        kind: ExposureKind,
        namespace: Cow<'e, str>,
        name: Cow<'e, str>,
        evidence: Evidence,
    ) -> Self {
        let is_known = evidence > Evidence::Name;
        Finding { kind, namespace, name, evidence, is_known, secret: None }
    }

    /// A secret that the event shows.
    pub(super) fn shown(
        kind: ExposureKind,
        namespace: Cow<'e, str>,
        name: Cow<'e, str>,
        evidence: Evidence,
        is_known: bool,
        secret: Raw<'e>,
    ) -> Self {
        Finding { kind, namespace, name, evidence, is_known, secret: Some(secret) }
    }
}

/// The exposure of an event, credential by credential.
#[derive(Debug, Default)]
pub(super) struct Findings<'e> {
    list: Vec<Finding<'e>>,
    kind: ExposureKind,
    /// Number of credentials that are not in the list.
    unlisted: usize,
}

/// Summary of the findings for an alert.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) secrets: Vec<String>,
    pub(super) count: u64,
    pub(super) evidence: Option<Evidence>,
    pub(super) logins: RegistryLogins,
    pub(super) is_truncated: bool,
}

impl<'e> Findings<'e> {
    pub(super) fn add(&mut self, finding: Finding<'e>) {
        self.kind = self.kind.max(finding.kind);
        self.list.push(finding);
    }

    /// Adds some of `count` known credentials that were presumably exposed.
    pub(super) fn add_presumed(&mut self, known: &[KnownCredential<'_>], count: usize) {
        for KnownCredential { namespace, name, evidence } in known {
            let [namespace, name] = [namespace, name].map(|text| Cow::Owned((*text).to_owned()));
            self.add(Finding::known(ExposureKind::Presumed, namespace, name, *evidence));
        }
        self.unlisted += count - known.len();
    }

    /// Presumes an exposure of credentials whose names are unknown.
    pub(super) fn presume(&mut self) {
        self.kind = self.kind.max(ExposureKind::Presumed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The most certain kind applies to the whole event.
    pub(super) fn kind(&self) -> ExposureKind {
        self.kind
    }

    /// Selects the credentials that an alert names. `declared` returns the logins of a credential that the event does not show.
    pub(super) fn select(mut self, declared: impl Fn(&str, &str) -> Option<RegistryLogins>) -> Selection {
        // Credentials that are only named are not listed among those handed over. The missing part of a truncated list may contain others,
        // which are presumed.
        if self.kind == ExposureKind::Payload {
            self.list.retain(|finding| finding.kind >= ExposureKind::Presumed);
        }
        if self.list.len() > 1 {
            let mut seen = HashSet::new();
            self.list.retain(|finding| seen.insert((finding.namespace.clone(), finding.name.clone())));
            sort(&mut self.list);
        }
        let named = &self.list[..self.list.len().min(MAX_NAMED)];
        let (logins, lacks_logins) = select_logins(named, declared);
        Selection {
            secrets: named.iter().map(|finding| format!("{}/{}", finding.namespace, finding.name)).collect(),
            count: (self.list.len() + self.unlisted) as u64,
            evidence: self.list.iter().map(|finding| finding.evidence).max(),
            logins,
            is_truncated: self.list.len() > MAX_NAMED || self.unlisted > 0 || lacks_logins,
        }
    }
}

fn sort(list: &mut Vec<Finding<'_>>) {
    let rank = |finding: &Finding<'_>| (!finding.is_known, std::cmp::Reverse(finding.evidence));
    let mut places: HashMap<(bool, Evidence, Cow<'_, str>), usize> = HashMap::new();
    let mut placed: Vec<(usize, Finding<'_>)> = std::mem::take(list)
        .into_iter()
        .map(|finding| {
            let group = (finding.is_known, finding.evidence, finding.namespace.clone());
            let place = places.entry(group).or_default();
            *place += 1;
            (*place, finding)
        })
        .collect();
    placed.sort_by_key(|(place, finding)| (rank(finding), *place));
    list.extend(placed.into_iter().map(|(_, finding)| finding));
}

/// Returns the logins of these credentials, and whether some were omitted.
fn select_logins(
    findings: &[Finding<'_>],
    declared: impl Fn(&str, &str) -> Option<RegistryLogins>,
) -> (RegistryLogins, bool) {
    let mut selected = RegistryLogins::default();
    let mut is_truncated = false;
    let mut rest: Vec<std::vec::IntoIter<Login>> = findings
        .iter()
        .filter_map(|finding| match finding.secret {
            Some(secret) => Some(logins_of(secret, MAX_LOGINS_PER_SECRET + 1)),
            None => declared(&finding.namespace, &finding.name).map(paired),
        })
        .map(|mut logins| {
            is_truncated |= logins.len() > MAX_LOGINS_PER_SECRET;
            logins.truncate(MAX_LOGINS_PER_SECRET);
            logins.into_iter()
        })
        .collect();
    let (mut hosts, mut usernames) = (HashSet::new(), HashSet::new());
    while !rest.is_empty() {
        rest.retain_mut(|logins| {
            let Some(Login { host, username }) = logins.next() else { return false };
            for (text, seen, texts) in
                [(host, &mut hosts, &mut selected.hosts), (username, &mut usernames, &mut selected.usernames)]
            {
                if let Some(text) = text.filter(|text| !seen.contains(text)) {
                    if texts.len() < MAX_LOGINS {
                        seen.insert(text.clone());
                        texts.push(text);
                    } else {
                        is_truncated = true;
                    }
                }
            }
            true
        });
    }
    (selected, is_truncated)
}

/// Hosts and user names that are not known to belong together, as separate logins.
fn paired(logins: RegistryLogins) -> Vec<Login> {
    let hosts = logins.hosts.into_iter().map(|host| Login::new(Some(host), None));
    hosts.chain(logins.usernames.into_iter().map(|username| Login::new(None, Some(username)))).collect()
}
