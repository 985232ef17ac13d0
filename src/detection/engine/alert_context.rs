//! Context that all alerts of one event share: time, actor, target and the head of the event.
//!
//! Takes an event, returns an [`AlertContext`]. Everything that is rendered here is redacted.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::rc::Rc;

use super::alert_fields::AlertFields;
use super::value::Text;
use crate::detection::audit::event::{Event, Member, ObjectRef};
use crate::detection::audit::event_id;
use crate::detection::audit::json::Raw;
use crate::detection::audit::origin::TimeSource;
use crate::detection::audit::redact::{Place, RedactionKey, Redactor, ShowList};
use crate::detection::audit::time;
use crate::detection::registry::Exposure;
use crate::detection::shorten::{self, Limits};
use crate::text::escape::{is_plain_string, push_json_string};

/// Context that all alerts of one event share.
#[derive(Debug)]
pub struct AlertContext<'e> {
    /// In nanoseconds since 1970; 0 if the event has no time.
    pub(super) time: i64,
    /// The origin of the time, if it is not the event's `stageTimestamp`.
    pub(super) time_source: Option<TimeSource>,
    /// The name of the cluster, if it is known.
    pub(super) cluster: Option<String>,
    /// The content of the event, without the members that a webhook omits.
    pub(super) content: &'e [u8],
    /// SHA-256 of the content, computed on demand.
    pub(super) hash: OnceCell<[u8; 32]>,
    /// The `event` member of the alert's JSON.
    pub(super) summary: Vec<u8>,
    pub(super) exposure: Rc<Exposure>,
    pub(super) actor: String,
    pub(super) target: String,
    pub(super) fields: AlertFields,
    /// The members of the event that state who requested what.
    pub(super) members: Members<'e>,
    redaction_key: RedactionKey,
    pub(super) limits: Limits,
}

/// Nothing is exempt from redaction: what all alerts of an event share does not depend on a rule.
static NO_PATHS: ShowList = ShowList::EMPTY;

/// Members of the event that are rendered on demand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members<'e> {
    pub(super) user: Option<Raw<'e>>,
    pub(super) impersonated: Option<Raw<'e>>,
    pub(super) client: Option<Raw<'e>>,
    pub(super) agent: Option<Raw<'e>>,
    pub(super) verb: Option<Raw<'e>>,
    pub(super) object: ObjectRef<'e>,
    pub(super) code: Option<Raw<'e>>,
}

impl<'e> AlertContext<'e> {
    /// Collects the context of an event; reads the event to its end.
    pub fn new(
        event: &mut Event<'e>,
        exposure: Rc<Exposure>,
        redaction_key: &RedactionKey,
        limits: Limits,
    ) -> Self {
        let redactor = Shown { redactor: Redactor::new(redaction_key, &NO_PATHS), max: limits.max_string };
        let content = event_id::content(event.bytes());
        let members = Members::of(event);
        let show = |member: Option<Raw<'_>>| lossy(member.map(|raw| redactor.show(Place::HEAD, raw)));
        let fields = AlertFields::new(
            &exposure,
            show(members.object.namespace),
            show(members.verb),
            redactor.redactor,
        );
        let time = event.time_and_source();
        AlertContext {
            time: time.map_or(0, |(time, _)| time),
            time_source: time.map(|(_, source)| source).filter(|source| *source != TimeSource::Stage),
            cluster: event.cluster().map(|name| shown_cluster(&name)),
            content,
            hash: OnceCell::new(),
            summary: summary(event, redactor),
            exposure,
            actor: actor(event, redactor),
            target: target(event, redactor),
            fields,
            members,
            redaction_key: redaction_key.clone(),
            limits,
        }
    }
}

/// The name of a cluster as alerts show it. Names given by clouds are shorter than the limit; resource paths may be truncated.
fn shown_cluster(name: &[u8]) -> String {
    const MAX_LEN: usize = 256;
    String::from_utf8_lossy(&name[..name.len().min(MAX_LEN)]).into_owned()
}

