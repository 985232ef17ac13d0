//! The daemon's access: commits batches, and reads what is needed to resume after a start.

use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::batch::{Batch, Committed, StateEntry, StoreSize};
use super::dir::{self, DirLock, FileIdentity};
use super::error::{WithPath as _, query};
use super::{Error, limit, schema};

/// The store of a directory, open for writing. A lock allows one per directory.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) max_bytes: Option<u64>,
    /// The database file that the connection has open.
    identity: FileIdentity,
    // Dropped after the connection, in the order of the fields.
    _lock: DirLock,
}

impl Store {
    pub(super) fn new(
        connection: Connection,
        path: PathBuf,
        max_bytes: Option<u64>,
        lock: DirLock,
    ) -> Result<Self, Error> {
        let identity = dir::identity(&path).at(&path)?;
        Ok(Store { connection, path, max_bytes, identity, _lock: lock })
    }

    /// Checks that the database is still at its path. SQLite silently keeps writing to a file that was removed, and the next start would
    /// find nothing of it.
    ///
    /// # Errors
    ///
    /// [`Error::Removed`] if the file or its directory was removed or replaced.
    pub fn check_path(&self) -> Result<(), Error> {
        match dir::identity(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            _ => Err(Error::Removed { path: self.path.clone() }),
        }
    }

    /// Stores a batch in one transaction. If it would exceed the store's maximum size, the oldest alerts are deleted in the same
    /// transaction.
    ///
    /// # Errors
    ///
    /// Nothing of the batch is stored then, and the store stays usable. If [`Error::is_transient`], the same batch may be tried
    /// again later.
    pub fn commit(&mut self, batch: &Batch<'_>) -> Result<Committed, Error> {
        let path = &self.path;
        let max_bytes = self.max_bytes;
        let transaction = schema::begin(&mut self.connection).at(path)?;
        let committed = write(&transaction, batch, max_bytes).at(path)?;
        transaction.commit().at(path)?;
        Ok(committed)
    }

    /// Returns the position of a source.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn position(&self, source: &str) -> Result<Option<Vec<u8>>, Error> {
        query(&self.path, || {
            let mut statement =
                self.connection.prepare_cached("SELECT position FROM positions WHERE source = ?1")?;
            statement.query_row([source], |row| row.get(0)).optional()
        })
    }

    /// Returns the positions of all sources, by name.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn positions(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        query(&self.path, || {
            let mut statement =
                self.connection.prepare_cached("SELECT source, position FROM positions ORDER BY source")?;
            statement.query_map((), |row| Ok((super::read::text(row, 0)?, row.get(1)?)))?.collect()
        })
    }

    /// Returns all state entries of a kind, by key.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn state(&self, kind: &str) -> Result<Vec<StateEntry>, Error> {
        query(&self.path, || super::read::state(&self.connection, kind))
    }

    /// Whether an event with this digest was stored within the limits of [`Retention`](super::Retention).
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn was_seen(&self, digest: &[u8; 16]) -> Result<bool, Error> {
        query(&self.path, || {
            let mut statement = self.connection.prepare_cached("SELECT 1 FROM seen WHERE hash = ?1")?;
            statement.exists([digest])
        })
    }

    /// Returns the `seq` of the latest alert that was ever stored, 0 if none was.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn latest_seq(&self) -> Result<i64, Error> {
        query(&self.path, || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'alerts'")?;
            statement.query_row((), |row| row.get(0))
        })
    }

    /// Returns when the latest alert was stored, in nanoseconds since 1970-01-01T00:00:00Z, if there is one.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn latest_stored(&self) -> Result<Option<i64>, Error> {
        query(&self.path, || {
            let mut statement = self.connection.prepare_cached("SELECT max(stored) FROM alerts")?;
            statement.query_row((), |row| row.get(0))
        })
    }

    /// Returns the size. Counts alerts using an index, which takes a few milliseconds per hundred thousand.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn size(&self) -> Result<StoreSize, Error> {
        let alerts = query(&self.path, || {
            let mut statement = self.connection.prepare_cached("SELECT count(*) FROM alerts")?;
            statement.query_row((), |row| row.get::<_, i64>(0))
        })?;
        Ok(StoreSize { alerts: u64::try_from(alerts).unwrap_or(0), bytes: dir::bytes(&self.path) })
    }

    /// Removes the cursors of all sinks but these, and returns how many were removed. A sink without a cursor has no backlog.
    ///
    /// # Errors
    ///
    /// No cursor is removed then.
    pub fn keep_sinks(&mut self, names: &[&str]) -> Result<u64, Error> {
        let path = &self.path;
        let transaction = schema::begin(&mut self.connection).at(path)?;
        let removed = remove_other_cursors(&transaction, names).at(path)?;
        transaction.commit().at(path)?;
        Ok(removed)
    }
}

