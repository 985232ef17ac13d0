//! Maps the error codes of librdkafka to kinds of errors.

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::daemon::kafka::KafkaErrorKind;

pub fn error_kind(code: Code) -> KafkaErrorKind {
    match code {
        Code::AllBrokersDown
        | Code::BrokerTransportFailure
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::CoordinatorNotAvailable
        | Code::CoordinatorLoadInProgress
        | Code::NotCoordinator => KafkaErrorKind::Unreachable,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => KafkaErrorKind::Authentication,
        Code::SSL => KafkaErrorKind::Tls,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => KafkaErrorKind::Forbidden,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            KafkaErrorKind::UnknownTopic
        }
        Code::OffsetOutOfRange | Code::NoOffset | Code::AutoOffsetReset => KafkaErrorKind::OffsetGone,
        Code::PollExceeded
        | Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::RebalanceInProgress
        | Code::AssignmentLost => KafkaErrorKind::Evicted,
        Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::InvalidTransactionalState => KafkaErrorKind::Transaction,
        _ => KafkaErrorKind::Other,
    }
}
