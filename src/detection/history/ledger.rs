//! Collects reads by reader, in bounded memory.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;

use super::{BoundedSet, CredentialRead, Reader, Times, clip};
use crate::detection::registry::{ExposureKind, ReadScope};

type Map<K, V> = HashMap<K, V, RandomState>;

/// Maximum number of readers that are tracked separately; events of others are counted.
const MAX_READERS: usize = 5_000;

/// Maximum number of impersonated identities per user that are tracked separately, since a user may invent them.
const MAX_IMPERSONATED: usize = 100;

/// Replaces impersonated identities beyond the limit.
const OTHER_IDENTITIES: &str = "(others)";

/// Maximum number of pairs of a reader and a credential or scope.
const MAX_PAIRS: usize = 20_000;

/// Maximum number of pairs per reader, so that a client that asks for invented namespaces leaves room for others.
const MAX_PAIRS_PER_READER: usize = 2_000;

/// Maximum number of addresses, user agents and targets that are listed.
const MAX_SAMPLES: usize = 8;

/// Maximum number of registries, and of credentials per registry.
const MAX_REGISTRIES: usize = 1_000;
const MAX_CREDENTIALS_PER_REGISTRY: usize = 100;

/// What one reader did with one credential or scope, or attempted.
#[derive(Clone, Debug, Default)]
pub struct AccessRecord {
    pub times: Times,
    /// How often the response contained it.
    pub payload: u64,
    /// How often the response may have contained it.
    pub presumed: u64,
    /// How often the response contained only its name.
    pub metadata: u64,
    pub verbs: BoundedSet,
    pub clients: BoundedSet,
    pub agents: BoundedSet,
    /// What was requested; for denied attempts only.
    pub targets: BoundedSet,
    /// Indexes of the rules that matched.
    pub rules: BTreeSet<usize>,
}

impl AccessRecord {
    fn add(&mut self, read: &CredentialRead<'_>) {
        self.times.add(read.time);
        match read.exposure.kind {
            ExposureKind::Payload => self.payload += 1,
            ExposureKind::Presumed => self.presumed += 1,
            ExposureKind::Metadata => self.metadata += 1,
            ExposureKind::Denied | ExposureKind::None => {}
        }
        self.verbs.add(&read.verb, MAX_SAMPLES);
        self.clients.add(read.client.as_deref().unwrap_or("(unknown)"), MAX_SAMPLES);
        self.agents.add(read.agent.as_deref().unwrap_or("(none)"), MAX_SAMPLES);
        self.rules.extend(&*read.rules);
    }
}

/// All reads of one reader.
#[derive(Debug, Default)]
pub(super) struct ReaderActivity {
    /// By credential (`namespace/name`) and whether a rule reported the read.
    pub credentials: Map<(String, bool), AccessRecord>,
    /// By namespace (none for the cluster), verb, and whether a rule reported the read.
    pub scopes: Map<(Option<String>, String, bool), AccessRecord>,
    pub denied: Option<AccessRecord>,
}

/// What is known about a registry.
#[derive(Debug, Default)]
pub(super) struct RegistryUsage {
    /// User names in credentials for it.
    pub usernames: BoundedSet,
    /// User names from responses with several registries: each is for one or more of these.
    pub usernames_among: BoundedSet,
    /// Credentials that contain a login to it.
    pub credentials: BoundedSet,
    /// Credentials from responses with several credentials: one or more of these contain a login to it.
    pub among: BoundedSet,
    /// Responses that handed over a credential for it to a reader whom a rule reports.
    pub handed_over: Times,
    /// These readers.
    pub readers: BTreeSet<Reader>,
}

/// All reads, by reader and by registry.
#[derive(Debug, Default)]
pub struct Ledger {
    pub(super) readers: Map<Reader, ReaderActivity>,
    pub(super) registries: Map<String, RegistryUsage>,
    /// Number of identities that each user impersonated.
    impersonated_names: Map<String, usize>,
    pairs: usize,
    /// Events of readers beyond the limit.
    pub(super) other_readers: u64,
    /// Reads of credentials or scopes beyond the limit.
    pub(super) other_reads: u64,
    /// Mentions of registries beyond the limit, at most one per event.
    pub(super) other_hosts: u64,
    /// Time span of the events about credentials.
    pub(super) times: Times,
    /// Number of reads whose response is in the log, and of those whose response is not.
    pub(super) answers_shown: u64,
    pub(super) answers_hidden: u64,
}

