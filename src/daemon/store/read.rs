//! Looking into a store, beside a daemon that writes to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::error::ask;
use super::{Ack, AlertId, Error, StateEntry, StoredAlert, dir, schema};
use crate::detection::alert::Priority;

/// How long to wait where the daemon has the file to itself: only while it recovers after a kill.
const BUSY: Duration = Duration::from_secs(5);

const COLUMNS: &str = "alerts.seq, alerts.id, alerts.time, alerts.stored, alerts.rule, alerts.priority, alerts.actor, \
                       alerts.target, alerts.json, alerts.message";
const ACK_COLUMNS: &str = "acks.at, acks.by, acks.note";
const FROM: &str = "alerts LEFT JOIN acks ON acks.id = alerts.id";

/// Which alerts to list. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this rule.
    pub rule: Option<String>,
    /// At least as bad as this.
    pub min_priority: Option<Priority>,
    /// Of somebody whose name has this in it.
    pub actor: Option<String>,
    /// Of events from this time on, in nanoseconds since 1970.
    pub since: Option<i64>,
    /// Of events before this time.
    pub until: Option<i64>,
    /// Only those that were looked at, or only those that were not.
    pub acknowledged: Option<bool>,
    /// So many at most; all where it is nothing.
    pub limit: Option<u32>,
    /// Only those stored before this one: the next page.
    pub before_seq: Option<i64>,
}

/// An alert, and whether somebody looked at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The alert.
    pub alert: StoredAlert,
    /// Who looked at it.
    pub ack: Option<Ack>,
}

/// The first digits of an alert's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdPrefix {
    first: AlertId,
    last: AlertId,
}

impl IdPrefix {
    /// Reads 1 to 32 hex digits.
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

/// The alerts whose ids start so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// There is none.
    None,
    /// This one.
    One(Box<Listed>),
    /// Several; these are the first.
    Several(Vec<AlertId>),
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// How many alerts.
    pub alerts: u64,
    /// How many of them nobody acknowledged.
    pub unacknowledged: u64,
    /// How many bytes on the disk, with the log that is not written back yet.
    pub bytes: u64,
    /// When the oldest alert was stored, in nanoseconds since 1970.
    pub oldest: Option<i64>,
    /// When the newest alert was stored.
    pub newest: Option<i64>,
    /// The sequence number of the newest alert; 0 where there is none.
    pub newest_seq: i64,
    /// How far the sinks are, by name.
    pub sinks: Vec<SinkStats>,
}

/// How far a sink is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkStats {
    /// Its name.
    pub name: String,
    /// The last alert it delivered.
    pub seq: i64,
    /// How many alerts are still to be delivered.
    pub backlog: u64,
}

