//! Reconstructs from stored alerts what their events exposed, for a report without the log.
//!
//! Takes stored alerts; returns the [`StoredFacts`] of one, or a [`Ledger`] of many. Several rules may have matched one event: their alerts
//! are adjacent and count as one read. A read that no rule reported left no alert, and a throttled one only a count.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{CredentialRead, Ledger, Reader};
use crate::detection::alert::StoredAlert;
use crate::detection::registry::{Exposure, ExposureKind, ReadScope, RegistryLogins};

/// Maximum number of rule names; the store may hold alerts of rules that no longer exist.
const MAX_RULES: usize = 10_000;

/// What the JSON of a stored alert states about its event. Missing and damaged members are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredFacts {
    pub audit_id: String,
    pub stage: String,
    pub reader: Reader,
    /// Address of the peer.
    pub client: Option<String>,
    pub agent: Option<String>,
    pub verb: String,
    /// Namespace of the request.
    pub namespace: Option<String>,
    /// Name in the request.
    pub name: Option<String>,
    pub exposure: Exposure,
    /// The alert of a correlation repeats the event of another alert.
    pub is_correlation: bool,
}

#[derive(Deserialize)]
struct Json<'a> {
    #[serde(default, borrow)]
    event: EventJson<'a>,
    #[serde(borrow)]
    registry: Option<RegistryJson<'a>>,
    correlation: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    #[serde(rename = "auditID", borrow)]
    audit_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stage: Option<Cow<'a, str>>,
    #[serde(borrow)]
    verb: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Option<UserJson<'a>>,
    #[serde(borrow)]
    impersonated_user: Option<UserJson<'a>>,
    #[serde(rename = "sourceIPs", default)]
    source_ips: Vec<String>,
    #[serde(borrow)]
    user_agent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    object_ref: Option<ObjectJson<'a>>,
}

#[derive(Deserialize)]
struct UserJson<'a> {
    #[serde(borrow)]
    username: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct ObjectJson<'a> {
    #[serde(borrow)]
    namespace: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RegistryJson<'a> {
    #[serde(borrow)]
    exposure: Option<Cow<'a, str>>,
    #[serde(borrow)]
    scope: Option<Cow<'a, str>>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    usernames: Vec<String>,
    #[serde(default)]
    truncated: bool,
    count: Option<u64>,
}

impl StoredFacts {
    /// Reads the JSON of a stored alert.
    pub fn parse(json: &[u8]) -> Self {
        let Ok(Json { event, registry, correlation }) = serde_json::from_slice::<Json<'_>>(json) else {
            return StoredFacts::default();
        };
        let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        let name = |user: Option<UserJson<'_>>| user.and_then(|user| owned(user.username));
        let (namespace, object_name) =
            event.object_ref.map_or((None, None), |object| (owned(object.namespace), owned(object.name)));
        StoredFacts {
            audit_id: owned(event.audit_id).unwrap_or_default(),
            stage: owned(event.stage).unwrap_or_default(),
            reader: Reader {
                user: name(event.user).unwrap_or_default(),
                impersonated: name(event.impersonated_user),
            },
            client: event.source_ips.into_iter().next_back(),
            agent: owned(event.user_agent),
            verb: owned(event.verb).unwrap_or_default(),
            namespace,
            name: object_name,
            exposure: registry.map(exposure).unwrap_or_default(),
            is_correlation: correlation.is_some(),
        }
    }

    /// Whether the event concerns this namespace: that of the request, or of a credential.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        let of_secret = |secret: &'_ String| -> Option<usize> { secret.find('/') };
        let secrets = self.exposure.secrets.iter();
        self.namespace
            .as_deref()
            .into_iter()
            .chain(secrets.filter_map(move |secret| of_secret(secret).map(|end| &secret[..end])))
    }
}

fn exposure(json: RegistryJson<'_>) -> Exposure {
    let kinds = [ExposureKind::Denied, ExposureKind::Metadata, ExposureKind::Presumed, ExposureKind::Payload];
    let scopes = [ReadScope::Namespace, ReadScope::Cluster];
    Exposure {
        kind: kinds
            .into_iter()
            .find(|kind| Some(kind.name()) == json.exposure.as_deref())
            .unwrap_or_default(),
        scope: scopes
            .into_iter()
            .find(|scope| Some(scope.name()) == json.scope.as_deref())
            .unwrap_or_default(),
        count: json.count.unwrap_or(json.secrets.len() as u64),
        secrets: json.secrets,
        evidence: None,
        logins: RegistryLogins { hosts: json.hosts, usernames: json.usernames },
        is_truncated: json.truncated,
    }
}

