//! Pages of alerts.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{AlertQuery, Shared, answer};
use crate::detection::alert::StoredAlert;
use crate::detection::alert::push_hex;

/// Alerts, newest first. `next` is the `before` of the next page, or null behind the last one.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    parameters: Result<Query<HashMap<String, String>>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(parameters)) = parameters else {
        return answer::error(StatusCode::BAD_REQUEST, "the parameters cannot be read");
    };
    let query = match AlertQuery::parse(&parameters) {
        Ok(query) => query,
        Err(bad) => return answer::error(StatusCode::BAD_REQUEST, &bad.to_string()),
    };
    let limit = query.limit;
    // Written on the thread that read them: a thousand alerts may be megabytes.
    let page = shared.ask(move |alerts| {
        let mut alerts = alerts.list(&query)?;
        alerts.truncate(limit);
        let next = if alerts.len() == limit { alerts.last().map(|alert| alert.seq) } else { None };
        let alerts: Vec<Value> = alerts.iter().map(show).collect();
        Ok(json!({ "alerts": alerts, "next": next }))
    });
    match page.await {
        Ok(page) => answer::json_body(StatusCode::OK, &page),
        Err(error) => {
            tracing::warn!(%error, "alerts cannot be read");
            answer::error(StatusCode::SERVICE_UNAVAILABLE, "the alerts cannot be read now")
        }
    }
}

/// An alert with its place.
fn show(alert: &StoredAlert) -> Value {
    let mut id = Vec::with_capacity(32);
    push_hex(&alert.id, &mut id);
    json!({
        "seq": alert.seq,
        "id": String::from_utf8_lossy(&id),
        "stored": jiff::Timestamp::from_nanosecond(i128::from(alert.stored)).ok().map(|time| time.to_string()),
        "actor": alert.actor,
        "target": alert.target,
        // As the sinks send it. What is no JSON was not written by us: it is shown as missing.
        "alert": serde_json::from_slice::<Value>(&alert.json).unwrap_or(Value::Null),
    })
}
