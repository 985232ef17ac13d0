//! Glob patterns for names, such as those of secrets that usually contain registry credentials, and of rules that a sink delivers.
//!
//! Takes patterns as users write them (`*`, `?`, `[a-z]`, `{a,b}`, any case) and returns whether a name matches one of them. Matching takes
//! linear time whatever the pattern and the name are.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// A set of case-insensitive glob patterns. The default matches nothing.
#[derive(Clone, Debug, Default)]
pub struct NamePatterns {
    set: GlobSet,
}

/// A pattern that does not parse.
#[derive(Debug, thiserror::Error)]
#[error("invalid name pattern `{pattern}`: {reason}")]
pub struct InvalidPattern {
    /// The pattern as it was written.
    pub pattern: String,
    /// The parser's message.
    pub reason: String,
}

impl NamePatterns {
    /// Compiles a set of patterns.
    ///
    /// # Errors
    /// Returns the first pattern that does not parse.
    pub fn new<'t>(patterns: impl IntoIterator<Item = &'t str>) -> Result<Self, InvalidPattern> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(parse(pattern)?);
        }
        let invalid = |error: globset::Error| InvalidPattern {
            pattern: error.glob().unwrap_or_default().to_owned(),
            reason: error.kind().to_string(),
        };
        Ok(NamePatterns { set: set.build().map_err(invalid)? })
    }

    /// Returns whether any pattern matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        self.set.is_match(name)
    }
}

fn parse(pattern: &str) -> Result<Glob, InvalidPattern> {
    GlobBuilder::new(pattern)
        .case_insensitive(true)
        .build()
        .map_err(|error| InvalidPattern { pattern: pattern.to_owned(), reason: error.kind().to_string() })
}
