//! What stands for a consumer in a build without Kafka.

use std::time::Duration;

use super::{Dependencies, Error, Settings};

/// Nothing: there is no Kafka in this build.
#[derive(Debug)]
pub enum Consumer {}

impl Consumer {
    /// Says that this build cannot.
    ///
    /// # Errors
    /// Always.
    pub fn start(_: &str, _: &Settings, _: Dependencies) -> Result<Self, Error> {
        Err(Error::Client(crate::daemon::kafka::Error::Disabled))
    }

    /// Never called.
    pub fn drain(&self) {}

    /// Never called.
    #[allow(clippy::unused_async)] // As where there is one.
    pub async fn stop(self, _: Duration) {}
}
