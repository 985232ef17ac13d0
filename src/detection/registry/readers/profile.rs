//! The profile of one identity that reads secrets.
//!
//! A profile has a [`Facet`] for each aspect of a read: verb, scope, program, network, credential. A value of a facet is routine once it
//! was seen on [`ROUTINE_DAYS`] distinct days. Days are those of the events, and are only counted forward.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::read::RequestKind;

/// Number of distinct days after which a behavior is routine.
pub(super) const ROUTINE_DAYS: u16 = 3;

/// Maximum number of values of a facet. A further value replaces the oldest one that is not routine; if all are routine, it counts as new
/// each time.
const MAX_VALUES: usize = 48;

/// A value of a facet, the number of distinct days it was seen on, and whether it is routine.
pub type SeenValue<'a> = (&'a str, u16, bool);

/// The only value of [`Profile::podless`].
pub(super) const WITHOUT_POD: &str = "-";

/// Maximum number of pods whose network is stored.
const MAX_PODS: usize = 16;

/// Maximum length of a value in bytes: `namespace:` and `secret:` with a namespace, or a secret with its namespace.
const MAX_VALUE_BYTES: usize = 330;

/// One value of a facet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Number of distinct days, at most `u16::MAX`.
    #[serde(rename = "n")]
    pub days: u16,
    /// The last of these days, in days since 1970.
    #[serde(rename = "d")]
    pub last: i64,
    /// The last day on which a read with this value handed over a credential.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub exposed: Option<i64>,
    /// Number of reads with this value that handed over a credential on that day, at most [`MAX_REPEATS`].
    #[serde(rename = "c", default, skip_serializing_if = "is_zero")]
    pub repeats: u8,
    /// Whether it only becomes routine by the decision of a person.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_barred: bool,
}

/// Whether a number of days is sufficient, not counting the given day.
fn has_days_before(days: u16, last: Option<i64>, day: Option<i64>) -> bool {
    let includes_day = day.is_some() && last == day;
    days.saturating_sub(u16::from(includes_day)) >= ROUTINE_DAYS
}

/// Maximum number of repetitions of a read on one day that are distinguished.
pub(super) const MAX_REPEATS: u8 = 5;

#[allow(clippy::trivially_copy_pass_by_ref)] // The signature that serde asks for.
fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl Seen {
    /// Whether it was seen on sufficiently many days.
    pub fn is_routine(self) -> bool {
        self.days >= ROUTINE_DAYS && !self.is_barred
    }

    /// Whether it was seen on sufficiently many days before this one.
    fn was_routine_before(self, day: Option<i64>) -> bool {
        self.is_routine() && has_days_before(self.days, Some(self.last), day)
    }
}

/// The values of one aspect of an identity's reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Facet(BTreeMap<Box<str>, Seen>);

impl Facet {
    pub fn get(&self, value: &str) -> Option<Seen> {
        self.0.get(value).copied()
    }

    /// Returns whether a value was seen on sufficiently many days before this one.
    pub fn was_routine_before(&self, value: &str, day: Option<i64>) -> bool {
        self.get(value).is_some_and(|seen| seen.was_routine_before(day))
    }

