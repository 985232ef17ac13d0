//! One read of secrets, with the properties that profiles compare.

use sha2::{Digest as _, Sha256};

use crate::detection::alert::push_hex;
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};
use crate::detection::audit::redact::{REDACTED, is_user_name};
use crate::detection::audit::uri::query::Readings;
use crate::detection::registry::exposure::{Exposure, ReadScope};
use crate::detection::registry::exposure_kind::ExposureKind;
use crate::detection::registry::request_info::RequestInfo;
use crate::detection::registry::watch_query::certainly_sends_initial_events;
use crate::detection::registry::{is, text};

/// Maximum length of a product token that is compared, in bytes.
const MAX_PROGRAM_BYTES: usize = 64;

/// Maximum length of the selectors of a list that is compared with watches, in bytes.
const MAX_SELECTOR_BYTES: usize = 200;

/// Events from before the first version of Kubernetes (2014-06-06) have no day.
const MIN_DAY: i64 = 16_227;

const DAY: i64 = 86_400_000_000_000;

/// How many secrets a read covers, fewest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::detection::registry) enum Breadth {
    Secret,
    Namespace,
    Cluster,
}

/// What a request did with secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::detection::registry) enum RequestKind {
    /// It was or may have been answered with what is stored.
    Read,
    /// It stored a secret, and was answered with what the client sent.
    Write,
    /// It was refused, or what it asked for does not exist.
    Failure,
}

/// Which authorizer allowed a node to read one secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::detection::registry) enum NodeAccess {
    /// The Node authorizer, because a pod that is bound to the node uses the secret. It gives no reason.
    Pod,
    /// RBAC, which is asked if the Node authorizer is disabled or knows no such pod.
    Rbac,
}

/// A request that handed over secrets, or may have, or one that stored a secret or failed.
#[derive(Clone, Debug)]
pub(in crate::detection::registry) struct Read<'x> {
    pub kind: RequestKind,
    pub user: String,
    pub impersonated: Option<String>,
    /// Whether user name and groups are those of a service account, without impersonation.
    pub is_service_account: bool,
    /// get, list, watch, or a write.
    pub verb: String,
    pub breadth: Breadth,
    /// `cluster`, `namespace:NAME` or `secret:NAMESPACE`.
    pub scope: String,
    /// The product token of the user agent; `(none)` without user agent. None if it is not a token that may be stored.
    pub program: Option<String>,
    /// The network of the client; none if the address is unknown.
    pub network: Option<String>,
    /// The pod that the token is bound to.
    pub pod: Option<String>,
    /// The authorizer that allowed it, if it is a read of one secret by a node.
    pub node_access: Option<NodeAccess>,
    /// Credentials that the request named and that were or may have been handed over, or stored.
    pub credentials: &'x [String],
    /// Whether a credential was or may have been handed over.
    pub exposes: bool,
    /// The scope, if it handed over every secret of it, or may have ([`list_key`]), or may hand over what changes there ([`watch_key`]), with the
    /// program.
    pub listed: Option<String>,
    /// Whether the response is logged and contains only metadata.
    pub is_metadata: bool,
    /// The label and the field selector; none if versions of the apiserver parse them differently.
    pub selector: Option<String>,
    /// In nanoseconds since 1970; none if it is implausible.
    pub time: Option<i64>,
}

/// The key under which a profile stores a list: its scope, and the program that received it.
pub(super) fn list_key(scope: &str, program: &str) -> String {
    format!("{scope} {program}")
}

/// The same for a watch that sends what changes from then on.
pub(super) fn watch_key(scope: &str, program: &str) -> String {
    format!("watch {scope} {program}")
}

