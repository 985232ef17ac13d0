//! Which events change cluster state or depend on it, and so are evaluated in the order of the input.
//!
//! Takes an event and returns whether the ordered pass has to evaluate it; all other events are evaluated on any thread,
//! in any order. The answer depends on the first members of the event wherever that is enough. Both passes ask here, so
//! that the output is the same for any number of threads.

use super::copies;
use super::host_privileges::could_have_host_privileges;
use super::node_addresses::is_of_node;
use super::references::could_name_secrets;
use super::request_info::RequestInfo;
use super::storage_classes;
use super::{is, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::Raw;

/// When events with a certain head depend on the order of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrderDependency {
    #[default]
    None,
    /// Only events whose request or response object names a secret.
    IfNamesSecrets,
    /// Only events whose request or response object names a secret, or gives a pod rights over its node.
    IfHoldsSecrets,
    /// Only events with a request or response object, and requests of nodes and pods.
    IfShowsObjects,
    /// Only requests of nodes and pods, whose addresses are compared with what is known of nodes.
    IfOfNode,
    Always,
}

/// Each line that changes cluster state contains one of these literals, or an escape that spells a part of one. The
/// prefilter must not skip such lines.
pub(crate) const STATE_LITERALS: [&str; 15] = [
    "ecret",
    "\"token\"",
    "privileged",
    "hostP",
    "procMount",
    "\"add\"",
    "\"delete\"",
    "\"roles\"",
    "\"clusterroles\"",
    "\"rolebindings\"",
    "\"clusterrolebindings\"",
    "\"namespaces\"",
    "\"configmaps\"",
    // Of Argo CD, with their sets, of Flux and of K3s.
    "\"applications",
    "\"helm",
];

/// Resources with a pod template, or a volume, which names secrets to mount.
const WORKLOADS: [&str; 9] = [
    "deployments",
    "replicasets",
    "statefulsets",
    "daemonsets",
    "replicationcontrollers",
    "jobs",
    "cronjobs",
    "podtemplates",
    // A volume of its own in place of a persistent one.
    "volumeattachments",
];

impl OrderDependency {
    /// Returns the dependency of all events that share this event's stage, verb, resource and subresource. Nothing else
    /// is read, since the evaluator caches the result by these four.
    pub fn of(event: &mut Event<'_>) -> Self {
        let object = event.object();
        let Some(resource) = text(object.resource) else { return OrderDependency::None };
        if !is_answered(event) {
            return OrderDependency::None;
        }
        match (&*resource, text(object.subresource).as_deref()) {
            ("secrets", None) => OrderDependency::Always,
            // What the pod holds is cluster state, whatever the event shows.
            ("pods", Some("exec" | "attach" | "portforward" | "proxy" | "ephemeralcontainers"))
            | ("nodes", Some("proxy")) => OrderDependency::Always,
            ("pods", None) => OrderDependency::IfHoldsSecrets,
            ("serviceaccounts", None) => OrderDependency::IfNamesSecrets,
            (resource, None)
                if WORKLOADS.contains(&resource) || storage_classes::RESOURCES.contains(&resource) =>
            {
                OrderDependency::IfNamesSecrets
            }
            // Which of them hold a credential is cluster state, whatever the event shows.
            (resource, None | Some("status")) if copies::is_tracked(resource) => {
                if is_verb(event, &["create", "update"]) {
                    OrderDependency::IfShowsObjects
                } else {
                    OrderDependency::Always
                }
            }
            ("serviceaccounts", Some("token"))
            | ("selfsubjectaccessreviews" | "selfsubjectrulesreviews", None) => OrderDependency::IfOfNode,
            ("certificatesigningrequests", None) if !is_verb(event, &["get", "list", "watch"]) => {
                OrderDependency::IfOfNode
            }
            ("nodes", None) if is_verb(event, &["delete"]) => OrderDependency::Always,
            ("roles" | "clusterroles" | "rolebindings" | "clusterrolebindings" | "namespaces", None)
            | ("namespaces", Some("status" | "finalize")) => OrderDependency::IfShowsObjects,
            // What is written often and names no secret.
            ("leases" | "events" | "endpoints" | "endpointslices", None) => OrderDependency::None,
            // A custom resource may name a credential.
            (_, None) if is_verb(event, &["create", "update", "patch"]) => OrderDependency::IfNamesSecrets,
            _ => OrderDependency::None,
        }
    }

    /// Returns whether this event, one of those with that head, has to be evaluated in order.
    pub fn applies_to(self, event: &mut Event<'_>) -> bool {
        match self {
            OrderDependency::None => false,
            OrderDependency::Always => true,
            // A deletion removes state and need not show an object.
            OrderDependency::IfNamesSecrets | OrderDependency::IfHoldsSecrets
                if is(event.get(Member::Verb), "delete") =>
            {
                true
            }
            OrderDependency::IfHoldsSecrets => objects(event)
                .into_iter()
                .flatten()
                .any(|object| could_name_secrets(object) || could_have_host_privileges(object)),
            OrderDependency::IfNamesSecrets => objects(event).into_iter().flatten().any(could_name_secrets),
            OrderDependency::IfShowsObjects if is(event.get(Member::Verb), "delete") => true,
            OrderDependency::IfShowsObjects => {
                objects(event).into_iter().flatten().next().is_some() || is_of_node(event)
            }
            OrderDependency::IfOfNode => is_of_node(event),
        }
    }
}

/// Whether nodes are learned from a request like this: reads of secrets and requests for tokens, which kubelets send, and what
/// controllers in pods send. All contain one of [`STATE_LITERALS`].
pub(super) fn shows_nodes(request: &RequestInfo<'_>) -> bool {
    matches!((&*request.resource, &*request.subresource), ("secrets", "") | ("serviceaccounts", "token"))
        && request.code != Some(401)
}

fn is_verb(event: &mut Event<'_>, verbs: &[&str]) -> bool {
    let verb = event.get(Member::Verb);
    verbs.iter().any(|expected| is(verb, expected))
}

/// Whether the stage of an event is one in which the response was at least begun. The stage before, RequestReceived, shows less, exposes
/// nothing and changes no state.
pub(crate) fn is_answered(event: &mut Event<'_>) -> bool {
    let stage = text(event.get(Member::Stage));
    matches!(stage.as_deref(), Some("ResponseStarted" | "ResponseComplete" | "Panic"))
}

/// The request and response objects. At level Metadata there are none, which is known without reading to the event's end.
fn objects<'a>(event: &mut Event<'a>) -> [Option<Raw<'a>>; 2] {
    if is(event.get(Member::Level), "Metadata") {
        return [None, None];
    }
    [event.get(Member::RequestObject), event.get(Member::ResponseObject)]
}
