//! A sink's door: how far it has delivered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::error::{At as _, ask};
use super::{Error, dir, schema};

/// How long a sink waits for the daemon's transaction. Nothing but the sink waits with it.
const BUSY: Duration = Duration::from_secs(30);

/// Where a sink begins that the store does not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After the newest alert: only what comes from now on.
    Newest,
    /// Before the oldest alert: all that is kept.
    Oldest,
}

/// How far one sink has delivered, on a connection of its own.
#[derive(Debug)]
pub struct Cursor {
    connection: Connection,
    path: PathBuf,
    sink: String,
}

impl Cursor {
    /// Registers a sink by name, or finds it again. From then on, what is not delivered by it counts as its backlog.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] without a store, and whatever prevents writing.
    pub fn open(dir: &Path, sink: &str, start: Start) -> Result<Self, Error> {
        let path = dir::file(dir);
        let connection = schema::connect_to_add(dir, &path, BUSY)?;
        let register = match start {
            // Also when the newest is gone already.
            Start::Newest => {
                "INSERT INTO cursors (sink, seq)
                 VALUES (?1, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'alerts'), 0))
                 ON CONFLICT (sink) DO NOTHING"
            }
            Start::Oldest => "INSERT INTO cursors (sink, seq) VALUES (?1, 0) ON CONFLICT (sink) DO NOTHING",
        };
        connection.execute(register, [sink]).at(&path)?;
        Ok(Cursor { connection, path, sink: sink.to_owned() })
    }

    /// The last alert that was delivered; 0 where none was. [`Reader::after`](super::Reader::after) has the next ones.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or the sink was forgotten meanwhile.
    pub fn load(&self) -> Result<i64, Error> {
        ask(&self.path, || {
            let mut statement = self.connection.prepare_cached("SELECT seq FROM cursors WHERE sink = ?1")?;
            statement.query_row([&self.sink], |row| row.get(0))
        })
    }

    /// Everything up to this alert is delivered. It may go back, to deliver again.
    ///
    /// # Errors
    ///
    /// Then the cursor stays where it was; after a restart the sink delivers again from there.
    pub fn save(&self, seq: i64) -> Result<(), Error> {
        ask(&self.path, || {
            let mut statement = self.connection.prepare_cached(
                "INSERT INTO cursors (sink, seq) VALUES (?1, ?2)
                 ON CONFLICT (sink) DO UPDATE SET seq = excluded.seq",
            )?;
            statement.execute((&self.sink, seq)).map(|_| ())
        })
    }
}
