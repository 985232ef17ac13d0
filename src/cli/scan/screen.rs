//! Standard output of a scan, and its progress bar.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::daemon::source::input::Input;

/// Standard output, and a progress bar that does not interleave with it.
pub struct Screen {
    pub bar: ProgressBar,
    started: Instant,
    read: Arc<AtomicU64>,
    visible: bool,
    shares_terminal: bool,
    pub color: bool,
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

    pub fn write(&mut self, alerts: &[u8]) -> io::Result<()> {
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
