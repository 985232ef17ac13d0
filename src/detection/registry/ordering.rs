//! Determines which events change cluster state or depend on it, and must be evaluated in the order of the input.
//!
//! Takes an event and returns whether the ordered pass has to evaluate it; all other events are evaluated on any thread, in any order. The
//! answer only depends on the first members of the event if they are sufficient. Both passes use this module, so that the output is the
//! same for any number of threads.

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
    /// Only requests of nodes and pods, whose addresses are compared with the known addresses of nodes.
    IfOfNode,
    Always,
}

/// Each line that changes cluster state contains one of these literals, or an escape that spells a part of one. The prefilter must not skip
/// such lines.
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
    // Of Argo CD (including sets), Flux and K3s.
    "\"applications",
    "\"helm",
];

/// Resources with a pod template or a volume, which name secrets to mount.
const WORKLOADS: [&str; 9] = [
    "deployments",
    "replicasets",
    "statefulsets",
    "daemonsets",
    "replicationcontrollers",
    "jobs",
    "cronjobs",
    "podtemplates",
    // An ephemeral volume instead of a persistent one.
    "volumeattachments",
];

impl OrderDependency {
    /// Returns the dependency of all events that share this event's stage, verb, resource and subresource. Reads nothing else, since the
    /// evaluator caches the result by these four.
    pub fn of(event: &mut Event<'_>) -> Self {
        let object = event.object();
        let Some(resource) = text(object.resource) else { return OrderDependency::None };
        if !is_answered(event) {
            return OrderDependency::None;
        }
        match (&*resource, text(object.subresource).as_deref()) {
            ("secrets", None) => OrderDependency::Always,
            // The secrets that the pod holds are cluster state, regardless of what the event shows.
            ("pods", Some("exec" | "attach" | "portforward" | "proxy" | "ephemeralcontainers"))
            | ("nodes", Some("proxy")) => OrderDependency::Always,
            ("pods", None) => OrderDependency::IfHoldsSecrets,
            ("serviceaccounts", None) => OrderDependency::IfNamesSecrets,
            (resource, None)
                if WORKLOADS.contains(&resource) || storage_classes::RESOURCES.contains(&resource) =>
            {
                OrderDependency::IfNamesSecrets
            }
            // Whether an object holds a credential is cluster state, regardless of what the event shows.
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

    /// Returns whether this event, one of those with that head, must be evaluated in order.
    pub fn applies_to(self, event: &mut Event<'_>) -> bool {
        match self {
            OrderDependency::None => false,
            OrderDependency::Always => true,
            // A deletion removes state and does not necessarily show an object.
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

/// Whether addresses of nodes are learned from such a request: reads of secrets and requests for tokens, which kubelets send, and requests
/// of controllers in pods. All contain one of [`STATE_LITERALS`].
pub(super) fn shows_nodes(request: &RequestInfo<'_>) -> bool {
    matches!((&*request.resource, &*request.subresource), ("secrets", "") | ("serviceaccounts", "token"))
        && request.code != Some(401)
}

fn is_verb(event: &mut Event<'_>, verbs: &[&str]) -> bool {
    let verb = event.get(Member::Verb);
    verbs.iter().any(|expected| is(verb, expected))
}

/// Whether the response was at least begun at the stage of an event. At the earlier stage RequestReceived, an event shows less, exposes
/// nothing and changes no state.
pub(crate) fn is_answered(event: &mut Event<'_>) -> bool {
    let stage = text(event.get(Member::Stage));
    matches!(stage.as_deref(), Some("ResponseStarted" | "ResponseComplete" | "Panic"))
}

/// The request and response objects. At level Metadata there are none, so the event need not be read to its end.
fn objects<'a>(event: &mut Event<'a>) -> [Option<Raw<'a>>; 2] {
    if is(event.get(Member::Level), "Metadata") {
        return [None, None];
    }
    [event.get(Member::RequestObject), event.get(Member::ResponseObject)]
}
