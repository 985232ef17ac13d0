//! A person's door: saying that an alert was looked at.

use std::path::Path;
use std::time::Duration;

use super::error::{At as _, ask};
use super::{AlertId, Error, dir, schema, write};

/// Somebody looked at an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// When, in nanoseconds since 1970.
    pub at: i64,
    /// Who, as they say themselves.
    pub by: String,
    /// What they found; may be empty.
    pub note: String,
}

/// Marks alerts as looked at, all or none, while the daemon may run. The first to say so stands. Says which of them were marked
/// now; the others are marked already, or there is no such alert.
///
/// # Errors
///
/// [`Error::Missing`] without a store, and whatever prevents writing.
pub fn acknowledge(dir: &Path, ids: &[AlertId], ack: &Ack) -> Result<Vec<AlertId>, Error> {
    let path = dir::file(dir);
    let mut connection = schema::connect_to_add(dir, &path, Duration::from_secs(10))?;
    let transaction = write::begin(&mut connection).at(&path)?;
    let mut marked = Vec::new();
    for id in ids {
        let new = ask(&path, || {
            let mut statement = transaction.prepare_cached(
                "INSERT INTO acks (id, at, by, note) SELECT id, ?2, ?3, ?4 FROM alerts WHERE id = ?1
                 ON CONFLICT (id) DO NOTHING",
            )?;
            statement.execute((id, ack.at, &ack.by, &ack.note))
        })?;
        if new > 0 {
            marked.push(*id);
        }
    }
    transaction.commit().at(&path)?;
    Ok(marked)
}
