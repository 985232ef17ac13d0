//! The settings of sinks, as plain values. Whoever reads a configuration file fills them in.

use std::path::PathBuf;
use std::time::Duration;

use crate::daemon::kafka::Cluster;
pub use crate::daemon::secret::Secret;
use crate::detection::alert::Priority;

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkConfig {
    /// What metrics, logs and the saved cursor call it.
    pub name: String,
    /// Where alerts go.
    pub kind: Kind,
    /// Only alerts that are at least that bad.
    pub min_priority: Priority,
    /// Only alerts of rules whose name matches one of these patterns (`*`, `?`, `[a-z]`, `{a,b}`, in any case); of all rules
    /// where there are none.
    pub include: Vec<String>,
    /// No alerts of rules whose name matches one of these patterns, included or not.
    pub exclude: Vec<String>,
    /// When a delivery that failed is tried again.
    pub retry: Retry,
    /// Where alerts go that cannot be delivered. Without it they are counted and gone.
    pub dead_letter: Option<DeadLetter>,
    /// How long one delivery over the network may take, from looking up the name to the end of the answer. Standard output
    /// and files have no such end: a reader that pauses is waited for.
    pub timeout: Duration,
    /// How long a sink may go on delivering what is stored after it was told to stop.
    pub grace: Duration,
}

impl Default for SinkConfig {
    fn default() -> Self {
        SinkConfig {
            name: "stdout".to_owned(),
            kind: Kind::Stdout(Stdout::default()),
            min_priority: Priority::Debug,
            include: Vec::new(),
            exclude: Vec::new(),
            retry: Retry::default(),
            dead_letter: None,
            timeout: Duration::from_secs(10),
            grace: Duration::from_secs(5),
        }
    }
}

/// Where alerts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To standard output.
    Stdout(Stdout),
    /// To a file.
    File(File),
    /// To an HTTP server.
    Http(Http),
    /// To a syslog receiver.
    Syslog(Syslog),
    /// To a topic of Kafka.
    Kafka(Kafka),
}

/// How an alert is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people on a terminal, else JSON.
    #[default]
    Auto,
    /// One line of JSON.
    Json,
    /// One line for people, with nothing in it that a terminal would obey.
    Text,
}

/// Standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stdout {
    /// How alerts are written.
    pub format: Format,
}

/// A file that alerts are appended to, one a line. It is made for its owner alone, and opened again when it was moved or
/// removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// How alerts are written.
    pub format: Format,
    /// Whether alerts have to be on the disk before they count as delivered.
    pub sync: bool,
}

/// An HTTP server that takes alerts by `POST`. Redirects are not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where. Often holds a token, so that it is not shown.
    pub url: Secret,
    /// How many alerts a request carries, and how.
    pub body: Body,
    /// Headers of each request.
    pub headers: Vec<(String, Secret)>,
    /// A file with a bearer token, read for each request.
    pub bearer_token_file: Option<PathBuf>,
    /// How the server is recognised, and we by it; for `https`.
    pub tls: TlsSettings,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// A proxy. Those that the environment names are not used.
    pub proxy: Option<Secret>,
    /// Statuses that are tried again although they refuse the alert, as 401 where tokens are late.
    pub retry_statuses: Vec<u16>,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            url: Secret::default(),
            body: Body::default(),
            headers: Vec::new(),
            bearer_token_file: None,
            tls: TlsSettings::default(),
            gzip: false,
            connect_timeout: Duration::from_secs(5),
            proxy: None,
            retry_statuses: Vec::new(),
        }
    }
}

/// What a request carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// One alert (`application/json`), as falcosidekick takes it.
    #[default]
    Alert,
    /// A JSON array of alerts (`application/json`).
    Array {
        /// At most so many alerts.
        alerts: usize,
        /// At most so many bytes before compression, but for an alert that is longer by itself.
        bytes: usize,
    },
    /// One alert a line (`application/x-ndjson`).
    Lines {
        /// At most so many alerts.
        alerts: usize,
        /// At most so many bytes before compression, but for an alert that is longer by itself.
        bytes: usize,
    },
}

/// How a server is recognised. Its certificate is always checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// A PEM file of authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// A PEM file of our own certificate and those between it and its authority. Needs `key`.
    pub certificate: Option<PathBuf>,
    /// A PEM file of our certificate's key.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must be for, where it is not the one we connect to. The server is asked for the
    /// latter still (SNI).
    pub server_name: Option<String>,
}

/// A syslog receiver. Messages are as RFC 5424 has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// How to get there.
    pub transport: Transport,
    /// What part of a system speaks.
    pub facility: Facility,
    /// The program's name.
    pub app_name: String,
    /// The machine's name; its own where there is none.
    pub hostname: Option<String>,
    /// What a message says.
    pub format: SyslogFormat,
    /// The id of the structured data: a name, `@`, and the number that IANA gave an enterprise. The number here is the one for
    /// examples. Without an id there is no structured data.
    pub structured_data: Option<String>,
    /// The longest message in bytes over UDP and datagram sockets. What is longer is cut, marked and counted.
    pub max_datagram: usize,
}