impl Ledger {
    /// Adds one event.
    pub fn add(&mut self, read: &CredentialRead<'_>) {
        self.learn_registries(read);
        let kind = read.exposure.kind;
        match kind {
            ExposureKind::None => return,
            ExposureKind::Payload | ExposureKind::Metadata => self.answers_shown += 1,
            ExposureKind::Presumed => self.answers_hidden += 1,
            ExposureKind::Denied => {}
        }
        self.times.add(read.time);
        let reader = self.reader(&read.reader);
        if !self.readers.contains_key(&reader) && self.readers.len() >= MAX_READERS {
            self.other_readers += 1;
            return;
        }
        let activity = self.readers.entry(reader).or_default();
        if kind == ExposureKind::Denied {
            let denied = activity.denied.get_or_insert_default();
            denied.add(read);
            denied.targets.add(&target(read), MAX_SAMPLES);
            return;
        }
        let mut has_room = |of_one: usize| {
            let room = of_one < MAX_PAIRS_PER_READER && self.pairs < MAX_PAIRS;
            self.pairs += usize::from(room);
            room
        };
        let is_reported = !read.rules.is_empty();
        for secret in &read.exposure.secrets {
            let key = (clip(secret).into_owned(), is_reported);
            let credentials = &mut activity.credentials;
            if credentials.contains_key(&key) || has_room(credentials.len()) {
                credentials.entry(key).or_default().add(read);
            } else {
                self.other_reads += 1;
            }
        }
        // Secrets beyond the number that an event lists.
        self.other_reads += read.exposure.count.saturating_sub(read.exposure.secrets.len() as u64);
        if kind == ExposureKind::Presumed && read.exposure.scope != ReadScope::Secret {
            let namespace = read.namespace.as_deref().map(|namespace| clip(namespace).into_owned());
            let key = (namespace, clip(&read.verb).into_owned(), is_reported);
            let scopes = &mut activity.scopes;
            if scopes.contains_key(&key) || has_room(scopes.len()) {
                scopes.entry(key).or_default().add(read);
            } else {
                self.other_reads += 1;
            }
        }
    }

    fn reader(&mut self, reader: &Reader) -> Reader {
        let mut own = reader.clipped();
        if own.impersonated.is_none() || self.readers.contains_key(&own) {
            return own;
        }
        if self.impersonated_names.len() >= MAX_READERS && !self.impersonated_names.contains_key(&own.user) {
            return own;
        }
        let impersonated_names = self.impersonated_names.entry(own.user.clone()).or_default();
        if *impersonated_names < MAX_IMPERSONATED {
            *impersonated_names += 1;
        } else {
            own.impersonated = Some(OTHER_IDENTITIES.to_owned());
        }
        own
    }

    /// A response with one credential shows which registries it is for; a response with several only shows that some of them are.
    fn learn_registries(&mut self, read: &CredentialRead<'_>) {
        let exposure = &*read.exposure;
        let (is_one_host, is_one_secret) = (exposure.logins.hosts.len() == 1, exposure.count == 1);
        let is_handed_over = exposure.kind == ExposureKind::Payload && !read.rules.is_empty();
        for host in &exposure.logins.hosts {
            let host = clip(host);
            if !self.registries.contains_key(&*host) && self.registries.len() >= MAX_REGISTRIES {
                self.other_hosts += 1;
                // A client that may create secrets can invent hosts, so a registry whose credential was handed over
                // replaces one whose was not.
                let idle = self.registries.iter().find(|(_, usage)| usage.handed_over.count == 0);
                match idle.map(|(host, _)| host.clone()) {
                    Some(idle) if is_handed_over => {
                        self.registries.remove(&idle);
                    }
                    _ => continue,
                }
            }
            let usage = self.registries.entry(host.into_owned()).or_default();
            let credentials = if is_one_secret { &mut usage.credentials } else { &mut usage.among };
            for secret in &exposure.secrets {
                credentials.add(secret, MAX_CREDENTIALS_PER_REGISTRY);
            }
            let names = if is_one_host { &mut usage.usernames } else { &mut usage.usernames_among };
            for name in &exposure.logins.usernames {
                names.add(name, MAX_SAMPLES);
            }
            if is_handed_over {
                usage.handed_over.add(read.time);
                if usage.readers.len() < MAX_CREDENTIALS_PER_REGISTRY {
                    usage.readers.insert(read.reader.clipped());
                }
            }
        }
    }
}

