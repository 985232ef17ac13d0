//! The request of an audit event: what it was about, and what came of it.
//!
//! Takes an event and returns what exposure, references, grants and Pod Security all ask of its head, read once per event.
//! Nothing of the objects is kept but the name that the server generated.

use super::text;
use crate::detection::audit::event::{Event, Member};

/// What a request was about. Texts are empty where the event does not have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub(super) resource: String,
    pub(super) subresource: String,
    /// Empty for cluster-scoped objects and for requests across all namespaces.
    pub(super) namespace: String,
    /// The name of the object; the generated one, from the response, where the request has none.
    pub(super) name: String,
    /// Whether the request named one object, in its path or by a selector.
    pub(super) has_name: bool,
    /// Whether the request named a namespace.
    pub(super) has_namespace: bool,
    pub(super) verb: String,
    /// Whether the request was allowed and done, as far as the event says. Dry runs count.
    pub(super) has_succeeded: bool,
}

impl RequestInfo {
    /// Reads the request of an event.
    pub fn of(event: &mut Event<'_>) -> Self {
        let object = event.object();
        let name = text(object.name);
        RequestInfo {
            resource: text(object.resource).unwrap_or_default(),
            subresource: text(object.subresource).unwrap_or_default(),
            namespace: text(object.namespace).unwrap_or_default(),
            has_name: name.is_some(),
            has_namespace: object.namespace.is_some(),
            name: name
                .or_else(|| text(event.path(&["responseObject", "metadata", "name"])))
                .unwrap_or_default(),
            verb: text(event.get(Member::Verb)).unwrap_or_default(),
            has_succeeded: event
                .path(&["responseStatus", "code"])
                .is_none_or(|code| code.bytes().first() == Some(&b'2')),
        }
    }

    /// Returns whether the request is about secrets, and not about a subresource of one.
    pub(super) fn is_about_secrets(&self) -> bool {
        self.resource == "secrets" && self.subresource.is_empty()
    }
}
