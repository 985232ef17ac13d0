//! Errors of the store, each with advice for the operator.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rusqlite::ffi;

/// Why an operation of the store failed. After any error, the store contains either all of a batch or nothing of it. The message is
/// complete: it includes the cause.
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
    /// The directory contains no store.
    #[error(
        "no store in {}: `pullwatch run` creates one; if its state is in another directory, use --state-dir",
        dir.display()
    )]
    Missing {
        /// The state directory.
        dir: PathBuf,
    },
    /// A newer pullwatch wrote the file.
    #[error(
        "{} was written by a newer pullwatch (format {found}; this version supports {known}): use that version, or another --state-dir",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version of its format.
        found: u32,
        /// The newest version that this program supports.
        known: u32,
    },
    /// An older pullwatch wrote the file; only the daemon may migrate it.
    #[error(
        "{} was written by an older pullwatch (format {found}; this version reads {known}): start `pullwatch run` of this version once to migrate it",
        path.display()
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Version of its format.
        found: u32,
        /// The version that this program reads.
        known: u32,
    },
    /// The file is a database of another program.
    #[error("{} is not a pullwatch database: move it away, or use another --state-dir", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged, which was detected while running. [`Store::open`](super::Store::open) moves such a file aside.
    #[error("{} is damaged ({cause}): the next start moves it aside and creates a new one", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The damage.
        cause: rusqlite::Error,
    },
    /// The database was removed or replaced while it was open.
    #[error(
        "{} was removed or replaced while pullwatch was running: what was stored in it is lost; restart pullwatch to create a new one",
        path.display()
    )]
    Removed {
        /// The file.
        path: PathBuf,
    },
    /// Permission denied, or a read-only file system.
    #[error(
        "cannot use {}: {cause}; make the directory and its files writable for the user that pullwatch runs as, or use another --state-dir",
        path.display()
    )]
    Forbidden {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file system cannot share memory between processes. Most network file systems cannot.
    #[error("the file system of {} does not support SQLite's write-ahead log: use a local disk for --state-dir", path.display())]
    NoWal {
        /// The file.
        path: PathBuf,
    },
    /// No space on the disk. Nothing of the batch is stored: wait, and try again.
    #[error(
        "no space left on the disk of {}, or a quota or limit is reached ({cause}): make room, or lower store.max_size",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        cause: rusqlite::Error,
    },
    /// Another process locked the file for longer than the timeout: try again.
    #[error("{} is busy: {cause}", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
        /// The database's error.
        cause: rusqlite::Error,
    },
    /// A file or directory could not be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        cause: io::Error,
    },
    /// Any other error of the database.
    #[error("{}: {cause}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The database's error.
        cause: rusqlite::Error,
    },
}

impl Error {
    /// Whether the same operation may succeed later in this process.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Full { .. } | Error::Busy { .. })
    }

    pub(super) fn of(path: &Path, cause: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let Some(error) = cause.sqlite_error() else { return Error::Database { path, cause } };
        match (error.code, error.extended_code) {
            // The WAL's shared memory is a file that grows, and is the first to fail on a full disk. SQLite has only one code for a full
            // disk: quotas, process limits and broken disks are write errors. In all these cases nothing of the batch is stored, and the
            // condition may end while the process waits.
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

/// Adds the path to an error.
pub(super) trait WithPath<T> {
    fn at(self, path: &Path) -> Result<T, Error>;
}

impl<T> WithPath<T> for Result<T, rusqlite::Error> {
    fn at(self, path: &Path) -> Result<T, Error> {
        self.map_err(|cause| Error::of(path, cause))
    }
}

impl<T> WithPath<T> for Result<T, io::Error> {
    fn at(self, path: &Path) -> Result<T, Error> {
        self.map_err(|cause| Error::of_io(path, cause))
    }
}

/// Runs a query, and adds the path to its error.
pub(super) fn query<T>(path: &Path, query: impl FnOnce() -> Result<T, rusqlite::Error>) -> Result<T, Error> {
    query().at(path)
}
