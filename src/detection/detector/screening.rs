//! Screening: the parallel pass ahead of a session, on any thread.
//!
//! It takes a buffer of records and returns the events in it that the session has to evaluate: those that depend on order, and those that
//! match a rule. [`Session::screened`] evaluates them in input order. Together they do what [`Session::chunk`] does.

use std::ops::Range;

use super::{DeferredEvent, Detector, LogContext, OnAlert, Output, ParallelPass, Session, Stats};
use crate::detection::audit::event::Event;
use crate::detection::audit::origin::{Records, Unwrapped, last_time};

/// Screens buffers in any order. The rules must not [need positions](Detector::needs_positions).
#[derive(Debug)]
pub struct Screening<'d> {
    pass: ParallelPass<'d>,
}

/// The part of a buffer that remains to be evaluated.
#[derive(Debug)]
pub struct Screened {
    unwrapped: Option<Unwrapped>,
    /// Events, by their range in the records.
    deferred: Vec<(Range<usize>, DeferredEvent)>,
    /// The time of the last event.
    last_time: Option<i64>,
    stats: Stats,
}

impl Detector {
    /// Starts screening records of this log.
    pub fn screening(&self, log: &LogContext) -> Screening<'_> {
        let mut pass = self.parallel_pass();
        pass.defer_matches();
        pass.set_log(log);
        Screening { pass }
    }
}

impl Screening<'_> {
    /// Screens a buffer that starts and ends at record boundaries.
    pub fn chunk(&mut self, bytes: &[u8]) -> Screened {
        let unwrapped = self.pass.unwrap(bytes);
        let records = Records::new(unwrapped.as_ref(), bytes);
        let mut deferred = Vec::new();
        self.pass.chunk(records, &mut |found| defer(found, records.bytes, &mut deferred));
        let last_time = last_time(records.bytes);
        self.finish(unwrapped, deferred, last_time)
    }

    /// Screens the first bytes of a record that is longer than the limit.
    pub fn head(&mut self, head: &[u8]) -> Screened {
        let unwrapped = self.pass.unwrap_head(head);
        let records = Records::new(unwrapped.as_ref(), head);
        let mut deferred = Vec::new();
        self.pass.head(records, &mut |found| defer(found, records.bytes, &mut deferred));
        self.finish(unwrapped, deferred, None)
    }

    fn finish(
        &mut self,
        unwrapped: Option<Unwrapped>,
        deferred: Vec<(Range<usize>, DeferredEvent)>,
        last_time: Option<i64>,
    ) -> Screened {
        Screened { unwrapped, deferred, last_time, stats: self.pass.take_stats() }
    }
}

fn defer(found: Output<'_, '_>, records: &[u8], deferred: &mut Vec<(Range<usize>, DeferredEvent)>) {
    match found {
        Output::Deferred(event, what) => {
            // An event is a part of the text.
            let start = event.bytes().as_ptr().addr() - records.as_ptr().addr();
            deferred.push((start..start + event.bytes().len(), what));
        }
        Output::Alert(_) => debug_assert!(false, "all matches are deferred"),
    }
}

impl<'d> Session<'d> {
    /// The detector, which outlives the session.
    pub fn detector(&self) -> &'d Detector {
        self.parallel.detector()
    }

    /// Evaluates the events that screening selected from these bytes.
    pub fn screened(&mut self, screened: &Screened, bytes: &[u8], on_alert: OnAlert<'_>) {
        let log = self.log.clone();
        let records = Records::new(screened.unwrapped.as_ref(), bytes).with_cluster(log.cluster());
        let mut cache = self.ordered.cache();
        for (range, deferred) in &screened.deferred {
            let mut event = Event::new(&records.bytes[range.clone()]);
            event.set_origin(records.origin_at(range.start));
            self.ordered.evaluate(&mut cache, &mut event, *deferred, on_alert);
        }
        self.ordered.set_previous_time(screened.last_time);
        self.parallel.add_stats(&screened.stats);
    }
}
