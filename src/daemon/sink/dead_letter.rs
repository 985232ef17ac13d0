//! The dead-letter file: undeliverable alerts, one JSON object per line, which can be sent again later.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::config::DeadLetter;
use super::file::starts_new_line;
use crate::detection::alert::{Priority, StoredAlert};
use crate::detection::audit::time;
use crate::text::escape::push_json_string;

/// The reason why an alert cannot be delivered. A closed set, since it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeadLetterReason {
    /// The receiver rejected it permanently.
    Rejected,
    /// The alert's JSON is not a single object on a single line.
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

/// The reason why an undelivered alert is not in a dead-letter file either. A closed set, since it is a metric label.
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
/// The file is opened for each line: lines are rare, and this creates a new file if the previous one was moved.
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

/// The dead letters of all sinks that share a file, removed from it to be sent again.
///
/// The file is renamed first, so that the daemon continues with a new one. Undelivered alerts are appended to it again; if the process is
/// killed before that, the renamed file is found by the next call.
#[derive(Debug)]
pub(crate) struct DeadLetterFile {
    settings: DeadLetter,
    taken: PathBuf,
    /// Lines to put back: first those being sent again, in order, then all others.
    sent_again: Vec<String>,
    others: Vec<String>,
}

impl DeadLetterFile {
    /// Takes all lines. Returns `None` if there is no file.
    ///
    /// # Errors
    /// If the file cannot be renamed or read.
    pub(crate) fn take(settings: &DeadLetter) -> io::Result<Option<Self>> {
        let mut name = settings.path.clone().into_os_string();
        name.push(".resending");
        let taken = PathBuf::from(name);
        // The file of a killed call comes first.
        if !taken.exists() {
            match std::fs::rename(&settings.path, &taken) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                result => result?,
            }
        }
        let text = String::from_utf8_lossy(&std::fs::read(&taken)?).into_owned();
        let others = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Ok(Some(DeadLetterFile { settings: settings.clone(), taken, sent_again: Vec::new(), others }))
    }

    /// Returns the alerts of a sink, in order. Lines that cannot be decoded stay in the file.
    pub(crate) fn alerts_of(&mut self, sink: &str) -> Vec<StoredAlert> {
        let mut alerts = Vec::new();
        for line in std::mem::take(&mut self.others) {
            let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            match (value["sink"].as_str() == Some(sink)).then(|| read_alert(&value["alert"])).flatten() {
                Some(alert) => {
                    alerts.push(alert);
                    self.sent_again.push(line);
                }
                None => self.others.push(line),
            }
        }
        alerts
    }

    /// Puts back undelivered lines. The first `delivered` alerts were either delivered or became dead letters again.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; in that case the renamed file is kept.
    pub(crate) fn put_back(self, delivered: usize) -> io::Result<()> {
        let rest: Vec<String> = self.sent_again.into_iter().skip(delivered).chain(self.others).collect();
        if !rest.is_empty() {
            let text = rest.join("\n") + "\n";
            // Lines that were in the file fit into it.
            let settings = DeadLetter { max_bytes: u64::MAX, ..self.settings };
            append(&settings, text.as_bytes())?;
        }
        std::fs::remove_file(&self.taken)
    }
}

/// Reads an alert from its JSON.
fn read_alert(json: &serde_json::Value) -> Option<StoredAlert> {
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let mut id = [0; 16];
    let digits = json["id"].as_str().unwrap_or_default().as_bytes();
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    let object = &json["event"]["objectRef"];
    let parts = ["resource", "namespace", "name"].map(|key| object[key].as_str().unwrap_or_default());
    let target = match parts {
        [resource, "", ""] => resource.to_owned(),
        [resource, "", name] => format!("{resource} {name}"),
        [resource, namespace, name] => format!("{resource} {namespace}/{name}"),
    };
    let actor = match json["actor"].as_str() {
        Some(actor) => actor,
        None => json["event"]["user"]["username"].as_str().unwrap_or_default(),
    };
    // `output` starts with the time and the priority.
    let (output, priority) = (text("output"), Priority::parse(&text("priority"))?);
    let marker = format!(": {} ", priority.name());
    let message = output.split_once(&marker).map_or(output.as_str(), |(_, message)| message).to_owned();
    let time = text("time")
        .parse::<jiff::Timestamp>()
        .map_or(0, |time| i64::try_from(time.as_nanosecond()).unwrap_or(0));
    let mut bytes = Vec::new();
    crate::detection::shorten::write(json, &mut bytes);
    let rule = json["rule"].as_str()?.to_owned();
    Some(StoredAlert {
        seq: 0,
        id,
        time,
        stored: time,
        rule,
        priority,
        actor: actor.to_owned(),
        target,
        json: bytes,
        message,
    })
}
