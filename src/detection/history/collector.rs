//! From alerts to reads: which rules matched one event.

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

/// The rule files with ours around them.
pub fn around(files: Vec<SourceFile>) -> Vec<SourceFile> {
    let own = |name: &str, text: &str| SourceFile { name: name.into(), text: text.to_owned() };
    let mut all = vec![own("history/opening.yaml", OPENING)];
    all.extend(files);
    all.push(own("history/closing.yaml", CLOSING));
    all
}

/// One event about registry credentials.
#[derive(Debug)]
pub struct Read<'a> {
    /// Who.
    pub reader: Reader,
    /// The address of the peer.
    pub client: Option<String>,
    /// The client's own words.
    pub agent: Option<String>,
    /// get, list, watch …
    pub verb: String,
    /// Of the request.
    pub namespace: Option<String>,
    /// Of the request.
    pub name: Option<String>,
    /// Nanoseconds since 1970, where the event says.
    pub time: Option<i64>,
    /// ReadTarget was handed over.
    pub exposure: Cow<'a, Exposure>,
    /// The rules about reads that matched it, by their index in the rule set.
    pub rules: Cow<'a, [usize]>,
    /// The worst of them.
    pub highest_priority: Option<Priority>,
}

/// Puts together the alerts of one event.
#[derive(Debug)]
pub struct Collector {
    opening: Option<usize>,
    closing: Option<usize>,
    /// By rule: whether an alert of it is about one read.
    per_reader: Vec<bool>,
    is_open: bool,
    rules: Vec<usize>,
    highest_priority: Option<Priority>,
}

impl Collector {
    /// For alerts of these rules, which were loaded from files with ours [`around`] them.
    ///
    /// From the rules it takes throttles, so that each read is heard of, and correlations, which say nothing of one read.
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

    /// Takes alerts in their order, and hands on each event about credentials once it is complete.
    pub fn add_alert(&mut self, alert: &Alert<'_>, take: &mut dyn FnMut(&Read<'_>)) {
        let rule = alert.rule();
        if Some(rule) == self.opening {
            self.is_open = true;
            self.rules.clear();
            self.highest_priority = None;
        } else if Some(rule) == self.closing {
            if std::mem::take(&mut self.is_open) {
                take(&Read {
                    rules: Cow::Borrowed(&self.rules),
                    highest_priority: self.highest_priority,
                    ..Read::of(alert)
                });
            }
        } else if self.is_open && self.per_reader.get(rule).copied().unwrap_or(false) {
            self.rules.push(rule);
            self.highest_priority = Some(higher_priority(self.highest_priority, alert.priority()));
        }
    }
}

/// The worse one, which is the lesser.
pub(super) fn higher_priority(known: Option<Priority>, other: Priority) -> Priority {
    known.map_or(other, |known| known.min(other))
}

impl<'a> Read<'a> {
    /// ReadTarget an alert says of its event, without the rules that matched it.
    pub(super) fn of(alert: &'a Alert<'_>) -> Self {
        Read {
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

/// A rule that is told once for all readers together says something of the log or the cluster.
pub(super) fn is_per_reader(rule: &Rule) -> bool {
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
    fn our_rules_load_around_others() {
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
        assert_eq!(not_about_reads, ["Secret Data Logged In Audit Log"]);
    }
}
