//! How certain it is that a request handed over credentials, from the least to the most certain.

use serde::{Deserialize, Serialize};

/// How certain it is that credentials were handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExposureKind {
    /// No registry credential was involved.
    #[default]
    None,
    /// The request was denied.
    Denied,
    /// Names, and perhaps types, but no data.
    Metadata,
    /// A full read was possible, and the log does not show the response.
    Presumed,
    /// The response contained credentials.
    Payload,
}

impl ExposureKind {
    /// Parses a value of `registry.exposure`.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let all = [Self::None, Self::Denied, Self::Metadata, Self::Presumed, Self::Payload];
        all.into_iter().find(|kind| kind.name() == word)
    }

    /// Returns the value of `registry.exposure`.
    pub const fn name(self) -> &'static str {
        match self {
            ExposureKind::None => "none",
            ExposureKind::Denied => "denied",
            ExposureKind::Metadata => "metadata",
            ExposureKind::Presumed => "presumed",
            ExposureKind::Payload => "payload",
        }
    }
}
