//! Limits of a port for untrusted clients.

use std::time::Duration;

/// Limits for untrusted clients of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent connections. Further ones replace idle connections of unauthenticated clients, or are rejected.
    pub connections: usize,
    /// Concurrent connections per client address (IPv6: 64-bit network); further ones are treated likewise.
    pub connections_per_address: usize,
    /// Timeout of the TLS handshake.
    pub handshake: Duration,
    /// Maximum time until the first request of a connection has arrived.
    pub first_request: Duration,
    /// An idle connection is closed after this time. Prometheus scrapes at least every minute, and an apiserver whose connection was closed
    /// opens another one.
    pub idle: Duration,
    /// A connection is closed if its client does not read a response for this long.
    pub stalled: Duration,
    /// Maximum size of a request's line and headers, in bytes.
    pub header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 256,
            connections_per_address: 64,
            handshake: Duration::from_secs(5),
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(90),
            stalled: Duration::from_secs(30),
            header_bytes: 16 << 10,
        }
    }
}
