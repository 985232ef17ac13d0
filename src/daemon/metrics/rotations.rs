//! When each known registry credential was last written: the newest of them.

use std::collections::HashMap;

/// The rotation of so many credentials is told.
pub const MOST_ROTATIONS: usize = 1000;

/// A name in Kubernetes has at most so many bytes.
const LONGEST_NAME: usize = 253;

/// Namespace and secret.
type Name = (String, String);

#[derive(Debug, Default)]
pub(super) struct Rotations {
    times: HashMap<Name, i64>,
}

/// What a rotation changes of what is shown.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) shown: Option<(Name, i64)>,
    pub(super) forgotten: Option<Name>,
}

/// A name as a label: it comes from an event, and anything could stand there.
fn clean(name: &str) -> String {
    let mut clean = String::new();
    for letter in name.chars().filter(|letter| !letter.is_control()) {
        if clean.len() + letter.len_utf8() > LONGEST_NAME {
            break;
        }
        clean.push(letter);
    }
    clean
}

impl Rotations {
    pub(super) fn rotated(&mut self, namespace: &str, secret: &str, time: i64) -> Change {
        let name = (clean(namespace), clean(secret));
        let mut change = Change::default();
        if let Some(known) = self.times.get_mut(&name) {
            // Events come out of order; the newest counts.
            if time > *known {
                *known = time;
                change.shown = Some((name, time));
            }
            return change;
        }
        if self.times.len() >= MOST_ROTATIONS {
            // A look at a thousand entries for a secret that is written: nothing.
            let oldest = self.times.iter().min_by_key(|(name, time)| (**time, *name));
            let Some((oldest, oldest_time)) = oldest.map(|(name, time)| (name.clone(), *time)) else {
                return change;
            };
            if oldest_time >= time {
                change.forgotten = Some(name);
                return change;
            }
            self.times.remove(&oldest);
            change.forgotten = Some(oldest);
        }
        self.times.insert(name.clone(), time);
        change.shown = Some((name, time));
        change
    }

    pub(super) fn gone(&mut self, namespace: &str, secret: &str) -> Option<Name> {
        self.times.remove_entry(&(clean(namespace), clean(secret))).map(|(name, _)| name)
    }
}
