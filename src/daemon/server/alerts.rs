//! `/api/v1/alerts`: pages of alerts, one alert, and its acknowledgement.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::query::{hex, id_prefix};
use super::{Acknowledgement, AlertQuery, AppState, IdLookup, ServedAlert, response};
use crate::daemon::time::unix_nanos;
use crate::detection::history::StoredFacts;
use crate::detection::registry::ExposureKind;

/// Maximum length of the name and of the note of an acknowledgement, in bytes.
const MAX_NAME_BYTES: usize = 256;
const MAX_NOTE_BYTES: usize = 2048;

pub(super) type Parameters = Result<Query<HashMap<String, String>>, axum::extract::rejection::QueryRejection>;

/// Returns alerts, newest first. `next` is the `before` parameter for the next page, or null on the last one.
pub(super) async fn list(State(state): State<Arc<AppState>>, parameters: Parameters) -> Response {
    let Ok(Query(parameters)) = parameters else {
        return response::error(StatusCode::BAD_REQUEST, "invalid query string");
    };
    let query = match AlertQuery::parse(&parameters, unix_nanos()) {
        Ok(query) => query,
        Err(bad) => return response::error(StatusCode::BAD_REQUEST, &bad.to_string()),
    };
    // Serialized on the blocking thread too, because a thousand alerts may be megabytes.
    let page = state.query(move |alerts| {
        let page = alerts.list(&query)?;
        let alerts: Vec<Value> = page.alerts.iter().map(item).collect();
        Ok(json!({ "alerts": alerts, "next": page.next }))
    });
    match page.await {
        Ok(page) => response::json_body(StatusCode::OK, &page),
        Err(error) => response::unavailable(&error),
    }
}

/// Returns one alert, with an explanation of why it fired.
pub(super) async fn show(State(state): State<Arc<AppState>>, Path(id): Path<String>) -> Response {
    let found = match find(&state, &id).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let mut body = item(&found);
    body["explanation"] = explanation(&state, &found);
    response::json_body(StatusCode::OK, &body)
}

/// The body of an acknowledgement.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AckBody {
    by: String,
    #[serde(default)]
    note: String,
}

/// Acknowledges an alert; the first acknowledgement wins. Requires a token: it is the only request that changes state, and a browser does
/// not send the token on behalf of a foreign page.
pub(super) async fn acknowledge(
    State(state): State<Arc<AppState>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    if state.token.is_none() {
        return response::error(
            StatusCode::FORBIDDEN,
            "acknowledging requires a token: set `server.token_file`, or use `pullwatch alerts ack`",
        );
    }
    let Ok(AckBody { by, note }) = serde_json::from_slice(&body) else {
        return response::error(
            StatusCode::BAD_REQUEST,
            "invalid body: expected {\"by\": \"name\", \"note\": \"text\"}",
        );
    };
    if by.trim().is_empty() || by.len() > MAX_NAME_BYTES || note.len() > MAX_NOTE_BYTES {
        return response::error(
            StatusCode::BAD_REQUEST,
            "invalid body: expected a name of 1 to 256 bytes and a note of at most 2048 bytes",
        );
    }
    let found = match find(&state, &id).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let id = found.alert.id;
    let acknowledgement = Acknowledgement { at: unix_nanos(), by, note };
    let written = state.query(move |alerts| {
        alerts.acknowledge(&id, &acknowledgement)?;
        alerts.get(&hex(&id))
    });
    match written.await {
        Ok(IdLookup::One(served)) => response::json_body(StatusCode::OK, &item(&served)),
        Ok(_) => response::error(StatusCode::NOT_FOUND, "no alert with this id"),
        Err(error) => response::unavailable(&error),
    }
}

async fn find(state: &AppState, id: &str) -> Result<Box<ServedAlert>, Response> {
    let prefix = id_prefix(id).map_err(|bad| response::error(StatusCode::BAD_REQUEST, &bad.to_string()))?;
    match state.query(move |alerts| alerts.get(&prefix)).await {
        Ok(IdLookup::One(served)) => Ok(served),
        Ok(IdLookup::None) => Err(response::error(StatusCode::NOT_FOUND, "no alert with this id")),
        Ok(IdLookup::Several) => {
            Err(response::error(StatusCode::CONFLICT, "several alerts have an id that starts so: add digits"))
        }
        Err(error) => Err(response::unavailable(&error)),
    }
}

/// An alert as the API returns it.
fn item(served: &ServedAlert) -> Value {
    let alert = &served.alert;
    let acknowledged = served
        .acknowledgement
        .as_ref()
        .map(|ack| json!({ "at": response::timestamp(ack.at), "by": ack.by, "note": ack.note }));
    json!({
        "seq": alert.seq,
        "id": hex(&alert.id),
        "stored": response::timestamp(alert.stored),
        "actor": alert.actor,
        "target": alert.target,
        "acknowledged": acknowledged,
        // As the sinks send it; null if the stored JSON is damaged.
        "alert": serde_json::from_slice::<Value>(&alert.json).unwrap_or(Value::Null),
    })
}

/// Explains why an alert fired, from the currently loaded rule and from the alert itself.
fn explanation(state: &AppState, served: &ServedAlert) -> Value {
    let facts = StoredFacts::parse(&served.alert.json);
    let rule = state.backend.status.rule(&served.alert.rule);
    json!({
        "rule": rule.map(|rule| super::status::rule(&rule)),
        "exposure": match facts.exposure.kind {
            ExposureKind::Payload => "The log shows that the response contained the credential.",
            ExposureKind::Presumed => {
                "The response may have contained the credential: the request succeeded, and the log does not show the response."
            }
            ExposureKind::Metadata => "The response contained names only.",
            ExposureKind::Denied => "The request was denied: nothing was handed over.",
            ExposureKind::None => "The event handed over no registry credential.",
        },
        "is_correlation": facts.is_correlation,
    })
}
