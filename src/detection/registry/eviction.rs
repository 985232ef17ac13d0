//! Which entries of the cluster state are evicted when a map is full.
//!
//! Takes the entries of a map and returns the keys of a quarter of them. Any identity that may create objects can fill the maps, so
//! evicting the least recently used entry would be wrong: an attacker could displace what is known of others by creating thousands of
//! objects. Entries of a lower class are evicted first; within a class, those beyond the share of their namespace, or of the identity that
//! wrote them, whichever is exceeded more. As a result, a flood evicts its own entries.
//!
//! The cost is that of sorting the map once for as many insertions as a quarter of its limit.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::detection::lru::LruMap;

/// The importance of an entry: its class, and the identity that wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EvictionPriority {
    /// Entries of a lower class are evicted first.
    pub(super) class: u8,
    /// 0 if it is unknown, or if several identities wrote it.
    pub(super) writer: u64,
}

/// Evicts a quarter of the entries if the map is full and the key is new. Returns the evicted keys with their classes.
pub(super) fn make_room<V>(
    map: &mut LruMap<Arc<str>, V>,
    limit: usize,
    key: &str,
    standing: impl Fn(&str, &V) -> EvictionPriority,
) -> Vec<(Arc<str>, u8)> {
    if map.len() < limit || map.contains(key) {
        return Vec::new();
    }
    let entries = map.iter_with_use().map(|(key, used, value)| (key.clone(), used, standing(key, value)));
    let victims = victims(entries.collect(), limit / 4 + 1);
    for (key, _) in &victims {
        map.remove(&**key);
    }
    victims
}

/// An entry's key, its last use and its importance.
type Candidate = (Arc<str>, u64, EvictionPriority);

fn victims(mut candidates: Vec<Candidate>, count: usize) -> Vec<(Arc<str>, u8)> {
    candidates.sort_unstable_by_key(|(_, used, _)| Reverse(*used));
    // The rank of an entry among those of its namespace and of its writer, the most recently used first.
    let mut namespaces: HashMap<(u8, Box<str>), usize> = HashMap::new();
    let mut writers: HashMap<(u8, u64), usize> = HashMap::new();
    let mut placed: Vec<(u8, Reverse<usize>, u64, Arc<str>)> = candidates
        .into_iter()
        .map(|(key, used, EvictionPriority { class, writer })| {
            let namespace = key.split_once('/').map_or(&*key, |(namespace, _)| namespace);
            let by_namespace = namespaces.entry((class, namespace.into())).or_default();
            *by_namespace += 1;
            let mut place = *by_namespace;
            if writer != 0 {
                let by_writer = writers.entry((class, writer)).or_default();
                *by_writer += 1;
                place = place.max(*by_writer);
            }
            (class, Reverse(place), used, key)
        })
        .collect();
    placed.sort_unstable();
    placed.truncate(count);
    placed.into_iter().map(|(class, _, _, key)| (key, class)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1000;

    /// A map with one entry of `production` and a flood of others. Returns whether the entry is kept.
    fn survives(own: EvictionPriority, flood: impl Fn(usize) -> (String, EvictionPriority)) -> bool {
        let mut map: LruMap<Arc<str>, EvictionPriority> = LruMap::new(LIMIT);
        let mut evicted = 0;
        let mut set =
            |map: &mut LruMap<Arc<str>, EvictionPriority>, key: &str, standing: EvictionPriority| {
                evicted += make_room(map, LIMIT, key, |_, standing| *standing).len();
                map.set(key, standing);
                assert!(map.len() <= LIMIT);
            };
        set(&mut map, "production/images", own);
        for number in 0..20 * LIMIT {
            let (key, standing) = flood(number);
            set(&mut map, &key, standing);
        }
        assert_eq!(map.len() + evicted, 20 * LIMIT + 1);
        map.contains("production/images")
    }

    #[test]
    fn a_flood_evicts_its_own_entries() {
        let of = |class: u8, writer: u64| EvictionPriority { class, writer };
        // A flood from one namespace by one identity, from one namespace by many identities, from many namespaces by one identity, and from
        // a hundred of each.
        assert!(survives(of(1, 1), |number| (format!("mine/{number}"), of(1, 2))));
        assert!(survives(of(1, 1), |number| (format!("mine/{number}"), of(1, number as u64 + 2))));
        assert!(survives(of(1, 1), |number| (format!("mine{number}/x"), of(1, 2))));
        assert!(survives(of(1, 0), |number| {
            (format!("mine{}/{number}", number % 100), of(1, number as u64 / 100 % 100 + 2))
        }));
        // Weaker evidence does not evict stronger evidence, regardless of its writer.
        assert!(survives(of(3, 2), |number| (format!("mine{number}/x"), of(1, 2))));
        assert!(!survives(of(0, 1), |number| (format!("mine/{number}"), of(1, 2))));
    }
}