fn target(read: &CredentialRead<'_>) -> String {
    let verb = &read.verb;
    match (&read.namespace, &read.name) {
        (Some(namespace), Some(name)) => format!("{verb} {namespace}/{name}"),
        (Some(namespace), None) => format!("{verb} all of {namespace}"),
        (None, Some(name)) => format!("{verb} {name} anywhere"),
        (None, None) => format!("{verb} all of the cluster"),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::detection::registry::Exposure;

    fn read(ledger: &mut Ledger, user: &str, posed: Option<&str>, namespace: &str) {
        let exposure = Exposure {
            kind: ExposureKind::Presumed,
            scope: ReadScope::Namespace,
            secrets: vec![format!("{namespace}/regcred")],
            count: 1,
            ..Exposure::default()
        };
        ledger.add(&CredentialRead {
            reader: Reader { user: user.to_owned(), impersonated: posed.map(str::to_owned) },
            client: None,
            agent: Some("x".repeat(10_000)),
            verb: "list".to_owned(),
            namespace: Some(namespace.to_owned()),
            name: None,
            time: Some(1),
            exposure: Cow::Borrowed(&exposure),
            rules: Cow::default(),
            highest_priority: None,
        });
    }

    #[test]
    fn invented_registries_do_not_crowd_out_exposed_ones() {
        let mut ledger = Ledger::default();
        let mut see = |kind, host: String, rules: &[usize]| {
            let mut exposure =
                Exposure { kind, secrets: vec!["p/s".to_owned()], count: 1, ..Exposure::default() };
            exposure.logins.hosts.push(host);
            ledger.add(&CredentialRead {
                reader: Reader { user: "mallory".to_owned(), impersonated: None },
                client: None,
                agent: None,
                verb: "get".to_owned(),
                namespace: Some("p".to_owned()),
                name: Some("s".to_owned()),
                time: None,
                exposure: Cow::Borrowed(&exposure),
                rules: Cow::Borrowed(rules),
                highest_priority: None,
            });
        };
        for number in 0..2_000 {
            see(ExposureKind::None, format!("{number}.example"), &[]);
        }
        see(ExposureKind::Payload, "ghcr.io".to_owned(), &[3]);
        assert!(ledger.registries.len() == MAX_REGISTRIES && ledger.other_hosts == 1_001);
        let report = ledger.report();
        assert_eq!(report.registries[0].host.as_deref(), Some("ghcr.io"));
    }

    #[test]
    fn invented_names_do_not_crowd_out_others() {
        let mut ledger = Ledger::default();
        for number in 0..30_000 {
            read(&mut ledger, "mallory", None, &format!("{number}"));
            read(&mut ledger, "mallory", Some(&format!("ghost-{number}")), "prod");
        }
        read(&mut ledger, "bob", None, "prod");
        assert!(ledger.readers.len() <= MAX_IMPERSONATED + 3 && ledger.pairs <= MAX_PAIRS);
        let report = ledger.report();
        assert!(report.expected.iter().any(|one| one.reader.user == "bob"));
        assert!(
            report.expected.iter().all(|one| one.reading.agents.texts.iter().all(|text| text.len() < 300))
        );
        let shown: u64 = report.expected.iter().map(|one| one.reading.times.count).sum();
        let scopes: u64 = report.scopes.iter().map(|one| one.reading.times.count).sum();
        // Each read counts for its credential and for its scope.
        assert_eq!(shown + scopes + report.other_reads, 60_001 * 2);
    }
}
