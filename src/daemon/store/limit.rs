//! Keeps the store below its maximum size: the oldest alerts are deleted, and those that a sink had not delivered are counted.
//!
//! The limit holds for the database and its write-ahead log together, and also inside each transaction: pages are freed before a batch is
//! written, so the file only grows while there is room. A part of the maximum is reserved for the write-ahead log, which is checkpointed
//! before it exceeds that part (see [`log_budget`]).

use rusqlite::{Connection, Transaction};

use super::batch::{Batch, Undelivered};
use crate::detection::alert::NewAlert;

/// Bytes of inserted alerts after which the size is checked again.
pub(super) const CHECK_BYTES: usize = 256 << 10;

/// Number of alerts that are deleted between two checks of the size.
const SLICE: i64 = 50;

/// Minimum number of latest alerts that are kept regardless of the size: learned state also takes room, and must not displace all alerts.
const MIN_ALERTS: i64 = 100;

/// Size of the row of an event's digest and its index entry, in bytes.
const DIGEST_BYTES: usize = 80;

/// Size of an alert's row without its texts, and of its entries in three indexes, in bytes.
const ROW_OVERHEAD: usize = 160;

/// Room for the write-ahead log of several transactions, if the maximum size allows it.
const MIN_LOG_BYTES: u64 = 4 << 20;
const MAX_LOG_BYTES: u64 = 32 << 20;

/// The part of the maximum size that is reserved for the write-ahead log, in bytes.
pub(super) fn log_budget(max_bytes: u64) -> u64 {
    (max_bytes / 8).clamp(MIN_LOG_BYTES.min(max_bytes / 4), MAX_LOG_BYTES)
}

/// Bytes of texts in an alert.
pub(super) fn payload(alert: &NewAlert) -> usize {
    alert.json.len() + alert.message.len() + alert.rule.len() + alert.actor.len() + alert.target.len()
}

/// Upper estimate of the number of pages that a batch needs.
pub(super) fn estimate(batch: &Batch<'_>) -> u64 {
    let alerts: usize = batch.alerts.iter().map(|alert| payload(alert) + ROW_OVERHEAD).sum();
    // A prepared Kafka transaction is one change with all its alerts.
    let changes: usize = batch.changes.iter().map(|change| change.value.as_ref().map_or(0, Vec::len)).sum();
    // Pages of overflow chains, and pages split by random insertions, are not full.
    let rows = alerts + changes;
    u64::try_from(rows + rows / 4 + batch.seen.len() * DIGEST_BYTES).unwrap_or(u64::MAX)
}

/// The maximum size and the cursors of the sinks, as of the start of a transaction.
pub(super) struct Limit {
    max_bytes: u64,
    cursors: Vec<(String, i64)>,
}

impl Limit {
    pub(super) fn new(transaction: &Transaction<'_>, max_bytes: u64) -> Result<Self, rusqlite::Error> {
        let max_bytes = max_bytes.saturating_sub(log_budget(max_bytes));
        Ok(Limit { max_bytes, cursors: cursors(transaction)? })
    }

    /// Deletes the oldest alerts until this many more bytes fit.
    pub(super) fn make_room(
        &self,
        transaction: &Transaction<'_>,
        bytes: u64,
        undelivered: &mut Undelivered,
    ) -> Result<(), rusqlite::Error> {
        self.delete_excess(transaction, bytes, i64::MAX, undelivered).map(|_| ())
    }

    /// Deletes at most about `max_alerts` of the oldest alerts while the store is too large. Returns how many were deleted, and
    /// whether it may still be too large.
    pub(super) fn delete_excess(
        &self,
        transaction: &Transaction<'_>,
        bytes: u64,
        max_alerts: i64,
        undelivered: &mut Undelivered,
    ) -> Result<(u64, bool), rusqlite::Error> {
        let mut deleted = 0;
        while used_bytes(transaction)?.saturating_add(bytes) > self.max_bytes {
            if i64::try_from(deleted).unwrap_or(i64::MAX) >= max_alerts {
                return Ok((deleted, true));
            }
            let slice = delete_oldest(transaction)?;
            if slice.is_empty() {
                break;
            }
            deleted += slice.len() as u64;
            count_undelivered(&self.cursors, &slice, undelivered);
        }
        Ok((deleted, false))
    }
}

/// Deletes a number of the oldest alerts, and returns their sequence numbers.
fn delete_oldest(transaction: &Transaction<'_>) -> Result<Vec<i64>, rusqlite::Error> {
    delete(
        transaction,
        "DELETE FROM alerts WHERE seq IN (
             SELECT seq FROM alerts WHERE seq < (SELECT seq FROM alerts ORDER BY seq DESC LIMIT 1 OFFSET ?1)
             ORDER BY seq LIMIT ?2)
         RETURNING seq, id",
        &[MIN_ALERTS - 1, SLICE],
    )
}

/// Deletes alerts together with their acknowledgements, and returns their sequence numbers.
pub(super) fn delete(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: &[i64],
) -> Result<Vec<i64>, rusqlite::Error> {
    let deleted: Vec<(i64, Vec<u8>)> = transaction
        .prepare_cached(sql)?
        .query_map(rusqlite::params_from_iter(parameters), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut remove_ack = transaction.prepare_cached("DELETE FROM acks WHERE id = ?1")?;
    for (_, id) in &deleted {
        remove_ack.execute([id])?;
    }
    Ok(deleted.into_iter().map(|(seq, _)| seq).collect())
}

pub(super) fn cursors(transaction: &Transaction<'_>) -> Result<Vec<(String, i64)>, rusqlite::Error> {
    let mut statement = transaction.prepare_cached("SELECT sink, seq FROM cursors ORDER BY sink")?;
    statement.query_map((), |row| Ok((super::read::text(row, 0)?, row.get(1)?)))?.collect()
}

/// Counts, for each sink, the deleted alerts that it had not delivered.
fn count_undelivered(cursors: &[(String, i64)], deleted: &[i64], undelivered: &mut Undelivered) {
    for (sink, cursor) in cursors {
        let count = deleted.iter().filter(|seq| *seq > cursor).count() as u64;
        if count == 0 {
            continue;
        }
        match undelivered.iter_mut().find(|(name, _)| name == sink) {
            Some((_, total)) => *total += count,
            None => undelivered.push((sink.clone(), count)),
        }
    }
}

/// Size of the database pages that are in use, in bytes.
fn used_bytes(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let (pages, free) = (pragma(connection, "page_count")?, pragma(connection, "freelist_count")?);
    let bytes = pages.saturating_sub(free).saturating_mul(pragma(connection, "page_size")?);
    Ok(u64::try_from(bytes).unwrap_or_default())
}

pub(super) fn pragma(connection: &Connection, name: &str) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}
