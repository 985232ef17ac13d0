//! JSON responses, and compression.

use std::io::Write as _;

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::LogError;

pub(super) fn json_body(status: StatusCode, body: &Value) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    (status, [(CONTENT_TYPE, content_type)], format!("{body}\n")).into_response()
}

pub(super) fn error(status: StatusCode, reason: &str) -> Response {
    json_body(status, &json!({ "error": reason }))
}

pub(super) fn unauthorized() -> Response {
    let mut response = error(StatusCode::UNAUTHORIZED, "bearer token required");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// The store cannot be read or written at present. Details may contain paths and are only logged.
pub(super) fn unavailable(error: &LogError) -> Response {
    tracing::warn!(%error, "failed to read alerts");
    self::error(StatusCode::SERVICE_UNAVAILABLE, "alerts are temporarily unavailable")
}

/// Formats nanoseconds since 1970-01-01T00:00:00Z.
pub(super) fn timestamp(nanoseconds: i64) -> Option<String> {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).ok().map(|time| time.to_string())
}

/// Whether an `Accept-Encoding` header names gzip without a weight of 0.
pub(super) fn accepts_gzip(header: &str) -> bool {
    header.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"))
            && !parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)))
    })
}

/// A compressed response.
pub(super) fn gzip(body: &[u8]) -> Response {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    match encoder.write_all(body).and_then(|()| encoder.finish()) {
        Ok(compressed) => {
            let gzip = HeaderValue::from_static("gzip");
            ([(CONTENT_ENCODING, gzip)], compressed).into_response()
        }
        // Writing to a Vec does not fail.
        Err(_) => body.to_vec().into_response(),
    }
}
