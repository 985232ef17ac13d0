//! What goes wrong with a cluster, as a closed set.

/// What failed. A closed set: it labels a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No broker answers.
    Unreachable,
    /// A broker does not believe who we are.
    Authentication,
    /// No encrypted connection.
    Tls,
    /// We are known, and not allowed.
    Forbidden,
    /// A topic is not there.
    UnknownTopic,
    /// An offset is not there: the topic was made anew, or its retention was faster than we.
    OffsetGone,
    /// Offsets were not committed.
    Commit,
    /// The group went on without us.
    Expelled,
    /// A transaction did not go through.
    Transaction,
    /// Anything else.
    Other,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 10] = [
        Reason::Unreachable,
        Reason::Authentication,
        Reason::Tls,
        Reason::Forbidden,
        Reason::UnknownTopic,
        Reason::OffsetGone,
        Reason::Commit,
        Reason::Expelled,
        Reason::Transaction,
        Reason::Other,
    ];

    /// As metrics have it.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Unreachable => "unreachable",
            Reason::Authentication => "authentication",
            Reason::Tls => "tls",
            Reason::Forbidden => "forbidden",
            Reason::UnknownTopic => "unknown_topic",
            Reason::OffsetGone => "offset_gone",
            Reason::Commit => "commit",
            Reason::Expelled => "expelled",
            Reason::Transaction => "transaction",
            Reason::Other => "client",
        }
    }

    /// What a person can do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Reason::Unreachable => {
                "no broker answers: check `brokers`, the network and `security.protocol`; it is tried again"
            }
            Reason::Authentication => {
                "the broker refuses our credentials: check `sasl.mechanism`, `sasl.username` and the password; it is tried again"
            }
            Reason::Tls => {
                "no encrypted connection: check `security.protocol`, `ssl.ca.location` and our certificate; it is tried again"
            }
            Reason::Forbidden => {
                "the broker does not allow it: a source needs Read on its topics and its group, a sink Write on its topic"
            }
            Reason::UnknownTopic => {
                "the topic is not there: create it, or mend its name in the configuration; it is looked for again"
            }
            Reason::OffsetGone => {
                "an offset is not there any more: the topic was made anew, or its retention is too short for how far we are behind"
            }
            Reason::Commit => {
                "offsets were not committed: they come with the next commit; what another replica gets meanwhile it judges again"
            }
            Reason::Expelled => {
                "the group went on without us: it joins again; if this recurs, another replica has the same `instance_id`"
            }
            Reason::Transaction => {
                "a transaction did not go through: it is done again; if this recurs, another replica has the same `instance_id`"
            }
            Reason::Other => "",
        }
    }
}

#[cfg(feature = "kafka")]
pub(crate) use with_client::reason_of;

#[cfg(feature = "kafka")]
mod with_client {
    use rdkafka::error::RDKafkaErrorCode as Code;

    use super::Reason;

    /// What an error of librdkafka is.
    pub fn reason_of(code: Code) -> Reason {
        match code {
            Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator => Reason::Unreachable,
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState => Reason::Authentication,
            Code::SSL => Reason::Tls,
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed => Reason::Forbidden,
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                Reason::UnknownTopic
            }
            Code::OffsetOutOfRange | Code::NoOffset | Code::AutoOffsetReset => Reason::OffsetGone,
            Code::PollExceeded
            | Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::FencedInstanceId
            | Code::RebalanceInProgress
            | Code::AssignmentLost => Reason::Expelled,
            Code::Fenced
            | Code::ProducerFenced
            | Code::InvalidProducerEpoch
            | Code::InvalidTransactionalState => Reason::Transaction,
            _ => Reason::Other,
        }
    }
}
