//! A baseline that is kept across days: recurring reads as entries for a store.
//!
//! It takes the alerts that the daemon emits anyway, so throttled alerts do not count.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::baseline::DAY;
use super::collector::{higher_priority, is_per_reader};
use super::{Baseline, BoundedSet, CredentialRead, Proposal, ReadTarget, Reader, Recurrence, Times};
use crate::detection::correlate::Digest;
use crate::detection::engine::alert::Alert;
use crate::detection::registry::ExposureKind;
use crate::detection::rules::ast::RuleSet;
use crate::detection::state::{self, StateChange, kind};

/// Reads that did not recur for this many days are dropped.
const MAX_AGE_DAYS: i64 = 400;

/// Recurring reads that rules reported.
#[derive(Debug, Default)]
pub struct RecurringReads {
    baseline: Baseline,
    /// For each rule its name, and whether its alerts are about one reader.
    rules: Vec<(String, bool)>,
    open: Option<Open>,
    changed: HashSet<Proposal>,
    gone: Vec<Vec<u8>>,
}

/// An event whose alerts may not be complete yet.
#[derive(Debug)]
struct Open {
    event: [u8; 32],
    read: CredentialRead<'static>,
}

/// A recurring read as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredRecurrence {
    rule: String,
    user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    impersonated: Option<String>,
    verb: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    is_handed_over: bool,
    count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<i64>,
    days: Vec<i64>,
    clients: Vec<String>,
    agents: Vec<String>,
    /// Whether the lists of clients and of user agents are incomplete.
    more: (bool, bool),
}

impl RecurringReads {
    /// Counts reads that these rules report.
    pub fn new(rules: &RuleSet) -> Self {
        let rules = rules.rules.iter().map(|rule| (rule.name.to_string(), is_per_reader(rule)));
        RecurringReads { rules: rules.collect(), ..RecurringReads::default() }
    }

    /// Adds an alert. The alerts of one event have to be consecutive.
    pub fn note(&mut self, alert: &Alert<'_>) {
        let (rule, exposure) = (alert.rule(), alert.exposure());
        let is_per_reader = self.rules.get(rule).is_some_and(|(_, is_about)| *is_about);
        if !is_per_reader || matches!(exposure.kind, ExposureKind::None | ExposureKind::Denied) {
            return;
        }
        if self.open.as_ref().is_none_or(|open| open.event != *alert.event_hash()) {
            self.close();
            let read = CredentialRead::of(alert);
            let read =
                CredentialRead { exposure: Cow::Owned(exposure.clone()), rules: Cow::default(), ..read };
            self.open = Some(Open { event: *alert.event_hash(), read });
        }
        if let Some(Open { read, .. }) = &mut self.open {
            read.rules.to_mut().push(rule);
            read.highest_priority = Some(higher_priority(read.highest_priority, alert.priority()));
        }
    }

    fn close(&mut self) {
        let Some(Open { read, .. }) = self.open.take() else { return };
        let changed = &mut self.changed;
        self.baseline.note(&read, &mut |proposal| {
            changed.insert(proposal.clone());
        });
    }

    /// The changes since the last call. Call it when all alerts of the events so far were added.
    pub fn take_changes(&mut self) -> Vec<StateChange> {
        self.close();
        let gone = std::mem::take(&mut self.gone).into_iter();
        let mut changes: Vec<StateChange> =
            gone.map(|key| StateChange { kind: kind::RECURRING_READ, key, value: None }).collect();
        for proposal in std::mem::take(&mut self.changed) {
            let (Some(recurrence), Some((rule, _))) =
                (self.baseline.recurrence(&proposal), self.rules.get(proposal.rule))
            else {
                continue;
            };
            let stored = StoredRecurrence::of(rule, &proposal, recurrence);
            changes.push(StateChange {
                kind: kind::RECURRING_READ,
                key: stored.key(),
                value: Some(state::encode(0, &stored)),
            });
        }
        changes
    }

