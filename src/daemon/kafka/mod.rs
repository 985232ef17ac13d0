//! What the source and the sink over Kafka have in common: how a cluster is reached, which properties of librdkafka are
//! passed on and which are not, and what its errors mean to a person.
//!
//! Settings and reasons are plain values and always there, so that every build reads every configuration. The client itself
//! comes with the feature `kafka`; a build without it says so where a configuration asks for it. What must never come in:
//! events and alerts. Values of properties may be passwords, so that none is ever shown.

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

/// Why nothing of Kafka works in this build, where that is so.
pub const DISABLED: &str =
    "this build has no Kafka: use a released binary, or build with the default features (cargo build)";

/// What is wrong with properties, as librdkafka sees it: the property's name and a word about it, or a word about all.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// There is no such property.
    #[error("librdkafka has no property `{0}`; its CONFIGURATION.md lists all")]
    Unknown(String),
    /// A value that the property cannot have. The value may be a secret, and is not shown.
    #[error("`{0}` cannot have this value; librdkafka's CONFIGURATION.md says which it takes")]
    Value(String),
    /// Properties that do not fit together.
    #[error("librdkafka cannot use these properties: {0}")]
    Properties(String),
    /// The feature is not there.
    #[error("{DISABLED}")]
    Disabled,
}
