//! Sources of audit events: plain, rotated and compressed files, standard input, the audit webhook, and Kafka.
//!
//! Returns buffers of raw bytes, cut at record boundaries, and positions to resume from. Knows file names, rotation, compression, HTTP and
//! Kafka, but not the format of events, except that a record starts on a line that starts with `{`, and how a webhook body lists events.

pub(crate) mod chunker;
pub(crate) mod decompress;
pub(crate) mod discover;
pub(crate) mod files;
pub(crate) mod follow;
pub(crate) mod input;
pub(crate) mod kafka;
pub(crate) mod memory_budget;
pub(crate) mod open_lines;
pub(crate) mod rotation;
pub(crate) mod watch;
pub mod webhook;
