//! Collects reads, reader by reader, in bounded memory.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;

use super::{BoundedSet, Read, Reader, Times, clip};
use crate::detection::registry::{ExposureKind, ReadScope};

type Map<K, V> = HashMap<K, V, RandomState>;

/// So many readers are told apart; those of events beyond are counted.
const MAX_READERS: usize = 5_000;

/// As so many others one user may pose and be told apart: names to pose as are free.
const MAX_IMPERSONATED: usize = 100;

/// Stands for the names beyond.
const OTHER_IDENTITIES: &str = "(others)";

/// So many pairs of reader and credential, or reader and scope, are told apart in all …
const MAX_PAIRS: usize = 20_000;

/// … and so many of one reader, so that nobody who asks for invented namespaces leaves others no room.
const MAX_PAIRS_PER_READER: usize = 2_000;

/// Of addresses, user agents, targets so many are named.
const MAX_SAMPLES: usize = 8;

/// So many registries, and so many credentials of one.
const MAX_REGISTRIES: usize = 1_000;
const MAX_CREDENTIALS_PER_REGISTRY: usize = 100;

/// ReadTarget one reader did with one credential, with one scope, or in vain.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// How often in all, and when.
    pub times: Times,
    /// How often the answer carried it.
    pub payload: u64,
    /// How often the answer may have carried it.
    pub presumed: u64,
    /// How often only its name was said.
    pub metadata: u64,
    /// In which ways.
    pub verbs: BoundedSet,
    /// From where.
    pub clients: BoundedSet,
    /// In the client's own words.
    pub agents: BoundedSet,
    /// ReadTarget was asked for; of denied attempts only.
    pub targets: BoundedSet,
    /// The rules that matched, by index.
    pub rules: BTreeSet<usize>,
}

impl Reading {
    fn add(&mut self, read: &Read<'_>) {
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

/// Everything that one reader did.
#[derive(Debug, Default)]
pub(super) struct ReaderActivity {
    /// By credential, as `namespace/name`, and whether a rule reported the read: one reader may do both.
    pub credentials: Map<(String, bool), Reading>,
    /// By namespace, nothing for the cluster, verb, and whether a rule reported the read.
    pub scopes: Map<(Option<String>, String, bool), Reading>,
    pub denied: Option<Reading>,
}

/// ReadTarget is known of a registry.
#[derive(Debug, Default)]
pub(super) struct RegistryUsage {
    /// As whom.
    pub usernames: BoundedSet,
    /// Where one answer carried several registries: these user names are for one or some of them.
    pub usernames_among: BoundedSet,
    /// Credentials that hold it.
    pub credentials: BoundedSet,
    /// Where one answer carried several credentials: one or some of these hold it.
    pub among: BoundedSet,
    /// Answers that carried a credential for it to a reader whom a rule reports, and when.
    pub handed_over: Times,
    /// To whom.
    pub readers: BTreeSet<Reader>,
}

/// ReadTarget was read, by whom.
#[derive(Debug, Default)]
pub struct Ledger {
    pub(super) readers: Map<Reader, ReaderActivity>,
    pub(super) registries: Map<String, RegistryUsage>,
    /// How many names each user posed as.
    impersonated_names: Map<String, usize>,
    pairs: usize,
    /// Events of readers beyond the limit.
    pub(super) other_readers: u64,
    /// Reads of credentials or scopes beyond the limit.
    pub(super) other_reads: u64,
    /// Registries beyond the limit, counted once an event.
    pub(super) other_hosts: u64,
    /// When events were that a rule could match.
    pub(super) times: Times,
    /// Reads whose answer stands in the log, or whose answer does not.
    pub(super) answers_shown: u64,
    pub(super) answers_hidden: u64,
}

impl Ledger {
    /// Takes note of one event.
    pub fn add(&mut self, read: &Read<'_>) {
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
        let person = self.readers.entry(reader).or_default();
        if kind == ExposureKind::Denied {
            let denied = person.denied.get_or_insert_default();
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
            let credentials = &mut person.credentials;
            if credentials.contains_key(&key) || has_room(credentials.len()) {
                credentials.entry(key).or_default().add(read);
            } else {
                self.other_reads += 1;
            }
        }
        // Those beyond what an event names.
        self.other_reads += read.exposure.count.saturating_sub(read.exposure.secrets.len() as u64);
        if kind == ExposureKind::Presumed && read.exposure.scope != ReadScope::Secret {
            let namespace = read.namespace.as_deref().map(|namespace| clip(namespace).into_owned());
            let key = (namespace, clip(&read.verb).into_owned(), is_reported);
            let scopes = &mut person.scopes;
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

    /// One credential says which registries it holds; several together only that they do.
    fn learn_registries(&mut self, read: &Read<'_>) {
        let exposure = &*read.exposure;
        let (is_one_host, is_one_secret) = (exposure.logins.hosts.len() == 1, exposure.count == 1);
        let is_handed_over = exposure.kind == ExposureKind::Payload && !read.rules.is_empty();
        for host in &exposure.logins.hosts {
            let host = clip(host);
            if !self.registries.contains_key(&*host) && self.registries.len() >= MAX_REGISTRIES {
                self.other_hosts += 1;
                // Whoever may create secrets can invent hosts; one that was handed over takes the place of one that was not.
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

fn target(read: &Read<'_>) -> String {
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
        ledger.add(&Read {
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
    fn invented_registries_make_room_for_those_that_are_handed_over() {
        let mut ledger = Ledger::default();
        let mut see = |kind, host: String, rules: &[usize]| {
            let mut exposure =
                Exposure { kind, secrets: vec!["p/s".to_owned()], count: 1, ..Exposure::default() };
            exposure.logins.hosts.push(host);
            ledger.add(&Read {
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
    fn invented_names_leave_others_their_room() {
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
