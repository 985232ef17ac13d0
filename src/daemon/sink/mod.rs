//! Where alerts go. Each sink reads the store with a cursor of its own, so that a slow or dead one holds up nobody.
//!
//! What comes in: stored alerts, in order, through a [`Feed`]. What goes out: each of them at least once, to standard output,
//! a file, an HTTP server, a syslog receiver or a topic of Kafka. The cursor is saved after a delivery and never before it, so that a kill in
//! between repeats an alert and loses none; a receiver tells repeats by the alert's `id`.
//!
//! What cannot be delivered at all (a receiver that refuses it, an alert that is too old) goes to the dead-letter file, under a
//! reason. What cannot be delivered now is tried again, later and later. Nothing is passed over without a count.
//!
//! [`Sink::new`] checks the settings, [`Sink::run`] is the loop. One file a receiver; [`text`] and `syslog::message` write
//! alerts for places that are not JSON. What must never come in: audit events. Alerts are redacted before they are stored.

mod backoff;
mod config;
mod dead_letter;
mod destination;
mod feed;
mod file;
mod http;
pub(crate) mod kafka;
mod metrics;
mod now;
mod output;
mod syslog;
pub mod text;
mod tls;
mod worker;

pub use config::{
    Body, DeadLetter, Facility, File, Format, Http, Kind, Retry, Secret, SettingsError, SinkConfig, Stdout,
    Syslog, SyslogFormat, TlsError, TlsSettings, Transport,
};
pub use feed::{Feed, FeedError, StoreFeed};
#[cfg(feature = "kafka")]
pub use kafka::Transactions;
pub use kafka::{Compression, Kafka, Key};
pub use metrics::SinkMetrics;
pub use worker::{Reopen, Sink, SinkError, run};

#[cfg(test)]
mod tests;
