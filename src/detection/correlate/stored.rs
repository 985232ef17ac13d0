//! What is stored of windows, and how it comes back.
//!
//! The key of an entry is the digest of the correlation's definition, the group's, and the number of a part of it
//! (see [`super::group`]): 40 bytes. One more entry is the latest time that anybody spoke of.

use std::collections::BTreeSet;

use super::group::{Group, Part};
use super::{Correlator, Digest};
use crate::detection::state::{StateChange, Track, decode, encode, kind};

/// The key of the latest time.
const NOW: &[u8] = b"now";

/// What a correlator knows of its store.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Keys of entries that are gone.
    gone: Track<Vec<u8>>,
    /// The latest time that is stored.
    now: Option<i64>,
    /// Groups of which parts were read back, by their correlation's index.
    unfinished: BTreeSet<(usize, Digest)>,
}

impl Stored {
    /// A group is forgotten.
    pub fn gone(&mut self, definition: Digest, group: Digest, of: &Group) {
        if self.gone.is_on() {
            for part in of.stored() {
                self.gone.gone(&key(definition, group, part), true);
            }
        }
    }
}

fn key(definition: Digest, group: Digest, part: u64) -> Vec<u8> {
    [&definition.0[..], &group.0[..], &part.to_be_bytes()[..]].concat()
}

/// Definition, group and part of a key.
fn parse(key: &[u8]) -> Option<(Digest, Digest, u64)> {
    let (definition, rest) = key.split_first_chunk()?;
    let (group, part) = rest.split_first_chunk()?;
    Some((Digest(*definition), Digest(*group), u64::from_be_bytes(part.try_into().ok()?)))
}

impl Correlator {
    /// From now on remembers what changes, until it is asked for. To be called before anything is restored: what is there
    /// already counts as changed.
    pub fn track(&mut self) {
        self.stored.gone.switch_on();
        for part in &mut self.parts {
            part.groups.track();
        }
    }

    /// What changed since the last call; nothing unless it is [tracked](Correlator::track). An observation costs an entry
    /// for its group and one for a piece of at most 64 observations.
    pub fn take_changes(&mut self) -> Vec<StateChange> {
        self.finish_restore();
        if !self.stored.gone.is_on() {
            return Vec::new();
        }
        let mut changes = Vec::new();
        let mut written = BTreeSet::new();
        let mut change = |key: Vec<u8>, value: Option<Vec<u8>>| {
            changes.push(StateChange { kind: kind::WINDOW, key, value });
        };
        for part in &mut self.parts {
            for group_key in part.groups.take_changed() {
                let Some((used, group)) = part.groups.used(&group_key) else { continue };
                for (number, value) in group.changes(&part.spec, used) {
                    let key = key(part.definition, group_key, number);
                    written.insert(key.clone());
                    change(key, value);
                }
            }
        }
        // A group that was forgotten may be there again.
        for key in self.stored.gone.take().0 {
            if !written.contains(&key) {
                change(key, None);
            }
        }
        if self.now > i64::MIN && self.stored.now != Some(self.now) {
            self.stored.now = Some(self.now);
            change(NOW.to_vec(), Some(encode(0, &self.now)));
        }
        changes
    }

    /// Takes a stored entry back. False where it means nothing to this version, or to these correlations. Entries may
    /// come in any order; in that of their keys, groups are forgotten in the same order as before.
    pub fn restore(&mut self, entry_key: &[u8], value: &[u8]) -> bool {
        if entry_key == NOW {
            let Some((_, now)) = decode::<i64>(value) else { return false };
            self.stored.now = Some(now);
            self.now = self.now.max(now);
            return true;
        }
        let Some((definition, group, number)) = parse(entry_key) else { return false };
        let Some(index) = self.parts.iter().position(|part| part.definition == definition) else {
            return false;
        };
        let part = &mut self.parts[index];
        let Some(piece) = Part::read(&part.spec, number, value) else { return false };
        if let Part::Head(used, _) = &piece {
            part.groups.restore_use(group, *used);
        }
        part.groups.restore(group).restore(&part.spec, number, piece);
        self.stored.unfinished.insert((index, group));
        true
    }

    /// Makes groups whose parts were read back what they were.
    pub(super) fn finish_restore(&mut self) {
        if self.stored.unfinished.is_empty() {
            return;
        }
        let mut correlations = BTreeSet::new();
        for (index, key) in std::mem::take(&mut self.stored.unfinished) {
            let part = &mut self.parts[index];
            let Some(group) = part.groups.get(&key) else { continue };
            group.finish_restore(&part.spec);
            if part.spec.is_tumbling() {
                part.due.extend(group.due(&part.spec).map(|due| (due, key)));
            }
            let weight = group.weight();
            part.groups.weigh(&key, weight);
            correlations.insert(index);
        }
        for index in correlations {
            self.make_room(index);
        }
    }

    /// Takes over what another knows, whose correlations may be others: the windows of those that are the same. Gives how
    /// many groups were dropped.
    pub fn take_over(&mut self, mut old: Correlator) -> u64 {
        old.finish_restore();
        let is_tracked = self.stored.gone.is_on();
        self.now = self.now.max(old.now);
        self.stats = old.stats;
        self.stored = old.stored;
        let mut dropped = 0;
        for mut part in old.parts {
            let same = self.parts.iter_mut().find(|own| own.definition == part.definition);
            if let Some(own) = same {
                own.groups.take_over(part.groups);
                own.due = part.due;
                continue;
            }
            dropped += part.groups.len() as u64;
            let keys: Vec<Digest> = part.groups.keys().collect();
            for key in keys {
                if let Some(group) = part.groups.remove(&key) {
                    self.stored.gone(part.definition, key, &group);
                }
            }
        }
        if is_tracked || self.stored.gone.is_on() {
            self.stored.gone.switch_on();
            for part in self.parts.iter_mut().filter(|part| !part.groups.is_tracked()) {
                part.groups.track();
            }
        }
        for index in 0..self.parts.len() {
            self.make_room(index);
        }
        dropped
    }
}
