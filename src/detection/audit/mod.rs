//! What an audit event is: how its bytes become fields.
//!
//! In come bytes that anybody may have written; out come events that borrow from them. Nothing here does
//! I/O, knows of rules, or believes a client.

pub mod buffer_scan;
pub mod envelope;
pub mod event;
pub mod event_id;
pub mod json;
pub mod literals;
pub mod redact;
pub mod time;
pub mod uri;
