//! Replaces the producers in a build without the feature `kafka`: no value of these types exists.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::daemon::kafka::{self, PartitionOffset, TxnOutcome};
use crate::daemon::sink::config::{Kafka, SinkConfig};
use crate::daemon::sink::error::SettingsError;
use crate::daemon::sink::failure::Failure;
use crate::daemon::sink::metrics::SinkMetrics;
use crate::daemon::sink::output::Rendering;
use crate::daemon::source::kafka::Settings;
use crate::detection::alert::{NewAlert, StoredAlert};
use crate::detection::detector::repartition::Outgoing;

#[derive(Debug)]
pub enum KafkaSink {}

impl KafkaSink {
    /// # Errors
    /// Always.
    pub fn new(_: &Kafka, _: Duration, _: Rendering) -> Result<Self, SettingsError> {
        Err(SettingsError::Kafka(kafka::Error::Disabled))
    }

    #[allow(clippy::unused_async)] // The enabled sink's is.
    pub async fn deliver(&mut self, _: &[StoredAlert]) -> Result<usize, Failure> {
        match *self {}
    }
}

#[derive(Debug)]
pub enum TransactionalProducer {}

impl TransactionalProducer {
    /// # Errors
    /// Always.
    pub fn new(
        _: &SinkConfig,
        _: &Kafka,
        _: &Settings,
        _: &str,
        _: &SinkMetrics,
        _: Arc<AtomicBool>,
    ) -> Result<Self, SettingsError> {
        Err(SettingsError::Kafka(kafka::Error::Disabled))
    }

    pub fn run(
        &mut self,
        _: &[NewAlert],
        _: &[Outgoing],
        _: &[PartitionOffset],
        _: &str,
        _: Option<&Infallible>,
        _: bool,
    ) -> TxnOutcome {
        match *self {}
    }

    pub fn outcome_of(&mut self, _: &[PartitionOffset], _: &str) -> TxnOutcome {
        match *self {}
    }
}
