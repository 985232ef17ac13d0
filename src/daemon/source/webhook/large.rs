//! Evaluates a body that exceeds the limit: in parts, one after the other, while it arrives.
//!
//! A single event may exceed the maximum body size, and the events next to it must not be lost with it. So the size of a body is not
//! limited; only memory and time are, the latter to the time that an apiserver waits. Data that remains unevaluated because of a limit is
//! logged and counted. If the sender repeats the body, the events that are stored are recognized.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::body::BodyDataStream;
use tokio::time::timeout_at;

use super::HandlerState;
use super::body::LargeBody;
use super::items::BodyPart;
use super::response::Reply;
use super::submit::submit;

/// Maximum number of large bodies that are evaluated at the same time. Further ones are answered 429, and sent again.
pub(super) const MAX_LARGE_BODIES: usize = 2;

/// Progress of a body.
#[derive(Debug, Default)]
struct Progress {
    /// Events that are stored.
    stored: u64,
    /// Events of which only the beginning was evaluated.
    heads: u64,
    /// Decompressed bytes up to the last stored part.
    stored_bytes: u64,
}

/// Evaluates the parts of a body, and responds when everything is stored.
pub(super) async fn receive(
    shared: &HandlerState,
    peer: SocketAddr,
    mut large: LargeBody,
    chunks: &mut BodyDataStream,
    announced: Option<u64>,
    started: Instant,
) -> Reply {
    let Ok(_permit) = shared.large_bodies.try_acquire() else { return Reply::Overloaded };
    let settings = &shared.settings;
    let deadline = started + settings.read_timeout + settings.store_timeout;
    let mut progress = Progress::default();
    let parts = submit_parts(shared, peer, &mut large, chunks, deadline, &mut progress);
    let reply = match timeout_at(deadline.into(), parts).await {
        Ok(reply) => reply,
        // The apiserver sends it again after a 503, and makes progress: stored events are recognized quickly.
        Err(_) if progress.stored > 0 => {
            let events = progress.stored + large.pending_items();
            Reply::StoreTimeout { events, stored: progress.stored }
        }
        Err(_) => Reply::BodyTimeout,
    };
    let source = &settings.name;
    let total = large.total();
    if let Reply::Stored { events } = reply {
        tracing::info!(
            source,
            client = %peer.ip(),
            events,
            bytes = total,
            truncated = progress.heads,
            "evaluated a webhook batch larger than max_body in parts"
        );
        return reply;
    }
    // The pending items are a lower bound: of the data that was not received, only the length is known.
    let unreceived = announced.map_or(0, |length| length.saturating_sub(large.received()));
    let bytes = total.saturating_sub(progress.stored_bytes) + unreceived;
    let events = large.pending_items().max(1);
    shared.observer.dropped(events, bytes);
    tracing::warn!(
        source,
        client = %peer.ip(),
        events_stored = progress.stored,
        events,
        bytes,
        reason = reply.reason(),
        "a webhook batch larger than max_body was only partly evaluated: at least these events and bytes are lost if it is not \
         sent again; lower the apiserver's --audit-webhook-batch-max-size, or raise max_body"
    );
    reply
}

async fn submit_parts(
    shared: &HandlerState,
    peer: SocketAddr,
    large: &mut LargeBody,
    chunks: &mut BodyDataStream,
    deadline: Instant,
    progress: &mut Progress,
) -> Reply {
    loop {
        let part = match large.next_part(chunks).await {
            Ok(Some(part)) => part,
            Ok(None) => return Reply::Stored { events: progress.stored },
            Err(reply) => return reply,
        };
        let (body, is_head) = match part {
            BodyPart::Items(items) => (items, false),
            BodyPart::Head(head) => (head, true),
        };
        let mut reservation = shared.budget.reservation();
        if !reservation.try_grow(body.len()) {
            return Reply::Overloaded;
        }
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match submit(shared, peer, body, is_head, reservation, left).await {
            Reply::Stored { events } => {
                progress.stored += events;
                progress.heads += u64::from(is_head);
                progress.stored_bytes = large.total();
            }
            reply => return reply,
        }
    }
}
