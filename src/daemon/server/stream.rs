//! Alerts as they are stored, as server-sent events.
//!
//! Each client has a task that reads the log behind the last alert it sent, and a short queue. A client that takes nothing is dropped: it
//! comes again with `Last-Event-ID` and misses nothing, since the log is the queue.

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

use super::{AlertQuery, Shared, answer};
use crate::detection::alert::StoredAlert;

/// Alerts that are read at once.
const PAGE: usize = 32;

/// Alerts that wait for a client.
const QUEUE: usize = 16;

/// Follows the alerts: behind `Last-Event-ID` (or `?after=`), or from now on.
pub(super) async fn follow(
    State(shared): State<Arc<Shared>>,
    parameters: Result<Query<HashMap<String, String>>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let Ok(Query(parameters)) = parameters else {
        return answer::error(StatusCode::BAD_REQUEST, "the parameters cannot be read");
    };
    if parameters.keys().any(|name| name != "after") {
        return answer::error(StatusCode::BAD_REQUEST, "there is no such parameter; there is after");
    }
    // A browser that reconnects keeps its URL: what it has seen since counts more.
    let last = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?"));
    let after = match last.or(parameters.get("after").map(String::as_str)) {
        None => None,
        Some(text) => match text.parse::<i64>() {
            Ok(after) if after >= 0 => Some(after),
            _ => return answer::error(StatusCode::BAD_REQUEST, "Last-Event-ID and after are numbers"),
        },
    };
    let Ok(permit) = shared.streams.clone().try_acquire_owned() else {
        return answer::error(StatusCode::SERVICE_UNAVAILABLE, "too many clients follow the alerts");
    };
    let after = match after {
        Some(after) => after,
        None => {
            let newest = AlertQuery { limit: 1, ..AlertQuery::default() };
            match shared.ask(move |alerts| alerts.list(&newest)).await {
                Ok(alerts) => alerts.first().map_or(0, |alert| alert.seq),
                Err(error) => {
                    tracing::warn!(%error, "alerts cannot be read");
                    return answer::error(StatusCode::SERVICE_UNAVAILABLE, "the alerts cannot be read now");
                }
            }
        }
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    shared.metrics.stream_started();
    tokio::spawn(async move {
        feed(&shared, after, &sender).await;
        shared.metrics.stream_ended();
        drop(permit);
    });
    let pieces = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Bytes>| {
        receiver.recv().await.map(|piece| (Ok::<_, Infallible>(piece), receiver))
    });
    let content_type = HeaderValue::from_static("text/event-stream");
    ([(CONTENT_TYPE, content_type)], Body::from_stream(pieces)).into_response()
}

/// Sends alerts until the client is gone or too slow, or pullwatch stops.
async fn feed(shared: &Shared, mut after: i64, client: &mpsc::Sender<Bytes>) {
    let mut news = shared.parts.news.clone();
    let mut is_stopping = shared.is_stopping.clone();
    // Tells the client at once that it is heard, and how soon to come again.
    let mut next = Bytes::from_static(b"retry: 2000\n\n");
    loop {
        if !send(shared, client, next).await {
            return;
        }
        // Seen before the log is read: what comes later wakes us.
        news.mark_unchanged();
        loop {
            if *is_stopping.borrow() {
                return;
            }
            let page = match shared.ask(move |alerts| alerts.after(after, PAGE)).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "alerts cannot be read");
                    return;
                }
            };
            let Some(last) = page.last().map(|alert| alert.seq).filter(|&last| last > after) else { break };
            for alert in &page {
                if !send(shared, client, event(alert)).await {
                    return;
                }
            }
            after = last;
        }
        let pause = shared.settings.heartbeat;
        tokio::select! {
            changed = news.changed() => {
                if changed.is_err() {
                    return;
                }
                next = Bytes::new();
            }
            () = tokio::time::sleep(pause) => next = Bytes::from_static(b": still here\n\n"),
            () = client.closed() => return,
            _ = is_stopping.changed() => return,
        }
    }
}

/// Gives a piece to the client; false where it is gone or takes nothing.
async fn send(shared: &Shared, client: &mpsc::Sender<Bytes>, piece: Bytes) -> bool {
    if piece.is_empty() {
        return true;
    }
    match timeout(shared.settings.stalled, client.send(piece)).await {
        Ok(sent) => sent.is_ok(),
        Err(_) => {
            tracing::info!("a client that follows the alerts takes nothing, and is dropped");
            false
        }
    }
}

/// An alert as an event. Its JSON is one line; were it not, each line would be one of data.
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
