//! Reads a store while the daemon writes to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::error::query;
use super::{Ack, AlertId, Error, StateEntry, StoredAlert, dir, schema};
use crate::detection::alert::Priority;

/// How long to wait while the daemon locks the file exclusively, which only happens during recovery after a kill.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const COLUMNS: &str = "alerts.seq, alerts.id, alerts.time, alerts.stored, alerts.rule, alerts.priority, alerts.actor, \
                       alerts.target, alerts.json, alerts.message";
const ACK_COLUMNS: &str = "acks.at, acks.by, acks.note";
const FROM: &str = "alerts LEFT JOIN acks ON acks.id = alerts.id";

/// Selects alerts. The default selects all alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only alerts whose id starts with this prefix.
    pub id: Option<IdPrefix>,
    /// Only alerts of this rule.
    pub rule: Option<String>,
    /// Minimum priority.
    pub min_priority: Option<Priority>,
    /// Only alerts whose actor contains this text.
    pub actor: Option<String>,
    /// Earliest time of the event, in nanoseconds since 1970-01-01T00:00:00Z.
    pub since: Option<i64>,
    /// Exclusive end of the time of the event.
    pub until: Option<i64>,
    /// Only acknowledged alerts, or only unacknowledged ones.
    pub acknowledged: Option<bool>,
    /// Maximum number of alerts; no limit if `None`.
    pub limit: Option<u32>,
    /// Only alerts with a lower `seq`, for the next page.
    pub before_seq: Option<i64>,
}

/// An alert and its acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The alert.
    pub alert: StoredAlert,
    /// The acknowledgement, if there is one.
    pub ack: Option<Ack>,
}

/// The first hex digits of an alert's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdPrefix {
    first: AlertId,
    last: AlertId,
}

impl IdPrefix {
    /// Parses 1 to 32 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > 32 {
            return None;
        }
        let (mut first, mut last) = ([0; 16], [0xff; 16]);
        for (place, digit) in text.bytes().enumerate() {
            let digit = u8::try_from(char::from(digit).to_digit(16)?).ok()?;
            let shift = if place % 2 == 0 { 4 } else { 0 };
            first[place / 2] |= digit << shift;
            last[place / 2] &= !(0xf << shift) | (digit << shift);
        }
        Some(IdPrefix { first, last })
    }
}

/// The alerts whose id starts with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdMatch {
    /// No alert.
    None,
    /// Exactly one alert.
    One(Box<Listed>),
    /// Several alerts; contains the ids of the first ones.
    Several(Vec<AlertId>),
}

/// Statistics on the content of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of alerts.
    pub alerts: u64,
    /// Number of alerts without an acknowledgement.
    pub unacknowledged: u64,
    /// Size on the disk in bytes, including the write-ahead log.
    pub bytes: u64,
    /// When the oldest alert was stored, in nanoseconds since 1970-01-01T00:00:00Z.
    pub oldest: Option<i64>,
    /// When the newest alert was stored.
    pub newest: Option<i64>,
    /// `seq` of the latest alert, 0 if there is none.
    pub latest_seq: i64,
    /// Progress of the sinks, by name.
    pub sinks: Vec<SinkStats>,
}

/// Progress of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkStats {
    /// Name of the sink.
    pub name: String,
    /// `seq` of the last alert that it delivered.
    pub seq: i64,
    /// Number of alerts that it has not delivered yet.
    pub backlog: u64,
}

/// Reads a store, on a read-only connection of its own.
#[derive(Debug)]
pub struct StoreReader {
    connection: Connection,
    path: PathBuf,
}

