//! Ports for untrusted clients: connection limits, TLS, bearer tokens.
//!
//! Accepts connections from any client; calls the router that is passed in. A client that has not authenticated is limited to seconds for
//! its first request, kilobytes of headers, and a share of a bounded number of connections. Certificates, keys and tokens are files, and
//! are read again when their content changes. This module does not depend on what is served.

pub(crate) mod closer;
pub(crate) mod connection_limit;
pub(crate) mod connections;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod tls;
pub(crate) mod token;
pub(crate) mod watched_files;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use connections::Connections;
pub use limits::Limits;
pub use listener::{Listener, listen};
pub use tls::Tls;
pub use token::Token;

/// How often files are checked for changes.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// The reason why a port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {reason}", path.display())]
    Content { path: PathBuf, reason: String },
}
