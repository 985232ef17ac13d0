//! A scan on several threads.
//!
//! Each thread takes whatever step is due: print the next chunk in input order, else evaluate a chunk that was read, else read the next
//! chunk of an input. So no thread is idle while another one has work queued, and the steps that cannot be shared (one input is read by one
//! thread at a time, deferred events are evaluated in order) only limit the speed if they take longer than everything else. Inputs behind
//! the current one are read ahead, so that several compressed files are decompressed at once.
//!
//! Memory is bounded by the number of chunks that are read but not evaluated, by the size of results that are not printed yet, and by one
//! record of `--max-event-size` for each input that is being read. The output is a function of the input: how inputs are cut into chunks
//! does not depend on the threads, and chunks are printed in order.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Scan;
use super::print::{Style, print_alert};
use super::reading::{ChunkOrigin, InputReader, ReadSummary};
use super::result::Report;
use super::screen::Screen;
use super::tally::Tally;
use crate::daemon::source::chunker::{Buffer, Chunk, long_record_budget};
use crate::daemon::source::input::Input;
use crate::daemon::source::memory_budget::MemoryBudget;
use crate::detection::audit::event::Event;
use crate::detection::audit::origin::{Records, Unwrapped, last_time};
use crate::detection::detector::{DeferredEvent, Detector, LogContext, OrderedPass, Output, ParallelPass};

/// Maximum number of chunks per thread that are being read, waiting for evaluation or being evaluated.
const CHUNKS_PER_THREAD: usize = 3;

/// Maximum size of results that are not printed yet, in bytes: of the current input, and of the inputs after it.
const MAX_WAITING: usize = 32 << 20;

/// Maximum number of inputs that are read at once. Each may hold a record of `--max-event-size`.
const MAX_OPEN_INPUTS: usize = 4;

/// Scans all inputs on several threads.
///
/// # Errors
/// If alerts cannot be written, or a thread panicked.
pub(super) fn run(
    scan: &Scan,
    detector: &Detector,
    inputs: &[Input],
    read: &Arc<AtomicU64>,
    screen: &mut Screen,
    report: &mut Report,
    threads: usize,
) -> io::Result<()> {
    let style = (scan.format, screen.color);
    let log = Arc::new(scan.log());
    let scheduler = Scheduler {
        log: log.clone(),
        steps: Mutex::new(Steps::new(scan.max_event_size, inputs, read, threads)),
        changed: Condvar::new(),
        reads_stdin: inputs.contains(&Input::Stdin),
        printer: Mutex::new(Printer {
            ordered: detector.ordered_pass(),
            log,
            input: None,
            screen,
            style,
            tally: Tally::default(),
            reading: ReadSummary::default(),
            out: Vec::new(),
        }),
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| scheduler.work(detector, style))).collect();
        for worker in workers {
            // The panic's own message was already printed.
            let tally = worker.join().map_err(|_| panicked())?;
            report.tally.add(tally);
        }
        Ok::<(), io::Error>(())
    })?;
    let Printer { ordered, screen, mut tally, reading, mut out, .. } =
        scheduler.printer.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut result = scheduler.steps.into_inner().unwrap_or_else(PoisonError::into_inner).result;
    if result.is_ok() {
        out.clear();
        let mut ordered = ordered;
        let counts = ordered.finish(&mut |alert| print_alert(alert, style, &mut tally, &mut out));
        tally.counts.add(&counts);
        result = screen.write(&out);
    }
    report.tally.add(tally);
    report.add(reading);
    result
}

/// A bug: no input may cause a panic.
fn panicked() -> io::Error {
    io::Error::other("a thread panicked: not all events were evaluated. Please report this as a bug")
}

/// Hands out steps to threads.
struct Scheduler<'s, 'd, 'i> {
    steps: Mutex<Steps<'i>>,
    /// Notified when a step may have become due, and when there are none left.
    changed: Condvar,
    /// Held by one thread at a time: see [`Steps::is_printing`].
    printer: Mutex<Printer<'s, 'd>>,
    reads_stdin: bool,
    log: Arc<LogContext>,
}

