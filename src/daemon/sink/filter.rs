//! Selects the alerts of a sink, by priority and rule name, and whether it delivers the alerts or the events in them.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;

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
    /// Whether the configuration has no list of rules to include.
    includes_all_rules: bool,
    include: NamePatterns,
    exclude: NamePatterns,
    /// The rules whose events are delivered; `None` if alerts are delivered.
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
        // `Emergency`, the highest priority, is the lowest value.
        alert.priority <= self.min_priority
            && (self.includes_all_rules || self.include.matches(&alert.rule))
            && !self.exclude.matches(&alert.rule)
            && self.events.as_ref().is_none_or(|rules| rules.matches(&alert.rule))
    }

    /// Returns what to deliver for matching alerts.
    pub(crate) fn content<'a>(&self, alerts: &'a [StoredAlert]) -> Cow<'a, [StoredAlert]> {
        let content: fn(&StoredAlert) -> Vec<u8> = match self.events {
            Some(_) => event_of,
            None if alerts.iter().any(may_contain_event) => without_event,
            None => return Cow::Borrowed(alerts),
        };
        alerts.iter().map(|alert| StoredAlert { json: content(alert), ..alert.clone() }).collect()
    }
}

/// Whether an alert may contain an event. Text that looks like the member may also occur inside a string, or deeper inside.
fn may_contain_event(alert: &StoredAlert) -> bool {
    static MEMBER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(AUDIT_EVENT));
    MEMBER.find(&alert.json).is_some()
}

/// The event of an alert, with a member `pullwatch` that identifies the alert. If the alert does not contain its event (it was stored
/// before a sink requested events, or the event was too long and omitted), the event is rebuilt from the alert's members and marked as
/// shortened.
fn event_of(alert: &StoredAlert) -> Vec<u8> {
    let [event, summary, shortened] = Raw::assume(&alert.json).get_all([AUDIT_EVENT, "event", "shortened"]);
    let is_shortened = event.is_none() || shortened.is_some_and(|value| value.bytes() == b"true");
    let form: &[u8] = if event.is_none() { br#""kind":"Event","apiVersion":"audit.k8s.io/v1""# } else { b"" };
    let members = event.or(summary).map_or(&b""[..], Raw::bytes);
    let members = members.strip_prefix(b"{").and_then(|members| members.strip_suffix(b"}"));
    let mut origin = b"\"pullwatch\":{\"rule\":".to_vec();
    push_json_string(alert.rule.as_bytes(), &mut origin);
    origin.extend_from_slice(b",\"alert_id\":\"");
    push_hex(&alert.id, &mut origin);
    origin.extend_from_slice(if is_shortened { b"\",\"shortened\":true}" } else { b"\"}" });
    object([form, members.unwrap_or_default(), &origin])
}

/// The JSON of an alert without the event.
fn without_event(alert: &StoredAlert) -> Vec<u8> {
    let members = Raw::assume(&alert.json).members().map_while(Result::ok);
    let others = members.filter(|(key, _)| !key.is(AUDIT_EVENT)).map(|(key, value)| {
        let mut member = Vec::with_capacity(value.bytes().len() + 32);
        push_json_string(&key.text(), &mut member);
        member.push(b':');
        member.extend_from_slice(value.bytes());
        member
    });
    object(others)
}

/// An object with these members; those without a string are omitted.
fn object<T: AsRef<[u8]>>(members: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut out = vec![b'{'];
    for member in members {
        let member = member.as_ref();
        if out.len() > 1 && !member.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(member);
    }
    out.push(b'}');
    out
}

fn compile(patterns: &[String]) -> Result<NamePatterns, SettingsError> {
    let names = NamePatterns::new(patterns.iter().map(String::as_str));
    names.map_err(|error| SettingsError::Pattern { pattern: error.pattern, reason: error.reason })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::daemon::sink::tests::alert;

    fn content(events: &[&str], json: &Value) -> Value {
        let events = events.iter().map(|rule| (*rule).to_owned()).collect();
        let filter = Filter::new(&SinkConfig { events, ..SinkConfig::default() }).unwrap();
        let stored = StoredAlert { json: json.to_string().into(), ..alert(1) };
        assert!(filter.matches(&stored));
        serde_json::from_slice(&filter.content(&[stored])[0].json).unwrap()
    }

    #[test]
    fn an_alert_is_delivered_without_its_event() {
        for text in ["x", AUDIT_EVENT] {
            let json = json!({"rule": text, "event": {"verb": "get"}, "audit_event": {"kind": "Event", "audit_event": 1}, "shortened": true});
            assert_eq!(
                content(&[], &json),
                json!({"rule": text, "event": {"verb": "get"}, "shortened": true})
            );
        }
        assert_eq!(content(&[], &json!({"audit_event": {}})), json!({}));
    }

    #[test]
    fn an_event_that_was_left_out_is_delivered_by_its_summary() {
        let mut id = Vec::new();
        push_hex(&alert(1).id, &mut id);
        let id = String::from_utf8(id).unwrap();
        let origin = |shortened: bool| {
            let mut origin = json!({"rule": alert(1).rule, "alert_id": id});
            if shortened {
                origin["shortened"] = true.into();
            }
            origin
        };
        let whole = json!({"event": {"verb": "get"}, "audit_event": {"kind": "Event", "verb": "get"}});
        let expected = json!({"kind": "Event", "verb": "get", "pullwatch": origin(false)});
        assert_eq!(content(&["*"], &whole), expected);
        let shortened = json!({"audit_event": {"kind": "Event"}, "shortened": true});
        assert_eq!(content(&["*"], &shortened), json!({"kind": "Event", "pullwatch": origin(true)}));
        // Text that a client wrote is not mistaken for the member.
        let left_out = json!({"event": {"verb": "get", "userAgent": "audit_event"}});
        let expected = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "verb": "get", "userAgent": "audit_event", "pullwatch": origin(true)
        });
        assert_eq!(content(&["*"], &left_out), expected);
    }
}
