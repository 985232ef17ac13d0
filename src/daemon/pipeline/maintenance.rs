//! Periodic work: gauges, retention, and the check that the store file still exists at its path.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::retention_clock::{self, RetentionClock};
use super::{Pipeline, RETRY_INTERVAL};
use crate::daemon::log_limit::LogLimit;
use crate::daemon::metrics::TrackedKind;
use crate::daemon::sink::{DropReason, SinkMetrics};
use crate::daemon::store::{self, Batch, Undelivered};
use crate::daemon::time::unix_nanos;
use crate::detection::detector::{Session, evicted};
use crate::detection::history::RecurringReads;
use crate::detection::registry::TrustedReader;
use crate::detection::rules::ast::RuleSet;
use crate::detection::state::kind;

/// Time between two reads of the decisions to trust readers.
const TRUST_INTERVAL: Duration = Duration::from_secs(1);

/// State of the periodic work, and state learned from alerts outside the session.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    pub(super) recurring_reads: RecurringReads,
    /// When to refresh the gauges; `None` if nothing changed since the last refresh.
    pub(super) next_gauges: Option<Instant>,
    /// Present once retention was applied.
    retention_clock: Option<RetentionClock>,
    /// When to check that the store still exists at its path.
    pub(super) next_store_check: Option<Instant>,
    /// Event digests stored since retention was applied. A flood must not accumulate them for a whole interval.
    pub(super) unchecked_digests: usize,
    /// Limits log lines about alerts that were deleted before delivery.
    undelivered_log: LogLimit,
    /// When to read the decisions to trust readers again.
    next_trust: Option<Instant>,
    /// Evictions of the session that the metrics already count, by kind.
    counted_evictions: BTreeMap<&'static str, u64>,
}

impl Maintenance {
    /// Called when a session starts with these rules and the stored reads.
    pub(super) fn begin_session(&mut self, rules: &RuleSet, reads: &[store::StateEntry]) {
        self.counted_evictions.clear();
        self.next_trust = None;
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
    /// Applies the decisions of people to trust readers, at most once a second.
    pub(super) fn load_trusted_readers(&mut self, session: &mut Session<'_>) {
        let now = Instant::now();
        if self.maintenance.next_trust.is_some_and(|at| now < at) {
            return;
        }
        self.maintenance.next_trust = Some(now + TRUST_INTERVAL);
        match self.store.state(kind::TRUST) {
            Ok(entries) => {
                let decisions = entries.iter().filter_map(|(key, value)| TrustedReader::decode(key, value));
                session.cluster_state_mut().readers_mut().set_trusted(decisions);
            }
            // Nothing becomes trusted that was not trusted before.
            Err(_) => self.handles.metrics.store_error(),
        }
    }

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

    /// Deletes some of the alerts beyond the retention limits. Returns whether more have to be deleted.
    pub(super) fn apply_retention(&mut self) -> Result<bool, store::Error> {
        self.maintenance.unchecked_digests = 0;
        let retained = self.retention_time().and_then(|now| self.store.retain(&self.retention, now));
        // Last, because deleting may make room for it.
        let retained = retained.and_then(|retained| self.save_retention_clock().map(|()| retained));
        match retained {
            Ok(retained) => {
                self.count_undelivered(&retained.undelivered);
                Ok(retained.has_more)
            }
            Err(error) if error.is_transient() => {
                self.handles.metrics.store_error();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The current time for retention by age; see [`RetentionClock`].
    fn retention_time(&mut self) -> Result<i64, store::Error> {
        let (now, at) = (unix_nanos(), Instant::now());
        let clock = match &mut self.maintenance.retention_clock {
            Some(clock) => clock,
            none => {
                let stored = self.store.state(retention_clock::KIND)?;
                let stored = stored.first().map(|(_, value)| &value[..]);
                let latest = self.store.latest_stored()?;
                none.insert(RetentionClock::new(stored, latest, now, at))
            }
        };
        Ok(clock.observe(now, at))
    }

    /// Stores the state of the retention clock.
    fn save_retention_clock(&mut self) -> Result<(), store::Error> {
        let Some(clock) = &self.maintenance.retention_clock else { return Ok(()) };
        let batch = Batch { changes: &[clock.to_change()], now: unix_nanos(), ..Batch::default() };
        self.store.commit(&batch).map(|_| ())
    }

    /// Counts alerts that were deleted before a sink had delivered them.
    pub(super) fn count_undelivered(&mut self, undelivered: &Undelivered) {
        let metrics = SinkMetrics::new(&self.handles.metrics);
        for (sink, alerts) in undelivered {
            metrics.of(sink).dropped(DropReason::Retention, *alerts);
            if let Some(suppressed) = self.maintenance.undelivered_log.admit() {
                tracing::error!(
                    sink,
                    alerts,
                    suppressed,
                    "alerts were deleted to stay below store.max_size before the sink had delivered them: repair the sink, or raise the limit"
                );
            }
        }
    }

    /// Checks periodically that the store still exists at its path.
    pub(super) fn check_store(&mut self) -> Result<(), store::Error> {
        let now = Instant::now();
        if self.maintenance.next_store_check.is_some_and(|at| now < at) {
            return Ok(());
        }
        self.maintenance.next_store_check = Some(now + STORE_CHECK_INTERVAL);
        self.store.check_path().or_else(|error| self.report_removal(error))
    }

    /// If the store was removed, reports it to health checks, metrics and the log, and waits for it to reappear, since it may have been
    /// moved or unmounted by mistake.
    ///
    /// # Errors
    /// The given error, if it is another one or the store does not come back.
    pub(super) fn report_removal(&mut self, error: store::Error) -> Result<(), store::Error> {
        if !matches!(error, store::Error::Removed { .. }) {
            return Err(error);
        }
        tracing::error!(%error, "the store was removed; sources are paused, and pullwatch exits if it does not reappear");
        self.handles.status.store_removed.store(true, Ordering::Relaxed);
        self.handles.metrics.store_error();
        let deadline = Instant::now() + REMOVAL_GRACE;
        while Instant::now() < deadline && !self.should_stop() {
            std::thread::sleep(RETRY_INTERVAL);
            self.handles.status.heartbeat();
            if self.store.check_path().is_ok() {
                self.handles.status.store_removed.store(false, Ordering::Relaxed);
                tracing::info!("the store is available again");
                return Ok(());
            }
        }
        Err(error)
    }
}

/// How often the store's path is checked while nothing is stored.
const STORE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How long health checks and metrics report a removed store before the process ends.
const REMOVAL_GRACE: Duration = Duration::from_secs(10);

/// Namespace and name of a secret, from its key in the cluster state.
pub(super) fn secret_name(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.split_once('/')
}
