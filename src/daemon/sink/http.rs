//! Sends alerts to an HTTP server.

use std::error::Error as _;
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode, Url};

use super::config::{Body, Http};
use super::error::{SettingsError, TlsError};
use super::failure::{Failure, Reason, Remedy};
use super::http_body::{self, Encoded};
use super::output::Rendering;
use super::tls::{Tls, explained};
use crate::detection::alert::StoredAlert;

/// Maximum size of a response that is drained so that the connection can be reused. The content is ignored.
const MAX_RESPONSE_BYTES: usize = 64 << 10;

/// Maximum time for draining a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum size of a token file.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// Minimum length to which a message is shortened, in bytes, whatever limit the receiver states.
const MIN_MESSAGE_BYTES: usize = 512;

/// Maximum size of a response that contains results for the individual alerts.
const MAX_RESULT_BYTES: usize = 8 << 20;

/// Time between two acknowledgement queries.
const ACK_INTERVAL: Duration = Duration::from_millis(500);

/// The response to a request.
pub(super) struct HttpResponse {
    pub(super) status: StatusCode,
    retry_after: Option<Duration>,
    /// The beginning of it. It may contain anything, so it is only compared with known texts and never shown.
    pub(super) body: Vec<u8>,
}

/// Sends requests to one URL.
#[derive(Debug)]
pub(crate) struct HttpSink {
    settings: Http,
    shape: Rendering,
    url: Url,
    headers: HeaderMap,
    /// Only present if a connection is encrypted: `http` must work on a machine without certificate authorities.
    tls: Option<Tls>,
    client: Client,
}

impl HttpSink {
    /// Checks the settings. Sends nothing.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub(crate) fn new(settings: &Http, shape: Rendering) -> Result<Self, SettingsError> {
        let url = Url::parse(settings.url.reveal()).map_err(|_| SettingsError::Url("it cannot be parsed"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(SettingsError::Url("expected http or https"));
        }
        let (alerts, bytes) = settings.body.batch();
        if alerts == 0 || bytes == 0 {
            return Err(SettingsError::Zero("the size of a batch"));
        }
        if !settings.format.is_json() && matches!(settings.body, Body::Array { .. } | Body::Bulk { .. }) {
            return Err(SettingsError::Format);
        }
        let url = endpoint(url, &settings.body);
        let proxy_encrypts = settings.proxy.as_ref().is_some_and(|url| url.reveal().starts_with("https:"));
        let tls = (url.scheme() == "https" || proxy_encrypts).then(|| Tls::new(&settings.tls)).transpose()?;
        let client = client(settings, tls.as_ref())?;
        let headers = headers(settings)?;
        Ok(HttpSink { settings: settings.clone(), shape, url, headers, tls, client })
    }

