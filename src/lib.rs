//! pullwatch watches who reads the registry credentials of a Kubernetes cluster.
//!
//! An audit event goes one way through the house, and each room knows only the rooms before it:
//!
//! ```text
//! source ──► audit ──► engine ──► cli
//! bytes      events    matches    what a person or a program reads
//!               ▲
//!             rules    what to look for, loaded and checked before the first event
//! ```
//!
//! `audit`, `rules` and `engine` do no I/O: bytes in, matches out. They are a library that anyone can embed.

pub mod audit;
pub mod cli;
pub mod config;
pub mod correlate;
pub mod detector;
pub mod engine;
pub mod history;
pub mod kafka;
pub mod metrics;
pub mod net;
pub mod pipeline;
pub mod policy;
pub mod registry;
pub mod rules;
pub mod secret;
pub mod server;
pub mod shipped;
pub mod sink;
pub mod source;
pub mod state;
pub mod store;