/// A step of the scan.
enum Step<'i> {
    Print(Printable<'i>),
    Evaluate(ReadChunk),
    Read(usize, Box<OpenInput<'i>>, Buffer),
}

/// The next position in the order of the input.
enum Printable<'i> {
    Chunk(Box<EvaluatedChunk>),
    /// An input that was read to its end.
    End(Box<OpenInput<'i>>),
}

/// The position of a chunk: its input, and its number in it.
type Place = (usize, u64);

struct ReadChunk {
    place: Place,
    part: ChunkOrigin,
    buffer: Buffer,
}

/// A chunk after the parallel pass.
struct EvaluatedChunk {
    part: ChunkOrigin,
    /// Formatted alerts.
    alerts: Vec<u8>,
    deferred: Vec<DeferredRecord>,
    /// The unwrapped chunk, if it has wrappers and contains deferred events.
    unwrapped: Option<Unwrapped>,
    /// Otherwise the text of deferred events.
    records: Vec<u8>,
    /// Otherwise the chunk itself, if it contains a long record: its share of the input's budget is only released when it was printed.
    long: Option<Buffer>,
    /// The time of the last event.
    last_time: Option<i64>,
}

impl EvaluatedChunk {
    fn size(&self) -> usize {
        self.alerts.capacity()
            + self.records.capacity()
            + self.unwrapped.as_ref().map_or(0, |unwrapped| unwrapped.bytes().len())
            + self.long.as_ref().map_or(0, |long| long.bytes().len())
            + self.deferred.capacity() * size_of::<DeferredRecord>()
            + size_of::<Self>()
    }
}

/// An event for the ordered pass.
struct DeferredRecord {
    /// Length of the alerts that precede it, in bytes.
    after: usize,
    /// Range of the event in the record bytes that the chunk retains.
    range: Range<usize>,
    deferred: DeferredEvent,
}

/// One input while it is being read.
struct OpenInput<'i> {
    reader: InputReader<'i>,
    chunks: u64,
}

/// How far an input was read.
enum Progress<'i> {
    Unopened(Box<OpenInput<'i>>),
    Idle(Box<OpenInput<'i>>),
    /// A thread is reading from it.
    Busy,
    /// Number of its chunks, once it was read completely.
    Ended(u64, Box<OpenInput<'i>>),
    Printed,
}

/// Steps that are due, and steps in progress.
struct Steps<'i> {
    inputs: Vec<Progress<'i>>,
    /// Limits the memory for long records of each input.
    budgets: Vec<MemoryBudget>,
    /// Size of results that are not printed yet, in bytes: of each input, and in total.
    waiting: Vec<usize>,
    all_waiting: usize,
    to_evaluate: VecDeque<ReadChunk>,
    evaluated: BTreeMap<Place, EvaluatedChunk>,
    /// The next result to print.
    next: Place,
    /// A thread is printing.
    is_printing: bool,
    free: Vec<Buffer>,
    /// Number of chunks that are being read, waiting for evaluation or being evaluated.
    in_flight: usize,
    max_in_flight: usize,
    max_open: usize,
    /// There is nothing left to do, or nothing more can be done.
    is_over: bool,
    result: io::Result<()>,
}

impl<'i> Steps<'i> {
    fn new(max_event_size: usize, inputs: &'i [Input], read: &Arc<AtomicU64>, threads: usize) -> Self {
        let unopened = |(number, input)| {
            Progress::Unopened(Box::new(OpenInput {
                reader: InputReader::new(number, input, max_event_size, read.clone()),
                chunks: 0,
            }))
        };
        Steps {
            inputs: inputs.iter().enumerate().map(unopened).collect(),
            budgets: inputs.iter().map(|_| long_record_budget(max_event_size)).collect(),
            waiting: vec![0; inputs.len()],
            all_waiting: 0,
            to_evaluate: VecDeque::new(),
            evaluated: BTreeMap::new(),
            next: (0, 0),
            is_printing: false,
            free: Vec::new(),
            in_flight: 0,
            max_in_flight: threads * CHUNKS_PER_THREAD,
            max_open: threads.min(MAX_OPEN_INPUTS),
            is_over: inputs.is_empty(),
            result: Ok(()),
        }
    }

    /// Takes the step that is due, if there is one.
    ///
    /// Printing comes first and reading last, so that a thread that waits in a reader (for input or for memory) does not delay work that
    /// others wait for.
    fn take(&mut self) -> Option<Step<'i>> {
        if let Some(printable) = self.take_printable() {
            return Some(Step::Print(printable));
        }
        if let Some(chunk) = self.to_evaluate.pop_front() {
            return Some(Step::Evaluate(chunk));
        }
        self.take_input()
    }

    fn take_printable(&mut self) -> Option<Printable<'i>> {
        if self.is_printing {
            return None;
        }
        let (input, number) = self.next;
        let printable = match self.evaluated.remove(&self.next) {
            Some(chunk) => {
                self.next.1 += 1;
                self.waiting[input] -= chunk.size();
                self.all_waiting -= chunk.size();
                Printable::Chunk(Box::new(chunk))
            }
            None => {
                let progress = self.inputs.get_mut(input)?;
                if !matches!(progress, Progress::Ended(chunks, _) if *chunks == number) {
                    return None;
                }
                let Progress::Ended(_, ended) = std::mem::replace(progress, Progress::Printed) else {
                    return None;
                };
                self.next = (input + 1, 0);
                Printable::End(ended)
            }
        };
        self.is_printing = true;
        Some(printable)
    }

    fn take_input(&mut self) -> Option<Step<'i>> {
        let current = self.next.0;
        let mut open = 0;
        for at in current..self.inputs.len() {
            let (waiting, reserved) = if at == current {
                (self.waiting[at], 0)
            } else {
                // One chunk is reserved for the current input.
                (self.all_waiting - self.waiting[current], 1)
            };
            if waiting >= MAX_WAITING
                || self.in_flight + reserved >= self.max_in_flight
                || open >= self.max_open
            {
                return None;
            }
            let progress = &mut self.inputs[at];
            if matches!(progress, Progress::Unopened(_) | Progress::Idle(_))
                && let Progress::Unopened(input) | Progress::Idle(input) =
                    std::mem::replace(progress, Progress::Busy)
            {
                self.in_flight += 1;
                let mut buffer = self.free.pop().unwrap_or_default();
                buffer.share(&self.budgets[at]);
                return Some(Step::Read(at, input, buffer));
            }
            open += usize::from(matches!(progress, Progress::Busy));
        }
        None
    }

    fn reuse(&mut self, mut buffer: Buffer) {
        buffer.clear();
        self.free.push(buffer);
        self.in_flight -= 1;
    }

    fn stop(&mut self, result: io::Result<()>) {
        self.is_over = true;
        self.result = result;
        // Threads that wait for memory will not get it from threads that have stopped.
        self.budgets.iter().for_each(MemoryBudget::close);
    }
}