    /// Returns whether a value was seen and may become routine.
    pub fn is_known(&self, value: &str) -> bool {
        self.get(value).is_some_and(|seen| !seen.is_barred)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Seen)> {
        self.0.iter().map(|(value, seen)| (&**value, *seen))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether there is no room because all values are routine.
    pub fn is_full(&self) -> bool {
        self.0.len() >= MAX_VALUES && self.0.values().all(|seen| seen.is_routine())
    }

    /// Returns whether a read with this value handed over a credential on a day.
    pub fn exposed_on(&self, value: &str, day: i64) -> bool {
        self.get(value).is_some_and(|seen| seen.exposed == Some(day))
    }

    /// Returns the number of reads with this value that handed over a credential on a day.
    pub fn repeats_on(&self, value: &str, day: i64) -> u8 {
        self.get(value).filter(|seen| seen.exposed == Some(day)).map_or(0, |seen| seen.repeats)
    }

    /// Adds a value that was seen on a day. Returns whether the change is worth storing.
    pub fn learn(&mut self, value: &str, day: Option<i64>, exposes: bool, is_barred: bool) -> bool {
        if value.len() > MAX_VALUE_BYTES || !self.make_room(value) {
            return false;
        }
        let is_new = !self.0.contains_key(value);
        let seen = self.0.entry(value.into()).or_default();
        let before = *seen;
        seen.is_barred |= is_new && is_barred;
        if let Some(day) = day {
            if is_new || day > seen.last {
                seen.days = seen.days.saturating_add(1);
                seen.last = day;
            }
            if exposes && seen.exposed.is_none_or(|last| day > last) {
                seen.exposed = Some(day);
                seen.repeats = 0;
            }
            if exposes && seen.exposed == Some(day) {
                seen.repeats = MAX_REPEATS.min(seen.repeats + 1);
            }
        }
        is_new || *seen != before
    }

    fn make_room(&mut self, value: &str) -> bool {
        if self.0.len() < MAX_VALUES || self.0.contains_key(value) {
            return true;
        }
        let candidates = self.0.iter().filter(|(_, seen)| !seen.is_routine());
        let Some(oldest) =
            candidates.min_by_key(|(_, seen)| (seen.last, seen.days)).map(|(key, _)| key.clone())
        else {
            return false;
        };
        self.0.remove(&oldest);
        true
    }

    fn is_valid(&self) -> bool {
        self.0.len() <= MAX_VALUES && self.0.keys().all(|value| value.len() <= MAX_VALUE_BYTES)
    }
}

/// The last read that was reported because it differed from the profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastDeviation {
    /// In nanoseconds since 1970; none if the event has no plausible time.
    pub time: Option<i64>,
    /// What was new.
    pub what: Vec<Box<str>>,
}

/// What is known of an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Time of the first and the last read in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<i64>,
    /// Number of reads.
    pub(super) reads: u64,
    /// Number of distinct days with at least one read that did not deviate from the profile.
    pub(super) days: u16,
    /// The latest of these days.
    pub(super) last_day: Option<i64>,
    /// Whether the identity is a service account, according to its groups.
    pub(super) is_service_account: bool,
    pub(super) verbs: Facet,
    pub(super) scopes: Facet,
    pub(super) programs: Facet,
    pub(super) networks: Facet,
    /// Credentials that were read by name.
    pub(super) credentials: Facet,
    /// Scope and program of lists that returned every secret in their scope.
    #[serde(default, skip_serializing_if = "Facet::is_empty")]
    pub(super) listed: Facet,
    /// The network of each pod that the identity's tokens were bound to, latest last.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub(super) pods: VecDeque<(Box<str>, Box<str>)>,
    /// Reads with tokens that were not bound to a pod: one value, [`WITHOUT_POD`].
    #[serde(default, skip_serializing_if = "Facet::is_empty")]
    pub(super) podless: Facet,
    /// The latest lists that handed over no data: program, network and scope. A watch that continues one of them hands over none either.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub(super) metadata_lists: VecDeque<(Box<str>, i64)>,
    /// Whether it is a node whose read of a secret the Node authorizer allowed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_authorized_node: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deviation: Option<LastDeviation>,
    /// Creations and updates of secrets. They are kept apart, so that they make no read routine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) writes: Option<Box<Profile>>,
    /// Clients of requests that failed, for the same reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failures: Option<Box<Profile>>,
}

impl Profile {
    /// Whether its reads may be routine.
    pub(super) fn is_established(&self) -> bool {
        self.days >= ROUTINE_DAYS
    }

    /// Whether its reads on the given day may be routine.
    pub(super) fn was_established_before(&self, day: Option<i64>) -> bool {
        has_days_before(self.days, self.last_day, day)
    }

