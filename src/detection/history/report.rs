//! The report on a ledger: credentials handed over, registries to rotate, whole scopes, denied attempts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{AccessRecord, RegistryUsage};
use super::{BoundedSet, Ledger, Reader, Times};

/// The reads of one credential by one reader.
#[derive(Clone, Debug)]
pub struct CredentialAccess {
    /// As `namespace/name`.
    pub credential: String,
    pub reader: Reader,
    pub reading: AccessRecord,
}

/// A registry whose credentials were handed over to a reader whom a rule reports.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// None if the log does not show which registry the credentials are for.
    pub host: Option<String>,
    pub usernames: BoundedSet,
    /// The user names come from responses with several registries; each is for one or more of them.
    pub usernames_are_uncertain: bool,
    /// Secrets that contain a login to it.
    pub credentials: BTreeSet<String>,
    /// Secrets from responses with several credentials; one or more of them contain a login to it.
    pub possible_credentials: BTreeSet<String>,
    /// Number of responses that contained a credential for it.
    pub payload: u64,
    /// Number of reads that may have handed over a credential for it.
    pub presumed: u64,
    pub readers: BTreeSet<Reader>,
    pub times: Times,
}

/// A read of all secrets of a namespace or of the cluster whose response is not in the log.
#[derive(Clone, Debug)]
pub struct WholeScope {
    pub reader: Reader,
    /// None for the whole cluster.
    pub namespace: Option<String>,
    /// list, watch or deletecollection.
    pub verb: String,
    /// Whether a rule reported it.
    pub is_reported: bool,
    pub reading: AccessRecord,
}

/// Denied attempts of one reader.
#[derive(Clone, Debug)]
pub struct Denial {
    pub reader: Reader,
    pub reading: AccessRecord,
}

/// Everything that the report shows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Reads that a rule reported, those with payloads first.
    pub reported: Vec<CredentialAccess>,
    /// Reads that no rule reported.
    pub expected: Vec<CredentialAccess>,
    /// Registries to rotate, those with payloads first.
    pub registries: Vec<Registry>,
    /// Number of registries whose credentials only went to readers that no rule reports.
    pub expected_registries: usize,
    /// Reads of whole scopes, reported ones first.
    pub scopes: Vec<WholeScope>,
    pub denied: Vec<Denial>,
    /// Events of readers beyond the limit.
    pub other_readers: u64,
    /// Reads of credentials and scopes beyond the limit.
    pub other_reads: u64,
    /// Mentions of registries beyond the limit.
    pub other_hosts: u64,
    /// Number of reads whose response is in the log.
    pub answers_shown: u64,
    /// Number of reads whose response is not in the log.
    pub answers_hidden: u64,
}

impl Ledger {
    /// Time span of the events about credentials.
    pub fn times(&self) -> Times {
        self.times
    }

    pub fn report(self) -> Report {
        let mut report = Report {
            other_readers: self.other_readers,
            other_reads: self.other_reads,
            other_hosts: self.other_hosts,
            answers_shown: self.answers_shown,
            answers_hidden: self.answers_hidden,
            ..Report::default()
        };
        for (reader, activity) in self.readers {
            for ((credential, is_reported), reading) in activity.credentials {
                let side = if is_reported { &mut report.reported } else { &mut report.expected };
                side.push(CredentialAccess { credential, reader: reader.clone(), reading });
            }
            for ((namespace, verb, is_reported), reading) in activity.scopes {
                let reader = reader.clone();
                report.scopes.push(WholeScope { reader, namespace, verb, is_reported, reading });
            }
            if let Some(reading) = activity.denied {
                report.denied.push(Denial { reader, reading });
            }
        }
        for side in [&mut report.reported, &mut report.expected] {
            side.sort_by(|a, b| {
                let sort_key = |one: &CredentialAccess| {
                    Reverse((one.reading.payload, one.reading.presumed, one.reading.metadata))
                };
                sort_key(a)
                    .cmp(&sort_key(b))
                    .then_with(|| a.credential.cmp(&b.credential))
                    .then_with(|| a.reader.cmp(&b.reader))
            });
        }
        report.scopes.sort_by(|a, b| {
            // The whole cluster comes before a namespace.
            let sort_key = |one: &WholeScope| {
                (!one.is_reported, one.namespace.is_some(), Reverse(one.reading.times.count))
            };
            sort_key(a)
                .cmp(&sort_key(b))
                .then_with(|| (&a.reader, &a.namespace, &a.verb).cmp(&(&b.reader, &b.namespace, &b.verb)))
        });
        report.denied.sort_by(|a, b| {
            let count = |one: &Denial| Reverse(one.reading.times.count);
            count(a).cmp(&count(b)).then_with(|| a.reader.cmp(&b.reader))
        });
        report.collect_registries(&self.registries.into_iter().collect());
        report
    }
}

impl Report {
    fn collect_registries(&mut self, known: &BTreeMap<String, RegistryUsage>) {
        let mut handed_over: BTreeMap<&str, Vec<&CredentialAccess>> = BTreeMap::new();
        for one in &self.reported {
            // If only a name was handed over, there is nothing to rotate.
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
                    registry.add_presumed(readings);
                    explained.insert(credential);
                }
            }
            // A credential whose registries are known exactly is not counted among the possible ones.
            for credential in usage.among.texts.difference(&usage.credentials.texts) {
                if let Some((credential, readings)) = handed_over.get_key_value(credential.as_str())
                    && !exact.iter().any(|known| known.as_str() == *credential)
                {
                    registry.possible_credentials.insert(credential.to_string());
                    registry.add_presumed(readings);
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
            let sort_key = |one: &Registry| Reverse((one.payload, one.presumed, one.readers.len()));
            (sort_key(a), &a.host).cmp(&(sort_key(b), &b.host))
        });
        let mut unknown = Registry::default();
        for (credential, readings) in &handed_over {
            if !explained.contains(credential) {
                unknown.credentials.insert((*credential).to_owned());
                unknown.payload += readings.iter().map(|one| one.reading.payload).sum::<u64>();
                unknown.add_presumed(readings);
                for one in readings {
                    unknown.add_reading(one);
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
    fn add_presumed(&mut self, readings: &[&CredentialAccess]) {
        for one in readings.iter().filter(|one| one.reading.presumed > 0) {
            self.presumed += one.reading.presumed;
            self.add_reading(one);
        }
    }

    fn add_reading(&mut self, one: &CredentialAccess) {
        self.readers.insert(one.reader.clone());
        self.times.widen(one.reading.times.first);
        self.times.widen(one.reading.times.last);
    }
}
