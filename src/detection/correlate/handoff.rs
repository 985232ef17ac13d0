//! Windows that go from one correlator to another: what the next one is told of what came of them.
//!
//! Who takes a group over is given its observations again ([`Correlator::recall`]) and what was told of it
//! ([`Correlator::tell`]), and then goes on where the other stopped, without telling anything again.

use super::{Correlator, Counts, Digest, Observation};
use crate::detection::rules::ast::Correlation;

/// What came of a window, for whoever takes its group over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Index of the correlation.
    pub correlation: usize,
    /// Which group.
    pub group: Digest,
    /// What came of it.
    pub what: Told,
}

/// What came of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It fired, and this was its first and its last observation.
    Fired(i64, i64),
    /// It was judged, whatever came of that, and ended then.
    Closed(i64),
}

impl Mark {
    pub(super) fn fired(correlation: usize, group: Digest, first: i64, last: i64) -> Self {
        Mark { correlation, group, what: Told::Fired(first, last) }
    }

    pub(super) fn closed(correlation: usize, group: Digest, until: i64) -> Self {
        Mark { correlation, group, what: Told::Closed(until) }
    }
}

impl Correlator {
    /// One of so many that share the bounds and say what came of their windows. An observation is in time if it comes so
    /// late, in nanoseconds.
    pub fn shared(several: usize, correlations: &[Correlation], tolerance: i64) -> Self {
        let mut correlator = Self::one_of(several, correlations, tolerance);
        correlator.marks = Some(Vec::new());
        correlator
    }

    /// What came of windows since the last call.
    pub fn take_marks(&mut self) -> Vec<Mark> {
        self.marks.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes in what somebody else judged.
    pub fn recall(&mut self, correlation: usize, observation: &Observation) {
        let Some(part) = self.parts.get_mut(correlation) else { return };
        self.now = self.now.max(observation.time);
        // Who judged it has counted it.
        let counts = &mut Counts::default();
        part.change(Digest::of(&observation.key), |spec, group| {
            if spec.is_judged_at_close() {
                group.gather(spec, observation, counts);
            } else {
                group.admit(spec, observation, counts);
            }
        });
        self.make_room(correlation);
    }

    /// Takes in what somebody else told.
    pub fn tell(&mut self, mark: &Mark) {
        let Some(part) = self.parts.get_mut(mark.correlation) else { return };
        part.change(mark.group, |spec, group| match mark.what {
            Told::Fired(first, last) => group.has_fired(spec, first, last),
            Told::Closed(until) => group.was_closed(until),
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
    pub fn reach(&self) -> i64 {
        let reach = |part: &super::correlator::Part| {
            let (timespan, tolerance) = (part.spec.timespan, part.spec.tolerance);
            timespan.saturating_mul(3).saturating_add(tolerance.saturating_mul(2))
        };
        self.parts.iter().map(reach).max().unwrap_or(0)
    }
}
