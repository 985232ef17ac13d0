//! The daemon's HTTP server: metrics, health checks and stored alerts.
//!
//! | path | response |
//! | --- | --- |
//! | `/` | a page that shows alerts, exposures and status |
//! | `/metrics` | metrics in the Prometheus text format |
//! | `/healthz` | liveness: 503 if a restart would help |
//! | `/readyz` | readiness: 200 if all checks pass (sources readable, store writable, rules current) |
//! | `/api/v1/alerts` | alerts, newest first, in pages |
//! | `/api/v1/alerts/stream` | alerts as they are stored, as server-sent events |
//! | `/api/v1/alerts/ID` | one alert, with an explanation |
//! | `/api/v1/alerts/ID/ack` | acknowledges an alert (POST) |
//! | `/api/v1/exposures` | who read which credential, and which registries to rotate |
//! | `/api/v1/status` | sources, sinks and rules |
//! | `/api/v1/openapi.json` | description of the API |
//!
//! Only one kind of request changes state: an acknowledgement, which requires a token. Responses contain only data from the store, which is
//! redacted, and the loaded rules. Takes the store and the pipeline through the traits [`AlertLog`], [`Health`] and [`StatusSource`].
//!
//! If a token is configured, every path requires it except for the status of `/healthz` and `/readyz`, since probes cannot send one, and
//! for the page, which holds no data: a browser cannot send a token with the first request.

mod alerts;
mod exposures;
mod health;
mod host;
mod page;
mod query;
mod response;
mod status;
mod stream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};

pub use health::{Health, HealthCheck};
pub use query::{AlertQuery, Pattern};
pub use status::{RuleStatus, SinkStatus, SourceStatus, StatusSource};

use crate::daemon::metrics::{Exposition, ListenerMetrics, Metrics};
use crate::daemon::net::listener::ListenerConfig;
use crate::daemon::net::token::TokenCheck;
use crate::daemon::net::{Connections, Limits, Listener, NetError, RELOAD_INTERVAL, Tls, Token, listen};
use crate::detection::alert::{AlertId, StoredAlert};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub address: SocketAddr,
    /// Plain HTTP if `None`.
    pub tls: Option<Tls>,
    /// File with the bearer token that clients must send; none is required if `None`.
    pub token_file: Option<PathBuf>,
    /// Host names accepted without a token, in addition to addresses and `localhost`. See `host.rs`.
    pub hosts: Vec<String>,
    /// Time limit of every response except for streams.
    pub request_timeout: Duration,
    /// Maximum number of concurrent alert streams.
    pub streams: usize,
    /// Interval at which a stream without alerts sends a comment, to keep the connection open.
    pub heartbeat: Duration,
    /// A stream whose client accepts no data for this long is closed.
    pub stalled: Duration,
    /// Interval at which certificate, key and token files are checked for changes.
    pub reload_interval: Duration,
    /// Limits for untrusted clients.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            address: SocketAddr::from(([127, 0, 0, 1], 9417)),
            tls: None,
            token_file: None,
            hosts: Vec::new(),
            request_timeout: Duration::from_secs(10),
            streams: 16,
            heartbeat: Duration::from_secs(15),
            stalled: Duration::from_secs(30),
            reload_interval: RELOAD_INTERVAL,
            limits: Limits { connections: 128, connections_per_address: 64, ..Limits::default() },
        }
    }
}

/// Stored alerts cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LogError(pub String);

/// An operator's acknowledgement of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// In nanoseconds since 1970-01-01T00:00:00Z.
    pub at: i64,
    /// Name stated by the operator; not verified.
    pub by: String,
    /// May be empty.
    pub note: String,
}

/// An alert as the server returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedAlert {
    pub alert: StoredAlert,
    pub acknowledgement: Option<Acknowledgement>,
}

/// A page of alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertPage {
    /// Newest first, at most the query's limit. May contain fewer although there are more: see `next`.
    pub alerts: Vec<ServedAlert>,
    /// The query's `before` for the next page; `None` if this is the last one.
    pub next: Option<i64>,
}

/// The alerts whose id starts with certain digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdLookup {
    None,
    One(Box<ServedAlert>),
    Several,
}

/// Access to stored alerts. Methods may block, so they are called on blocking threads.
pub trait AlertLog: Send + Sync {
    /// Returns the alerts that match a query.
    ///
    /// # Errors
    /// If the alerts cannot be read.
    fn list(&self, query: &AlertQuery) -> Result<AlertPage, LogError>;

    /// Returns the alert whose id starts with these hexadecimal digits.
    ///
    /// # Errors
    /// If the alerts cannot be read.
    fn get(&self, id_prefix: &str) -> Result<IdLookup, LogError>;

    /// Acknowledges an alert, unless it is acknowledged already or does not exist.
    ///
    /// # Errors
    /// If it cannot be written.
    fn acknowledge(&self, id: &AlertId, acknowledgement: &Acknowledgement) -> Result<(), LogError>;

