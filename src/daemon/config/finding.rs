//! Errors and risks found in a configuration.

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `run` refuses the configuration, or cannot work with it.
    pub is_error: bool,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Finding {
    pub fn error(message: impl Into<String>) -> Self {
        Finding { is_error: true, message: message.into() }
    }

    pub fn warning(message: impl Into<String>) -> Self {
        Finding { is_error: false, message: message.into() }
    }
}
