//! The audit webhook: receives batches from apiservers (`--audit-webhook-config-file`).
//!
//! Takes `POST` requests with an `EventList`, over HTTP/1.1 or 2, with or without TLS, client certificates and a bearer token. Hands each
//! body to the pipeline as a [`WebhookBatch`], and responds 200 only when the pipeline has stored it. After any other response the
//! apiserver retries a few times and then drops the batch.
//!
//! ```text
//! apiserver ──► token, type, size ──► body, decompressed ──► queue ──► pipeline
//!     ▲                                 within one budget   bounded    │ evaluates, stores
//!     └──────────────── 200, 400, 429, 503 ◄──── BatchOutcome ◄─────────────┘
//! ```
//!
//! A retry repeats the whole batch, so events arrive twice whenever a response is lost. [`split_events`] identifies events by a hash of
//! their whole content, and [`RecentEvents`] remembers the stored ones.
//!
//! Memory is bounded: bodies that are being read, queued and evaluated share one budget; requests beyond it are answered 429. This module
//! does not interpret the content of events.

mod body;
mod dedup;
mod events;
mod handler;
mod items;
mod large;
mod response;
mod submit;

use std::mem::Discriminant;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use dedup::RecentEvents;
pub use events::{InvalidBody, split_events};
pub use response::CODES;
use response::Reply;

use super::memory_budget::{MemoryBudget, Reservation};
use crate::daemon::log_limit::LogLimits;
use crate::daemon::net::listener::ListenerConfig;
use crate::daemon::net::{Connections, Limits, Listener, NetError, RELOAD_INTERVAL, Tls, Token, listen};

/// Memory of a large body in addition to twice the limit, in bytes.
const LARGE_BODY_MEMORY: usize = 512 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The name of the source, for the log.
    pub name: String,
    pub address: SocketAddr,
    /// The path of the webhook. The query string is ignored.
    pub path: String,
    /// TLS settings. An apiserver requires TLS unless its kubeconfig contains `http://`.
    pub tls: Option<Tls>,
    /// File with the bearer token that apiservers must send.
    pub token_file: Option<PathBuf>,
    /// Maximum size in bytes, compressed and decompressed, of a body that is evaluated as a whole. A batch of 400 events of 100 KB is 40
    /// MB. A larger body is evaluated in parts while it arrives; of events in it that are longer than an eighth of this size, only the
    /// beginning is evaluated.
    pub max_body: usize,
    /// Memory for all bodies together, in bytes: being read, queued and being evaluated. At least twice `max_body`.
    pub memory: usize,
    /// Maximum number of queued bodies.
    pub queue: usize,
    /// Maximum time for a body to arrive. An apiserver waits for 30 seconds in total.
    pub read_timeout: Duration,
    /// Maximum time for the pipeline to store a batch; then the response is 503.
    pub store_timeout: Duration,
    /// How often certificate and token files are checked.
    pub reload_interval: Duration,
    /// Limits for untrusted clients.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            name: "webhook".to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 9418)),
            path: "/".to_owned(),
            tls: None,
            token_file: None,
            max_body: 64 << 20,
            memory: 256 << 20,
            queue: 64,
            read_timeout: Duration::from_secs(15),
            store_timeout: Duration::from_secs(13),
            reload_interval: RELOAD_INTERVAL,
            limits: Limits::default(),
        }
    }
}

/// The outcome of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    Stored {
        /// Number of events in it, including duplicates.
        events: u64,
    },
    Invalid(InvalidBody),
    /// The store is full.
    Full,
    /// It cannot be stored at present: the store fails, or the daemon is stopping.
    Busy,
}

/// A batch on its way to the pipeline. If `done` is dropped without an outcome, the response is 503.
#[derive(Debug)]
pub struct WebhookBatch {
    /// The decompressed body, or a part of a large one.
    pub body: Vec<u8>,
    /// `body` is the beginning of one event that is too long.
    pub is_head: bool,
    pub peer: SocketAddr,
    pub done: oneshot::Sender<BatchOutcome>,
    /// How much of the batch is stored, for a sender that no longer waits for the outcome.
    pub progress: Arc<Progress>,
    /// The memory of the body, which is released when this is dropped.
    pub reservation: Reservation,
}

