//! Connection settings of a Kafka cluster.

use std::path::PathBuf;

use crate::daemon::secret::Secret;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Bootstrap brokers, as `host:port`.
    pub brokers: Vec<String>,
    /// librdkafka properties that are passed through.
    pub properties: Vec<(String, Secret)>,
    /// A file with a SASL OAUTHBEARER token, read again before the token expires.
    pub oauth_token_file: Option<PathBuf>,
}

/// The role of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Consumer,
    Producer,
}

/// Properties that cannot be configured, with the role they are reserved for (`None`: both) and the reason.
pub const RESERVED_PROPERTIES: &[(&str, Option<Role>, &str)] = &[
    ("bootstrap.servers", None, "use the key `brokers`"),
    ("metadata.broker.list", None, "use the key `brokers`"),
    ("statistics.interval.ms", None, "set by pullwatch for its metrics"),
    ("log.queue", None, "set by pullwatch, which reads the log of librdkafka"),
    (
        "sasl.oauthbearer.method",
        None,
        "tokens are not fetched over HTTP: write them to a file, and set `oauth_token_file`",
    ),
    ("group.id", None, "use the key `group` of a source"),
    ("group.instance.id", None, "use the key `instance_id` of a source"),
    ("auto.offset.reset", None, "use the key `start_at` of a source"),
    ("enable.auto.commit", None, "offsets are committed when the alerts are safe, see `commit`"),
    ("auto.commit.enable", None, "offsets are committed when the alerts are safe, see `commit`"),
    ("auto.commit.interval.ms", None, "offsets are committed when the alerts are safe, see `commit`"),
    ("enable.auto.offset.store", None, "offsets are committed when the alerts are safe, see `commit`"),
    ("enable.partition.eof", Some(Role::Consumer), "set by pullwatch"),
    ("transactional.id", None, "set by pullwatch for sources with `exactly_once: true`"),
    ("enable.idempotence", Some(Role::Producer), "always enabled, so that a retry repeats nothing"),
    ("acks", Some(Role::Producer), "always `all`: a delivered alert survives the loss of a broker"),
    ("request.required.acks", Some(Role::Producer), "always `all`"),
    ("compression.type", Some(Role::Producer), "use the key `compression`"),
    ("compression.codec", Some(Role::Producer), "use the key `compression`"),
    ("message.timeout.ms", Some(Role::Producer), "use the key `timeout`"),
    ("delivery.timeout.ms", Some(Role::Producer), "use the key `timeout`"),
];

/// The reason why a property cannot be configured; `None` if it can.
pub fn reserved(property: &str, role: Role) -> Option<&'static str> {
    let is_meant = |roles: &Option<Role>| roles.is_none_or(|roles| roles == role);
    RESERVED_PROPERTIES
        .iter()
        .find(|(name, roles, _)| *name == property && is_meant(roles))
        .map(|(_, _, why)| *why)
}
