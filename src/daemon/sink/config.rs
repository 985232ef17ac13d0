//! The settings of sinks, as plain values. The parser of the configuration file fills them in; nothing here does I/O.

use std::path::PathBuf;
use std::time::Duration;

use super::format::template::Template;
use crate::daemon::kafka::Cluster;
pub use crate::daemon::secret::Secret;
use crate::detection::alert::Priority;

/// The settings of one sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkConfig {
    /// Name in metrics, logs and the store's cursor.
    pub name: String,
    /// The destination and its settings.
    pub kind: Kind,
    /// Minimum priority.
    pub min_priority: Priority,
    /// Only alerts of rules whose name matches one of these patterns (`*`, `?`, `[a-z]`, `{a,b}`; case is ignored). Empty for all
    /// rules.
    pub include: Vec<String>,
    /// No alerts of rules whose name matches one of these patterns; takes precedence over `include`.
    pub exclude: Vec<String>,
    /// Deliver the redacted events instead of the alerts, for rules whose name matches one of these patterns. If empty, alerts are
    /// delivered.
    pub events: Vec<String>,
    /// Delays between attempts.
    pub retry: Retry,
    /// File for alerts that cannot be delivered. Without it, they are counted and dropped.
    pub dead_letter: Option<DeadLetter>,
    /// Timeout of one delivery over the network, from name resolution to the end of the response. Does not apply to standard output and
    /// files, whose readers may pause.
    pub timeout: Duration,
    /// Maximum length of a message, in bytes. Longer ones are shortened, marked and counted. If `None`, the limit of the receiver type.
    pub max_message: Option<usize>,
    /// How long a sink may continue to deliver stored alerts after it was requested to stop.
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
            events: Vec::new(),
            retry: Retry::default(),
            dead_letter: None,
            timeout: Duration::from_secs(10),
            max_message: None,
            grace: Duration::from_secs(5),
        }
    }
}

/// The destination of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
// There are few sinks, and each is created once.
#[allow(clippy::large_enum_variant)]
pub enum Kind {
    /// Standard output.
    Stdout(Stdout),
    /// A file.
    File(File),
    /// An HTTP server.
    Http(Http),
    /// A syslog receiver.
    Syslog(Syslog),
    /// A Kafka topic.
    Kafka(Kafka),
    /// Alertmanagers.
    Alertmanager(Alertmanager),
    /// Grafana Loki.
    Loki(Loki),
}

/// The format of an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, [`Format::Falco`] otherwise.
    #[default]
    Auto,
    /// Falco's JSON, with additional members.
    Falco,
    /// One human-readable line, without control characters.
    Text,
    /// ArcSight's Common Event Format, version 0.
    Cef,
    /// Elastic Common Schema, version 8.
    Ecs,
    /// Detection Finding of the Open Cybersecurity Schema Framework.
    Ocsf,
}

impl Format {
    /// Whether a message is a JSON object.
    pub fn is_json(self) -> bool {
        self.content_type() == "application/json"
    }

    /// The media type of a message.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Auto | Format::Falco | Format::Ecs | Format::Ocsf => "application/json",
            Format::Text | Format::Cef => "text/plain",
        }
    }
}

/// Settings for standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stdout {
    /// Format of the lines.
    pub format: Format,
}

/// A file to which alerts are appended, one per line. It is created with mode 0600, and reopened after it was moved or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Path of the file.
    pub path: PathBuf,
    /// Format of the lines.
    pub format: Format,
    /// Whether to sync to the disk before alerts count as delivered.
    pub sync: bool,
    /// Permissions of a newly created file; 0600 if `None`.
    pub mode: Option<u32>,
    /// Group of a newly created file: a name or a number.
    pub group: Option<String>,
}

/// An HTTP server that receives alerts by `POST`. Redirects are not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The URL. It often contains a token, and is never shown.
    pub url: Secret,
    /// Content of a request.
    pub body: Body,
    /// Format of the alerts in it.
    pub format: Format,
    /// Additional headers of each request.
    pub headers: Vec<(String, Secret)>,
    /// File with a bearer token, read for each request.
    pub bearer_token_file: Option<PathBuf>,
    /// TLS settings for `https`.
    pub tls: TlsSettings,
    /// Compress bodies.
    pub gzip: bool,
    /// Timeout of connecting.
    pub connect_timeout: Duration,
    /// URL of a proxy. Proxies from environment variables are not used.
    pub proxy: Option<Secret>,
    /// 4xx statuses that are retried, such as 401 if tokens are renewed late.
    pub retry_statuses: Vec<u16>,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            url: Secret::default(),
            body: Body::default(),
            format: Format::Falco,
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

