//! Processes a backlog with the help of a second core.
//!
//! While a file source is behind, the pipeline reads ahead, and a helper thread screens what was read: it finds records, removes wrappers
//! and picks the events that the ordered pass has to evaluate. The pipeline evaluates these in the order of the input, commits, and also
//! screens when it has nothing else to do. Both threads take the oldest buffer that is not taken yet.
//!
//! Reading ahead does not change positions: each buffer has the position after it, and the position of the last evaluated buffer is stored.
//! Data read beyond it is only in memory, and lost in a crash as if it had not been read. Memory is bounded by [`MAX_AHEAD`] bytes and one
//! record. One round ends after [`MAX_TIME`], to handle other sources and messages. By then, everything that was read is evaluated and
//! stored, so there is no thread, and nothing read ahead, while the pipeline is idle or rules change.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::output::BatchOutput;
use super::{MAX_BATCH_BYTES, Pipeline, last_event_age, log_incident};
use crate::daemon::source::follow::ReadStep;
use crate::daemon::store;
use crate::detection::detector::{Screened, Screening, Session};

/// Maximum number of bytes that are read but not evaluated.
const MAX_AHEAD: usize = MAX_BATCH_BYTES;

/// Duration of a round, after which the pipeline handles other sources and messages.
const MAX_TIME: Duration = Duration::from_millis(250);

/// Data from one read.
#[derive(Debug)]
struct Unscreened {
    number: u64,
    bytes: Vec<u8>,
    step: ReadStep,
    /// The position of the source after it.
    position: Vec<u8>,
}

/// A buffer after screening.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) bytes: Vec<u8>,
    pub(super) screened: Screened,
    /// Duration of the screening.
    pub(super) took: Duration,
    position: Vec<u8>,
}

/// State shared by the two threads.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Unscreened>,
    ready: BTreeMap<u64, Ready>,
    /// Nothing more will be read, or a thread panicked.
    is_over: bool,
}

#[derive(Debug, Default)]
struct SharedQueue {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl SharedQueue {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, unscreened: Unscreened) {
        self.lock().waiting.push_back(unscreened);
        self.changed.notify_all();
    }

    fn screen(&self, screening: &mut Screening<'_>, unscreened: Unscreened) {
        let started = Instant::now();
        let Unscreened { number, bytes, step, position } = unscreened;
        let screened = match step {
            ReadStep::Head => screening.head(&bytes),
            ReadStep::Records | ReadStep::Idle => screening.chunk(&bytes),
        };
        let ready = Ready { bytes, screened, took: started.elapsed(), position };
        self.lock().ready.insert(number, ready);
        self.changed.notify_all();
    }

