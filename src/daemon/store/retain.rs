//! Making room: the oldest goes, in small steps.

use std::time::Duration;

use rusqlite::{Connection, Transaction};

use super::error::At as _;
use super::write::begin;
use super::{Error, Store};

/// How much one step removes. 500 alerts take some milliseconds.
const STEP: i64 = 500;
/// How many are removed before the size is looked at again.
const SLICE: i64 = 50;
/// So many of the newest alerts stay whatever the size: what is learned takes room too, and must not cost all alerts.
const KEPT: i64 = 100;
/// So many empty pages may stay in the file, to be used again, rather than be given back and asked for in turn.
const SPARE: i64 = 256;

/// What is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Alerts that were stored longer ago go.
    pub max_age: Option<Duration>,
    /// The oldest alerts go while there are more bytes than this in the file, empty pages not counted.
    pub max_bytes: Option<u64>,
    /// Hashes of events that were seen longer ago go.
    pub seen_age: Duration,
    /// No more hashes of events than this, about.
    pub max_seen: u32,
}

impl Default for Retention {
    /// 90 days and 512 MiB of alerts. An hour and 500,000 hashes of events, which take about 40 MB: the apiserver gives up sending
    /// a batch again after some minutes.
    fn default() -> Self {
        Retention {
            max_age: Some(Duration::from_secs(90 * 86_400)),
            max_bytes: Some(512 << 20),
            seen_age: Duration::from_secs(3600),
            max_seen: 500_000,
        }
    }
}

/// What a step removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// So many alerts.
    pub removed: u64,
    /// So many of them were not delivered yet by each registered sink.
    pub undelivered: u64,
    /// There is more to do: call again, after whatever waits.
    pub more: bool,
}

impl Store {
    /// Removes what is too old or too much: one small step, some milliseconds long, in a transaction of its own. `now` is in
    /// nanoseconds since 1970.
    ///
    /// # Errors
    ///
    /// Then nothing was removed.
    pub fn retain(&mut self, retention: &Retention, now: i64) -> Result<Retained, Error> {
        let path = &self.path;
        let transaction = begin(&mut self.connection).at(path)?;
        let mut retained = step(&transaction, retention, now).at(path)?;
        transaction.commit().at(path)?;
        retained.more |= give_back(&self.connection).at(path)?;
        Ok(retained)
    }
}

fn step(transaction: &Transaction<'_>, retention: &Retention, now: i64) -> Result<Retained, rusqlite::Error> {
    let mut retained = Retained::default();
    let delivered: Option<i64> =
        transaction.prepare_cached("SELECT min(seq) FROM cursors")?.query_row((), |row| row.get(0))?;
    let delivered = delivered.unwrap_or(i64::MAX);
    if let Some(age) = retention.max_age {
        let removed = remove(
            transaction,
            "DELETE FROM alerts WHERE seq IN (SELECT seq FROM alerts WHERE stored < ?1 ORDER BY stored LIMIT ?2)
             RETURNING seq, id",
            (before(now, age), STEP),
            delivered,
            &mut retained,
        )?;
        retained.more |= removed == STEP;
    }
    if let Some(bytes) = retention.max_bytes {
        let mut left = STEP;
        while left > 0 && used(transaction)? > bytes {
            let removed = remove(
                transaction,
                "DELETE FROM alerts WHERE seq IN (
                     SELECT seq FROM alerts WHERE seq < (SELECT seq FROM alerts ORDER BY seq DESC LIMIT 1 OFFSET ?1)
                     ORDER BY seq LIMIT ?2)
                 RETURNING seq, id",
                (KEPT - 1, SLICE),
                delivered,
                &mut retained,
            )?;
            if removed == 0 {
                break;
            }
            left -= removed;
        }
        retained.more |= left <= 0;
    }
    let forgotten = transaction
        .prepare_cached(
            "DELETE FROM seen WHERE n IN (SELECT n FROM seen ORDER BY n LIMIT ?1)
             AND (at < ?2 OR n <= (SELECT max(n) FROM seen) - ?3)",
        )?
        .execute((STEP * 4, before(now, retention.seen_age), retention.max_seen))?;
    retained.more |= i64::try_from(forgotten).is_ok_and(|forgotten| forgotten == STEP * 4);
    Ok(retained)
}

/// A time that lies so far back.
fn before(now: i64, age: Duration) -> i64 {
    now.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}

/// Removes alerts and what was said about them; how many.
fn remove(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: (i64, i64),
    delivered: i64,
    retained: &mut Retained,
) -> Result<i64, rusqlite::Error> {
    let gone: Vec<(i64, Vec<u8>)> = transaction
        .prepare_cached(sql)?
        .query_map(parameters, |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut forget = transaction.prepare_cached("DELETE FROM acks WHERE id = ?1")?;
    for (seq, id) in &gone {
        forget.execute([id])?;
        retained.removed += 1;
        retained.undelivered += u64::from(*seq > delivered);
    }
    Ok(i64::try_from(gone.len()).unwrap_or(i64::MAX))
}

/// Bytes of the file that hold something.
fn used(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let (pages, free) = (number(connection, "page_count")?, number(connection, "freelist_count")?);
    let bytes = pages.saturating_sub(free).saturating_mul(number(connection, "page_size")?);
    Ok(u64::try_from(bytes).unwrap_or_default())
}

fn number(connection: &Connection, pragma: &str) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

/// Gives some empty pages back to the file system, if there are many. Whether there are more.
fn give_back(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let free = number(connection, "freelist_count")?;
    // A tenth of the file is not many.
    let spare = SPARE.max(number(connection, "page_count")? / 10);
    if free <= spare {
        return Ok(false);
    }
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({SPARE})"))?;
    let mut rows = vacuum.query(())?;
    while rows.next()?.is_some() {}
    // A file that cannot give back would have us asked for ever.
    let left = number(connection, "freelist_count")?;
    Ok(left < free && left > spare)
}
