//! Connects webhook receivers to the pipeline.

use std::sync::mpsc::{self, Sender};

pub(super) use crate::daemon::source::webhook::Receiver;

use super::server::tls;
use crate::daemon::config::WebhookSource;
use crate::daemon::pipeline::Message;
use crate::daemon::source::webhook::{Settings, WebhookBatch};

pub(super) fn settings(name: &str, source: &WebhookSource) -> Settings {
    Settings {
        name: name.to_owned(),
        address: source.listen,
        path: source.path.clone(),
        tls: tls(source.tls.as_ref()),
        token_file: source.token_file.clone(),
        max_body: source.max_body,
        ..Settings::default()
    }
}

/// Forwards batches to the pipeline, each one after the pipeline accepted the previous one, so that they queue in the receiver's bounded
/// queue.
pub(super) fn forward(
    source: usize,
    mut batches: tokio::sync::mpsc::Receiver<WebhookBatch>,
    inbox: Sender<Message>,
) {
    std::thread::spawn(move || {
        while let Some(batch) = batches.blocking_recv() {
            // A new channel for each batch: if the pipeline has ended, it has dropped the sender, which ends this thread.
            let (ready_for_next, is_ready) = mpsc::sync_channel(1);
            if inbox.send(Message::WebhookBatch(source, batch, ready_for_next)).is_err()
                || is_ready.recv().is_err()
            {
                return;
            }
        }
    });
}