    /// Screens until the round is over.
    fn help(&self, screening: &mut Screening<'_>) {
        let _end = EndGuard(self);
        let mut queue = self.lock();
        while !queue.is_over {
            match queue.waiting.pop_front() {
                Some(unscreened) => {
                    drop(queue);
                    self.screen(screening, unscreened);
                    queue = self.lock();
                }
                None => queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Waits for a buffer, and screens others until it is available. `None` if the helper panicked.
    fn take(&self, number: u64, screening: &mut Screening<'_>) -> Option<Ready> {
        let mut queue = self.lock();
        loop {
            if let Some(ready) = queue.ready.remove(&number) {
                return Some(ready);
            }
            if let Some(unscreened) = queue.waiting.pop_front() {
                drop(queue);
                self.screen(screening, unscreened);
                queue = self.lock();
            } else if queue.is_over {
                return None;
            } else {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Ends the other thread's wait, even if this thread panics.
struct EndGuard<'s>(&'s SharedQueue);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

/// The buffers that were read in one round and not evaluated yet.
#[derive(Debug, Default)]
struct ReadAhead {
    /// Number of the next buffer to read.
    read: u64,
    /// Number of the next buffer to evaluate.
    next: u64,
    bytes: usize,
    is_over: bool,
    is_drained: bool,
}

impl ReadAhead {
    fn is_empty(&self) -> bool {
        self.next == self.read
    }
}

/// Whether the machine has a second core.
pub(super) fn has_second_core() -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
}

impl Pipeline {
    /// Reads, evaluates and stores batches of a file source for one round, with a second thread. Returns false if a stop was requested
    /// before everything was stored.
    pub(super) fn catch_up(&mut self, index: usize, session: &mut Session<'_>) -> Result<bool, store::Error> {
        let detector = session.detector();
        let log = self.sources.log(index);
        let shared = SharedQueue::default();
        std::thread::scope(|scope| {
            let helper = std::thread::Builder::new().name("catch-up".to_owned());
            let mut screening = detector.screening(&log);
            // Without a helper, the pipeline does everything itself.
            let _ = helper.spawn_scoped(scope, || shared.help(&mut detector.screening(&log)));
            let _end = EndGuard(&shared);
            self.read_ahead(index, session, &shared, &mut screening)
        })
    }

    fn read_ahead(
        &mut self,
        index: usize,
        session: &mut Session<'_>,
        shared: &SharedQueue,
        screening: &mut Screening<'_>,
    ) -> Result<bool, store::Error> {
        let deadline = Instant::now() + MAX_TIME;
        let mut ahead = ReadAhead::default();
        let name = self.sources.name(index);
        loop {
            let mut output = BatchOutput::default();
            let (mut bytes, mut position, mut last) = (0, Vec::new(), Vec::new());
            while bytes < MAX_BATCH_BYTES && !output.is_full() {
                self.fill(index, shared, &mut ahead, deadline);
                if ahead.is_empty() {
                    break;
                }
                let Some(ready) = shared.take(ahead.next, screening) else { return Ok(false) };
                ahead.next += 1;
                ahead.bytes -= ready.bytes.len();
                bytes += ready.bytes.len();
                self.evaluate_screened(index, session, &ready, &mut output);
                (position, last) = (ready.position, ready.bytes);
            }
            self.fill(index, shared, &mut ahead, deadline);
            self.handles.status.heartbeat();
            if bytes > 0 && !self.commit(Some((&name, &position)), &[], &output)? {
                return Ok(false);
            }
            self.report_progress(index, ahead.bytes as u64, &last);
            if bytes == 0 {
                break;
            }
        }
        tracing::debug!(source = name, buffers = ahead.read, "caught up with a second thread");
        let source = &mut self.sources.files[index];
        if ahead.is_drained {
            source.next_poll = Instant::now() + source.poll_interval;
        }
        source.is_behind = !ahead.is_drained;
        Ok(ahead.read > 0)
    }

    /// Reads until enough buffers wait for evaluation.
    fn fill(&mut self, index: usize, shared: &SharedQueue, ahead: &mut ReadAhead, deadline: Instant) {
        ahead.is_over |= Instant::now() >= deadline || self.should_stop();
        while !ahead.is_over && ahead.bytes < MAX_AHEAD {
            let mut bytes = Vec::new();
            let files = &mut self.sources.files[index].files;
            let step = files.next(&mut bytes);
            if step == ReadStep::Idle {
                (ahead.is_over, ahead.is_drained) = (true, true);
                return;
            }
            ahead.bytes += bytes.len();
            let number = ahead.read;
            ahead.read += 1;
            shared.push(Unscreened { number, bytes, step, position: files.position() });
        }
    }

    /// Reports problems of a source and its lag, with the given number of bytes read but not evaluated.
    pub(super) fn report_progress(&mut self, index: usize, ahead: u64, last: &[u8]) -> u64 {
        let source = &mut self.sources.files[index];
        for incident in source.files.take_incidents() {
            log_incident(&source.name, &incident);
            self.handles.metrics.source_error(&source.name);
        }
        let lag = source.files.lag() + ahead;
        let age = if lag == 0 { Duration::ZERO } else { last_event_age(last) };
        self.handles.metrics.set_lag(&source.name, lag, age);
        lag
    }
}
