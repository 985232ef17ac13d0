//! What a match says: the alert, as JSON and as text.
//!
//! An alert holds nothing of the event but what may be shown: every value goes through
//! [`Place::show`](crate::detection::audit::redact::Place::show) on its way here.

use std::borrow::Cow;
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use super::alert_context::{Incident, shown};
use super::evaluator::{Case, Window};
use super::plan::{RulePlan, Say};
use super::value::{Shown, Value};
use crate::detection::alert::{AlertId, Priority, push_hex};
use crate::detection::audit::time;
use crate::detection::registry::{Exposure, ExposureKind};
use crate::text::escape::{escape_json, push_json_string};

/// One alert.
#[derive(Debug)]
pub struct Alert<'a> {
    rule: &'a RulePlan,
    incident: &'a Incident<'a>,
    hostname: &'a str,
    shown: Vec<Shown<'a>>,
    /// The output without time and priority.
    message: Vec<u8>,
    /// What the correlation saw that it is of.
    window: Option<Rc<Window>>,
    /// So many alerts of the rule were held back since the last one.
    throttled: u64,
}

impl<'a> Alert<'a> {
    /// The alert of a rule that the event of `case` matched.
    pub fn new<'e: 'a>(
        rule: &'a RulePlan,
        case: &mut Case<'_, '_, 'e>,
        incident: &'a Incident<'a>,
        hostname: &'a str,
    ) -> Self {
        let shown: Vec<Shown<'e>> = rule.shown.iter().map(|shown| case.shown(shown.operand)).collect();
        let mut message = Vec::with_capacity(256);
        for say in &rule.output {
            match say {
                Say::Text(text) => message.extend_from_slice(text.as_bytes()),
                Say::Value(index, None) => push_value(&shown[*index], &mut message),
                Say::Value(index, Some(width)) => {
                    let mut text = Vec::new();
                    push_value(&shown[*index], &mut text);
                    let text = String::from_utf8_lossy(&text);
                    message.extend(format!("{text:<width$.width$}").into_bytes());
                }
            }
        }
        Alert { rule, incident, hostname, shown, message, window: case.window.clone(), throttled: 0 }
    }

    /// Says that so many alerts of its rule were held back before it.
    #[must_use]
    pub fn with_throttled(mut self, throttled: u64) -> Self {
        self.throttled = throttled;
        if throttled > 0 {
            self.message.extend_from_slice(format!(" ({throttled} more held back before)").as_bytes());
        }
        self
    }

    /// Index of the rule in the rule set.
    pub fn rule(&self) -> usize {
        self.rule.index
    }

    /// Name of the rule.
    pub fn rule_name(&self) -> &'a str {
        &self.rule.name
    }

    /// How bad it is.
    pub fn priority(&self) -> Priority {
        self.rule.priority
    }

    /// When it happened, in nanoseconds since 1970; 0 where the event does not say.
    pub fn time(&self) -> i64 {
        self.incident.time
    }

    /// The rule's output. It may hold anything a client can send: escape it for where it goes.
    pub fn message(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.message)
    }

    /// Who did it.
    pub fn actor(&self) -> &'a str {
        &self.incident.actor
    }

    /// What it was done to.
    pub fn target(&self) -> &'a str {
        &self.incident.target
    }

    /// What the event exposed of registry credentials.
    pub fn exposure(&self) -> &'a Exposure {
        &self.incident.exposure
    }

    /// `user.username`: who really asked.
    pub fn user(&self) -> Option<String> {
        shown(self.incident.parts.user)
    }

    /// `impersonatedUser.username`: whom they posed as.
    pub fn impersonated(&self) -> Option<String> {
        shown(self.incident.parts.impersonated)
    }

    /// The last of `sourceIPs`: the address of the peer, the only one that a client cannot make up.
    pub fn client(&self) -> Option<String> {
        shown(self.incident.parts.client)
    }

    /// `userAgent`, the client's own words.
    pub fn agent(&self) -> Option<String> {
        shown(self.incident.parts.agent)
    }

    /// `verb`.
    pub fn verb(&self) -> Option<String> {
        shown(self.incident.parts.verb)
    }

    /// `objectRef.namespace`.
    pub fn namespace(&self) -> Option<String> {
        shown(self.incident.parts.object.namespace)
    }

    /// `objectRef.name`.
    pub fn name(&self) -> Option<String> {
        shown(self.incident.parts.object.name)
    }

    /// SHA-256 of the event's content.
    pub fn event_hash(&self) -> &[u8; 32] {
        self.incident.hash()
    }

    /// The same for the same event content and rule, whoever read it from wherever: 32 hex digits.
    pub fn id(&self) -> String {
        let mut id = Vec::with_capacity(32);
        self.push_id(&mut id);
        String::from_utf8(id).unwrap_or_default()
    }

    /// The id as bytes.
    pub fn id_bytes(&self) -> AlertId {
        let content = self.incident.hash();
        let hash = Sha256::new_with_prefix(content).chain_update(self.rule.name.as_bytes()).finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        id
    }

    fn push_id(&self, out: &mut Vec<u8>) {
        push_hex(&self.id_bytes(), out);
    }

    /// Appends the alert as one line of JSON, without the line's end.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"hostname\":");
        push_json_string(self.hostname.as_bytes(), out);
        out.extend_from_slice(b",\"output\":\"");
        time::write_clock(out, self.incident.time);
        out.extend_from_slice(b": ");
        out.extend_from_slice(self.rule.priority.name().as_bytes());
        out.push(b' ');
        escape_json(&self.message, out);
        out.extend_from_slice(b"\",\"output_fields\":");
        self.write_fields(out);
        out.extend_from_slice(b",\"priority\":\"");
        out.extend_from_slice(self.rule.priority.name().as_bytes());
        out.extend_from_slice(b"\",\"rule\":");
        push_json_string(self.rule.name.as_bytes(), out);
        out.extend_from_slice(b",\"source\":\"k8s_audit\",\"tags\":[");
        for (i, tag) in self.rule.tags.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            push_json_string(tag.as_bytes(), out);
        }
        out.extend_from_slice(b"],\"time\":\"");
        time::write_rfc3339(out, self.incident.time);
        out.extend_from_slice(b"\",\"id\":\"");
        self.push_id(out);
        // Of hex digits.
        out.extend_from_slice(b"\",\"rule_set\":\"");
        out.extend_from_slice(self.rule.rule_set.as_bytes());
        out.extend_from_slice(b"\",\"event\":");
        out.extend_from_slice(&self.incident.summary);
        write_exposure(&self.incident.exposure, out);
        if let Some(window) = &self.window {
            write_window(window, out);
        }
        if self.throttled > 0 {
            out.extend_from_slice(b",\"held_back\":");
            out.extend_from_slice(itoa::Buffer::new().format(self.throttled).as_bytes());
        }
        out.push(b'}');
    }

    fn write_fields(&self, out: &mut Vec<u8>) {
        // `evt.time` comes before every field of the audit event in the alphabet, and is always there.
        out.extend_from_slice(b"{\"evt.time\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.incident.time).as_bytes());
        for (field, value) in self.rule.shown.iter().zip(&self.shown) {
            if field.spelling == "evt.time" {
                continue;
            }
            out.push(b',');
            push_json_string(field.spelling.as_bytes(), out);
            out.push(b':');
            match value.value() {
                Value::Missing => out.extend_from_slice(b"null"),
                _ if field.is_time => {
                    out.extend_from_slice(itoa::Buffer::new().format(self.incident.time).as_bytes());
                }
                Value::Number(number) if field.is_number => {
                    out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
                }
                Value::Number(number) => {
                    push_json_string(itoa::Buffer::new().format(*number).as_bytes(), out);
                }
                Value::Text(text) => push_json_string(text, out),
                Value::List(texts) => {
                    for (i, text) in texts.iter().enumerate() {
                        out.push(if i == 0 { b'[' } else { b',' });
                        push_json_string(text, out);
                    }
                    out.push(b']');
                }
            }
        }
        out.push(b'}');
    }
}

