//! Selects the alerts of a sink, by priority and rule name, and what it delivers of them: alerts, or the events that they contain.

use std::borrow::Cow;

use super::config::SinkConfig;
use super::error::SettingsError;
use crate::detection::alert::{AUDIT_EVENT, Priority, StoredAlert, push_hex};
use crate::detection::audit::json::Raw;
use crate::text::escape::push_json_string;
use crate::text::name_patterns::NamePatterns;

/// The alerts that a sink delivers.
#[derive(Debug)]
pub(crate) struct Filter {
    min_priority: Priority,
    /// The configuration has no list of rules to include.
    includes_all_rules: bool,
    include: NamePatterns,
    exclude: NamePatterns,
    /// The rules whose events are delivered; `None` if alerts are.
    events: Option<NamePatterns>,
}

impl Filter {
    pub(crate) fn new(config: &SinkConfig) -> Result<Self, SettingsError> {
        Ok(Filter {
            min_priority: config.min_priority,
            includes_all_rules: config.include.is_empty(),
            include: compile(&config.include)?,
            exclude: compile(&config.exclude)?,
            events: if config.events.is_empty() { None } else { Some(compile(&config.events)?) },
        })
    }

    pub(crate) fn matches(&self, alert: &StoredAlert) -> bool {
        // `Emergency`, the highest priority, is the least value.
        alert.priority <= self.min_priority
            && (self.includes_all_rules || self.include.matches(&alert.rule))
            && !self.exclude.matches(&alert.rule)
            && self.events.as_ref().is_none_or(|rules| rules.matches(&alert.rule) && contains_event(alert))
    }

    /// Returns what is delivered of alerts that match.
    pub(crate) fn content<'a>(&self, alerts: &'a [StoredAlert]) -> Cow<'a, [StoredAlert]> {
        if self.events.is_none() && !alerts.iter().any(contains_event) {
            return Cow::Borrowed(alerts);
        }
        let content = |alert: &StoredAlert| {
            let json = if self.events.is_some() { event_of(alert) } else { without_event(alert) };
            StoredAlert { json: json.unwrap_or_else(|| alert.json.clone()), ..alert.clone() }
        };
        alerts.iter().map(content).collect()
    }
}

/// Whether an alert may contain an event: what looks like the member may be in a text, or further inside.
fn contains_event(alert: &StoredAlert) -> bool {
    memchr::memmem::find(&alert.json, AUDIT_EVENT.as_bytes()).is_some()
}

/// The event in an alert, with a member `pullwatch` that says which alert it belongs to.
fn event_of(alert: &StoredAlert) -> Option<Vec<u8>> {
    let event = Raw::assume(&alert.json).get(AUDIT_EVENT)?.bytes();
    let mut out = event.strip_suffix(b"}")?.to_vec();
    if out.len() > 1 {
        out.push(b',');
    }
    out.extend_from_slice(b"\"pullwatch\":{\"rule\":");
    push_json_string(alert.rule.as_bytes(), &mut out);
    out.extend_from_slice(b",\"alert_id\":\"");
    push_hex(&alert.id, &mut out);
    out.extend_from_slice(b"\"}}");
    Some(out)
}

/// The JSON of an alert without the event.
fn without_event(alert: &StoredAlert) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(alert.json.len());
    for (key, value) in Raw::assume(&alert.json).members().map_while(Result::ok) {
        if key.is(AUDIT_EVENT) {
            continue;
        }
        out.push(if out.is_empty() { b'{' } else { b',' });
        push_json_string(&key.text(), &mut out);
        out.push(b':');
        out.extend_from_slice(value.bytes());
    }
    out.push(b'}');
    (out.len() > 1).then_some(out)
}

fn compile(patterns: &[String]) -> Result<NamePatterns, SettingsError> {
    let names = NamePatterns::new(patterns.iter().map(String::as_str));
    names.map_err(|error| SettingsError::Pattern { pattern: error.pattern, reason: error.reason })
}
