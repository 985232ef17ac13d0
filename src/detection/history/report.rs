//! ReadTarget a ledger comes to: credentials handed over, registries to rotate, scopes, attempts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Reading, RegistryUsage};
use super::{BoundedSet, Ledger, Reader, Times};

/// One credential and one of its readers.
#[derive(Clone, Debug)]
pub struct HandedOver {
    /// As `namespace/name`.
    pub credential: String,
    /// Who.
    pub reader: Reader,
    /// How often and how.
    pub reading: Reading,
}

/// A registry whose credentials were handed over to somebody whom a rule reports.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// Nothing where the log does not show which registry a credential is for.
    pub host: Option<String>,
    /// As whom.
    pub usernames: BoundedSet,
    /// Not known which of these user names are for this registry.
    pub usernames_are_uncertain: bool,
    /// The secrets that hold it.
    pub credentials: BTreeSet<String>,
    /// Secrets that came in one answer with it, of which one or some may hold it.
    pub possible_credentials: BTreeSet<String>,
    /// How many answers carried a credential for it to such a reader.
    pub payload: u64,
    /// How often a reader may have been given one that holds it, or may hold it.
    pub presumed: u64,
    /// To whom.
    pub readers: BTreeSet<Reader>,
    /// When.
    pub times: Times,
}

/// A read of all secrets of a namespace or of the cluster whose answer the log does not show.
#[derive(Clone, Debug)]
pub struct WholeScope {
    /// Who.
    pub reader: Reader,
    /// Nothing for the whole cluster.
    pub namespace: Option<String>,
    /// list, watch, deletecollection.
    pub verb: String,
    /// Whether a rule reported it.
    pub is_reported: bool,
    /// How often and how.
    pub reading: Reading,
}

/// Attempts that were refused.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Who.
    pub reader: Reader,
    /// How often and what.
    pub reading: Reading,
}

/// The whole of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Credentials and readers, by reads that a rule reported, the worst first.
    pub reported: Vec<HandedOver>,
    /// Credentials and readers, by reads that the rules leave alone.
    pub expected: Vec<HandedOver>,
    /// Registries to rotate, the worst first.
    pub registries: Vec<Registry>,
    /// Registries that only readers whom the rules leave alone were given.
    pub expected_registries: usize,
    /// Reads of whole scopes, those that a rule reports first.
    pub scopes: Vec<WholeScope>,
    /// Refused attempts by who.
    pub denied: Vec<Denial>,
    /// Events of readers too many to be told apart.
    pub other_readers: u64,
    /// Reads of credentials and scopes too many to be told apart.
    pub other_reads: u64,
    /// Registries too many to be told apart.
    pub other_hosts: u64,
    /// Reads whose answer the log shows.
    pub answers_shown: u64,
    /// Reads whose answer it does not show.
    pub answers_hidden: u64,
}

impl Ledger {
    /// When events about credentials were.
    pub fn times(&self) -> Times {
        self.times
    }

    /// Sorts everything out.
    pub fn report(self) -> Report {
        let mut report = Report {
            other_readers: self.other_readers,
            other_reads: self.other_reads,
            other_hosts: self.other_hosts,
            answers_shown: self.answers_shown,
            answers_hidden: self.answers_hidden,
            ..Report::default()
        };
        for (reader, person) in self.readers {
            for ((credential, is_reported), reading) in person.credentials {
                let side = if is_reported { &mut report.reported } else { &mut report.expected };
                side.push(HandedOver { credential, reader: reader.clone(), reading });
            }
            for ((namespace, verb, is_reported), reading) in person.scopes {
                let reader = reader.clone();
                report.scopes.push(WholeScope { reader, namespace, verb, is_reported, reading });
            }
            if let Some(reading) = person.denied {
                report.denied.push(Denial { reader, reading });
            }
        }
        for side in [&mut report.reported, &mut report.expected] {
            side.sort_by(|a, b| {
                let worst = |one: &HandedOver| {
                    Reverse((one.reading.payload, one.reading.presumed, one.reading.metadata))
                };
                worst(a)
                    .cmp(&worst(b))
                    .then_with(|| a.credential.cmp(&b.credential))
                    .then_with(|| a.reader.cmp(&b.reader))
            });
        }
        report.scopes.sort_by(|a, b| {
            // The whole cluster before a namespace.
            let worst = |one: &WholeScope| {
                (!one.is_reported, one.namespace.is_some(), Reverse(one.reading.times.count))
            };
            worst(a)
                .cmp(&worst(b))
                .then_with(|| (&a.reader, &a.namespace, &a.verb).cmp(&(&b.reader, &b.namespace, &b.verb)))
        });
        report.denied.sort_by(|a, b| {
            let count = |one: &Denial| Reverse(one.reading.times.count);
            count(a).cmp(&count(b)).then_with(|| a.reader.cmp(&b.reader))
        });
        report.rotate(&self.registries.into_iter().collect());
        report
    }
}

