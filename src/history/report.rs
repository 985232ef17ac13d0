//! What a ledger comes to: credentials handed over, registries to rotate, scopes, attempts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Holders, Reading};
use super::{Few, Ledger, Reader, Times};

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
    pub usernames: Few,
    /// The secrets that hold it.
    pub credentials: BTreeSet<String>,
    /// Not known which of these hold it.
    pub is_vague: bool,
    /// How often an answer carried one of them to such a reader.
    pub payload: u64,
    /// How often it may have.
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
    pub quiet_registries: usize,
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
        for (reader, person) in self.people {
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
    fn rotate(&mut self, known: &BTreeMap<String, Holders>) {
        let mut by_credential: BTreeMap<&str, Vec<&Reading>> = BTreeMap::new();
        let mut readers: BTreeMap<&str, BTreeSet<&Reader>> = BTreeMap::new();
        for one in &self.reported {
            // Only a name was said: nothing to rotate.
            if one.reading.payload + one.reading.presumed > 0 {
                by_credential.entry(&one.credential).or_default().push(&one.reading);
                readers.entry(&one.credential).or_default().insert(&one.reader);
            }
        }
        let mut explained: BTreeSet<&str> = BTreeSet::new();
        let mut registries = Vec::new();
        for (host, holders) in known {
            let is_vague = holders.credentials.texts.is_empty();
            let holding = if is_vague { &holders.among } else { &holders.credentials };
            let mut registry = Registry {
                host: Some(host.clone()),
                usernames: holders.usernames.clone(),
                is_vague,
                ..Registry::default()
            };
            for credential in &holding.texts {
                if let Some((credential, readings)) = by_credential.get_key_value(credential.as_str()) {
                    registry.add(credential, readings, readers.get(credential));
                    explained.insert(credential);
                }
            }
            if registry.credentials.is_empty() {
                self.quiet_registries += 1;
            } else {
                registries.push(registry);
            }
        }
        registries.sort_by(|a, b| {
            let worst = |one: &Registry| Reverse((one.payload, one.presumed, one.readers.len()));
            // One whose holders are known says more.
            (a.is_vague, worst(a), &a.host).cmp(&(b.is_vague, worst(b), &b.host))
        });
        let mut unknown = Registry::default();
        for (credential, readings) in &by_credential {
            if !explained.contains(credential) {
                unknown.add(credential, readings, readers.get(credential));
            }
        }
        if !unknown.credentials.is_empty() {
            registries.push(unknown);
        }
        self.registries = registries;
    }
}

impl Registry {
    fn add(&mut self, credential: &str, readings: &[&Reading], readers: Option<&BTreeSet<&Reader>>) {
        self.credentials.insert(credential.to_owned());
        for reading in readings {
            self.payload += reading.payload;
            self.presumed += reading.presumed;
            self.times.count += reading.times.count;
            self.times.widen(reading.times.first);
            self.times.widen(reading.times.last);
        }
        self.readers.extend(readers.into_iter().flatten().map(|&reader| reader.clone()));
    }
}
