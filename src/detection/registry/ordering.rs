//! Which events teach something, or are judged by what others taught.
//!
//! All others can be judged in any order, on any thread. This is told from the few members that are known first.

use super::references::could_name_secrets;
use super::{is, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::Raw;

/// Whether an event has to be judged in its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrderDependency {
    /// No.
    #[default]
    None,
    /// If it shows an object that names a secret.
    IfNamesSecrets,
    /// If it shows an object.
    IfShowsObjects,
    /// Yes.
    Always,
}

/// A line that teaches something holds one of these, or an escape that spells a part of one.
pub const STATE_LITERALS: [&str; 5] =
    ["ecret", "\"delete\"", "\"roles\"", "\"clusterroles\"", "\"namespaces\""];

/// What makes pods.
const WORKLOADS: [&str; 8] = [
    "deployments",
    "replicasets",
    "statefulsets",
    "daemonsets",
    "replicationcontrollers",
    "jobs",
    "cronjobs",
    "podtemplates",
];

impl OrderDependency {
    /// Of events with this head: it depends on nothing but stage, verb, resource and subresource.
    pub fn of(event: &mut Event<'_>) -> Self {
        let object = event.object();
        let Some(resource) = text(object.resource) else { return OrderDependency::None };
        // Before a request is answered it says less than after.
        let stage = text(event.get(Member::Stage));
        if !matches!(stage.as_deref(), Some("ResponseStarted" | "ResponseComplete" | "Panic")) {
            return OrderDependency::None;
        }
        match (&*resource, text(object.subresource).as_deref()) {
            ("secrets", None) => OrderDependency::Always,
            ("pods", Some("exec" | "attach" | "portforward" | "proxy")) => OrderDependency::Always,
            ("pods", None | Some("ephemeralcontainers")) | ("serviceaccounts", None) => {
                OrderDependency::IfNamesSecrets
            }
            (resource, None) if WORKLOADS.contains(&resource) => OrderDependency::IfNamesSecrets,
            ("roles" | "clusterroles" | "rolebindings" | "clusterrolebindings" | "namespaces", None) => {
                OrderDependency::IfShowsObjects
            }
            _ => OrderDependency::None,
        }
    }

    /// Whether this event, of that head, has to be judged in its turn.
    pub fn applies_to(self, event: &mut Event<'_>) -> bool {
        match self {
            OrderDependency::None => false,
            OrderDependency::Always => true,
            // A deleted pod names nothing and is to be forgotten.
            OrderDependency::IfNamesSecrets if is(event.get(Member::Verb), "delete") => true,
            OrderDependency::IfNamesSecrets => shown(event).into_iter().flatten().any(could_name_secrets),
            OrderDependency::IfShowsObjects if is(event.get(Member::Verb), "delete") => true,
            OrderDependency::IfShowsObjects => shown(event).into_iter().flatten().next().is_some(),
        }
    }
}

/// The objects that an event shows. At level Metadata there are none, which is known long before the end of the event.
fn shown<'a>(event: &mut Event<'a>) -> [Option<Raw<'a>>; 2] {
    if is(event.get(Member::Level), "Metadata") {
        return [None, None];
    }
    [event.get(Member::RequestObject), event.get(Member::ResponseObject)]
}