impl Report {
    fn rotate(&mut self, known: &BTreeMap<String, RegistryUsage>) {
        let mut handed_over: BTreeMap<&str, Vec<&HandedOver>> = BTreeMap::new();
        for one in &self.reported {
            // Where only a name was said there is nothing to rotate.
            if one.reading.payload + one.reading.presumed > 0 {
                handed_over.entry(&one.credential).or_default().push(one);
            }
        }
        let exact: BTreeSet<&String> = known.values().flat_map(|usage| &usage.credentials.texts).collect();
        let mut explained: BTreeSet<&str> = BTreeSet::new();
        let mut registries = Vec::new();
        for (host, usage) in known {
            let usernames_are_uncertain = usage.usernames.texts.is_empty();
            let usernames = if usernames_are_uncertain { &usage.usernames_among } else { &usage.usernames };
            let mut registry = Registry {
                host: Some(host.clone()),
                usernames: usernames.clone(),
                usernames_are_uncertain,
                payload: usage.handed_over.count,
                readers: usage.readers.clone(),
                times: usage.handed_over,
                ..Registry::default()
            };
            for credential in &usage.credentials.texts {
                if let Some((credential, readings)) = handed_over.get_key_value(credential.as_str()) {
                    registry.credentials.insert(credential.to_string());
                    registry.presume(readings);
                    explained.insert(credential);
                }
            }
            // ReadTarget is known of a credential by itself needs no guess.
            for credential in usage.among.texts.difference(&usage.credentials.texts) {
                if let Some((credential, readings)) = handed_over.get_key_value(credential.as_str())
                    && !exact.iter().any(|known| known.as_str() == *credential)
                {
                    registry.possible_credentials.insert(credential.to_string());
                    registry.presume(readings);
                    explained.insert(credential);
                }
            }
            if registry.payload + registry.presumed == 0 {
                self.expected_registries += 1;
            } else {
                registries.push(registry);
            }
        }
        registries.sort_by(|a, b| {
            let worst = |one: &Registry| Reverse((one.payload, one.presumed, one.readers.len()));
            (worst(a), &a.host).cmp(&(worst(b), &b.host))
        });
        let mut unknown = Registry::default();
        for (credential, readings) in &handed_over {
            if !explained.contains(credential) {
                unknown.credentials.insert((*credential).to_owned());
                unknown.payload += readings.iter().map(|one| one.reading.payload).sum::<u64>();
                unknown.presume(readings);
                for one in readings {
                    unknown.take(one);
                }
            }
        }
        if !unknown.credentials.is_empty() {
            registries.push(unknown);
        }
        self.registries = registries;
    }
}

impl Registry {
    fn presume(&mut self, readings: &[&HandedOver]) {
        for one in readings.iter().filter(|one| one.reading.presumed > 0) {
            self.presumed += one.reading.presumed;
            self.take(one);
        }
    }

    fn take(&mut self, one: &HandedOver) {
        self.readers.insert(one.reader.clone());
        self.times.widen(one.reading.times.first);
        self.times.widen(one.reading.times.last);
    }
}
