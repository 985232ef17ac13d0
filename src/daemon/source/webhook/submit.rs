//! Hands a body to the pipeline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::response::Reply;
use super::{BatchOutcome, HandlerState, Progress, WebhookBatch};
use crate::daemon::source::memory_budget::Reservation;

/// Hands a body to the pipeline and waits for the outcome.
pub(super) async fn submit(
    shared: &HandlerState,
    peer: SocketAddr,
    body: Vec<u8>,
    is_head: bool,
    reservation: Reservation,
    store_timeout: Duration,
) -> Reply {
    let (done, outcome) = oneshot::channel();
    let bytes = body.len();
    let progress = Arc::new(Progress::default());
    let batch = WebhookBatch { body, is_head, peer, done, progress: progress.clone(), reservation };
    match shared.queue.try_send(batch) {
        Ok(()) => shared.observer.submitted(bytes),
        Err(TrySendError::Full(_)) => return Reply::Overloaded,
        Err(TrySendError::Closed(_)) => return Reply::Stopping,
    }
    match timeout(store_timeout, outcome).await {
        // The pipeline continues. If the batch is sent again, its events are recognized.
        Err(_) => {
            let (events, stored) = progress.get();
            Reply::StoreTimeout { events, stored }
        }
        // Dropped without an outcome, so it may not be stored.
        Ok(Err(_)) => Reply::Busy,
        Ok(Ok(BatchOutcome::Stored { events })) => Reply::Stored { events },
        Ok(Ok(BatchOutcome::Invalid(reason))) => Reply::Invalid(reason),
        Ok(Ok(BatchOutcome::Full)) => Reply::StoreFull,
        Ok(Ok(BatchOutcome::Busy)) => Reply::Busy,
    }
}
