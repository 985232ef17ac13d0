//! Position, alerts and state in one SQLite file, in one transaction a batch.
//!
//! A kill at any instant leaves all of a batch or nothing of it: what a source handed on, what was learned from it and what
//! it made alert. So nothing is lost, and nothing is there twice.

use crate::rules::ast::Priority;

/// An alert's identity: equal ones are one alert.
pub type AlertId = [u8; 16];

/// An alert as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAlert {
    /// Its place among all alerts that were ever stored, from 1, without gaps being reused.
    pub seq: i64,
    /// The same for the same event and rule.
    pub id: AlertId,
    /// When it happened, in nanoseconds since 1970; 0 where the event does not say.
    pub time: i64,
    /// When it was stored, in nanoseconds since 1970.
    pub stored: i64,
    /// The rule's name.
    pub rule: String,
    /// How bad it is.
    pub priority: Priority,
    /// Who did it.
    pub actor: String,
    /// To what.
    pub target: String,
    /// One line of JSON, without its end. Redacted.
    pub json: Vec<u8>,
    /// The rule's output, redacted, not escaped for anything.
    pub message: String,
}

/// An alert to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAlert {
    /// See [`StoredAlert::id`]. One that is there already is not stored again.
    pub id: AlertId,
    /// See [`StoredAlert::time`].
    pub time: i64,
    /// The rule's name.
    pub rule: String,
    /// How bad it is.
    pub priority: Priority,
    /// Who did it.
    pub actor: String,
    /// To what.
    pub target: String,
    /// One line of JSON, without its end.
    pub json: Vec<u8>,
    /// The rule's output.
    pub message: String,
}

/// A change of something that is kept by kind and key: what was learned, windows, throttles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// `secret`, `pod`, `role`, `window` …
    pub kind: &'static str,
    /// What it is about.
    pub key: Vec<u8>,
    /// Its new value; nothing where it is forgotten.
    pub value: Option<Vec<u8>>,
}
