//! Replaces the consumer in a build without the feature `kafka`: no consumer exists.

// The signatures are those of the real module.
#![allow(clippy::unused_self)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::{Correlate, Dependencies, Error, Settings};
use crate::daemon::kafka::{self, AssignedPartition, KafkaErrorKind, MatchExchange};
use crate::detection::detector::repartition::Outgoing;

#[derive(Debug)]
pub enum Consumer {}

impl Consumer {
    /// # Errors
    /// Always.
    pub fn start(_: &str, _: &Settings, _: Dependencies) -> Result<Self, Error> {
        Err(Error::Client(kafka::Error::Disabled))
    }

    pub fn membership(&self) -> Membership {
        Membership
    }

    pub fn drain(&self) {
        match *self {}
    }

    #[allow(clippy::unused_async)] // The enabled consumer's is.
    pub async fn stop(self, _: Duration) {
        match self {}
    }
}

/// Exists so that its callers compile; without a consumer, there is no instance.
#[derive(Clone, Debug)]
pub struct Membership;

impl Membership {
    pub fn metadata(&self) -> Option<Infallible> {
        None
    }

    pub fn epoch(&self) -> u64 {
        0
    }

    pub fn any(&self) -> Option<(String, i32, i64)> {
        None
    }
}

/// See [`Membership`].
#[derive(Debug)]
pub struct RepartitionTopic;

impl RepartitionTopic {
    pub fn new(
        _: &Settings,
        _: &Correlate,
        _: Membership,
        _: Box<dyn Fn() -> Option<i64> + Send>,
        _: Box<dyn Fn(KafkaErrorKind) + Send>,
        _: Arc<AtomicBool>,
    ) -> Self {
        RepartitionTopic
    }
}

impl MatchExchange for RepartitionTopic {
    fn rebalance_generation(&self) -> u64 {
        0
    }

    fn assigned_partitions(&self) -> Vec<AssignedPartition> {
        Vec::new()
    }

    fn send(&mut self, _: &[Outgoing]) -> bool {
        false
    }

    fn replay(&mut self, _: i32, _: i64, _: i64, _: &mut dyn FnMut(i64, &[u8])) -> bool {
        false
    }

    fn delivered_seq(&self) -> Option<i64> {
        None
    }
}
