//! Marks alerts as seen by a person.

use std::path::Path;
use std::time::Duration;

use super::error::{WithPath as _, query};
use super::{AlertId, Error, dir, schema};

/// How long to wait for the daemon's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// An acknowledgement of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Time of the acknowledgement, in nanoseconds since 1970-01-01T00:00:00Z.
    pub at: i64,
    /// Name of the person, as they gave it; not verified.
    pub by: String,
    /// Free text; may be empty.
    pub note: String,
}

/// Acknowledges alerts, all or none of them; the daemon may run meanwhile. The first acknowledgement of an alert wins. Returns the
/// ids that were acknowledged now: the others were before, or do not exist.
///
/// # Errors
///
/// [`Error::Missing`] if there is no store, or if it cannot be written.
pub fn acknowledge(dir: &Path, ids: &[AlertId], ack: &Ack) -> Result<Vec<AlertId>, Error> {
    let path = dir::file(dir);
    let mut connection = schema::connect_existing(dir, &path, BUSY_TIMEOUT)?;
    let transaction = schema::begin(&mut connection).at(&path)?;
    let mut acknowledged = Vec::new();
    for id in ids {
        let new = query(&path, || {
            let mut statement = transaction.prepare_cached(
                "INSERT INTO acks (id, at, by, note) SELECT id, ?2, ?3, ?4 FROM alerts WHERE id = ?1
                 ON CONFLICT (id) DO NOTHING",
            )?;
            statement.execute((id, ack.at, &ack.by, &ack.note))
        })?;
        if new > 0 {
            acknowledged.push(*id);
        }
    }
    transaction.commit().at(&path)?;
    Ok(acknowledged)
}
