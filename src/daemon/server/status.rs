//! `/api/v1/status`: sources, sinks and rules, with their state.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{AppState, LogError, response};

/// A source and its state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceStatus {
    pub name: String,
    /// `file`, `webhook`, `kafka` or `stdin`.
    pub kind: &'static str,
    /// The problem that prevents it from working.
    pub problem: Option<String>,
    /// Events evaluated since the start.
    pub events: u64,
    /// Malformed records since the start.
    pub malformed: u64,
    /// Age of the newest evaluated event in seconds while more input is available.
    pub lag_seconds: u64,
}

/// A sink and its progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkStatus {
    pub name: String,
    /// `stdout`, `file`, `http`, …
    pub kind: &'static str,
    /// The problem that prevents it from delivering.
    pub problem: Option<String>,
    /// Stored alerts that it has not delivered, including those that its filters exclude.
    pub backlog: u64,
    /// Alerts delivered since the start.
    pub delivered: u64,
    /// Failed attempts since the start.
    pub failures: u64,
    /// Alerts lost since the start: neither delivered nor written to the dead-letter file.
    pub dropped: u64,
    /// Time of the last successful delivery since the start, in nanoseconds since 1970-01-01T00:00:00Z.
    pub last_success: Option<i64>,
}

/// A rule or correlation and whether it is evaluated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleStatus {
    pub name: String,
    pub priority: &'static str,
    pub is_correlation: bool,
    /// `enabled`, `disabled`, or `below_minimum_priority`.
    pub state: &'static str,
    pub description: String,
    /// The condition as written, with macros by name; for a correlation, what it counts.
    pub condition: String,
    pub tags: Vec<String>,
    /// File and line of the definition.
    pub location: String,
    /// Whether its alerts are about a reader, and not about the log or the cluster.
    pub is_per_reader: bool,
    /// Alerts stored since the start.
    pub alerts: u64,
    /// Alerts suppressed by its throttle since the start.
    pub throttled: u64,
}

/// State of the daemon's components. Methods may block, so they are called on blocking threads, except for [`StatusSource::rule`].
pub trait StatusSource: Send + Sync {
    /// Returns all sources, in the order of the configuration.
    fn sources(&self) -> Vec<SourceStatus>;

    /// Returns all sinks, in the order of the configuration.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn sinks(&self) -> Result<Vec<SinkStatus>, LogError>;

    /// Returns all rules and correlations, in load order.
    fn rules(&self) -> Vec<RuleStatus>;

    /// Returns a rule or correlation by its name. Must not block.
    fn rule(&self, name: &str) -> Option<RuleStatus>;

    /// Version of the rule set: a hash of the rule files.
    fn rule_set(&self) -> String;
}

/// Returns the state of all components.
pub(super) async fn show(State(state): State<Arc<AppState>>) -> Response {
    let backend = state.backend.clone();
    let body = state.query(move |_| {
        let checks = backend.health.checks();
        let checks_json: Vec<Value> = checks
            .iter()
            .map(|check| json!({ "name": check.name, "ok": check.ok, "reason": check.reason }))
            .collect();
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "rule_set": backend.status.rule_set(),
            "ok": checks.iter().all(|check| check.ok),
            "checks": checks_json,
            "sources": backend.status.sources().iter().map(source).collect::<Vec<_>>(),
            "sinks": backend.status.sinks()?.iter().map(sink).collect::<Vec<_>>(),
            "rules": backend.status.rules().iter().map(rule).collect::<Vec<_>>(),
        }))
    });
    match body.await {
        Ok(mut body) => {
            body["can_acknowledge"] = state.token.is_some().into();
            response::json_body(StatusCode::OK, &body)
        }
        Err(error) => response::unavailable(&error),
    }
}

fn source(source: &SourceStatus) -> Value {
    json!({
        "name": source.name,
        "type": source.kind,
        "ok": source.problem.is_none(),
        "problem": source.problem,
        "events": source.events,
        "malformed": source.malformed,
        "lag_seconds": source.lag_seconds,
    })
}

fn sink(sink: &SinkStatus) -> Value {
    json!({
        "name": sink.name,
        "type": sink.kind,
        "ok": sink.problem.is_none(),
        "problem": sink.problem,
        "backlog": sink.backlog,
        "delivered": sink.delivered,
        "failures": sink.failures,
        "dropped": sink.dropped,
        "last_success": sink.last_success.and_then(response::timestamp),
    })
}

pub(super) fn rule(rule: &RuleStatus) -> Value {
    json!({
        "name": rule.name,
        "priority": rule.priority,
        "type": if rule.is_correlation { "correlation" } else { "rule" },
        "state": rule.state,
        "description": rule.description,
        "condition": rule.condition,
        "tags": rule.tags,
        "location": rule.location,
        "alerts": rule.alerts,
        "throttled": rule.throttled,
    })
}
