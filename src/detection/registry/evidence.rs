//! Why a secret counts as a registry credential.

use serde::{Deserialize, Serialize};

/// Why a secret counts as a registry credential, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// Its name matches a pattern, and nothing better is known.
    Name,
    /// A credential of another namespace has the same name: pull secrets are often copied to many namespaces.
    #[serde(rename = "same-name")]
    SameName,
    /// An `imagePullSecrets` list names it.
    Reference,
    /// Its type is generic, such as `Opaque`, but its data contains a registry credential.
    Content,
    /// The inventory declares it.
    Inventory,
    /// Its type was logged.
    Type,
}

impl Evidence {
    /// Returns the value of `registry.evidence`.
    pub const fn name(self) -> &'static str {
        match self {
            Evidence::Name => "name",
            Evidence::SameName => "same-name",
            Evidence::Reference => "reference",
            Evidence::Content => "content",
            Evidence::Inventory => "inventory",
            Evidence::Type => "type",
        }
    }
}
