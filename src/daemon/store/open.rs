//! Opening a store: lock, check, set aside, migrate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::error::At as _;
use super::schema::{self, Origin};
use super::{Error, Store, dir};
use crate::daemon::time::unix_nanos;

/// How a store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long to wait for another writer (a sink's cursor, a person who acknowledges) before [`Error::Busy`].
    pub busy: Duration,
    /// Look through the whole file for damage. It takes about a second a gigabyte.
    pub check: bool,
    /// No more pages (of 4 KiB) than this, then [`Error::Full`].
    pub max_pages: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options { busy: Duration::from_secs(5), check: true, max_pages: None }
    }
}

/// A store, and what had to be done to open it.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What was there was damaged: it has this name now, and the store starts empty.
    pub set_aside: Option<PathBuf>,
    /// What was there was of this older version.
    pub migrated_from: Option<u32>,
}

impl Store {
    /// Opens the store of a directory, and makes what is missing of both.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] if another process has it open, [`Error::Newer`] and [`Error::Foreign`] if the file is not for this
    /// program, [`Error::Forbidden`] and [`Error::NoWal`] where the place will not do, [`Error::Full`] without room.
    pub fn open(dir: &Path, options: &Options) -> Result<Opened, Error> {
        dir::create(dir)?;
        let lock = dir::lock(dir)?;
        let path = dir::file(dir);
        dir::create_file(&path)?;
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
        Ok(Opened { store: Store::new(connection, path, lock), set_aside, migrated_from })
    }
}

/// A connection to a sound file of the newest version, and the version it had if that was an older one.
fn prepare(path: &Path, options: &Options) -> Result<(Connection, Option<u32>), Error> {
    let mut connection = schema::connect(path, options.busy)?;
    // Closing would write the log into the file and delete it. Where the file is damaged, both are evidence.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).at(path)?;
    let origin = schema::origin(&connection).at(path)?;
    let known = schema::known();
    let version = match origin {
        Origin::Empty => 0,
        Origin::Ours(version) if version <= known => version,
        Origin::Ours(found) => return Err(Error::Newer { path: path.to_owned(), found, known }),
        Origin::Foreign => return Err(Error::Foreign { path: path.to_owned() }),
    };
    if options.check && version > 0 {
        check(&connection, path)?;
    }
    if origin == Origin::Empty {
        // Only a file without a page takes it at once; for another one it needs the VACUUM.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").at(path)?;
        connection.execute_batch("VACUUM").at(path)?;
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).at(path)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Error::NoWal { path: path.to_owned() });
    }
    // After one large transaction the log does not stay large.
    connection.pragma_update_and_check(None, "journal_size_limit", 16 << 20, |_| Ok(())).at(path)?;
    // Writing the log back takes some 10 ms. The sinks' connections do it at 1,000 pages, on their own time; this one only where
    // they do not come to it.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 4000, |_| Ok(())).at(path)?;
    if let Some(pages) = options.max_pages {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).at(path)?;
    }
    schema::migrate(&mut connection, version, schema::MIGRATIONS).at(path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).at(path)?;
    let migrated = matches!(origin, Origin::Ours(version) if version < known);
    Ok((connection, migrated.then_some(version)))
}

fn check(connection: &Connection, path: &Path) -> Result<(), Error> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0)).at(path)?;
    if verdict == "ok" {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(Error::Corrupt { path: path.to_owned(), cause: rusqlite::Error::SqliteFailure(code, Some(verdict)) })
}
