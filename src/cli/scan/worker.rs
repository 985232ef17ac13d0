//! The loop of a scan: read, evaluate, print, on one thread or several.
//!
//! With several threads, one reads and splits the input into chunks, several run the parallel pass, and the calling thread runs the
//! ordered pass and prints alerts in input order. The number of buffers is fixed and they are reused, so that a slow consumer blocks the
//! reader instead of growing memory.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::tally::Tally;
use super::{Format, Scan, text};
use crate::daemon::source::chunker::{Buffer, Chunk, Chunks, long_record_budget};
use crate::daemon::source::decompress;
use crate::daemon::source::input::Input;
use crate::detection::audit::event::Event;
use crate::detection::audit::origin::{Records, Unwrapped, last_time};
use crate::detection::detector::{DeferredEvent, Detector, LogContext, Output, ParallelPass};
use crate::detection::engine::alert::Alert;

/// The result of a scan.
#[derive(Debug, Default)]
pub struct Report {
    pub tally: Tally,
    /// Inputs that could not be read completely, each with the reason.
    pub failures: Vec<String>,
    /// Names of empty inputs.
    pub empty: Vec<String>,
    /// The reader of standard output closed the pipe; the rest of the input was not read.
    pub pipe_closed: bool,
}

/// Scans all inputs and prints alerts.
///
/// # Errors
/// If alerts cannot be written, except for a closed pipe.
pub fn run(scan: &Scan, detector: &Detector, inputs: &[Input]) -> anyhow::Result<Report> {
    let read = Arc::new(AtomicU64::new(0));
    let mut screen = Screen::new(inputs, read.clone());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if detector.needs_positions() { 1 } else { scan.threads.unwrap_or(cores).clamp(1, 256) };
    let mut report = Report::default();
    let result = if threads == 1 {
        one_thread(scan, detector, inputs, &read, &mut screen, &mut report)
    } else {
        many_threads(scan, detector, inputs, &read, &mut screen, &mut report, threads)
    };
    screen.bar.finish_and_clear();
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => report.pipe_closed = true,
        other => other?,
    }
    Ok(report)
}

/// Standard output, and a progress bar that does not interleave with it.
pub struct Screen {
    pub bar: ProgressBar,
    started: Instant,
    read: Arc<AtomicU64>,
    visible: bool,
    shares_terminal: bool,
    color: bool,
}

/// The progress bar appears after this time.
const PROGRESS_DELAY: Duration = Duration::from_millis(500);

impl Screen {
    /// `read` counts the compressed bytes read so far.
    pub fn new(inputs: &[Input], read: Arc<AtomicU64>) -> Self {
        let size = |input: &Input| match input {
            Input::File(path) => std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
            Input::Stdin => 0,
        };
        let total: u64 = inputs.iter().map(size).sum();
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")
        {
            bar.set_style(style);
        }
        Screen {
            bar,
            started: Instant::now(),
            read,
            visible: false,
            shares_terminal: io::stdout().is_terminal(),
            color: anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
        }
    }

    /// Updates the progress bar, and shows it once [`PROGRESS_DELAY`] has passed.
    pub fn progress(&mut self) {
        if !self.visible && self.started.elapsed() > PROGRESS_DELAY && io::stderr().is_terminal() {
            self.visible = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
        if self.visible {
            self.bar.set_position(self.read.load(Ordering::Relaxed));
        }
    }

    fn write(&mut self, alerts: &[u8]) -> io::Result<()> {
        self.progress();
        if alerts.is_empty() {
            return Ok(());
        }
        let write = || {
            let mut out = io::stdout().lock();
            out.write_all(alerts)?;
            out.flush()
        };
        if self.visible && self.shares_terminal { self.bar.suspend(write) } else { write() }
    }
}

/// Output format, and whether to use color.
type Style = (Format, bool);

fn print_alert(alert: &Alert<'_>, style: Style, tally: &mut Tally, out: &mut Vec<u8>) {
    tally.alert(alert);
    match style {
        (Format::Json, _) => {
            alert.write_json(out);
            out.push(b'\n');
        }
        (Format::Text, color) => text::write(alert, color, out),
    }
}

/// The result of reading all inputs.
#[derive(Debug, Default)]
pub struct Reading {
    /// Uncompressed bytes.
    pub bytes: u64,
    /// Inputs that could not be read completely, each with the reason.
    pub failures: Vec<String>,
    /// Names of empty inputs.
    pub empty: Vec<String>,
}

/// Where a chunk comes from.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Index of the input.
    pub input: usize,
    /// When the input was written to last, in nanoseconds since 1970; of standard input, now.
    pub received: Option<i64>,
    pub kind: Chunk,
}

