//! Other views of the report: a summary in numbers, one entry per reader, one per credential.

use std::collections::{BTreeMap, BTreeSet};

use super::{BoundedSet, CredentialAccess, Denial, Reader, Report, Times, WholeScope};

/// The summary of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportSummary {
    /// Number of credentials whose content was, or may have been, handed over to a reader that a rule reports.
    pub credentials: usize,
    /// Number of these readers, and of those that read whole scopes.
    pub readers: usize,
    /// Number of registries that these credentials are for, as far as known.
    pub registries: usize,
    /// Number of these credentials whose registry is not known.
    pub credentials_without_registry: usize,
    /// Number of reads of whole scopes by such readers whose responses are not in the log: they may have returned further credentials.
    pub whole_scopes: u64,
}

/// Maximum number of addresses, user agents and verbs of a reader.
const MAX_SAMPLES: usize = 8;

/// Everything that one reader read, over all credentials.
#[derive(Clone, Debug, Default)]
pub struct ReaderView<'r> {
    pub reader: Reader,
    pub payload: u64,
    pub presumed: u64,
    pub metadata: u64,
    /// Credentials, those with payloads first.
    pub credentials: Vec<&'r CredentialAccess>,
    /// Reads of whole scopes without a logged response.
    pub scopes: Vec<&'r WholeScope>,
    pub denied: Option<&'r Denial>,
    pub times: Times,
    pub verbs: BoundedSet,
    pub clients: BoundedSet,
    pub agents: BoundedSet,
    pub rules: BTreeSet<usize>,
}

/// The readers of one credential.
#[derive(Clone, Debug, Default)]
pub struct CredentialView<'r> {
    /// As `namespace/name`.
    pub credential: &'r str,
    pub payload: u64,
    pub presumed: u64,
    pub metadata: u64,
    pub readers: Vec<&'r Reader>,
    /// Registries that it certainly contains a login to.
    pub registries: BTreeSet<&'r str>,
    /// Registries that it may contain a login to.
    pub possible_registries: BTreeSet<&'r str>,
    pub times: Times,
}

impl Report {
    /// Computes the summary in numbers.
    pub fn answer(&self) -> ReportSummary {
        let exposed = || self.reported.iter().filter(|one| one.reading.payload + one.reading.presumed > 0);
        let scopes = || self.scopes.iter().filter(|scope| scope.is_reported);
        let credentials: BTreeSet<&str> = exposed().map(|one| one.credential.as_str()).collect();
        let readers: BTreeSet<&Reader> =
            exposed().map(|one| &one.reader).chain(scopes().map(|scope| &scope.reader)).collect();
        let unknown = self.registries.iter().filter(|registry| registry.host.is_none());
        ReportSummary {
            credentials: credentials.len(),
            readers: readers.len(),
            registries: self.registries.iter().filter(|registry| registry.host.is_some()).count(),
            credentials_without_registry: unknown.map(|registry| registry.credentials.len()).sum(),
            whole_scopes: scopes().map(|scope| scope.reading.times.count).sum(),
        }
    }

    /// The readers that a rule reported, ordered by how much they read.
    pub fn readers(&self) -> Vec<ReaderView<'_>> {
        reader_views(&self.reported, self.scopes.iter().filter(|scope| scope.is_reported), &self.denied)
    }

    /// Readers whose reads no rule reported, those with the most payloads first.
    pub fn expected_readers(&self) -> Vec<ReaderView<'_>> {
        reader_views(&self.expected, self.scopes.iter().filter(|scope| !scope.is_reported), &[])
    }

    /// The credentials that a rule reported as read, those with payloads first.
    pub fn credentials(&self) -> Vec<CredentialView<'_>> {
        let mut views: BTreeMap<&str, CredentialView<'_>> = BTreeMap::new();
        for one in &self.reported {
            let view = views.entry(&one.credential).or_default();
            view.credential = &one.credential;
            view.payload += one.reading.payload;
            view.presumed += one.reading.presumed;
            view.metadata += one.reading.metadata;
            view.readers.push(&one.reader);
            view.times.widen(one.reading.times.first);
            view.times.widen(one.reading.times.last);
        }
        for registry in &self.registries {
            let Some(host) = registry.host.as_deref() else { continue };
            for credential in &registry.credentials {
                if let Some(view) = views.get_mut(credential.as_str()) {
                    view.registries.insert(host);
                }
            }
            for credential in &registry.possible_credentials {
                if let Some(view) = views.get_mut(credential.as_str()) {
                    view.possible_registries.insert(host);
                }
            }
        }
        let mut views: Vec<CredentialView<'_>> = views.into_values().collect();
        for view in &mut views {
            view.readers.sort();
            view.readers.dedup();
        }
        views.sort_by_key(|view| {
            std::cmp::Reverse((view.payload, view.presumed, view.metadata, view.readers.len()))
        });
        views
    }
}

fn reader_views<'r>(
    exposures: &'r [CredentialAccess],
    scopes: impl Iterator<Item = &'r WholeScope>,
    denied: &'r [Denial],
) -> Vec<ReaderView<'r>> {
    let mut views: BTreeMap<&Reader, ReaderView<'_>> = BTreeMap::new();
    for one in exposures {
        let view = views.entry(&one.reader).or_default();
        view.payload += one.reading.payload;
        view.presumed += one.reading.presumed;
        view.metadata += one.reading.metadata;
        view.add(&one.reading);
        view.credentials.push(one);
    }
    for scope in scopes {
        let view = views.entry(&scope.reader).or_default();
        view.add(&scope.reading);
        view.scopes.push(scope);
    }
    for denial in denied {
        if let Some(view) = views.get_mut(&denial.reader) {
            view.denied = Some(denial);
        }
    }
    let named = |(reader, view): (&Reader, ReaderView<'r>)| ReaderView { reader: reader.clone(), ..view };
    let mut views: Vec<ReaderView<'_>> = views.into_iter().map(named).collect();
    // A stable sort: readers with the same numbers stay in the order of their names.
    views.sort_by_key(|view| {
        std::cmp::Reverse((view.payload, view.presumed, view.scopes.len(), view.metadata))
    });
    views
}

impl ReaderView<'_> {
    fn add(&mut self, reading: &super::AccessRecord) {
        self.times.count += reading.times.count;
        self.times.widen(reading.times.first);
        self.times.widen(reading.times.last);
        for (all, some) in [
            (&mut self.verbs, &reading.verbs),
            (&mut self.clients, &reading.clients),
            (&mut self.agents, &reading.agents),
        ] {
            some.texts.iter().for_each(|text| all.add(text, MAX_SAMPLES));
            all.has_more |= some.has_more;
        }
        self.rules.extend(&reading.rules);
    }
}