    /// Sends one request with as many alerts as fit.
    pub(crate) async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        self.refresh();
        let mut headers = self.headers.clone();
        if let Some(token) = self.token().await? {
            headers.insert(AUTHORIZATION, token);
        }
        let mut max_len = self.shape.max_len;
        loop {
            let shape = Rendering { max_len, ..self.shape.clone() };
            let Encoded { count, bytes } = http_body::encode(&self.settings.body, alerts, &shape)?;
            let length = bytes.len();
            let answer = self.send(self.url.clone(), headers.clone(), bytes).await?;
            // The receiver's limit is below the configured one, so it would never accept this alert unchanged.
            if answer.status == StatusCode::PAYLOAD_TOO_LARGE && count == 1 && length > MIN_MESSAGE_BYTES {
                max_len = Some(length / 2);
                continue;
            }
            self.classify(&answer, count)?;
            let done = http_body::accepted(&self.settings.body, &answer.body, count)?;
            self.wait_for_acknowledgement(&headers, &answer).await?;
            return Ok(done);
        }
    }

    /// Sends a body created by the caller, with this number of alerts.
    pub(crate) async fn post(&mut self, body: Vec<u8>, count: usize) -> Result<usize, Failure> {
        let answer = self.exchange(body).await?;
        self.classify(&answer, count)
    }

    /// Sends a body created by the caller, and returns the response.
    pub(super) async fn exchange(&mut self, body: Vec<u8>) -> Result<HttpResponse, Failure> {
        self.refresh();
        let mut headers = self.headers.clone();
        if let Some(token) = self.token().await? {
            headers.insert(AUTHORIZATION, token);
        }
        self.send(self.url.clone(), headers, body).await
    }

    /// Sends a request, and reads the relevant part of the response.
    async fn send(&self, url: Url, headers: HeaderMap, body: Vec<u8>) -> Result<HttpResponse, Failure> {
        let body = if self.settings.gzip { gzip(&body).map_err(|error| Failure::io(&error))? } else { body };
        let mut response = self.client.post(url).headers(headers).body(body).send().await.map_err(failure)?;
        let mut answer =
            HttpResponse { status: response.status(), retry_after: retry_after(&response), body: Vec::new() };
        let max_len = if self.settings.body.has_results() { MAX_RESULT_BYTES } else { MAX_RESPONSE_BYTES };
        let rest = async {
            while answer.body.len() <= max_len
                && let Some(chunk) = response.chunk().await?
            {
                answer.body.extend_from_slice(&chunk);
            }
            Ok(())
        };
        // If the content contains results for the individual alerts, the sink's timeout is the limit.
        if self.settings.body.has_results() {
            rest.await.map_err(failure)?;
        } else {
            // If only the status matters, an incomplete or endless body changes nothing.
            let _ = tokio::time::timeout(RESPONSE_TIMEOUT, rest).await;
        }
        Ok(answer)
    }

    /// Waits until Splunk's indexer has acknowledged the events of a request. Ends when the delivery times out.
    async fn wait_for_acknowledgement(
        &self,
        headers: &HeaderMap,
        answer: &HttpResponse,
    ) -> Result<(), Failure> {
        let Body::Splunk { ack: true, .. } = self.settings.body else { return Ok(()) };
        let Some(id) = http_body::splunk_ack_id(&answer.body) else {
            let detail = "the response has no ackId: enable indexer acknowledgement for the token, or set `ack: false`";
            return Err(Failure::transient(Reason::Unexpected, detail));
        };
        let mut url = self.url.clone();
        url.set_path(&url.path().replace("/event", "/ack"));
        loop {
            let query = format!("{{\"acks\":[{id}]}}").into_bytes();
            let answer = self.send(url.clone(), headers.clone(), query).await?;
            if http_body::splunk_is_acknowledged(answer.status, &answer.body, id) {
                return Ok(());
            }
            tokio::time::sleep(ACK_INTERVAL).await;
        }
    }

    /// Builds a new client if certificates were renewed.
    fn refresh(&mut self) {
        if self.tls.as_mut().is_some_and(Tls::refresh) {
            match client(&self.settings, self.tls.as_ref()) {
                Ok(client) => self.client = client,
                Err(error) => {
                    tracing::warn!(%error, "cannot use the renewed certificates; the previous ones stay in use");
                }
            }
        }
    }

    async fn token(&self) -> Result<Option<HeaderValue>, Failure> {
        use tokio::io::AsyncReadExt as _;
        let Some(path) = &self.settings.bearer_token_file else { return Ok(None) };
        let wrong = |what: &dyn std::fmt::Display| {
            Failure::transient(Reason::Token, format!("{}: {what}", path.display()))
        };
        let file = tokio::fs::File::open(path).await.map_err(|error| wrong(&error))?;
        let mut token = String::from("Bearer ");
        let read = file.take(MAX_TOKEN_BYTES).read_to_string(&mut token).await;
        read.map_err(|error| wrong(&error))?;
        let mut value =
            HeaderValue::from_str(token.trim_end()).map_err(|_| wrong(&"contains no valid token"))?;
        if value.len() <= "Bearer".len() {
            return Err(wrong(&"is empty"));
        }
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Interprets a status for the alerts of the request.
    pub(super) fn classify(&self, answer: &HttpResponse, count: usize) -> Result<usize, Failure> {
        let status = answer.status;
        let (reason, remedy) = match status.as_u16() {
            200..=299 => return Ok(count),
            429 => (Reason::Throttled, Remedy::Retry(answer.retry_after)),
            408 | 425 | 500..=599 => (Reason::Server, Remedy::Retry(answer.retry_after)),
            code if self.settings.retry_statuses.contains(&code) => {
                (Reason::Rejected, Remedy::Retry(answer.retry_after))
            }
            400..=499 => (Reason::Rejected, Remedy::GiveUp(count)),
            _ => (Reason::Unexpected, Remedy::Retry(None)),
        };
        Err(Failure { delivered: 0, reason, remedy, detail: status_text(status) })
    }
}

/// Adds the path of the receiver's API to a URL without a path.
fn endpoint(mut url: Url, body: &Body) -> Url {
    let is_bare = matches!(url.path(), "" | "/");
    match body {
        Body::Bulk { .. } => {
            if !url.path().ends_with("/_bulk") {
                let path = format!("{}/_bulk", url.path().trim_end_matches('/'));
                url.set_path(&path);
            }
            // Requests only a result for each item.
            url.query_pairs_mut().append_pair("filter_path", "errors,items.*.status,items.*.error.type");
        }
        Body::Splunk { .. } if is_bare => url.set_path("/services/collector/event"),
        Body::Otlp { .. } if is_bare => url.set_path("/v1/logs"),
        _ => {}
    }
    url
}

/// A random channel for acknowledgements, as a UUID.
fn channel() -> HeaderValue {
    let digits = format!("{:032x}", rand::random::<u128>());
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    HeaderValue::from_str(&parts.join("-")).unwrap_or_else(|_| HeaderValue::from_static("pullwatch"))
}

fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("HTTP {} {reason}", status.as_u16()),
        None => format!("HTTP {}", status.as_u16()),
    }
}

/// The delay requested by the server, in seconds or as a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Duration::try_from(date.duration_since(jiff::Timestamp::now())).ok()
}