/// Looks into a store, with a connection of its own that cannot write.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens the store of a directory, whether a daemon runs or not.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if there is none, [`Error::Newer`] or [`Error::Older`] if this program does not read it.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir::file(dir);
        let connection = schema::connect_to_read(dir, &path, BUSY)?;
        Ok(Reader { connection, path })
    }

    /// The next alerts after a sequence number, oldest first.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn after(&self, seq: i64, limit: u32) -> Result<Vec<StoredAlert>, Error> {
        ask(&self.path, || {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM alerts WHERE seq > ?1 ORDER BY seq LIMIT ?2"
            ))?;
            statement.query_map((seq, limit), alert)?.collect()
        })
    }

    /// Alerts, newest first.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Listed>, Error> {
        // Without this, a look at the last hour reads all alerts, unless there are as many as the limit.
        // NOT INDEXED: by place, or all of these times would be sorted for each page.
        let Some((first, last)) = self.within(filter)? else { return Ok(Vec::new()) };
        let (conditions, mut parameters) = conditions(filter);
        let limit = filter.limit.map_or(-1, i64::from);
        parameters.extend([(":limit", &limit as &dyn ToSql), (":first", &first), (":last", &last)]);
        ask(&self.path, || {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, {ACK_COLUMNS} FROM alerts NOT INDEXED LEFT JOIN acks ON acks.id = alerts.id
                 WHERE alerts.seq BETWEEN :first AND :last AND {conditions}
                 ORDER BY alerts.seq DESC LIMIT :limit"
            ))?;
            statement.query_map(parameters.as_slice(), listed)?.collect()
        })
    }

    /// Between which sequence numbers the alerts of a filter's times are; nothing where there are none. Most alerts come in the
    /// order of their times, so that little else lies between.
    fn within(&self, filter: &Filter) -> Result<Option<(i64, i64)>, Error> {
        if (filter.since, filter.until) == (None, None) {
            return Ok(Some((i64::MIN, i64::MAX)));
        }
        let (since, until) = (filter.since.unwrap_or(i64::MIN), filter.until.unwrap_or(i64::MAX));
        ask(&self.path, || {
            let mut statement = self.connection.prepare_cached(
                "SELECT min(seq), max(seq) FROM alerts INDEXED BY alerts_by_time WHERE time >= ?1 AND time < ?2",
            )?;
            let ends: (Option<i64>, Option<i64>) =
                statement.query_row((since, until), |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(ends.0.zip(ends.1))
        })
    }

    /// How many alerts pass a filter, whatever its limit.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn count(&self, filter: &Filter) -> Result<u64, Error> {
        let (conditions, parameters) = conditions(filter);
        ask(&self.path, || {
            let mut statement =
                self.connection.prepare_cached(&format!("SELECT count(*) FROM {FROM} WHERE {conditions}"))?;
            statement.query_row(parameters.as_slice(), |row| unsigned(row, 0))
        })
    }

    /// The alert whose id starts so.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn get(&self, prefix: &IdPrefix) -> Result<Match, Error> {
        let mut found: Vec<Listed> = ask(&self.path, || {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, {ACK_COLUMNS} FROM {FROM} WHERE alerts.id BETWEEN ?1 AND ?2 ORDER BY alerts.id LIMIT 10"
            ))?;
            statement.query_map((&prefix.first, &prefix.last), listed)?.collect()
        })?;
        Ok(match (found.len(), found.pop()) {
            (1, Some(one)) => Match::One(Box::new(one)),
            (_, None) => Match::None,
            (_, Some(last)) => {
                Match::Several(found.iter().chain([&last]).map(|listed| listed.alert.id).collect())
            }
        })
    }

    /// The place up to which all of these sinks are done with alerts; the last there can be where there are none. One that has
    /// not started yet is done with nothing.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn delivered(&self, sinks: &[String]) -> Result<i64, Error> {
        ask(&self.path, || {
            let mut statement = self.connection.prepare_cached("SELECT seq FROM cursors WHERE sink = ?1")?;
            let mut least = i64::MAX;
            for sink in sinks {
                let seq: Option<i64> = statement.query_row([sink], |row| row.get(0)).optional()?;
                least = least.min(seq.unwrap_or(0));
            }
            Ok(least)
        })
    }

    /// All that is kept of a kind: keys and values, by key.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn state(&self, kind: &str) -> Result<Vec<StateEntry>, Error> {
        ask(&self.path, || state(&self.connection, kind))
    }

    /// The rules that alerts are of, by name.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn rule_names(&self) -> Result<Vec<String>, Error> {
        ask(&self.path, || {
            let mut statement =
                self.connection.prepare_cached("SELECT DISTINCT rule FROM alerts ORDER BY rule")?;
            statement.query_map((), |row| text(row, 0))?.collect()
        })
    }

    /// What the store holds, as of one moment.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut stats = ask(&self.path, || {
            let moment = self.connection.unchecked_transaction()?;
            let mut stats = moment
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
                        newest_seq: row.get(4)?,
                        ..Stats::default()
                    })
                })?;
            let sinks: Vec<(String, i64)> = moment
                .prepare_cached("SELECT sink, seq FROM cursors ORDER BY sink")?
                .query_map((), |row| Ok((text(row, 0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            // The plus keeps it off the table, whose rows are large, and on an index.
            let mut behind = moment.prepare_cached("SELECT count(*) FROM alerts WHERE +seq > ?1")?;
            for (name, seq) in sinks {
                let backlog = match seq {
                    seq if seq >= stats.newest_seq => 0,
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

/// A filter as a condition, with its parameters.
fn conditions(filter: &Filter) -> (String, Vec<(&'static str, &dyn ToSql)>) {
    let mut text = String::from("TRUE");
    let mut parameters: Vec<(&'static str, &dyn ToSql)> = Vec::new();
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

/// A priority as the file has it: its place in [`Priority::ALL`].
fn number(priority: Priority) -> &'static u8 {
    const NUMBERS: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
    &NUMBERS[priority as usize]
}

/// A text that may be anything by now.
/// All entries of a kind.
pub fn state(connection: &Connection, kind: &str) -> rusqlite::Result<Vec<StateEntry>> {
    let mut statement =
        connection.prepare_cached("SELECT key, value FROM state WHERE kind = ?1 ORDER BY key")?;
    statement.query_map([kind], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

pub fn text(row: &Row<'_>, column: usize) -> Result<String, rusqlite::Error> {
    let value = row.get_ref(column)?;
    let bytes = value.as_bytes_or_null()?.unwrap_or_default();
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

fn alert(row: &Row<'_>) -> Result<StoredAlert, rusqlite::Error> {
    // A number that is none of ours is the least of them.
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
