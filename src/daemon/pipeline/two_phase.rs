//! The output of a batch, prepared in the store before its Kafka transaction. See [`super::kafka`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use crate::daemon::kafka::PartitionOffset;
use crate::detection::alert::{NewAlert, Priority};
use crate::detection::state::{StateChange, kind};

/// The offsets that a Kafka transaction commits, and the output to apply once it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    /// Metadata that the transaction stores with the offsets; identifies it after a crash.
    pub(super) mark: String,
    pub(super) offsets: Vec<PartitionOffset>,
    pub(super) alerts: Vec<NewAlert>,
    pub(super) changes: Vec<StateChange>,
}

/// Version of the stored form.
const VERSION: u8 = 1;

/// Key of the entry. At most one transaction is prepared.
const KEY: &[u8] = b"transaction";

/// The stored form: JSON, with bytes as base64.
#[derive(Serialize, Deserialize)]
struct StoredPrepared {
    v: u8,
    mark: String,
    offsets: Vec<(String, i32, i64)>,
    alerts: Vec<StoredNewAlert>,
    /// Kind, key and value.
    changes: Vec<(String, String, Option<String>)>,
}

#[derive(Serialize, Deserialize)]
struct StoredNewAlert {
    id: String,
    time: i64,
    rule: String,
    priority: String,
    actor: String,
    target: String,
    json: String,
    message: String,
}

impl Prepared {
    /// The state change that stores this.
    pub(super) fn to_change(&self) -> StateChange {
        let alerts = self.alerts.iter().map(|alert| StoredNewAlert {
            id: BASE64.encode(alert.id),
            time: alert.time,
            rule: alert.rule.clone(),
            priority: alert.priority.name().to_owned(),
            actor: alert.actor.clone(),
            target: alert.target.clone(),
            json: BASE64.encode(&alert.json),
            message: alert.message.clone(),
        });
        let changes = self.changes.iter().map(|change| {
            let value = change.value.as_ref().map(|value| BASE64.encode(value));
            (change.kind.to_owned(), BASE64.encode(&change.key), value)
        });
        let offsets = self.offsets.iter().map(|one| (one.topic.clone(), one.partition, one.next));
        let stored = StoredPrepared {
            v: VERSION,
            mark: self.mark.clone(),
            offsets: offsets.collect(),
            alerts: alerts.collect(),
            changes: changes.collect(),
        };
        // Serialization fails only for maps with keys that are not strings; there are none.
        let value = serde_json::to_vec(&stored).unwrap_or_default();
        StateChange { kind: kind::PREPARED, key: KEY.to_vec(), value: Some(value) }
    }

    /// The state change that removes prepared output.
    pub(super) fn removal() -> StateChange {
        StateChange { kind: kind::PREPARED, key: KEY.to_vec(), value: None }
    }

    /// Parses the stored form; `None` if this version cannot read it.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let stored: StoredPrepared =
            serde_json::from_slice(value).ok().filter(|stored: &StoredPrepared| stored.v == VERSION)?;
        let alert = |alert: StoredNewAlert| {
            Some(NewAlert {
                id: BASE64.decode(&alert.id).ok()?.try_into().ok()?,
                time: alert.time,
                rule: alert.rule,
                priority: Priority::parse(&alert.priority)?,
                actor: alert.actor,
                target: alert.target,
                json: BASE64.decode(&alert.json).ok()?,
                message: alert.message,
            })
        };
        let change = |(name, key, value): (String, String, Option<String>)| {
            let value = match value {
                Some(value) => Some(BASE64.decode(&value).ok()?),
                None => None,
            };
            let kind = kind::LEARNED.into_iter().find(|kind| *kind == name)?;
            Some(StateChange { kind, key: BASE64.decode(&key).ok()?, value })
        };
        Some(Prepared {
            mark: stored.mark,
            offsets: stored
                .offsets
                .into_iter()
                .map(|(topic, partition, next)| PartitionOffset { topic, partition, next })
                .collect(),
            alerts: stored.alerts.into_iter().map(alert).collect::<Option<_>>()?,
            changes: stored.changes.into_iter().map(change).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_through_its_stored_form() {
        let alert = NewAlert {
            id: [7; 16],
            time: -3,
            rule: "A \"rule\"".to_owned(),
            priority: Priority::Notice,
            actor: "mallory".to_owned(),
            target: "secrets".to_owned(),
            json: b"{\"x\":\"\xc3\xa4\"}".to_vec(),
            message: "m".to_owned(),
        };
        let set = StateChange { kind: kind::WINDOW, key: vec![0, 255], value: Some(vec![1, 2, 254]) };
        let gone = StateChange { kind: kind::SECRET, key: b"a/b".to_vec(), value: None };
        let offset = PartitionOffset { topic: "audit".to_owned(), partition: 3, next: 99 };
        let prepared = Prepared {
            mark: "m".to_owned(),
            offsets: vec![offset],
            alerts: vec![alert],
            changes: vec![set, gone],
        };
        let value = prepared.to_change().value.unwrap();
        assert_eq!(Prepared::read(&value), Some(prepared));
        assert_eq!(Prepared::read(&value[1..]), None);
        assert_eq!(Prepared::removal().value, None);
    }
}
