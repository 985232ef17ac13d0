//! Alerts as lines: to standard output, or to a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use super::Deliver;
use crate::audit::fields::Clock;
use crate::audit::text::visible;
use crate::audit::time;
use crate::store::StoredAlert;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// For people.
    Text,
}

/// Appends an alert as a line.
fn write(alert: &StoredAlert, format: Format, out: &mut Vec<u8>) {
    match format {
        Format::Json => out.extend_from_slice(&alert.json),
        Format::Text => {
            let mut when = time::format(Clock::DateTime, alert.time);
            // Milliseconds are enough for people.
            when.truncate("2026-11-23 03:45:32.270".len());
            let priority = alert.priority.name().to_ascii_uppercase();
            let (rule, message) = (visible(&alert.rule), visible(alert.message.trim()));
            out.extend_from_slice(format!("{when}  {priority:<13}  {rule}: {message}").as_bytes());
        }
    }
    out.push(b'\n');
}

/// Standard output.
#[derive(Debug)]
pub struct Stdout {
    /// How lines are written.
    pub format: Format,
}

impl Deliver for Stdout {
    fn deliver(&mut self, alerts: &[StoredAlert]) -> io::Result<()> {
        let mut lines = Vec::new();
        for alert in alerts {
            write(alert, self.format, &mut lines);
        }
        let mut out = io::stdout().lock();
        out.write_all(&lines)?;
        out.flush()
    }
}

/// A file that is appended to, and opened again when it was rotated away.
#[derive(Debug)]
pub struct LineFile {
    path: PathBuf,
    format: Format,
    open: Option<File>,
}

impl LineFile {
    /// The file at this path; it is made when there is something to write.
    pub fn new(path: PathBuf, format: Format) -> Self {
        LineFile { path, format, open: None }
    }

    /// The file that is at the path now.
    fn file(&mut self) -> io::Result<&mut File> {
        let is_there = match &self.open {
            Some(file) => {
                let own = file.metadata()?;
                std::fs::metadata(&self.path)
                    .is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino()))
            }
            None => false,
        };
        if !is_there {
            // Alerts say who reads what: not for everybody.
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
            self.open = Some(file);
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("the file is not open"))
    }
}

impl Deliver for LineFile {
    fn deliver(&mut self, alerts: &[StoredAlert]) -> io::Result<()> {
        let mut lines = Vec::new();
        for alert in alerts {
            write(alert, self.format, &mut lines);
        }
        let file = self.file()?;
        let before = file.metadata()?.len();
        if let Err(error) = file.write_all(&lines) {
            // Half a line would spoil the next one.
            let _ = file.set_len(before);
            return Err(error);
        }
        Ok(())
    }
}
