//! Alerts that were given up, in a file that a person can read and a program can send again.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use super::config::DeadLetter;
use super::file::starts_on_a_line;
use crate::detection::alert::StoredAlert;
use crate::detection::audit::time;
use crate::text::escape::push_json_string;

/// Why an alert was given up. A closed set: it labels a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dead {
    /// The receiver refused it, and will again.
    Rejected,
    /// It is no line of JSON.
    Unencodable,
    /// It waited longer than it may.
    TooOld,
}

impl Dead {
    /// All of them.
    pub const ALL: [Dead; 3] = [Dead::Rejected, Dead::Unencodable, Dead::TooOld];

    /// As metrics and the file have it.
    pub const fn name(self) -> &'static str {
        match self {
            Dead::Rejected => "rejected",
            Dead::Unencodable => "unencodable",
            Dead::TooOld => "too_old",
        }
    }
}

/// Why an alert that was given up is in no file. A closed set: it labels a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// No file was asked for.
    NoFile,
    /// The file is as large as it may be.
    Full,
}

impl Loss {
    /// All of them.
    pub const ALL: [Loss; 2] = [Loss::NoFile, Loss::Full];

    /// As metrics have it.
    pub const fn name(self) -> &'static str {
        match self {
            Loss::NoFile => "no_file",
            Loss::Full => "full",
        }
    }
}

/// Appends the line of an alert that was given up at that time.
pub fn write_line(alert: &StoredAlert, sink: &str, dead: Dead, detail: &str, now: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"reason\":\"");
    out.extend_from_slice(dead.name().as_bytes());
    out.extend_from_slice(b"\",\"detail\":");
    push_json_string(detail.as_bytes(), out);
    out.extend_from_slice(b",\"time\":\"");
    time::write_rfc3339(out, now);
    out.extend_from_slice(b"\",\"sink\":");
    push_json_string(sink.as_bytes(), out);
    out.extend_from_slice(b",\"alert\":");
    if dead == Dead::Unencodable {
        push_json_string(&alert.json, out);
    } else {
        out.extend_from_slice(&alert.json);
    }
    out.extend_from_slice(b"}\n");
}

/// Appends a line to the file and waits until it is on the disk; says whether there was room for it. Blocks.
///
/// The file is opened each time: this is rare, and whoever moved the file away gets a new one.
///
/// # Errors
/// When it was not written. A part of it may have been.
pub fn append(settings: &DeadLetter, line: &[u8]) -> io::Result<bool> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&settings.path)?;
    let mut bytes = Vec::with_capacity(line.len() + 1);
    if !starts_on_a_line(&file)? {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(line);
    if file.metadata()?.len().saturating_add(bytes.len() as u64) > settings.max_bytes {
        return Ok(false);
    }
    file.write_all(&bytes)?;
    file.sync_data()?;
    Ok(true)
}