impl<'e> Members<'e> {
    fn of(event: &mut Event<'e>) -> Self {
        let name = |user: Option<Raw<'e>>| user.and_then(|user| user.get("username"));
        Members {
            user: name(event.get(Member::User)),
            impersonated: name(event.get(Member::ImpersonatedUser)),
            client: event
                .get(Member::SourceIps)
                .and_then(|addresses| addresses.items().map_while(Result::ok).last()),
            agent: event.get(Member::UserAgent),
            verb: event.get(Member::Verb),
            object: event.object(),
            code: event.path(&["responseStatus", "code"]),
        }
    }
}

impl AlertContext<'_> {
    /// Returns the user of the request, followed by ` as ` and the impersonated user if there is one.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// The target: resource, namespace and name, as far as the event contains them.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the time of the event, in nanoseconds since 1970; 0 if the event has none.
    pub fn time(&self) -> i64 {
        self.time
    }

    fn redactor(&self) -> Shown<'_> {
        Shown { redactor: Redactor::new(&self.redaction_key, &NO_PATHS), max: self.limits.max_string }
    }

    /// Returns the redacted text of a member.
    pub(super) fn text(&self, place: Place, member: Option<Raw<'_>>) -> Option<String> {
        lossy(member.map(|raw| self.redactor().redactor.show(place, raw)))
    }

    /// Returns the SHA-256 of the event's content.
    pub fn hash(&self) -> &[u8; 32] {
        self.hash.get_or_init(|| event_id::hash(self.content))
    }

    /// Sets the hash of the original event, for a context that was created from a
    /// [`redacted_head`](AlertContext::redacted_head).
    #[must_use]
    pub fn with_hash(self, hash: [u8; 32]) -> Self {
        AlertContext { hash: OnceCell::from(hash), ..self }
    }

    /// Sets the credentials that the event is about without exposing them, as `namespace/name`.
    #[must_use]
    pub fn with_referenced(mut self, credentials: &[Text<'_>]) -> Self {
        let redactor = Redactor::new(&self.redaction_key, &NO_PATHS);
        self.fields.add_referenced(credentials, redactor);
        self
    }

    /// Sets the scalar fields that a [`redacted_head`](AlertContext::redacted_head) contains, for a context that was created
    /// from one.
    #[must_use]
    pub fn with_fields_of(mut self, head: &[u8]) -> Self {
        self.fields.restore(head);
        self
    }

    /// Returns the registry credentials that the event exposed.
    pub fn exposure(&self) -> &Exposure {
        &self.exposure
    }

    /// Returns the redacted head of the event as an event of its own, for an alert that is created when the event itself is no
    /// longer available.
    pub fn redacted_head(&self) -> Vec<u8> {
        let mut head = self.summary.clone();
        head.pop();
        // The summary has `code` at its top level; an audit event has it in `responseStatus`.
        if self.members.code.is_some() {
            push_key(&mut head, "responseStatus");
            let mut status = Vec::new();
            push_member(&mut status, "code", self.members.code, Place::PLAIN, self.redactor());
            close(&mut status, 0);
            head.extend_from_slice(&status);
        }
        self.fields.save(&mut head);
        head.extend_from_slice(b",\"stageTimestamp\":\"");
        time::write_rfc3339(&mut head, self.time);
        head.extend_from_slice(b"\"}");
        head
    }
}

/// Reads redacted values, and limits their length.
#[derive(Clone, Copy)]
struct Shown<'k> {
    redactor: Redactor<'k>,
    /// Maximum length of a value, in bytes.
    max: usize,
}

impl Shown<'_> {
    fn show<'r>(&self, place: Place, raw: Raw<'r>) -> Text<'r> {
        let text = self.redactor.show(place, raw);
        match shorten::text(&text, self.max) {
            Cow::Borrowed(_) => text,
            Cow::Owned(short) => Cow::Owned(short),
        }
    }
}

