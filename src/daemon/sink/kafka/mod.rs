//! Alerts to a topic of Kafka.
//!
//! An alert counts as delivered when all replicas that are in sync have it. The producer is idempotent: what librdkafka sends
//! again the broker knows. What a whole attempt repeats (after a time-out, or a kill) is told by the header `alert_id`.

#[cfg(feature = "kafka")]
mod producer;
#[cfg(feature = "kafka")]
mod transaction;

#[cfg(not(feature = "kafka"))]
pub use absent::KafkaSink;
#[cfg(feature = "kafka")]
pub use producer::KafkaSink;
#[cfg(feature = "kafka")]
pub use transaction::TransactionalProducer;

#[cfg(not(feature = "kafka"))]
mod absent {
    use std::time::Duration;

    use crate::daemon::sink::config::Kafka;
    use crate::daemon::sink::error::SettingsError;
    use crate::daemon::sink::failure::Failure;
    use crate::detection::alert::StoredAlert;

    /// Nothing: there is no Kafka in this build.
    #[derive(Debug)]
    pub enum KafkaSink {}

    impl KafkaSink {
        /// Says that this build cannot.
        pub fn new(_: &Kafka, _: Duration) -> Result<Self, SettingsError> {
            Err(SettingsError::Kafka(crate::daemon::kafka::Error::Disabled))
        }

        /// Never called.
        #[allow(clippy::unused_async)] // As where there is one.
        pub async fn deliver(&mut self, _: &[StoredAlert]) -> Result<usize, Failure> {
            match *self {}
        }
    }
}
