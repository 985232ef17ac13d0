//! Alerts of matches, as JSON and as text.
//!
//! Takes a match, returns the alert. Every value of the event in it went through
//! [`Redactor::show`](crate::detection::audit::redact::Redactor::show): a value that is not redacted must never enter.

use std::borrow::Cow;
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use super::alert_context::AlertContext;
use super::evaluator::{EvalContext, WindowSummary};
use super::plan::{OutputPiece, RulePlan};
use super::value::{Redacted, Text, Value};
use crate::detection::alert::{AlertId, Priority, push_hex};
use crate::detection::audit::origin::TimeSource;
use crate::detection::audit::redact::Place;
use crate::detection::audit::time;
use crate::detection::registry::{Exposure, ExposureKind};
use crate::detection::shorten;
use crate::text::escape::{escape_json, push_json_string};

/// The alert of a match, which borrows from the event.
#[derive(Debug)]
pub struct Alert<'a> {
    rule: &'a RulePlan,
    context: &'a AlertContext<'a>,
    hostname: &'a str,
    /// Static labels.
    labels: &'a [(String, String)],
    /// Whether `output_fields` repeats the fields that every alert has.
    repeats_fields: bool,
    fields: Vec<Redacted<'a>>,
    /// The formatted output, without time and priority.
    message: Vec<u8>,
    /// The redacted event, if the alerts of the rule contain it.
    audit_event: Option<Vec<u8>>,
    /// The window, for the alert of a correlation.
    window: Option<Rc<WindowSummary>>,
    /// Alerts of the rule that were throttled since the last one.
    throttled: u64,
}

impl<'a> Alert<'a> {
    /// Creates the alert of a rule that the event of `eval` matched.
    pub fn new<'p: 'a, 'e: 'a>(
        rule: &'a RulePlan,
        eval: &mut EvalContext<'p, '_, 'e>,
        context: &'a AlertContext<'a>,
        hostname: &'a str,
    ) -> Self {
        let fields: Vec<Redacted<'e>> = rule
            .output_fields
            .iter()
            .map(|field| eval.redacted(field.operand, &rule.show).shortened(context.limits.max_string))
            .collect();
        let mut message = Vec::with_capacity(256);
        let push = |index: usize, out: &mut Vec<u8>| {
            let value = &fields[index];
            match value.value() {
                Value::List(texts) if rule.output_fields[index].spelling.starts_with("registry.") => {
                    push_counted_list(texts, out);
                }
                _ => push_value(value, out),
            }
        };
        for say in &rule.output {
            match say {
                OutputPiece::Text(text) => message.extend_from_slice(text.as_bytes()),
                OutputPiece::Value(index, None) => push(*index, &mut message),
                OutputPiece::Value(index, Some(width)) => {
                    let mut text = Vec::new();
                    push(*index, &mut text);
                    let text = String::from_utf8_lossy(&text);
                    message.extend(format!("{text:<width$.width$}").into_bytes());
                }
            }
        }
        let labels = &eval.plan.labels;
        let repeats_fields = eval.plan.repeats_fields;
        Alert {
            rule,
            context,
            hostname,
            labels,
            repeats_fields,
            fields,
            message,
            audit_event: rule
                .includes_event
                .then(|| eval.redacted_event(&rule.show, context.limits.max_alert)),
            window: eval.window.clone(),
            throttled: 0,
        }
    }

    /// Adds the number of alerts of the rule that were throttled before this one.
    #[must_use]
    pub fn with_throttled(mut self, throttled: u64) -> Self {
        self.throttled = throttled;
        if throttled > 0 {
            self.message.extend_from_slice(format!(" ({throttled} more throttled before)").as_bytes());
        }
        self
    }

    /// Returns whether this is the alert of a correlation.
    pub fn is_correlation(&self) -> bool {
        self.window.is_some()
    }

    /// Returns the index of the rule in the rule set.
    pub fn rule(&self) -> usize {
        self.rule.index
    }

