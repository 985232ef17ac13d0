//! pullwatch detects who reads the registry credentials of a Kubernetes cluster, from the audit events of its apiserver.

#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod detection;
pub mod shipped;
pub mod text;
