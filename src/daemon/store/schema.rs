//! Tables, their versions, and what every connection is told first.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::Error;
use super::error::At as _;

/// In the file's header, so that no other program's database is taken for ours: `plwt`.
pub const APPLICATION: i32 = 0x706c_7774;

/// What makes version n+1 of version n. A version that was released never changes.
pub const MIGRATIONS: &[&str] = &["
CREATE TABLE alerts (
    -- Never used twice, also when all alerts are gone: sinks remember it.
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

/// The version this program reads and writes.
pub fn known() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// What the header of a file says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// There is nothing in it.
    Empty,
    /// It is ours, of this version.
    Ours(u32),
    /// It is of another program.
    Foreign,
}

/// Opens a connection that can write. The file has to be there.
pub fn connect(path: &Path, busy: Duration) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).at(path)?;
    // A file that may not be written is opened all the same, and would fail at the first batch.
    if connection.is_readonly("main").at(path)? {
        let cause = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        return Err(Error::of_io(path, cause));
    }
    settle(&connection, busy).at(path)?;
    // A batch survives a kill; a power cut may take the last ones, positions with them. They are read again then.
    connection.pragma_update(None, "synchronous", "NORMAL").at(path)?;
    Ok(connection)
}

/// Opens a connection that only looks. The file has to be there, and of this version.
pub fn connect_to_read(dir: &Path, path: &Path, busy: Duration) -> Result<Connection, Error> {
    is_there(dir, path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).at(path)?;
    settle(&connection, busy).at(path)?;
    expect_known(&connection, path)?;
    Ok(connection)
}

/// Opens a connection that writes beside the daemon. The file has to be there, and of this version.
pub fn connect_to_add(dir: &Path, path: &Path, busy: Duration) -> Result<Connection, Error> {
    is_there(dir, path)?;
    let connection = connect(path, busy)?;
    expect_known(&connection, path)?;
    Ok(connection)
}

fn is_there(dir: &Path, path: &Path) -> Result<(), Error> {
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Missing { dir: dir.to_owned() }),
        Err(error) => Err(Error::of_io(path, error)),
    }
}

fn settle(connection: &Connection, busy: Duration) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(busy)?;
    // There are more statements than the 16 of the default.
    connection.set_prepared_statement_cache_capacity(64);
    // The file may be an attacker's: nothing in its schema may call functions, and damage is looked for.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

fn expect_known(connection: &Connection, path: &Path) -> Result<(), Error> {
    let known = known();
    match origin(connection).at(path)? {
        Origin::Foreign => Err(Error::Foreign { path: path.to_owned() }),
        Origin::Ours(found) if found == known => Ok(()),
        Origin::Ours(found) if found > known => Err(Error::Newer { path: path.to_owned(), found, known }),
        Origin::Ours(found) => Err(Error::Older { path: path.to_owned(), found, known }),
        Origin::Empty => Err(Error::Older { path: path.to_owned(), found: 0, known }),
    }
}

/// Whose file it is, and of which version.
pub fn origin(connection: &Connection) -> Result<Origin, rusqlite::Error> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    Ok(match (application, u32::try_from(version), objects) {
        (APPLICATION, Ok(version), _) => Origin::Ours(version),
        (0, Ok(0), 0) => Origin::Empty,
        _ => Origin::Foreign,
    })
}

/// Brings a file from version `from` to the newest, all or nothing.
pub fn migrate(connection: &mut Connection, from: u32, migrations: &[&str]) -> Result<(), rusqlite::Error> {
    let done = usize::try_from(from).unwrap_or(usize::MAX);
    if done >= migrations.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in &migrations[done..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", u32::try_from(migrations.len()).unwrap_or(u32::MAX))?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_follow_each_other_and_are_all_or_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(origin(&connection).unwrap(), Origin::Empty);
        let (one, two) = ("CREATE TABLE a (x);", "ALTER TABLE a ADD COLUMN y; INSERT INTO a VALUES (1, 2);");
        migrate(&mut connection, 0, &[one]).unwrap();
        assert_eq!(origin(&connection).unwrap(), Origin::Ours(1));
        // One that fails half way leaves everything as it was.
        migrate(&mut connection, 1, &[one, two, "CREATE TABLE b (x); CREATE TABLE a (x);"]).unwrap_err();
        assert_eq!(origin(&connection).unwrap(), Origin::Ours(1));
        assert!(connection.prepare("SELECT y FROM a").is_err());
        migrate(&mut connection, 1, &[one, two]).unwrap();
        assert_eq!(origin(&connection).unwrap(), Origin::Ours(2));
        let y: i64 = connection.query_row("SELECT y FROM a", (), |row| row.get(0)).unwrap();
        assert_eq!(y, 2);
        // Nothing is left to do.
        migrate(&mut connection, 2, &[one, two]).unwrap();
        migrate(&mut connection, 9, &[one, two]).unwrap();
    }

    #[test]
    fn the_databases_of_others_are_known_as_such() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE alerts (x)").unwrap();
        assert_eq!(origin(&connection).unwrap(), Origin::Foreign);
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("PRAGMA application_id = 5").unwrap();
        assert_eq!(origin(&connection).unwrap(), Origin::Foreign);
    }
}
