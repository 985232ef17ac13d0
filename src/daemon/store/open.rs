//! Opens a store: lock it, check it, move a damaged file aside, migrate it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::error::WithPath as _;
use super::limit::log_budget;
use super::schema::{self, FileOrigin};
use super::{Error, Store, dir};
use crate::daemon::time::unix_nanos;

/// Size of a page, SQLite's default, in bytes.
const PAGE_BYTES: u64 = 4096;

/// Size of the write-ahead log at which it is checkpointed, if the store has no maximum size.
const DEFAULT_LOG_BYTES: u64 = 16 << 20;

/// How a store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long to wait for another writer (a sink's cursor, an acknowledgement) before [`Error::Busy`].
    pub busy: Duration,
    /// Whether to check the whole file for damage, which takes about a second per gigabyte.
    pub check: bool,
    /// Maximum number of pages of 4 KiB; writes beyond it fail with [`Error::Full`].
    pub max_pages: Option<u32>,
    /// Maximum size of database and write-ahead log in bytes: each commit deletes the oldest alerts to stay below it.
    pub max_bytes: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Options { busy: Duration::from_secs(5), check: true, max_pages: None, max_bytes: None }
    }
}

/// An open store, and facts about it that an operator should know.
#[derive(Debug)]
pub struct Opened {
    /// The open store.
    pub store: Store,
    /// The file was damaged and was renamed to this name; the store starts empty.
    pub set_aside: Option<PathBuf>,
    /// The file had this older version.
    pub migrated_from: Option<u32>,
    /// The file existed but was empty, so positions and learned state are lost.
    pub was_empty: bool,
    /// Any user can write to the state directory; contains its permission bits.
    pub world_writable: Option<u32>,
}

impl Store {
    /// Opens the store of a directory, and creates either if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] if another process has it open, [`Error::Newer`] and [`Error::Foreign`] if the file is not for this
    /// program, [`Error::Forbidden`] and [`Error::NoWal`] if the directory is unsuitable, [`Error::Full`] without space.
    pub fn open(dir: &Path, options: &Options) -> Result<Opened, Error> {
        dir::create(dir)?;
        let lock = dir::lock(dir)?;
        let path = dir::file(dir);
        let was_empty = dir::create_file(&path)?;
        let (connection, migrated_from, set_aside) = match prepare(&path, options) {
            Ok((connection, migrated_from)) => (connection, migrated_from, None),
            Err(Error::Corrupt { .. }) => {
                let aside = dir::set_aside(&path, unix_nanos())?;
                dir::create_file(&path)?;
                let (connection, _) = prepare(&path, options)?;
                (connection, None, Some(aside))
            }
            Err(error) => return Err(error),
        };
        let store = Store::new(connection, path, options.max_bytes, lock)?;
        Ok(Opened { store, set_aside, migrated_from, was_empty, world_writable: dir::world_writable(dir)? })
    }
}

/// Connects to the file, checks it and migrates it. Returns its previous version, if that was older.
fn prepare(path: &Path, options: &Options) -> Result<(Connection, Option<u32>), Error> {
    let mut connection = schema::connect(path, options.busy)?;
    // By default, closing checkpoints the log and deletes it. If the file is damaged, both files are evidence.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).at(path)?;
    let origin = schema::origin(&connection).at(path)?;
    let known = schema::current_version();
    let version = match origin {
        FileOrigin::Empty => 0,
        FileOrigin::Pullwatch(version) if version <= known => version,
        FileOrigin::Pullwatch(found) => return Err(Error::Newer { path: path.to_owned(), found, known }),
        FileOrigin::Foreign => return Err(Error::Foreign { path: path.to_owned() }),
    };
    if options.check && version > 0 {
        check(&connection, path)?;
    }
    if origin == FileOrigin::Empty {
        // Only takes effect immediately in a file without pages; otherwise it requires VACUUM.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").at(path)?;
        connection.execute_batch("VACUUM").at(path)?;
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).at(path)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Error::NoWal { path: path.to_owned() });
    }
    // A quarter of the log's budget, so that the commit that exceeds it still fits. Checkpointing 16 MiB takes about 10 ms; the sinks'
    // connections do it at 4 MiB, in their own time.
    let log_bytes = options.max_bytes.map_or(DEFAULT_LOG_BYTES, |bytes| log_budget(bytes) / 4);
    let log_pages = log_bytes / PAGE_BYTES;
    // After one large transaction, the log is truncated.
    connection.pragma_update_and_check(None, "journal_size_limit", i64_of(log_bytes), |_| Ok(())).at(path)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", i64_of(log_pages), |_| Ok(())).at(path)?;
    if let Some(pages) = options.max_pages {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).at(path)?;
    }
    schema::migrate(&mut connection, version, schema::MIGRATIONS).at(path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).at(path)?;
    let migrated = matches!(origin, FileOrigin::Pullwatch(version) if version < known);
    Ok((connection, migrated.then_some(version)))
}

fn i64_of(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn check(connection: &Connection, path: &Path) -> Result<(), Error> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0)).at(path)?;
    if verdict == "ok" {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(Error::Corrupt { path: path.to_owned(), cause: rusqlite::Error::SqliteFailure(code, Some(verdict)) })
}
