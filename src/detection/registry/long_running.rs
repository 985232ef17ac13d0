//! Tracks long-running requests, so that the stages ResponseStarted and ResponseComplete of one request count once.
//!
//! Takes the hash of a request and returns whether it is the first event of that request. Bounded to two generations of
//! [`MAX_PER_GENERATION`] hashes; nothing of the request itself is kept.

use std::collections::HashMap;

use crate::detection::state::{ChangeTracker, StateChange, decode, encode, kind};

/// Maximum number of requests in each of the two generations.
const MAX_PER_GENERATION: usize = 50_000;

/// The hash of a request's head.
pub(super) type RequestHash = [u8; 16];

/// A set of requests in two generations: when the young generation is full, the old one is dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct LongRunningRequests {
    /// Each request with whether the store has it.
    young: HashMap<RequestHash, bool>,
    old: HashMap<RequestHash, bool>,
    /// The number of the young generation.
    generation: u64,
    track: ChangeTracker<RequestHash>,
}

impl LongRunningRequests {
    /// Adds a request. Returns whether it is new.
    pub(super) fn insert(&mut self, request: RequestHash) -> bool {
        if self.young.contains_key(&request) || self.old.contains_key(&request) {
            return false;
        }
        if self.young.len() >= MAX_PER_GENERATION {
            self.start_generation();
        }
        self.young.insert(request, false);
        self.track.changed(&request);
        true
    }

    /// Returns whether a request was added and not dropped since.
    pub(super) fn contains(&self, request: &RequestHash) -> bool {
        self.young.contains_key(request) || self.old.contains_key(request)
    }

    fn start_generation(&mut self) {
        self.generation = self.generation.saturating_add(1);
        let dropped = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        for (request, is_stored) in dropped {
            self.track.gone(&request, is_stored);
        }
    }

    /// Starts tracking changes. Existing entries count as changed.
    pub(super) fn track(&mut self) {
        self.track.switch_on();
        for request in self.young.keys().chain(self.old.keys()) {
            self.track.changed(request);
        }
    }

    /// Appends the changes since the last call.
    pub(super) fn take_changes(&mut self, changes: &mut Vec<StateChange>) {
        let (gone, changed) = self.track.take();
        for request in gone {
            changes.push(StateChange { kind: kind::REQUEST, key: request.to_vec(), value: None });
        }
        for request in changed {
            let (is_stored, generation) = match self.young.get_mut(&request) {
                Some(is_stored) => (is_stored, self.generation),
                None => match self.old.get_mut(&request) {
                    Some(is_stored) => (is_stored, self.generation.saturating_sub(1)),
                    None => continue,
                },
            };
            *is_stored = true;
            let value = Some(encode(generation, &()));
            changes.push(StateChange { kind: kind::REQUEST, key: request.to_vec(), value });
        }
    }

    /// Restores a stored request; requests may come in any order. Returns false if the entry is invalid or belongs to a generation that was
    /// dropped.
    pub(super) fn restore(&mut self, key: &[u8], value: &[u8]) -> bool {
        let (Ok(request), Some((generation, ()))) = (RequestHash::try_from(key), decode(value)) else {
            return false;
        };
        if generation > self.generation {
            if generation - self.generation > 1 {
                self.start_generation();
            }
            self.start_generation();
            self.generation = generation;
        }
        let requests = match self.generation - generation {
            0 => &mut self.young,
            1 => &mut self.old,
            _ => return false,
        };
        let has_room = requests.len() < MAX_PER_GENERATION;
        if has_room {
            requests.insert(request, true);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MAX: usize = MAX_PER_GENERATION;

    #[test]
    fn restores_both_generations_after_a_restart() {
        let mut requests = LongRunningRequests::default();
        requests.track();
        let mut stored = BTreeMap::new();
        let request = |number: usize| (number as u128).to_le_bytes();
        for number in 0..MAX * 3 + 10 {
            assert!(requests.insert(request(number)));
            if number % 10_000 == 9 {
                let mut changes = Vec::new();
                requests.take_changes(&mut changes);
                for StateChange { key, value, .. } in changes {
                    match value {
                        Some(value) => stored.insert(key, value),
                        None => stored.remove(&key),
                    };
                }
                assert!(stored.len() == requests.young.len() + requests.old.len() && stored.len() <= 2 * MAX);
            }
        }
        let mut again = LongRunningRequests::default();
        for (key, value) in &stored {
            assert!(again.restore(key, value));
        }
        assert_eq!((again.young.len(), again.old.len()), (10, MAX));
        assert!(!again.insert(request(MAX * 2)) && again.insert(request(MAX * 2 - 1)));
        assert!(!again.restore(&request(1), &encode(0, &())));
        assert!(!again.restore(b"x", &encode(3, &())) && !again.restore(&request(1), b"{}"));
    }
}