fn write(
    transaction: &Transaction<'_>,
    batch: &Batch<'_>,
    max_bytes: Option<u64>,
) -> Result<Committed, rusqlite::Error> {
    let mut committed = Committed::default();
    let limit = max_bytes.map(|max_bytes| limit::Limit::new(transaction, max_bytes)).transpose()?;
    let mut unchecked = 0;
    if let Some(limit) = &limit {
        // Before the inserts, which reuse the freed pages, so that the file does not grow first.
        limit.make_room(transaction, limit::estimate(batch), &mut committed.undelivered)?;
    }
    for alert in batch.alerts {
        let mut insert = transaction.prepare_cached(
            "INSERT INTO alerts (id, time, stored, rule, priority, actor, target, message, json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO NOTHING",
        )?;
        let rows = insert.execute((
            &alert.id,
            alert.time,
            batch.now,
            &alert.rule,
            // One of eight.
            alert.priority as u8,
            &alert.actor,
            &alert.target,
            &alert.message,
            &alert.json,
        ))?;
        committed.is_new.push(rows > 0);
        unchecked += limit::payload(alert);
        if let Some(limit) = &limit
            && unchecked >= limit::CHECK_BYTES
        {
            unchecked = 0;
            limit.make_room(transaction, 0, &mut committed.undelivered)?;
        }
    }
    if !batch.changes.is_empty() {
        let mut set = transaction.prepare_cached(
            "INSERT INTO state (kind, key, value) VALUES (?1, ?2, ?3)
             ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
        )?;
        let mut remove = transaction.prepare_cached("DELETE FROM state WHERE kind = ?1 AND key = ?2")?;
        for change in batch.changes {
            match &change.value {
                Some(value) => set.execute((change.kind, &change.key, value))?,
                None => remove.execute((change.kind, &change.key))?,
            };
        }
    }
    if !batch.seen.is_empty() {
        let mut insert = transaction
            .prepare_cached("INSERT INTO seen (hash, at) VALUES (?1, ?2) ON CONFLICT (hash) DO NOTHING")?;
        for digest in batch.seen {
            insert.execute((digest, batch.now))?;
        }
    }
    if let Some((source, position)) = batch.source {
        let mut set = transaction.prepare_cached(
            "INSERT INTO positions (source, position) VALUES (?1, ?2)
             ON CONFLICT (source) DO UPDATE SET position = excluded.position",
        )?;
        set.execute((source, position))?;
    }
    if let Some(limit) = &limit {
        limit.make_room(transaction, 0, &mut committed.undelivered)?;
    }
    Ok(committed)
}

fn remove_other_cursors(transaction: &Transaction<'_>, names: &[&str]) -> Result<u64, rusqlite::Error> {
    let known: Vec<String> = {
        let mut statement = transaction.prepare_cached("SELECT sink FROM cursors")?;
        statement.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?
    };
    let mut removed = 0;
    for name in known.iter().filter(|name| !names.contains(&name.as_str())) {
        transaction.prepare_cached("DELETE FROM cursors WHERE sink = ?1")?.execute([name])?;
        removed += 1;
    }
    Ok(removed)
}
