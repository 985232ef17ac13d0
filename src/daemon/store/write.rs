//! The daemon's door: batches in, and what a start needs to go on where the last one ended.

use std::fs::File;
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use super::error::{At as _, ask};
use super::{Error, NewAlert, StateChange};

/// What belongs together: it is kept whole or not at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch<'a> {
    /// The source's name and its position after the batch, in whatever form the source likes.
    pub source: Option<(&'a str, &'a [u8])>,
    /// What the events made alert, in their order.
    pub alerts: &'a [NewAlert],
    /// What was learned and forgotten, in its order.
    pub changes: &'a [StateChange],
    /// Hashes of events that a webhook may send again.
    pub seen: &'a [[u8; 16]],
    /// When, in nanoseconds since 1970.
    pub now: i64,
}

/// What became of the alerts of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// So many are stored now.
    pub new: u64,
    /// So many were there already.
    pub repeated: u64,
}

/// A key that something is kept by, and its value.
pub type StateEntry = (Vec<u8>, Vec<u8>);

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// So many alerts.
    pub alerts: u64,
    /// So many bytes on the disk, with the log that is not written back yet.
    pub bytes: u64,
}

/// The store of one directory, open for writing. There is one a directory.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    // Given back when the store is closed, after the connection.
    _lock: File,
}

impl Store {
    pub(super) fn new(connection: Connection, path: PathBuf, lock: File) -> Self {
        Store { connection, path, _lock: lock }
    }

    /// Keeps all of a batch.
    ///
    /// # Errors
    ///
    /// Then nothing of it is kept, and the store goes on. Where [`Error::is_transient`] says so, the same batch may be tried again
    /// after a while.
    pub fn commit(&mut self, batch: &Batch<'_>) -> Result<Committed, Error> {
        let path = &self.path;
        let transaction = begin(&mut self.connection).at(path)?;
        let committed = write(&transaction, batch).at(path)?;
        transaction.commit().at(path)?;
        Ok(committed)
    }

    /// A source's last position.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn position(&self, source: &str) -> Result<Option<Vec<u8>>, Error> {
        ask(&self.path, || {
            let mut statement =
                self.connection.prepare_cached("SELECT position FROM positions WHERE source = ?1")?;
            statement.query_row([source], |row| row.get(0)).optional()
        })
    }

    /// All sources that have a position, by name.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn positions(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        ask(&self.path, || {
            let mut statement =
                self.connection.prepare_cached("SELECT source, position FROM positions ORDER BY source")?;
            statement.query_map((), |row| Ok((super::read::text(row, 0)?, row.get(1)?)))?.collect()
        })
    }

    /// All that is kept of a kind: keys and values, by key.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn state(&self, kind: &str) -> Result<Vec<StateEntry>, Error> {
        ask(&self.path, || super::read::state(&self.connection, kind))
    }

    /// Whether an event of this hash was in a batch, as far back as [`Retention`](super::Retention) reaches.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn was_seen(&self, hash: &[u8; 16]) -> Result<bool, Error> {
        ask(&self.path, || {
            let mut statement = self.connection.prepare_cached("SELECT 1 FROM seen WHERE hash = ?1")?;
            statement.exists([hash])
        })
    }

    /// The newest alert's place; 0 where there never was one.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn latest_seq(&self) -> Result<i64, Error> {
        ask(&self.path, || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'alerts'")?;
            statement.query_row((), |row| row.get(0))
        })
    }

    /// How much is in it. Counts alerts by an index: some milliseconds for a hundred thousand.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn size(&self) -> Result<StoreSize, Error> {
        let alerts = ask(&self.path, || {
            let mut statement = self.connection.prepare_cached("SELECT count(*) FROM alerts")?;
            statement.query_row((), |row| row.get::<_, i64>(0))
        })?;
        Ok(StoreSize { alerts: u64::try_from(alerts).unwrap_or(0), bytes: super::dir::bytes(&self.path) })
    }

    /// Forgets the cursors of all sinks but these: one that is no longer configured has no backlog, and loses nothing.
    /// Says how many were forgotten.
    ///
    /// # Errors
    ///
    /// Then none is forgotten.
    pub fn keep_sinks(&mut self, names: &[&str]) -> Result<u64, Error> {
        let path = &self.path;
        let transaction = begin(&mut self.connection).at(path)?;
        let forgotten = forget_others(&transaction, names).at(path)?;
        transaction.commit().at(path)?;
        Ok(forgotten)
    }
}

/// Starts a transaction that writes. It waits for other writers here and nowhere else.
pub fn begin(connection: &mut Connection) -> Result<Transaction<'_>, rusqlite::Error> {
    if !connection.is_autocommit() {
        // A transaction whose end failed would make all that follow fail.
        connection.execute_batch("ROLLBACK")?;
    }
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn write(transaction: &Transaction<'_>, batch: &Batch<'_>) -> Result<Committed, rusqlite::Error> {
    let mut committed = Committed::default();
    if !batch.alerts.is_empty() {
        let mut insert = transaction.prepare_cached(
            "INSERT INTO alerts (id, time, stored, rule, priority, actor, target, message, json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO NOTHING",
        )?;
        for alert in batch.alerts {
            let new = insert.execute((
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
            *(if new > 0 { &mut committed.new } else { &mut committed.repeated }) += 1;
        }
    }
    if !batch.changes.is_empty() {
        let mut set = transaction.prepare_cached(
            "INSERT INTO state (kind, key, value) VALUES (?1, ?2, ?3)
             ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
        )?;
        let mut forget = transaction.prepare_cached("DELETE FROM state WHERE kind = ?1 AND key = ?2")?;
        for change in batch.changes {
            match &change.value {
                Some(value) => set.execute((change.kind, &change.key, value))?,
                None => forget.execute((change.kind, &change.key))?,
            };
        }
    }
    if !batch.seen.is_empty() {
        let mut insert = transaction
            .prepare_cached("INSERT INTO seen (hash, at) VALUES (?1, ?2) ON CONFLICT (hash) DO NOTHING")?;
        for hash in batch.seen {
            insert.execute((hash, batch.now))?;
        }
    }
    if let Some((source, position)) = batch.source {
        let mut set = transaction.prepare_cached(
            "INSERT INTO positions (source, position) VALUES (?1, ?2)
             ON CONFLICT (source) DO UPDATE SET position = excluded.position",
        )?;
        set.execute((source, position))?;
    }
    Ok(committed)
}

fn forget_others(transaction: &Transaction<'_>, names: &[&str]) -> Result<u64, rusqlite::Error> {
    let known: Vec<String> = {
        let mut statement = transaction.prepare_cached("SELECT sink FROM cursors")?;
        statement.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?
    };
    let mut forgotten = 0;
    for name in known.iter().filter(|name| !names.contains(&name.as_str())) {
        transaction.prepare_cached("DELETE FROM cursors WHERE sink = ?1")?.execute([name])?;
        forgotten += 1;
    }
    Ok(forgotten)
}
