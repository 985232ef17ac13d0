//! Handoff of groups between correlators: replaying observations and the outcomes of windows.
//!
//! A new owner of a group replays its observations ([`Correlator::replay`]) and the outcomes of its windows
//! ([`Correlator::apply_marker`]), and continues where the previous owner stopped, without repeating an alert.

use super::correlator::CorrelationGroups;
use super::window_marker::{WindowMarker, WindowOutcome};
use super::{CorrelationStats, Correlator, Digest, Observation};
use crate::detection::rules::ast::Correlation;

impl Correlator {
    /// Creates one of several correlators that share the limits and record the outcomes of their windows. The allowed lateness is in
    /// nanoseconds.
    pub fn for_partition(several: usize, correlations: &[Correlation], allowed_lateness: i64) -> Self {
        let mut correlator = Self::with_shares(several, correlations, allowed_lateness);
        correlator.markers = Some(Vec::new());
        correlator
    }

    /// The outcomes of windows since the last call.
    pub fn take_markers(&mut self) -> Vec<WindowMarker> {
        self.markers.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Adds an observation that the previous owner evaluated, without firing.
    pub fn replay(&mut self, correlation: usize, observation: &Observation) {
        let Some(part) = self.correlations.get_mut(correlation) else { return };
        self.now = self.now.max(observation.time);
        // The previous owner has counted it already.
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

    /// Applies the outcome of a window that the previous owner reported.
    pub fn apply_marker(&mut self, mark: &WindowMarker) {
        let Some(part) = self.correlations.get_mut(mark.correlation) else { return };
        part.change(mark.group, |spec, group| match mark.what {
            WindowOutcome::Fired(first, last) => group.has_fired(spec, first, last),
            WindowOutcome::Closed(until) => group.was_closed(until),
        });
        self.make_room(mark.correlation);
    }

    /// Digest that identifies a correlation to other replicas.
    pub fn definition(&self, correlation: usize) -> Option<Digest> {
        self.correlations.get(correlation).map(|entry| entry.definition)
    }

    /// The correlation with this digest.
    pub fn defined(&self, definition: Digest) -> Option<usize> {
        self.correlations.iter().position(|entry| entry.definition == definition)
    }

    /// The maximum time before an observation, in nanoseconds, at which other observations can affect it or a later one.
    pub fn lookback(&self) -> i64 {
        let lookback = |entry: &CorrelationGroups| {
            let (timespan, allowed_lateness) = (entry.spec.timespan, entry.spec.allowed_lateness);
            timespan.saturating_mul(3).saturating_add(allowed_lateness.saturating_mul(2))
        };
        self.correlations.iter().map(lookback).max().unwrap_or(0)
    }
}