    /// Returns up to `limit` alerts with a higher sequence number, in ascending order.
    ///
    /// # Errors
    /// If the alerts cannot be read.
    fn after(&self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, LogError>;
}

/// The components whose state the server exposes.
#[derive(Clone)]
pub struct Backend {
    pub metrics: Arc<Metrics>,
    pub alerts: Arc<dyn AlertLog>,
    pub health: Arc<dyn Health>,
    pub status: Arc<dyn StatusSource>,
    /// Notifies of newly stored alerts; the value is not used.
    pub latest_seq: watch::Receiver<i64>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

/// Maximum number of concurrent queries of the store.
const MAX_QUERIES: usize = 4;

/// State shared by all handlers.
struct AppState {
    settings: Settings,
    backend: Backend,
    token: Option<Token>,
    metrics: ListenerMetrics,
    connections: Connections,
    queries: Arc<Semaphore>,
    /// Allows one such query at a time, because it reads many alerts.
    exposure_queries: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    is_stopping: watch::Receiver<bool>,
}

/// Values of the metric label `path`.
const PATHS: [&str; 11] = [
    "/",
    "/metrics",
    "/healthz",
    "/readyz",
    "/api/v1/alerts",
    "/api/v1/alerts/stream",
    ONE_ALERT,
    ACK,
    "/api/v1/exposures",
    "/api/v1/status",
    "/api/v1/openapi.json",
];

/// Path of one alert, as a route and as a label.
const ONE_ALERT: &str = "/api/v1/alerts/{id}";

/// Path of the acknowledgement of an alert.
const ACK: &str = "/api/v1/alerts/{id}/ack";

/// Maximum size of the body of a request in bytes.
const MAX_BODY: usize = 16 << 10;

/// The value of the metric label `path` for a request path. Unknown paths share one value.
fn label(path: &str) -> &'static str {
    if let Some(known) = PATHS.into_iter().find(|known| *known == path) {
        return known;
    }
    match path.strip_prefix("/api/v1/alerts/").map(|rest| rest.split_once('/')) {
        Some(None) => ONE_ALERT,
        Some(Some((_, "ack"))) => ACK,
        _ => "other",
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Opens the port and starts serving. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the address is in use, or a certificate, key or token file is invalid.
    pub fn start(settings: Settings, backend: Backend) -> Result<Self, NetError> {
        let token = settings.token_file.clone().map(Token::load).transpose()?;
        let (stop, is_stopping) = watch::channel(false);
        let metrics = ListenerMetrics::new(backend.metrics.clone(), &PATHS);
        let connections = Connections::new(settings.limits.clone());
        let port = ListenerConfig {
            address: settings.address,
            tls: settings.tls.clone(),
            token: token.clone(),
            reload_interval: settings.reload_interval,
            connections: connections.clone(),
        };
        let state = Arc::new(AppState {
            token,
            metrics: metrics.clone(),
            connections,
            queries: Arc::new(Semaphore::new(MAX_QUERIES)),
            exposure_queries: Arc::new(Semaphore::new(1)),
            streams: Arc::new(Semaphore::new(settings.streams)),
            is_stopping,
            settings,
            backend,
        });
        let listener = listen(port, router(state), move |success| metrics.reloaded(success))?;
        Ok(Server { listener, stop })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Closes streams and the port; waits up to `grace` for running requests.
    pub async fn stop(self, grace: Duration) {
        let _ = self.stop.send(true);
        self.listener.stop(grace).await;
    }
}

fn router(state: Arc<AppState>) -> Router {
    Router::new()
        .route("/", get(page::show))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/api/v1/alerts", get(alerts::list))
        .route("/api/v1/alerts/stream", get(stream::follow))
        .route(ONE_ALERT, get(alerts::show))
        .route(ACK, post(alerts::acknowledge))
        .route("/api/v1/exposures", get(exposures::show))
        .route("/api/v1/status", get(status::show))
        .route("/api/v1/openapi.json", get(page::openapi))
        .fallback(async || response::error(StatusCode::NOT_FOUND, "not found"))
        .method_not_allowed_fallback(async || {
            response::error(
                StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed: use GET, or POST to acknowledge",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(state.clone(), guard))
        .with_state(state)
}

/// Applied to every request: checks host and token, limits the duration, sets security headers and counts the request.
async fn guard(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let path = label(request.uri().path());
    let token = state.check_token(&request);
    let is_probe = matches!(path, "/healthz" | "/readyz");
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
    let _active = peer.map(|peer| state.connections.request(peer, token == TokenCheck::Valid));
    let is_foreign_host =
        state.token.is_none() && !is_probe && !host::is_accepted(&request, &state.settings.hosts);
    let mut response = if is_foreign_host {
        response::error(StatusCode::FORBIDDEN, "host not accepted: add it to `server.hosts`, or set a token")
    } else if token == TokenCheck::Valid || is_probe || path == "/" {
        match tokio::time::timeout(state.settings.request_timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => response::error(StatusCode::SERVICE_UNAVAILABLE, "request timed out"),
        }
    } else if token == TokenCheck::Missing {
        response::unauthorized()
    } else {
        response::error(StatusCode::FORBIDDEN, "invalid bearer token")
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // The page has its own.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    state.metrics.answered(path, response.status().as_u16());
    response
}

impl AppState {
    fn check_token(&self, request: &Request) -> TokenCheck {
        self.token.as_ref().map_or(TokenCheck::Valid, |token| token.check(request.headers()))
    }

    /// Runs a query of the alert log on a blocking thread.
    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&dyn AlertLog) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let Ok(permit) = self.queries.clone().acquire_owned().await else {
            return Err(LogError("pullwatch is shutting down".to_owned()));
        };
        let alerts = self.backend.alerts.clone();
        let result = tokio::task::spawn_blocking(move || {
            // The query holds the permit, not the request: after a timeout of the request, its query still runs.
            let _permit = permit;
            query(&*alerts)
        });
        result.await.unwrap_or_else(|_| Err(LogError("the query panicked".to_owned())))
    }
}

async fn metrics(State(state): State<Arc<AppState>>, headers: HeaderMap) -> Response {
    let text =
        |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let format = Exposition::negotiate(text(ACCEPT));
    let body = state.backend.metrics.render_as(format);
    let mut response = if response::accepts_gzip(text(ACCEPT_ENCODING)) {
        response::gzip(body.as_bytes())
    } else {
        body.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    response
}
