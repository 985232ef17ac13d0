//! Deletes alerts and event digests beyond the limits of age and size, in small steps.

use std::time::Duration;

use rusqlite::{Connection, Transaction};

use super::batch::Undelivered;
use super::error::WithPath as _;
use super::limit::{self, Limit, pragma};
use super::{Error, Store, schema};

/// Maximum number of alerts that a step deletes by age. 500 take a few milliseconds.
const MAX_ALERTS_PER_STEP: i64 = 500;

/// Maximum number of event digests that a step deletes.
const MAX_DIGESTS_PER_STEP: i64 = 2000;

/// Number of free pages that may stay in the file: they are reused, and need not be returned and requested again.
const SPARE_PAGES: i64 = 256;

/// Retention limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Alerts that were stored longer ago are deleted, if every sink has delivered them.
    pub max_age: Option<Duration>,
    /// The oldest alerts are deleted while the store is larger than this many bytes, delivered or not.
    pub max_bytes: Option<u64>,
    /// Digests of events that were stored longer ago are deleted.
    pub seen_age: Duration,
    /// Maximum number of digests of events.
    pub max_seen: u32,
}

impl Default for Retention {
    /// 90 days and 512 MiB of alerts. One hour and 500,000 digests of events, which take about 40 MB: the apiserver repeats a batch for a
    /// few minutes.
    fn default() -> Self {
        Retention {
            max_age: Some(Duration::from_secs(90 * 86_400)),
            max_bytes: Some(512 << 20),
            seen_age: Duration::from_secs(3600),
            max_seen: 500_000,
        }
    }
}

/// The result of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Number of alerts that were deleted.
    pub deleted: u64,
    /// Alerts among them that a sink had not delivered.
    pub undelivered: Undelivered,
    /// There is more to delete: call again.
    pub has_more: bool,
}

impl Store {
    /// Deletes data beyond the limits, in one step of a few milliseconds, in a separate transaction. `now` is in nanoseconds since
    /// 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; nothing is deleted then.
    pub fn retain(&mut self, retention: &Retention, now: i64) -> Result<Retained, Error> {
        let path = &self.path;
        let transaction = schema::begin(&mut self.connection).at(path)?;
        let mut retained = step(&transaction, retention, now).at(path)?;
        transaction.commit().at(path)?;
        retained.has_more |= return_free_pages(&self.connection).at(path)?;
        Ok(retained)
    }
}

fn step(transaction: &Transaction<'_>, retention: &Retention, now: i64) -> Result<Retained, rusqlite::Error> {
    let mut retained = Retained::default();
    if let Some(age) = retention.max_age {
        let cursors = limit::cursors(transaction)?;
        let delivered = cursors.iter().map(|(_, seq)| *seq).min().unwrap_or(i64::MAX);
        let deleted = limit::delete(
            transaction,
            "DELETE FROM alerts WHERE seq IN (
                 SELECT seq FROM alerts WHERE stored < ?1 AND seq <= ?2 ORDER BY stored LIMIT ?3)
             RETURNING seq, id",
            &[cutoff(now, age), delivered, MAX_ALERTS_PER_STEP],
        )?;
        retained.deleted += deleted.len() as u64;
        retained.has_more |= i64::try_from(deleted.len()).is_ok_and(|count| count == MAX_ALERTS_PER_STEP);
    }
    if let Some(max_bytes) = retention.max_bytes {
        let limit = Limit::new(transaction, max_bytes)?;
        let (deleted, has_more) =
            limit.delete_excess(transaction, 0, MAX_ALERTS_PER_STEP, &mut retained.undelivered)?;
        retained.deleted += deleted;
        retained.has_more |= has_more;
    }
    let removed = transaction
        .prepare_cached(
            "DELETE FROM seen WHERE n IN (SELECT n FROM seen ORDER BY n LIMIT ?1)
             AND (at < ?2 OR n <= (SELECT max(n) FROM seen) - ?3)",
        )?
        .execute((MAX_DIGESTS_PER_STEP, cutoff(now, retention.seen_age), retention.max_seen))?;
    retained.has_more |= i64::try_from(removed).is_ok_and(|removed| removed == MAX_DIGESTS_PER_STEP);
    Ok(retained)
}

/// The time `age` before `now`.
fn cutoff(now: i64, age: Duration) -> i64 {
    now.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}

/// Returns some free pages to the file system, if there are many. Returns whether there are more.
fn return_free_pages(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let free = pragma(connection, "freelist_count")?;
    // A tenth of the file is not worth the effort.
    let spare = SPARE_PAGES.max(pragma(connection, "page_count")? / 10);
    if free <= spare {
        return Ok(false);
    }
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({SPARE_PAGES})"))?;
    let mut rows = vacuum.query(())?;
    while rows.next()?.is_some() {}
    // A file that cannot shrink must not cause an endless loop.
    let left = pragma(connection, "freelist_count")?;
    Ok(left < free && left > spare)
}