/// How much of a batch is stored.
#[derive(Debug, Default)]
pub struct Progress {
    events: AtomicU64,
    stored: AtomicU64,
}

impl Progress {
    /// Sets the number of events of the batch, and how many of them are stored.
    pub(crate) fn set(&self, events: u64, stored: u64) {
        self.events.store(events, Ordering::Relaxed);
        self.stored.store(stored, Ordering::Relaxed);
    }

    /// Number of events, and how many of them are stored. Both are 0 until the pipeline evaluates the batch.
    pub(crate) fn get(&self) -> (u64, u64) {
        (self.events.load(Ordering::Relaxed), self.stored.load(Ordering::Relaxed))
    }
}

/// Receives reports from the webhook, for metrics.
pub trait WebhookObserver: Send + Sync {
    /// A response with this status, one of [`CODES`].
    fn answered(&self, code: u16);
    /// A decompressed body of this size was handed to the pipeline.
    fn submitted(&self, bytes: usize);
    /// Bytes of the memory budget that were reserved, or released if negative. Called from many threads; the sum is correct in any order.
    fn memory(&self, change: i64);
    /// A limit of time or memory ended a body, with this many events and decompressed bytes not evaluated. At least these are lost if the
    /// sender does not repeat it.
    fn dropped(&self, events: u64, bytes: u64);
    /// A certificate or token file changed; with whether it was loaded.
    fn reloaded(&self, success: bool);
}

struct HandlerState {
    settings: Settings,
    token: Option<Token>,
    connections: Connections,
    queue: mpsc::Sender<WebhookBatch>,
    budget: MemoryBudget,
    observer: Arc<dyn WebhookObserver>,
    log_limits: Mutex<LogLimits<Discriminant<Reply>>>,
    is_stopping: AtomicBool,
    /// Limits the number of large bodies evaluated at the same time, because each may take all the time that a sender waits.
    large_bodies: Semaphore,
}

/// A running webhook.
pub struct Receiver {
    shared: Arc<HandlerState>,
    listener: Listener,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receiver({})", self.address())
    }
}

impl Receiver {
    /// Opens the port. Batches arrive at the returned channel, on any thread (`blocking_recv`). Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// If the address is in use, or a file of the settings is invalid.
    pub fn start(
        mut settings: Settings,
        observer: Arc<dyn WebhookObserver>,
    ) -> Result<(Self, mpsc::Receiver<WebhookBatch>), NetError> {
        settings.memory =
            settings.memory.max(settings.max_body.saturating_mul(2).saturating_add(LARGE_BODY_MEMORY));
        let token = settings.token_file.clone().map(Token::load).transpose()?;
        let has_clients = settings.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if token.is_none() && !has_clients && !settings.address.ip().is_loopback() {
            tracing::warn!(
                address = %settings.address,
                "clients are not authenticated: set `token_file` or `tls.client_ca`"
            );
        }
        let (sender, deliveries) = mpsc::channel(settings.queue.max(1));
        let connections = Connections::new(settings.limits.clone());
        let port = ListenerConfig {
            address: settings.address,
            tls: settings.tls.clone(),
            token: token.clone(),
            reload_interval: settings.reload_interval,
            connections: connections.clone(),
        };
        let memory_observer = observer.clone();
        let budget =
            MemoryBudget::with_observer(settings.memory, move |change| memory_observer.memory(change));
        let shared = Arc::new(HandlerState {
            token,
            connections,
            queue: sender,
            budget,
            observer: observer.clone(),
            log_limits: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            large_bodies: Semaphore::new(large::MAX_LARGE_BODIES),
            settings,
        });
        let router = Router::new().fallback(handler::receive).with_state(shared.clone());
        let listener = listen(port, router, move |success| observer.reloaded(success))?;
        Ok((Receiver { shared, listener }, deliveries))
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// From now on, every request is answered 503. Batches that were handed on are still answered.
    pub fn drain(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
    }

    /// Rejects new batches, waits up to `grace` for the responses to pending ones, and closes the port.
    pub async fn stop(self, grace: Duration) {
        self.drain();
        self.listener.stop(grace).await;
    }
}