/// When an input was written to last.
fn received(input: &Input) -> Option<i64> {
    let modified = match input {
        Input::File(path) => std::fs::metadata(path).ok()?.modified().ok()?,
        Input::Stdin => SystemTime::now(),
    };
    let age = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(age.as_nanos()).ok()
}

/// Reads all inputs and passes each chunk to `take`, which returns the buffer for the next chunk, or `None` to stop early.
pub fn read_all(
    max_event_size: usize,
    inputs: &[Input],
    read: &Arc<AtomicU64>,
    mut buffer: Buffer,
    mut take: impl FnMut(Part, Buffer) -> Option<Buffer>,
) -> Reading {
    let mut reading = Reading::default();
    for (number, input) in inputs.iter().enumerate() {
        let mut fail = |error: &io::Error| {
            let failure = format!("{}: {error}", input.name());
            super::report_failure(&failure);
            reading.failures.push(failure);
        };
        tracing::info!(input = %super::super::visible(&input.name()), "reading");
        let reader = match decompress::open(input, read.clone()) {
            Ok(reader) => reader,
            Err(error) => {
                fail(&error);
                continue;
            }
        };
        let mut chunks = Chunks::new(reader, max_event_size, *input == Input::Stdin);
        let received = received(input);
        loop {
            match chunks.next(&mut buffer) {
                Ok(Some(kind)) => match take(Part { input: number, received, kind }, buffer) {
                    Some(next) => buffer = next,
                    None => {
                        reading.bytes += chunks.bytes();
                        return reading;
                    }
                },
                Ok(None) => {
                    if chunks.bytes() == 0 {
                        reading.empty.push(input.name());
                    }
                    break;
                }
                Err(error) => {
                    fail(&error);
                    break;
                }
            }
        }
        if chunks.dropped() > 0 {
            let input = super::super::visible(&input.name());
            tracing::warn!(
                input,
                bytes = chunks.dropped(),
                "skipped the rest of split lines longer than --max-event-size"
            );
        }
        reading.bytes += chunks.bytes();
    }
    reading
}

impl Report {
    fn add(&mut self, reading: Reading) {
        self.tally.bytes += reading.bytes;
        self.failures.extend(reading.failures);
        self.empty.extend(reading.empty);
    }
}

fn one_thread(
    scan: &Scan,
    detector: &Detector,
    inputs: &[Input],
    read: &Arc<AtomicU64>,
    screen: &mut Screen,
    report: &mut Report,
) -> io::Result<()> {
    let mut session = detector.session();
    let mut out = Vec::new();
    let mut result = Ok(());
    let style = (scan.format, screen.color);
    let tally = &mut report.tally;
    session.set_log(&Arc::new(scan.log()));
    let reading = read_all(scan.max_event_size, inputs, read, Buffer::default(), |part, buffer| {
        session.begin_input(part.input, part.received);
        out.clear();
        let mut on_alert = |alert: &Alert<'_>| print_alert(alert, style, tally, &mut out);
        match part.kind {
            Chunk::Records => session.chunk(buffer.bytes(), &mut on_alert),
            Chunk::Head => session.head(buffer.bytes(), &mut on_alert),
        }
        tally.counts.add(&session.take_stats());
        result = screen.write(&out);
        result.is_ok().then_some(buffer)
    });
    report.add(reading);
    result?;
    let mut out = Vec::new();
    let tally = &mut report.tally;
    session.finish(&mut |alert| print_alert(alert, style, tally, &mut out));
    tally.counts.add(&session.take_stats());
    screen.write(&out)
}

