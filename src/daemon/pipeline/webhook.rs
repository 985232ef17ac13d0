//! Batches from the webhook, each of which is answered when its events are stored.

use std::collections::HashSet;
use std::ops::Range;

use super::output::BatchOutput;
use super::{Flow, Pipeline};
use crate::daemon::source::follow::ReadStep;
use crate::daemon::source::webhook::{BatchOutcome, WebhookBatch, split_events};
use crate::daemon::store;
use crate::detection::audit::event_id;
use crate::detection::audit::origin::Records;
use crate::detection::detector::Session;

/// Maximum number of events whose digests are stored in one transaction.
const MAX_DIGESTS_PER_PART: usize = 10_000;

impl Pipeline {
    /// Evaluates and stores those events of a batch that were not stored before, and replies to the sender.
    pub(super) fn process_webhook_batch(
        &mut self,
        source: usize,
        batch: WebhookBatch,
        session: &mut Session<'_>,
    ) -> Result<Flow, store::Error> {
        session.set_log(&self.sources.log(source));
        if batch.is_head {
            return self.process_webhook_head(source, batch, session);
        }
        let unwrapped = session.unwrap(&batch.body);
        let records = Records::new(unwrapped.as_ref(), &batch.body);
        let body = records.bytes;
        let events = match split_events(body) {
            Ok(events) => events,
            // An envelope without events, such as a control message.
            Err(_) if unwrapped.is_some() && body.is_empty() => Vec::new(),
            Err(reason) => {
                // Here and below: the sender may have closed the connection.
                let _ = batch.done.send(BatchOutcome::Invalid(reason));
                return Ok(Flow::Continue);
            }
        };
        let mut new: Vec<([u8; 16], Range<usize>)> = Vec::new();
        let mut in_batch = HashSet::new();
        for (digest, range) in &events {
            if !in_batch.insert(*digest) {
                continue;
            }
            // An apiserver repeats a whole batch if it received no reply.
            match self.store.was_seen(digest) {
                Ok(true) => {}
                Ok(false) => new.push((*digest, range.clone())),
                Err(error) if error.is_transient() => {
                    self.handles.metrics.store_error();
                    let _ = batch.done.send(BatchOutcome::Busy);
                    return Ok(Flow::Continue);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(metrics) = self.sources.webhook_metrics(source) {
            metrics.duplicates((events.len() - new.len()) as u64);
        }
        let total = events.len() as u64;
        let mut stored = total - new.len() as u64;
        batch.progress.set(total, stored);
        let mut output = BatchOutput::default();
        let mut digests: Vec<[u8; 16]> = Vec::new();
        for (at, (digest, range)) in new.iter().enumerate() {
            // One at a time: an `EventList` is a single line, which may exceed the maximum size of an event.
            self.evaluate_event(source, session, records.part(range.clone()), &mut output);
            digests.push(*digest);
            let is_last = at + 1 == new.len();
            if !output.is_full() && digests.len() < MAX_DIGESTS_PER_PART && !is_last {
                continue;
            }
            // While the store is stalled, the receiver asks the sender to retry. The rest is stored as soon as possible, and all of it is
            // recognized when it is sent again.
            if !self.commit(None, &digests, &output)? {
                let _ = batch.done.send(BatchOutcome::Busy);
                return Ok(Flow::Stop);
            }
            self.maintenance.unchecked_digests += digests.len();
            stored += digests.len() as u64;
            batch.progress.set(total, stored);
            self.handles.status.heartbeat();
            output = BatchOutput::default();
            digests.clear();
        }
        let _ = batch.done.send(BatchOutcome::Stored { events: total });
        Ok(Flow::Continue)
    }

    /// Evaluates and stores the beginning of an event that exceeds the limit, unless it was stored before, and replies to the sender.
    fn process_webhook_head(
        &mut self,
        source: usize,
        batch: WebhookBatch,
        session: &mut Session<'_>,
    ) -> Result<Flow, store::Error> {
        let digest = event_id::digest(&batch.body);
        let was_seen = match self.store.was_seen(&digest) {
            Ok(was_seen) => was_seen,
            Err(error) if error.is_transient() => {
                self.handles.metrics.store_error();
                let _ = batch.done.send(BatchOutcome::Busy);
                return Ok(Flow::Continue);
            }
            Err(error) => return Err(error),
        };
        if was_seen {
            if let Some(metrics) = self.sources.webhook_metrics(source) {
                metrics.duplicates(1);
            }
        } else {
            let mut output = BatchOutput::default();
            self.evaluate(source, session, &batch.body, ReadStep::Head, &mut output);
            if !self.commit(None, &[digest], &output)? {
                let _ = batch.done.send(BatchOutcome::Busy);
                return Ok(Flow::Stop);
            }
            self.maintenance.unchecked_digests += 1;
        }
        let _ = batch.done.send(BatchOutcome::Stored { events: 1 });
        Ok(Flow::Continue)
    }
}
