//! Reads that recur, and which of them may become exceptions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::RandomState;

use super::{BoundedSet, Read, Reader, Times};
use crate::detection::alert::Priority;
use crate::detection::registry::{ExposureKind, ReadScope};

/// So many reads are told apart. Each takes some kilobytes at worst.
const MAX_RECURRENCES: usize = 10_000;

/// A name longer than this, in bytes, is no name: namespaces and secrets have at most 253, and user names of service
/// accounts little more.
const MAX_NAME_BYTES: usize = 512;

/// Days are counted up to so many.
pub(super) const MAX_DAYS: usize = 366;

/// Of addresses and user agents so many are named.
const MAX_SAMPLES: usize = 4;

/// A day in nanoseconds.
pub(super) const DAY: i64 = 86_400_000_000_000;

/// ReadTarget was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReadTarget {
    /// One secret.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// All of a namespace.
    Namespace(String),
    /// All of the cluster.
    Cluster,
}

/// ReadTarget may become a row of an exception: exactly these reads, no others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proposal {
    /// The rule that reported it, by index.
    pub rule: usize,
    /// Who.
    pub reader: Reader,
    /// get, list or watch.
    pub verb: String,
    /// ReadTarget.
    pub what: ReadTarget,
    /// The credential was handed over, or may have been; else only its name was said.
    pub is_handed_over: bool,
}

/// How often, when, from where.
#[derive(Clone, Debug, Default)]
pub struct Recurrence {
    /// How often, and when.
    pub times: Times,
    /// On which days, since 1970.
    pub days: BTreeSet<i64>,
    /// From where.
    pub clients: BoundedSet,
    /// In the client's own words.
    pub agents: BoundedSet,
}

/// ReadTarget is often enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Criteria {
    /// So many reads at least …
    pub min_count: u64,
    /// … on so many different days.
    pub min_days: usize,
}

/// Reads that a rule reported and that are not proposed, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Refused by the apiserver, whoever it was. A rule may report them or not.
    pub denied: u64,
    /// By nobody in particular.
    pub anonymous: u64,
    /// A rule that matched calls it an error or worse.
    pub high_priority: u64,
    /// A person who lists or watches the whole cluster.
    pub human_reads_cluster: u64,
    /// Not get, list or watch: to patch or delete is more than to read.
    pub other_verb: u64,
    /// A name that is missing, too long, or not text that can be repeated exactly.
    pub name: u64,
    /// Beyond the number of reads that are told apart.
    pub too_many: u64,
    /// Of reads that are too rare, by the criteria.
    pub rare: u64,
}

/// Counts reads that rules reported.
#[derive(Debug, Default)]
pub struct Baseline {
    recurrences: HashMap<Proposal, Recurrence, RandomState>,
    refusals: Refusals,
}

/// ReadTarget came of it: by rule, in the order of the rule set.
#[derive(Debug, Default)]
pub struct Proposals {
    /// By rule, and then by reader.
    pub rules: BTreeMap<usize, BTreeMap<Proposal, Recurrence>>,
    /// ReadTarget is not proposed.
    pub refusals: Refusals,
}

impl Baseline {
    /// Takes note of one event.
    pub fn add(&mut self, read: &Read<'_>) {
        self.note(read, &mut |_| {});
    }

    /// The same; says what changed.
    pub(super) fn note(&mut self, read: &Read<'_>, changed: &mut dyn FnMut(&Proposal)) {
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

    /// ReadTarget is known of one.
    pub(super) fn recurrence(&self, proposal: &Proposal) -> Option<&Recurrence> {
        self.recurrences.get(proposal)
    }

    /// Takes one back.
    pub(super) fn restore(&mut self, proposal: Proposal, recurrence: Recurrence) {
        if self.recurrences.len() < MAX_RECURRENCES {
            self.recurrences.insert(proposal, recurrence);
        }
    }

    /// How many reads were not told apart, since there are too many.
    pub(super) fn too_many(&self) -> u64 {
        self.refusals.too_many
    }

    /// When all that was counted was first and last read, and how often.
    pub fn times(&self) -> Times {
        let mut all = Times::default();
        for recurrence in self.recurrences.values() {
            all.widen(recurrence.times.first);
            all.widen(recurrence.times.last);
            all.count += recurrence.times.count;
        }
        all
    }

    /// Those that recur.
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
    fn add(&mut self, read: &Read<'_>) {
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

/// Why a read is for a person to look at, however often it recurs.
fn refusal<'r>(read: &Read<'_>, refusals: &'r mut Refusals) -> Option<&'r mut u64> {
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
    let is_person = !impersonated.as_deref().unwrap_or(user).starts_with("system:");
    if is_person && read.exposure.scope == ReadScope::Cluster {
        return Some(&mut refusals.human_reads_cluster);
    }
    None
}

/// ReadTarget an exception has to name to fit these reads and no others. Nothing where no exception can.
fn what(read: &Read<'_>) -> Option<ReadTarget> {
    let Reader { user, impersonated } = &read.reader;
    // Without impersonation an exception goes by `audit.actor`, which says `a as b` where a poses as b.
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
        // By a selector one name can be asked for in all namespaces: a missing namespace fits no comparison.
        _ => None,
    }
}

/// Whether a name can be said exactly in a rule file, and by somebody who reviews it.
fn is_repeatable(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.trim() == name
        && name.chars().all(|letter| letter == ' ' || letter.is_ascii_graphic() || letter.is_alphanumeric())
}
