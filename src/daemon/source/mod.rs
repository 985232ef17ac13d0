//! Where audit events come from: files, rotated and compressed ones, standard input, apiservers that send them, and Kafka.
//!
//! A source hands on buffers of raw bytes, cut where a record ends. It knows names, rotation, compression and HTTP,
//! and nothing of JSON but that a line which starts with `{` starts a record, and how a body of the webhook is a list.

pub(crate) mod chunker;
pub(crate) mod decompress;
pub(crate) mod discover;
pub(crate) mod files;
pub(crate) mod follow;
pub(crate) mod input;
pub(crate) mod kafka;
pub(crate) mod memory_budget;
pub(crate) mod rotation;
pub(crate) mod watch;
pub mod webhook;
