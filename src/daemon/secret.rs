//! A text that is not shown: passwords, tokens, URLs that hold one.

use std::fmt;

/// A text that is not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What must not be shown.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// What it is, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}
