//! The server's access to the stored alerts.

use std::path::PathBuf;

use crate::daemon::server::{
    Acknowledgement, AlertLog, AlertPage, AlertQuery, IdLookup, LogError, Pattern, ServedAlert,
};
use crate::daemon::store::{self, Ack, Filter, IdMatch, IdPrefix, LazyReader, Listed};
use crate::detection::alert::{AlertId, StoredAlert};

/// Number of alerts read at once if a query has filters that the store does not support. Other queries wait during a read.
const CHUNK_SIZE: usize = 512;

/// Maximum number of alerts read for one page. A page that reaches it may be short, and its `next` continues.
const MAX_SCANNED: usize = 20_000;

pub(super) struct StoreLog {
    state_dir: PathBuf,
    reader: LazyReader,
}

impl StoreLog {
    pub(super) fn new(state_dir: PathBuf) -> Self {
        StoreLog { reader: LazyReader::new(state_dir.clone()), state_dir }
    }
}

/// Whether the store's filter is equivalent to the query.
fn is_exact(query: &AlertQuery) -> bool {
    query.rule.as_ref().is_none_or(|rule| rule.exact().is_some())
        && query.actor.is_none()
        && query.credential.is_none()
        && query.namespace.is_none()
        && query.registry.is_none()
        && query.text.is_none()
}

impl AlertLog for StoreLog {
    fn list(&self, query: &AlertQuery) -> Result<AlertPage, LogError> {
        let chunk_size = if is_exact(query) { query.limit + 1 } else { CHUNK_SIZE };
        // The store's filter selects at least what the query does: it only supports whole rule names, and parts of an actor's name.
        let mut filter = Filter {
            id: query.id.as_deref().and_then(IdPrefix::parse),
            rule: query.rule.as_ref().and_then(Pattern::exact).map(str::to_owned),
            min_priority: query.priority,
            actor: query.actor.as_ref().map(|actor| actor.literal().to_owned()),
            since: query.since,
            until: query.until,
            acknowledged: query.acknowledged,
            limit: Some(u32::try_from(chunk_size).unwrap_or(u32::MAX)),
            before_seq: query.before,
        };
        let mut page = AlertPage::default();
        let mut scanned = 0;
        loop {
            let chunk = self.reader.with(|reader| reader.list(&filter)).map_err(|error| log_error(&error))?;
            let is_last = chunk.len() < chunk_size;
            scanned += chunk.len();
            filter.before_seq = chunk.last().map(|one| one.alert.seq);
            for listed in chunk.into_iter().filter(|one| query.matches(&one.alert)) {
                if page.alerts.len() == query.limit {
                    // There is one more: the next page starts after the last alert of this one.
                    page.next = page.alerts.last().map(|one| one.alert.seq);
                    return Ok(page);
                }
                page.alerts.push(served(listed));
            }
            if is_last {
                return Ok(page);
            }
            if scanned >= MAX_SCANNED {
                page.next = filter.before_seq;
                return Ok(page);
            }
        }
    }

    fn get(&self, id_prefix: &str) -> Result<IdLookup, LogError> {
        let Some(prefix) = IdPrefix::parse(id_prefix) else { return Ok(IdLookup::None) };
        let found = self.reader.with(|reader| reader.get(&prefix)).map_err(|error| log_error(&error))?;
        Ok(match found {
            IdMatch::None => IdLookup::None,
            IdMatch::One(listed) => IdLookup::One(Box::new(served(*listed))),
            IdMatch::Several(_) => IdLookup::Several,
        })
    }

    fn acknowledge(&self, id: &AlertId, acknowledgement: &Acknowledgement) -> Result<(), LogError> {
        let Acknowledgement { at, by, note } = acknowledgement.clone();
        store::acknowledge(&self.state_dir, &[*id], &Ack { at, by, note })
            .map_err(|error| log_error(&error))?;
        Ok(())
    }

    fn after(&self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, LogError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        self.reader.with(|reader| reader.after(seq, limit)).map_err(|error| log_error(&error))
    }
}

fn served(listed: Listed) -> ServedAlert {
    let acknowledgement = listed.ack.map(|Ack { at, by, note }| Acknowledgement { at, by, note });
    ServedAlert { alert: listed.alert, acknowledgement }
}

fn log_error(error: &store::Error) -> LogError {
    LogError(error.to_string())
}