/// Alertmanagers that receive alerts over the API v2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alertmanager {
    /// URLs of all Alertmanagers of a cluster, without the path of the API. They may contain passwords, and are never shown.
    pub urls: Vec<Secret>,
    /// Headers, credentials and TLS of the requests. Its URL is not used.
    pub http: Http,
    /// How long an alert is active after its last event.
    pub resolve_after: Duration,
    /// Interval at which active alerts are sent again; never if `None`.
    pub resend_interval: Option<Duration>,
    /// The label `severity` by priority.
    pub severities: Severities,
    /// URL of pullwatch's page, for links to alerts.
    pub page_url: Option<String>,
    /// URL of a runbook; `{rule}` is replaced by the rule name in lower case with hyphens.
    pub runbook_url: Option<String>,
}

impl Default for Alertmanager {
    fn default() -> Self {
        Alertmanager {
            urls: Vec::new(),
            http: Http::default(),
            resolve_after: Duration::from_secs(3600),
            resend_interval: Some(Duration::from_secs(60)),
            severities: Severities::default(),
            page_url: None,
            runbook_url: None,
        }
    }
}

/// The severity of each priority, in the order of [`Priority::ALL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Severities(pub [String; 8]);

impl Default for Severities {
    fn default() -> Self {
        let names = ["critical", "critical", "critical", "warning", "warning", "info", "info", "info"];
        Severities(names.map(str::to_owned))
    }
}

impl Severities {
    /// The severity of a priority.
    pub fn of(&self, priority: Priority) -> &str {
        &self.0[priority as usize]
    }
}

/// A Grafana Loki, or another server with its push API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loki {
    /// URL of the push API, headers, credentials and TLS.
    pub http: Http,
    /// Value of the header `X-Scope-OrgID`.
    pub tenant: Option<String>,
    /// The label `job`.
    pub job: String,
    /// Format of the lines.
    pub format: Format,
}

impl Default for Loki {
    fn default() -> Self {
        Loki {
            http: Http { gzip: true, ..Http::default() },
            tenant: None,
            job: "pullwatch".to_owned(),
            format: Format::Text,
        }
    }
}

/// Content of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// One alert (`application/json`), in the form that falcosidekick expects.
    #[default]
    Alert,
    /// A JSON array of alerts (`application/json`).
    Array {
        /// Maximum number of alerts.
        alerts: usize,
        /// Maximum size in bytes before compression; a single alert may exceed it.
        bytes: usize,
    },
    /// One alert per line (`application/x-ndjson`).
    Lines {
        /// Maximum number of alerts.
        alerts: usize,
        /// Maximum size in bytes before compression; a single alert may exceed it.
        bytes: usize,
    },
    /// One alert in a template.
    Template(Box<Template>),
    /// A bulk request of Elasticsearch and OpenSearch.
    Bulk {
        /// Name of the data stream or index.
        data_stream: String,
        /// As above.
        alerts: usize,
        /// As above.
        bytes: usize,
    },
    /// Events for Splunk's HTTP Event Collector.
    Splunk {
        /// Name of the index; the token's default if `None`.
        index: Option<String>,
        /// Source of the events.
        source: String,
        /// Source type of the events.
        sourcetype: String,
        /// Host of the events; the host name of the machine if `None`.
        host: Option<String>,
        /// Whether to wait for acknowledgements from the indexer.
        ack: bool,
        /// As above.
        alerts: usize,
        /// As above.
        bytes: usize,
    },
    /// Log records of the OpenTelemetry protocol.
    Otlp {
        /// As above.
        alerts: usize,
        /// As above.
        bytes: usize,
    },
}

impl Body {
    /// Whether the response body contains the results for the individual alerts of a request.
    pub(crate) fn has_results(&self) -> bool {
        matches!(self, Body::Bulk { .. } | Body::Splunk { ack: true, .. } | Body::Otlp { .. })
    }

    /// Maximum number of alerts, and maximum size in bytes.
    pub fn batch(&self) -> (usize, usize) {
        match self {
            Body::Alert | Body::Template(_) => (1, usize::MAX),
            Body::Array { alerts, bytes }
            | Body::Lines { alerts, bytes }
            | Body::Bulk { alerts, bytes, .. }
            | Body::Splunk { alerts, bytes, .. }
            | Body::Otlp { alerts, bytes } => (*alerts, *bytes),
        }
    }
}