impl<'i> Scheduler<'_, '_, 'i> {
    fn steps(&self) -> MutexGuard<'_, Steps<'i>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes steps until none is left; returns the counts.
    fn work(&self, detector: &Detector, style: Style) -> Tally {
        let _guard = StopOnPanic(self);
        let mut pass = detector.parallel_pass();
        pass.set_log(&self.log);
        let mut tally = Tally::default();
        let mut steps = self.steps();
        loop {
            if steps.is_over {
                return tally;
            }
            let Some(step) = steps.take() else {
                steps = self.changed.wait(steps).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(steps);
            steps = match step {
                Step::Print(printable) => self.print(printable),
                Step::Evaluate(chunk) => self.evaluate(chunk, &mut pass, style, &mut tally),
                Step::Read(at, input, buffer) => self.read(at, input, buffer),
            };
            self.changed.notify_all();
        }
    }

    fn read(
        &self,
        at: usize,
        mut input: Box<OpenInput<'i>>,
        mut buffer: Buffer,
    ) -> MutexGuard<'_, Steps<'i>> {
        let part = input.reader.next(&mut buffer);
        let mut steps = self.steps();
        match part {
            Some(part) => {
                steps.to_evaluate.push_back(ReadChunk { place: (at, input.chunks), part, buffer });
                input.chunks += 1;
                steps.inputs[at] = Progress::Idle(input);
            }
            None => {
                steps.inputs[at] = Progress::Ended(input.chunks, input);
                steps.reuse(buffer);
            }
        }
        steps
    }

    fn evaluate(
        &self,
        chunk: ReadChunk,
        pass: &mut ParallelPass<'_>,
        style: Style,
        tally: &mut Tally,
    ) -> MutexGuard<'_, Steps<'i>> {
        let ReadChunk { place, part, mut buffer } = chunk;
        let mut evaluated = evaluate(pass, &self.log, part, &buffer, style, tally);
        if buffer.is_long() && !evaluated.deferred.is_empty() {
            evaluated.long = Some(std::mem::take(&mut buffer));
        }
        let mut steps = self.steps();
        steps.waiting[place.0] += evaluated.size();
        steps.all_waiting += evaluated.size();
        steps.evaluated.insert(place, evaluated);
        steps.reuse(buffer);
        steps
    }

    fn print(&self, printable: Printable<'i>) -> MutexGuard<'_, Steps<'i>> {
        // No other thread holds it.
        let mut printer = self.printer.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match printable {
            Printable::Chunk(chunk) => printer.chunk(&chunk),
            Printable::End(input) => {
                printer.reading.add(&input.reader);
                Ok(())
            }
        };
        let is_closed = matches!(&result, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
        if is_closed && self.reads_stdin {
            // A thread may be blocked on standard input, and nothing can interrupt it.
            printer.screen.bar.finish_and_clear();
            std::process::exit(0);
        }
        drop(printer);
        let mut steps = self.steps();
        steps.is_printing = false;
        if let Err(error) = result {
            steps.stop(Err(error));
        } else if steps.next.0 == steps.inputs.len() {
            steps.stop(Ok(()));
        }
        steps
    }
}

/// Ends the scan when a thread panics, since the others would wait for the step that it had taken.
struct StopOnPanic<'s, 'a, 'd, 'i>(&'s Scheduler<'a, 'd, 'i>);

impl Drop for StopOnPanic<'_, '_, '_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.steps().stop(Err(panicked()));
            self.0.changed.notify_all();
        }
    }
}

