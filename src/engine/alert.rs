//! What a match says: the alert, as JSON and as text.
//!
//! An alert holds nothing of the event but what may be shown: every value goes through
//! [`Place::show`](crate::audit::redact::Place::show) on its way here.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use super::judge::{Case, Window};
use super::plan::{RulePlan, Say};
use super::value::{Shown, Text, Value};
use crate::audit::event::{Event, Member, ObjectRef};
use crate::audit::json::Raw;
use crate::audit::redact::Place;
use crate::audit::text::{escape_json, is_plain_string, push_json_string};
use crate::audit::time;
use crate::registry::{Exposure, Kind};
use crate::rules::ast::Priority;

/// What all alerts of one event share.
#[derive(Debug)]
pub struct Incident<'e> {
    /// When, in nanoseconds since 1970; 0 where the event does not say.
    time: i64,
    /// The event's whole content, but for what a webhook leaves out.
    content: &'e [u8],
    /// Its SHA-256, once somebody asks.
    hash: OnceCell<[u8; 32]>,
    /// The `event` member of the alert's JSON.
    summary: Vec<u8>,
    /// What it exposed of registry credentials.
    exposure: Rc<Exposure>,
    /// Who, for people.
    actor: String,
    /// On what, for people.
    target: String,
    /// Where the event says who asked for what.
    parts: Parts<'e>,
}

/// Parts of an event that are seldom asked for, as they are written.
#[derive(Clone, Copy, Debug)]
struct Parts<'e> {
    user: Option<Raw<'e>>,
    impersonated: Option<Raw<'e>>,
    client: Option<Raw<'e>>,
    agent: Option<Raw<'e>>,
    verb: Option<Raw<'e>>,
    object: ObjectRef<'e>,
}