impl<'x> Read<'x> {
    /// Returns the read of an event; none if the event is not a read.
    pub fn of(event: &mut Event<'_>, request: &RequestInfo, exposure: &'x Exposure) -> Option<Self> {
        // A handler that panicked may have written its response before.
        let may_have_answered = request.may_have_succeeded() || is(event.get(Member::Stage), "Panic");
        if !request.is_about_secrets() {
            return None;
        }
        let kind = match (may_have_answered, is_read(request)) {
            (true, true) => RequestKind::Read,
            (true, false) => RequestKind::Write,
            // A client that is not authenticated is nobody.
            (false, _) if request.code == Some(401) => return None,
            (false, _) => RequestKind::Failure,
        };
        let user = event.get(Member::User);
        let name = text(user.and_then(|user| user.get("username"))).unwrap_or_default();
        let impersonated = text(event.path(&["impersonatedUser", "username"]));
        let is_service_account = impersonated.is_none()
            && event.get(Member::ImpersonatedUser).is_none()
            && service_account(&name).is_some()
            && user.is_some_and(|user| {
                user.items_of("groups").any(|group| is(Some(group), "system:serviceaccounts"))
            });
        // Writes are compared for service accounts alone.
        if kind == RequestKind::Write && !is_service_account {
            return None;
        }
        let (breadth, scope) = match exposure.scope {
            ReadScope::Cluster => (Breadth::Cluster, "cluster".to_owned()),
            ReadScope::Namespace => (Breadth::Namespace, format!("namespace:{}", request.namespace)),
            ReadScope::Secret => (Breadth::Secret, format!("secret:{}", request.namespace)),
        };
        let node_access = if breadth == Breadth::Secret { node_access(event) } else { None };
        let exposes = matches!(exposure.kind, ExposureKind::Payload | ExposureKind::Presumed);
        let is_named = breadth == Breadth::Secret && (exposes || kind == RequestKind::Write);
        let uri = event.text(Member::RequestUri);
        let selector = uri.as_ref().map_or(Some(String::new()), |uri| selectors(uri));
        let has_existing = match &*request.verb {
            "list" => true,
            "watch" => uri.as_ref().is_some_and(|uri| certainly_sends_initial_events(uri)),
            _ => false,
        };
        let is_whole_scope = exposes && breadth != Breadth::Secret && selector.as_deref() == Some("&");
        let program = program(event);
        let listed = program
            .as_deref()
            .filter(|_| is_whole_scope)
            .map(|program| if has_existing { list_key(&scope, program) } else { watch_key(&scope, program) });
        Some(Read {
            kind,
            user: stored_name(name),
            impersonated: impersonated.map(stored_name),
            is_service_account,
            verb: request.verb.to_string(),
            breadth,
            scope,
            program,
            network: event.get(Member::SourceIps).and_then(network),
            pod: bound_pod(event),
            node_access,
            credentials: if is_named { &exposure.secrets } else { &[] },
            exposes,
            listed,
            is_metadata: !exposes && request.verb == "list" && is_metadata(event),
            selector,
            time: event.time().filter(|time| time.div_euclid(DAY) >= MIN_DAY),
        })
    }

    /// The day of the event, in days since 1970.
    pub fn day(&self) -> Option<i64> {
        self.time.map(|time| time.div_euclid(DAY))
    }

    /// What a list and the watch that continues it have in common.
    pub fn stream(&self) -> Option<String> {
        let selector = self.selector.as_ref().filter(|selector| selector.len() <= MAX_SELECTOR_BYTES)?;
        let (program, network) = (self.program.as_ref()?, self.network.as_ref()?);
        Some(format!("{program} {network} {} {selector}", self.scope))
    }
}

/// Returns whether the response to a request may contain what is stored. The response to a create or an update contains what the client
/// sent, so a dry run reveals nothing.
fn is_read(request: &RequestInfo<'_>) -> bool {
    match &*request.verb {
        "get" | "list" | "watch" | "patch" | "delete" | "deletecollection" => true,
        "create" | "update" => request.dry_run() != "false",
        _ => false,
    }
}

/// Namespace and name of a service account, from its user name.
pub(crate) fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let is_name = |text: &str| !text.is_empty() && !text.contains([':', '/', '\n']);
    (is_name(namespace) && is_name(name)).then_some((namespace, name))
}

