//! Determines which actors and credentials have their own time series.
//!
//! Names come from events, so an attacker can invent them. The first [`MAX_SERIES`] combinations of label values get a series each; all
//! others share one. A series is never removed: a counter that is reset would hide an increase.

use std::collections::HashSet;

use crate::detection::registry::ExposureKind;

/// Maximum number of series per metric, in addition to the shared one.
pub const MAX_SERIES: usize = 1000;

/// Label value of the shared series.
pub(super) const REST: &str = "_other_";

/// Maximum length of a user name as a label value, in bytes: that of a service account with the longest names.
const MAX_ACTOR_LEN: usize = 530;

/// Maximum length of a Kubernetes object name, in bytes.
const MAX_NAME_LEN: usize = 253;

/// Verbs that may be label values. A client can send others.
const VERBS: [&str; 9] =
    ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "connect"];

/// The exposure of an event, as recorded in metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exposed {
    pub(crate) actor: String,
    pub(crate) kind: ExposureKind,
    pub(crate) verb: String,
    /// As `namespace/name`.
    pub(crate) secrets: Vec<String>,
}

impl Exposed {
    /// Size in memory, in bytes.
    pub(crate) fn size(&self) -> usize {
        let secrets = self.secrets.iter().map(|secret| size_of::<String>() + secret.len());
        size_of::<Self>() + self.actor.len() + self.verb.len() + secrets.sum::<usize>()
    }
}

/// The combinations of label values that have a series.
#[derive(Debug, Default)]
pub(super) struct Identities {
    credentials: HashSet<[String; 4]>,
    actors: HashSet<[String; 3]>,
}

impl Identities {
    /// Returns the labels `namespace`, `secret`, `exposure` and `verb` of a series.
    pub(super) fn credential(&mut self, secret: &str, exposed: &Exposed) -> [String; 4] {
        let (namespace, name) = secret.split_once('/').unwrap_or(("", secret));
        let labels = [
            label_value(namespace, MAX_NAME_LEN),
            label_value(name, MAX_NAME_LEN),
            exposed.kind.name().to_owned(),
            verb(&exposed.verb).to_owned(),
        ];
        series(&mut self.credentials, labels)
    }

    /// Returns the labels `actor`, `exposure` and `verb` of a series.
    pub(super) fn actor(&mut self, exposed: &Exposed) -> [String; 3] {
        let labels = [
            label_value(&exposed.actor, MAX_ACTOR_LEN),
            exposed.kind.name().to_owned(),
            verb(&exposed.verb).to_owned(),
        ];
        series(&mut self.actors, labels)
    }
}

fn series<const N: usize>(known: &mut HashSet<[String; N]>, labels: [String; N]) -> [String; N] {
    if known.contains(&labels) {
        return labels;
    }
    if known.len() >= MAX_SERIES {
        return std::array::from_fn(|_| REST.to_owned());
    }
    known.insert(labels.clone());
    labels
}

fn verb(verb: &str) -> &'static str {
    VERBS.into_iter().find(|known| *known == verb).unwrap_or("other")
}

/// Returns a label value for a name from an event, which an attacker may choose freely: without control characters, and with bounded
/// length.
pub(super) fn label_value(name: &str, max_len: usize) -> String {
    let mut value = String::new();
    for letter in name.chars().filter(|letter| !letter.is_control()) {
        if value.len() + letter.len_utf8() > max_len {
            break;
        }
        value.push(letter);
    }
    value
}
