//! Whether the process is well, and whether it works.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{Shared, answer};
use crate::daemon::net::token::TokenCheck;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What: `rules`, `store`, `source audit`.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What there is to say of it, above all where it is not.
    pub reason: String,
    /// Whether a restart would help where it is not: then the process is not well. A store that is full or a source that is away
    /// is no reason to restart.
    pub is_vital: bool,
}

/// Whoever knows how things are. It must answer at once: from what is known, without a look at disks.
pub trait Health: Send + Sync {
    /// Everything that was looked at.
    fn checks(&self) -> Vec<Check>;
}

/// The process is there, and the pipeline makes progress.
pub(super) async fn alive(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let mut checks = shared.parts.health.checks();
    checks.retain(|check| check.is_vital);
    say(&checks, shared.check_token(&request) == TokenCheck::Valid)
}

/// Everything works.
pub(super) async fn ready(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    say(&shared.parts.health.checks(), shared.check_token(&request) == TokenCheck::Valid)
}

/// Reasons may name files and addresses: they are for those who show the token.
fn say(checks: &[Check], with_reasons: bool) -> Response {
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({ "ok": ok });
    if with_reasons {
        let checks: Vec<Value> = checks
            .iter()
            .map(|check| json!({ "name": check.name, "ok": check.ok, "reason": check.reason }))
            .collect();
        body["checks"] = Value::Array(checks);
    }
    answer::json_body(status, &body)
}
