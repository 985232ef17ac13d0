//! What a sender hears.

use axum::http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::Reason;

/// Every code that a request can be answered with.
pub const CODES: [u16; 11] = [200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 503];

/// An answer to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Stored {
        events: u64,
    },
    Invalid(Reason),
    /// The body did not come whole.
    Torn,
    /// Its packing is broken.
    Unpackable,
    NoToken,
    WrongToken,
    WrongPath,
    WrongMethod,
    TooSlow,
    /// More than so many bytes.
    TooLarge {
        largest: usize,
    },
    WrongType,
    WrongEncoding,
    /// The queue or the budget is full.
    TooMuch,
    StoreFull,
    Stopping,
    Busy,
    /// Not stored in time; it may be later.
    Late,
}

impl Answer {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Answer::Stored { .. } => StatusCode::OK,
            Answer::Invalid(_) | Answer::Torn | Answer::Unpackable => StatusCode::BAD_REQUEST,
            Answer::NoToken => StatusCode::UNAUTHORIZED,
            Answer::WrongToken => StatusCode::FORBIDDEN,
            Answer::WrongPath => StatusCode::NOT_FOUND,
            Answer::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Answer::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Answer::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Answer::WrongType | Answer::WrongEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Answer::TooMuch => StatusCode::TOO_MANY_REQUESTS,
            Answer::StoreFull | Answer::Stopping | Answer::Busy | Answer::Late => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Seconds until it is worth to come back. The apiserver's client waits so long and tries again by itself, before the
    /// audit backend's own five attempts even start to count.
    fn retry_after(self) -> Option<&'static str> {
        match self {
            Answer::TooMuch | Answer::Late => Some("1"),
            Answer::Busy | Answer::Stopping => Some("5"),
            Answer::StoreFull => Some("10"),
            _ => None,
        }
    }

    /// Whether the rest of the body is worth to be read, so that the sender hears the answer instead of a connection that breaks.
    pub(super) fn is_worth_draining(self) -> bool {
        !matches!(self, Answer::Torn | Answer::TooSlow)
    }

    fn reason(self) -> String {
        match self {
            Answer::Stored { .. } => String::new(),
            Answer::Invalid(reason) => reason.to_string(),
            Answer::Torn => "the body did not come whole".to_owned(),
            Answer::Unpackable => "the body is no sound gzip".to_owned(),
            Answer::NoToken => "a bearer token is needed".to_owned(),
            Answer::WrongToken => "this is not the token".to_owned(),
            Answer::WrongPath => "nothing is received at this path".to_owned(),
            Answer::WrongMethod => "events are sent with POST".to_owned(),
            Answer::TooSlow => "the body took too long to come".to_owned(),
            Answer::TooLarge { largest } => {
                format!(
                    "the body is larger than {largest} bytes: lower the apiserver's \
                     --audit-webhook-batch-max-size, or raise the limit"
                )
            }
            Answer::WrongType => "events are sent as application/json".to_owned(),
            Answer::WrongEncoding => "a body is sent as it is, or packed with gzip".to_owned(),
            Answer::TooMuch => "more batches wait than there is room for".to_owned(),
            Answer::StoreFull => "the store is full".to_owned(),
            Answer::Stopping => "pullwatch stops".to_owned(),
            Answer::Busy => "the batch cannot be stored now".to_owned(),
            Answer::Late => "the batch was not stored in time".to_owned(),
        }
    }

    pub(super) fn into_response(self) -> Response {
        let body = match self {
            Answer::Stored { events } => serde_json::json!({ "events": events }),
            other => serde_json::json!({ "error": other.reason() }),
        };
        let mut response = (self.status(), body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        match self {
            Answer::NoToken => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Answer::WrongMethod => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            Answer::WrongEncoding => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            }
            _ => {}
        }
        response
    }
}
