//! The dead-letter file: alerts that cannot be delivered, one JSON object a line, that can be sent again later.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use super::config::DeadLetter;
use super::file::starts_new_line;
use crate::detection::alert::StoredAlert;
use crate::detection::audit::time;
use crate::text::escape::push_json_string;

/// Why an alert cannot be delivered. A closed set: it labels a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeadLetterReason {
    /// The receiver refused it for good.
    Rejected,
    /// Its JSON is not one line with one object.
    Unencodable,
    /// It waited longer than `max_age`.
    TooOld,
}

impl DeadLetterReason {
    pub(crate) const ALL: [DeadLetterReason; 3] =
        [DeadLetterReason::Rejected, DeadLetterReason::Unencodable, DeadLetterReason::TooOld];

    /// The name in metrics and in the file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            DeadLetterReason::Rejected => "rejected",
            DeadLetterReason::Unencodable => "unencodable",
            DeadLetterReason::TooOld => "too_old",
        }
    }
}

/// Why an alert that a sink did not deliver is in no dead-letter file either. A closed set: it labels a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// No dead-letter file is configured.
    NoFile,
    /// The file has reached its maximum size.
    Full,
    /// The store deleted it to stay below its maximum size.
    Retention,
}

impl DropReason {
    pub(crate) const ALL: [DropReason; 3] = [DropReason::NoFile, DropReason::Full, DropReason::Retention];

    /// The value of the metric's label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            DropReason::NoFile => "no_file",
            DropReason::Full => "full",
            DropReason::Retention => "retention",
        }
    }
}

/// Appends the line of an undeliverable alert. `now` is the time of the failure, in nanoseconds since 1970.
pub(crate) fn write_line(
    alert: &StoredAlert,
    sink: &str,
    reason: DeadLetterReason,
    detail: &str,
    now: i64,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"reason\":\"");
    out.extend_from_slice(reason.name().as_bytes());
    out.extend_from_slice(b"\",\"detail\":");
    push_json_string(detail.as_bytes(), out);
    out.extend_from_slice(b",\"time\":\"");
    time::write_rfc3339(out, now);
    out.extend_from_slice(b"\",\"sink\":");
    push_json_string(sink.as_bytes(), out);
    out.extend_from_slice(b",\"alert\":");
    if reason == DeadLetterReason::Unencodable {
        push_json_string(&alert.json, out);
    } else {
        out.extend_from_slice(&alert.json);
    }
    out.extend_from_slice(b"}\n");
}

/// Appends a line to the file and syncs it to the disk; returns false if it would exceed the file's maximum size. Blocks.
///
/// The file is opened for each line: this is rare, and after the file was moved away a new one is created.
///
/// # Errors
/// When the line was not written. A part of it may have been.
pub(crate) fn append(settings: &DeadLetter, line: &[u8]) -> io::Result<bool> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&settings.path)?;
    let mut bytes = Vec::with_capacity(line.len() + 1);
    if !starts_new_line(&file)? {
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
