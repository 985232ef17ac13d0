//! What is a registry credential, and what an event exposed of them.
//!
//! In comes one audit event after the other, out comes which credentials it handed over, how surely, and which registries
//! they are for; which credentials a pod takes; what a role lets read. What events teach on the way is kept in
//! [`Knowledge`], bounded: types of secrets, references to them, what pods hold, what roles grant.
//!
//! Passwords and tokens are never part of it: a docker config is read for its hosts and user names, and the rest is
//! dropped at once. Nothing here knows of rules.

mod docker_config;
mod exposure;
mod grants;
mod knowledge;
mod long_running;
mod lru;
mod names;
mod ordering;
mod pod_security;
mod references;

pub use docker_config::keys_of_copies;
pub use exposure::{Exposure, Kind, Scope, asks_for_credentials};
pub use grants::granted;
pub use knowledge::{Evidence, Knowledge, Sizes};
pub use names::Names;
pub use ordering::{Concern, TEACHES};
pub use pod_security::change as pod_security_change;
pub use references::{image_hosts, referenced};

use knowledge::object_name;

use crate::detection::audit::event::{Event, Member, ObjectRef};
use crate::detection::audit::json::Raw;

/// A text of an event as a string.
fn text(raw: Option<Raw<'_>>) -> Option<String> {
    raw.and_then(Raw::string).map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// Whether a part of `objectRef` or another value is this text.
fn is(raw: Option<Raw<'_>>, word: &str) -> bool {
    raw.is_some_and(|raw| {
        let bytes = raw.bytes();
        bytes.len() == word.len() + 2 && &bytes[1..=word.len()] == word.as_bytes()
            || memchr::memchr(b'\\', bytes).is_some() && *raw.text() == *word.as_bytes()
    })
}

/// Whether the request was granted and done, as far as the event says. A dry run counts: it answers like the real one.
fn succeeded(event: &mut Event<'_>) -> bool {
    event.path(&["responseStatus", "code"]).is_none_or(|code| code.bytes().first() == Some(&b'2'))
}

/// The namespace that a request was about; empty for none.
fn namespace_of(object: ObjectRef<'_>) -> String {
    text(object.namespace).unwrap_or_default()
}

/// The objects of an event, the answer first: it is the whole where the request may be a part.
fn bodies<'a>(event: &mut Event<'a>) -> impl Iterator<Item = Raw<'a>> {
    [event.get(Member::ResponseObject), event.get(Member::RequestObject)].into_iter().flatten()
}

/// Judges an event that has to be judged in its turn: learns from it, and says what it exposed.
pub fn observe(event: &mut Event<'_>, names: &Names, knowledge: &mut Knowledge) -> Exposure {
    let resource = text(event.object().resource).unwrap_or_default();
    match resource.as_str() {
        "secrets" => return Exposure::of(event, names, Some(knowledge)),
        "roles" | "clusterroles" => grants::learn(event, knowledge),
        "rolebindings" | "clusterrolebindings" | "namespaces" => {}
        _ => references::learn(event, knowledge),
    }
    Exposure::default()
}

/// Learns what holds only once an event was judged: what was there before it is what it is judged by.
pub fn settle(event: &mut Event<'_>, knowledge: &mut Knowledge) {
    exposure::forget(event, knowledge);
    pod_security::learn(event, knowledge);
}

/// Learns from an event without judging it.
pub fn learn(event: &mut Event<'_>, names: &Names, knowledge: &mut Knowledge) {
    if Concern::of(event).applies(event) {
        observe(event, names, knowledge);
        settle(event, knowledge);
    }
}
