//! Starts the sources that do not depend on a sink: files, webhooks, standard input. Kafka sources are in [`super::kafka`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Context, stdin, webhook};
use crate::daemon::config::SourceKind;
use crate::daemon::metrics::WebhookMetrics;
use crate::daemon::pipeline::{Message, Sources};
use crate::daemon::source::files::Files;
use crate::daemon::source::follow::StartAt;
use crate::daemon::source::watch::PathWatcher;
use crate::daemon::store::Store;

/// Returns the sources for the pipeline, and the webhook receivers.
pub(super) fn start(
    context: &Context<'_>,
    store: &Store,
) -> anyhow::Result<(Sources, Vec<webhook::Receiver>)> {
    let mut sources = Sources::default();
    let mut receivers = Vec::new();
    let max_record = context.config.max_event_size;
    for (index, source) in context.config.sources.iter().enumerate() {
        match &source.kind {
            SourceKind::File(settings) => {
                let position = store.position(&source.name)?;
                let start_at = if settings.from_end { StartAt::End } else { StartAt::Beginning };
                let files = Files::new(&settings.paths, start_at, max_record, position.as_deref());
                sources.add_files(&source.name, source.log.clone(), files, settings.poll);
            }
            SourceKind::Webhook(settings) => {
                let metrics = WebhookMetrics::new(context.handles.metrics.clone(), &source.name);
                let (receiver, batches) = webhook::Receiver::start(
                    webhook::settings(&source.name, settings),
                    Arc::new(metrics.clone()),
                )?;
                tracing::info!(source = source.name, address = %receiver.address(), "receiving audit events");
                webhook::forward(index, batches, context.inbox.clone());
                receivers.push(receiver);
                sources.add_webhook(&source.name, source.log.clone(), metrics);
            }
            SourceKind::Kafka(_) => sources.add(&source.name, source.log.clone()),
            SourceKind::Stdin => {
                let is_only_source = context.config.sources.len() == 1;
                stdin::start(index, max_record, is_only_source, context.inbox.clone());
                sources.add(&source.name, source.log.clone());
            }
        }
    }
    let watcher = PathWatcher::new({
        let (inbox, wake_pending) = (context.inbox.clone(), context.handles.wake_pending.clone());
        move || {
            if !wake_pending.swap(true, Ordering::AcqRel) {
                // Fails only if the pipeline has ended.
                let _ = inbox.send(Message::Wake);
            }
        }
    });
    sources.set_watcher(watcher);
    Ok((sources, receivers))
}