impl Default for Syslog {
    fn default() -> Self {
        Syslog {
            transport: Transport::Unix(PathBuf::from("/dev/log")),
            facility: Facility::AuthPriv,
            app_name: "pullwatch".to_owned(),
            hostname: None,
            format: SyslogFormat::Json,
            structured_data: Some("pullwatch@32473".to_owned()),
            // What rsyslog and syslog-ng take unless told otherwise.
            max_datagram: 8192,
        }
    }
}

/// How to get to a syslog receiver.
///
/// Syslog has no acknowledgement. An alert counts as delivered when the system took it; what was on its way when a receiver or a
/// network died may be lost. HTTP is the sink for whom that is too little.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams (RFC 5426) to `host:port`.
    Udp(String),
    /// A stream (RFC 6587, octet counting) to `host:port`.
    Tcp(String),
    /// An encrypted stream (RFC 5425) to `host:port`.
    Tls(String, TlsSettings),
    /// The local socket, whatever kind it is. On a stream each message ends with a line break.
    Unix(PathBuf),
}

/// What a syslog message says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyslogFormat {
    /// The alert as JSON.
    #[default]
    Json,
    /// ArcSight's Common Event Format, version 0.
    Cef,
    /// The rule and its output.
    Text,
}

/// The facilities of RFC 5424.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Facility {
    Kern,
    User,
    Mail,
    Daemon,
    Auth,
    Syslog,
    Lpr,
    News,
    Uucp,
    Cron,
    AuthPriv,
    Ftp,
    Ntp,
    Audit,
    Alert,
    Clock,
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

impl Facility {
    /// All of them, by their number.
    pub const ALL: [(Facility, &'static str); 24] = [
        (Facility::Kern, "kern"),
        (Facility::User, "user"),
        (Facility::Mail, "mail"),
        (Facility::Daemon, "daemon"),
        (Facility::Auth, "auth"),
        (Facility::Syslog, "syslog"),
        (Facility::Lpr, "lpr"),
        (Facility::News, "news"),
        (Facility::Uucp, "uucp"),
        (Facility::Cron, "cron"),
        (Facility::AuthPriv, "authpriv"),
        (Facility::Ftp, "ftp"),
        (Facility::Ntp, "ntp"),
        (Facility::Audit, "audit"),
        (Facility::Alert, "alert"),
        (Facility::Clock, "clock"),
        (Facility::Local0, "local0"),
        (Facility::Local1, "local1"),
        (Facility::Local2, "local2"),
        (Facility::Local3, "local3"),
        (Facility::Local4, "local4"),
        (Facility::Local5, "local5"),
        (Facility::Local6, "local6"),
        (Facility::Local7, "local7"),
    ];

    /// Reads a facility's name, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, name)| name.eq_ignore_ascii_case(word)).map(|(facility, _)| facility)
    }

    /// Its number, from 0 to 23.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|(facility, _)| *facility == self).unwrap_or_default()
    }
}

/// When a delivery that failed is tried again: after a random time between nothing and a bound that doubles with each failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The bound after the first failure.
    pub initial: Duration,
    /// The bound does not grow over this.
    pub max: Duration,
    /// A receiver that says when to come back is believed up to this.
    pub max_retry_after: Duration,
    /// Alerts that were stored longer ago are not sent any more, but go to the dead-letter file.
    pub max_age: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            initial: Duration::from_millis(500),
            max: Duration::from_secs(60),
            max_retry_after: Duration::from_secs(300),
            max_age: None,
        }
    }
}

/// A file of alerts that were not delivered, one JSON object a line: `reason`, `detail`, `time`, `sink`, `alert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it is. It is made for its owner alone. `run` takes a relative path as one in the state directory.
    pub path: PathBuf,
    /// It does not grow over so many bytes. What finds no room is counted and gone.
    pub max_bytes: u64,
}

impl Default for DeadLetter {
    /// 100 MiB beside the store, for all sinks.
    fn default() -> Self {
        DeadLetter { path: PathBuf::from("dead-letters.jsonl"), max_bytes: 100 << 20 }
    }
}

/// A topic of Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// How to get there.
    pub cluster: Cluster,
    /// The topic's name.
    pub topic: String,
    /// What a record's key is. Records of one key stay in order.
    pub key: Key,
    /// How records are compressed.
    pub compression: Compression,
}

/// What a record's key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// Who did it, so that one's alerts stay in order.
    #[default]
    Actor,
    /// The alert's id.
    Id,
    /// The rule's name.
    Rule,
    /// None: records go to any partition.
    None,
}

/// How records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    #[default]
    Lz4,
    Zstd,
}

impl Compression {
    /// All of them, by their names.
    pub const ALL: [(&str, Compression); 5] = [
        ("none", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).map_or("none", |(name, _)| name)
    }
}
