//! Messages out of Kafka: judged and stored as all else, or, exactly once, through a transaction of Kafka.
//!
//! With a transaction there are two stores, and a kill may come between them. So what a batch comes to (alerts, what was learned)
//! is prepared in the local store first, then the transaction puts the alerts into their topic and the offsets into the group,
//! and then the local store takes what was prepared. After a kill the group's offsets say whether the transaction went through:
//! then what was prepared is taken, or else it is dropped, and whoever has the partition now judges its messages.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::two_phase::Prepared;
use super::{Judged, Next, Pipeline, TRY_AGAIN, now};
use crate::daemon::kafka::{PartitionOffset, TxnOutcome};
use crate::daemon::source::kafka::{Batch, Outcome, Segment};
use crate::daemon::store;
use crate::detection::detector::Session;
use crate::detection::engine::alert::Alert;
use crate::detection::state::kind;

impl Pipeline {
    /// Judges and stores messages.
    pub(super) fn consume(
        &mut self,
        source: usize,
        batch: Batch,
        session: &mut Session<'_>,
    ) -> Result<Next, store::Error> {
        let mut judged = Judged::default();
        let started = Instant::now();
        session.set_now(now());
        if !self.align(session) {
            return Ok(Next::Stop);
        }
        for run in &batch.segments {
            if let &Segment::Match(partition, offset, _) = run
                && session.repartition().is_some_and(|exchange| !exchange.is_ready(partition, offset))
                && !self.recall(session, partition, offset)
            {
                return Ok(Next::Stop);
            }
            let habits = &mut self.mind.habits;
            let on_alert = &mut |alert: &Alert<'_>| {
                judged.take(alert);
                habits.note(alert);
            };
            match run {
                Segment::Lines(place) => session.chunk(&batch.bytes[place.clone()], on_alert),
                Segment::Message(place) => session.message(&batch.bytes[place.clone()], on_alert),
                Segment::Match(partition, offset, place) => {
                    session.on_remote_match(*partition, *offset, &batch.bytes[place.clone()], on_alert);
                }
            }
        }
        self.judged(&self.name(source), batch.bytes.len(), session, started, &mut judged);
        let is_transactional = self.transactions.is_some();
        let next = if is_transactional {
            let offsets = batch.positions.iter().map(|(topic, partition, position)| PartitionOffset {
                topic: topic.to_owned(),
                partition,
                next: position.next,
            });
            self.exactly_once(judged, offsets.collect(), Some(batch.epoch))?
        } else {
            judged.changes.extend(batch.changes());
            self.commit(None, &[], &judged)?.into()
        };
        let outcome = match next {
            Next::Go => {
                let newest = self.store.newest()?;
                Outcome::Stored { latest_seq: newest, is_committed: is_transactional, bytes: batch.bytes }
            }
            Next::Restart => Outcome::Retry,
            Next::Stop => return Ok(Next::Stop),
        };
        // Whoever reads may have ended.
        let _ = batch.done.send(outcome);
        Ok(next)
    }

    /// Puts alerts into their topic and offsets into the group in one transaction, and stores both before and after.
    pub(super) fn exactly_once(
        &mut self,
        mut judged: Judged,
        offsets: Vec<PartitionOffset>,
        epoch: Option<u64>,
    ) -> Result<Next, store::Error> {
        let prepared = Prepared {
            mark: format!("pullwatch {:x}", now()),
            offsets,
            alerts: std::mem::take(&mut judged.alerts),
            changes: std::mem::take(&mut judged.changes),
        };
        // Where nothing was found and nothing learned, nothing can be lost.
        let outbox = std::mem::take(&mut judged.outbox);
        let is_worth_it = !prepared.alerts.is_empty() || !prepared.changes.is_empty();
        if is_worth_it {
            let before = Judged { changes: vec![prepared.entry()], ..Judged::default() };
            if !self.commit(None, &[], &before)? {
                return Ok(Next::Stop);
            }
        }
        let Some(transactions) = &mut self.transactions else { return Ok(Next::Stop) };
        let went = transactions.transact(&prepared.alerts, &outbox, &prepared.offsets, &prepared.mark, epoch);
        let after = match went {
            TxnOutcome::Committed => {
                judged.changes = prepared.changes;
                judged.alerts = prepared.alerts;
                judged
            }
            TxnOutcome::Aborted => Judged::default(),
            TxnOutcome::Unknown => return Ok(Next::Stop),
        };
        if is_worth_it && !self.finish(after)? {
            return Ok(Next::Stop);
        }
        if went == TxnOutcome::Committed {
            return Ok(Next::Go);
        }
        // What made it fail may take a moment.
        if !self.should_stop.load(Ordering::Acquire) {
            std::thread::sleep(TRY_AGAIN);
        }
        Ok(Next::Restart)
    }

    /// Stores what was prepared, or nothing of it, and that nothing is prepared any more.
    fn finish(&mut self, mut judged: Judged) -> Result<bool, store::Error> {
        judged.changes.push(Prepared::gone());
        self.commit(None, &[], &judged)
    }

    /// Takes what was prepared before a kill, or drops it. False where it is to stop before that is known.
    pub(super) fn recover(&mut self) -> Result<bool, store::Error> {
        for (_, value) in self.store.state(kind::PREPARED)? {
            let went = match (Prepared::read(&value), &mut self.transactions) {
                // Twice is better than never.
                (Some(prepared), None) => Some(prepared),
                (Some(prepared), Some(transactions)) => {
                    tracing::info!("looking whether the last transaction before the stop went through");
                    match transactions.outcome_of(&prepared.offsets, &prepared.mark) {
                        TxnOutcome::Committed => Some(prepared),
                        TxnOutcome::Aborted => None,
                        TxnOutcome::Unknown => return Ok(false),
                    }
                }
                (None, _) => {
                    tracing::error!(
                        "what a transaction prepared cannot be read; its alerts are in their topic only"
                    );
                    None
                }
            };
            let judged = went.map_or_else(Judged::default, |prepared| Judged {
                alerts: prepared.alerts,
                changes: prepared.changes,
                ..Judged::default()
            });
            if !self.finish(judged)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
