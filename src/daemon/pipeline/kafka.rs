//! Batches of Kafka messages, stored like all others or, with `exactly_once`, through a Kafka transaction.
//!
//! A Kafka transaction and the local store are two stores, and a crash may happen between them. So the output of a batch is
//! committed in two phases: it is prepared in the local store, then the Kafka transaction commits alerts and offsets, then the
//! local store applies what was prepared. After a crash, the group's offsets and their metadata say whether the transaction was
//! committed. If so, the prepared output is applied; otherwise it is discarded, and the messages are evaluated again by the
//! replica that has the partition then.

use std::time::Instant;

use super::output::BatchOutput;
use super::two_phase::Prepared;
use super::{Flow, Pipeline, RETRY_INTERVAL};
use crate::daemon::kafka::{PartitionOffset, TxnOutcome};
use crate::daemon::source::kafka::{Batch, KafkaBatchOutcome, Segment};
use crate::daemon::store;
use crate::daemon::time::unix_nanos;
use crate::detection::detector::Session;
use crate::detection::engine::alert::Alert;
use crate::detection::state::kind;

/// Number of bytes of lines that are evaluated before the size of their output is checked.
const MAX_LINES_BYTES: usize = 256 << 10;

/// Splits off whole lines of at most [`MAX_LINES_BYTES`], or one line that is longer.
fn split_lines(lines: &[u8]) -> (&[u8], &[u8]) {
    let Some(head) = lines.get(..MAX_LINES_BYTES) else { return (lines, &[]) };
    let end = memchr::memrchr(b'\n', head)
        .or_else(|| memchr::memchr(b'\n', &lines[MAX_LINES_BYTES..]).map(|at| at + MAX_LINES_BYTES))
        .map_or(lines.len(), |at| at + 1);
    lines.split_at(end)
}

impl Segment {
    fn bytes<'b>(&self, batch: &'b Batch) -> &'b [u8] {
        match self {
            Segment::Lines(range) | Segment::Message(range) | Segment::Match(_, _, range) => {
                batch.bytes.get(range.clone()).unwrap_or_default()
            }
        }
    }
}

