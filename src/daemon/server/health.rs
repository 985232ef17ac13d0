//! `/healthz` and `/readyz`: liveness and readiness.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{AppState, response};
use crate::daemon::net::token::TokenCheck;

/// The result of one health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The component that is checked: `rules`, `store`, `sources`.
    pub name: String,
    pub ok: bool,
    /// The reason why the check fails; may be empty if it passes.
    pub reason: String,
    /// Whether a failure makes `/healthz` fail. This is only the case if a restart would help, unlike for a full store or an unavailable
    /// source.
    pub is_liveness: bool,
    /// Whether a failure means that no events are accepted. Otherwise it is a degradation.
    pub is_critical: bool,
}

/// Provides health checks. Must return immediately, from state in memory, without I/O.
pub trait Health: Send + Sync {
    /// Returns the results of all checks.
    fn checks(&self) -> Vec<HealthCheck>;
}

/// `/healthz`: fails if the pipeline makes no progress.
pub(super) async fn alive(State(state): State<Arc<AppState>>, request: Request) -> Response {
    let mut checks = state.backend.health.checks();
    checks.retain(|check| check.is_liveness);
    respond(&checks, state.check_token(&request) == TokenCheck::Valid)
}

/// `/readyz`: fails if no events are accepted. Other problems are listed in the body as `degraded`.
pub(super) async fn ready(State(state): State<Arc<AppState>>, request: Request) -> Response {
    respond(&state.backend.health.checks(), state.check_token(&request) == TokenCheck::Valid)
}

/// Reasons may contain file names and addresses and are therefore only sent to clients with a valid token.
fn respond(checks: &[HealthCheck], with_reasons: bool) -> Response {
    let ok = checks.iter().all(|check| check.ok);
    let takes_events = checks.iter().all(|check| check.ok || !check.is_critical);
    let (status, word) = match (ok, takes_events) {
        (true, _) => (StatusCode::OK, "ok"),
        (false, true) => (StatusCode::OK, "degraded"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let mut body = json!({ "ok": ok });
    if with_reasons {
        let checks: Vec<Value> = checks
            .iter()
            .map(|check| json!({ "name": check.name, "ok": check.ok, "reason": check.reason }))
            .collect();
        body["checks"] = Value::Array(checks);
    }
    body["status"] = json!(word);
    response::json_body(status, &body)
}
