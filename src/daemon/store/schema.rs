//! Tables, migrations between versions of them, and the setup of connections.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::Error;
use super::error::WithPath as _;

/// Application id in the file's header (`plwt`), which distinguishes the database from those of other programs.
pub(super) const APPLICATION_ID: i32 = 0x706c_7774;

/// Element n migrates version n to version n+1. Never change one that was released.
pub(super) const MIGRATIONS: &[&str] = &["
CREATE TABLE alerts (
    -- Never reused, even after all alerts were deleted: sinks keep it as their cursor.
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    id       BLOB NOT NULL UNIQUE,
    time     INTEGER NOT NULL,
    stored   INTEGER NOT NULL,
    rule     TEXT NOT NULL,
    priority INTEGER NOT NULL,
    actor    TEXT NOT NULL,
    target   TEXT NOT NULL,
    message  TEXT NOT NULL,
    json     BLOB NOT NULL
) STRICT;
CREATE INDEX alerts_by_time ON alerts (time);
CREATE INDEX alerts_by_age ON alerts (stored);
CREATE TABLE positions (source TEXT PRIMARY KEY, position BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE state (
    kind TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE seen (n INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB NOT NULL UNIQUE, at INTEGER NOT NULL) STRICT;
CREATE TABLE cursors (sink TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE acks (
    id BLOB PRIMARY KEY, at INTEGER NOT NULL, by TEXT NOT NULL, note TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"];

/// The version that this program reads and writes.
pub(super) fn current_version() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// The origin of a file, from its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileOrigin {
    /// It has no content.
    Empty,
    /// A store of this version.
    Pullwatch(u32),
    /// A database of another program.
    Foreign,
}

/// Opens a connection that can write. The file must exist.
pub(super) fn connect(path: &Path, busy: Duration) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).at(path)?;
    // SQLite silently falls back to read-only access, and would fail with the first batch.
    if connection.is_readonly("main").at(path)? {
        let cause = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        return Err(Error::of_io(path, cause));
    }
    configure(&connection, busy).at(path)?;
    // A commit survives a kill. A power failure may undo the last commits together with their positions, and the events are then read
    // again.
    connection.pragma_update(None, "synchronous", "NORMAL").at(path)?;
    Ok(connection)
}

/// Opens a read-only connection. The file must exist, in the current version.
pub(super) fn connect_read_only(dir: &Path, path: &Path, busy: Duration) -> Result<Connection, Error> {
    require_file(dir, path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).at(path)?;
    configure(&connection, busy).at(path)?;
    require_current_version(&connection, path)?;
    Ok(connection)
}

/// Opens a connection that writes concurrently with the daemon. The file must exist, in the current version.
pub(super) fn connect_existing(dir: &Path, path: &Path, busy: Duration) -> Result<Connection, Error> {
    require_file(dir, path)?;
    let connection = connect(path, busy)?;
    require_current_version(&connection, path)?;
    Ok(connection)
}

fn require_file(dir: &Path, path: &Path) -> Result<(), Error> {
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Missing { dir: dir.to_owned() }),
        Err(error) => Err(Error::of_io(path, error)),
    }
}

fn configure(connection: &Connection, busy: Duration) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(busy)?;
    // The default of 16 is less than the number of statements.
    connection.set_prepared_statement_cache_capacity(64);
    // The file may come from an attacker: its schema may not call functions, and cells are checked for damage.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

fn require_current_version(connection: &Connection, path: &Path) -> Result<(), Error> {
    let known = current_version();
    match origin(connection).at(path)? {
        FileOrigin::Foreign => Err(Error::Foreign { path: path.to_owned() }),
        FileOrigin::Pullwatch(found) if found == known => Ok(()),
        FileOrigin::Pullwatch(found) if found > known => {
            Err(Error::Newer { path: path.to_owned(), found, known })
        }
        FileOrigin::Pullwatch(found) => Err(Error::Older { path: path.to_owned(), found, known }),
        FileOrigin::Empty => Err(Error::Older { path: path.to_owned(), found: 0, known }),
    }
}

/// Reads the origin and the version of a file.
pub(super) fn origin(connection: &Connection) -> Result<FileOrigin, rusqlite::Error> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    Ok(match (application, u32::try_from(version), objects) {
        (APPLICATION_ID, Ok(version), _) => FileOrigin::Pullwatch(version),
        (0, Ok(0), 0) => FileOrigin::Empty,
        _ => FileOrigin::Foreign,
    })
}

/// Migrates a file from version `from` to the current one, in one transaction.
pub(super) fn migrate(
    connection: &mut Connection,
    from: u32,
    migrations: &[&str],
) -> Result<(), rusqlite::Error> {
    let done = usize::try_from(from).unwrap_or(usize::MAX);
    if done >= migrations.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in &migrations[done..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", u32::try_from(migrations.len()).unwrap_or(u32::MAX))?;
    transaction.commit()
}

/// Begins a transaction that writes. Waits for other writers here, and nowhere later.
pub(super) fn begin(connection: &mut Connection) -> Result<Transaction<'_>, rusqlite::Error> {
    if !connection.is_autocommit() {
        // A transaction that failed to end would make all later ones fail.
        connection.execute_batch("ROLLBACK")?;
    }
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_applied_in_order_and_atomically() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(origin(&connection).unwrap(), FileOrigin::Empty);
        let (one, two) = ("CREATE TABLE a (x);", "ALTER TABLE a ADD COLUMN y; INSERT INTO a VALUES (1, 2);");
        migrate(&mut connection, 0, &[one]).unwrap();
        assert_eq!(origin(&connection).unwrap(), FileOrigin::Pullwatch(1));
        // A migration that fails changes nothing.
        migrate(&mut connection, 1, &[one, two, "CREATE TABLE b (x); CREATE TABLE a (x);"]).unwrap_err();
        assert_eq!(origin(&connection).unwrap(), FileOrigin::Pullwatch(1));
        assert!(connection.prepare("SELECT y FROM a").is_err());
        migrate(&mut connection, 1, &[one, two]).unwrap();
        assert_eq!(origin(&connection).unwrap(), FileOrigin::Pullwatch(2));
        let y: i64 = connection.query_row("SELECT y FROM a", (), |row| row.get(0)).unwrap();
        assert_eq!(y, 2);
        // Up to date.
        migrate(&mut connection, 2, &[one, two]).unwrap();
        migrate(&mut connection, 9, &[one, two]).unwrap();
    }

    #[test]
    fn recognizes_databases_of_other_programs() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE alerts (x)").unwrap();
        assert_eq!(origin(&connection).unwrap(), FileOrigin::Foreign);
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("PRAGMA application_id = 5").unwrap();
        assert_eq!(origin(&connection).unwrap(), FileOrigin::Foreign);
    }
}
