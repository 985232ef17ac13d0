//! What all alerts of one event share: when, who, on what, and the head of the event.

use std::cell::OnceCell;
use std::rc::Rc;

use super::value::Text;
use crate::detection::audit::event::{Event, Member, ObjectRef};
use crate::detection::audit::event_id;
use crate::detection::audit::json::Raw;
use crate::detection::audit::redact::Place;
use crate::detection::audit::time;
use crate::detection::registry::Exposure;
use crate::text::escape::{is_plain_string, push_json_string};

/// What all alerts of one event share.
#[derive(Debug)]
pub struct Incident<'e> {
    /// When, in nanoseconds since 1970; 0 where the event does not say.
    pub(super) time: i64,
    /// The event's whole content, but for what a webhook leaves out.
    pub(super) content: &'e [u8],
    /// Its SHA-256, once somebody asks.
    pub(super) hash: OnceCell<[u8; 32]>,
    /// The `event` member of the alert's JSON.
    pub(super) summary: Vec<u8>,
    /// What it exposed of registry credentials.
    pub(super) exposure: Rc<Exposure>,
    /// Who, for people.
    pub(super) actor: String,
    /// On what, for people.
    pub(super) target: String,
    /// Where the event says who asked for what.
    pub(super) parts: Parts<'e>,
}

/// Parts of an event that are seldom asked for, as they are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'e> {
    pub(super) user: Option<Raw<'e>>,
    pub(super) impersonated: Option<Raw<'e>>,
    pub(super) client: Option<Raw<'e>>,
    pub(super) agent: Option<Raw<'e>>,
    pub(super) verb: Option<Raw<'e>>,
    pub(super) object: ObjectRef<'e>,
    pub(super) code: Option<Raw<'e>>,
}

impl<'e> Incident<'e> {
    /// Reads the event to its end.
    pub fn new(event: &mut Event<'e>, exposure: Rc<Exposure>) -> Self {
        let content = event_id::content(event.bytes());
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
            code: event.path(&["responseStatus", "code"]),
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

    /// SHA-256 of the event's content.
    pub fn hash(&self) -> &[u8; 32] {
        self.hash.get_or_init(|| event_id::hash(self.content))
    }

    /// The same of an event that is gone, whose [`note`](Incident::note) this was made of.
    #[must_use]
    pub fn with_hash(self, hash: [u8; 32]) -> Self {
        Incident { hash: OnceCell::from(hash), ..self }
    }

    /// What it exposed of registry credentials.
    pub fn exposure(&self) -> &Exposure {
        &self.exposure
    }

    /// The head of the event as an event of its own, with nothing in it that must not be said: for an alert that is made
    /// when the event itself is gone.
    pub fn note(&self) -> Vec<u8> {
        let mut note = self.summary.clone();
        note.pop();
        // Where an event has it; the summary has a shorter way.
        if self.parts.code.is_some() {
            push_key(&mut note, "responseStatus");
            let mut status = Vec::new();
            push_member(&mut status, "code", self.parts.code, Place::Plain);
            close(&mut status, 0);
            note.extend_from_slice(&status);
        }
        note.extend_from_slice(b",\"stageTimestamp\":\"");
        time::write_rfc3339(&mut note, self.time);
        note.extend_from_slice(b"\"}");
        note
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
    use crate::detection::audit::json::Type;
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

pub(super) fn shown(raw: Option<Raw<'_>>) -> Option<String> {
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
