//! Compaction of a full group: drops entries that cannot affect any window, then the oldest, so that a flood of one
//! value does not hide the others.

use std::collections::BTreeSet;

use super::super::CorrelationStats;
use super::{Group, GroupSpec};
use crate::detection::rules::ast::CorrelationKind;

impl Group {
    /// Compacts a group with sliding windows to at most three quarters of its capacity, so that the cost is spread over
    /// the observations that fill the rest.
    pub(super) fn compact(&mut self, spec: &GroupSpec, stats: &mut CorrelationStats) {
        let target = spec.capacity() / 4 * 3;
        let needed = match spec.kind {
            CorrelationKind::EventCount => None,
            CorrelationKind::ValueCount | CorrelationKind::Temporal => Some(self.latest_of_each()),
            CorrelationKind::TemporalOrdered => Some(self.best_sequences(spec.feeds)),
        };
        if let Some(needed) = needed {
            // A late observation may need an entry that was the latest of its value a moment ago.
            let recent = self.index_at(self.newest.unwrap_or(0).saturating_sub(spec.allowed_lateness));
            let recent = if self.entries.len() - recent <= spec.capacity() / 2 { recent } else { usize::MAX };
            let mut forgotten = None;
            self.retain(|at, entry| {
                let keep = at >= recent || needed.contains(&at);
                if !keep {
                    forgotten = forgotten.max(Some(entry.time));
                }
                keep
            });
            self.dropped_until = self.dropped_until.max(forgotten);
        }
        let too_many = self.entries.len().saturating_sub(target);
        if let Some(last) = too_many.checked_sub(1).and_then(|last| self.entries.get(last)) {
            self.dropped_until = self.dropped_until.max(Some(last.time));
            stats.dropped += too_many as u64;
            self.drop_oldest(too_many);
        }
    }

    /// The last entry of each value. Every later window that holds an earlier entry of the value holds this one too.
    fn latest_of_each(&self) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let latest = self.entries.iter().enumerate().rev().filter(|(_, entry)| seen.insert(entry.value));
        latest.map(|(at, _)| at).collect()
    }

    /// For each length, the sequence of that length that starts last: any continuation of another sequence also continues this one.
    fn best_sequences(&self, feeds: usize) -> BTreeSet<usize> {
        let mut best: Vec<Vec<usize>> = vec![Vec::new(); feeds];
        for (at, entry) in self.entries.iter().enumerate() {
            let source = entry.source as usize;
            let mut sequence = match source.checked_sub(1) {
                None => Vec::new(),
                Some(before) => match best.get(before) {
                    Some(before) if !before.is_empty() => before.clone(),
                    _ => continue,
                },
            };
            sequence.push(at);
            if let Some(own) = best.get_mut(source) {
                *own = sequence;
            }
        }
        best.into_iter().flatten().collect()
    }
}
