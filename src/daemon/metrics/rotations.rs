//! The time at which each tracked registry credential was last written, for the most recently written ones.

use std::collections::HashMap;

use super::identities::label_value;

/// Maximum number of exported credentials, each of which is a time series.
pub const MAX_ROTATIONS: usize = 1000;

/// Maximum length of a Kubernetes object name, in bytes.
const MAX_NAME_LEN: usize = 253;

/// Namespace and name of a secret.
type Name = (String, String);

#[derive(Debug, Default)]
pub(super) struct Rotations {
    times: HashMap<Name, i64>,
}

/// Changes to the exported series.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) exported: Option<(Name, i64)>,
    pub(super) evicted: Option<Name>,
}

impl Rotations {
    pub(super) fn rotated(&mut self, namespace: &str, secret: &str, time: i64) -> Change {
        let name = (label_value(namespace, MAX_NAME_LEN), label_value(secret, MAX_NAME_LEN));
        let mut change = Change::default();
        if let Some(known) = self.times.get_mut(&name) {
            // Events may arrive out of order: the newest time wins.
            if time > *known {
                *known = time;
                change.exported = Some((name, time));
            }
            return change;
        }
        if self.times.len() >= MAX_ROTATIONS {
            // A linear search is cheap, because secrets are rarely written.
            let oldest = self.times.iter().min_by_key(|(name, time)| (**time, *name));
            let Some((oldest, oldest_time)) = oldest.map(|(name, time)| (name.clone(), *time)) else {
                return change;
            };
            if oldest_time >= time {
                change.evicted = Some(name);
                return change;
            }
            self.times.remove(&oldest);
            change.evicted = Some(oldest);
        }
        self.times.insert(name.clone(), time);
        change.exported = Some((name, time));
        change
    }

    pub(super) fn deleted(&mut self, namespace: &str, secret: &str) -> Option<Name> {
        self.times
            .remove_entry(&(label_value(namespace, MAX_NAME_LEN), label_value(secret, MAX_NAME_LEN)))
            .map(|(name, _)| name)
    }
}
