//! Going on where another stopped: what a session learned as entries for a store, and from one session to the next when
//! there are other rules.
//!
//! A restored session says what one would have said that never stopped, but for two things: positions of events in the
//! input start anew, and what was last used may be known a little less exactly (see [`crate::detection::registry`]).
//!
//! ```
//! use std::collections::BTreeMap;
//! use pullwatch::detection::detector::{Detector, Options};
//! use pullwatch::{rules, shipped};
//!
//! // Only where a rule asks for `registry.*` or the like is anything learned.
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

use std::collections::{BTreeMap, BTreeSet};

use super::{OnAlert, Sequel, Session};
use crate::detection::audit::time::ReferenceClock;
use crate::detection::registry::ClusterState;
use crate::detection::state::{StateChange, kind};

/// What a sequel knows of its store.
#[derive(Debug, Default)]
pub(super) struct Kept {
    is_tracked: bool,
    /// Entries that mean nothing, and are to be removed.
    foreign: BTreeSet<(&'static str, Vec<u8>)>,
    refused: u64,
}

impl Kept {
    /// How many entries, windows and throttles meant nothing.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

impl Sequel<'_> {
    /// From now on remembers what changes, until [`Sequel::take_changes`] asks for it. To be called before anything is
    /// restored: what is there already counts as changed.
    pub fn track(&mut self) {
        self.kept.is_tracked = true;
        self.cluster_state.track();
        self.together.correlator.track();
        self.together.throttle.track();
    }

    /// What changed since the last call, at most one change a key, in no particular order; nothing unless it is
    /// [tracked](Sequel::track). What it costs goes by what changed, not by what is known. They are told once: who cannot
    /// store them now keeps them, and stores them before the next.
    pub fn take_changes(&mut self) -> Vec<StateChange> {
        let foreign = std::mem::take(&mut self.kept.foreign).into_iter();
        let mut changes: Vec<StateChange> =
            foreign.map(|(kind, key)| StateChange { kind, key, value: None }).collect();
        changes.extend(self.cluster_state.take_changes());
        changes.extend(self.together.correlator.take_changes());
        changes.extend(self.together.throttle.take_changes());
        changes
    }

    /// Takes a stored entry back; to be called with all of them before the first event, best in the order of their keys.
    ///
    /// False where it means nothing: another version wrote it, or it is broken, or its rule is another now. That is counted
    /// ([`forgotten::STATE`](super::forgotten::STATE)), and unless its kind is unknown the next changes say that it is
    /// gone.
    pub fn restore(&mut self, kind: &str, key: &[u8], value: &[u8]) -> bool {
        let is_known = match kind {
            kind::WINDOW => self.together.correlator.restore(key, value),
            kind::THROTTLE => self.together.throttle.restore(key, value),
            _ => self.cluster_state.restore(kind, key, value),
        };
        if !is_known {
            self.kept.refused += 1;
            let kind = kind::ALL.into_iter().find(|known| *known == kind);
            if let Some(kind) = kind.filter(|_| self.kept.is_tracked) {
                self.kept.foreign.insert((kind, key.to_vec()));
            }
        }
        is_known
    }

    /// Says what time it is, in nanoseconds since 1970: an event that claims to be more than five minutes later counts as if
    /// it were of now, so that those after it are not late. Its alerts still say what it says.
    pub fn set_now(&mut self, now: i64) {
        let clock = ReferenceClock::at(now);
        self.together.clock = clock;
        self.together.correlator.set_clock(clock);
        if let Some(exchange) = &mut self.together.exchange {
            exchange.set_now(now);
        }
        self.cluster_state.set_clock(clock);
    }

    /// Goes on for another, whose rules may be others: knows what it knew, and has the windows and throttles of those
    /// rules that are the same. Windows and throttles of others are dropped, and counted
    /// ([`forgotten::STATE`](super::forgotten::STATE)).
    pub fn resume_from(&mut self, old: Sequel<'_>) {
        let is_tracked = self.kept.is_tracked || old.kept.is_tracked;
        let was_tracked = old.kept.is_tracked;
        self.cluster_state = old.cluster_state;
        self.kept = old.kept;
        self.kept.refused += self.together.correlator.take_over(old.together.correlator);
        self.kept.refused += self.together.throttle.take_over(old.together.throttle);
        self.together.clock = old.together.clock;
        if is_tracked && !was_tracked {
            self.track();
        }
    }
}

impl Session<'_> {
    /// See [`Sequel::track`].
    pub fn track(&mut self) {
        self.sequel.track();
    }

    /// See [`Sequel::take_changes`].
    pub fn take_changes(&mut self) -> Vec<StateChange> {
        self.sequel.take_changes()
    }

    /// See [`Sequel::restore`].
    pub fn restore(&mut self, kind: &str, key: &[u8], value: &[u8]) -> bool {
        self.sequel.restore(kind, key, value)
    }

    /// See [`Sequel::set_now`]. To be called before each batch by whoever runs beside real time.
    pub fn set_now(&mut self, now: i64) {
        self.sequel.set_now(now);
    }

    /// See [`Sequel::advance`]. What it counts is in the next [`Session::take_counts`].
    pub fn advance(&mut self, time: i64, on_alert: OnAlert<'_>) {
        let counts = self.sequel.advance(time, on_alert);
        self.scout.add_counts(&counts);
    }

    /// See [`Sequel::forget`].
    pub fn forget(&mut self, before: i64) {
        self.sequel.forget(before);
    }

    /// Goes on for another session, as [`Sequel::resume_from`] says, and counts on: events, and their positions.
    pub fn resume_from(&mut self, old: Session<'_>) {
        self.scout.resume_from(old.scout);
        self.sequel.resume_from(old.sequel);
    }

    /// What was learned so far.
    pub fn cluster_state(&self) -> &ClusterState {
        self.sequel.cluster_state()
    }

    /// See [`Sequel::forgotten`].
    pub fn forgotten(&self) -> BTreeMap<&'static str, u64> {
        self.sequel.forgotten()
    }
}
