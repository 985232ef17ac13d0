//! Stores how far a sink has delivered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::error::{WithPath as _, query};
use super::{Error, dir, schema};

/// How long a sink waits for the daemon's transaction. Only this sink is delayed by it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a sink starts that is new to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkStart {
    /// After the latest alert: only alerts stored from now on.
    Newest,
    /// With the oldest stored alert.
    Oldest,
}

/// The cursor of one sink, on a connection of its own.
#[derive(Debug)]
pub struct Cursor {
    connection: Connection,
    path: PathBuf,
    sink: String,
}

impl Cursor {
    /// Registers a sink, if its name is new to the store. Undelivered alerts count as its backlog.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if there is no store, or if it cannot be written.
    pub fn open(dir: &Path, sink: &str, start: SinkStart) -> Result<Self, Error> {
        let path = dir::file(dir);
        let connection = schema::connect_existing(dir, &path, BUSY_TIMEOUT)?;
        let register = match start {
            // From the sequence, because the latest alert may have been deleted.
            SinkStart::Newest => {
                "INSERT INTO cursors (sink, seq)
                 VALUES (?1, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'alerts'), 0))
                 ON CONFLICT (sink) DO NOTHING"
            }
            SinkStart::Oldest => {
                "INSERT INTO cursors (sink, seq) VALUES (?1, 0) ON CONFLICT (sink) DO NOTHING"
            }
        };
        connection.execute(register, [sink]).at(&path)?;
        Ok(Cursor { connection, path, sink: sink.to_owned() })
    }

    /// Removes a sink: alerts that it has not delivered no longer count as a backlog.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn remove(dir: &Path, sink: &str) -> Result<(), Error> {
        let path = dir::file(dir);
        let connection = schema::connect_existing(dir, &path, BUSY_TIMEOUT)?;
        connection.execute("DELETE FROM cursors WHERE sink = ?1", [sink]).at(&path)?;
        Ok(())
    }

    /// `seq` of the last alert that was delivered, 0 if none was. [`StoreReader::after`](super::StoreReader::after) returns the next ones.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or the sink was removed meanwhile.
    pub fn load(&self) -> Result<i64, Error> {
        query(&self.path, || {
            let mut statement = self.connection.prepare_cached("SELECT seq FROM cursors WHERE sink = ?1")?;
            statement.query_row([&self.sink], |row| row.get(0))
        })
    }

    /// Saves that all alerts up to this one are delivered. May move back, to deliver alerts again.
    ///
    /// # Errors
    ///
    /// If the cursor cannot be saved. It is unchanged then, and after a restart the sink delivers again from there.
    pub fn save(&self, seq: i64) -> Result<(), Error> {
        query(&self.path, || {
            let mut statement = self.connection.prepare_cached(
                "INSERT INTO cursors (sink, seq) VALUES (?1, ?2)
                 ON CONFLICT (sink) DO UPDATE SET seq = excluded.seq",
            )?;
            statement.execute((&self.sink, seq)).map(|_| ())
        })
    }
}
