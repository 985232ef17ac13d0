//! The configuration file of `pullwatch run`.
//!
//! Takes the text of a YAML file and returns a [`Config`] with all defaults filled in, or diagnostics with positions. Every key is
//! optional, so an empty file is valid. [`keys`] documents all keys, and `samples/pullwatch.yaml` is a complete example. Values may refer
//! to environment variables (`${NAME}`, `${NAME:-default}`). Secrets belong in the environment, or in files named by keys that end in
//! `_file`, not in this file.

pub mod check;
mod finding;
pub mod keys;
mod overlap;
mod read;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use finding::Finding;
pub use read::{read, read_offline};

use crate::daemon::sink::{DeadLetter, SinkConfig};
use crate::daemon::source::kafka;
use crate::detection::alert::Priority;
use crate::detection::detector::LogContext;
use crate::detection::networks::Networks;
use crate::detection::rules::Matching;
use crate::detection::shorten::Limits;

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Platform default if `None`.
    pub state_dir: Option<PathBuf>,
    /// Rule files and directories; if empty, `./rules.d` or else the built-in rules.
    pub rules: Vec<PathBuf>,
    /// Inventory files, in addition to the imported inventory.
    pub inventory: Vec<PathBuf>,
    /// The networks of the cluster.
    pub networks: Networks,
    /// Key `rule_matching`.
    pub matching: Matching,
    /// Minimum rule priority; lower-priority rules are disabled.
    pub priority: Priority,
    /// In bytes. Of longer lines only the first part is evaluated.
    pub max_event_size: usize,
    /// Static labels of all alerts, as names and values.
    pub labels: Vec<(String, String)>,
    /// Keys `max_string` and `max_alert`.
    pub limits: Limits,
    /// What metrics contain.
    pub metrics: Metrics,
    pub sources: Vec<Source>,
    pub sinks: Vec<SinkConfig>,
    /// `None` if disabled (`server: false`).
    pub server: Option<Server>,
    pub store: Store,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            state_dir: None,
            rules: Vec::new(),
            inventory: Vec::new(),
            networks: Networks::default(),
            matching: Matching::All,
            priority: Priority::Debug,
            max_event_size: 64 << 20,
            labels: Vec::new(),
            limits: Limits::default(),
            sources: vec![Source {
                name: "audit".to_owned(),
                log: LogContext::default(),
                kind: SourceKind::File(FileSource::default()),
            }],
            metrics: Metrics::default(),
            sinks: vec![SinkConfig { dead_letter: Some(DeadLetter::default()), ..SinkConfig::default() }],
            server: Some(Server::default()),
            store: Store::default(),
        }
    }
}

/// What metrics contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Whether names of users and credentials may be label values.
    pub identities: bool,
    /// Whether all metrics have the static labels.
    pub labels: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { identities: true, labels: false }
    }
}

/// A source of audit events.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Unique. Identifies the position in the store, and the series in metrics.
    pub name: String,
    pub log: LogContext,
    /// Key `type`.
    pub kind: SourceKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// Log files.
    File(FileSource),
    /// The apiserver's audit webhook.
    Webhook(WebhookSource),
    /// A member of a Kafka consumer group.
    Kafka(kafka::Settings),
    /// Standard input.
    Stdin,
}

/// Well-known paths of the apiserver's audit log; the first existing one is the default.
pub const WELL_KNOWN_PATHS: [&str; 12] = [
    "/var/log/kubernetes/audit/audit.log",
    "/var/log/kubernetes/audit.log",
    "/var/log/kube-apiserver/audit.log",
    // Paths from the documentation of kind and minikube.
    "/var/log/kubernetes/kube-apiserver-audit.log",
    // Clusters on GCE by kube-up.
    "/var/log/kube-apiserver-audit.log",
    "/var/log/audit/kube/audit.log",
    // Talos.
    "/var/log/audit/kube/kube-apiserver.log",
    "/var/lib/rancher/rke2/server/logs/audit.log",
    "/var/lib/rancher/k3s/server/logs/audit.log",
    // Guides of k0s.
    "/var/log/k0s/audit.log",
    // Guides of MicroK8s.
    "/var/log/apiserver/audit.log",
    "/var/snap/microk8s/common/var/log/audit.log",
];

/// Settings of a file source.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSource {
    /// Log files or glob patterns; if empty, the first existing one of [`WELL_KNOWN_PATHS`].
    pub paths: Vec<String>,
    /// Key `start_at`: where to start in new logs.
    pub from_end: bool,
    /// Polling interval for changes that are not notified.
    pub poll: Duration,
}

impl Default for FileSource {
    fn default() -> Self {
        FileSource { paths: Vec::new(), from_end: false, poll: Duration::from_secs(1) }
    }
}

/// Settings of a webhook source.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookSource {
    pub listen: SocketAddr,
    /// Path of the URL; requests for other paths are rejected.
    pub path: String,
    /// If `None`, traffic is unencrypted.
    pub tls: Option<ServerTls>,
    /// File with the bearer token that the apiserver must send.
    pub token_file: Option<PathBuf>,
    /// In bytes.
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

/// TLS settings of a listener. Files are reloaded when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// PEM file with the certificate chain.
    pub certificate: PathBuf,
    /// PEM file.
    pub key: PathBuf,
    /// PEM file; if set, clients must present a certificate issued by one of these authorities.
    pub client_ca: Option<PathBuf>,
}

/// Settings of the HTTP server.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub listen: SocketAddr,
    /// Host names accepted without a token, in addition to addresses and `localhost`; `*.` matches any subdomain.
    pub hosts: Vec<String>,
    /// File with the bearer token that clients must send.
    pub token_file: Option<PathBuf>,
    /// Plain HTTP if `None`.
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

/// Retention of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// Maximum time since an alert was stored.
    pub max_age: Duration,
    /// Maximum size in bytes; the oldest alerts are deleted first.
    pub max_size: u64,
}

impl Default for Store {
    fn default() -> Self {
        Store { max_age: Duration::from_secs(30 * 86_400), max_size: 1 << 30 }
    }
}
