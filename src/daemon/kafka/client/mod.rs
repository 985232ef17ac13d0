//! The librdkafka client: properties, context and error codes shared by sources and sinks.

mod context;
mod error_kind;
mod match_records;
mod oauth;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

pub(crate) use context::{Context, LastError};
pub(crate) use error_kind::error_kind;
pub(crate) use match_records::{is_too_large, log_too_large, send};
pub(crate) use oauth::token;

use super::{Cluster, Error};

pub const ENABLED: bool = true;

/// Client configuration: `defaults`, overridden by the configured properties, overridden by `owned`.
pub fn config(cluster: &Cluster, defaults: &[(&str, &str)], owned: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.brokers.join(","));
    config.set("client.id", "pullwatch");
    // The default of 5 minutes is too long for a topic that was just created.
    config.set("topic.metadata.refresh.interval.ms", "30000");
    if cluster.oauth_token_file.is_some() {
        config.set("sasl.mechanism", "OAUTHBEARER");
    }
    for (name, value) in defaults {
        config.set(*name, *value);
    }
    for (name, value) in &cluster.properties {
        config.set(name.as_str(), value.reveal());
    }
    for (name, value) in owned {
        config.set(*name, *value);
    }
    // Important messages are also reported as errors. For more details, set `debug:` and PULLWATCH_LOG=librdkafka=debug.
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Checks each property by itself. Connects to nothing.
pub fn check(cluster: &Cluster) -> Result<(), Error> {
    for (name, value) in &cluster.properties {
        let mut one = ClientConfig::new();
        one.set(name.as_str(), value.reveal());
        one.create_native_config().map(|_| ()).map_err(|error| property_error(&error))?;
    }
    Ok(())
}

/// Converts an error without showing any value.
pub fn property_error(error: &KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(kind, _, name, _) => match kind {
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => Error::Unknown(name.clone()),
            _ => Error::Value(name.clone()),
        },
        KafkaError::ClientCreation(text) => Error::Properties(text.clone()),
        other => {
            Error::Properties(code(other).map_or_else(|| "no details".to_owned(), |code| code.to_string()))
        }
    }
}

pub fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    error.rdkafka_error_code()
}
