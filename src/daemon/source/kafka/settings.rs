//! The settings of a source over Kafka, as plain values.

use std::time::Duration;

use crate::daemon::kafka::Cluster;

/// One source over Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How to get there.
    pub cluster: Cluster,
    /// Names of topics; patterns where they start with `^`.
    pub topics: Vec<String>,
    /// The consumer group: replicas of one share the partitions.
    pub group: String,
    /// Who we are in the group, where that is the same after a restart: then partitions stay ours meanwhile.
    pub instance_id: Option<String>,
    /// Where to start in partitions of which neither group nor store know anything.
    pub start_at: StartAt,
    /// When offsets are committed to the group.
    pub commit: Commit,
    /// Whether alerts and offsets go into one transaction of Kafka. Needs a sink over Kafka on the same cluster.
    pub exactly_once: bool,
    /// Where matches are exchanged, so that replicas judge correlations together.
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

/// How replicas exchange matches that feed correlations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correlate {
    /// The topic, which is made where it is not there.
    pub topic: String,
    /// How many partitions it has when it is made: so many replicas can share the state.
    pub partitions: usize,
    /// How far one replica may be behind another, by the time of events.
    pub lateness: Duration,
}

/// Where to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest message that is there.
    Earliest,
    /// After the newest.
    Latest,
    /// At the first message of this time or later, in milliseconds since 1970.
    Time(i64),
}

impl StartAt {
    /// What librdkafka does of itself where an offset is not there.
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
    /// When every sink is done with the alerts.
    Delivered,
    /// When the alerts are in the store: for one that survives the machine.
    Stored,
}
