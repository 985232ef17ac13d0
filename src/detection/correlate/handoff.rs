//! Windows that go from one correlator to another: what the next one is told of what came of them.
//!
//! Who takes a group over is given its observations again ([`Correlator::replay`]) and what was told of it
//! ([`Correlator::apply_marker`]), and then goes on where the other stopped, without telling anything again.

use super::{CorrelationStats, Correlator, Digest, Observation};
use crate::detection::rules::ast::Correlation;

/// What came of a window, for whoever takes its group over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowMarker {
    /// Index of the correlation.
    pub correlation: usize,
    /// Which group.
    pub group: Digest,
    /// What came of it.
    pub what: WindowOutcome,
}

/// What came of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowOutcome {
    /// It fired, and this was its first and its last observation.
    Fired(i64, i64),
    /// It was judged, whatever came of that, and ended then.
    Closed(i64),
}

impl WindowMarker {
    pub(super) fn fired(correlation: usize, group: Digest, first: i64, last: i64) -> Self {
        WindowMarker { correlation, group, what: WindowOutcome::Fired(first, last) }
    }

    pub(super) fn closed(correlation: usize, group: Digest, until: i64) -> Self {
        WindowMarker { correlation, group, what: WindowOutcome::Closed(until) }
    }
}

impl Correlator {
    /// One of so many that share the bounds and say what came of their windows. An observation is in time if it comes so
    /// late, in nanoseconds.
    pub fn for_partition(several: usize, correlations: &[Correlation], allowed_lateness: i64) -> Self {
        let mut correlator = Self::with_shares(several, correlations, allowed_lateness);
        correlator.markers = Some(Vec::new());
        correlator
    }

    /// What came of windows since the last call.
    pub fn take_markers(&mut self) -> Vec<WindowMarker> {
        self.markers.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes in what somebody else judged.
    pub fn replay(&mut self, correlation: usize, observation: &Observation) {
        let Some(part) = self.parts.get_mut(correlation) else { return };
        self.now = self.now.max(observation.time);
        // Who judged it has counted it.
        let stats = &mut CorrelationStats::default();
        part.change(Digest::of(&observation.key), |spec, group| {
            if spec.is_tumbling() {
                group.observe_tumbling(spec, observation, stats);
            } else {
                group.admit(spec, observation, stats);
            }
        });
        self.make_room(correlation);
    }

    /// Takes in what somebody else told.
    pub fn apply_marker(&mut self, mark: &WindowMarker) {
        let Some(part) = self.parts.get_mut(mark.correlation) else { return };
        part.change(mark.group, |spec, group| match mark.what {
            WindowOutcome::Fired(first, last) => group.has_fired(spec, first, last),
            WindowOutcome::Closed(until) => group.was_closed(until),
        });
        self.make_room(mark.correlation);
    }

    /// What a correlation is, so that others know it by that.
    pub fn definition(&self, correlation: usize) -> Option<Digest> {
        self.parts.get(correlation).map(|part| part.definition)
    }

    /// Which correlation this is, if it is one of ours.
    pub fn defined(&self, definition: Digest) -> Option<usize> {
        self.parts.iter().position(|part| part.definition == definition)
    }

    /// How far before an observation, in nanoseconds, others can lie that matter to it, or to one that is later.
    pub fn lookback(&self) -> i64 {
        let lookback = |part: &super::correlator::Part| {
            let (timespan, allowed_lateness) = (part.spec.timespan, part.spec.allowed_lateness);
            timespan.saturating_mul(3).saturating_add(allowed_lateness.saturating_mul(2))
        };
        self.parts.iter().map(lookback).max().unwrap_or(0)
    }
}
