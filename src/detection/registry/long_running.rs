//! Requests that last, so that their end is known by their start.

use std::collections::HashMap;

use crate::detection::state::{StateChange, Track, decode, encode, kind};

/// So many are remembered, twice.
const MOST: usize = 50_000;

/// A request, by its hash.
pub type Request = [u8; 16];

/// The requests that were seen, in two generations: when the young one is full the old one is forgotten.
#[derive(Clone, Debug, Default)]
pub struct LongRunningRequests {
    /// Each with whether it is stored.
    young: HashMap<Request, bool>,
    old: HashMap<Request, bool>,
    /// The number of the young generation.
    generation: u64,
    track: Track<Request>,
}

impl LongRunningRequests {
    /// Whether a request was not seen before. From now on it was.
    pub fn is_first(&mut self, request: Request) -> bool {
        if self.young.contains_key(&request) || self.old.contains_key(&request) {
            return false;
        }
        if self.young.len() >= MOST {
            self.turn();
        }
        self.young.insert(request, false);
        self.track.changed(&request);
        true
    }

    /// Starts a generation.
    fn turn(&mut self) {
        self.generation = self.generation.saturating_add(1);
        let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        for (request, is_stored) in forgotten {
            self.track.gone(&request, is_stored);
        }
    }

    /// From now on remembers what changes. What is there counts as changed.
    pub fn track(&mut self) {
        self.track.switch_on();
        for request in self.young.keys().chain(self.old.keys()) {
            self.track.changed(request);
        }
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self, changes: &mut Vec<StateChange>) {
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

    /// Takes a stored request back, in any order; false where it is none, or one of a generation that is gone.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> bool {
        let (Ok(request), Some((generation, ()))) = (Request::try_from(key), decode(value)) else {
            return false;
        };
        if generation > self.generation {
            if generation - self.generation > 1 {
                self.turn();
            }
            self.turn();
            self.generation = generation;
        }
        let requests = match self.generation - generation {
            0 => &mut self.young,
            1 => &mut self.old,
            _ => return false,
        };
        let is_room = requests.len() < MOST;
        if is_room {
            requests.insert(request, true);
        }
        is_room
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn requests_are_known_after_a_restart_for_as_long() {
        let mut lasting = LongRunningRequests::default();
        lasting.track();
        let mut stored = BTreeMap::new();
        let request = |number: usize| (number as u128).to_le_bytes();
        for number in 0..MOST * 3 + 10 {
            assert!(lasting.is_first(request(number)));
            if number % 10_000 == 9 {
                let mut changes = Vec::new();
                lasting.take_changes(&mut changes);
                for StateChange { key, value, .. } in changes {
                    match value {
                        Some(value) => stored.insert(key, value),
                        None => stored.remove(&key),
                    };
                }
                assert!(stored.len() == lasting.young.len() + lasting.old.len() && stored.len() <= 2 * MOST);
            }
        }
        let mut again = LongRunningRequests::default();
        for (key, value) in &stored {
            assert!(again.restore(key, value));
        }
        assert_eq!((again.young.len(), again.old.len()), (10, MOST));
        assert!(!again.is_first(request(MOST * 2)) && again.is_first(request(MOST * 2 - 1)));
        assert!(!again.restore(&request(1), &encode(0, &())));
        assert!(!again.restore(b"x", &encode(3, &())) && !again.restore(&request(1), b"{}"));
    }
}
