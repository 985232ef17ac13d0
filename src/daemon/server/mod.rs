//! The daemon's HTTP server: metrics, health checks and stored alerts.
//!
//! | path | response |
//! | --- | --- |
//! | `/` | a page with links to the other paths |
//! | `/metrics` | metrics in the Prometheus text format |
//! | `/healthz` | liveness: 503 if a restart would help |
//! | `/readyz` | readiness: 200 if all checks pass (sources readable, store writable, rules current) |
//! | `/api/v1/alerts` | alerts, newest first, in pages |
//! | `/api/v1/alerts/stream` | alerts as they are stored, as server-sent events |
//!
//! Read-only: no request changes state, and responses contain only what the store has, which is redacted. Takes the store and the pipeline
//! through the traits [`AlertLog`] and [`Health`].
//!
//! If a token is configured, every path requires it except for the status of `/healthz` and `/readyz`, since probes cannot send one.

mod alerts;
mod health;
mod host;
mod query;
mod response;
mod stream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use tokio::sync::{Semaphore, watch};

pub use health::{Check, Health};
pub use query::AlertQuery;

use crate::daemon::metrics::{ListenerMetrics, Metrics};
use crate::daemon::net::listener::ListenerConfig;
use crate::daemon::net::token::TokenCheck;
use crate::daemon::net::{Connections, Limits, Listener, NetError, RELOAD_INTERVAL, Tls, Token, listen};
use crate::detection::alert::StoredAlert;

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
    /// Maximum number of alert streams.
    pub streams: usize,
    /// Interval of comments in a stream without alerts.
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

/// Access to stored alerts. Methods may block; they are called on blocking threads.
pub trait AlertLog: Send + Sync {
    /// Returns the alerts that match a query, newest first, at most `query.limit`.
    ///
    /// # Errors
    /// If the alerts cannot be read.
    fn list(&self, query: &AlertQuery) -> Result<Vec<StoredAlert>, LogError>;

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
    streams: Arc<Semaphore>,
    is_stopping: watch::Receiver<bool>,
}

/// Values of the metric label `path`.
const PATHS: [&str; 6] = ["/", "/metrics", "/healthz", "/readyz", "/api/v1/alerts", "/api/v1/alerts/stream"];

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
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/api/v1/alerts", get(alerts::list))
        .route("/api/v1/alerts/stream", get(stream::follow))
        .fallback(async || response::error(StatusCode::NOT_FOUND, "not found"))
        .method_not_allowed_fallback(async || {
            response::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed: use GET")
        })
        .layer(middleware::from_fn_with_state(state.clone(), guard))
        .with_state(state)
}

/// Applied to every request: checks host and token, limits the time, sets security headers and counts.
async fn guard(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let path = PATHS.into_iter().find(|path| *path == request.uri().path()).unwrap_or("other");
    let token = state.check_token(&request);
    let is_probe = matches!(path, "/healthz" | "/readyz");
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
    let _active = peer.map(|peer| state.connections.request(peer, token == TokenCheck::Valid));
    let is_foreign_host =
        state.token.is_none() && !is_probe && !host::is_accepted(&request, &state.settings.hosts);
    let mut response = if is_foreign_host {
        response::error(StatusCode::FORBIDDEN, "host not accepted: add it to `server.hosts`, or set a token")
    } else if token == TokenCheck::Valid || is_probe {
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
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
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
            // The query holds the permit, not the request: a request that timed out leaves its query running.
            let _permit = permit;
            query(&*alerts)
        });
        result.await.unwrap_or_else(|_| Err(LogError("the query panicked".to_owned())))
    }
}

async fn metrics(State(state): State<Arc<AppState>>) -> Response {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, content_type)], state.backend.metrics.render()).into_response()
}

async fn index() -> Html<&'static str> {
    Html(include_str!("index.html"))
}
