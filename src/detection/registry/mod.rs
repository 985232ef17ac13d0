//! What is a registry credential, and what an event exposed of them.
//!
//! In comes one audit event after the other, out comes which credentials it handed over, how surely, and which registries
//! they are for; which credentials a pod takes; what a role lets read. What events teach on the way is kept in
//! [`ClusterState`], bounded: types of secrets, references to them, what pods hold, what roles grant.
//!
//! Passwords and tokens are never part of it: a docker config is read for its hosts and user names, and the rest is
//! dropped at once. Nothing here knows of rules.

mod cluster_state;
mod docker_config;
mod exposure;
mod grants;
mod long_running;
mod lru;
mod ordering;
mod pod_security;
mod references;

pub use cluster_state::{ClusterState, Evidence, Sizes};
pub use docker_config::copied_configuration_keys;
pub use exposure::{Exposure, ExposureKind, ReadScope, selects_credential_types};
pub use grants::granted_verbs;
pub use ordering::{OrderDependency, STATE_LITERALS};
pub use pod_security::change as pod_security_change;
pub use references::{image_hosts, referenced_credentials};

use cluster_state::object_name;

use crate::detection::audit::event::{Event, Member, ObjectRef};
use crate::detection::audit::json::Raw;
use crate::text::name_patterns::NamePatterns;

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
pub fn observe(event: &mut Event<'_>, names: &NamePatterns, cluster_state: &mut ClusterState) -> Exposure {
    let resource = text(event.object().resource).unwrap_or_default();
    match resource.as_str() {
        "secrets" => return Exposure::of(event, names, Some(cluster_state)),
        "roles" | "clusterroles" => grants::learn(event, cluster_state),
        "rolebindings" | "clusterrolebindings" | "namespaces" => {}
        _ => references::learn(event, cluster_state),
    }
    Exposure::default()
}

/// Learns what holds only once an event was judged: what was there before it is what it is judged by.
pub fn learn_after_evaluation(event: &mut Event<'_>, cluster_state: &mut ClusterState) {
    exposure::forget(event, cluster_state);
    pod_security::learn(event, cluster_state);
}

/// Learns from an event without judging it.
pub fn learn(event: &mut Event<'_>, names: &NamePatterns, cluster_state: &mut ClusterState) {
    if OrderDependency::of(event).applies_to(event) {
        observe(event, names, cluster_state);
        learn_after_evaluation(event, cluster_state);
    }
}