    pub(super) fn is_valid(&self) -> bool {
        let facets = [&self.verbs, &self.scopes, &self.programs, &self.networks, &self.credentials];
        facets.into_iter().chain([&self.listed, &self.podless]).all(Facet::is_valid)
            && self.pods.len() <= MAX_PODS
            && self.metadata_lists.len() <= MAX_PODS
            && [&self.writes, &self.failures]
                .into_iter()
                .flatten()
                .all(|other| other.writes.is_none() && other.failures.is_none() && other.is_valid())
    }

    /// What is known of the identity's writes or failures, which are kept apart from its reads.
    pub(super) fn others(&self, kind: RequestKind) -> Option<&Profile> {
        if kind == RequestKind::Write { self.writes.as_deref() } else { self.failures.as_deref() }
    }

    /// The same, to change it.
    pub(super) fn others_mut(&mut self, kind: RequestKind) -> &mut Option<Box<Profile>> {
        if kind == RequestKind::Write { &mut self.writes } else { &mut self.failures }
    }

    pub(super) fn network_of_pod(&self, pod: &str) -> Option<&str> {
        self.pods.iter().find(|(known, _)| **known == *pod).map(|(_, network)| &**network)
    }

    /// Records the network of a pod. Returns true if the pod was unknown.
    pub(super) fn learn_pod(&mut self, pod: &str, network: &str) -> bool {
        if pod.len() > MAX_VALUE_BYTES || self.network_of_pod(pod).is_some() {
            return false;
        }
        if self.pods.len() >= MAX_PODS {
            self.pods.pop_front();
        }
        self.pods.push_back((pod.into(), network.into()));
        true
    }

    /// Records that a list handed over no data on a day. Returns whether this was unknown.
    pub(super) fn learn_metadata_list(&mut self, key: &str, day: i64) -> bool {
        if self.is_metadata_list(key, day) {
            return false;
        }
        self.metadata_lists.retain(|(known, _)| **known != *key);
        if self.metadata_lists.len() >= MAX_PODS {
            self.metadata_lists.pop_front();
        }
        self.metadata_lists.push_back((key.into(), day));
        true
    }

    /// Returns whether the last list of this kind, on this or the preceding day, handed over no data.
    pub(super) fn is_metadata_list(&self, key: &str, day: i64) -> bool {
        self.metadata_lists.iter().any(|(known, last)| **known == *key && (day - 1..=day).contains(last))
    }

    /// Removes the record that lists of this kind handed over no data.
    pub(super) fn forget_metadata_list(&mut self, key: &str) -> bool {
        let before = self.metadata_lists.len();
        self.metadata_lists.retain(|(known, _)| **known != *key);
        self.metadata_lists.len() != before
    }
}

/// What commands show.
impl Profile {
    /// Number of distinct days with a read that did not differ from the profile.
    pub fn days(&self) -> u16 {
        self.days
    }

    /// Number of reads.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// Time of the first read in nanoseconds since 1970.
    pub fn first(&self) -> Option<i64> {
        self.first
    }

    /// Time of the last read in nanoseconds since 1970. Stored about once an hour.
    pub fn last(&self) -> Option<i64> {
        self.last
    }

    /// Whether it is a service account.
    pub fn is_service_account(&self) -> bool {
        self.is_service_account
    }

    /// The last read that differed from the profile: its time, and what was new.
    pub fn last_deviation(&self) -> Option<(Option<i64>, Vec<&str>)> {
        let deviation = self.deviation.as_ref()?;
        Some((deviation.time, deviation.what.iter().map(|what| &**what).collect()))
    }

    /// The values of each aspect, with the number of distinct days and whether it is routine.
    pub fn facets(&self) -> [(&'static str, Vec<SeenValue<'_>>); 5] {
        [
            ("verb", Self::listed(&self.verbs)),
            ("scope", Self::listed(&self.scopes)),
            ("program", Self::listed(&self.programs)),
            ("client", Self::listed(&self.networks)),
            ("credential", Self::listed(&self.credentials)),
        ]
    }

    fn listed(facet: &Facet) -> Vec<SeenValue<'_>> {
        facet.iter().map(|(value, seen)| (value, seen.days, seen.is_routine())).collect()
    }
}
