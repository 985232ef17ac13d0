//! Bodies of HTTP requests from a template in JSON, and templates for chat and paging services.
//!
//! A template is JSON whose strings contain `%name` or `%{name:LIMIT}`. It is parsed before values are inserted, and serialized afterwards,
//! so no value can escape its string. Templates for services also neutralize the service's markup.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::view::View;
use crate::daemon::secret::Secret;
use crate::daemon::sink::fields::Fields;
use crate::detection::alert::{Priority, StoredAlert, push_hex};
use crate::detection::shorten;

/// A body for one alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    json: Value,
    markup: Markup,
    /// Additional names and their values, such as keys for a service.
    values: Vec<(String, Secret)>,
    /// The body that resolves the incident opened by this one, if the service supports it.
    resolution: Option<Value>,
    /// Time after the last alert of an incident after which it is resolved; `None` if never.
    resolve_after: Option<Duration>,
}

/// Markup that a service interprets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Markup {
    None,
    /// `<!channel>`, `<@user>`, links.
    Slack,
    Markdown,
}

impl Markup {
    fn neutralize(self, text: &str) -> String {
        match self {
            Markup::None => text.to_owned(),
            Markup::Slack => text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
            Markup::Markdown => {
                let mut out = String::with_capacity(text.len());
                for letter in text.chars() {
                    if "\\*_~`|>[]()#<@:".contains(letter) {
                        out.push('\\');
                    }
                    out.push(letter);
                }
                out
            }
        }
    }
}

/// Slack: incoming webhooks.
const SLACK: &str = r#"{"text": "%{priority}: %{rule:150}: %{actor:300}", "blocks": [
  {"type": "header", "text": {"type": "plain_text", "text": "%{priority}: %{rule:120}"}},
  {"type": "section", "text": {"type": "plain_text", "text": "%{message:2800}"}},
  {"type": "context", "elements": [{"type": "plain_text", "text": "credential: %{credential:300}"}, {"type": "plain_text", "text": "registry: %{registry_host:300}"}, {"type": "plain_text", "text": "cluster: %{cluster:100}"}, {"type": "plain_text", "text": "%{time} id=%{id}"}]}]}"#;

/// Microsoft Teams: the workflow "Post to a channel when a webhook request is received". `TextRun` does not interpret markup.
const TEAMS: &str = r#"{"type": "message", "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": {
  "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4", "body": [
  {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "size": "large", "weight": "bolder", "text": "%{priority}: %{rule:200}"}]},
  {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": "%{message:8000}"}]},
  {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "isSubtle": true, "text": "actor %{actor:300} · credential %{credential:300} · registry %{registry_host:300} · cluster %{cluster:100} · %{time} · %{id}"}]}]}}]}"#;

/// PagerDuty: Events API v2. Alerts of one rule, actor and credential have one dedup key.
const PAGERDUTY: &str = r#"{"routing_key": "%routing_key", "event_action": "trigger", "dedup_key": "%fingerprint", "client": "pullwatch",
  "payload": {"summary": "%{priority}: %{rule:200}: %{actor:300} %{credential:300}", "source": "%{cluster_or_hostname:255}", "severity": "%pagerduty_severity",
  "timestamp": "%time", "component": "%{target:255}", "group": "%{namespace:255}", "class": "%{rule:255}",
  "custom_details": {"message": "%{message:8000}", "actor": "%{actor:1000}", "target": "%{target:1000}", "exposure": "%exposure", "credential": "%{credential:1000}",
  "registries": "%{registry.hosts:2000}", "credentials": "%{registry.secrets:4000}", "id": "%id"}}}"#;

/// Ends an incident, which is identified by the dedup key.
const PAGERDUTY_RESOLVE: &str =
    r#"{"routing_key": "%routing_key", "event_action": "resolve", "dedup_key": "%fingerprint"}"#;

/// Opsgenie: `POST /v2/alerts`.
const OPSGENIE: &str = r#"{"message": "%{rule:60}: %{actor:64}", "alias": "%fingerprint", "description": "%{message:12000}", "source": "pullwatch", "entity": "%{target:500}",
  "priority": "%opsgenie_priority", "tags": ["pullwatch", "%exposure"], "details": {"actor": "%{actor:1000}", "credential": "%{credential:1000}",
  "registries": "%{registry.hosts:2000}", "cluster": "%{cluster:255}", "id": "%id", "time": "%time"}}"#;

