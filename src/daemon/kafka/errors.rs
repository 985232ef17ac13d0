//! Kinds of Kafka errors: a closed set, each with advice for the operator.

/// The kind of an error; the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KafkaErrorKind {
    /// No broker answers.
    Unreachable,
    /// A broker rejects our credentials.
    Authentication,
    /// TLS failed.
    Tls,
    /// Authenticated, but not authorized.
    Forbidden,
    UnknownTopic,
    /// The offset does not exist: the topic was recreated, or its retention is shorter than our lag.
    OffsetGone,
    /// An offset commit failed.
    Commit,
    /// Evicted from the consumer group.
    Evicted,
    /// A transaction was aborted.
    Transaction,
    Other,
}

impl KafkaErrorKind {
    pub const ALL: [KafkaErrorKind; 10] = [
        KafkaErrorKind::Unreachable,
        KafkaErrorKind::Authentication,
        KafkaErrorKind::Tls,
        KafkaErrorKind::Forbidden,
        KafkaErrorKind::UnknownTopic,
        KafkaErrorKind::OffsetGone,
        KafkaErrorKind::Commit,
        KafkaErrorKind::Evicted,
        KafkaErrorKind::Transaction,
        KafkaErrorKind::Other,
    ];

    /// The value of the metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            KafkaErrorKind::Unreachable => "unreachable",
            KafkaErrorKind::Authentication => "authentication",
            KafkaErrorKind::Tls => "tls",
            KafkaErrorKind::Forbidden => "forbidden",
            KafkaErrorKind::UnknownTopic => "unknown_topic",
            KafkaErrorKind::OffsetGone => "offset_gone",
            KafkaErrorKind::Commit => "commit",
            KafkaErrorKind::Evicted => "evicted",
            KafkaErrorKind::Transaction => "transaction",
            KafkaErrorKind::Other => "client",
        }
    }

    /// Advice for the operator.
    pub const fn hint(self) -> &'static str {
        match self {
            KafkaErrorKind::Unreachable => {
                "no broker answers, retrying: check `brokers`, the network and `security.protocol`"
            }
            KafkaErrorKind::Authentication => {
                "authentication failed, retrying: check `sasl.mechanism`, `sasl.username` and the password"
            }
            KafkaErrorKind::Tls => {
                "TLS failed, retrying: check `security.protocol`, `ssl.ca.location` and the client certificate"
            }
            KafkaErrorKind::Forbidden => {
                "not authorized: a source needs Read on its topics and its group, a sink needs Write on its topic"
            }
            KafkaErrorKind::UnknownTopic => {
                "topic not found, retrying: create it, or correct its name in the configuration"
            }
            KafkaErrorKind::OffsetGone => {
                "offset out of range: the topic was recreated, or its retention is shorter than the lag"
            }
            KafkaErrorKind::Commit => {
                "offset commit failed, retried with the next commit: a replica that takes over meanwhile evaluates messages again"
            }
            KafkaErrorKind::Evicted => {
                "evicted from the consumer group, rejoining: if this recurs, check for another replica with the same `instance_id`"
            }
            KafkaErrorKind::Transaction => {
                "transaction aborted, retrying: if this recurs, check for another replica with the same `instance_id`"
            }
            KafkaErrorKind::Other => "",
        }
    }
}
