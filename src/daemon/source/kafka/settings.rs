//! Settings of a Kafka source.

use std::time::Duration;

use crate::daemon::kafka::Cluster;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub cluster: Cluster,
    /// Topic names; regular expressions if they start with `^`.
    pub topics: Vec<String>,
    /// The consumer group. Its members share the partitions.
    pub group: String,
    /// Static member id: partitions stay assigned across a restart.
    pub instance_id: Option<String>,
    /// Where to start in a partition for which neither the group nor the store has a position.
    pub start_at: StartAt,
    pub commit: Commit,
    /// Commit alerts and offsets in one Kafka transaction. Requires one Kafka sink on the same cluster.
    pub exactly_once: bool,
    /// Exchange matches, so that replicas evaluate correlations together.
    pub correlate: Option<Correlate>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cluster: Cluster::default(),
            topics: Vec::new(),
            group: "pullwatch".to_owned(),
            instance_id: None,
            start_at: StartAt::Earliest,
            commit: Commit::Delivered,
            exactly_once: false,
            correlate: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correlate {
    /// The exchange topic. It is created if it does not exist.
    pub topic: String,
    /// Number of partitions when it is created, which bounds the number of replicas that share the work.
    pub partitions: usize,
    /// How far one replica may be behind another one, in event time.
    pub lateness: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest message.
    Earliest,
    /// Behind the newest message.
    Latest,
    /// At the first message of this time or later, in milliseconds since 1970.
    Time(i64),
}

impl StartAt {
    /// The value of `auto.offset.reset`.
    pub const fn reset(self) -> &'static str {
        match self {
            StartAt::Latest => "latest",
            StartAt::Earliest | StartAt::Time(_) => "earliest",
        }
    }
}

/// When offsets are committed to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// After every sink has processed the alerts.
    Delivered,
    /// After the alerts are stored, for a store that survives the loss of the machine.
    Stored,
}
