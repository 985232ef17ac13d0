//! `/`: the page, one response with style and script in it.
//!
//! The page is the same for all clients and contains no data, so it requires no token: the script asks for one and sends it to the API. Its
//! Content-Security-Policy only allows this script and this style, by hash, and requests to this server; Trusted Types prevent text from
//! being parsed as markup.

use std::io::Write as _;
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::response;

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
/// In the order of the script, since later files use names defined in earlier ones.
const SCRIPTS: [&str; 4] = [
    include_str!("page/dom.js"),
    include_str!("page/api.js"),
    include_str!("page/views.js"),
    include_str!("page/main.js"),
];

/// The page as it is sent.
struct Page {
    plain: Bytes,
    gzip: Bytes,
    policy: HeaderValue,
    etag: HeaderValue,
}

static PAGE: LazyLock<Option<Page>> = LazyLock::new(assemble);

fn assemble() -> Option<Page> {
    let script = SCRIPTS.concat();
    let html = HTML.replacen("/*STYLE*/", STYLE, 1).replacen("/*SCRIPT*/", &script, 1);
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        source(&script),
        source(STYLE)
    );
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(html.as_bytes()).ok()?;
    let gzip = encoder.finish().ok()?;
    let etag = format!("\"{}\"", &source(&html)[7..29]);
    Some(Page {
        plain: html.into(),
        gzip: gzip.into(),
        policy: HeaderValue::from_str(&policy).ok()?,
        etag: HeaderValue::from_str(&etag).ok()?,
    })
}

/// A source expression of the Content-Security-Policy for a text.
fn source(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

pub(super) async fn show(headers: HeaderMap) -> Response {
    let Some(page) = &*PAGE else {
        return response::error(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be assembled");
    };
    let accepts_gzip = headers.get_all(ACCEPT_ENCODING).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case("gzip")))
    });
    let is_known = headers.get(IF_NONE_MATCH) == Some(&page.etag);
    let body = match (is_known, accepts_gzip) {
        (true, _) => Bytes::new(),
        (false, true) => page.gzip.clone(),
        (false, false) => page.plain.clone(),
    };
    let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, page.policy.clone());
    headers.insert(ETAG, page.etag.clone());
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    // Clients revalidate it each time, and get 304 as long as the binary is the same.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if accepts_gzip && !is_known {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// `/api/v1/openapi.json`: the description of the API.
pub(super) async fn openapi() -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, content_type)], include_str!("../../../docs/openapi.json")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_assembled_and_small() {
        let page = PAGE.as_ref().unwrap();
        assert!(page.gzip.len() < 60_000, "{}", page.gzip.len());
        let html = std::str::from_utf8(&page.plain).unwrap();
        assert!(!html.contains("/*STYLE*/") && !html.contains("/*SCRIPT*/"));
        assert_eq!(html.matches("<script>").count(), 1);
        assert_eq!(html.matches("</script>").count(), 1);
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style="]
        {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
    }
}
