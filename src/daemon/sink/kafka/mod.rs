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
pub use transaction::Transactions;

use crate::daemon::kafka::Cluster;

/// A topic of Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// How to get there.
    pub cluster: Cluster,
    /// The topic's name.
    pub topic: String,
    /// What a record's key is. Records of one key stay in order.
    pub key: Key,
    /// How records are compressed.
    pub compression: Compression,
}

/// What a record's key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// Who did it, so that one's alerts stay in order.
    #[default]
    Actor,
    /// The alert's id.
    Id,
    /// The rule's name.
    Rule,
    /// None: records go to any partition.
    None,
}

/// How records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    #[default]
    Lz4,
    Zstd,
}

impl Compression {
    /// All of them, by their names.
    pub const ALL: [(&str, Compression); 5] = [
        ("none", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).map_or("none", |(name, _)| name)
    }
}

#[cfg(not(feature = "kafka"))]
mod absent {
    use std::time::Duration;

    use super::Kafka;
    use crate::daemon::sink::config::SettingsError;
    use crate::daemon::sink::destination::Failure;
    use crate::detection::alert::StoredAlert;

    /// Nothing: there is no Kafka in this build.
    #[derive(Debug)]
    pub enum KafkaSink {}

    impl KafkaSink {
        /// Says that this build cannot.
        pub fn new(_: &Kafka, _: Duration) -> Result<Self, SettingsError> {
            Err(SettingsError::Kafka(crate::daemon::kafka::Error::Absent))
        }

        /// Never called.
        #[allow(clippy::unused_async)] // As where there is one.
        pub async fn deliver(&mut self, _: &[StoredAlert]) -> Result<usize, Failure> {
            match *self {}
        }
    }
}