impl StoreReader {
    /// Opens the store of a directory, whether or not a daemon is running.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if there is no store, [`Error::Newer`] or [`Error::Older`] if this program cannot read it.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir::file(dir);
        let connection = schema::connect_read_only(dir, &path, BUSY_TIMEOUT)?;
        Ok(StoreReader { connection, path })
    }

    /// Returns the next alerts after a sequence number, oldest first.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn after(&self, seq: i64, limit: u32) -> Result<Vec<StoredAlert>, Error> {
        query(&self.path, || {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM alerts WHERE seq > ?1 ORDER BY seq LIMIT ?2"
            ))?;
            statement.query_map((seq, limit), alert)?.collect()
        })
    }

    /// Returns alerts, newest first.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Listed>, Error> {
        // Without the bounds, a query for the last hour would read all alerts until the limit is reached. NOT INDEXED reads in the order of
        // `seq`; otherwise, all alerts of the time range would be sorted for each page.
        let Some((first, last)) = self.seq_bounds(filter)? else { return Ok(Vec::new()) };
        let (conditions, mut parameters) = conditions(filter);
        let limit = filter.limit.map_or(-1, i64::from);
        parameters.extend([(":limit", &limit as &dyn ToSql), (":first", &first), (":last", &last)]);
        query(&self.path, || {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, {ACK_COLUMNS} FROM alerts NOT INDEXED LEFT JOIN acks ON acks.id = alerts.id
                 WHERE alerts.seq BETWEEN :first AND :last AND {conditions}
                 ORDER BY alerts.seq DESC LIMIT :limit"
            ))?;
            statement.query_map(parameters.as_slice(), listed)?.collect()
        })
    }

    /// The lowest and highest sequence number of alerts in the filter's time range, if there are any. Alerts are stored roughly in the
    /// order of their times, so there are few other alerts in between.
    fn seq_bounds(&self, filter: &Filter) -> Result<Option<(i64, i64)>, Error> {
        if (filter.since, filter.until) == (None, None) {
            return Ok(Some((i64::MIN, i64::MAX)));
        }
        let (since, until) = (filter.since.unwrap_or(i64::MIN), filter.until.unwrap_or(i64::MAX));
        query(&self.path, || {
            let mut statement = self.connection.prepare_cached(
                "SELECT min(seq), max(seq) FROM alerts INDEXED BY alerts_by_time WHERE time >= ?1 AND time < ?2",
            )?;
            let bounds: (Option<i64>, Option<i64>) =
                statement.query_row((since, until), |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(bounds.0.zip(bounds.1))
        })
    }

    /// Counts the alerts that a filter selects; its limit does not apply.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn count(&self, filter: &Filter) -> Result<u64, Error> {
        let (conditions, parameters) = conditions(filter);
        query(&self.path, || {
            let mut statement =
                self.connection.prepare_cached(&format!("SELECT count(*) FROM {FROM} WHERE {conditions}"))?;
            statement.query_row(parameters.as_slice(), |row| unsigned(row, 0))
        })
    }

    /// Returns the alert whose id starts with a prefix.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn get(&self, prefix: &IdPrefix) -> Result<IdMatch, Error> {
        let mut found: Vec<Listed> = query(&self.path, || {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, {ACK_COLUMNS} FROM {FROM} WHERE alerts.id BETWEEN ?1 AND ?2 ORDER BY alerts.id LIMIT 10"
            ))?;
            statement.query_map((&prefix.first, &prefix.last), listed)?.collect()
        })?;
        Ok(match (found.len(), found.pop()) {
            (1, Some(one)) => IdMatch::One(Box::new(one)),
            (_, None) => IdMatch::None,
            (_, Some(last)) => {
                IdMatch::Several(found.iter().chain([&last]).map(|listed| listed.alert.id).collect())
            }
        })
    }

    /// Returns the `seq` up to which all of these sinks have delivered; the maximum value if there are no sinks. A sink that has not
    /// started yet counts as 0.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn delivered(&self, sinks: &[String]) -> Result<i64, Error> {
        query(&self.path, || {
            let mut statement = self.connection.prepare_cached("SELECT seq FROM cursors WHERE sink = ?1")?;
            let mut least = i64::MAX;
            for sink in sinks {
                let seq: Option<i64> = statement.query_row([sink], |row| row.get(0)).optional()?;
                least = least.min(seq.unwrap_or(0));
            }
            Ok(least)
        })
    }

    /// Returns all state entries of a kind, by key.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn state(&self, kind: &str) -> Result<Vec<StateEntry>, Error> {
        query(&self.path, || state(&self.connection, kind))
    }

    /// Returns the names of the rules of all stored alerts, in order.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn rule_names(&self) -> Result<Vec<String>, Error> {
        query(&self.path, || {
            let mut statement =
                self.connection.prepare_cached("SELECT DISTINCT rule FROM alerts ORDER BY rule")?;
            statement.query_map((), |row| text(row, 0))?.collect()
        })
    }

    /// Returns statistics on the content, all from one snapshot.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut stats = query(&self.path, || {
            let snapshot = self.connection.unchecked_transaction()?;
            let mut stats = snapshot
                .prepare_cached(
                    "SELECT (SELECT count(*) FROM alerts), (SELECT count(*) FROM acks),
                            (SELECT min(stored) FROM alerts), (SELECT max(stored) FROM alerts),
                            coalesce((SELECT max(seq) FROM alerts), 0)",
                )?
                .query_row((), |row| {
                    let alerts = unsigned(row, 0)?;
                    Ok(Stats {
                        alerts,
                        unacknowledged: alerts.saturating_sub(unsigned(row, 1)?),
                        oldest: row.get(2)?,
                        newest: row.get(3)?,
                        latest_seq: row.get(4)?,
                        ..Stats::default()
                    })
                })?;
            let sinks: Vec<(String, i64)> = snapshot
                .prepare_cached("SELECT sink, seq FROM cursors ORDER BY sink")?
                .query_map((), |row| Ok((text(row, 0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            // The plus makes SQLite count using an index instead of the table, whose rows are large.
            let mut behind = snapshot.prepare_cached("SELECT count(*) FROM alerts WHERE +seq > ?1")?;
            for (name, seq) in sinks {
                let backlog = match seq {
                    seq if seq >= stats.latest_seq => 0,
                    0 => stats.alerts,
                    seq => behind.query_row([seq], |row| unsigned(row, 0))?,
                };
                stats.sinks.push(SinkStats { name, seq, backlog });
            }
            Ok(stats)
        })?;
        stats.bytes = dir::bytes(&self.path);
        Ok(stats)
    }
}