/// Discord: webhooks. Mentions are turned off. An embed has at most 6000 characters, a description 4096 and a field 1024.
const DISCORD: &str = r#"{"username": "pullwatch", "allowed_mentions": {"parse": []}, "embeds": [{"title": "%{priority}: %{rule:100}", "description": "%{message:3600}", "timestamp": "%discord_timestamp",
  "fields": [{"name": "Actor", "value": "%{actor:600}", "inline": true}, {"name": "Credential", "value": "%{credential:600}", "inline": true},
  {"name": "Registry", "value": "%{registry_host:600}", "inline": true}], "footer": {"text": "%id"}}]}"#;

/// Names of the templates for services.
pub const PRESETS: [&str; 5] = ["slack", "teams", "pagerduty", "opsgenie", "discord"];

impl Template {
    /// Parses a template, or returns the one for a service.
    ///
    /// # Errors
    ///
    /// A description of the error.
    pub fn new(text: &str, values: Vec<(String, Secret)>) -> Result<Self, String> {
        let (text, markup) = match text.trim() {
            "slack" => (SLACK, Markup::Slack),
            "teams" => (TEAMS, Markup::None),
            "pagerduty" => (PAGERDUTY, Markup::None),
            "opsgenie" => (OPSGENIE, Markup::None),
            "discord" => (DISCORD, Markup::Markdown),
            text => (text, Markup::None),
        };
        let json: Value = serde_json::from_str(text)
            .map_err(|error| format!("it is neither {} nor valid JSON: {error}", PRESETS.join(", ")))?;
        if text == PAGERDUTY && !values.iter().any(|(name, _)| name == "routing_key") {
            return Err("`values` or `value_files` must have `routing_key`".to_owned());
        }
        let resolution = if text == PAGERDUTY {
            Some(serde_json::from_str(PAGERDUTY_RESOLVE).map_err(|error| error.to_string())?)
        } else {
            None
        };
        Ok(Template { json, markup, values, resolution, resolve_after: None })
    }

    /// Resolves incidents when this time has passed since their last alert.
    ///
    /// # Errors
    /// If the service has no resolution.
    pub fn resolve_after(self, after: Duration) -> Result<Self, String> {
        if self.resolution.is_none() {
            return Err("only incidents of PagerDuty can be resolved".to_owned());
        }
        Ok(Template { resolve_after: Some(after), ..self })
    }

    /// The template for resolutions and the time after which they are due, if incidents are to be resolved.
    pub(crate) fn resolving(&self) -> Option<(Template, Duration)> {
        let (json, after) = (self.resolution.clone()?, self.resolve_after?);
        Some((Template { json, resolution: None, resolve_after: None, ..self.clone() }, after))
    }

    /// Writes the body for an alert.
    pub(crate) fn write(&self, alert: &StoredAlert) -> Vec<u8> {
        let view = View::new(alert);
        let mut body = self.json.clone();
        self.fill(&mut body, &view);
        let mut out = Vec::new();
        shorten::write(&body, &mut out);
        out
    }

    fn fill(&self, value: &mut Value, view: &View<'_>) {
        match value {
            Value::String(text) if text.contains('%') => *text = self.filled(text, view),
            Value::Array(items) => items.iter_mut().for_each(|item| self.fill(item, view)),
            Value::Object(members) => members.values_mut().for_each(|member| self.fill(member, view)),
            _ => {}
        }
    }

