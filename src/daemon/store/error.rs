//! What can go wrong, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rusqlite::ffi;

/// Why the store could not do what was asked. After any error it holds all of a batch or nothing of it. Each says all there is to
/// say: what the system said is in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process writes to this store.
    #[error(
        "{} is in use by another pullwatch: stop that one, or give this one a directory of its own with --state-dir",
        dir.display()
    )]
    InUse {
        /// The state directory.
        dir: PathBuf,
    },
    /// There is no store to look into.
    #[error(
        "there is no store in {}: `pullwatch run` makes one; if it keeps its state elsewhere, name that directory with --state-dir",
        dir.display()
    )]
    Missing {
        /// The state directory.
        dir: PathBuf,
    },
    /// A newer pullwatch wrote the file.
    #[error(
        "{} was written by a newer pullwatch (its format is {found}, this one knows {known}): use that version, or another --state-dir",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this program knows.
        known: u32,
    },
    /// An older pullwatch wrote the file, and whoever looks must not change it.
    #[error(
        "{} is in the format of an older pullwatch ({found}, this one knows {known}): start `pullwatch run` of this version once",
        path.display()
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version this program reads.
        known: u32,
    },
    /// The file is a database of some other program.
    #[error("{} is a database, but none of pullwatch: move it away, or use another --state-dir", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged. [`Store::open`](super::Store::open) sets such a file aside; this is found while running.
    #[error("{} is damaged ({cause}): the next start sets it aside and makes a new one", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        cause: rusqlite::Error,
    },
    /// The system does not let us.
    #[error(
        "cannot use {}: {cause}; make the directory and its files writable for the user that pullwatch runs as, or use another --state-dir",
        path.display()
    )]
    Forbidden {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file system cannot share memory between processes, as most network file systems.
    #[error("the file system of {} cannot hold the store (no WAL): use a local disk for --state-dir", path.display())]
    NoWal {
        /// The file.
        path: PathBuf,
    },
    /// No room on the disk. Nothing of the batch is kept: wait, and try again.
    #[error(
        "the disk of {} is full, or the user's quota or limit is reached ({cause}): make room, or lower the retention",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: rusqlite::Error,
    },
    /// Somebody else held the file for longer than the timeout: try again.
    #[error("{} is busy: {cause}", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
        /// What the database says.
        cause: rusqlite::Error,
    },
    /// A file or directory could not be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// Anything else that the database says.
    #[error("{}: {cause}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What it says.
        cause: rusqlite::Error,
    },
}

impl Error {
    /// Whether the same may work later without anybody doing anything to this process: wait, and try again.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Full { .. } | Error::Busy { .. })
    }

    pub(super) fn of(path: &Path, cause: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let Some(error) = cause.sqlite_error() else { return Error::Database { path, cause } };
        match (error.code, error.extended_code) {
            // The shared memory of the WAL is a file that grows; a full disk shows there first. SQLite knows one reason only why
            // there may be no room: a quota, a limit of the process and a broken disk are errors of writing to it. Nothing of
            // the batch is kept then either, and the same helps: to wait.
            (ErrorCode::DiskFull, _)
            | (_, ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE) => {
                Error::Full { path, cause }
            }
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Error::Busy { path, cause },
            (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => Error::Corrupt { path, cause },
            (ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen, _) => {
                Error::Forbidden { path, cause: Box::new(cause) }
            }
            _ => Error::Database { path, cause },
        }
    }

    pub(super) fn of_io(path: &Path, cause: io::Error) -> Self {
        let path = path.to_owned();
        match cause.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory => Error::Forbidden { path, cause: Box::new(cause) },
            _ => Error::Io { path, cause },
        }
    }
}

/// What the database said, with the file it said it of.
pub(super) trait At<T> {
    fn at(self, path: &Path) -> Result<T, Error>;
}

impl<T> At<T> for Result<T, rusqlite::Error> {
    fn at(self, path: &Path) -> Result<T, Error> {
        self.map_err(|cause| Error::of(path, cause))
    }
}

impl<T> At<T> for Result<T, io::Error> {
    fn at(self, path: &Path) -> Result<T, Error> {
        self.map_err(|cause| Error::of_io(path, cause))
    }
}

/// Asks the database, and says of which file an error is.
pub(super) fn ask<T>(path: &Path, question: impl FnOnce() -> Result<T, rusqlite::Error>) -> Result<T, Error> {
    question().at(path)
}
