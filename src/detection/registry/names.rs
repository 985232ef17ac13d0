//! Names that registry credentials go by, where nothing better is known.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns of names, in any case.
#[derive(Clone, Debug, Default)]
pub struct Names {
    set: GlobSet,
}

/// Why a pattern is none.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is no pattern: {reason}")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Names {
    /// Names that match one of these patterns (`*`, `?`, `[a-z]`, `{a,b}`).
    ///
    /// # Errors
    /// When one is no pattern.
    pub fn new<'t>(patterns: impl IntoIterator<Item = &'t str>) -> Result<Self, BadPattern> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(Self::pattern(pattern)?);
        }
        let bad = |error: globset::Error| BadPattern {
            pattern: error.glob().unwrap_or_default().to_owned(),
            reason: error.kind().to_string(),
        };
        Ok(Names { set: set.build().map_err(bad)? })
    }

    /// Reads one pattern.
    ///
    /// # Errors
    /// When it is none.
    pub fn pattern(pattern: &str) -> Result<Glob, BadPattern> {
        GlobBuilder::new(pattern)
            .case_insensitive(true)
            .build()
            .map_err(|error| BadPattern { pattern: pattern.to_owned(), reason: error.kind().to_string() })
    }

    /// Whether a secret of that name sounds like a registry credential.
    pub fn match_name(&self, name: &str) -> bool {
        self.set.is_match(name)
    }
}
