//! Kinds of Kafka errors: a closed set, with what an operator can do about each.

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
    /// A commit of offsets failed.
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

    /// What an operator can do.
    pub const fn hint(self) -> &'static str {
        match self {
            KafkaErrorKind::Unreachable => {
                "no broker answers: check `brokers`, the network and `security.protocol`; it is tried again"
            }
            KafkaErrorKind::Authentication => {
                "the broker refuses our credentials: check `sasl.mechanism`, `sasl.username` and the password; it is tried again"
            }
            KafkaErrorKind::Tls => {
                "no encrypted connection: check `security.protocol`, `ssl.ca.location` and our certificate; it is tried again"
            }
            KafkaErrorKind::Forbidden => {
                "the broker does not allow it: a source needs Read on its topics and its group, a sink Write on its topic"
            }
            KafkaErrorKind::UnknownTopic => {
                "the topic is not there: create it, or mend its name in the configuration; it is looked for again"
            }
            KafkaErrorKind::OffsetGone => {
                "an offset is not there any more: the topic was made anew, or its retention is too short for how far we are behind"
            }
            KafkaErrorKind::Commit => {
                "offsets were not committed: they come with the next commit; what another replica gets meanwhile it judges again"
            }
            KafkaErrorKind::Evicted => {
                "the group went on without us: it joins again; if this recurs, another replica has the same `instance_id`"
            }
            KafkaErrorKind::Transaction => {
                "a transaction did not go through: it is done again; if this recurs, another replica has the same `instance_id`"
            }
            KafkaErrorKind::Other => "",
        }
    }
}
