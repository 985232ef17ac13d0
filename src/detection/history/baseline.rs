//! Recurring reads, and which of them may become exceptions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::RandomState;

use super::{BoundedSet, CredentialRead, Reader, Times};
use crate::detection::alert::Priority;
use crate::detection::audit::redact;
use crate::detection::registry::{ExposureKind, ReadScope, is_interactive_agent, service_account};

/// Maximum number of reads that are tracked separately. Each takes a few kilobytes at worst.
const MAX_RECURRENCES: usize = 10_000;

/// Maximum length of a name in bytes: namespaces and secrets have at most 253, user names of service accounts are only slightly longer.
const MAX_NAME_BYTES: usize = 512;

/// Maximum number of days counted per read.
pub(super) const MAX_DAYS: usize = 366;

/// Maximum number of addresses and user agents listed per read.
const MAX_SAMPLES: usize = 4;

/// Nanoseconds per day.
pub(super) const DAY: i64 = 86_400_000_000_000;

/// The object of a read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReadTarget {
    Secret {
        namespace: String,
        name: String,
    },
    /// All secrets of a namespace.
    Namespace(String),
    /// All secrets of the cluster.
    Cluster,
}

/// Key of the reads that one row of an exception would match exactly.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proposal {
    /// Index of the rule that reported them.
    pub rule: usize,
    pub reader: Reader,
    /// get, list or watch.
    pub verb: String,
    pub what: ReadTarget,
    /// Whether the credential was or may have been handed over; otherwise only its name was.
    pub is_handed_over: bool,
}

/// How often, when and from where a read recurred.
#[derive(Clone, Debug, Default)]
pub struct Recurrence {
    pub times: Times,
    /// Days since 1970-01-01.
    pub days: BTreeSet<i64>,
    pub clients: BoundedSet,
    pub agents: BoundedSet,
}

/// Thresholds above which reads count as recurring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Criteria {
    /// Minimum number of reads.
    pub min_count: u64,
    /// Minimum number of different days.
    pub min_days: usize,
}

/// Numbers of reads that a rule reported and that are not proposed, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Denied by the apiserver; these count even if no rule reported them.
    pub denied: u64,
    /// By an anonymous or unnamed user.
    pub anonymous: u64,
    /// A rule of priority error or higher matched.
    pub high_priority: u64,
    /// By a person. What people do is never routine.
    pub person: u64,
    /// By a service account with an interactive client: an exception would also match its stolen token.
    pub by_hand: u64,
    /// Verbs other than get, list and watch: patches and deletions do more than read.
    pub other_verb: u64,
    /// A name is missing, too long, or cannot be written exactly in a rule file.
    pub name: u64,
    /// Beyond the limit of tracked reads.
    pub too_many: u64,
    /// Below the criteria.
    pub rare: u64,
}

/// Counts recurring reads that rules reported, as candidates for exceptions.
#[derive(Debug, Default)]
pub struct Baseline {
    recurrences: HashMap<Proposal, Recurrence, RandomState>,
    refusals: Refusals,
}

/// The reads to propose as exceptions, in the order of the rules.
#[derive(Debug, Default)]
pub struct Proposals {
    pub rules: BTreeMap<usize, BTreeMap<Proposal, Recurrence>>,
    /// Reads that are not proposed.
    pub refusals: Refusals,
}

impl Baseline {
    /// Adds one event.
    pub fn add(&mut self, read: &CredentialRead<'_>) {
        self.note(read, &mut |_| {});
    }

    /// Adds one event, and reports which reads changed.
    pub(super) fn note(&mut self, read: &CredentialRead<'_>, changed: &mut dyn FnMut(&Proposal)) {
        let count = match read.exposure.kind {
            ExposureKind::None => return,
            ExposureKind::Denied => {
                self.refusals.denied += 1;
                return;
            }
            ExposureKind::Metadata | ExposureKind::Presumed | ExposureKind::Payload => read.rules.len(),
        };
        if count == 0 {
            return;
        }
        if let Some(reason) = refusal(read, &mut self.refusals) {
            *reason += 1;
            return;
        }
        let Some(what) = what(read) else {
            self.refusals.name += 1;
            return;
        };
        for &rule in &*read.rules {
            let proposal = Proposal {
                rule,
                reader: read.reader.clone(),
                verb: read.verb.clone(),
                what: what.clone(),
                is_handed_over: read.exposure.kind != ExposureKind::Metadata,
            };
            if !self.recurrences.contains_key(&proposal) && self.recurrences.len() >= MAX_RECURRENCES {
                self.refusals.too_many += 1;
                continue;
            }
            changed(&proposal);
            self.recurrences.entry(proposal).or_default().add(read);
        }
    }