/// TLS settings of a client. The server's certificate is always verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM file of trusted authorities, which replaces those of the system.
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate and its intermediate certificates. Requires `key`.
    pub certificate: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub key: Option<PathBuf>,
    /// Name that the server's certificate must have, if it differs from the host name of the connection. SNI uses the host name.
    pub server_name: Option<String>,
}

/// A syslog receiver (RFC 5424).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// Transport and address.
    pub transport: Transport,
    /// Facility of the messages.
    pub facility: Facility,
    /// APP-NAME of the messages.
    pub app_name: String,
    /// HOSTNAME of the messages; the host name of the machine if `None`.
    pub hostname: Option<String>,
    /// Format of the message; with [`Format::Text`], rule and output.
    pub format: Format,
    /// SD-ID of the structured data: a name, `@` and an IANA enterprise number. The default is the number for examples. No
    /// structured data if `None`.
    pub structured_data: Option<String>,
}

impl Default for Syslog {
    fn default() -> Self {
        Syslog {
            transport: Transport::Unix(PathBuf::from("/dev/log")),
            facility: Facility::AuthPriv,
            app_name: "pullwatch".to_owned(),
            hostname: None,
            format: Format::Falco,
            structured_data: Some("pullwatch@32473".to_owned()),
        }
    }
}

/// Transport to a syslog receiver.
///
/// Syslog has no acknowledgements. An alert counts as delivered once the kernel accepted it; it may be lost if the receiver or the
/// network fails after that. Use HTTP for guaranteed delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams (RFC 5426) to `host:port`.
    Udp(String),
    /// A stream (RFC 6587, octet counting) to `host:port`.
    Tcp(String),
    /// An encrypted stream (RFC 5425) to `host:port`.
    Tls(String, TlsSettings),
    /// The local socket, datagram or stream. On a stream, each message ends with a line break.
    Unix(PathBuf),
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
    /// All facilities, in the order of their numbers.
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

    /// Parses a name; case is ignored.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, name)| name.eq_ignore_ascii_case(word)).map(|(facility, _)| facility)
    }

    /// The number, from 0 to 23.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|(facility, _)| *facility == self).unwrap_or_default()
    }
}

/// Exponential backoff with full jitter: the delay is random, up to a limit that doubles with each failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Limit after the first failure.
    pub initial: Duration,
    /// Maximum to which the limit grows.
    pub max: Duration,
    /// Maximum delay that a receiver can request with `Retry-After`.
    pub max_retry_after: Duration,
    /// Alerts stored longer ago than this are sent to the dead-letter file instead.
    pub max_age: Option<Duration>,
    /// Number of alerts that the receiver may reject in a row before the sink pauses; with 0, it never pauses.
    pub max_refusals: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            initial: Duration::from_millis(500),
            max: Duration::from_secs(60),
            max_retry_after: Duration::from_secs(300),
            max_age: None,
            max_refusals: 10,
        }
    }
}

/// A file of undeliverable alerts, one JSON object per line: `reason`, `detail`, `time`, `sink`, `alert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Path of the file, which is created with mode 0600. `run` resolves a relative path in the state directory.
    pub path: PathBuf,
    /// Maximum size in bytes. Alerts that do not fit are counted and dropped.
    pub max_bytes: u64,
}

impl Default for DeadLetter {
    /// 100 MiB in the state directory, shared by all sinks.
    fn default() -> Self {
        DeadLetter { path: PathBuf::from("dead-letters.jsonl"), max_bytes: 100 << 20 }
    }
}

/// Settings for a Kafka topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// Brokers and client properties.
    pub cluster: Cluster,
    /// Name of the topic.
    pub topic: String,
    /// Key of the records. Records of one key stay in order.
    pub key: Key,
    /// Compression of the records.
    pub compression: Compression,
    /// Format of the records.
    pub format: Format,
}

/// Key of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// The actor: alerts of one actor stay in order.
    #[default]
    Actor,
    /// The alert's id.
    Id,
    /// Name of the rule.
    Rule,
    /// No key: records go to any partition.
    None,
}

/// Compression of records.
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
    /// All values, with their names.
    pub const ALL: [(&str, Compression); 5] = [
        ("none", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).map_or("none", |(name, _)| name)
    }
}