/// Renders the members of the event that every alert contains.
fn summary(event: &mut Event<'_>, redactor: Shown<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let texts = [("auditID", Member::AuditId), ("stage", Member::Stage), ("verb", Member::Verb)];
    for (name, member) in texts {
        push_member(&mut out, name, event.get(member), Place::HEAD, redactor);
    }
    for (name, member) in [("user", Member::User), ("impersonatedUser", Member::ImpersonatedUser)] {
        if let Some(user) = event.get(member) {
            push_key(&mut out, name);
            let start = out.len();
            push_parts(&mut out, user, &["username", "uid", "groups"], Place::USER, redactor);
            close(&mut out, start);
        }
    }
    push_member(&mut out, "sourceIPs", event.get(Member::SourceIps), Place::HEAD, redactor);
    push_member(&mut out, "userAgent", event.get(Member::UserAgent), Place::HEAD, redactor);
    if let Some(object) = event.get(Member::ObjectRef) {
        push_key(&mut out, "objectRef");
        let start = out.len();
        push_parts(
            &mut out,
            object,
            &["resource", "namespace", "name", "apiGroup", "apiVersion", "subresource"],
            Place::HEAD,
            redactor,
        );
        close(&mut out, start);
    }
    push_member(&mut out, "code", event.path(&["responseStatus", "code"]), Place::PLAIN, redactor);
    push_member(&mut out, "requestURI", event.get(Member::RequestUri), Place::URI, redactor);
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

fn push_member(out: &mut Vec<u8>, name: &str, value: Option<Raw<'_>>, place: Place, redactor: Shown<'_>) {
    if let Some(value) = value {
        push_key(out, name);
        push_raw(out, value, place, redactor);
    }
}

/// Appends the named members of an object in its own order, each once, without the closing brace.
fn push_parts(out: &mut Vec<u8>, object: Raw<'_>, names: &[&str], place: Place, redactor: Shown<'_>) {
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
        push_raw(out, value, place, redactor);
    }
}

fn close(out: &mut Vec<u8>, start: usize) {
    if out.len() == start {
        out.push(b'{');
    }
    out.push(b'}');
}

/// Maximum number of addresses or groups in an alert.
const MAX_ITEMS: usize = 64;

/// Appends a value of the event as JSON: valid numbers stay numbers, arrays become lists of strings, anything else a string.
fn push_raw(out: &mut Vec<u8>, value: Raw<'_>, place: Place, redactor: Shown<'_>) {
    use crate::detection::audit::json::Type;
    match value.kind() {
        // Fast path: a string without escapes is copied.
        Type::String
            if place.is_plain() && value.bytes().len() <= redactor.max && is_plain_string(value.bytes()) =>
        {
            out.extend_from_slice(value.bytes());
        }
        Type::Array => {
            out.push(b'[');
            for (i, item) in value.items().map_while(Result::ok).take(MAX_ITEMS).enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                push_json_string(&redactor.show(place, item), out);
            }
            out.push(b']');
        }
        Type::Scalar => match std::str::from_utf8(value.bytes()).map(str::parse::<u32>) {
            Ok(Ok(number)) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            _ => push_json_string(&redactor.show(place, value), out),
        },
        _ => push_json_string(&redactor.show(place, value), out),
    }
}

fn lossy(text: Option<Text<'_>>) -> Option<String> {
    text.map(|text| String::from_utf8_lossy(&text).into_owned())
}

fn actor(event: &mut Event<'_>, redactor: Shown<'_>) -> String {
    let mut name = |member| {
        lossy(
            event
                .get(member)
                .and_then(|user| user.get("username"))
                .map(|raw| redactor.show(Place::USER, raw)),
        )
    };
    let user = name(Member::User).filter(|user| !user.is_empty()).unwrap_or_else(|| "(unknown)".to_owned());
    match name(Member::ImpersonatedUser) {
        Some(other) => format!("{user} as {other}"),
        None => user,
    }
}

fn target(event: &mut Event<'_>, redactor: Shown<'_>) -> String {
    let object = event.object();
    let Some(resource) = object.resource else {
        return lossy(event.get(Member::RequestUri).map(|raw| redactor.show(Place::URI, raw)))
            .unwrap_or_default();
    };
    let mut target = String::with_capacity(64);
    let mut push = |before: &str, raw: Option<Raw<'_>>, after: &str| {
        if let Some(raw) = raw {
            target.push_str(before);
            target.push_str(&String::from_utf8_lossy(&redactor.show(Place::HEAD, raw)));
            target.push_str(after);
        }
    };
    push("", Some(resource), "");
    push("/", object.subresource, "");
    push(" ", object.namespace, "/");
    push(if object.namespace.is_some() { "" } else { " " }, object.name, "");
    target
}
