//! `/api/v1/exposures`: who read which credential, and which registries to rotate, from the stored alerts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::alerts::Parameters;
use super::query::time;
use super::{AlertLog, AlertQuery, AppState, LogError, response};
use crate::daemon::time::unix_nanos;
use crate::detection::history::{
    BoundedSet, CredentialView, Reader, ReaderView, Registry, RegistryKind, Report, StoredReads,
};

/// Maximum number of alerts read for one response; the newest are used.
const MAX_ALERTS: usize = 50_000;

/// Number of alerts read at once.
const PAGE_SIZE: usize = 500;

/// Maximum number of rows in each list of a response; if there are more, `truncated` is true.
const MAX_ROWS: usize = 1000;

/// Maximum number of names in a list within a row; the count includes all of them.
const MAX_NAMES: usize = 100;

/// Returns the exposures of a time range, or of all stored alerts by default.
pub(super) async fn show(State(state): State<Arc<AppState>>, parameters: Parameters) -> Response {
    let Ok(Query(parameters)) = parameters else {
        return response::error(StatusCode::BAD_REQUEST, "invalid query string");
    };
    let now = unix_nanos();
    let mut query = AlertQuery { limit: PAGE_SIZE, ..AlertQuery::default() };
    for (name, value) in &parameters {
        let bound = match name.as_str() {
            "since" => &mut query.since,
            "until" => &mut query.until,
            _ => {
                return response::error(
                    StatusCode::BAD_REQUEST,
                    "unknown parameter: expected since or until",
                );
            }
        };
        match time(value, now) {
            Ok(time) => *bound = Some(time),
            Err(bad) => return response::error(StatusCode::BAD_REQUEST, &bad.to_string()),
        }
    }
    let per_reader: HashMap<String, bool> =
        state.backend.status.rules().into_iter().map(|rule| (rule.name, rule.is_per_reader)).collect();
    let Ok(permit) = state.exposure_queries.clone().acquire_owned().await else {
        return response::unavailable(&LogError("pullwatch is shutting down".to_owned()));
    };
    let body = state.query(move |alerts| {
        let _permit = permit;
        collect(alerts, query, &per_reader)
    });
    match body.await {
        Ok(body) => response::json_body(StatusCode::OK, &body),
        Err(error) => response::unavailable(&error),
    }
}

fn collect(
    alerts: &dyn AlertLog,
    mut query: AlertQuery,
    per_reader: &HashMap<String, bool>,
) -> Result<Value, LogError> {
    let mut reads = StoredReads::default();
    let mut number = 0;
    let mut is_truncated = false;
    loop {
        let page = alerts.list(&query)?;
        for one in &page.alerts {
            let is_per_reader = per_reader.get(&one.alert.rule).copied().unwrap_or(true);
            reads.add(&one.alert, is_per_reader);
        }
        number += page.alerts.len();
        query.before = page.next;
        if page.next.is_none() {
            break;
        }
        if number >= MAX_ALERTS {
            is_truncated = true;
            break;
        }
    }
    let (ledger, rules) = reads.finish();
    Ok(body(&ledger.report(), &rules, number, is_truncated))
}

fn body(report: &Report, rules: &[String], alerts: usize, is_truncated: bool) -> Value {
    let (answer, actors, credentials) = (report.answer(), report.readers(), report.credentials());
    let rows = |count: usize| count > MAX_ROWS;
    let is_truncated = is_truncated
        || rows(actors.len())
        || rows(credentials.len())
        || rows(report.registries.len())
        || report.other_reads + report.other_readers + report.other_hosts > 0;
    json!({
        "alerts": alerts,
        "truncated": is_truncated,
        "summary": {
            "credentials": answer.credentials,
            "actors": answer.readers,
            "registries": answer.registries,
            "credentials_without_registry": answer.credentials_without_registry,
            "whole_scopes": answer.whole_scopes,
        },
        "credentials": credentials.iter().take(MAX_ROWS).map(credential).collect::<Vec<_>>(),
        "actors": actors.iter().take(MAX_ROWS).map(|view| actor(view, rules)).collect::<Vec<_>>(),
        "registries": report.registries.iter().take(MAX_ROWS).map(registry).collect::<Vec<_>>(),
    })
}

fn credential(view: &CredentialView<'_>) -> Value {
    json!({
        "credential": view.credential,
        "payload": view.payload,
        "presumed": view.presumed,
        "metadata": view.metadata,
        "actors": names(view.readers.iter().map(|reader| reader.name())),
        "actor_count": view.readers.len(),
        "registries": names(view.registries.iter().map(ToString::to_string)),
        "possible_registries": names(view.possible_registries.iter().map(ToString::to_string)),
        "first": view.times.first.and_then(response::timestamp),
        "last": view.times.last.and_then(response::timestamp),
    })
}

fn actor(view: &ReaderView<'_>, rules: &[String]) -> Value {
    let mut scopes: BTreeMap<String, u64> = BTreeMap::new();
    for scope in &view.scopes {
        let of =
            scope.namespace.as_ref().map_or_else(|| "cluster".to_owned(), |name| format!("namespace {name}"));
        *scopes.entry(format!("{} {of}", scope.verb)).or_default() += scope.reading.times.count;
    }
    let mut credentials: Vec<&str> = view.credentials.iter().map(|one| one.credential.as_str()).collect();
    credentials.dedup();
    json!({
        "actor": view.reader.name(),
        "payload": view.payload,
        "presumed": view.presumed,
        "metadata": view.metadata,
        "denied": view.denied.map_or(0, |denial| denial.reading.times.count),
        "credentials": names(credentials.iter().map(ToString::to_string)),
        "credential_count": credentials.len(),
        "whole_scopes": names(scopes.into_iter().map(|(scope, count)| format!("{scope} ({count})"))),
        "verbs": samples(&view.verbs),
        "clients": samples(&view.clients),
        "user_agents": samples(&view.agents),
        "rules": view.rules.iter().filter_map(|&rule| rules.get(rule)).collect::<Vec<_>>(),
        "first": view.times.first.and_then(response::timestamp),
        "last": view.times.last.and_then(response::timestamp),
    })
}

fn registry(registry: &Registry) -> Value {
    let usernames = registry.usernames.texts.iter().map(String::as_str);
    let kind = registry.host.as_deref().map(|host| RegistryKind::of(host, usernames));
    let rotation = kind.unwrap_or(RegistryKind::Other).rotation();
    json!({
        "registry": registry.host,
        "usernames": samples(&registry.usernames),
        "usernames_are_uncertain": registry.usernames_are_uncertain && !registry.usernames.texts.is_empty(),
        "credentials": names(registry.credentials.iter().cloned()),
        "possible_credentials": names(registry.possible_credentials.iter().cloned()),
        "actors": names(registry.readers.iter().map(Reader::name)),
        "payload": registry.payload,
        "presumed": registry.presumed,
        "rotation": {
            "kind": rotation.kind,
            "step": rotation.step,
            "command": rotation.command,
            "link": rotation.link,
        },
        "first": registry.times.first.and_then(response::timestamp),
        "last": registry.times.last.and_then(response::timestamp),
    })
}

fn names(all: impl Iterator<Item = String>) -> Vec<String> {
    all.take(MAX_NAMES).collect()
}

fn samples(set: &BoundedSet) -> Vec<&String> {
    set.texts.iter().collect()
}
