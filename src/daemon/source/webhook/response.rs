//! The responses of the webhook.

use axum::http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::events::InvalidBody;

/// All status codes of responses.
pub const CODES: [u16; 11] = [200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 503];

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Stored {
        events: u64,
    },
    Invalid(InvalidBody),
    Incomplete,
    InvalidGzip,
    NoToken,
    WrongToken,
    WrongPath,
    WrongMethod,
    BodyTimeout,
    TooLarge {
        max_bytes: usize,
    },
    /// A request from a page in a browser.
    CrossOrigin,
    WrongType,
    WrongEncoding,
    /// The queue or the memory budget is full.
    Overloaded,
    StoreFull,
    Stopping,
    Busy,
    /// Not stored in time. The pipeline continues to store it.
    StoreTimeout {
        events: u64,
        /// The number of events that were stored by then.
        stored: u64,
    },
}

impl Reply {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Reply::Stored { .. } => StatusCode::OK,
            Reply::Invalid(_) | Reply::Incomplete | Reply::InvalidGzip => StatusCode::BAD_REQUEST,
            Reply::NoToken => StatusCode::UNAUTHORIZED,
            Reply::WrongToken | Reply::CrossOrigin => StatusCode::FORBIDDEN,
            Reply::WrongPath => StatusCode::NOT_FOUND,
            Reply::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Reply::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Reply::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Reply::WrongType | Reply::WrongEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Reply::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Reply::StoreFull | Reply::Stopping | Reply::Busy | Reply::StoreTimeout { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Seconds until a retry makes sense. The apiserver's client waits for this time on its own, before the audit backend's own five
    /// retries start to count.
    fn retry_after(self) -> Option<&'static str> {
        match self {
            Reply::Overloaded | Reply::StoreTimeout { .. } => Some("1"),
            Reply::Busy | Reply::Stopping => Some("5"),
            Reply::StoreFull => Some("10"),
            _ => None,
        }
    }

    /// Whether to drain the body, so that the sender can read the response before the connection closes.
    pub(super) fn drains_body(self) -> bool {
        !matches!(self, Reply::Incomplete | Reply::BodyTimeout)
    }

    pub(super) fn reason(self) -> String {
        match self {
            Reply::Stored { .. } => String::new(),
            Reply::Invalid(reason) => reason.to_string(),
            Reply::Incomplete => "the body is incomplete".to_owned(),
            Reply::InvalidGzip => "the body is not valid gzip".to_owned(),
            Reply::NoToken => "bearer token required".to_owned(),
            Reply::WrongToken => "wrong bearer token".to_owned(),
            Reply::WrongPath => "not found".to_owned(),
            Reply::WrongMethod => "use POST".to_owned(),
            Reply::BodyTimeout => "timed out while reading the body".to_owned(),
            Reply::TooLarge { max_bytes } => {
                format!(
                    "the body is larger than {max_bytes} bytes and consists of something other than events: \
                     check the sender"
                )
            }
            Reply::CrossOrigin => "requests with an Origin header are refused".to_owned(),
            Reply::WrongType => "Content-Type must be application/json or application/x-ndjson".to_owned(),
            Reply::WrongEncoding => "Content-Encoding must be identity or gzip".to_owned(),
            Reply::Overloaded => "too many pending batches".to_owned(),
            Reply::StoreFull => "the store is full".to_owned(),
            Reply::Stopping => "shutting down".to_owned(),
            Reply::Busy => "the batch cannot be stored now, retry".to_owned(),
            Reply::StoreTimeout { events: 0, .. } => "the batch is queued, retry".to_owned(),
            Reply::StoreTimeout { events, stored } => {
                format!(
                    "{stored} of {events} events are stored so far, and the rest will be: retry, stored events are recognized"
                )
            }
        }
    }

    pub(super) fn into_response(self) -> Response {
        let body = match self {
            Reply::Stored { events } => serde_json::json!({ "events": events }),
            Reply::StoreTimeout { events, stored } => {
                serde_json::json!({ "error": self.reason(), "events": events, "stored": stored })
            }
            other => serde_json::json!({ "error": other.reason() }),
        };
        let mut response = (self.status(), body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        match self {
            Reply::NoToken => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Reply::WrongMethod => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            Reply::WrongEncoding => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            }
            _ => {}
        }
        response
    }
}
