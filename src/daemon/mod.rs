//! The daemon: sources, a store and sinks.
//!
//! Contains everything that does I/O: files, sockets, Kafka, SQLite, metrics. It uses [`crate::detection`] and is composed by `pullwatch
//! run`.

pub(crate) mod app;
pub mod config;
pub(crate) mod inventory;
pub(crate) mod kafka;
mod log_limit;
pub mod metrics;
pub mod net;
pub mod pipeline;
pub(crate) mod redaction_key;
pub mod secret;
pub mod server;
pub mod sink;
pub mod source;
pub mod store;
pub(crate) mod time;