fn evaluate(
    pass: &mut ParallelPass<'_>,
    log: &LogContext,
    part: ChunkOrigin,
    buffer: &Buffer,
    style: Style,
    tally: &mut Tally,
) -> EvaluatedChunk {
    let bytes = buffer.bytes();
    pass.set_columns(part.columns.as_ref());
    let unwrapped = match part.kind {
        Chunk::Records => pass.unwrap(bytes),
        Chunk::Head => pass.unwrap_head(bytes),
    };
    let records = Records::new(unwrapped.as_ref(), bytes).with_cluster(log.cluster());
    let is_kept = unwrapped.is_some() || buffer.is_long();
    let (mut alerts, mut deferred_records, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    let mut on_output = |item: Output<'_, '_>| match item {
        Output::Alert(alert) => print_alert(alert, style, tally, &mut alerts),
        Output::Deferred(event, deferred) => {
            let text = event.bytes();
            let start = if is_kept {
                // An event is a part of the text.
                text.as_ptr().addr() - records.bytes.as_ptr().addr()
            } else {
                copies.extend_from_slice(text);
                copies.len() - text.len()
            };
            let range = start..start + text.len();
            deferred_records.push(DeferredRecord { after: alerts.len(), range, deferred });
        }
    };
    match part.kind {
        Chunk::Records => pass.chunk(records, &mut on_output),
        Chunk::Head => pass.head(records, &mut on_output),
    }
    let last_time = last_time(records.bytes);
    tally.counts.add(&pass.take_stats());
    EvaluatedChunk {
        part,
        alerts,
        unwrapped: unwrapped.filter(|_| !deferred_records.is_empty()),
        deferred: deferred_records,
        records: copies,
        long: None,
        last_time,
    }
}

/// Runs the ordered pass and prints alerts, in the order of the input.
struct Printer<'s, 'd> {
    ordered: OrderedPass<'d>,
    log: Arc<LogContext>,
    /// Index of the input that was printed last.
    input: Option<usize>,
    screen: &'s mut Screen,
    style: Style,
    tally: Tally,
    reading: ReadSummary,
    out: Vec<u8>,
}

impl Printer<'_, '_> {
    fn chunk(&mut self, chunk: &EvaluatedChunk) -> io::Result<()> {
        let Printer { ordered, log, screen, style, tally, out, .. } = self;
        if self.input != Some(chunk.part.input) {
            self.input = Some(chunk.part.input);
            ordered.begin_log();
            ordered.set_received(chunk.part.received);
        }
        out.clear();
        let mut printed = 0;
        let mut cache = ordered.cache();
        let kept = chunk.long.as_ref().map_or(&*chunk.records, Buffer::bytes);
        let records = Records::new(chunk.unwrapped.as_ref(), kept).with_cluster(log.cluster());
        for record in &chunk.deferred {
            out.extend_from_slice(&chunk.alerts[printed..record.after]);
            printed = record.after;
            let mut event = Event::new(&records.bytes[record.range.clone()]);
            event.set_origin(records.origin_at(record.range.start));
            ordered.evaluate(&mut cache, &mut event, record.deferred, &mut |alert| {
                print_alert(alert, *style, tally, out);
            });
        }
        out.extend_from_slice(&chunk.alerts[printed..]);
        ordered.set_previous_time(chunk.last_time);
        screen.write(out)
    }
}
