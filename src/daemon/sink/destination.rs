//! What comes of a delivery.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use super::config::{Format, Http, Kind, SettingsError, SinkConfig};
use super::file::FileSink;
use super::http::HttpSink;
use super::kafka::KafkaSink;
use super::metrics::Counts;
use super::output::Output;
use super::syslog::SyslogSink;
use crate::detection::alert::StoredAlert;

/// What failed. A closed set: it labels a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No connection: no such name, nobody there, an end in the middle.
    Connection,
    /// No answer in time.
    Timeout,
    /// No trust.
    Tls,
    /// The receiver asks for less (429).
    Throttled,
    /// The receiver has a problem of its own (5xx, 408, 425).
    Server,
    /// The receiver refuses the alert.
    Rejected,
    /// An answer that is neither yes nor no.
    Unexpected,
    /// The bearer token cannot be read.
    Token,
    /// No room on the disk.
    DiskFull,
    /// Any other error of reading and writing.
    Io,
    /// The store cannot be read, or the cursor not be saved.
    Store,
    /// The dead-letter file cannot be written.
    DeadLetter,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 12] = [
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

    /// As metrics have it.
    pub const fn name(self) -> &'static str {
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

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Try again, not before so long.
    Retry(Option<Duration>),
    /// Give so many alerts up: they will never be taken. More than one are tried one by one first.
    GiveUp(usize),
    /// End the sink: nobody listens any more.
    End,
}

/// A delivery that failed, or failed in part.
#[derive(Debug)]
pub struct Failure {
    /// So many alerts were delivered before.
    pub done: usize,
    /// What failed.
    pub reason: Reason,
    /// What to do.
    pub remedy: Remedy,
    /// For people. Holds no secret, and nothing that a receiver sent.
    pub detail: String,
}

impl Failure {
    /// A failure that may pass.
    pub fn passing(reason: Reason, detail: impl fmt::Display) -> Self {
        Failure { done: 0, reason, remedy: Remedy::Retry(None), detail: detail.to_string() }
    }

    /// A failure of reading or writing.
    pub fn io(error: &io::Error) -> Self {
        use io::ErrorKind;
        let reason = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Reason::DiskFull,
            ErrorKind::TimedOut => Reason::Timeout,
            // rustls says so of certificates that are not trusted.
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
        Failure::passing(reason, error)
    }

    /// The same after so many alerts were delivered.
    #[must_use]
    pub fn after(mut self, done: usize) -> Self {
        self.done = done;
        self
    }
}

/// Whatever carries alerts.
#[derive(Debug)]
pub enum Carrier {
    /// Standard output.
    Output(Output<tokio::io::Stdout>),
    /// A file.
    File(FileSink),
    /// An HTTP server.
    Http(Box<HttpSink>),
    /// A syslog receiver.
    Syslog(Box<SyslogSink>),
    /// A topic of Kafka.
    Kafka(Box<KafkaSink>),
}

impl Carrier {
    /// What these settings ask for. Nothing is opened yet.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub fn new(config: &SinkConfig, counts: &Counts) -> Result<Self, SettingsError> {
        Ok(match &config.kind {
            Kind::Stdout(settings) => {
                let is_for_people = settings.format == Format::Auto && io::stdout().is_terminal();
                let format = if is_for_people { Format::Text } else { settings.format };
                Carrier::Output(Output::new(tokio::io::stdout(), format))
            }
            Kind::File(settings) => Carrier::File(FileSink::new(settings)),
            Kind::Http(settings) => Carrier::Http(Box::new(HttpSink::new(settings)?)),
            Kind::Kafka(settings) => Carrier::Kafka(Box::new(KafkaSink::new(settings, config.timeout)?)),
            Kind::Syslog(settings) => {
                Carrier::Syslog(Box::new(SyslogSink::new(settings, counts.truncated.clone())?))
            }
        })
    }

    /// Delivers some of these alerts, from the first on, at least one of them; says how many.
    ///
    /// May be dropped at any point. What was delivered by then may be delivered again.
    ///
    /// # Errors
    /// When not all of those it took were delivered.
    pub async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        match self {
            Carrier::Output(output) => output.deliver(alerts).await,
            Carrier::File(file) => file.deliver(alerts).await,
            Carrier::Http(http) => http.deliver(alerts).await,
            Carrier::Syslog(syslog) => syslog.deliver(alerts).await,
            Carrier::Kafka(kafka) => kafka.deliver(alerts).await,
        }
    }

    /// Whether a delivery that takes long is to be ended: only on a network is it likely to be hopeless, and only there is
    /// nothing left half written. Kafka's client ends records by itself.
    pub fn has_timeout(&self) -> bool {
        matches!(self, Carrier::Http(_) | Carrier::Syslog(_))
    }

    /// Opens files anew with the next delivery.
    pub fn reopen(&mut self) {
        if let Carrier::File(file) = self {
            file.close();
        }
    }
}

/// At most so many alerts are in one delivery.
pub fn most(kind: &Kind) -> usize {
    use super::config::Body;
    match kind {
        Kind::Http(Http { body: Body::Alert, .. }) => 1,
        Kind::Http(Http { body: Body::Array { alerts, .. } | Body::Lines { alerts, .. }, .. }) => {
            (*alerts).max(1)
        }
        Kind::Stdout(_) | Kind::File(_) | Kind::Syslog(_) | Kind::Kafka(_) => 256,
    }
}
