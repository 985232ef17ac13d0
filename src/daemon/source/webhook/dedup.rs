//! Events that were stored lately, by their content.

use std::collections::HashSet;

/// The last events that were stored: an apiserver that got no reply sends them again, at once or after minutes of waiting.
///
/// It remembers the last `most` of them at least and twice as many at most, 32 bytes or so each. Only what is stored may be
/// remembered ([`RecentEvents::remember`] after the commit): what is remembered and lost would be dropped when it comes again.
#[derive(Debug)]
pub struct RecentEvents {
    newer: HashSet<[u8; 16]>,
    older: HashSet<[u8; 16]>,
    most: usize,
}

impl Default for RecentEvents {
    /// Enough for five minutes of 300 events a second.
    fn default() -> Self {
        RecentEvents::new(100_000)
    }
}

impl RecentEvents {
    /// Remembers so many events.
    pub fn new(most: usize) -> Self {
        RecentEvents { newer: HashSet::new(), older: HashSet::new(), most: most.max(1) }
    }

    /// Whether this event was stored lately.
    pub fn contains(&self, digest: &[u8; 16]) -> bool {
        self.newer.contains(digest) || self.older.contains(digest)
    }

    /// These events are stored.
    pub fn remember(&mut self, digests: impl IntoIterator<Item = [u8; 16]>) {
        for digest in digests {
            if self.newer.len() >= self.most {
                // The room of the older ones serves for the next.
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
    fn the_last_are_known_and_no_more_than_twice_as_many() {
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
