//! Stores output, and publishes that it is stored.
//!
//! Invariant that makes crashes harmless: a transaction of the store contains only output for input that its position, or its event
//! digests, cover, or else only alerts. Therefore, a batch whose output is too large for one transaction (see [`BatchOutput::is_full`]) is
//! stored in parts, each of which keeps this invariant:
//!
//! - Files: a part ends where the position of the files can be taken. It has alerts, state and position.
//! - Webhook: a part has the digests of its events. If the sender repeats the batch after a crash, exactly the rest is evaluated.
//! - Kafka: parts before the last have alerts alone; state and positions are in the last. After a crash in between, all messages are read
//!   again with the state from before the batch. They yield the same alerts with the same ids, and an id is stored once.
//! - Kafka with transactions: one part, prepared and applied as a whole (see [`super::kafka`]). The source bounds its input.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::output::BatchOutput;
use super::{GAUGE_INTERVAL, Pipeline, RETRY_INTERVAL, secret_name};
use crate::daemon::store::{self, Batch, Committed};
use crate::daemon::time::unix_nanos;
use crate::detection::state::kind;

impl Pipeline {
    /// Stores the output of a batch, after its matches were sent to other replicas. See [`Pipeline::store`].
    pub(super) fn commit(
        &mut self,
        position: Option<(&str, &[u8])>,
        event_digests: &[[u8; 16]],
        output: &BatchOutput,
    ) -> Result<bool, store::Error> {
        let (markers, matches): (Vec<_>, Vec<_>) =
            output.outbox.iter().cloned().partition(|message| message.is_close_marker);
        if !self.send_matches(&matches) || !self.store(position, event_digests, output)? {
            return Ok(false);
        }
        if !markers.is_empty() {
            let latest = *self.latest_seq.borrow();
            self.exchange.defer_markers(latest, markers.into_iter());
        }
        Ok(true)
    }

    /// Stores the output of a batch in one transaction, and retries while the store is full or locked. Returns false if a stop was
    /// requested before this succeeded: then nothing of the batch is stored, and its source still has it.
    fn store(
        &mut self,
        position: Option<(&str, &[u8])>,
        event_digests: &[[u8; 16]],
        output: &BatchOutput,
    ) -> Result<bool, store::Error> {
        let committed = loop {
            let started = Instant::now();
            let batch = Batch {
                source: position,
                alerts: &output.alerts,
                changes: &output.changes,
                seen: event_digests,
                now: unix_nanos(),
            };
            match self.store.commit(&batch) {
                Ok(committed) => {
                    self.handles.metrics.observe_commit(started.elapsed());
                    if self.handles.status.store_stalled.swap(false, Ordering::Relaxed) {
                        self.handles.metrics.set_store_full(false);
                        tracing::info!("store is writable again");
                    }
                    break committed;
                }
                Err(error) if error.is_transient() => {
                    if !self.handles.status.store_stalled.swap(true, Ordering::Relaxed) {
                        tracing::error!(%error, "store is not accepting writes; sources are paused");
                    }
                    self.handles.metrics.store_error();
                    self.handles.metrics.set_store_full(matches!(error, store::Error::Full { .. }));
                }
                Err(error) => return Err(error),
            }
            self.handles.status.heartbeat();
            if self.should_stop() {
                return Ok(false);
            }
            std::thread::sleep(RETRY_INTERVAL);
        };
        // Before the batch is acknowledged: SQLite writes to a removed file without reporting an error.
        if let Err(error) = self.store.check_path() {
            self.report_removal(error)?;
        }
        self.publish(output, &committed)?;
        Ok(true)
    }

    /// Updates the metrics and wakes the sinks after a commit.
    fn publish(&mut self, output: &BatchOutput, committed: &Committed) -> Result<(), store::Error> {
        self.count_undelivered(&committed.undelivered);
        // An alert that was already stored, such as from another source, was counted then.
        for ((rule, time), _) in
            output.alert_rules.iter().zip(&committed.is_new).filter(|(_, is_new)| **is_new)
        {
            self.handles.metrics.alert_stored(*rule, *time);
        }
        for (alert, exposed) in &output.exposed {
            if committed.is_new.get(*alert).copied().unwrap_or_default() {
                self.handles.metrics.exposed(exposed);
            }
        }
        for change in output.changes.iter().filter(|change| change.kind == kind::SECRET) {
            if let (None, Some((namespace, secret))) = (&change.value, secret_name(&change.key)) {
                self.handles.metrics.credential_deleted(namespace, secret);
            }
        }
        if !output.changes.is_empty() || !output.alerts.is_empty() {
            self.maintenance.next_gauges.get_or_insert_with(|| Instant::now() + GAUGE_INTERVAL);
        }
        if !output.alerts.is_empty() {
            let latest = match self.store.latest_seq() {
                // Any change of the value wakes the sinks; they read the store themselves.
                Err(error) if error.is_transient() => *self.latest_seq.borrow() + 1,
                latest => latest?,
            };
            self.latest_seq.send_replace(latest);
        }
        Ok(())
    }
}
