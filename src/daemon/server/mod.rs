//! The daemon's own port: metrics, health and the alerts of late, over HTTP.
//!
//! | path | what |
//! | --- | --- |
//! | `/` | a page with links to the others |
//! | `/metrics` | metrics for Prometheus |
//! | `/healthz` | 200 while the process is well: 503 means that a restart would help |
//! | `/readyz` | 200 while everything works: sources open, store writable, rules loaded |
//! | `/api/v1/alerts` | alerts, newest first, in pages |
//! | `/api/v1/alerts/stream` | alerts as they are stored, as server-sent events |
//!
//! It only shows. Nothing that comes in here changes anything, and what goes out is what the store keeps: redacted. It knows the store and the
//! pipeline by two traits, [`AlertLog`] and [`Health`], and nothing of where alerts come from.
//!
//! With a token set, everything but the bare answers of `/healthz` and `/readyz` needs it: probes can't show one.

mod alerts;
mod answer;
mod health;
mod host;
mod query;
mod stream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use tokio::sync::{Semaphore, watch};

pub use health::{Check, Health};
pub use query::{AlertQuery, BadQuery, MOST_ALERTS};

use crate::daemon::metrics::{ListenerMetrics, Metrics};
use crate::daemon::net::listener::ListenerConfig;
use crate::daemon::net::token::TokenCheck;
use crate::daemon::net::{Limits, Listener, NetError, RELOAD_INTERVAL, Tls, Token, listen};
use crate::detection::alert::StoredAlert;

/// How the port is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens.
    pub address: SocketAddr,
    /// With TLS or without.
    pub tls: Option<Tls>,
    /// A file with the token that has to be shown.
    pub token_file: Option<PathBuf>,
    /// Host names that are accepted without a token, besides addresses and `localhost`. See `host.rs`.
    pub hosts: Vec<String>,
    /// An answer that is no stream takes no longer.
    pub request_timeout: Duration,
    /// So many clients may follow the alerts.
    pub streams: usize,
    /// A stream without alerts says that it lives, so often.
    pub heartbeat: Duration,
    /// A client of a stream that takes nothing for so long is dropped.
    pub stalled: Duration,
    /// How often files of certificates and the token are looked at.
    pub reload_interval: Duration,
    /// What strangers may take.
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

/// Why alerts cannot be shown now.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LogError(pub String);

/// The alerts that are kept. Its methods may block; they are called on threads that may.
pub trait AlertLog: Send + Sync {
    /// Alerts that the query asks for, newest first, at most `query.limit`.
    ///
    /// # Errors
    /// When they cannot be read.
    fn list(&self, query: &AlertQuery) -> Result<Vec<StoredAlert>, LogError>;

    /// Alerts stored behind that one, in the order they were stored.
    ///
    /// # Errors
    /// When they cannot be read.
    fn after(&self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, LogError>;
}

/// What the server shows.
#[derive(Clone)]
pub struct Parts {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For the alerts.
    pub alerts: Arc<dyn AlertLog>,
    /// For the checks.
    pub health: Arc<dyn Health>,
    /// Changes when alerts were stored. What it holds does not matter.
    pub news: watch::Receiver<i64>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

/// Queries of the store at one time.
const MOST_QUERIES: usize = 4;

/// What the handlers share.
struct Shared {
    settings: Settings,
    parts: Parts,
    token: Option<Token>,
    metrics: ListenerMetrics,
    queries: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    is_stopping: watch::Receiver<bool>,
}

/// Paths as metrics name them.
const PATHS: [&str; 6] = ["/", "/metrics", "/healthz", "/readyz", "/api/v1/alerts", "/api/v1/alerts/stream"];

/// The server at work.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Opens the port. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the address is taken, or a file of the settings is no good.
    pub fn start(settings: Settings, parts: Parts) -> Result<Self, NetError> {
        let token = settings.token_file.clone().map(Token::load).transpose()?;
        let (stop, is_stopping) = watch::channel(false);
        let metrics = ListenerMetrics::new(parts.metrics.clone(), &PATHS);
        let port = ListenerConfig {
            address: settings.address,
            tls: settings.tls.clone(),
            token: token.clone(),
            reload_interval: settings.reload_interval,
            limits: settings.limits.clone(),
        };
        let shared = Arc::new(Shared {
            token,
            metrics: metrics.clone(),
            queries: Arc::new(Semaphore::new(MOST_QUERIES)),
            streams: Arc::new(Semaphore::new(settings.streams)),
            is_stopping,
            settings,
            parts,
        });
        let listener = listen(port, router(shared), move |taken| metrics.reloaded(taken))?;
        Ok(Server { listener, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Ends streams, answers what was asked, for so long, and closes the port.
    pub async fn stop(self, grace: Duration) {
        let _ = self.stop.send(true);
        self.listener.stop(grace).await;
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/api/v1/alerts", get(alerts::list))
        .route("/api/v1/alerts/stream", get(stream::follow))
        .fallback(async || answer::error(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            answer::error(StatusCode::METHOD_NOT_ALLOWED, "this can only be read: GET")
        })
        .layer(middleware::from_fn_with_state(shared.clone(), around))
        .with_state(shared)
}

/// What goes for every request: the token, the time, headers and the count.
async fn around(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let path = PATHS.into_iter().find(|path| *path == request.uri().path()).unwrap_or("other");
    let shown = shared.check_token(&request);
    let is_probe = matches!(path, "/healthz" | "/readyz");
    let is_foreign =
        shared.token.is_none() && !is_probe && !host::is_accepted(&request, &shared.settings.hosts);
    let mut response = if is_foreign {
        answer::error(StatusCode::FORBIDDEN, "host not accepted: add it to `server.hosts`, or set a token")
    } else if shown == TokenCheck::Valid || is_probe {
        match tokio::time::timeout(shared.settings.request_timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => answer::error(StatusCode::SERVICE_UNAVAILABLE, "this took too long"),
        }
    } else if shown == TokenCheck::Missing {
        answer::unauthorized()
    } else {
        answer::error(StatusCode::FORBIDDEN, "this is not the token")
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    shared.metrics.answered(path, response.status().as_u16());
    response
}

impl Shared {
    fn check_token(&self, request: &Request) -> TokenCheck {
        self.token.as_ref().map_or(TokenCheck::Valid, |token| token.check(request.headers()))
    }

    /// Asks the alert log on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn AlertLog) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let Ok(permit) = self.queries.clone().acquire_owned().await else {
            return Err(LogError("pullwatch stops".to_owned()));
        };
        let alerts = self.parts.alerts.clone();
        let asked = tokio::task::spawn_blocking(move || {
            // Held by the question, not by who asks: a request that gave up leaves its query running.
            let _permit = permit;
            question(&*alerts)
        });
        asked.await.unwrap_or_else(|_| Err(LogError("the question failed".to_owned())))
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, content_type)], shared.parts.metrics.render()).into_response()
}

async fn index() -> Html<&'static str> {
    Html(include_str!("index.html"))
}