    fn filled(&self, text: &str, view: &View<'_>) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                out.push('%');
                rest = after;
                continue;
            }
            let (name, limit) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((inner, after)) => {
                    rest = after;
                    let (name, limit) = inner.split_once(':').unwrap_or((inner, ""));
                    (name, limit.parse().unwrap_or(usize::MAX))
                }
                None => {
                    let is_name = |letter: char| {
                        letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '[' | ']')
                    };
                    let end = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
                    let name = rest[..end].trim_end_matches('.');
                    rest = &rest[name.len()..];
                    (name, usize::MAX)
                }
            };
            let value = self.lookup(name, view);
            if matches!(name, "time" | "discord_timestamp") {
                // No client chose it, and a service that reads it as a time refuses one with escapes.
                out.push_str(&value);
            } else {
                out.push_str(&self.escaped(&value, limit));
            }
        }
        out.push_str(rest);
        out
    }

    /// A value without the service's markup, in about `limit` bytes. They include the escapes: a service refuses a longer text, and
    /// a client chooses how much of a name has to be escaped.
    fn escaped(&self, value: &str, limit: usize) -> String {
        let mut room = limit;
        loop {
            let text = self.markup.neutralize(&shorten::str(value, room));
            if text.len() <= limit || room == 0 || self.markup == Markup::None {
                return text;
            }
            // An escape makes a byte at most five times as long.
            room = room.min(value.len()).saturating_sub((text.len() - limit).div_ceil(5));
        }
    }

    fn lookup(&self, name: &str, view: &View<'_>) -> String {
        if let Some((_, value)) = self.values.iter().find(|(known, _)| known == name) {
            return value.reveal().to_owned();
        }
        let alert = view.alert;
        match name {
            "id" => view.id.clone(),
            "rule" => alert.rule.clone(),
            "priority" => alert.priority.name().to_owned(),
            "message" => alert.message.trim().to_owned(),
            "actor" => alert.actor.clone(),
            "target" => alert.target.clone(),
            "time" => view.time(),
            // With milliseconds, as Discord's own clients write times.
            "discord_timestamp" => view.time_in_milliseconds(),
            "fingerprint" => {
                let mut out = Vec::with_capacity(32);
                push_hex(&fingerprint(alert), &mut out);
                String::from_utf8_lossy(&out).into_owned()
            }
            "pagerduty_severity" => pagerduty_severity(alert.priority).to_owned(),
            "opsgenie_priority" => opsgenie_priority(alert.priority).to_owned(),
            "cluster_or_hostname" => {
                let hostname = view.text("/hostname").as_str().unwrap_or("pullwatch").to_owned();
                view.fields.cluster.clone().unwrap_or(hostname)
            }
            _ => shown(field(name, view)),
        }
    }
}

/// A member of the alert, addressed by names with dots between them, or a field of its output.
fn field<'v>(name: &str, view: &'v View<'_>) -> Option<&'v Value> {
    let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1").replace('.', "/"));
    let member = view.json.pointer(&pointer).filter(|value| !value.is_null());
    member.or_else(|| view.json["output_fields"].get(name))
}

/// A value, formatted as in rule outputs.
fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "<NA>".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(list @ Value::Array(_)) => shorten::list(list, usize::MAX / 2),
        Some(other) => other.to_string(),
    }
}

/// A key that is equal for alerts with the same rule, actor, target and credential, so that repeats belong to one incident.
pub(crate) type Fingerprint = [u8; 16];

/// The fingerprint of an alert.
pub(crate) fn fingerprint(alert: &StoredAlert) -> Fingerprint {
    let mut hash = Sha256::new();
    let credential = Fields::of(alert).credential.unwrap_or_default();
    for part in [&*alert.rule, &*alert.actor, &*alert.target, &*credential] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut out = Fingerprint::default();
    out.copy_from_slice(&hash.finalize()[..16]);
    out
}

fn pagerduty_severity(priority: Priority) -> &'static str {
    match priority {
        Priority::Emergency | Priority::Alert | Priority::Critical => "critical",
        Priority::Error => "error",
        Priority::Warning => "warning",
        Priority::Notice | Priority::Informational | Priority::Debug => "info",
    }
}

