//! Where audit events come from: files, rotated and compressed ones, standard input, apiservers that send them, and Kafka.
//!
//! A source hands on buffers of raw bytes, cut where a record ends. It knows names, rotation, compression and HTTP,
//! and nothing of JSON but that a line which starts with `{` starts a record, and how a body of the webhook is a list.

pub mod chunker;
pub mod decompress;
pub mod discover;
pub mod files;
pub mod follow;
pub mod kafka;
pub mod rotation;
pub mod watch;
pub mod webhook;
