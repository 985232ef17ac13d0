//! The stored alerts, as the server reads them.

use std::path::PathBuf;

use crate::daemon::server::{AlertLog, AlertQuery, LogError};
use crate::daemon::store::{Filter, LazyReader};
use crate::detection::alert::StoredAlert;

pub(super) struct StoreLog(LazyReader);

impl StoreLog {
    pub(super) fn new(state_dir: PathBuf) -> Self {
        StoreLog(LazyReader::new(state_dir))
    }
}

impl AlertLog for StoreLog {
    fn list(&self, query: &AlertQuery) -> Result<Vec<StoredAlert>, LogError> {
        let filter = Filter {
            rule: query.rule.clone(),
            min_priority: query.priority,
            actor: query.user.clone(),
            since: query.since,
            until: query.until,
            acknowledged: None,
            limit: Some(u32::try_from(query.limit).unwrap_or(u32::MAX)),
            before_seq: query.before,
        };
        let listed = self.0.with(|reader| reader.list(&filter)).map_err(|error| log_error(&error))?;
        // The store's filter matches a part of the actor's name, the query the whole name.
        Ok(listed.into_iter().map(|one| one.alert).filter(|alert| query.matches(alert)).collect())
    }

    fn after(&self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, LogError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        self.0.with(|reader| reader.after(seq, limit)).map_err(|error| log_error(&error))
    }
}

fn log_error(error: &crate::daemon::store::Error) -> LogError {
    LogError(error.to_string())
}
