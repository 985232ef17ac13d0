//! Where audit events come from: files, rotated and compressed ones, and standard input.
//!
//! A source hands on buffers of raw bytes, cut where a record ends. It knows names, rotation and compression,
//! and nothing of JSON but that a line which starts with `{` starts a record.

pub mod chunks;
pub mod discover;
pub mod files;
pub mod follow;
pub mod open;
pub mod rotation;
