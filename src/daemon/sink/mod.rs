//! Delivers alerts. Each sink reads the store with its own cursor, so a slow or failing sink does not delay the others.
//!
//! Takes stored alerts, in order, through a [`Feed`], and delivers each of them at least once to standard output, a file, an HTTP server, a
//! syslog receiver or a Kafka topic. The cursor is saved after a delivery and never before it, so a kill in between causes a duplicate, but
//! no loss. Receivers recognize duplicates by the alert's `id`.
//!
//! Alerts that can never be delivered (because the receiver rejects them, or they are too old) are written to the dead-letter file with a
//! reason. Alerts that cannot be delivered now are retried with growing delays. Nothing is skipped without a count.
//!
//! [`Sink::new`] checks the settings and [`Sink::run`] is the loop; there is one file per kind of destination. Audit events must never
//! enter this module. Alerts are redacted before they are stored.

mod alertmanager;
mod backoff;
mod config;
mod dead_letter;
pub(crate) mod deliveries;
mod destination;
mod error;
mod failure;
mod feed;
mod fields;
mod file;
mod filter;
mod format;
mod http;
mod http_body;
pub(crate) mod kafka;
mod loki;
mod metrics;
mod output;
pub(crate) mod resend;
pub(crate) mod resolve;
mod syslog;
pub(crate) mod text;
mod tls;
mod worker;

pub use config::{
    Alertmanager, Body, Compression, DeadLetter, Facility, File, Format, Http, Kafka, Key, Kind, Loki, Retry,
    Secret, SinkConfig, Stdout, Syslog, TlsSettings, Transport,
};
pub(crate) use dead_letter::{DeadLetterFile, DropReason};
pub use error::{SettingsError, TlsError};
pub(crate) use feed::StoreFeed;
pub use feed::{Feed, FeedError};
pub use format::template::Template;
pub(crate) use http::client_config_without_roots;
pub(crate) use kafka::TransactionalProducer;
pub use metrics::SinkMetrics;
pub(crate) use tls::Tls;

pub use worker::{DeliveryObserver, Reopen, Sink, SinkError, run};

#[cfg(test)]
mod tests;