/// A list is printed up to so many bytes; `output_fields` have all of it.
const LONGEST_LIST: usize = 1023;

/// Appends the `registry` member of an alert about registry credentials.
fn write_exposure(exposure: &Exposure, out: &mut Vec<u8>) {
    if exposure.kind == ExposureKind::None && exposure.count == 0 {
        return;
    }
    out.extend_from_slice(b",\"registry\":{\"exposure\":\"");
    out.extend_from_slice(exposure.kind.name().as_bytes());
    out.extend_from_slice(b"\",\"scope\":\"");
    out.extend_from_slice(exposure.scope.name().as_bytes());
    out.push(b'"');
    push_list(out, "secrets", &exposure.secrets);
    push_list(out, "hosts", &exposure.logins.hosts);
    push_list(out, "usernames", &exposure.logins.usernames);
    out.push(b'}');
}

/// Appends a member with a list of texts, behind others.
fn push_list<'t>(out: &mut Vec<u8>, name: &str, texts: impl IntoIterator<Item = &'t String>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":[");
    for (i, text) in texts.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_json_string(text.as_bytes(), out);
    }
    out.push(b']');
}

/// Appends the `correlation` member of a correlation's alert.
fn write_window(window: &Window, out: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    out.extend_from_slice(b",\"correlation\":{\"count\":");
    out.extend_from_slice(number.format(window.count).as_bytes());
    out.extend_from_slice(b",\"value_count\":");
    out.extend_from_slice(number.format(window.value_count).as_bytes());
    out.extend_from_slice(b",\"first\":\"");
    time::write_rfc3339(out, window.first);
    out.extend_from_slice(b"\",\"last\":\"");
    time::write_rfc3339(out, window.last);
    out.push(b'"');
    push_list(out, "values", &window.values);
    push_list(out, "rules", &window.rules);
    push_list(out, "alerts", &window.ids);
    out.push(b'}');
}

/// Appends a value as outputs print it: `<NA>` where it is missing, a list in parentheses.
fn push_value(value: &Shown<'_>, out: &mut Vec<u8>) {
    match value.value() {
        Value::Missing => out.extend_from_slice(b"<NA>"),
        Value::Text(text) => out.extend_from_slice(text),
        Value::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
        Value::List(texts) => {
            out.push(b'(');
            let start = out.len();
            let end = start - 1 + LONGEST_LIST;
            for text in texts {
                // As the reference prints it: empty texts at the start leave no trace, and a long list is cut.
                if out.len() > start {
                    out.push(b',');
                }
                out.extend_from_slice(text);
                if out.len() > end {
                    break;
                }
            }
            out.push(b')');
            out.truncate(end);
        }
    }
}