/// The product token of the user agent.
pub(super) fn program(event: &mut Event<'_>) -> Option<String> {
    let Some(agent) = event.text(Member::UserAgent).filter(|agent| !agent.is_empty()) else {
        return Some("(none)".to_owned());
    };
    let end =
        agent.iter().position(|byte| *byte == b'/' || byte.is_ascii_whitespace()).unwrap_or(agent.len());
    let token = std::str::from_utf8(&agent[..end]).ok()?;
    let is_token = !token.is_empty()
        && token.len() <= MAX_PROGRAM_BYTES
        && token.bytes().all(|byte| byte.is_ascii_graphic())
        && is_user_name(token.as_bytes());
    is_token.then(|| token.to_owned())
}

/// The name under which an identity is stored. A client chooses it and may send a token in its place, of which a hash is kept, so that such
/// identities stay apart.
fn stored_name(name: String) -> String {
    if is_user_name(name.as_bytes()) {
        return name;
    }
    let mut hash = Vec::new();
    push_hex(&Sha256::digest(&name)[..8], &mut hash);
    format!("{REDACTED} {}", String::from_utf8_lossy(&hash))
}

/// The network of the peer's address: /24 for IPv4, /64 for IPv6, the address itself for loopback addresses.
fn network(addresses: Raw<'_>) -> Option<String> {
    let last = addresses.items().map_while(Result::ok).last()?;
    let address: std::net::IpAddr = std::str::from_utf8(&last.string()?).ok()?.parse().ok()?;
    Some(match address.to_canonical() {
        address if address.is_loopback() => address.to_string(),
        std::net::IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        std::net::IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    })
}

/// The selectors of a request, which must be equal in every reading of its query.
fn selectors(uri: &[u8]) -> Option<String> {
    let readings = Readings::of(uri);
    let both = ["labelSelector", "fieldSelector"].map(|name| {
        let value = readings.current().first(name).unwrap_or_default();
        readings
            .all(|query| query.first(name).unwrap_or_default() == value)
            .then(|| String::from_utf8_lossy(value))
    });
    let [labels, fields] = both;
    Some(format!("{}&{}", labels?, fields?))
}

/// The pod that a token is bound to, as the apiserver verified it.
fn bound_pod(event: &mut Event<'_>) -> Option<String> {
    let extra = event.path(&["user", "extra"])?;
    ["authentication.kubernetes.io/pod-uid", "authentication.kubernetes.io/pod-name"]
        .into_iter()
        .find_map(|key| text(extra.items_of(key).next()).filter(|pod| !pod.is_empty()))
}

/// The authorizer that allowed the request of a node, according to the apiserver's annotations.
fn node_access(event: &mut Event<'_>) -> Option<NodeAccess> {
    let user = event.get(Member::User)?;
    let has_group = |name| user.items_of("groups").any(|group| is(Some(group), name));
    let is_node = text(user.get("username")).is_some_and(|name| name.starts_with("system:node:"))
        && has_group("system:nodes");
    // No authorizer is asked for members of system:masters.
    if !is_node || has_group("system:masters") || event.get(Member::ImpersonatedUser).is_some() {
        return None;
    }
    if !is(event.path(&["annotations", "authorization.k8s.io/decision"]), "allow") {
        return None;
    }
    match &*text(event.path(&["annotations", "authorization.k8s.io/reason"]))? {
        "" => Some(NodeAccess::Pod),
        reason => reason.starts_with("RBAC: ").then_some(NodeAccess::Rbac),
    }
}

/// Whether the logged response contains only metadata.
fn is_metadata(event: &mut Event<'_>) -> bool {
    let Some(response) = event.get(Member::ResponseObject).filter(|response| response.kind() == Type::Object)
    else {
        return false;
    };
    is(response.get("kind"), "PartialObjectMetadataList") && event.finish().is_ok()
}
