//! Listener on a port among strangers: limits, TLS, bearer tokens. What is served there is no concern of this room.
//!
//! In come connections from anybody; out come requests of a router that is handed in. A connection that has not shown a
//! certificate or a token gets little: some seconds to say what it wants, a header of some kilobytes, one of a bounded
//! number of counts. Certificates, keys and tokens are files, and are read again when their content changes.

pub(crate) mod connection_limit;
pub(crate) mod listener;
pub(crate) mod tls;
pub(crate) mod token;
pub(crate) mod watched_files;

use std::path::PathBuf;
use std::time::Duration;

pub use connection_limit::Limits;
pub use listener::{Listener, listen};
pub use tls::Tls;
pub use token::Token;

/// How often files that may change are looked at. What is compared is their content, not their time: a mounted Secret is
/// swapped by renaming a link, which neither `inotify` on the file nor its modification time tells of reliably.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where to.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the settings cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the settings does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