    /// Returns the name of the rule.
    pub fn rule_name(&self) -> &'a str {
        &self.rule.name
    }

    /// Returns the priority of the rule.
    pub fn priority(&self) -> Priority {
        self.rule.priority
    }

    /// Returns the time of the event, in nanoseconds since 1970; 0 if the event has none.
    pub fn time(&self) -> i64 {
        self.context.time
    }

    /// Returns the origin of the time, if it is not the event's `stageTimestamp`.
    pub fn time_source(&self) -> Option<TimeSource> {
        self.context.time_source
    }

    /// Returns the output of the rule. It may contain any text that a client can send, so escape it for the format it is written in.
    pub fn message(&self) -> Cow<'_, str> {
        let message = String::from_utf8_lossy(&self.message);
        match shorten::str(&message, self.context.limits.max_alert) {
            Cow::Borrowed(_) => message,
            Cow::Owned(short) => Cow::Owned(short),
        }
    }

    /// Returns the user of the request, followed by ` as ` and the impersonated user if there is one.
    pub fn actor(&self) -> &'a str {
        &self.context.actor
    }

    /// Returns resource, namespace and name of the object, as far as the event has them.
    pub fn target(&self) -> &'a str {
        &self.context.target
    }

    /// Returns the registry credentials that the event exposed.
    pub fn exposure(&self) -> &'a Exposure {
        &self.context.exposure
    }

    /// Returns `user.username`, the authenticated user.
    pub fn user(&self) -> Option<String> {
        self.context.text(Place::USER, self.context.members.user)
    }

    /// Returns `impersonatedUser.username`.
    pub fn impersonated(&self) -> Option<String> {
        self.context.text(Place::USER, self.context.members.impersonated)
    }

    /// Returns the last of `sourceIPs`: the address of the peer, the only one that the client cannot forge.
    pub fn client(&self) -> Option<String> {
        self.context.text(Place::HEAD, self.context.members.client)
    }

    /// Returns `userAgent`, which the client chooses.
    pub fn agent(&self) -> Option<String> {
        self.context.text(Place::HEAD, self.context.members.agent)
    }

    /// Returns the verb of Kubernetes, as `get` or `deletecollection`.
    pub fn verb(&self) -> Option<String> {
        self.context.text(Place::HEAD, self.context.members.verb)
    }

    /// Returns `objectRef.namespace`.
    pub fn namespace(&self) -> Option<String> {
        self.context.text(Place::HEAD, self.context.members.object.namespace)
    }

    /// Returns `objectRef.name`.
    pub fn name(&self) -> Option<String> {
        self.context.text(Place::HEAD, self.context.members.object.name)
    }

    /// Returns the SHA-256 of the event's content.
    pub fn event_hash(&self) -> &[u8; 32] {
        self.context.hash()
    }

    /// Returns the id as 32 hexadecimal digits. Equal event content and rule name give equal ids, wherever the event was read.
    pub fn id(&self) -> String {
        let mut id = Vec::with_capacity(32);
        self.push_id(&mut id);
        String::from_utf8(id).unwrap_or_default()
    }

    /// Returns the id as bytes.
    pub fn id_bytes(&self) -> AlertId {
        let content = self.context.hash();
        let hash = Sha256::new_with_prefix(content).chain_update(self.rule.name.as_bytes()).finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        id
    }

    fn push_id(&self, out: &mut Vec<u8>) {
        push_hex(&self.id_bytes(), out);
    }

    /// Appends the alert as one line of JSON, without the line break, in at most `max_alert` bytes of the limits.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.write_whole(out);
        if let Cow::Owned(short) = shorten::json(&out[start..], self.context.limits.max_alert) {
            out.truncate(start);
            out.extend_from_slice(&short);
        }
    }

    fn write_whole(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"hostname\":");
        push_json_string(self.hostname.as_bytes(), out);
        out.extend_from_slice(b",\"output\":\"");
        time::write_clock(out, self.context.time);
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
        time::write_rfc3339(out, self.context.time);
        out.push(b'"');
        if let Some(source) = self.context.time_source {
            out.extend_from_slice(b",\"time_source\":\"");
            out.extend_from_slice(source.name().as_bytes());
            out.push(b'"');
        }
        self.write_scalars(out, |_| false);
        out.extend_from_slice(b",\"id\":\"");
        self.push_id(out);
        // Hexadecimal digits need no escaping.
        out.extend_from_slice(b"\",\"rule_set\":\"");
        out.extend_from_slice(self.rule.rule_set.as_bytes());
        out.extend_from_slice(b"\",\"event\":");
        out.extend_from_slice(&self.context.summary);
        write_exposure(&self.context.exposure, out);
        if let Some(window) = &self.window {
            write_window(window, out);
        }
        if self.throttled > 0 {
            out.extend_from_slice(b",\"throttled\":");
            out.extend_from_slice(itoa::Buffer::new().format(self.throttled).as_bytes());
        }
        if let Some(event) = &self.audit_event {
            out.extend_from_slice(b",\"audit_event\":");
            out.extend_from_slice(event);
        }
        out.push(b'}');
    }

    /// Returns the name of the cluster, if it is known: from the event, its wrapper, its source or the static labels.
    pub fn cluster(&self) -> Option<&'a str> {
        let label = || self.labels.iter().find(|(name, _)| name == "cluster").map(|(_, value)| &**value);
        self.context.cluster.as_deref().or_else(label)
    }

    /// Appends the fields that every alert has, and the static labels, unless they are present already.
    fn write_scalars(&self, out: &mut Vec<u8>, is_there: impl Fn(&str) -> bool) {
        let mut push = |name: &str, value: Option<&str>| {
            if is_there(name) {
                return;
            }
            out.push(b',');
            push_json_string(name.as_bytes(), out);
            out.push(b':');
            match value {
                Some(value) => push_json_string(value.as_bytes(), out),
                None => out.extend_from_slice(b"null"),
            }
        };
        self.context.fields.for_each(&self.context.actor, &mut push);
        push("cluster", self.cluster());
        for (name, value) in self.labels.iter().filter(|(name, _)| name != "cluster") {
            push(name, Some(value));
        }
    }

    fn write_fields(&self, out: &mut Vec<u8>) {
        // `evt.time` is always there, and sorts before every field of the audit event.
        out.extend_from_slice(b"{\"evt.time\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.context.time).as_bytes());
        for (field, value) in self.rule.output_fields.iter().zip(&self.fields) {
            if field.spelling == "evt.time" {
                continue;
            }
            out.push(b',');
            push_json_string(field.spelling.as_bytes(), out);
            out.push(b':');
            match value.value() {
                Value::Missing => out.extend_from_slice(b"null"),
                _ if field.is_time => {
                    out.extend_from_slice(itoa::Buffer::new().format(self.context.time).as_bytes());
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
        if self.repeats_fields {
            self.write_scalars(out, |name| {
                self.rule.output_fields.iter().any(|field| *field.spelling == *name)
            });
        }
        out.push(b'}');
    }
}

/// Outputs print at most this number of bytes of a list; `output_fields` contain all of it.
const MAX_PRINTED_LIST: usize = 1023;

/// Appends the `registry` member, if the event exposed registry credentials.
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
    if exposure.is_truncated {
        out.extend_from_slice(b",\"truncated\":true,\"count\":");
        out.extend_from_slice(itoa::Buffer::new().format(exposure.count).as_bytes());
    }
    out.push(b'}');
}

/// Appends one more member with a list of strings.
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

/// Appends the `correlation` member.
fn write_window(window: &WindowSummary, out: &mut Vec<u8>) {
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

/// Appends a list about registry credentials. Elements that do not fit are counted: an attacker chooses names and their length.
fn push_counted_list(texts: &[Text<'_>], out: &mut Vec<u8>) {
    out.push(b'(');
    let start = out.len();
    for (i, text) in texts.iter().enumerate() {
        // One element is always printed. Leave room for the count.
        if i > 0 && out.len() - start + text.len() > MAX_PRINTED_LIST - 32 {
            out.extend_from_slice(format!(", and {} more", texts.len() - i).as_bytes());
            break;
        }
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(text);
    }
    out.push(b')');
}

/// Appends a value as outputs print it: `<NA>` for a missing one, parentheses around a list.
fn push_value(value: &Redacted<'_>, out: &mut Vec<u8>) {
    match value.value() {
        Value::Missing => out.extend_from_slice(b"<NA>"),
        Value::Text(text) => out.extend_from_slice(text),
        Value::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
        Value::List(texts) => {
            out.push(b'(');
            let start = out.len();
            let end = start - 1 + MAX_PRINTED_LIST;
            for text in texts {
                // Compatible with the reference: leading empty strings are omitted, and a long list is truncated.
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