impl Pipeline {
    /// Evaluates and stores a batch of messages.
    pub(super) fn process_kafka_batch(
        &mut self,
        source: usize,
        batch: Batch,
        session: &mut Session<'_>,
    ) -> Result<Flow, store::Error> {
        let mut output = BatchOutput::default();
        let started = Instant::now();
        session.set_now(unix_nanos());
        session.set_log(&self.sources.log(source));
        if !self.sync_assignment(session) {
            return Ok(Flow::Stop);
        }
        for segment in &batch.segments {
            if let &Segment::Match(partition, offset, _) = segment
                && session.repartition().is_some_and(|repartition| !repartition.is_ready(partition, offset))
                && !self.replay_partition(session, partition, offset)
            {
                return Ok(Flow::Stop);
            }
            let mut rest = segment.bytes(&batch);
            while !rest.is_empty() {
                let recurring_reads = &mut self.maintenance.recurring_reads;
                let on_alert = &mut |alert: &Alert<'_>| {
                    output.push_alert(alert);
                    recurring_reads.note(alert);
                };
                match segment {
                    Segment::Lines(_) => {
                        let (lines, after) = split_lines(rest);
                        session.chunk(lines, on_alert);
                        rest = after;
                    }
                    Segment::Message(_) => session.message(std::mem::take(&mut rest), on_alert),
                    Segment::Match(partition, offset, _) => {
                        session.on_remote_match(*partition, *offset, std::mem::take(&mut rest), on_alert);
                    }
                }
                // The state of the batch is stored with its positions, at the end.
                if output.is_full() && self.transactions.is_none() {
                    let alerts = output.take_alerts();
                    if !self.commit(None, &[], &alerts)? {
                        return Ok(Flow::Stop);
                    }
                    self.handles.status.heartbeat();
                }
            }
        }
        self.finish_evaluation(source, batch.bytes.len(), session, started, &mut output);
        let is_transactional = self.transactions.is_some();
        let flow = if is_transactional {
            let offsets = batch.positions.iter().map(|(topic, partition, position)| PartitionOffset {
                topic: topic.to_owned(),
                partition,
                next: position.next,
            });
            self.commit_exactly_once(output, offsets.collect(), Some(batch.epoch))?
        } else {
            output.push_changes(batch.changes());
            self.commit(None, &[], &output)?.into()
        };
        let outcome = match flow {
            Flow::Continue => {
                let latest_seq = self.store.latest_seq()?;
                KafkaBatchOutcome::Stored { latest_seq, is_committed: is_transactional, bytes: batch.bytes }
            }
            Flow::Restart => KafkaBatchOutcome::Retry,
            Flow::Stop => return Ok(Flow::Stop),
        };
        // The consumer may have ended.
        let _ = batch.done.send(outcome);
        Ok(flow)
    }

    /// Commits alerts and offsets in one Kafka transaction. The output is stored before it as prepared, and applied after it.
    pub(super) fn commit_exactly_once(
        &mut self,
        mut output: BatchOutput,
        offsets: Vec<PartitionOffset>,
        epoch: Option<u64>,
    ) -> Result<Flow, store::Error> {
        let prepared = Prepared {
            mark: format!("pullwatch {:x}", unix_nanos()),
            offsets,
            alerts: std::mem::take(&mut output.alerts),
            changes: std::mem::take(&mut output.changes),
        };
        let outbox = std::mem::take(&mut output.outbox);
        // Without alerts and changes, a crash loses nothing, and the two writes can be skipped.
        let needs_two_phases = !prepared.alerts.is_empty() || !prepared.changes.is_empty();
        if needs_two_phases {
            let entry = BatchOutput { changes: vec![prepared.to_change()], ..BatchOutput::default() };
            if !self.commit(None, &[], &entry)? {
                return Ok(Flow::Stop);
            }
        }
        let Some(transactions) = &mut self.transactions else { return Ok(Flow::Stop) };
        let outcome =
            transactions.transact(&prepared.alerts, &outbox, &prepared.offsets, &prepared.mark, epoch);
        let applied = match outcome {
            TxnOutcome::Committed => {
                output.changes = prepared.changes;
                output.alerts = prepared.alerts;
                output
            }
            TxnOutcome::Aborted => BatchOutput::default(),
            TxnOutcome::Unknown => return Ok(Flow::Stop),
        };
        if needs_two_phases && !self.resolve_prepared(applied)? {
            return Ok(Flow::Stop);
        }
        if outcome == TxnOutcome::Committed {
            return Ok(Flow::Continue);
        }
        // Do not retry in a tight loop, since the cause may persist.
        if !self.should_stop() {
            std::thread::sleep(RETRY_INTERVAL);
        }
        Ok(Flow::Restart)
    }

    /// Applies prepared output and removes the prepared entry, in one transaction.
    fn resolve_prepared(&mut self, mut output: BatchOutput) -> Result<bool, store::Error> {
        output.changes.push(Prepared::removal());
        self.commit(None, &[], &output)
    }

    /// Applies or discards output prepared by an earlier process. Returns false if a stop was requested before the outcome of its
    /// transaction was known.
    pub(super) fn recover_prepared(&mut self) -> Result<bool, store::Error> {
        for (_, value) in self.store.state(kind::PREPARED)? {
            let applied = match (Prepared::read(&value), &mut self.transactions) {
                // The configuration no longer uses transactions: a duplicate is better than a loss.
                (Some(prepared), None) => Some(prepared),
                (Some(prepared), Some(transactions)) => {
                    tracing::info!("checking whether the last transaction of the previous run was committed");
                    match transactions.outcome_of(&prepared.offsets, &prepared.mark) {
                        TxnOutcome::Committed => Some(prepared),
                        TxnOutcome::Aborted => None,
                        TxnOutcome::Unknown => return Ok(false),
                    }
                }
                (None, _) => {
                    tracing::error!(
                        "the prepared transaction cannot be read; its alerts are only in their topic"
                    );
                    None
                }
            };
            let output = applied.map_or_else(BatchOutput::default, |prepared| BatchOutput {
                alerts: prepared.alerts,
                changes: prepared.changes,
                ..BatchOutput::default()
            });
            if !self.resolve_prepared(output)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_at_their_ends() {
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let lines = line.repeat(600);
        let (first, rest) = split_lines(&lines);
        assert_eq!((first.len(), rest.len()), (262_000, 338_000));
        let (second, rest) = split_lines(rest);
        assert_eq!((second.len(), split_lines(rest)), (262_000, (&lines[..76_000], &[][..])));
        let long = [&vec![b'x'; MAX_LINES_BYTES][..], b"\n", &line].concat();
        assert_eq!(split_lines(&long), (&long[..=MAX_LINES_BYTES], &line[..]));
        assert_eq!(split_lines(&long[..MAX_LINES_BYTES]), (&long[..MAX_LINES_BYTES], &[][..]));
    }
}
