//! Recognizes recently stored events by a hash of their content.

use std::collections::HashSet;

/// The last stored events. An apiserver that received no response sends its batch again, immediately or minutes later.
///
/// Holds at least the last `most` events and at most twice as many, about 32 bytes each. Only stored events may be added
/// ([`RecentEvents::remember`], after the commit): an event that was added but not stored would be dropped when it is sent again.
#[derive(Debug)]
pub struct RecentEvents {
    newer: HashSet<[u8; 16]>,
    older: HashSet<[u8; 16]>,
    most: usize,
}

impl Default for RecentEvents {
    /// Capacity for about five minutes at 300 events per second.
    fn default() -> Self {
        RecentEvents::new(100_000)
    }
}

impl RecentEvents {
    /// Remembers at least this many events.
    pub fn new(most: usize) -> Self {
        RecentEvents { newer: HashSet::new(), older: HashSet::new(), most: most.max(1) }
    }

    pub fn contains(&self, digest: &[u8; 16]) -> bool {
        self.newer.contains(digest) || self.older.contains(digest)
    }

    /// Adds events that are stored.
    pub fn remember(&mut self, digests: impl IntoIterator<Item = [u8; 16]>) {
        for digest in digests {
            if self.newer.len() >= self.most {
                // Reuse the memory of the older half.
                std::mem::swap(&mut self.newer, &mut self.older);
                self.newer.clear();
            }
            self.newer.insert(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u32) -> [u8; 16] {
        u128::from(number).to_be_bytes()
    }

    #[test]
    fn remembers_the_last_events_and_at_most_twice_as_many() {
        let mut seen = RecentEvents::new(100);
        for number in 0..1000 {
            assert!(!seen.contains(&digest(number)));
            seen.remember([digest(number)]);
            let first_known = number.saturating_sub(99);
            assert!((first_known..=number).all(|known| seen.contains(&digest(known))), "{number}");
        }
        assert!((0..1000).filter(|number| seen.contains(&digest(*number))).count() <= 200);
    }
}
