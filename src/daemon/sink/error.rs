//! Sink settings that cannot work.

use std::path::PathBuf;

use crate::daemon::net::NetError;

/// Why a sink cannot be made of its settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A pattern of rule names is none.
    #[error("`{pattern}` is no pattern of rule names: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The URL is none, or neither `http` nor `https`.
    #[error("the URL is not usable: {0}")]
    Url(&'static str),
    /// A header is not one.
    #[error("the header `{0}` is not usable: its name or its value has characters that no header may have")]
    Header(String),
    /// The proxy's URL is none.
    #[error("the proxy's URL is not usable")]
    Proxy,
    /// A number makes no sense.
    #[error("{0} must be above 0")]
    Zero(&'static str),
    /// A text that syslog has no room for.
    #[error("`{text}` is no {what}: it takes 1 to {most} printable ASCII characters{but}")]
    Name {
        /// What it should be.
        what: &'static str,
        /// What it is.
        text: String,
        /// So many characters.
        most: usize,
        /// What else it must not hold.
        but: &'static str,
    },
    /// An address without a port, or without a host.
    #[error("`{0}` is no address: it takes host:port")]
    Address(String),
    /// The properties of a client of Kafka.
    #[error(transparent)]
    Kafka(#[from] crate::daemon::kafka::Error),
    /// Certificates or keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP client.
    #[error("the HTTP client cannot be made: {0}")]
    Client(String),
}

/// What is wrong with certificates or keys. Says which file, and nothing of what is in it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("{path}: {reason}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// One of certificate and key without the other.
    #[error("a certificate needs its key, and a key its certificate")]
    Half,
    /// The system has no authorities to trust.
    #[error("the system has no certificate authorities; name a file with `ca`")]
    NoRoots,
    /// A name that no certificate can be for.
    #[error("`{0}` is no name of a server")]
    Name(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<NetError> for TlsError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Read { path, source } => TlsError::File { path, reason: source.to_string() },
            NetError::Content { path, reason } => TlsError::File { path, reason },
            NetError::Bind { .. } => TlsError::Other(error.to_string()),
        }
    }
}
