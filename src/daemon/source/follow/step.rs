//! Options for following a log, and the results of each step.

use std::path::PathBuf;

/// Where to start in a log that was never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// Read everything, including rotated files.
    #[default]
    Beginning,
    /// Read only data written from now on.
    End,
}

/// The outcome of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStep {
    Records,
    /// The buffer contains the first bytes of a record that exceeds the limit, or that was never finished.
    Head,
    /// Nothing to read at present.
    Idle,
}

/// A problem that was handled, for the log and the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incident {
    Unreadable(PathBuf, String),
    /// Number of bytes of a truncated file that were not read and have no copy.
    Lost(PathBuf, u64),
    /// Number of bytes of a rotated file that was deleted before they were read.
    Deleted(PathBuf, u64),
    /// Number of bytes that were dropped: the end of a split line whose start was evaluated as truncated, because the line was too long or
    /// its rest arrived too late.
    Incomplete(PathBuf, u64),
    /// The directory of a log was removed.
    DirectoryRemoved(PathBuf),
    /// None of the files of the last run exists any more; events written in between may be lost.
    Gap(PathBuf),
}