/// A filter as an SQL condition, with its parameters.
fn conditions(filter: &Filter) -> (String, Vec<(&'static str, &dyn ToSql)>) {
    let mut text = String::from("TRUE");
    let mut parameters: Vec<(&'static str, &dyn ToSql)> = Vec::new();
    if let Some(id) = &filter.id {
        text.push_str(" AND alerts.id BETWEEN :first_id AND :last_id");
        parameters.extend([(":first_id", &id.first as &dyn ToSql), (":last_id", &id.last)]);
    }
    if let Some(rule) = &filter.rule {
        text.push_str(" AND alerts.rule = :rule");
        parameters.push((":rule", rule));
    }
    if let Some(priority) = &filter.min_priority {
        text.push_str(" AND alerts.priority <= :priority");
        parameters.push((":priority", number(*priority)));
    }
    if let Some(actor) = &filter.actor {
        text.push_str(" AND instr(alerts.actor, :actor) > 0");
        parameters.push((":actor", actor));
    }
    if let Some(since) = &filter.since {
        text.push_str(" AND alerts.time >= :since");
        parameters.push((":since", since));
    }
    if let Some(until) = &filter.until {
        text.push_str(" AND alerts.time < :until");
        parameters.push((":until", until));
    }
    if let Some(before) = &filter.before_seq {
        text.push_str(" AND alerts.seq < :before");
        parameters.push((":before", before));
    }
    match filter.acknowledged {
        Some(true) => text.push_str(" AND acks.id IS NOT NULL"),
        Some(false) => text.push_str(" AND acks.id IS NULL"),
        None => {}
    }
    (text, parameters)
}

/// The stored form of a priority: its index in [`Priority::ALL`].
fn number(priority: Priority) -> &'static u8 {
    const NUMBERS: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
    &NUMBERS[priority as usize]
}

/// All state entries of a kind, by key.
pub(super) fn state(connection: &Connection, kind: &str) -> rusqlite::Result<Vec<StateEntry>> {
    let mut statement =
        connection.prepare_cached("SELECT key, value FROM state WHERE kind = ?1 ORDER BY key")?;
    statement.query_map([kind], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// A text column. The file may be damaged: bytes that are not UTF-8 are replaced, NULL reads as empty.
pub(super) fn text(row: &Row<'_>, column: usize) -> Result<String, rusqlite::Error> {
    let value = row.get_ref(column)?;
    let bytes = value.as_bytes_or_null()?.unwrap_or_default();
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

fn alert(row: &Row<'_>) -> Result<StoredAlert, rusqlite::Error> {
    // An unknown number is read as the lowest priority.
    let priority = usize::try_from(row.get::<_, i64>(5)?).ok().and_then(|number| Priority::ALL.get(number));
    Ok(StoredAlert {
        seq: row.get(0)?,
        id: row.get(1)?,
        time: row.get(2)?,
        stored: row.get(3)?,
        rule: text(row, 4)?,
        priority: priority.copied().unwrap_or(Priority::Debug),
        actor: text(row, 6)?,
        target: text(row, 7)?,
        json: row.get(8)?,
        message: text(row, 9)?,
    })
}

fn listed(row: &Row<'_>) -> Result<Listed, rusqlite::Error> {
    let ack = match row.get::<_, Option<i64>>(10)? {
        Some(at) => Some(Ack { at, by: text(row, 11)?, note: text(row, 12)? }),
        None => None,
    };
    Ok(Listed { alert: alert(row)?, ack })
}
