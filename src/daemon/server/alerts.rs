//! `/api/v1/alerts`: pages of alerts.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{AlertQuery, AppState, response};
use crate::detection::alert::StoredAlert;
use crate::detection::alert::push_hex;

/// Returns alerts, newest first. `next` is the `before` parameter of the next page, or null on the last one.
pub(super) async fn list(
    State(state): State<Arc<AppState>>,
    parameters: Result<Query<HashMap<String, String>>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(parameters)) = parameters else {
        return response::error(StatusCode::BAD_REQUEST, "invalid query string");
    };
    let query = match AlertQuery::parse(&parameters) {
        Ok(query) => query,
        Err(bad) => return response::error(StatusCode::BAD_REQUEST, &bad.to_string()),
    };
    let limit = query.limit;
    // Serialized on the blocking thread too: a thousand alerts may be megabytes.
    let page = state.query(move |alerts| {
        let mut alerts = alerts.list(&query)?;
        alerts.truncate(limit);
        let next = if alerts.len() == limit { alerts.last().map(|alert| alert.seq) } else { None };
        let alerts: Vec<Value> = alerts.iter().map(item).collect();
        Ok(json!({ "alerts": alerts, "next": next }))
    });
    match page.await {
        Ok(page) => response::json_body(StatusCode::OK, &page),
        Err(error) => {
            tracing::warn!(%error, "failed to read alerts");
            response::error(StatusCode::SERVICE_UNAVAILABLE, "alerts are temporarily unavailable")
        }
    }
}

fn item(alert: &StoredAlert) -> Value {
    let mut id = Vec::with_capacity(32);
    push_hex(&alert.id, &mut id);
    json!({
        "seq": alert.seq,
        "id": String::from_utf8_lossy(&id),
        "stored": jiff::Timestamp::from_nanosecond(i128::from(alert.stored)).ok().map(|time| time.to_string()),
        "actor": alert.actor,
        "target": alert.target,
        // As the sinks send it; null if the stored JSON is damaged.
        "alert": serde_json::from_slice::<Value>(&alert.json).unwrap_or(Value::Null),
    })
}
