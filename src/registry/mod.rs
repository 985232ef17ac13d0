//! What is a registry credential, and what an event exposed of them.
//!
//! In comes an audit event, out comes which credentials it handed over, how surely, and which registries they are for.
//! Nothing here keeps state: what is said follows from the one event. Passwords and tokens are never part of it: a
//! docker config is read for its hosts and user names, and the rest is dropped at once.

mod config;
mod exposure;

pub use exposure::{Exposure, Kind, Scope};
