//! Writes matches for other replicas to the exchange topic, either with the source's producer or in the sink's transaction.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};

use super::Context;
use crate::detection::detector::repartition::Outgoing;

/// Enqueues a message, and returns its pending acknowledgement; `None` if the message is too large for the producer. Blocks while the queue
/// is full.
pub fn send(
    producer: &FutureProducer<Context>,
    topic: &str,
    message: &Outgoing,
) -> Result<Option<DeliveryFuture>, KafkaError> {
    loop {
        let record = FutureRecord::to(topic)
            .key(&message.key)
            .payload(&message.value)
            .timestamp((message.time / 1_000_000).max(0));
        match producer.send_result(record) {
            Ok(acknowledged) => return Ok(Some(acknowledged)),
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((error, _)) if is_too_large(&error) => return Ok(None),
            Err((error, _)) => return Err(error),
        }
    }
}

/// Whether the message was rejected for its size, so that a retry would fail too.
pub fn is_too_large(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidRecord))
}

pub fn log_too_large(topic: &str) {
    tracing::error!(
        topic,
        "match dropped: too large for the topic, correlations miss it. Raise `max.message.bytes` of the topic"
    );
}
