//! What is done now and then: gauges, and room in the store.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Pipeline, now};
use crate::daemon::metrics::TrackedKind;
use crate::daemon::store;
use crate::detection::detector::{Session, Stats, evicted};
use crate::detection::history::RecurringReads;
use crate::detection::rules::ast::RuleSet;

/// What the pipeline keeps in mind beside the session.
#[derive(Debug, Default)]
pub struct Mind {
    /// Reads that recur.
    pub(super) habits: RecurringReads,
    /// When to set the gauges; nothing where they are right.
    pub(super) gauge_at: Option<Instant>,
    /// What the session had forgotten when it was asked last.
    forgotten: BTreeMap<&'static str, u64>,
}

impl Mind {
    /// A session starts, by these rules, with these entries in the store.
    pub(super) fn begin(&mut self, rules: &RuleSet, habits: &[store::StateEntry]) {
        self.forgotten.clear();
        self.habits = RecurringReads::new(rules);
        let now = now();
        for (key, value) in habits {
            self.habits.restore(key, value, now);
        }
    }

    /// What was forgotten since the last call.
    fn forgotten(&mut self, session: &Session<'_>) -> Stats {
        let mut all = session.evicted();
        all.insert(evicted::RECURRING_READS, self.habits.refused());
        let mut counts = Stats::default();
        for (what, count) in all {
            let before = self.forgotten.insert(what, count).unwrap_or(0);
            if count > before {
                counts.evicted.insert(what, count - before);
            }
        }
        counts
    }
}

impl Pipeline {
    /// Says how much there is, and what was forgotten.
    pub(super) fn gauge(&mut self, session: &Session<'_>) -> Result<(), store::Error> {
        let forgotten = self.mind.forgotten(session);
        self.metrics.add_evictions(&forgotten.evicted);
        let cluster_state = session.cluster_state();
        let sizes = cluster_state.sizes();
        for (known, size) in [
            (TrackedKind::Credentials, sizes.credentials),
            (TrackedKind::OtherSecrets, sizes.other_secrets),
            (TrackedKind::Pods, sizes.pods),
            (TrackedKind::Roles, sizes.roles),
            (TrackedKind::Namespaces, sizes.namespaces),
        ] {
            self.metrics.set_tracked(known, size);
        }
        for (key, time) in cluster_state.credentials_with_times() {
            if let (Some((namespace, secret)), Some(time)) = (secret_name(key.as_bytes()), time) {
                self.metrics.credential_rotated(namespace, secret, time);
            }
        }
        match self.store.holds() {
            Ok(holds) => self.metrics.set_store_size(holds.bytes, holds.alerts),
            Err(error) if error.is_transient() => self.metrics.store_error(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Removes what is too old or too much, a small step. Whether there is more to do.
    pub(super) fn retain(&mut self) -> Result<bool, store::Error> {
        match self.store.retain(&self.retention, now()) {
            Ok(retained) => {
                if retained.undelivered > 0 {
                    tracing::error!(
                        alerts = retained.undelivered,
                        "alerts were removed to make room before every sink had them; raise store.max_size or mend the sink"
                    );
                }
                Ok(retained.more)
            }
            Err(error) if error.is_transient() => {
                self.metrics.store_error();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Namespace and name of a secret by its key in the cluster state.
pub(super) fn secret_name(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.split_once('/')
}