/// The members before `level` in an event that the apiserver writes to a file; in a webhook's list they are
/// left out. The event is the same.
const ENVELOPE: [&[u8]; 2] = [br#""kind":"Event","#, br#""apiVersion":"audit.k8s.io/v1","#];

impl<'e> Incident<'e> {
    /// Reads the event to its end.
    pub fn new(event: &mut Event<'e>, exposure: Rc<Exposure>) -> Self {
        let bytes = event.bytes();
        let mut content = bytes.strip_prefix(b"{").unwrap_or(bytes);
        for member in ENVELOPE {
            content = content.strip_prefix(member).unwrap_or(content);
        }
        Incident {
            time: event.time().unwrap_or(0),
            content,
            hash: OnceCell::new(),
            summary: summary(event),
            exposure,
            actor: actor(event),
            target: target(event),
            parts: Parts::of(event),
        }
    }
}

impl<'e> Parts<'e> {
    fn of(event: &mut Event<'e>) -> Self {
        let name = |user: Option<Raw<'e>>| user.and_then(|user| user.get("username"));
        Parts {
            user: name(event.get(Member::User)),
            impersonated: name(event.get(Member::ImpersonatedUser)),
            client: event
                .get(Member::SourceIps)
                .and_then(|addresses| addresses.items().map_while(Result::ok).last()),
            agent: event.get(Member::UserAgent),
            verb: event.get(Member::Verb),
            object: event.object(),
        }
    }
}

impl Incident<'_> {
    /// Who did it: the user, and whom they posed as.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// What it was done to: resource, namespace and name, as far as the event says.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// When, in nanoseconds since 1970; 0 where the event does not say.
    pub fn time(&self) -> i64 {
        self.time
    }

    /// The head of the event as an event of its own, with nothing in it that must not be said: for an alert that is made
    /// when the event itself is gone.
    pub fn note(&self) -> Vec<u8> {
        let mut note = self.summary.clone();
        note.pop();
        note.extend_from_slice(b",\"stageTimestamp\":\"");
        time::write_rfc3339(&mut note, self.time);
        note.extend_from_slice(b"\"}");
        note
    }
}

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
    held_back: u64,
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
        Alert { rule, incident, hostname, shown, message, window: case.window.clone(), held_back: 0 }
    }

    /// Says that so many alerts of its rule were held back before it.
    #[must_use]
    pub fn after_holding_back(mut self, held_back: u64) -> Self {
        self.held_back = held_back;
        if held_back > 0 {
            self.message.extend_from_slice(format!(" ({held_back} more held back before)").as_bytes());
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

    /// The same for the same event content and rule, whoever read it from wherever: 32 hex digits.
    pub fn id(&self) -> String {
        let mut id = Vec::with_capacity(32);
        self.push_id(&mut id);
        String::from_utf8(id).unwrap_or_default()
    }

    /// The id as bytes.
    pub fn id_bytes(&self) -> [u8; 16] {
        let content = self.incident.hash.get_or_init(|| Sha256::digest(self.incident.content).into());
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
        out.extend_from_slice(b"\",\"event\":");
        out.extend_from_slice(&self.incident.summary);
        write_exposure(&self.incident.exposure, out);
        if let Some(window) = &self.window {
            write_window(window, out);
        }
        if self.held_back > 0 {
            out.extend_from_slice(b",\"held_back\":");
            out.extend_from_slice(itoa::Buffer::new().format(self.held_back).as_bytes());
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

/// Appends bytes as hex digits.
pub fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for &byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// A list is printed up to so many bytes; `output_fields` have all of it.
const LONGEST_LIST: usize = 1023;

/// Appends the `registry` member of an alert about registry credentials.
fn write_exposure(exposure: &Exposure, out: &mut Vec<u8>) {
    if exposure.kind == Kind::None && exposure.count == 0 {
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

/// The members of the event that every alert carries.
fn summary(event: &mut Event<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let texts = [("auditID", Member::AuditId), ("stage", Member::Stage), ("verb", Member::Verb)];
    for (name, member) in texts {
        push_member(&mut out, name, event.get(member), Place::Plain);
    }
    for (name, member) in [("user", Member::User), ("impersonatedUser", Member::ImpersonatedUser)] {
        if let Some(user) = event.get(member) {
            push_key(&mut out, name);
            let start = out.len();
            push_parts(&mut out, user, &["username", "uid", "groups"]);
            close(&mut out, start);
        }
    }
    push_member(&mut out, "sourceIPs", event.get(Member::SourceIps), Place::Plain);
    push_member(&mut out, "userAgent", event.get(Member::UserAgent), Place::Plain);
    if let Some(object) = event.get(Member::ObjectRef) {
        push_key(&mut out, "objectRef");
        let start = out.len();
        push_parts(
            &mut out,
            object,
            &["resource", "namespace", "name", "apiGroup", "apiVersion", "subresource"],
        );
        close(&mut out, start);
    }
    push_member(&mut out, "code", event.path(&["responseStatus", "code"]), Place::Plain);
    push_member(&mut out, "requestURI", event.get(Member::RequestUri), Place::Uri);
    if event.is_truncated() {
        push_key(&mut out, "truncated");
        out.extend_from_slice(b"true");
    }
    close(&mut out, 0);
    out
}

fn push_key(out: &mut Vec<u8>, name: &str) {
    out.push(if out.is_empty() { b'{' } else { b',' });
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn push_member(out: &mut Vec<u8>, name: &str, value: Option<Raw<'_>>, place: Place) {
    if let Some(value) = value {
        push_key(out, name);
        push_raw(out, value, place);
    }
}

/// These members of an object, in its own order, each once, without the closing brace.
fn push_parts(out: &mut Vec<u8>, object: Raw<'_>, names: &[&str]) {
    let start = out.len();
    let mut seen = 0_u32;
    for (key, value) in object.members().map_while(Result::ok) {
        let Some(at) = names.iter().position(|name| key.is(name)) else { continue };
        if seen >> at & 1 == 1 {
            continue;
        }
        seen |= 1 << at;
        out.push(if out.len() == start { b'{' } else { b',' });
        out.push(b'"');
        out.extend_from_slice(names[at].as_bytes());
        out.extend_from_slice(b"\":");
        push_raw(out, value, Place::Plain);
    }
}

fn close(out: &mut Vec<u8>, start: usize) {
    if out.len() == start {
        out.push(b'{');
    }
    out.push(b'}');
}

/// How many members of a list of addresses or groups an alert shows.
const MOST_ITEMS: usize = 64;

/// Writes what stands in the event as JSON of our own: a number stays one if it is one, a list of texts a
/// list, anything else becomes a string.
fn push_raw(out: &mut Vec<u8>, value: Raw<'_>, place: Place) {
    use crate::audit::json::Type;
    match value.kind() {
        // The usual text is written as it stands.
        Type::String if place == Place::Plain && is_plain_string(value.bytes()) => {
            out.extend_from_slice(value.bytes());
        }
        Type::Array => {
            out.push(b'[');
            for (i, item) in value.items().map_while(Result::ok).take(MOST_ITEMS).enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                push_json_string(&place.show(item), out);
            }
            out.push(b']');
        }
        Type::Scalar => match std::str::from_utf8(value.bytes()).map(str::parse::<u32>) {
            Ok(Ok(number)) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            _ => push_json_string(&place.show(value), out),
        },
        _ => push_json_string(&place.show(value), out),
    }
}

fn lossy(text: Option<Text<'_>>) -> Option<String> {
    text.map(|text| String::from_utf8_lossy(&text).into_owned())
}

fn shown(raw: Option<Raw<'_>>) -> Option<String> {
    lossy(raw.map(|raw| Place::Plain.show(raw)))
}

fn actor(event: &mut Event<'_>) -> String {
    let mut name = |member| {
        lossy(event.get(member).and_then(|user| user.get("username")).map(|raw| Place::Plain.show(raw)))
    };
    let user = name(Member::User).filter(|user| !user.is_empty()).unwrap_or_else(|| "(nobody)".to_owned());
    match name(Member::ImpersonatedUser) {
        Some(other) => format!("{user} as {other}"),
        None => user,
    }
}

fn target(event: &mut Event<'_>) -> String {
    let object = event.object();
    let Some(resource) = object.resource else {
        return lossy(event.get(Member::RequestUri).map(|raw| Place::Uri.show(raw))).unwrap_or_default();
    };
    let mut target = String::with_capacity(64);
    let mut push = |before: &str, raw: Option<Raw<'_>>, after: &str| {
        if let Some(raw) = raw {
            target.push_str(before);
            target.push_str(&String::from_utf8_lossy(&Place::Plain.show(raw)));
            target.push_str(after);
        }
    };
    push("", Some(resource), "");
    push("/", object.subresource, "");
    push(" ", object.namespace, "/");
    push(if object.namespace.is_some() { "" } else { " " }, object.name, "");
    target
}
