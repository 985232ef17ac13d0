//! The state of the daemon for the health checks, and log messages about sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::daemon::sink::DeliveryObserver;
use crate::daemon::source::follow::Incident;
use crate::daemon::time::unix_nanos;
use crate::detection::audit::time;

/// Written by the pipeline and sources, and read by the health checks.
#[derive(Debug, Default)]
pub(crate) struct Status {
    heartbeat: Heartbeat,
    /// The store is full or locked; the pipeline retries.
    pub(crate) store_stalled: AtomicBool,
    /// The store was removed while it was open.
    pub(crate) store_removed: AtomicBool,
    /// The rule files on disk are invalid; the previous rules are in use.
    pub(crate) rules_stale: AtomicBool,
    /// The configuration file is invalid; the previous one is in use.
    pub(crate) config_stale: AtomicBool,
    /// Names of sinks that ended without a request to stop.
    ended_sinks: Mutex<BTreeSet<String>>,
    /// Problems that prevent sinks from delivering, by name.
    failing_sinks: Mutex<BTreeMap<String, FailingSink>>,
    /// Names of the file sources whose log does not exist.
    missing_logs: Mutex<BTreeSet<String>>,
    /// Problems that prevent other sources from working, by name.
    source_problems: Mutex<BTreeMap<String, String>>,
    /// Sources that work but yield few or no audit events, each with a description.
    degraded: Mutex<BTreeMap<String, String>>,
}

/// When the pipeline's loop last made progress. Before its first iteration, this is the start of the daemon. Steps of the system clock have
/// no effect.
#[derive(Debug)]
struct Heartbeat(Mutex<Instant>);

impl Default for Heartbeat {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

/// A sink that does not deliver.
#[derive(Debug)]
struct FailingSink {
    /// In nanoseconds since 1970-01-01T00:00:00Z.
    since: i64,
    /// Alerts that wait.
    waiting: i64,
    detail: String,
}

impl DeliveryObserver for Status {
    fn failing(&self, sink: &str, waiting: i64, detail: &str) {
        let mut failing = self.failing_sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let since = failing.get(sink).map_or_else(unix_nanos, |known| known.since);
        failing.insert(sink.to_owned(), FailingSink { since, waiting, detail: detail.to_owned() });
    }

    fn recovered(&self, sink: &str) {
        self.failing_sinks.lock().unwrap_or_else(PoisonError::into_inner).remove(sink);
    }
}

impl Status {
    /// The problems that prevent sinks from delivering, since when, and how many alerts are waiting.
    pub(crate) fn sink_problems(&self) -> Vec<String> {
        let ended = self.ended_sinks();
        let ended = ended.iter().map(|sink| {
            format!("{sink}: ended; its alerts are kept in the store: restart pullwatch to deliver them")
        });
        let failing = self.failing_sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = failing.iter().map(|(sink, problem)| {
            let since = time::utc_seconds(problem.since);
            format!("{sink}: not delivering since {since}, {} waiting: {}", problem.waiting, problem.detail)
        });
        ended.chain(failing).collect()
    }

    /// Records that the pipeline loop is alive: it made progress, or waits for an expected event.
    pub(super) fn heartbeat(&self) {
        *self.heartbeat.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Time since the last heartbeat.
    pub(crate) fn heartbeat_age(&self) -> Duration {
        self.heartbeat.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Records that a sink ended without a request to stop.
    pub(crate) fn set_sink_ended(&self, sink: &str) {
        self.ended_sinks.lock().unwrap_or_else(PoisonError::into_inner).insert(sink.to_owned());
    }

    /// Removes the record that a sink ended, because it is started again or was removed.
    pub(crate) fn forget_ended_sink(&self, sink: &str) {
        self.ended_sinks.lock().unwrap_or_else(PoisonError::into_inner).remove(sink);
    }

    /// Names of sinks that ended without a request to stop.
    pub(crate) fn ended_sinks(&self) -> BTreeSet<String> {
        self.ended_sinks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets or clears the problem that prevents a source from working.
    pub(crate) fn set_source_problem(&self, source: &str, problem: Option<String>) {
        let mut problems = self.source_problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(source.to_owned(), problem),
            None => problems.remove(source),
        };
    }

    /// Sets or clears that the records of a source are not audit events.
    pub(super) fn set_degraded(&self, source: &str, description: Option<String>) {
        let mut degraded = self.degraded.lock().unwrap_or_else(PoisonError::into_inner);
        match description {
            Some(description) => degraded.insert(source.to_owned(), description),
            None => degraded.remove(source),
        };
    }

    /// Degraded sources, as `source: description`, although pullwatch itself works.
    pub(crate) fn degradations(&self) -> Vec<String> {
        let degraded = self.degraded.lock().unwrap_or_else(PoisonError::into_inner);
        degraded.iter().map(|(source, description)| format!("{source}: {description}")).collect()
    }

    /// Problems of all sources, as `source: problem`.
    pub(crate) fn source_problems(&self) -> Vec<String> {
        let missing = self.missing_logs.lock().unwrap_or_else(PoisonError::into_inner);
        let problems = self.source_problems.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = missing.iter().map(|source| format!("{source}: log file not found"));
        missing.chain(problems.iter().map(|(source, problem)| format!("{source}: {problem}"))).collect()
    }

    /// Sets whether the log of a file source exists, and logs changes.
    pub(super) fn set_log_found(&self, source: &str, is_found: bool) {
        let mut missing = self.missing_logs.lock().unwrap_or_else(PoisonError::into_inner);
        if is_found {
            if missing.remove(source) {
                tracing::info!(source, "log file found");
            }
        } else if !missing.contains(source) {
            tracing::warn!(source, "log file not found; waiting");
            missing.insert(source.to_owned());
        }
    }
}

/// Advice for a log that cannot be read: the apiserver creates it with mode 0600, owned by root.
const PERMISSION_HINT: &str = ": run as root with all capabilities dropped, or give read access with an ACL on the directory \
     (setfacl -d -m u:pullwatch:r DIRECTORY), or use the audit webhook";

/// Advice for a file that cannot be read.
fn hint(error: &str) -> &'static str {
    if error.contains("ermission denied") { PERMISSION_HINT } else { "" }
}

/// Describes a log file that cannot be read.
pub(super) fn unreadable(path: &Path, error: &str) -> String {
    format!("cannot read {}: {error}{}", path.display(), hint(error))
}

pub(super) fn log_incident(source: &str, incident: &Incident) {
    match incident {
        Incident::Unreadable(path, error) => {
            let hint = hint(error);
            tracing::error!(source, path = %path.display(), error, "cannot read log file or its directory; skipped until it changes{hint}");
        }
        Incident::Lost(path, bytes) => tracing::error!(
            source,
            path = %path.display(),
            bytes,
            "log file was truncated before it was read, and no copy of it exists: events are lost"
        ),
        Incident::Deleted(path, bytes) => tracing::error!(
            source,
            path = %path.display(),
            bytes,
            "a rotated file of this log was deleted before it was read to its end: events are lost"
        ),
        Incident::Incomplete(path, bytes) => tracing::warn!(
            source,
            path = %path.display(),
            bytes,
            "dropped the rest of a line that was split by the container runtime: it was too long, or came too late"
        ),
        Incident::DirectoryRemoved(path) => tracing::error!(
            source,
            directory = %path.display(),
            "log directory was removed; waiting until it exists again"
        ),
        Incident::Gap(path) => tracing::warn!(
            source,
            path = %path.display(),
            "none of the previously read log files exists: events written in between may be lost"
        ),
    }
}
