//! Collects the alerts of each event into one read.

use std::borrow::Cow;

use crate::detection::alert::Priority;
use crate::detection::engine::alert::Alert;
use crate::detection::registry::Exposure;
use crate::detection::rules::SourceFile;
use crate::detection::rules::ast::{Operand, Rule, RuleSet};

use super::Reader;

const OPENING: &str = include_str!("opening.yaml");
const OPENING_NAME: &str = "pullwatch history: event";
const CLOSING: &str = include_str!("closing.yaml");
const CLOSING_NAME: &str = "pullwatch history: end of event";

/// The rule files, surrounded by the two internal rules.
pub fn around(files: Vec<SourceFile>) -> Vec<SourceFile> {
    let own = |name: &str, text: &str| SourceFile { name: name.into(), text: text.to_owned() };
    let mut all = vec![own("history/opening.yaml", OPENING)];
    all.extend(files);
    all.push(own("history/closing.yaml", CLOSING));
    all
}

/// One event about registry credentials.
#[derive(Debug)]
pub struct CredentialRead<'a> {
    pub reader: Reader,
    /// Address of the peer.
    pub client: Option<String>,
    /// User agent.
    pub agent: Option<String>,
    pub verb: String,
    /// Namespace of the request.
    pub namespace: Option<String>,
    /// Name in the request.
    pub name: Option<String>,
    /// Nanoseconds since 1970-01-01T00:00:00Z; none if the event has no time.
    pub time: Option<i64>,
    /// What was handed over.
    pub exposure: Cow<'a, Exposure>,
    /// Indexes of the rules about reads that matched.
    pub rules: Cow<'a, [usize]>,
    /// The highest priority of these rules.
    pub highest_priority: Option<Priority>,
}

/// Collects the alerts of one event after the other.
#[derive(Debug)]
pub struct Collector {
    opening: Option<usize>,
    closing: Option<usize>,
    /// For each rule whether its alerts are about one reader.
    per_reader: Vec<bool>,
    is_open: bool,
    rules: Vec<usize>,
    highest_priority: Option<Priority>,
}

impl Collector {
    /// Creates a collector for the alerts of these rules, which must have been loaded together with the internal rules (see [`around`]).
    /// Removes throttles, so that every read is seen, and correlations, which are not about one read.
    pub fn new(rules: &mut RuleSet) -> Self {
        let find = |name: &str| rules.rules.iter().position(|rule| &*rule.name == name);
        let collector = Collector {
            opening: find(OPENING_NAME),
            closing: find(CLOSING_NAME),
            per_reader: rules.rules.iter().map(is_per_reader).collect(),
            is_open: false,
            rules: Vec::new(),
            highest_priority: None,
        };
        rules.correlations.clear();
        for rule in &mut rules.rules {
            rule.throttle = None;
        }
        collector
    }

    /// Adds an alert. Alerts have to be in order; `take` receives each event about credentials once it is complete.
    pub fn add_alert(&mut self, alert: &Alert<'_>, take: &mut dyn FnMut(&CredentialRead<'_>)) {
        let rule = alert.rule();
        if Some(rule) == self.opening {
            self.is_open = true;
            self.rules.clear();
            self.highest_priority = None;
        } else if Some(rule) == self.closing {
            if std::mem::take(&mut self.is_open) {
                take(&CredentialRead {
                    rules: Cow::Borrowed(&self.rules),
                    highest_priority: self.highest_priority,
                    ..CredentialRead::of(alert)
                });
            }
        } else if self.is_open && self.per_reader.get(rule).copied().unwrap_or(false) {
            self.rules.push(rule);
            self.highest_priority = Some(higher_priority(self.highest_priority, alert.priority()));
        }
    }
}

/// The higher of two priorities. Priorities are ordered from emergency to debug.
pub(super) fn higher_priority(known: Option<Priority>, other: Priority) -> Priority {
    known.map_or(other, |known| known.min(other))
}

impl<'a> CredentialRead<'a> {
    /// The part of an alert that describes its event, without the rules that matched.
    pub(super) fn of(alert: &'a Alert<'_>) -> Self {
        CredentialRead {
            reader: Reader { user: alert.user().unwrap_or_default(), impersonated: alert.impersonated() },
            client: alert.client(),
            agent: alert.agent(),
            verb: alert.verb().unwrap_or_default(),
            namespace: alert.namespace(),
            name: alert.name(),
            time: Some(alert.time()).filter(|&time| time != 0),
            exposure: Cow::Borrowed(alert.exposure()),
            rules: Cow::default(),
            highest_priority: None,
        }
    }
}

/// Shipped rules that report reads as expected. These reads need no exception.
const EXPECTED: [&str; 4] = [
    "Secrets Watched After Metadata List",
    "Registry Credential Read Again",
    "Secrets Listed Again",
    "Routine Secret Read",
];

/// A rule that is throttled across all readers reports something about the log or the cluster, not about a reader. Nor does one
/// that reports reads as expected report a reader.
pub(crate) fn is_per_reader(rule: &Rule) -> bool {
    if EXPECTED.contains(&&*rule.name) {
        return false;
    }
    let Some(throttle) = &rule.throttle else { return true };
    throttle.per.iter().any(|operand| match operand {
        Operand::Field(field) => {
            matches!(field.field.name, "audit.actor" | "ka.user.name" | "ka.impuser.name" | "audit.client")
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::rules::{Options, load};

    #[test]
    fn internal_rules_load_around_user_rules() {
        let mut loaded = load(&around(crate::shipped::files()), &Options::default());
        assert!(!loaded.has_errors());
        let collector = Collector::new(&mut loaded.rules);
        let rules = &loaded.rules.rules;
        assert_eq!(collector.opening, Some(0));
        assert_eq!(collector.closing, Some(rules.len() - 1));
        let not_about_reads: Vec<&str> = rules
            .iter()
            .zip(&collector.per_reader)
            .filter_map(|(rule, is_about)| (!is_about).then_some(&*rule.name))
            .collect();
        let mut expected = EXPECTED.to_vec();
        expected.extend(["Secret Data Logged In Audit Log", "Aggregated Role Gained Secret Read Access"]);
        assert!(not_about_reads.iter().all(|rule| expected.contains(rule)), "{not_about_reads:?}");
        assert_eq!(not_about_reads.len(), expected.len());
    }
}
