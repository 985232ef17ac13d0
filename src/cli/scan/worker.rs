//! The loop of a scan: read, evaluate, print, on one thread or [several](super::threads).

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::print::print_alert;
use super::reading::read_all;
use super::result::Report;
use super::screen::Screen;
use super::{Scan, threads};
use crate::daemon::source::chunker::{Buffer, Chunk};
use crate::daemon::source::input::Input;
use crate::detection::detector::Detector;
use crate::detection::engine::alert::Alert;

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
        threads::run(scan, detector, inputs, &read, &mut screen, &mut report, threads)
    };
    screen.bar.finish_and_clear();
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => report.pipe_closed = true,
        other => other?,
    }
    Ok(report)
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
        session.begin_input(part.input, part.received, part.columns.as_ref());
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
