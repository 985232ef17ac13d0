//! Decisions to trust a reader.

use std::path::Path;
use std::time::Duration;

use super::error::{WithPath as _, query};
use super::{Error, dir, schema};
use crate::detection::state::kind;

/// How long to wait for the daemon's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Stores a decision about a reader, or removes it. A running daemon applies it. Returns whether there was one before.
///
/// # Errors
///
/// [`Error::Missing`] if there is no store, or if it cannot be written.
pub fn set_trust(dir: &Path, user: &str, decision: Option<&[u8]>) -> Result<bool, Error> {
    let path = dir::file(dir);
    let mut connection = schema::connect_existing(dir, &path, BUSY_TIMEOUT)?;
    let transaction = schema::begin(&mut connection).at(&path)?;
    let removed = query(&path, || {
        let mut statement = transaction.prepare_cached("DELETE FROM state WHERE kind = ?1 AND key = ?2")?;
        statement.execute((kind::TRUST, user.as_bytes()))
    })?;
    if let Some(decision) = decision {
        query(&path, || {
            let mut statement =
                transaction.prepare_cached("INSERT INTO state (kind, key, value) VALUES (?1, ?2, ?3)")?;
            statement.execute((kind::TRUST, user.as_bytes(), decision))
        })?;
    }
    transaction.commit().at(&path)?;
    Ok(removed > 0)
}
