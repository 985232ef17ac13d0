//! Handles signals: SIGTERM and SIGINT stop the daemon, SIGHUP reloads configuration and rules, and reopens the files of sinks.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot::Receiver;

use super::reload::Reload;
use crate::daemon::store;

/// The signal handlers. A signal that arrives before [`Signals::wait`] is not lost.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Installs the handlers. Must be called within a tokio runtime.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).context("cannot handle SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot handle SIGINT")?,
            hang_up: signal(SignalKind::hangup()).context("cannot handle SIGHUP")?,
        })
    }

    /// Waits for a signal to stop, or for the end of the pipeline.
    pub(super) async fn wait(
        mut self,
        mut pipeline_ended: Receiver<Result<(), store::Error>>,
        reload: &mut Reload<'_>,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {
                    tracing::info!("SIGTERM received; shutting down");
                    return Ok(());
                }
                _ = self.interrupt.recv() => return Ok(()),
                _ = self.hang_up.recv() => reload.run().await,
                ended = &mut pipeline_ended => {
                    return match ended {
                        Ok(result) => Ok(result?),
                        // The pipeline panicked; its thread is joined later.
                        Err(_) => Ok(()),
                    };
                }
            }
        }
    }
}
