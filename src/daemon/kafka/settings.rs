//! How to reach a cluster.

use std::path::PathBuf;

use crate::daemon::secret::Secret;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Bootstrap brokers, as `host:port`.
    pub brokers: Vec<String>,
    /// librdkafka properties that are passed through.
    pub properties: Vec<(String, Secret)>,
    /// A file with a token for SASL OAUTHBEARER, read again before the token expires.
    pub oauth_token_file: Option<PathBuf>,
}

/// The role of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Consumer,
    Producer,
}

/// Properties that cannot be configured, for which role (`None`: both), and why not.
pub const RESERVED_PROPERTIES: &[(&str, Option<Role>, &str)] = &[
    ("bootstrap.servers", None, "it is the key `brokers`"),
    ("metadata.broker.list", None, "it is the key `brokers`"),
    ("statistics.interval.ms", None, "pullwatch sets it for its metrics"),
    ("log.queue", None, "pullwatch reads librdkafka's log itself"),
    (
        "sasl.oauthbearer.method",
        None,
        "this build fetches no tokens over HTTP; have them written to a file, and name it with `oauth_token_file`",
    ),
    ("group.id", None, "it is the key `group` of a source"),
    ("group.instance.id", None, "it is the key `instance_id` of a source"),
    ("auto.offset.reset", None, "it is the key `start_at` of a source"),
    ("enable.auto.commit", None, "offsets are committed when the alerts are safe, see `commit`"),
    ("auto.commit.enable", None, "offsets are committed when the alerts are safe, see `commit`"),
    ("auto.commit.interval.ms", None, "offsets are committed when the alerts are safe, see `commit`"),
    ("enable.auto.offset.store", None, "offsets are committed when the alerts are safe, see `commit`"),
    ("enable.partition.eof", Some(Role::Consumer), "pullwatch has no use for it"),
    ("transactional.id", None, "pullwatch sets it where a source says `exactly_once: true`"),
    ("enable.idempotence", Some(Role::Producer), "it is always on, so that a retry repeats nothing"),
    (
        "acks",
        Some(Role::Producer),
        "it is always `all`: an alert counts as delivered when no one broker can lose it",
    ),
    ("request.required.acks", Some(Role::Producer), "it is always `all`"),
    ("compression.type", Some(Role::Producer), "it is the key `compression`"),
    ("compression.codec", Some(Role::Producer), "it is the key `compression`"),
    ("message.timeout.ms", Some(Role::Producer), "it is the key `timeout`"),
    ("delivery.timeout.ms", Some(Role::Producer), "it is the key `timeout`"),
];

/// Why a property cannot be configured; `None` if it can.
pub fn reserved(property: &str, role: Role) -> Option<&'static str> {
    let is_meant = |whom: &Option<Role>| whom.is_none_or(|whom| whom == role);
    RESERVED_PROPERTIES
        .iter()
        .find(|(name, whom, _)| *name == property && is_meant(whom))
        .map(|(_, _, why)| *why)
}
