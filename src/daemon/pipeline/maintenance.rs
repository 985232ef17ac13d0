//! Periodic work: gauges and retention.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Pipeline;
use crate::daemon::metrics::TrackedKind;
use crate::daemon::store;
use crate::daemon::time::unix_nanos;
use crate::detection::detector::{Session, evicted};
use crate::detection::history::RecurringReads;
use crate::detection::rules::ast::RuleSet;

/// State of the periodic work, and what is learned from alerts beside the session.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    pub(super) recurring_reads: RecurringReads,
    /// When to refresh the gauges; `None` if nothing changed since the last refresh.
    pub(super) next_gauges: Option<Instant>,
    /// Evictions of the session that the metrics already count, by kind.
    counted_evictions: BTreeMap<&'static str, u64>,
}

impl Maintenance {
    /// A session starts with these rules and the stored reads.
    pub(super) fn begin_session(&mut self, rules: &RuleSet, reads: &[store::StateEntry]) {
        self.counted_evictions.clear();
        self.recurring_reads = RecurringReads::new(rules);
        let now = unix_nanos();
        for (key, value) in reads {
            self.recurring_reads.restore(key, value, now);
        }
    }

    /// Evictions since the last call, by kind.
    fn new_evictions(&mut self, session: &Session<'_>) -> BTreeMap<&'static str, u64> {
        let mut totals = session.evicted();
        totals.insert(evicted::RECURRING_READS, self.recurring_reads.refused());
        let mut new = BTreeMap::new();
        for (kind, total) in totals {
            let before = self.counted_evictions.insert(kind, total).unwrap_or(0);
            if total > before {
                new.insert(kind, total - before);
            }
        }
        new
    }
}

impl Pipeline {
    /// Refreshes the gauges of learned state and of the store.
    pub(super) fn refresh_gauges(&mut self, session: &Session<'_>) -> Result<(), store::Error> {
        let metrics = &self.handles.metrics;
        metrics.add_evictions(&self.maintenance.new_evictions(session));
        let cluster_state = session.cluster_state();
        let sizes = cluster_state.sizes();
        for (kind, size) in [
            (TrackedKind::Credentials, sizes.credentials),
            (TrackedKind::OtherSecrets, sizes.other_secrets),
            (TrackedKind::Pods, sizes.pods),
            (TrackedKind::Roles, sizes.roles),
            (TrackedKind::Namespaces, sizes.namespaces),
        ] {
            metrics.set_tracked(kind, size);
        }
        for (key, time) in cluster_state.credentials_with_times() {
            if let (Some((namespace, secret)), Some(time)) = (secret_name(key.as_bytes()), time) {
                metrics.credential_rotated(namespace, secret, time);
            }
        }
        match self.store.size() {
            Ok(size) => metrics.set_store_size(size.bytes, size.alerts),
            Err(error) if error.is_transient() => metrics.store_error(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Deletes alerts beyond the retention limits, a small step. Returns whether more is to be deleted.
    pub(super) fn apply_retention(&mut self) -> Result<bool, store::Error> {
        match self.store.retain(&self.retention, unix_nanos()) {
            Ok(retained) => {
                if retained.undelivered > 0 {
                    tracing::error!(
                        alerts = retained.undelivered,
                        "alerts were deleted to make room before every sink had delivered them; raise store.max_size or repair the sink"
                    );
                }
                Ok(retained.more)
            }
            Err(error) if error.is_transient() => {
                self.handles.metrics.store_error();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Namespace and name of a secret, from its key in the cluster state.
pub(super) fn secret_name(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.split_once('/')
}
