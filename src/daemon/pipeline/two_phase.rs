//! What a batch comes to, written down before its transaction.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use crate::daemon::kafka::PartitionOffset;
use crate::detection::alert::{NewAlert, Priority};
use crate::detection::state::{StateChange, kind};

/// What a transaction will have done once it went through, and what is to be stored then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// What is left with the offsets.
    pub mark: String,
    /// How far its partitions are with it.
    pub offsets: Vec<PartitionOffset>,
    /// Its alerts, for the store.
    pub alerts: Vec<NewAlert>,
    /// What was learned.
    pub changes: Vec<StateChange>,
}

/// The version of the values.
const VERSION: u8 = 1;

/// There is at most one.
const KEY: &[u8] = b"transaction";

/// The same as it is stored.
#[derive(Serialize, Deserialize)]
struct Kept {
    v: u8,
    mark: String,
    offsets: Vec<(String, i32, i64)>,
    alerts: Vec<KeptAlert>,
    /// Kind, key and value.
    changes: Vec<(String, String, Option<String>)>,
}

#[derive(Serialize, Deserialize)]
struct KeptAlert {
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
    /// The entry for the store.
    pub fn entry(&self) -> StateChange {
        let alerts = self.alerts.iter().map(|alert| KeptAlert {
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
        let kept = Kept {
            v: VERSION,
            mark: self.mark.clone(),
            offsets: offsets.collect(),
            alerts: alerts.collect(),
            changes: changes.collect(),
        };
        // There is no map in it, which is all that can fail.
        let value = serde_json::to_vec(&kept).unwrap_or_default();
        StateChange { kind: kind::PREPARED, key: KEY.to_vec(), value: Some(value) }
    }

    /// The entry that removes it.
    pub fn gone() -> StateChange {
        StateChange { kind: kind::PREPARED, key: KEY.to_vec(), value: None }
    }

    /// The same back; nothing where this version cannot read it.
    pub fn read(value: &[u8]) -> Option<Self> {
        let kept: Kept = serde_json::from_slice(value).ok().filter(|kept: &Kept| kept.v == VERSION)?;
        let alert = |alert: KeptAlert| {
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
            mark: kept.mark,
            offsets: kept
                .offsets
                .into_iter()
                .map(|(topic, partition, next)| PartitionOffset { topic, partition, next })
                .collect(),
            alerts: kept.alerts.into_iter().map(alert).collect::<Option<_>>()?,
            changes: kept.changes.into_iter().map(change).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_prepared_comes_back() {
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
        let value = prepared.entry().value.unwrap();
        assert_eq!(Prepared::read(&value), Some(prepared));
        assert_eq!(Prepared::read(&value[1..]), None);
        assert_eq!(Prepared::gone().value, None);
    }
}
