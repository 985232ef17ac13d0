//! Shared by Kafka sources and sinks: how to reach a cluster, which librdkafka properties are passed through, the kinds of errors, and the
//! interfaces that the pipeline calls.
//!
//! Settings and error kinds exist in every build, so that every build can read every configuration; the client needs the feature `kafka`.
//! This module does not depend on events and alerts. Property values may be passwords and are never shown.

#![cfg_attr(not(feature = "kafka"), allow(dead_code))]

#[cfg_attr(not(feature = "kafka"), path = "disabled.rs")]
pub(crate) mod client;
mod errors;
mod exchange;
mod settings;
mod transaction;

pub use client::{ENABLED, check};
pub use errors::KafkaErrorKind;
pub(crate) use exchange::{AssignedPartition, MatchExchange};
pub use settings::{Cluster, Role, reserved};
pub(crate) use transaction::{PartitionOffset, Transact, TxnOutcome};

/// The error message of a build without Kafka.
pub const DISABLED: &str = "this build does not support Kafka: use a released binary, or build with the default features (cargo build)";

/// The reason why librdkafka rejects properties.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("unknown librdkafka property `{0}`; see CONFIGURATION.md of librdkafka")]
    Unknown(String),
    /// The value may be a secret and is not shown.
    #[error("invalid value of the librdkafka property `{0}`; see CONFIGURATION.md of librdkafka")]
    Value(String),
    #[error("invalid librdkafka properties: {0}")]
    Properties(String),
    #[error("{DISABLED}")]
    Disabled,
}
