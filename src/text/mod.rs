//! Text that people write and read, below rules, policies and configuration: YAML with positions, diagnostics, spans of
//! time, suggestions.

pub mod diagnostics;
pub mod escape;
pub mod located;
pub mod name_patterns;
pub(crate) mod suggest;
pub mod timespan;
pub mod yaml;
