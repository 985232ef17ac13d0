//! Tumbling windows, which are evaluated on close: a condition with an upper bound is not decided earlier.

use std::collections::BTreeSet;

use super::super::{CorrelationStats, Fired, MAX_NOTE_BYTES, Observation};
use super::{Group, GroupSpec, StoredParts};
use crate::detection::rules::ast::CorrelationKind;

/// Maximum number of notes, one for each open window. More windows are open at once only if a window is shorter than
/// the allowed lateness.
pub(super) const MAX_NOTES: usize = 8;

impl Group {
    /// Adds an observation. If the group is too full, its first window is closed early and returned if it satisfies the
    /// condition.
    pub fn observe_tumbling(
        &mut self,
        spec: &GroupSpec,
        observation: &Observation,
        stats: &mut CorrelationStats,
    ) -> Option<Fired> {
        let time = observation.time;
        stats.late +=
            u64::from(self.newest.is_some_and(|newest| newest.saturating_sub(time) > spec.allowed_lateness));
        if self.closed_until.is_some_and(|until| time <= until) {
            stats.too_late += 1;
            return None;
        }
        if !self.insert(spec, observation, stats) {
            return None;
        }
        if let Some(note) = observation.note.as_ref().filter(|note| note.len() <= MAX_NOTE_BYTES) {
            self.keep_note(spec, time, note);
        }
        if self.entries.len() <= spec.capacity() {
            return None;
        }
        self.compact_tumbling(spec);
        if self.entries.len() <= spec.capacity() / 4 * 3 {
            return None;
        }
        let fired = self.close_first(spec);
        let too_many = self.entries.len().saturating_sub(spec.capacity());
        if too_many > 0 {
            stats.dropped += too_many as u64;
            self.dropped_until = self.newest;
            let kept = self.entries.len() - too_many;
            self.retain(|at, _| at < kept);
        }
        fired
    }

    /// End of the last window that closed.
    pub fn closed_until(&self) -> Option<i64> {
        self.closed_until
    }

    /// Records that a previous owner of the group closed a window: its observations no longer count.
    pub fn was_closed(&mut self, until: i64) {
        self.drop_oldest(self.index_after(until));
        self.notes = self.notes.split_off(&until.saturating_add(1));
        self.closed_until = self.closed_until.max(Some(until));
        self.note_change(StoredParts::all_changed);
        self.note_change(StoredParts::notes_changed);
    }

    /// When the first window can be closed: once the event time is later than this.
    pub fn due(&self, spec: &GroupSpec) -> Option<i64> {
        Some(self.entries.front()?.time.saturating_add(spec.timespan).saturating_add(spec.allowed_lateness))
    }

    /// Closes the first window, and returns it if it satisfies the condition.
    pub fn close_first(&mut self, spec: &GroupSpec) -> Option<Fired> {
        let from = self.entries.front()?.time;
        let end = from.saturating_add(spec.timespan);
        let behind = self.index_after(end);
        let mut fired = self.describe(spec, 0..behind, from);
        let number = match spec.kind {
            CorrelationKind::ValueCount => fired.value_count,
            _ => fired.count,
        };
        self.drop_oldest(behind);
        if !self.notes.is_empty() {
            self.note_change(StoredParts::notes_changed);
        }
        let later = self.notes.split_off(&end.saturating_add(1));
        let notes = std::mem::replace(&mut self.notes, later);
        self.closed_until = Some(end);
        fired.time = end;
        fired.note = notes.into_values().next_back();
        spec.bounds.contains(number).then_some(fired)
    }

    /// Stores a note unless a later one of the same window exists.
    fn keep_note(&mut self, spec: &GroupSpec, time: i64, note: &[u8]) {
        let start = self.entries.front().map_or(time, |first| first.time);
        let end = start.saturating_add(spec.timespan);
        if time <= end {
            // The first window only needs its last note.
            if self.notes.range(time..=end).next().is_some() {
                return;
            }
            self.notes.retain(|other, _| *other > time);
        }
        self.note_change(StoredParts::notes_changed);
        if self.notes.len() < MAX_NOTES {
            self.notes.insert(time, note.into());
        }
    }

    /// Drops entries that do not affect the outcome: those beyond the upper bound of a window, and all but the first of equal values in it.
    /// The first entry of a window is kept, since the window starts there.
    fn compact_tumbling(&mut self, spec: &GroupSpec) {
        let most = usize::try_from(spec.bounds.at_most.unwrap_or(0)).unwrap_or(usize::MAX);
        let counts_values = spec.kind == CorrelationKind::ValueCount;
        let mut end = None;
        let mut seen = BTreeSet::new();
        let mut count = 0;
        let mut forgotten = None;
        self.retain(|_, entry| {
            if end.is_none_or(|end| entry.time > end) {
                end = Some(entry.time.saturating_add(spec.timespan));
                seen.clear();
                count = 0;
            }
            let keep = count <= most && (!counts_values || seen.insert(entry.value));
            if keep {
                count += 1;
            } else {
                forgotten = forgotten.max(Some(entry.time));
            }
            keep
        });
        self.dropped_until = self.dropped_until.max(forgotten);
    }
}