/// A chunk to evaluate.
struct Job {
    number: u64,
    part: Part,
    buffer: Buffer,
}

/// A chunk after the parallel pass.
struct EvaluatedChunk {
    number: u64,
    part: Part,
    /// `None` if the evaluation panicked.
    output: Option<ChunkOutput>,
    /// The records if there are deferred events, otherwise empty and free for another chunk.
    buffer: Buffer,
}

/// The output of the parallel pass for one chunk.
#[derive(Default)]
struct ChunkOutput {
    /// The records without their wrappers; `None` if they are not wrapped.
    unwrapped: Option<Unwrapped>,
    /// The time of the last event.
    last_time: Option<i64>,
    /// Formatted alerts.
    alerts: Vec<u8>,
    deferred: Vec<DeferredRecord>,
}

/// An event for the ordered pass.
struct DeferredRecord {
    /// Length of the alerts that precede it, in bytes.
    after: usize,
    /// Its range in the unwrapped records or, if there are none, in the buffer.
    range: Range<usize>,
    deferred: DeferredEvent,
}

fn many_threads(
    scan: &Scan,
    detector: &Detector,
    inputs: &[Input],
    read: &Arc<AtomicU64>,
    screen: &mut Screen,
    report: &mut Report,
    threads: usize,
) -> io::Result<()> {
    // Per thread: one chunk being read, one being evaluated, one waiting to be printed.
    let (free, buffers) = mpsc::channel::<Buffer>();
    let budget = long_record_budget(scan.max_event_size);
    for _ in 0..threads * 3 {
        // The receiver is still alive.
        let _ = free.send(Buffer::sharing(&budget));
    }
    let (submit, jobs) = mpsc::channel::<Job>();
    let jobs = Mutex::new(jobs);
    let (finish, done) = mpsc::channel::<EvaluatedChunk>();
    let style = (scan.format, screen.color);
    let log = Arc::new(scan.log());

    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let submit = submit;
            let mut number = 0;
            let Ok(first) = buffers.recv() else { return Reading::default() };
            read_all(scan.max_event_size, inputs, read, first, |part, buffer| {
                submit.send(Job { number, part, buffer }).ok()?;
                number += 1;
                // Buffers stop coming back when printing has failed.
                buffers.recv().ok()
            })
        });
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let finish = finish.clone();
                let jobs = &jobs;
                let log = &log;
                scope.spawn(move || work(detector, log, jobs, &finish, style))
            })
            .collect();
        drop(finish);
        let result = finish_in_order(detector, &log, screen, &done, &free, style, &mut report.tally);
        // Without a sender of buffers the reader stops; without a receiver of results the workers stop.
        drop((free, done));
        budget.close();
        let pipe_closed = matches!(&result, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
        if pipe_closed && inputs.contains(&Input::Stdin) {
            // The reader may be blocked on standard input, and nothing can interrupt it.
            screen.bar.finish_and_clear();
            std::process::exit(0);
        }
        report.add(reader.join().map_err(|_| panicked())?);
        for worker in workers {
            report.tally.add(worker.join().map_err(|_| panicked())?);
        }
        result
    })
}

/// A bug: no input may cause a panic. The panic's own message was already printed.
fn panicked() -> io::Error {
    io::Error::other("a thread panicked: not all events were evaluated. Please report this as a bug")
}

