//! A failed delivery: the cause, the required reaction, and how many alerts were delivered before the failure.

use std::fmt;
use std::io;
use std::time::Duration;

/// The cause of a failure. A closed set, since it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No connection: the name does not resolve, the connection was refused, or it broke.
    Connection,
    Timeout,
    /// The TLS handshake failed.
    Tls,
    /// The receiver asks for fewer requests (429).
    Throttled,
    /// The receiver has an internal problem (5xx, 408, 425).
    Server,
    /// The receiver rejects the alert.
    Rejected,
    /// A status that means neither success nor rejection.
    Unexpected,
    /// The bearer token cannot be read.
    Token,
    DiskFull,
    /// Any other read or write error.
    Io,
    /// The store cannot be read, or the cursor cannot be saved.
    Store,
    /// The dead-letter file cannot be written.
    DeadLetter,
}

impl Reason {
    pub(crate) const ALL: [Reason; 12] = [
        Reason::Connection,
        Reason::Timeout,
        Reason::Tls,
        Reason::Throttled,
        Reason::Server,
        Reason::Rejected,
        Reason::Unexpected,
        Reason::Token,
        Reason::DiskFull,
        Reason::Io,
        Reason::Store,
        Reason::DeadLetter,
    ];

    /// The value of the metric's label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Reason::Connection => "connection",
            Reason::Timeout => "timeout",
            Reason::Tls => "tls",
            Reason::Throttled => "throttled",
            Reason::Server => "server_error",
            Reason::Rejected => "rejected",
            Reason::Unexpected => "unexpected_status",
            Reason::Token => "token",
            Reason::DiskFull => "disk_full",
            Reason::Io => "io",
            Reason::Store => "store",
            Reason::DeadLetter => "dead_letter",
        }
    }
}

/// The reaction to a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Try again, not earlier than after this time.
    Retry(Option<Duration>),
    /// The receiver will never accept at least one of this many alerts. If there are several, each is tried separately to isolate the
    /// rejected one, which becomes a dead letter.
    GiveUp(usize),
    /// End the sink, because there is no receiver any more.
    End,
}

/// A delivery that failed completely or partly.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Number of alerts that were delivered before the failure.
    pub(crate) delivered: usize,
    pub(crate) reason: Reason,
    pub(crate) remedy: Remedy,
    /// A description for the log. Contains no secret, and no text that a receiver sent.
    pub(crate) detail: String,
}

impl Failure {
    /// A failure after which the same alerts are tried again.
    pub(crate) fn transient(reason: Reason, detail: impl fmt::Display) -> Self {
        Failure { delivered: 0, reason, remedy: Remedy::Retry(None), detail: detail.to_string() }
    }

    /// A read or write error.
    pub(crate) fn io(error: &io::Error) -> Self {
        use io::ErrorKind;
        let reason = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Reason::DiskFull,
            ErrorKind::TimedOut => Reason::Timeout,
            // The error kind that rustls uses for untrusted certificates.
            ErrorKind::InvalidData => Reason::Tls,
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown => Reason::Connection,
            _ => Reason::Io,
        };
        Failure::transient(reason, error)
    }

    /// The same failure, with the number of alerts delivered before it.
    #[must_use]
    pub(crate) fn after(mut self, delivered: usize) -> Self {
        self.delivered = delivered;
        self
    }
}
