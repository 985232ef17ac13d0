//! Audit events that apiservers send: the receiver of `--audit-webhook-config-file`.
//!
//! In comes a `POST` of an `EventList`, over HTTP/1.1 or 2, with or without TLS, client certificates and a token. Its body goes on
//! to the pipeline as a [`WebhookBatch`], and the sender hears 200 only once the pipeline says that the batch is stored. Everything else
//! has the sender send it again: an apiserver does so whatever the reply is, some times, and then gives the batch up.
//!
//! ```text
//! apiserver ──► token, type, size ──► body, unpacked ──► queue ──► pipeline
//!     ▲                               within one budget  bounded      │ judges, stores
//!     └───────────────── 200, 400, 429, 503 ◄───── Outcome ◄──────────┘
//! ```
//!
//! What is sent again is the whole batch, so that events come twice whenever an reply is lost. [`split_events`] tells the pipeline which
//! they are, by their content and nothing less, and [`RecentEvents`] remembers those that were stored.
//!
//! Memory is bounded in all: the bodies that are being read, wait and are being judged share one budget, and who does not
//! fit in is told to come back.

mod body;
mod dedup;
mod events;
mod handler;
mod response;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::sync::{mpsc, oneshot};

pub use dedup::RecentEvents;
pub use events::{Events, InvalidBody, MAX_EVENTS, split_events};
pub use response::CODES;

use super::memory_budget::{MemoryBudget, Reservation};
use crate::daemon::net::listener::ListenerConfig;
use crate::daemon::net::{Limits, Listener, NetError, RELOAD_INTERVAL, Tls, Token, listen};

/// How the receiver is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens.
    pub address: SocketAddr,
    /// The path that apiservers send to. What the URL says behind `?` does not count.
    pub path: String,
    /// With TLS or without. An apiserver wants it unless its kubeconfig says `http://`.
    pub tls: Option<Tls>,
    /// A file with the token that apiservers have to show.
    pub token_file: Option<PathBuf>,
    /// The max_bytes body, as it is sent and unpacked. A batch of 400 events of 100 KB each is 40 MB.
    pub max_body: usize,
    /// So many bytes of bodies may be there at one time: being read, waiting and being judged. Not less than the max_bytes body.
    pub memory: usize,
    /// So many bodies may wait.
    pub queue: usize,
    /// A body has come by then. An apiserver waits for 30 seconds in all.
    pub read_timeout: Duration,
    /// The pipeline has answered by then, or the sender is told to come back.
    pub store_timeout: Duration,
    /// How often files of certificates and the token are looked at.
    pub reload_interval: Duration,
    /// What strangers may take.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
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

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the store, and the sender may forget it.
    Stored {
        /// How many events it held, repeated ones among them.
        events: u64,
    },
    /// It is no batch of events.
    Invalid(InvalidBody),
    /// The store is full.
    Full,
    /// It cannot be stored now: the store fails, or pullwatch stops.
    Busy,
}

/// A batch on its way to the pipeline.
///
/// Its memory counts against the receiver's budget until it is dropped. Where `done` is dropped without an reply, the sender is told to
/// come back.
#[derive(Debug)]
pub struct WebhookBatch {
    /// The body, unpacked.
    pub body: Vec<u8>,
    /// Who sent it.
    pub peer: SocketAddr,
    /// Takes what became of it.
    pub done: oneshot::Sender<Outcome>,
    /// The memory of the body.
    pub reservation: Reservation,
}

/// Hears what the receiver does, for whoever counts it.
pub trait WebhookObserver: Send + Sync {
    /// A request was answered with this code, one of [`CODES`].
    fn answered(&self, code: u16);
    /// A body of so many bytes, unpacked, was handed to the pipeline.
    fn submitted(&self, bytes: usize);
    /// So many bytes of the budget were taken, or given back where it is negative. Told from many threads: a sum is right in any
    /// order, a level would not be.
    fn memory(&self, change: i64);
    /// A file of certificates or the token changed, and was taken or not.
    fn reloaded(&self, taken: bool);
}

/// What the handlers share.
struct HandlerState {
    settings: Settings,
    token: Option<Token>,
    queue: mpsc::Sender<WebhookBatch>,
    budget: MemoryBudget,
    observer: Arc<dyn WebhookObserver>,
    is_stopping: AtomicBool,
}

/// A receiver at work.
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
    /// Opens the port, and gives where batches come out. Must be called within a tokio runtime; the batches may be taken on any
    /// thread (`blocking_recv`).
    ///
    /// # Errors
    /// When the address is taken, or a file of the settings is no good.
    pub fn start(
        mut settings: Settings,
        observer: Arc<dyn WebhookObserver>,
    ) -> Result<(Self, mpsc::Receiver<WebhookBatch>), NetError> {
        settings.memory = settings.memory.max(settings.max_body);
        let token = settings.token_file.clone().map(Token::load).transpose()?;
        let has_clients = settings.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if token.is_none() && !has_clients && !settings.address.ip().is_loopback() {
            tracing::warn!(
                address = %settings.address,
                "anybody who reaches this address can send events: set a token or the authority of client certificates"
            );
        }
        let (sender, deliveries) = mpsc::channel(settings.queue.max(1));
        let port = ListenerConfig {
            address: settings.address,
            tls: settings.tls.clone(),
            token: token.clone(),
            reload_interval: settings.reload_interval,
            limits: settings.limits.clone(),
        };
        let memory_observer = observer.clone();
        let budget =
            MemoryBudget::with_observer(settings.memory, move |change| memory_observer.memory(change));
        let shared = Arc::new(HandlerState {
            token,
            queue: sender,
            budget,
            observer: observer.clone(),
            is_stopping: AtomicBool::new(false),
            settings,
        });
        let router = Router::new().fallback(handler::receive).with_state(shared.clone());
        let listener = listen(port, router, move |taken| observer.reloaded(taken))?;
        Ok((Receiver { shared, listener }, deliveries))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// From now on every request is told to come back later. What was handed on is still answered.
    pub fn drain(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
    }

    /// Refuses new batches, waits so long for the answers of those that were handed on, and closes the port.
    pub async fn stop(self, grace: Duration) {
        self.drain();
        self.listener.stop(grace).await;
    }
}
