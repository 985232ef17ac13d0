//! Errors in the settings of sinks.

use std::path::PathBuf;

use crate::daemon::net::NetError;

/// The reason why the settings of a sink are invalid.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Invalid rule name pattern.
    #[error("invalid rule name pattern `{pattern}`: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// A description of the error.
        reason: String,
    },
    /// Invalid URL. It may contain a secret, and is not shown.
    #[error("invalid URL: {0}")]
    Url(&'static str),
    /// Invalid header. Its value may be a secret, and is not shown.
    #[error("invalid header `{0}`: its name or its value has characters that are not allowed in headers")]
    Header(String),
    /// Invalid proxy URL. It may contain a secret, and is not shown.
    #[error("invalid URL of the proxy")]
    Proxy,
    /// A group that does not exist on the system.
    #[error("unknown group `{0}`: expected a name in /etc/group, or a number")]
    Group(String),
    /// A number that must be positive.
    #[error("{0} must be greater than 0")]
    Zero(&'static str),
    /// A name that syslog does not allow.
    #[error("invalid {what} `{text}`: expected 1 to {max_len} printable ASCII characters{except}")]
    Name {
        /// The purpose of the name.
        what: &'static str,
        /// The name.
        text: String,
        /// Maximum number of characters.
        max_len: usize,
        /// Printable characters that are not allowed either.
        except: &'static str,
    },
    /// An address without a port, or without a host.
    #[error("invalid address `{0}`: expected host:port")]
    Address(String),
    /// A format that is not JSON, in a JSON body.
    #[error(
        "`body: array` and Elasticsearch take JSON: expected `format: falco`, `ecs` or `ocsf`, or `body: lines`"
    )]
    Format,
    /// Properties of the Kafka client.
    #[error(transparent)]
    Kafka(#[from] crate::daemon::kafka::Error),
    /// Certificates or keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP client cannot be built.
    #[error("cannot build the HTTP client: {0}")]
    Client(String),
}

/// An error in certificates or keys. The message names the file and quotes none of its content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read or has the wrong content.
    #[error("{path}: {reason}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// A description of the error.
        reason: String,
    },
    /// Only one of client certificate and private key is configured.
    #[error("certificate and key must be set together")]
    IncompleteKeyPair,
    /// The system has no certificate authorities.
    #[error("the system has no certificate authorities: name a file with `ca`")]
    NoRoots,
    /// A name that no certificate can be issued for.
    #[error("invalid server name `{0}`: expected a host name or an IP address")]
    Name(String),
    /// Any other error.
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
