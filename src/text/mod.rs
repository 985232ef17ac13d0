//! Text that people write and read.
//!
//! Takes text of rule files, audit policies and configuration files, and of events; returns YAML nodes with positions, diagnostics, parsed
//! durations, sizes and name patterns, and text that is safe to print. It is the lowest layer: rules, policies, configuration and outputs
//! use it, and it must not depend on them.

pub mod diagnostics;
pub(crate) mod document;
pub mod escape;
pub(crate) mod located;
pub(crate) mod name_patterns;
pub(crate) mod numbers;
#[cfg(feature = "daemon")]
pub(crate) mod size;
pub(crate) mod suggest;
pub(crate) mod timespan;
pub(crate) mod yaml;
