//! Properties of librdkafka, checked and put together.

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

/// The properties of a client that the configuration names, over those that hold where it does not.
pub fn config(cluster: &Cluster, defaults: &[(&str, &str)], owned: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.brokers.join(","));
    config.set("client.id", "pullwatch");
    // The default, 5 minutes, is long for somebody who waits for a topic that was just made.
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
    // What it would log comes as errors too. Those who look closer say `debug:` and PULLWATCH_LOG=librdkafka=debug.
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Checks properties, each by itself. Connects to nothing.
pub fn check(cluster: &Cluster) -> Result<(), Error> {
    for (name, value) in &cluster.properties {
        let mut one = ClientConfig::new();
        one.set(name.as_str(), value.reveal());
        one.create_native_config().map(|_| ()).map_err(|error| property_error(&error))?;
    }
    Ok(())
}

/// What is wrong with a client's properties, without any value.
pub fn property_error(error: &KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(kind, _, name, _) => match kind {
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => Error::Unknown(name.clone()),
            _ => Error::Value(name.clone()),
        },
        KafkaError::ClientCreation(text) => Error::Properties(text.clone()),
        other => Error::Properties(
            code(other).map_or_else(|| "it says no more".to_owned(), |code| code.to_string()),
        ),
    }
}

/// The code of an error.
pub fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    error.rdkafka_error_code()
}