    /// Restores a stored entry, at the time `now` in nanoseconds since 1970-01-01T00:00:00Z. Entries of rules that do not exist at present
    /// stay in the store.
    pub fn restore(&mut self, key: &[u8], value: &[u8], now: i64) {
        let known = state::decode::<StoredRecurrence>(value)
            .map(|(_, stored)| stored)
            .filter(|stored| stored.key() == key);
        match known {
            Some(stored) if stored.last.is_none_or(|last| now.saturating_sub(last) / DAY <= MAX_AGE_DAYS) => {
                let rule = self.rules.iter().position(|(name, _)| *name == stored.rule);
                if let Some((proposal, recurrence)) = rule.and_then(|rule| stored.back(rule)) {
                    self.baseline.restore(proposal, recurrence);
                }
            }
            _ => self.gone.push(key.to_vec()),
        }
    }

    /// Number of reads beyond the limit.
    pub fn refused(&self) -> u64 {
        self.baseline.too_many()
    }

    /// Converts to a baseline, to propose exceptions from.
    pub fn into_baseline(mut self) -> Baseline {
        self.close();
        self.baseline
    }
}

impl StoredRecurrence {
    fn of(rule: &str, proposal: &Proposal, recurrence: &Recurrence) -> Self {
        let (namespace, name) = match &proposal.what {
            ReadTarget::Secret { namespace, name } => (Some(namespace.clone()), Some(name.clone())),
            ReadTarget::Namespace(namespace) => (Some(namespace.clone()), None),
            ReadTarget::Cluster => (None, None),
        };
        let texts = |set: &BoundedSet| set.texts.iter().cloned().collect();
        StoredRecurrence {
            rule: rule.to_owned(),
            user: proposal.reader.user.clone(),
            impersonated: proposal.reader.impersonated.clone(),
            verb: proposal.verb.clone(),
            namespace,
            name,
            is_handed_over: proposal.is_handed_over,
            count: recurrence.times.count,
            first: recurrence.times.first,
            last: recurrence.times.last,
            days: recurrence.days.iter().copied().collect(),
            clients: texts(&recurrence.clients),
            agents: texts(&recurrence.agents),
            more: (recurrence.clients.has_more, recurrence.agents.has_more),
        }
    }

    /// Digest of everything that distinguishes one recurring read from another.
    fn key(&self) -> Vec<u8> {
        // Distinguishes a missing text from an empty one.
        let maybe = |text: &Option<String>| text.as_ref().map_or(String::new(), |text| format!("={text}"));
        let parts = [
            self.rule.clone(),
            self.user.clone(),
            maybe(&self.impersonated),
            self.verb.clone(),
            maybe(&self.namespace),
            maybe(&self.name),
            self.is_handed_over.to_string(),
        ];
        Digest::of(&parts).0.to_vec()
    }

    fn back(self, rule: usize) -> Option<(Proposal, Recurrence)> {
        let what = match (self.namespace, self.name) {
            (Some(namespace), Some(name)) => ReadTarget::Secret { namespace, name },
            (Some(namespace), None) => ReadTarget::Namespace(namespace),
            (None, None) => ReadTarget::Cluster,
            (None, Some(_)) => return None,
        };
        let set =
            |texts: Vec<String>, has_more: bool| BoundedSet { texts: texts.into_iter().collect(), has_more };
        let proposal = Proposal {
            rule,
            reader: Reader { user: self.user, impersonated: self.impersonated },
            verb: self.verb,
            what,
            is_handed_over: self.is_handed_over,
        };
        let recurrence = Recurrence {
            times: Times { count: self.count, first: self.first, last: self.last },
            days: self.days.into_iter().collect(),
            clients: set(self.clients, self.more.0),
            agents: set(self.agents, self.more.1),
        };
        Some((proposal, recurrence))
    }
}
