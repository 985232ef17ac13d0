//! How the pipeline is, and what it says of its sources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Mutex, PoisonError};

use crate::daemon::source::follow::Incident;

/// How the pipeline is, for the health checks.
#[derive(Debug, Default)]
pub struct Status {
    /// When it last went round, in nanoseconds since 1970.
    pub went_round: AtomicI64,
    /// The store takes nothing.
    pub store_is_stuck: AtomicBool,
    /// The last rules that were offered were broken.
    pub rules_are_old: AtomicBool,
    /// A sink ended that nobody told to.
    pub has_lost_sink: AtomicBool,
    /// The file sources without a log.
    pub without_log: Mutex<BTreeSet<String>>,
    /// What keeps other sources from working, by their names.
    pub troubles: Mutex<BTreeMap<String, String>>,
}

impl Status {
    /// Notes what keeps a source from working; nothing where it works.
    pub fn trouble(&self, source: &str, what: Option<String>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match what {
            Some(what) => troubles.insert(source.to_owned(), what),
            None => troubles.remove(source),
        };
    }

    /// Notes whether a log of this file source is there, and says so when that changes.
    pub(super) fn has_log(&self, source: &str, is_there: bool) {
        let mut missing = self.without_log.lock().unwrap_or_else(PoisonError::into_inner);
        if is_there {
            if missing.remove(source) {
                tracing::info!(source, "the log is there");
            }
        } else if !missing.contains(source) {
            tracing::warn!(source, "no log is there; waiting for it");
            missing.insert(source.to_owned());
        }
    }
}

/// Says what happened to a log.
pub(super) fn complain(source: &str, incident: &Incident) {
    match incident {
        Incident::Unreadable(path, error) => {
            tracing::error!(source, path = %path.display(), error, "cannot read a log; it is left alone until it changes");
        }
        Incident::Lost(path, bytes) => tracing::error!(
            source,
            path = %path.display(),
            bytes,
            "a log was truncated before it was read, and no copy of it is there"
        ),
        Incident::Gap(path) => tracing::warn!(
            source,
            path = %path.display(),
            "no log that was known before is there any more: what was written in between may be lost"
        ),
    }
}