    pub(super) fn recurrence(&self, proposal: &Proposal) -> Option<&Recurrence> {
        self.recurrences.get(proposal)
    }

    /// Restores a stored read.
    pub(super) fn restore(&mut self, proposal: Proposal, recurrence: Recurrence) {
        if self.recurrences.len() < MAX_RECURRENCES {
            self.recurrences.insert(proposal, recurrence);
        }
    }

    /// Number of reads beyond the limit.
    pub(super) fn too_many(&self) -> u64 {
        self.refusals.too_many
    }

    /// Time span and number of all counted reads.
    pub fn times(&self) -> Times {
        let mut all = Times::default();
        for recurrence in self.recurrences.values() {
            all.widen(recurrence.times.first);
            all.widen(recurrence.times.last);
            all.count += recurrence.times.count;
        }
        all
    }

    /// Selects the reads that recur.
    pub fn proposals(self, criteria: Criteria) -> Proposals {
        let mut proposals = Proposals { rules: BTreeMap::new(), refusals: self.refusals };
        for (proposal, recurrence) in self.recurrences {
            if recurrence.times.count < criteria.min_count || recurrence.days.len() < criteria.min_days {
                proposals.refusals.rare += recurrence.times.count;
                continue;
            }
            proposals.rules.entry(proposal.rule).or_default().insert(proposal, recurrence);
        }
        proposals
    }
}

impl Recurrence {
    fn add(&mut self, read: &CredentialRead<'_>) {
        self.times.add(read.time);
        if let Some(time) = read.time
            && self.days.len() < MAX_DAYS
        {
            self.days.insert(time.div_euclid(DAY));
        }
        self.clients.add(read.client.as_deref().unwrap_or("(unknown)"), MAX_SAMPLES);
        self.agents.add(read.agent.as_deref().unwrap_or("(none)"), MAX_SAMPLES);
    }
}

/// The reason why a read must not be proposed, however often it recurs.
fn refusal<'r>(read: &CredentialRead<'_>, refusals: &'r mut Refusals) -> Option<&'r mut u64> {
    let Reader { user, impersonated } = &read.reader;
    let is_anonymous =
        |name: &str| name.is_empty() || name == "system:anonymous" || name == "system:unauthenticated";
    if is_anonymous(user) || impersonated.as_deref().is_some_and(is_anonymous) {
        return Some(&mut refusals.anonymous);
    }
    if read.highest_priority.is_some_and(|highest_priority| highest_priority <= Priority::Error) {
        return Some(&mut refusals.high_priority);
    }
    if !matches!(read.verb.as_str(), "get" | "list" | "watch") {
        return Some(&mut refusals.other_verb);
    }
    if !impersonated.as_deref().unwrap_or(user).starts_with("system:") {
        return Some(&mut refusals.person);
    }
    let is_account = service_account(user).is_some()
        || impersonated.as_deref().is_some_and(|other| service_account(other).is_some());
    if is_account && is_interactive_agent(read.agent.as_deref().unwrap_or_default()) {
        return Some(&mut refusals.by_hand);
    }
    None
}

/// What an exception has to name to match exactly these reads; none if no exception can.
fn what(read: &CredentialRead<'_>) -> Option<ReadTarget> {
    let Reader { user, impersonated } = &read.reader;
    // Without impersonation the exception compares `audit.actor`, which is `a as b` if a impersonates b, so a user whose name contains ` as
    // ` would be ambiguous.
    let is_clear = impersonated.is_some() || !user.contains(" as ");
    let names = [Some(user), impersonated.as_ref(), read.namespace.as_ref(), read.name.as_ref()];
    if !is_clear || !names.into_iter().flatten().all(|name| is_repeatable(name)) {
        return None;
    }
    match (read.exposure.scope, &read.namespace, &read.name) {
        (ReadScope::Secret, Some(namespace), Some(name)) => {
            Some(ReadTarget::Secret { namespace: namespace.clone(), name: name.clone() })
        }
        (ReadScope::Namespace, Some(namespace), None) => Some(ReadTarget::Namespace(namespace.clone())),
        (ReadScope::Cluster, None, None) => Some(ReadTarget::Cluster),
        // A field selector can request one name in all namespaces, but no comparison matches a missing namespace.
        _ => None,
    }
}

/// Whether a name can be written exactly in a rule file and recognized by a reviewer.
fn is_repeatable(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.trim() == name
        && !redact::is_placeholder(name.as_bytes())
        && name.chars().all(|letter| letter == ' ' || letter.is_ascii_graphic() || letter.is_alphanumeric())
}
