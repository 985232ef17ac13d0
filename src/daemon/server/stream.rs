//! `/api/v1/alerts/stream`: alerts as they are stored, as server-sent events.
//!
//! Each client has a task that reads the store from the last alert it sent, and a short queue. A client that accepts no data is
//! disconnected. When it reconnects with `Last-Event-ID`, it misses nothing, because the store serves as the queue.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{AlertQuery, AppState, response};
use crate::detection::alert::StoredAlert;

/// Number of alerts read at once.
const PAGE_SIZE: usize = 32;

/// Number of alerts queued for a client.
const QUEUE_LEN: usize = 16;

/// Streams alerts after `Last-Event-ID` (or `?after=`); by default only new ones.
pub(super) async fn follow(
    State(state): State<Arc<AppState>>,
    parameters: Result<Query<HashMap<String, String>>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let Ok(Query(parameters)) = parameters else {
        return response::error(StatusCode::BAD_REQUEST, "invalid query string");
    };
    if parameters.keys().any(|name| name != "after") {
        return response::error(StatusCode::BAD_REQUEST, "unknown parameter: expected after");
    }
    // A reconnecting browser keeps its URL, so Last-Event-ID takes precedence.
    let last = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?"));
    let after = match last.or(parameters.get("after").map(String::as_str)) {
        None => None,
        Some(text) => match text.parse::<i64>() {
            Ok(after) if after >= 0 => Some(after),
            _ => {
                return response::error(
                    StatusCode::BAD_REQUEST,
                    "invalid Last-Event-ID or after: expected a number",
                );
            }
        },
    };
    let Ok(permit) = state.streams.clone().try_acquire_owned() else {
        return response::error(StatusCode::SERVICE_UNAVAILABLE, "too many alert streams");
    };
    let after = match after {
        Some(after) => after,
        None => {
            let newest = AlertQuery { limit: 1, ..AlertQuery::default() };
            match state.query(move |alerts| alerts.list(&newest)).await {
                Ok(page) => page.alerts.first().map_or(0, |one| one.alert.seq),
                Err(error) => return response::unavailable(&error),
            }
        }
    };
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    state.metrics.stream_started();
    tokio::spawn(async move {
        feed(&state, after, &sender).await;
        state.metrics.stream_ended();
        drop(permit);
    });
    let pieces = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Bytes>| {
        receiver.recv().await.map(|piece| (Ok::<_, Infallible>(piece), receiver))
    });
    let content_type = HeaderValue::from_static("text/event-stream");
    ([(CONTENT_TYPE, content_type)], Body::from_stream(pieces)).into_response()
}

/// Sends alerts until the client disconnects or stalls, or the server shuts down.
async fn feed(state: &AppState, mut after: i64, client: &mpsc::Sender<Bytes>) {
    let mut latest_seq = state.backend.latest_seq.clone();
    let mut is_stopping = state.is_stopping.clone();
    // Sent at once: sets the client's reconnection delay in milliseconds.
    let mut next = Bytes::from_static(b"retry: 2000\n\n");
    loop {
        if !send(state, client, next).await {
            return;
        }
        // Marked as seen before reading, so that an alert stored meanwhile wakes the task again.
        latest_seq.mark_unchanged();
        loop {
            if *is_stopping.borrow() {
                return;
            }
            let page = match state.query(move |alerts| alerts.after(after, PAGE_SIZE)).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "failed to read alerts");
                    return;
                }
            };
            let Some(last) = page.last().map(|alert| alert.seq).filter(|&last| last > after) else { break };
            for alert in &page {
                if !send(state, client, event(alert)).await {
                    return;
                }
            }
            after = last;
        }
        let pause = state.settings.heartbeat;
        tokio::select! {
            changed = latest_seq.changed() => {
                if changed.is_err() {
                    return;
                }
                next = Bytes::new();
            }
            () = tokio::time::sleep(pause) => next = Bytes::from_static(b": heartbeat\n\n"),
            () = client.closed() => return,
            _ = is_stopping.changed() => return,
        }
    }
}

/// Queues data for the client. Returns false if it is disconnected or stalled.
async fn send(state: &AppState, client: &mpsc::Sender<Bytes>, piece: Bytes) -> bool {
    if piece.is_empty() {
        return true;
    }
    match timeout(state.settings.stalled, client.send(piece)).await {
        Ok(sent) => sent.is_ok(),
        Err(_) => {
            tracing::info!("disconnected a stalled client of the alert stream");
            false
        }
    }
}

/// Formats an alert as an event. Line breaks in its JSON, should there be any, are separate data lines.
fn event(alert: &StoredAlert) -> Bytes {
    let mut out = format!("id: {}\nevent: alert\n", alert.seq).into_bytes();
    for line in alert.json.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.into()
}