fn opsgenie_priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Emergency | Priority::Alert | Priority::Critical => "P1",
        Priority::Error => "P2",
        Priority::Warning => "P3",
        Priority::Notice => "P4",
        Priority::Informational | Priority::Debug => "P5",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sink::tests::{HOSTILE, alert};

    fn body(text: &str, alert: &StoredAlert) -> Value {
        let values = vec![("routing_key".to_owned(), Secret::new("R0"))];
        serde_json::from_slice(&Template::new(text, values).unwrap().write(alert)).unwrap()
    }

    #[test]
    fn hostile_values_stay_in_their_strings() {
        let hostile = format!(
            "{HOSTILE}<!channel> <http://x|y> @everyone [a](http://b) %{{rule}} {{{{.x}}}} ${{jndi:ldap://x}}"
        );
        let alert =
            StoredAlert { actor: hostile.clone(), message: hostile.repeat(1000), rule: hostile, ..alert(1) };
        let depth = |value: &Value| value.to_string().matches("\":").count();
        for preset in PRESETS {
            let (plain, filled) =
                (body(preset, &super::super::template::tests::alert(1)), body(preset, &alert));
            let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&plain), keys(&filled), "{preset}");
            assert!(depth(&filled) >= depth(&plain));
            assert!(filled.to_string().len() < 40_000, "{preset}");
        }
        let slack = body("slack", &alert).to_string();
        assert!(!slack.contains("<!channel>") && slack.contains("&lt;!channel&gt;"));
        let discord = body("discord", &alert);
        assert!(discord["embeds"][0]["fields"][0]["value"].as_str().unwrap().contains("\\[a\\]"));
        assert_eq!(discord["allowed_mentions"]["parse"], serde_json::json!([]));
    }

    /// A client that could make its alert longer than the service takes would suppress it.
    #[test]
    fn values_of_markup_alone_stay_within_the_limits_of_the_services() {
        for letter in ["&", "<", "*", "[", "é", "a"] {
            let long = letter.repeat(20_000);
            let json = format!(r#"{{"credential":"{long}","registry_host":"{long}","cluster":"{long}"}}"#);
            let alert = StoredAlert {
                actor: long.clone(),
                rule: long.clone(),
                message: long,
                json: json.into_bytes(),
                ..alert(1)
            };
            let length = |value: &Value| value.as_str().unwrap().chars().count();
            let slack = body("slack", &alert);
            assert!(length(&slack["blocks"][0]["text"]["text"]) <= 150, "{letter}: {slack}");
            assert!(length(&slack["blocks"][1]["text"]["text"]) <= 3000, "{letter}");
            let discord = body("discord", &alert);
            let embed = &discord["embeds"][0];
            let fields: Vec<&Value> = embed["fields"].as_array().unwrap().iter().collect();
            let values = fields.iter().map(|field| length(&field["value"]));
            let rest = fields.iter().map(|field| length(&field["name"])).sum::<usize>()
                + length(&embed["title"])
                + length(&embed["description"])
                + length(&embed["footer"]["text"]);
            assert!(
                length(&embed["title"]) <= 256 && length(&embed["description"]) <= 4096,
                "{letter}: {embed}"
            );
            assert!(values.clone().all(|length| length <= 1024), "{letter}");
            assert!(values.sum::<usize>() + rest <= 6000, "{letter}");
            // Nothing is shortened further than it has to be.
            assert!(
                length(&embed["description"]) > 1700 && length(&slack["blocks"][1]["text"]["text"]) > 1390
            );
        }
    }

    #[test]
    fn discord_gets_a_time_it_can_read() {
        let alert = StoredAlert { time: 1_795_408_125_174_891_000, ..alert(1) };
        assert_eq!(body("discord", &alert)["embeds"][0]["timestamp"], "2026-11-23T04:28:45.174Z");
    }

    #[test]
    fn payloads_have_what_the_services_require() {
        let alert = alert(1);
        let slack = body("slack", &alert);
        assert!(slack["text"].as_str().unwrap().contains("Secret Read"));
        assert!(slack["blocks"][0]["text"]["text"].as_str().unwrap().len() <= 150);
        let pager = body("pagerduty", &alert);
        assert_eq!((&pager["routing_key"], &pager["event_action"]), (&"R0".into(), &"trigger".into()));
        assert_eq!(pager["payload"]["severity"], "warning");
        assert!(
            pager["payload"]["summary"].as_str().unwrap().len() <= 1024
                && pager["dedup_key"].as_str().unwrap().len() <= 255
        );
        let opsgenie = body("opsgenie", &alert);
        assert!(opsgenie["message"].as_str().unwrap().len() <= 130);
        assert_eq!(opsgenie["priority"], "P3");
        let teams = body("teams", &alert);
        assert_eq!(teams["attachments"][0]["contentType"], "application/vnd.microsoft.card.adaptive");
        // Repeats have the same key, and other alerts have other keys.
        let again = body("pagerduty", &StoredAlert { id: [9; 16], time: 0, ..alert.clone() });
        assert_eq!(again["dedup_key"], pager["dedup_key"]);
        let other = body("pagerduty", &StoredAlert { actor: "bob".to_owned(), ..alert });
        assert_ne!(other["dedup_key"], pager["dedup_key"]);
        assert!(Template::new("pagerduty", Vec::new()).unwrap_err().contains("routing_key"));
    }

    #[test]
    fn templates_take_any_field() {
        let text = r#"{"a": "%rule by %actor.", "b": ["%event.verb", "100%%", "%no.such"], "c": 1}"#;
        let filled = body(text, &alert(1));
        assert_eq!(
            filled,
            serde_json::json!({"a": "Secret Read by alice.", "b": ["get", "100%", "<NA>"], "c": 1})
        );
        assert!(Template::new("nosuch", Vec::new()).unwrap_err().contains("slack"));
    }
}
