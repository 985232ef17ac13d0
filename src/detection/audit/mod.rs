//! Reads audit events.
//!
//! Takes buffers of bytes, of which clients control large parts; returns events that borrow from them, their members, and text that is safe
//! to show. This module must not depend on rules, I/O or cluster state, and must not trust any field that a client chooses.

pub(crate) mod apiserver_head;
pub(crate) mod buffer_scan;
pub mod envelope;
pub mod event;
pub(crate) mod event_end;
pub mod event_id;
pub(crate) mod json;
pub(crate) mod json_prefix;
pub(crate) mod literals;
pub mod origin;
pub(crate) mod outcome;
pub(crate) mod redact;
#[cfg_attr(not(fuzzing), doc(hidden))]
pub mod steps;
pub mod time;
pub(crate) mod uri;
