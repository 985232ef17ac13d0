//! The configuration file of `pullwatch run`: what it may say, and what holds where it says nothing.
//!
//! Everything has a default, so that no file at all is a configuration too. `samples/pullwatch.yaml` is a complete one, with each
//! key explained; a test reads it. Values may name environment variables (`${NAME}`, `${NAME:-default}`). Secrets stand in
//! files or in the environment, never here: a key ends in `_file` where its value is one.

mod read;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use read::{Read, read};

use crate::daemon::sink::{DeadLetter, SinkConfig};
use crate::daemon::source::kafka;
use crate::detection::alert::Priority;
use crate::detection::rules::Matching;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `state_dir`: where position, alerts and what was learned are kept. Nothing for the default of the platform.
    pub state_dir: Option<PathBuf>,
    /// `rules`: rule files and directories of them; none for `./rules.d`, else the shipped rules.
    pub rules: Vec<PathBuf>,
    /// `rule_matching`: `all` or `first`.
    pub matching: Matching,
    /// `priority`: rules less bad than this are left out.
    pub priority: Priority,
    /// `max_event_size`: of a longer line only the head is judged, in bytes.
    pub max_event_size: usize,
    /// `sources`.
    pub sources: Vec<Source>,
    /// `sinks`.
    pub sinks: Vec<SinkConfig>,
    /// `server`: metrics, health, alerts. Nothing where it is turned off.
    pub server: Option<Server>,
    /// `store`.
    pub store: Store,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            state_dir: None,
            rules: Vec::new(),
            matching: Matching::All,
            priority: Priority::Debug,
            max_event_size: 64 << 20,
            sources: vec![Source { name: "audit".to_owned(), kind: SourceKind::File(FileSource::default()) }],
            sinks: vec![SinkConfig { dead_letter: Some(DeadLetter::default()), ..SinkConfig::default() }],
            server: Some(Server::default()),
            store: Store::default(),
        }
    }
}

/// Where audit events come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// `name`: for metrics, and for the position in the store. Unique.
    pub name: String,
    /// `type`.
    pub kind: SourceKind,
}

/// What a source is.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// `file`: logs on the disk.
    File(FileSource),
    /// `webhook`: the apiserver's audit webhook.
    Webhook(WebhookSource),
    /// `kafka`: a member of a consumer group.
    Kafka(kafka::Settings),
    /// `stdin`: standard input.
    Stdin,
}

/// The usual places of the apiserver's audit log, the first that is there counts.
pub const USUAL_PATHS: [&str; 4] = [
    "/var/log/kubernetes/audit/audit.log",
    "/var/log/kubernetes/audit.log",
    "/var/log/kube-apiserver/audit.log",
    "/var/log/audit/kube/audit.log",
];

/// Logs on the disk.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSource {
    /// `paths`: names of logs, or patterns. None: the usual place.
    pub paths: Vec<String>,
    /// `start_at`: `beginning` or `end`, of logs that were never seen.
    pub from_end: bool,
    /// `poll`: how often to look where the kernel does not tell of changes.
    pub poll: Duration,
}

impl Default for FileSource {
    fn default() -> Self {
        FileSource { paths: Vec::new(), from_end: false, poll: Duration::from_secs(1) }
    }
}

/// The apiserver's audit webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookSource {
    /// `listen`.
    pub listen: SocketAddr,
    /// `path`: requests for others are refused.
    pub path: String,
    /// `tls`; without it the apiserver's batches, and what they hold, go over the wire in clear.
    pub tls: Option<ServerTls>,
    /// `token_file`: the bearer token that the apiserver must send.
    pub token_file: Option<PathBuf>,
    /// `max_body`: in bytes.
    pub max_body: usize,
}

impl Default for WebhookSource {
    fn default() -> Self {
        WebhookSource {
            listen: SocketAddr::from(([127, 0, 0, 1], 9443)),
            path: "/".to_owned(),
            tls: None,
            token_file: None,
            max_body: 64 << 20,
        }
    }
}

/// Certificates of a server, read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// `certificate`: a PEM file with the certificate and what leads to its root.
    pub certificate: PathBuf,
    /// `key`: a PEM file.
    pub key: PathBuf,
    /// `client_ca`: a PEM file; clients need a certificate of one of these.
    pub client_ca: Option<PathBuf>,
}

/// Metrics, health and alerts over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// `listen`.
    pub listen: SocketAddr,
    /// `hosts`: names in the `Host` header that are accepted without a token, besides addresses and `localhost`; `*.` stands for
    /// any subdomain.
    pub hosts: Vec<String>,
    /// `token_file`: a bearer token that is asked for.
    pub token_file: Option<PathBuf>,
    /// `tls`.
    pub tls: Option<ServerTls>,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: SocketAddr::from(([127, 0, 0, 1], 9417)),
            hosts: Vec::new(),
            token_file: None,
            tls: None,
        }
    }
}

/// How much is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// `max_age`: older alerts go.
    pub max_age: Duration,
    /// `max_size`: of the store, in bytes; the oldest alerts go first.
    pub max_size: u64,
}

impl Default for Store {
    fn default() -> Self {
        Store { max_age: Duration::from_secs(30 * 86_400), max_size: 1 << 30 }
    }
}
