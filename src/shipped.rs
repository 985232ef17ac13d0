//! The rules that ship with pullwatch, inside the binary, so that it works anywhere without any file.

/// The files of `rules.d`, by name and content, in load order.
pub const RULES: &[(&str, &str)] = &[("rules.d/registry.yaml", include_str!("../rules.d/registry.yaml"))];
