//! Answers in JSON.

use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

/// A value with its type.
pub(super) fn json_body(status: StatusCode, body: &Value) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    (status, [(CONTENT_TYPE, content_type)], format!("{body}\n")).into_response()
}

/// Why something is not answered.
pub(super) fn error(status: StatusCode, reason: &str) -> Response {
    json_body(status, &json!({ "error": reason }))
}

/// A token is needed.
pub(super) fn unauthorized() -> Response {
    let mut response = error(StatusCode::UNAUTHORIZED, "a bearer token is needed");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}
