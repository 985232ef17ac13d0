//! The registry credentials that one event exposed, as rules, alerts and profiles of readers see them.

use serde::{Deserialize, Serialize};

use super::docker_config::RegistryLogins;
use super::evidence::Evidence;
use super::exposure_kind::ExposureKind;

/// The range of secrets that a request covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadScope {
    #[default]
    Secret,
    Namespace,
    Cluster,
}

impl ReadScope {
    /// Returns the value of `registry.scope`.
    pub const fn name(self) -> &'static str {
        match self {
            ReadScope::Secret => "secret",
            ReadScope::Namespace => "namespace",
            ReadScope::Cluster => "cluster",
        }
    }
}

/// The registry credentials that an event is about, and what it exposed of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    pub kind: ExposureKind,
    pub scope: ReadScope,
    /// Credentials as `namespace/name`, at most 1,000: ordered by evidence, the strongest first, then those known before the event, then
    /// alternating between namespaces.
    pub secrets: Vec<String>,
    /// Number of credentials.
    pub count: u64,
    /// The strongest evidence for any of them.
    pub evidence: Option<Evidence>,
    pub logins: RegistryLogins,
    /// Whether credentials, hosts or user names were omitted.
    #[serde(rename = "truncated", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_truncated: bool,
}