fn work(
    detector: &Detector,
    log: &Arc<LogContext>,
    jobs: &Mutex<Receiver<Job>>,
    finish: &Sender<EvaluatedChunk>,
    style: Style,
) -> Tally {
    let mut pass = detector.parallel_pass();
    pass.set_log(log);
    let mut tally = Tally::default();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = job else { return tally };
        // The printing thread waits for every chunk in turn, so a panic must produce a result too.
        let output =
            catch_unwind(AssertUnwindSafe(|| evaluate_chunk(&mut pass, log, &job, style, &mut tally))).ok();
        if output.as_ref().is_none_or(|output| output.deferred.is_empty()) {
            // Release the memory now: the reader may be waiting for this buffer's share of the allowance.
            job.buffer.clear();
        }
        if finish
            .send(EvaluatedChunk { number: job.number, part: job.part, output, buffer: job.buffer })
            .is_err()
        {
            return tally;
        }
    }
}

fn evaluate_chunk(
    pass: &mut ParallelPass<'_>,
    log: &LogContext,
    job: &Job,
    style: Style,
    tally: &mut Tally,
) -> ChunkOutput {
    let mut output = ChunkOutput::default();
    let unwrapped = match job.part.kind {
        Chunk::Records => pass.unwrap(job.buffer.bytes()),
        Chunk::Head => pass.unwrap_head(job.buffer.bytes()),
    };
    let records = Records::new(unwrapped.as_ref(), job.buffer.bytes()).with_cluster(log.cluster());
    let bytes = records.bytes;
    let mut on_output = |item: Output<'_, '_>| match item {
        Output::Alert(alert) => print_alert(alert, style, tally, &mut output.alerts),
        Output::Deferred(event, deferred) => {
            let text = event.bytes();
            // An event is a part of its buffer.
            let start = text.as_ptr().addr() - bytes.as_ptr().addr();
            let range = start..start + text.len();
            output.deferred.push(DeferredRecord { after: output.alerts.len(), range, deferred });
        }
    };
    match job.part.kind {
        Chunk::Records => pass.chunk(records, &mut on_output),
        Chunk::Head => pass.head(records, &mut on_output),
    }
    output.last_time = last_time(bytes);
    tally.counts.add(&pass.take_stats());
    if !output.deferred.is_empty() {
        output.unwrapped = unwrapped;
    }
    output
}

/// Runs the ordered pass over deferred events, prints alerts in input order and returns the buffers.
fn finish_in_order(
    detector: &Detector,
    log: &LogContext,
    screen: &mut Screen,
    done: &Receiver<EvaluatedChunk>,
    free: &Sender<Buffer>,
    style: Style,
    tally: &mut Tally,
) -> io::Result<()> {
    let mut ordered = detector.ordered_pass();
    // Chunks that were evaluated before their turn.
    let mut early = BTreeMap::new();
    let mut next = 0;
    let mut input = None;
    let mut out = Vec::new();
    for one in done {
        early.insert(one.number, one);
        while let Some(mut one) = early.remove(&next) {
            let output = one.output.ok_or_else(panicked)?;
            out.clear();
            let mut printed = 0;
            let mut cache = ordered.cache();
            if input != Some(one.part.input) {
                input = Some(one.part.input);
                ordered.begin_log();
                ordered.set_received(one.part.received);
            }
            let records =
                Records::new(output.unwrapped.as_ref(), one.buffer.bytes()).with_cluster(log.cluster());
            for record in output.deferred {
                out.extend_from_slice(&output.alerts[printed..record.after]);
                printed = record.after;
                let mut event = Event::new(&records.bytes[record.range.clone()]);
                event.set_origin(records.origin_at(record.range.start));
                ordered.judge(&mut cache, &mut event, record.deferred, &mut |alert| {
                    print_alert(alert, style, tally, &mut out);
                });
            }
            out.extend_from_slice(&output.alerts[printed..]);
            ordered.set_previous_time(output.last_time);
            screen.write(&out)?;
            one.buffer.clear();
            // The reader may have finished.
            let _ = free.send(one.buffer);
            next += 1;
        }
    }
    out.clear();
    let counts = ordered.finish(&mut |alert| print_alert(alert, style, tally, &mut out));
    tally.counts.add(&counts);
    screen.write(&out)
}
