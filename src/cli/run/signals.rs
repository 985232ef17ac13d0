//! What the process is told by signals.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot::Receiver;

use super::parts::Sinks;
use super::rules::Reloading;
use crate::store;

/// Waits until it is told to stop, or until the pipeline ends by itself.
pub async fn wait(
    mut pipeline_ended: Receiver<Result<(), store::Error>>,
    reloading: &Reloading,
    sinks: &Sinks,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                tracing::info!("SIGTERM: stopping");
                return Ok(());
            }
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => {
                reloading.ask();
                sinks.reopen();
            }
            ended = &mut pipeline_ended => {
                return match ended {
                    Ok(result) => Ok(result?),
                    // It panicked, which is said where it is joined.
                    Err(_) => Ok(()),
                };
            }
        }
    }
}
