//! Batches out of a webhook: whoever sent one is told what became of it.

use std::collections::HashSet;
use std::ops::Range;

use super::{Judged, Pipeline};
use crate::daemon::source::follow::Step;
use crate::daemon::source::webhook::{Outcome, WebhookBatch, split_events};
use crate::daemon::store;
use crate::detection::detector::Session;

impl Pipeline {
    /// Judges and stores the events of a batch that were not seen lately, and answers. False where it is to stop.
    pub(super) fn deliver(
        &mut self,
        source: usize,
        delivery: WebhookBatch,
        session: &mut Session<'_>,
    ) -> Result<bool, store::Error> {
        let plain = session.unwrap(&delivery.body);
        let body = plain.as_deref().unwrap_or(&delivery.body);
        let events = match split_events(body) {
            Ok(events) => events,
            // A wrapper with nothing to judge in it, as a control message.
            Err(_) if plain.as_ref().is_some_and(Vec::is_empty) => Vec::new(),
            Err(reason) => {
                // Whoever sent it may be gone; so below.
                let _ = delivery.done.send(Outcome::Invalid(reason));
                return Ok(true);
            }
        };
        let mut new: Vec<([u8; 16], Range<usize>)> = Vec::new();
        let mut seen = HashSet::new();
        for (digest, place) in &events {
            // An apiserver sends a whole batch again that it got no answer for.
            if !seen.insert(*digest) {
                continue;
            }
            match self.store.was_seen(digest) {
                Ok(true) => {}
                Ok(false) => new.push((*digest, place.clone())),
                Err(error) if error.is_transient() => {
                    self.metrics.store_error();
                    let _ = delivery.done.send(Outcome::Busy);
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(Some(metrics)) = self.webhooks.get(source) {
            metrics.duplicates((events.len() - new.len()) as u64);
        }
        let mut judged = Judged::default();
        for (_, place) in &new {
            // Each by itself: a list is one line, and would be too long.
            self.judge(source, session, &body[place.clone()], Step::Records, &mut judged);
        }
        let digests: Vec<[u8; 16]> = new.iter().map(|(digest, _)| *digest).collect();
        // While the store takes nothing the sender is told to come back, by its receiver. What was judged is stored all the same
        // once that is possible, and is known when it comes again.
        let stored = self.commit(None, &digests, &judged)?;
        let outcome = if stored { Outcome::Stored { events: events.len() as u64 } } else { Outcome::Busy };
        let _ = delivery.done.send(outcome);
        Ok(stored)
    }
}
