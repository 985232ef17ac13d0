//! Saved state: what a session learned as entries for a store, restored after a restart or taken over by a session with
//! other rules.
//!
//! A restored session emits the same alerts as one that never stopped, with two exceptions: positions of events in the
//! input start again from 1, and the order of last use is slightly less exact (see
//! [`crate::detection::registry`]).
//!
//! ```
//! use std::collections::BTreeMap;
//! use pullwatch::internals::detection::detector::{Detector, Options};
//! use pullwatch::internals::{detection::rules, shipped};
//!
//! // State is only learned if a rule uses `registry.*` or similar fields.
//! let rules = rules::load(&shipped::files(), &rules::Options::default()).rules;
//! let detector = Detector::new(&rules, Options::default());
//! let mut session = detector.session();
//! session.track();
//! session.chunk(br#"{"kind":"Event","auditID":"1","stage":"ResponseComplete","verb":"create",
//!     "stageTimestamp":"2026-05-04T10:00:00Z","objectRef":{"resource":"secrets","namespace":"p","name":"x"},
//!     "requestObject":{"type":"kubernetes.io/dockercfg"}}"#, &mut |_| {});
//! let mut store = BTreeMap::new();
//! for change in session.take_changes() {
//!     match change.value {
//!         Some(value) => store.insert((change.kind, change.key), value),
//!         None => store.remove(&(change.kind, change.key)),
//!     };
//! }
//! // After a restart:
//! let mut session = detector.session();
//! session.track();
//! for ((kind, key), value) in &store {
//!     assert!(session.restore(kind, key, value));
//! }
//! let known: Vec<_> = session.cluster_state().credentials_with_times().collect();
//! assert_eq!(known, [("p/x", Some(1_777_888_800_000_000_000))]);
//! ```

use std::collections::BTreeMap;

use super::{OnAlert, OrderedPass, Session};
use crate::detection::audit::time::ReferenceClock;
use crate::detection::registry::ClusterState;
use crate::detection::state::{StateChange, kind};

impl OrderedPass<'_> {
    /// Starts recording changes, for [`OrderedPass::take_changes`]. Call it before restoring: existing state counts as changed.
    pub fn track(&mut self) {
        self.tracking.is_tracked = true;
        self.cluster_state.track();
        self.correlation.correlator.track();
        self.correlation.throttle.track();
    }

    /// The changes since the last call, at most one per key, in no particular order; none unless [tracked](OrderedPass::track). The cost
    /// depends on what changed, not on the size of the state. Each change is returned once: a caller that cannot store it must keep it and
    /// store it before the next ones.
    pub fn take_changes(&mut self) -> Vec<StateChange> {
        let foreign = std::mem::take(&mut self.tracking.foreign).into_iter();
        let mut changes: Vec<StateChange> =
            foreign.map(|(kind, key)| StateChange { kind, key, value: None }).collect();
        changes.extend(self.cluster_state.take_changes());
        changes.extend(self.correlation.correlator.take_changes());
        changes.extend(self.correlation.throttle.take_changes());
        changes
    }

    /// Restores a stored entry. Call it with all entries before the first event, preferably in key order.
    ///
    /// Returns false if the entry was written by another version, is corrupt, or belongs to a rule that changed. That is
    /// counted ([`evicted::STATE`](super::evicted::STATE)), and unless its kind is unknown the next changes remove it from
    /// the store.
    pub fn restore(&mut self, kind: &str, key: &[u8], value: &[u8]) -> bool {
        let is_known = match kind {
            kind::WINDOW => self.correlation.correlator.restore(key, value),
            kind::THROTTLE => self.correlation.throttle.restore(key, value),
            _ => self.cluster_state.restore(kind, key, value),
        };
        if !is_known {
            self.tracking.rejected += 1;
            let kind = kind::ALL.into_iter().find(|known| *known == kind);
            if let Some(kind) = kind.filter(|_| self.tracking.is_tracked) {
                self.tracking.foreign.insert((kind, key.to_vec()));
            }
        }
        is_known
    }

    /// Sets the current time, in nanoseconds since 1970-01-01T00:00:00Z. An event that claims to be more than five minutes ahead of it is
    /// treated as current, so that events after it are not late. Its alerts show the claimed time.
    pub fn set_now(&mut self, now: i64) {
        let clock = ReferenceClock::at(now);
        self.received = Some(now);
        self.correlation.clock = clock;
        self.correlation.correlator.set_clock(clock);
        if let Some(repartition) = &mut self.correlation.repartition {
            repartition.set_now(now);
        }
        self.cluster_state.set_clock(clock);
    }

    /// Takes over the state of a pass whose rules may differ: all cluster state, and the windows and throttles of rules
    /// that did not change. The others are dropped and counted ([`evicted::STATE`](super::evicted::STATE)).
    pub fn resume_from(&mut self, old: OrderedPass<'_>) {
        let is_tracked = self.tracking.is_tracked || old.tracking.is_tracked;
        let was_tracked = old.tracking.is_tracked;
        self.cluster_state = old.cluster_state;
        self.cluster_state.set_inventory(self.detector.options.inventory.clone());
        self.tracking = old.tracking;
        self.tracking.rejected += self.correlation.correlator.take_over(old.correlation.correlator);
        self.tracking.rejected += self.correlation.throttle.take_over(old.correlation.throttle);
        self.correlation.clock = old.correlation.clock;
        if is_tracked && !was_tracked {
            self.track();
        }
    }
}

impl Session<'_> {
    /// See [`OrderedPass::track`].
    pub fn track(&mut self) {
        self.ordered.track();
    }

    /// See [`OrderedPass::take_changes`].
    pub fn take_changes(&mut self) -> Vec<StateChange> {
        self.ordered.take_changes()
    }

    /// See [`OrderedPass::restore`].
    pub fn restore(&mut self, kind: &str, key: &[u8], value: &[u8]) -> bool {
        self.ordered.restore(kind, key, value)
    }

    /// See [`OrderedPass::set_now`]. Call it before each batch if the input is live.
    pub fn set_now(&mut self, now: i64) {
        self.ordered.set_now(now);
    }

    /// See [`OrderedPass::advance`]. Its counts are in the next [`Session::take_stats`].
    pub fn advance(&mut self, time: i64, on_alert: OnAlert<'_>) {
        let stats = self.ordered.advance(time, on_alert);
        self.parallel.add_stats(&stats);
    }

    /// See [`OrderedPass::expire`].
    pub fn expire(&mut self, before: i64) {
        self.ordered.expire(before);
    }

    /// Takes over the state of another session, as [`OrderedPass::resume_from`] does, and continues its counts and
    /// positions.
    pub fn resume_from(&mut self, old: Session<'_>) {
        self.parallel.resume_from(old.parallel);
        self.ordered.resume_from(old.ordered);
    }

    /// The cluster state.
    pub fn cluster_state(&self) -> &ClusterState {
        self.ordered.cluster_state()
    }

    /// The cluster state, to set which readers are trusted.
    pub fn cluster_state_mut(&mut self) -> &mut ClusterState {
        &mut self.ordered.cluster_state
    }

    /// See [`OrderedPass::evicted`].
    pub fn evicted(&self) -> BTreeMap<&'static str, u64> {
        self.ordered.evicted()
    }
}