/// Collects the reads of stored alerts in a [`Ledger`].
#[derive(Debug, Default)]
pub struct StoredReads {
    ledger: Ledger,
    names: Vec<String>,
    indexes: HashMap<String, usize>,
    event: Option<OpenEvent>,
}

/// The event whose alerts are being added.
#[derive(Debug)]
struct OpenEvent {
    facts: StoredFacts,
    time: i64,
    rules: BTreeSet<usize>,
}

impl StoredReads {
    /// Adds an alert. Alerts have to be in the order of the store, or in its reverse. `is_per_reader`: the alert's rule is about a reader,
    /// not about the log or the cluster.
    pub fn add(&mut self, alert: &StoredAlert, is_per_reader: bool) {
        let facts = StoredFacts::parse(&alert.json);
        if facts.is_correlation {
            return;
        }
        let is_same = self.event.as_ref().is_some_and(|open| open.time == alert.time && open.facts == facts);
        if !is_same {
            self.close();
            self.event = Some(OpenEvent { facts, time: alert.time, rules: BTreeSet::new() });
        }
        let rule = is_per_reader.then(|| self.index(&alert.rule)).flatten();
        if let Some(open) = &mut self.event {
            open.rules.extend(rule);
        }
    }

    /// Returns the ledger, and the names of the rules in it by index.
    pub fn finish(mut self) -> (Ledger, Vec<String>) {
        self.close();
        (self.ledger, self.names)
    }

    fn index(&mut self, rule: &str) -> Option<usize> {
        if let Some(&index) = self.indexes.get(rule) {
            return Some(index);
        }
        if self.names.len() >= MAX_RULES {
            // The read stays reported by a rule: beyond the limit, the last name represents all others.
            return self.names.len().checked_sub(1);
        }
        self.names.push(rule.to_owned());
        self.indexes.insert(rule.to_owned(), self.names.len() - 1);
        Some(self.names.len() - 1)
    }

    fn close(&mut self) {
        let Some(OpenEvent { facts, time, rules }) = self.event.take() else { return };
        let rules: Vec<usize> = rules.into_iter().collect();
        self.ledger.add(&CredentialRead {
            reader: facts.reader,
            client: facts.client,
            agent: facts.agent,
            verb: facts.verb,
            namespace: facts.namespace,
            name: facts.name,
            time: Some(time).filter(|&time| time != 0),
            exposure: Cow::Owned(facts.exposure),
            rules: Cow::Owned(rules),
            highest_priority: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::alert::Priority;

    fn alert(rule: &str, id: u8, json: &str) -> StoredAlert {
        StoredAlert {
            seq: 1,
            id: [id; 16],
            time: 1,
            stored: 2,
            rule: rule.to_owned(),
            priority: Priority::Warning,
            actor: "eve".to_owned(),
            target: String::new(),
            json: json.as_bytes().to_vec(),
            message: String::new(),
        }
    }

    const READ: &str = r#"{"rule":"A","event":{"auditID":"1","verb":"get","user":{"username":"eve"},"sourceIPs":["10.0.0.1","10.0.0.2"],"objectRef":{"namespace":"prod","name":"regcred"}},"registry":{"exposure":"payload","scope":"secret","secrets":["prod/regcred"],"hosts":["ghcr.io"],"usernames":["ci"]}}"#;

    #[test]
    fn alerts_of_one_event_are_one_read() {
        let mut reads = StoredReads::default();
        for rule in ["A", "B", "About The Log"] {
            reads.add(&alert(rule, 1, READ), rule != "About The Log");
        }
        reads.add(&alert("C", 2, &READ.replace("\"1\"", "\"2\"")), true);
        // An alert of a correlation about the same event does not count as another read.
        reads.add(&alert("D", 3, &READ.replace("\"registry\"", "\"correlation\":{},\"registry\"")), true);
        let (ledger, names) = reads.finish();
        assert_eq!(names, ["A", "B", "C"]);
        let report = ledger.report();
        assert_eq!((report.reported.len(), report.reported[0].reading.payload), (1, 2));
        assert_eq!(report.reported[0].reading.clients.texts.first().map(String::as_str), Some("10.0.0.2"));
        assert_eq!(report.registries[0].host.as_deref(), Some("ghcr.io"));
    }

    #[test]
    fn damaged_alerts_read_as_empty() {
        for json in ["", "{", "[]", "null", r#"{"event":7}"#, r#"{"registry":"x"}"#, "\u{0}"] {
            assert_eq!(StoredFacts::parse(json.as_bytes()), StoredFacts::default());
        }
        let facts = StoredFacts::parse(READ.as_bytes());
        assert_eq!(facts.namespaces().collect::<Vec<_>>(), ["prod", "prod"]);
        assert_eq!(facts.exposure.count, 1);
    }
}
