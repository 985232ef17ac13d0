//! Saves the windows of a correlator as store entries, and restores them.
//!
//! Takes and returns entries by their keys (see [`super::stored`]). Changes since the last call are tracked, so that the cost depends on
//! the number of changes and not on the number of windows.

use std::collections::BTreeSet;

use super::group::StoredPart;
use super::stored::{NOW, key, parse};
use super::{Correlator, Digest};
use crate::detection::state::{StateChange, decode, encode, kind};

impl Correlator {
    /// Starts recording changes. Call it before restoring: existing state counts as changed.
    pub fn track(&mut self) {
        self.stored.gone.switch_on();
        for entry in &mut self.correlations {
            entry.groups.track();
        }
    }

    /// The changes since the last call; none unless [tracked](Correlator::track). An observation costs an entry for its
    /// group and one for a piece of at most 64 observations.
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
        for entry in &mut self.correlations {
            for group_key in entry.groups.take_changed() {
                let Some((used, group)) = entry.groups.peek_with_use(&group_key) else { continue };
                for (number, value) in group.changes(&entry.spec, used) {
                    let key = key(entry.definition, group_key, number);
                    written.insert(key.clone());
                    change(key, value);
                }
            }
        }
        // A group that was removed may exist again.
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

    /// Restores a stored entry. Returns false if it has another version or belongs to no correlation of this rule set. Entries may come in
    /// any order; in key order, groups are evicted in the same order as before.
    pub fn restore(&mut self, entry_key: &[u8], value: &[u8]) -> bool {
        if entry_key == NOW {
            let Some((_, now)) = decode::<i64>(value) else { return false };
            self.stored.now = Some(now);
            self.now = self.now.max(now);
            return true;
        }
        let Some((definition, group, number)) = parse(entry_key) else { return false };
        let Some(index) = self.correlations.iter().position(|entry| entry.definition == definition) else {
            return false;
        };
        let entry = &mut self.correlations[index];
        let Some(piece) = StoredPart::read(&entry.spec, number, value) else { return false };
        if let StoredPart::Head(used, _) = &piece {
            entry.groups.restore_use(&group, *used);
        }
        entry.groups.restore_entry(&group).restore(&entry.spec, number, piece);
        self.stored.unfinished.insert((index, group));
        true
    }

    /// Completes groups of which some parts were restored.
    pub(super) fn finish_restore(&mut self) {
        if self.stored.unfinished.is_empty() {
            return;
        }
        let mut correlations = BTreeSet::new();
        for (index, key) in std::mem::take(&mut self.stored.unfinished) {
            let entry = &mut self.correlations[index];
            let Some(group) = entry.groups.peek_mut(&key) else { continue };
            group.finish_restore(&entry.spec);
            entry.update_indexes(key, (None, None));
            correlations.insert(index);
        }
        for index in correlations {
            self.make_room(index);
        }
    }

    /// Takes over the windows of another correlator, for correlations that are unchanged. Returns the number of groups that were dropped.
    pub fn take_over(&mut self, mut old: Correlator) -> u64 {
        old.finish_restore();
        let is_tracked = self.stored.gone.is_on();
        self.now = self.now.max(old.now);
        self.stats = old.stats;
        self.stored = old.stored;
        let mut dropped = 0;
        for mut entry in old.correlations {
            let same = self.correlations.iter_mut().find(|own| own.definition == entry.definition);
            if let Some(own) = same {
                own.groups.take_over(entry.groups);
                own.due = entry.due;
                own.ends = entry.ends;
                continue;
            }
            dropped += entry.groups.len() as u64;
            let keys: Vec<Digest> = entry.groups.keys().copied().collect();
            for key in keys {
                if let Some(group) = entry.groups.remove(&key) {
                    self.stored.gone(entry.definition, key, &group);
                }
            }
        }
        if is_tracked || self.stored.gone.is_on() {
            self.stored.gone.switch_on();
            for entry in self.correlations.iter_mut().filter(|entry| !entry.groups.is_tracked()) {
                entry.groups.track();
            }
        }
        for index in 0..self.correlations.len() {
            self.make_room(index);
        }
        dropped
    }
}
