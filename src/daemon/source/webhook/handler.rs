//! Handles one request, from its headers to the response.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use tokio::time::timeout;

use super::response::Reply;
use super::submit::submit;
use super::{HandlerState, body, large};
use crate::daemon::net::token::TokenCheck;

/// What the apiserver sends, and log shippers that write one object per line.
const MEDIA_TYPES: [&str; 2] = ["application/json", "application/x-ndjson"];

/// Bytes drained from the body of an unauthenticated request.
const MAX_UNAUTHENTICATED_DRAIN: usize = 1 << 20;

/// Receives a batch, and responds when the pipeline has stored it.
pub(super) async fn receive(
    State(shared): State<Arc<HandlerState>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let mut chunks = body::chunks(body);
    let limit = shared.settings.max_body;
    let token = shared.token.as_ref().map_or(TokenCheck::Valid, |token| token.check(&head.headers));
    let _active = shared.connections.request(peer, token == TokenCheck::Valid);
    let reply = match check_head(&shared, token, &head.method, head.uri.path(), &head.headers) {
        Ok(is_gzip) => {
            let reservation = shared.budget.reservation();
            let reading = body::read(&mut chunks, is_gzip, limit, reservation);
            match timeout(shared.settings.read_timeout, reading).await {
                Err(_) => Reply::BodyTimeout,
                Ok(Err(reply)) => rest(&shared, &mut chunks, reply, limit.saturating_mul(2)).await,
                Ok(Ok(body::Received::Whole(bytes, reservation))) => {
                    submit(&shared, peer, bytes, false, reservation, shared.settings.store_timeout).await
                }
                Ok(Ok(body::Received::Large(large))) => {
                    let announced = content_length(&head.headers);
                    large::receive(&shared, peer, large, &mut chunks, announced, started).await
                }
            }
        }
        Err(reply @ Reply::Stopping) => rest(&shared, &mut chunks, reply, limit.saturating_mul(2)).await,
        Err(reply) => rest(&shared, &mut chunks, reply, MAX_UNAUTHENTICATED_DRAIN).await,
    };
    let status = reply.status();
    shared.observer.answered(status.as_u16());
    log_refusal(&shared, peer, reply);
    reply.into_response()
}

/// Logs the reason why a request was rejected: client errors as warnings at a limited rate, everything else (which the pipeline reports)
/// for debugging.
fn log_refusal(shared: &HandlerState, peer: SocketAddr, reply: Reply) {
    let code = reply.status().as_u16();
    let source = &shared.settings.name;
    match reply {
        Reply::Stored { .. } => {}
        Reply::Overloaded | Reply::StoreFull | Reply::Stopping | Reply::Busy | Reply::StoreTimeout { .. } => {
            tracing::debug!(source, %peer, code, ?reply, "request refused");
        }
        _ => {
            let mut limits = shared.log_limits.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(suppressed) = limits.admit(std::mem::discriminant(&reply)) {
                let reason = reply.reason();
                tracing::warn!(source, client = %peer.ip(), code, reason, suppressed, "webhook request refused");
            }
        }
    }
}

/// Drains a refused body within the read timeout.
async fn rest(
    shared: &HandlerState,
    chunks: &mut axum::body::BodyDataStream,
    reply: Reply,
    most: usize,
) -> Reply {
    if reply.drains_body() {
        // The response is the same, regardless of how draining ends.
        let _ = timeout(shared.settings.read_timeout, body::drain(chunks, most)).await;
    }
    reply
}

/// Checks everything that precedes the body, and returns whether the body is gzip. An unauthenticated client only learns that it is
/// unauthenticated.
fn check_head(
    shared: &HandlerState,
    token: TokenCheck,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<bool, Reply> {
    match token {
        TokenCheck::Valid => {}
        TokenCheck::Missing => return Err(Reply::NoToken),
        TokenCheck::Wrong => return Err(Reply::WrongToken),
    }
    let bare = |path: &str| path.trim_end_matches('/').to_owned();
    if bare(path) != bare(&shared.settings.path) {
        return Err(Reply::WrongPath);
    }
    if method != Method::POST {
        return Err(Reply::WrongMethod);
    }
    if shared.is_stopping.load(Ordering::Acquire) {
        return Err(Reply::Stopping);
    }
    // Only a browser sends an Origin, on behalf of a page that must not use this port.
    if headers.contains_key(ORIGIN) {
        return Err(Reply::CrossOrigin);
    }
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
    let media_type = text(CONTENT_TYPE).and_then(|value| value.split(';').next()).map(str::trim_end);
    // Required because a browser sends other content types to any site without a preflight request.
    let is_json = |media_type: &str| MEDIA_TYPES.iter().any(|known| media_type.eq_ignore_ascii_case(known));
    if !media_type.is_some_and(is_json) {
        return Err(Reply::WrongType);
    }
    let is_gzip = match text(CONTENT_ENCODING).map(str::to_ascii_lowercase).as_deref() {
        None | Some("identity" | "") => false,
        Some("gzip" | "x-gzip") => true,
        Some(_) => return Err(Reply::WrongEncoding),
    };
    Ok(is_gzip)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}
