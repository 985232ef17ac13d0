//! What the process is told by signals.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot::Receiver;

use super::components::Sinks;
use super::rules::Reloading;
use crate::daemon::store;

/// The signals that are listened for, since this was made.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens from now on: what comes during the start is heard when it is over. Must be called within a runtime.
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
            hang_up: signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?,
        })
    }

    /// Waits until it is told to stop, or until the pipeline ends by itself.
    pub async fn wait(
        mut self,
        mut pipeline_ended: Receiver<Result<(), store::Error>>,
        reloading: &Reloading,
        sinks: &Sinks,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {
                    tracing::info!("SIGTERM: stopping");
                    return Ok(());
                }
                _ = self.interrupt.recv() => return Ok(()),
                _ = self.hang_up.recv() => {
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
}