fn client(settings: &Http, tls: Option<&Tls>) -> Result<Client, SettingsError> {
    let mut tls = match tls {
        Some(tls) => tls.config().as_ref().clone(),
        None => client_config_without_roots()?,
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        // The worker counts and delays attempts itself.
        .retry(reqwest::retry::never())
        .connect_timeout(settings.connect_timeout)
        // Shorter than the idle timeout of most servers and proxies.
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_nodelay(true)
        .user_agent(concat!("pullwatch/", env!("CARGO_PKG_VERSION")));
    let builder = match &settings.proxy {
        None => builder.no_proxy(),
        Some(url) => builder.proxy(reqwest::Proxy::all(url.reveal()).map_err(|_| SettingsError::Proxy)?),
    };
    builder.build().map_err(|error| SettingsError::Client(error.without_url().to_string()))
}

/// A configuration without trusted authorities, for clients that do not encrypt. Otherwise, reqwest looks for a default provider.
pub(crate) fn client_config_without_roots() -> Result<rustls::ClientConfig, SettingsError> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Other(error.to_string()))?;
    Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

fn headers(settings: &Http) -> Result<HeaderMap, SettingsError> {
    let mut headers = HeaderMap::new();
    let content = match &settings.body {
        Body::Alert => settings.format.content_type(),
        Body::Lines { .. } if !settings.format.is_json() => settings.format.content_type(),
        Body::Array { .. } | Body::Template(_) | Body::Splunk { .. } => "application/json",
        Body::Lines { .. } | Body::Bulk { .. } => "application/x-ndjson",
        Body::Otlp { .. } => "application/x-protobuf",
    };
    if let Body::Splunk { ack: true, .. } = settings.body {
        headers.insert("x-splunk-request-channel", channel());
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    if settings.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    for (name, value) in &settings.headers {
        let bad = || SettingsError::Header(name.clone());
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

/// Converts an error. The URL is removed, because it may contain a secret.
fn failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut detail = error.to_string();
    let mut encrypted = false;
    let mut cause = error.source();
    while let Some(inner) = cause {
        encrypted |= is_tls(inner);
        detail.push_str(": ");
        detail.push_str(&inner.to_string());
        cause = inner.source();
    }
    let reason = match () {
        () if encrypted => Reason::Tls,
        () if error.is_timeout() => Reason::Timeout,
        () => Reason::Connection,
    };
    Failure::transient(reason, explained(detail))
}

fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    // `source` of an io::Error skips the error it wraps, which may be an io::Error again.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(held) => is_tls(held),
        None => error.is::<rustls::Error>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sink::config::{Format, Secret};
    use crate::daemon::sink::tests::alert;

    fn shape() -> Rendering {
        Rendering {
            format: Format::Falco,
            max_len: None,
            shortened: prometheus::IntCounter::new("shortened", "-").unwrap(),
        }
    }

    #[test]
    fn bodies_contain_as_many_alerts_as_fit() {
        let body = |body: &Body, alerts: &[StoredAlert]| {
            let encoded = http_body::encode(body, alerts, &shape()).unwrap();
            (encoded.count, encoded.bytes)
        };
        let alerts: Vec<_> = (1..=4).map(alert).collect();
        let size = alerts[0].json.len();
        let (count, array) = body(&Body::Array { alerts: 3, bytes: usize::MAX }, &alerts);
        assert_eq!(count, 3);
        assert_eq!(serde_json::from_slice::<Vec<serde_json::Value>>(&array).unwrap().len(), 3);
        for (bytes, expected) in [(1, 1), (size * 2 + 4, 2), (size * 2 + 2, 1)] {
            let (count, array) = body(&Body::Array { alerts: 3, bytes }, &alerts);
            assert_eq!(count, expected);
            assert!(array.len() <= bytes || count == 1);
        }
        let (count, lines) = body(&Body::Lines { alerts: 9, bytes: usize::MAX }, &alerts);
        assert_eq!((count, String::from_utf8(lines).unwrap().lines().count()), (4, 4));
        assert_eq!(body(&Body::Alert, &alerts), (1, alerts[0].json.clone()));
    }

    #[test]
    fn settings_and_errors_show_no_secret() {
        let settings = Http {
            url: Secret::new("https://user:hunter2@example.com/hook?token=hunter2"),
            headers: vec![("X-Key".into(), Secret::new("hunter2"))],
            proxy: Some(Secret::new("http://hunter2@proxy")),
            ..Http::default()
        };
        assert!(!format!("{settings:?}").contains("hunter2"));
        let bad_header = Http {
            url: Secret::new("http://example.com"),
            headers: vec![("X-Key".into(), Secret::new("hunter2\r\nX-Other: 1"))],
            ..Http::default()
        };
        let error = HttpSink::new(&bad_header, shape()).unwrap_err().to_string();
        assert!(error.contains("X-Key") && !error.contains("hunter2"));
        for url in ["", "example.com", "ftp://example.com", "unix:/run/x"] {
            let settings = Http { url: Secret::new(url), ..Http::default() };
            assert!(matches!(HttpSink::new(&settings, shape()), Err(SettingsError::Url(_))));
        }
    }
}
