//! One request, from its first header to its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::response::Answer;
use super::{Delivery, Outcome, Shared, body};
use crate::daemon::net::token::Shown;

/// Of a body that is refused for who sent it, so much is read and forgotten.
const STRANGERS_REST: usize = 1 << 20;

/// Takes a batch, and answers when the pipeline has it.
pub(super) async fn receive(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let mut pieces = body::pieces(body);
    let limit = shared.settings.largest_body;
    let answer = match admit(&shared, &head.method, head.uri.path(), &head.headers) {
        Ok(is_packed) => {
            let share = shared.budget.share();
            let reading = body::read(&mut pieces, is_packed, limit, share);
            match timeout(shared.settings.read_timeout, reading).await {
                Err(_) => Answer::TooSlow,
                Ok(Err(answer)) => rest(&shared, &mut pieces, answer, limit.saturating_mul(2)).await,
                Ok(Ok((bytes, share))) => hand_on(&shared, peer, bytes, share).await,
            }
        }
        Err(answer @ (Answer::TooLarge { .. } | Answer::Stopping)) => {
            rest(&shared, &mut pieces, answer, limit.saturating_mul(2)).await
        }
        Err(answer) => rest(&shared, &mut pieces, answer, STRANGERS_REST).await,
    };
    let status = answer.status();
    shared.witness.answered(status.as_u16());
    if !status.is_success() {
        tracing::debug!(%peer, code = status.as_u16(), ?answer, "a batch was refused");
    }
    answer.into_response()
}

/// Reads what is left of a refused body, for as long as a body may take.
async fn rest(
    shared: &Shared,
    pieces: &mut axum::body::BodyDataStream,
    answer: Answer,
    most: usize,
) -> Answer {
    if answer.is_worth_draining() {
        // However it ends: the answer stands.
        let _ = timeout(shared.settings.read_timeout, body::drain(pieces, most)).await;
    }
    answer
}

/// What the head alone says; gives whether the body is packed. Who may not send learns nothing else.
fn admit(shared: &Shared, method: &Method, path: &str, headers: &HeaderMap) -> Result<bool, Answer> {
    match shared.token.as_ref().map_or(Shown::Right, |token| token.check(headers)) {
        Shown::Right => {}
        Shown::Nothing => return Err(Answer::NoToken),
        Shown::Wrong => return Err(Answer::WrongToken),
    }
    let bare = |path: &str| path.trim_end_matches('/').to_owned();
    if bare(path) != bare(&shared.settings.path) {
        return Err(Answer::WrongPath);
    }
    if method != Method::POST {
        return Err(Answer::WrongMethod);
    }
    if shared.is_stopping.load(Ordering::Acquire) {
        return Err(Answer::Stopping);
    }
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
    let media_type = text(CONTENT_TYPE).and_then(|value| value.split(';').next()).map(str::trim_end);
    let is_json = media_type.is_none_or(|media_type| {
        ["application/json", "application/x-ndjson"]
            .iter()
            .any(|known| media_type.eq_ignore_ascii_case(known))
    });
    if !is_json {
        return Err(Answer::WrongType);
    }
    let is_packed = match text(CONTENT_ENCODING).map(str::to_ascii_lowercase).as_deref() {
        None | Some("identity" | "") => false,
        Some("gzip" | "x-gzip") => true,
        Some(_) => return Err(Answer::WrongEncoding),
    };
    let largest = shared.settings.largest_body;
    let announced = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > largest as u64) {
        return Err(Answer::TooLarge { largest });
    }
    Ok(is_packed)
}

/// Hands a body to the pipeline, and waits for what becomes of it.
async fn hand_on(shared: &Shared, peer: SocketAddr, body: Vec<u8>, share: super::Share) -> Answer {
    let (done, outcome) = oneshot::channel();
    let bytes = body.len();
    match shared.queue.try_send(Delivery { body, peer, done, share }) {
        Ok(()) => shared.witness.handed_on(bytes),
        Err(TrySendError::Full(_)) => return Answer::TooMuch,
        Err(TrySendError::Closed(_)) => return Answer::Stopping,
    }
    match timeout(shared.settings.answer_timeout, outcome).await {
        // The pipeline goes on with it. When it comes again its events are known.
        Err(_) => Answer::Late,
        // Dropped without an answer: whatever happened, it is not known to be stored.
        Ok(Err(_)) => Answer::Busy,
        Ok(Ok(Outcome::Stored { events })) => Answer::Stored { events },
        Ok(Ok(Outcome::Invalid(reason))) => Answer::Invalid(reason),
        Ok(Ok(Outcome::Full)) => Answer::StoreFull,
        Ok(Ok(Outcome::Busy)) => Answer::Busy,
    }
}
