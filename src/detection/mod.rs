//! Detection: bytes of audit logs in, alerts out.
//!
//! A library without I/O, threads, an async runtime or logging. It uses no file, socket or clock: the caller passes in what it needs.
//! Nothing of the daemon or the commands may be used here; `cargo check --lib --no-default-features` enforces it.
//!
//! ```text
//! audit ──► registry ──► rules ──► engine ──► correlate ──► detector ──► history, policy
//! ```

pub mod alert;
pub mod audit;
pub(crate) mod correlate;
pub mod detector;
pub(crate) mod engine;
pub(crate) mod history;
pub mod inventory;
pub(crate) mod lru;
pub mod networks;
pub mod policy;
pub mod registry;
pub mod rules;
pub mod shorten;
pub mod state;
