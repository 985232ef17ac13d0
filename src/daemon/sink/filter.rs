//! Selects the alerts of a sink, by priority and rule name.

use super::config::SinkConfig;
use super::error::SettingsError;
use crate::detection::alert::Priority;
use crate::detection::alert::StoredAlert;
use crate::text::name_patterns::NamePatterns;

/// The alerts that a sink delivers.
#[derive(Debug)]
pub(crate) struct Filter {
    min_priority: Priority,
    /// The configuration has no list of rules to include.
    includes_all_rules: bool,
    include: NamePatterns,
    exclude: NamePatterns,
}

impl Filter {
    pub(crate) fn new(config: &SinkConfig) -> Result<Self, SettingsError> {
        Ok(Filter {
            min_priority: config.min_priority,
            includes_all_rules: config.include.is_empty(),
            include: compile(&config.include)?,
            exclude: compile(&config.exclude)?,
        })
    }

    pub(crate) fn matches(&self, alert: &StoredAlert) -> bool {
        // `Emergency`, the highest priority, is the least value.
        alert.priority <= self.min_priority
            && (self.includes_all_rules || self.include.matches(&alert.rule))
            && !self.exclude.matches(&alert.rule)
    }
}

fn compile(patterns: &[String]) -> Result<NamePatterns, SettingsError> {
    let names = NamePatterns::new(patterns.iter().map(String::as_str));
    names.map_err(|error| SettingsError::Pattern { pattern: error.pattern, reason: error.reason })
}
