//! The vocabulary of alerts: priority, identity and the record that is stored and delivered.
//!
//! Rules, correlations, store, sinks and server share these types, so none of them depends on another for it. Everything here
//! is redacted already; an audit event or a rule must never enter.

use std::fmt;

/// Priority of a rule and its alerts, most severe first (the severities of syslog, spelled as in the rule language).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Priority {
    Emergency,
    Alert,
    Critical,
    Error,
    Warning,
    Notice,
    Informational,
    Debug,
}

impl Priority {
    /// All priorities, most severe first.
    pub const ALL: [Priority; 8] = [
        Priority::Emergency,
        Priority::Alert,
        Priority::Critical,
        Priority::Error,
        Priority::Warning,
        Priority::Notice,
        Priority::Informational,
        Priority::Debug,
    ];

    /// The name as alerts print it.
    pub const fn name(self) -> &'static str {
        match self {
            Priority::Emergency => "Emergency",
            Priority::Alert => "Alert",
            Priority::Critical => "Critical",
            Priority::Error => "Error",
            Priority::Warning => "Warning",
            Priority::Notice => "Notice",
            Priority::Informational => "Informational",
            Priority::Debug => "Debug",
        }
    }

    /// Parses a priority, ignoring case. `INFO` means `Informational`; there is no other abbreviation.
    pub fn parse(word: &str) -> Option<Self> {
        if word.eq_ignore_ascii_case("info") {
            return Some(Priority::Informational);
        }
        Self::ALL.into_iter().find(|priority| priority.name().eq_ignore_ascii_case(word))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Identity of an alert: the same event and rule give the same id, wherever and however often the event is read. Printed as
/// 32 hexadecimal digits.
pub type AlertId = [u8; 16];

/// Appends bytes as hexadecimal digits, in lower case.
pub fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for &byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// Name of the member that holds the redacted event, in alerts of rules for which a sink selects events. The member is stored and served; a
/// sink delivers either the event, or the alert without it.
pub const AUDIT_EVENT: &str = "audit_event";

/// Names of members that the JSON of an alert may have at its top level or in `output_fields`, and that a static label must not have. A
/// label `cluster` is the name of the cluster if the log does not contain one.
pub const RESERVED_MEMBERS: [&str; 26] = [
    "acknowledged",
    "actor",
    "audit_event",
    "correlation",
    "credential",
    "event",
    "exposure",
    "hostname",
    "id",
    "namespace",
    "output",
    "output_fields",
    "priority",
    "registry",
    "registry_host",
    "rule",
    "rule_set",
    "seq",
    "shortened",
    "source",
    "stored",
    "tags",
    "throttled",
    "time",
    "time_source",
    "verb",
];

/// An alert that has not been stored yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAlert {
    /// An alert whose id is already stored is not stored again.
    pub id: AlertId,
    /// Time of the event, in nanoseconds since 1970; 0 if the event has none.
    pub time: i64,
    /// Name of the rule.
    pub rule: String,
    /// Priority of the rule.
    pub priority: Priority,
    /// User of the request, and the impersonated user if there is one.
    pub actor: String,
    /// Resource, namespace and name of the request's object.
    pub target: String,
    /// The alert as one line of JSON, without the line break.
    pub json: Vec<u8>,
    /// Output of the rule. It may contain any text that a client can send, so escape it for the format it is written in.
    pub message: String,
}

/// An alert as it is stored, delivered and served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAlert {
    /// Sequence number, starting at 1 and never reused.
    pub seq: i64,
    /// See [`NewAlert::id`].
    pub id: AlertId,
    /// Time of the event, in nanoseconds since 1970; 0 if the event has none.
    pub time: i64,
    /// When the alert was stored, in nanoseconds since 1970.
    pub stored: i64,
    /// Name of the rule.
    pub rule: String,
    /// Priority of the rule.
    pub priority: Priority,
    /// See [`NewAlert::actor`].
    pub actor: String,
    /// See [`NewAlert::target`].
    pub target: String,
    /// See [`NewAlert::json`].
    pub json: Vec<u8>,
    /// See [`NewAlert::message`].
    pub message: String,
}
