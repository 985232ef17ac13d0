//! Learns the addresses from which the kubelet of each node reaches the apiserver, and determines from them the node that a client runs on.
//!
//! Takes the sender, address and time of a request; returns the node with this address, and whether it is the client's own node. The
//! evidence is in the requests of kubelets: the apiserver authenticates a node by its certificate, and the last of `sourceIPs` is the peer
//! of the connection, which a client cannot forge.
//!
//! An address identifies a node only if it was seen for [`MIN_AGE`] with the kubelet of that node, and with no other: behind a load
//! balancer or a proxy, many nodes share one address, which identifies none of them. The holder of one node's certificate could use it from
//! another node's address to make that address look shared. Therefore a claim to an address that already identifies a node is contested: it
//! only counts after [`MAX_CONTEST`], during which both nodes used the address and the second one was reported, or when the first node
//! left.
//!
//! An address that the inventory declares for one node identifies it from the first event on, unless requests of other kubelets show that
//! it is the address of a proxy on the node, which is common for control plane nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::declared_nodes::{DeclaredNodes, Holder};
use super::eviction::{EvictionPriority, make_room};
use super::inventory::Inventory;
use super::{is, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::lru::LruMap;
use crate::detection::state::{StateChange, kind};

/// Maximum number of nodes. Kubernetes supports clusters of up to 5,000.
const MAX_NODES: usize = 8192;

/// Maximum number of addresses per node and kind of evidence. Addresses in use cannot be displaced by new ones.
const MAX_ADDRESSES: usize = 16;

/// Maximum number of nodes with a claim to one address. If there are more, the address is that of a proxy.
const MAX_CLAIMANTS: usize = 64;

const MINUTE: i64 = 60_000_000_000;

/// How long an address must have been seen with a node to identify it, in nanoseconds. A kubelet renews the tokens of its pods within an
/// hour, so every kubelet behind the same proxy is seen in that time.
const MIN_AGE: i64 = 60 * MINUTE;

/// How long an address is attributed to a node that is no longer seen there.
const MAX_IDLE: i64 = 24 * 60 * MINUTE;

/// How long a contested claim is ignored while the other node still uses the address.
const MAX_CONTEST: i64 = 3 * 24 * 60 * MINUTE;

/// The time of the last use is recorded in steps of this length.
const STEP: i64 = 5 * MINUTE;

/// Two nodes use an address at the same time if the first one is still seen this long after the second one appeared.
const MIN_OVERLAP: i64 = 10 * MINUTE;

/// Maximum length of the name of a node (RFC 1123 subdomain), in bytes.
const MAX_NAME_BYTES: usize = 253;

/// Product tokens of programs that include a kubelet.
const KUBELET_PROGRAMS: [&str; 8] =
    ["kubelet", "kubelet.exe", "k3s", "k3s-agent", "kubelite", "hyperkube", "rke2", "virtual-kubelet"];

/// Evidence for an address being that of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AddressEvidence {
    Kubelet,
    /// A pod's token on that node, used from the address of another node's kubelet: both are behind the same proxy.
    Token,
}

/// An address that a node was seen with. Times are in nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    address: IpAddr,
    by: AddressEvidence,
    first: i64,
    last: i64,
    /// Whether the address identified another node when this one was first seen there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    contested: bool,
}

impl Claim {
    /// Whether the node was seen with the address within a day before the given time.
    fn is_current(&self, time: i64) -> bool {
        self.first <= time && !self.has_ended(time)
    }

    fn has_ended(&self, time: i64) -> bool {
        time.saturating_sub(self.last) > MAX_IDLE
    }

    fn is_mature(&self) -> bool {
        self.last.saturating_sub(self.first) >= MIN_AGE
    }

    fn has_lasted(&self) -> bool {
        self.last.saturating_sub(self.first) >= MAX_CONTEST
    }

    fn is_settled(&self) -> bool {
        !self.contested || self.has_lasted()
    }
}

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    claims: Vec<Claim>,
    /// When it was deleted, if the inventory declares it: earlier declarations do not apply to the next node of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deleted: Option<i64>,
}

impl Node {
    /// The current addresses of its kubelet.
    fn kubelet_claims(&self, time: i64) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(move |claim| claim.by == AddressEvidence::Kubelet && claim.is_current(time))
    }
}

/// The sender of a request, as authenticated by the apiserver.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Client {
    /// The identity of a node, and whether its program includes a kubelet.
    Node { name: String, is_kubelet: bool },
    /// A token that is bound to a pod on this node.
    Pod { node: String },
}

impl Client {
    fn node(&self) -> &str {
        match self {
            Client::Node { name, .. } | Client::Pod { node: name } => name,
        }
    }
}

/// A request by a node or a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeRequest {
    client: Client,
    cluster: String,
    /// None if the address is unknown, or is that of the apiserver's own host.
    address: Option<IpAddr>,
    pub(super) time: Option<i64>,
}

/// The node that an event's client runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientNode {
    /// The only node with the client's address.
    pub(crate) name: Option<String>,
    /// Whether it is the node of the client's token or certificate; none if either is unknown.
    pub(crate) is_own: Option<bool>,
}

fn is_node_name(name: &str) -> bool {
    let is_part =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_part)
}

/// Returns whether a node or a pod sent the request of an event, judging by its first members.
pub(super) fn is_of_node(event: &mut Event<'_>) -> bool {
    client(event).is_some()
}

fn client(event: &mut Event<'_>) -> Option<Client> {
    let user = event.get(Member::User)?;
    let name = text(user.get("username"))?;
    if let Some(node) = name.strip_prefix("system:node:") {
        let is_node = user.items_of("groups").any(|group| is(Some(group), "system:nodes"));
        if !is_node || !is_node_name(node) {
            return None;
        }
        let agent = text(event.get(Member::UserAgent)).unwrap_or_default();
        let program = agent.split_once('/').map(|(program, _)| program);
        // No kubelet impersonates another user.
        let is_kubelet = program.is_some_and(|program| KUBELET_PROGRAMS.contains(&program))
            && event.get(Member::ImpersonatedUser).is_none();
        return Some(Client::Node { name: node.to_owned(), is_kubelet });
    }
    if !name.starts_with("system:serviceaccount:") {
        return None;
    }
    let extra = user.get("extra")?;
    let first = |key: &str| text(extra.items_of(key).next()).filter(|text| !text.is_empty());
    first("authentication.kubernetes.io/pod-name")?;
    let node = first("authentication.kubernetes.io/node-name").filter(|node| is_node_name(node))?;
    Some(Client::Pod { node })
}

impl NodeRequest {
    /// Returns the request of an event, if a node or a pod sent it.
    pub(super) fn of(event: &mut Event<'_>) -> Option<Self> {
        let client = client(event)?;
        let last = event.get(Member::SourceIps).and_then(|raw| raw.items().map_while(Result::ok).last());
        let address =
            text(last).and_then(|text| text.parse::<IpAddr>().ok()).map(|address| address.to_canonical());
        Some(NodeRequest {
            client,
            cluster: cluster(event),
            address: address.filter(|address| !address.is_loopback() && !address.is_unspecified()),
            time: event.time(),
        })
    }
}

/// The addresses of all nodes, bounded.
#[derive(Clone, Debug)]
pub(super) struct NodeAddresses {
    /// By cluster and node, `cluster/node`.
    nodes: LruMap<Arc<str>, Node>,
    /// The keys of the nodes with a claim to an address, by cluster and address.
    by_address: BTreeMap<(Box<str>, IpAddr), BTreeSet<Arc<str>>>,
    declared: DeclaredNodes,
    evicted: u64,
    current: ClientNode,
}

impl Default for NodeAddresses {
    fn default() -> Self {
        NodeAddresses {
            nodes: LruMap::new(MAX_NODES),
            by_address: BTreeMap::new(),
            declared: DeclaredNodes::default(),
            evicted: 0,
            current: ClientNode::default(),
        }
    }
}

/// The cluster of an event; empty if unknown. Slashes are removed because they separate the parts of a key.
fn cluster(event: &mut Event<'_>) -> String {
    event.cluster().map(|name| String::from_utf8_lossy(&name).replace('/', "|")).unwrap_or_default()
}

fn key(cluster: &str, node: &str) -> String {
    format!("{cluster}/{node}")
}

fn cluster_of(key: &str) -> &str {
    key.split_once('/').map_or("", |(cluster, _)| cluster)
}

fn node_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(_, node)| node)
}

impl NodeAddresses {
    /// Sets the declared nodes, replacing previous ones.
    pub(super) fn set_inventory(&mut self, inventory: Arc<Inventory>) {
        self.declared = DeclaredNodes::of(inventory);
    }

    /// Clears the client of the previous event.
    pub(super) fn start_event(&mut self) {
        self.current = ClientNode::default();
    }

    /// The node that the client of the current event runs on.
    pub(super) fn current(&self) -> &ClientNode {
        &self.current
    }

    /// Number of evicted nodes, and of addresses that were not recorded.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Determines the node that the client runs on, and learns from the request if it `counts`.
    pub(super) fn observe(&mut self, request: &NodeRequest, counts: bool) {
        let (Some(address), Some(time)) = (request.address, request.time) else { return };
        self.current = self.locate(request, address, time);
        if !counts {
            return;
        }
        let key = key(&request.cluster, request.client.node());
        match request.client {
            Client::Node { is_kubelet: true, .. } => {
                self.claim(&key, address, AddressEvidence::Kubelet, time);
            }
            Client::Pod { .. } if self.is_behind_proxy(&key, address, time) => {
                self.claim(&key, address, AddressEvidence::Token, time);
            }
            _ => {}
        }
    }

    /// The current claims to an address, each with the key of its node.
    fn claims_to(
        &self,
        cluster: &str,
        address: IpAddr,
        time: i64,
    ) -> impl Iterator<Item = (&Arc<str>, &Claim)> {
        let keys = self.by_address.get(&(Box::from(cluster), address)).into_iter().flatten();
        keys.filter_map(move |key| {
            let claims = self.nodes.peek(&**key)?.claims.iter();
            let current = claims.filter(|claim| claim.address == address && claim.is_current(time));
            current.min_by_key(|claim| (!claim.is_settled(), claim.by)).map(|claim| (key, claim))
        })
    }

    /// The claims to an address that count, except for those of one node; returns at most two. If no other claim counts, contested claims
    /// do.
    fn counted(&self, cluster: &str, address: IpAddr, time: i64, except: &str) -> Vec<(&Arc<str>, &Claim)> {
        let others = |(key, _): &(&Arc<str>, &Claim)| &***key != except;
        let claims = || self.claims_to(cluster, address, time).filter(others);
        let settled: Vec<_> = claims().filter(|(_, claim)| claim.is_settled()).take(2).collect();
        if settled.is_empty() { claims().take(2).collect() } else { settled }
    }

    /// The only node whose claim to an address counts, if it has counted for long enough.
    fn owner(&self, cluster: &str, address: IpAddr, time: i64) -> Option<(&Arc<str>, &Claim)> {
        match *self.counted(cluster, address, time, "") {
            [(key, claim)] if claim.by == AddressEvidence::Kubelet && claim.is_mature() => Some((key, claim)),
            _ => None,
        }
    }

    /// The addresses declared for a node, unless it was deleted since.
    fn declared_addresses(&self, cluster: &str, node: &str) -> Option<&[IpAddr]> {
        let (declared, time) = self.declared.get(node)?;
        let deleted = self.nodes.peek(&*key(cluster, node)).and_then(|node| node.deleted);
        deleted.is_none_or(|deleted| deleted <= time).then_some(&declared.addresses)
    }

    /// The only node for which an address is declared.
    fn declared_holder(&self, cluster: &str, address: IpAddr) -> Holder<'_> {
        self.declared.holder(address, |node| self.declared_addresses(cluster, node).is_some())
    }

    /// Whether the kubelet of a node was seen at an address that is declared for it.
    fn is_at_declared_address(&self, key: &str, time: i64) -> bool {
        let declared = self.declared_addresses(cluster_of(key), node_of(key)).unwrap_or_default();
        let known = self.nodes.peek(key);
        known.is_some_and(|node| node.kubelet_claims(time).any(|claim| declared.contains(&claim.address)))
    }

    /// Whether the kubelets of other nodes show that a declared address is that of a proxy on its node. This requires kubelets of declared
    /// nodes that were not seen at their own addresses, or any kubelet that is seen there for [`MAX_CONTEST`]. The holder of the
    /// certificate of a node that reaches the apiserver directly cannot cause this.
    fn is_of_proxy(&self, holder: &str, address: IpAddr, time: i64) -> bool {
        let cluster = cluster_of(holder);
        let keys = self.by_address.get(&(Box::from(cluster), address)).into_iter().flatten();
        keys.filter(|key| ***key != *holder).any(|key| {
            let Some(node) = self.nodes.peek(&**key) else { return false };
            node.kubelet_claims(time).any(|claim| {
                claim.address == address
                    && (claim.has_lasted()
                        || self.declared_addresses(cluster, node_of(key)).is_some()
                            && !self.is_at_declared_address(key, time))
            })
        })
    }

    /// Whether the kubelet of a node was seen at an address that is declared for another one.
    fn is_behind_other_node(&self, key: &str, time: i64) -> bool {
        let is_of_other = |claim: &Claim| {
            let holder = self.declared_holder(cluster_of(key), claim.address);
            matches!(holder, Holder::Node(holder) if *holder != *node_of(key))
        };
        self.nodes.peek(key).is_some_and(|node| node.kubelet_claims(time).any(is_of_other))
    }

    /// Whether a node has an address that identifies it, and none that it shares with other kubelets (as behind a proxy), or a declared
    /// one.
    fn has_own_address(&self, key: &str, time: i64) -> bool {
        let Some(node) = self.nodes.peek(key) else { return false };
        let cluster = cluster_of(key);
        let (mut has_own, mut has_shared) = (false, false);
        for claim in node.kubelet_claims(time) {
            match self.declared_holder(cluster, claim.address) {
                Holder::Node(holder) if *holder == *node_of(key) => {
                    if !self.is_of_proxy(key, claim.address, time) {
                        return true;
                    }
                }
                Holder::Node(_) | Holder::Several => {}
                Holder::Unknown => {
                    let owner = self.owner(cluster, claim.address, time);
                    has_own |= owner.is_some_and(|(owner, _)| **owner == *key);
                    let others = self.counted(cluster, claim.address, time, key);
                    has_shared |= claim.is_settled()
                        && others
                            .iter()
                            .any(|(_, other)| other.by == AddressEvidence::Kubelet && other.is_settled());
                }
            }
        }
        has_own && !has_shared
    }

    fn locate(&self, request: &NodeRequest, address: IpAddr, time: i64) -> ClientNode {
        match self.declared_holder(&request.cluster, address) {
            Holder::Node(holder) => self.locate_at_declared(request, holder, address, time),
            Holder::Several => ClientNode::default(),
            Holder::Unknown => self.locate_at_learned(request, address, time),
        }
    }

    fn locate_at_declared(
        &self,
        request: &NodeRequest,
        holder: &str,
        address: IpAddr,
        time: i64,
    ) -> ClientNode {
        let holder_key = key(&request.cluster, holder);
        if self.is_of_proxy(&holder_key, address, time) {
            return ClientNode::default();
        }
        let node = request.client.node();
        let key = key(&request.cluster, node);
        let is_own = if node == holder {
            Some(true)
        } else if self.declared_addresses(&request.cluster, node).is_some() {
            // The kubelet may use a proxy on another node, and then pods may use it too. Any other load balancer or gateway that it uses
            // says nothing about pods: their requests to the apiserver's service leave from their node.
            let is_other = self.has_own_address(&key, time)
                || !matches!(request.client, Client::Node { is_kubelet: true, .. })
                    && !self.is_behind_other_node(&key, time);
            is_other.then_some(false)
        } else {
            // The address may have been taken over by a node that is newer than the inventory.
            let last = self.nodes.peek(&*holder_key).and_then(|node| {
                node.kubelet_claims(time).find(|claim| claim.address == address).map(|claim| claim.last)
            });
            self.is_on_other_node(request, &key, address, time, last.unwrap_or(i64::MIN)).then_some(false)
        };
        ClientNode { name: Some(holder.to_owned()), is_own }
    }

    fn locate_at_learned(&self, request: &NodeRequest, address: IpAddr, time: i64) -> ClientNode {
        let Some((owner, claim)) = self.owner(&request.cluster, address, time) else {
            return ClientNode::default();
        };
        let key = key(&request.cluster, request.client.node());
        let is_own = if **owner == *key {
            Some(true)
        } else {
            self.is_on_other_node(request, &key, address, time, claim.last).then_some(false)
        };
        ClientNode { name: Some(node_of(owner).to_owned()), is_own }
    }

    /// Whether a client that is not on its own node is on another one, whose kubelet was last seen there at the given time. If the other
    /// node no longer uses the address, the client's node has taken it over.
    fn is_on_other_node(
        &self,
        request: &NodeRequest,
        key: &str,
        address: IpAddr,
        time: i64,
        last: i64,
    ) -> bool {
        let known = self.nodes.peek(key);
        let own = known.and_then(|node| node.kubelet_claims(time).find(|claim| claim.address == address));
        match (&request.client, own.map(|own| last.saturating_sub(own.first) >= MIN_OVERLAP)) {
            (Client::Node { .. }, Some(true)) => true,
            (Client::Pod { .. }, Some(false)) => false,
            _ => self.has_own_address(key, time),
        }
    }

    /// Whether a pod's token shows that the address of another node's kubelet does not identify that node: it was known for less than
    /// [`MIN_AGE`], or is shared anyway. The token proves nothing about a declared address.
    fn is_behind_proxy(&self, key: &str, address: IpAddr, time: i64) -> bool {
        let cluster = cluster_of(key);
        if self.declared_holder(cluster, address) != Holder::Unknown {
            return false;
        }
        let has_kubelet = self
            .claims_to(cluster, address, time)
            .any(|(other, claim)| **other != *key && claim.by == AddressEvidence::Kubelet);
        has_kubelet && self.owner(cluster, address, time).is_none()
    }

    fn claim(&mut self, key: &str, address: IpAddr, by: AddressEvidence, time: i64) {
        let cluster = cluster_of(key);
        let is_identified = match self.declared_holder(cluster, address) {
            Holder::Node(holder) => *holder != *node_of(key),
            Holder::Several => false,
            Holder::Unknown => self.owner(cluster, address, time).is_some_and(|(owner, _)| **owner != *key),
        };
        if !self.make_room_for_claimant(key, address, time) {
            self.evicted += 1;
            return;
        }
        self.make_room_for_node(key);
        let mut is_added = false;
        let mut is_full = false;
        let mut removed = Vec::new();
        self.nodes.change(key, Node::default, |node| {
            let claims = &mut node.claims;
            if let Some(known) = claims.iter_mut().find(|claim| claim.address == address && claim.by == by) {
                return known.extend_to(time, is_identified);
            }
            let claim = Claim { address, by, first: time, last: time, contested: is_identified };
            if claims.iter().filter(|claim| claim.by == by).count() >= MAX_ADDRESSES {
                let Some(at) = claims.iter().position(|claim| claim.by == by && claim.has_ended(time)) else {
                    is_full = true;
                    return false;
                };
                removed.push(claims.remove(at).address);
            }
            claims.push(claim);
            is_added = true;
            true
        });
        self.evicted += u64::from(is_full);
        for address in removed {
            self.unlink(key, address);
        }
        if is_added {
            self.by_address.entry((cluster.into(), address)).or_default().insert(Arc::from(key));
        }
    }

    fn make_room_for_node(&mut self, key: &str) {
        let evicted = make_room(&mut self.nodes, MAX_NODES, key, |_, node| EvictionPriority {
            class: u8::from(node.claims.iter().any(Claim::is_mature)),
            writer: 0,
        });
        if !evicted.is_empty() {
            self.evicted += evicted.len() as u64;
            let nodes = &self.nodes;
            self.by_address.retain(|_, keys| {
                keys.retain(|key| nodes.contains(&**key));
                !keys.is_empty()
            });
        }
    }

    /// Returns whether this node can claim an address: it has claimed it already, or there is room for another claim. Claims of nodes that
    /// left make room.
    fn make_room_for_claimant(&mut self, key: &str, address: IpAddr, time: i64) -> bool {
        let Some(keys) = self.by_address.get(&(Box::from(cluster_of(key)), address)) else { return true };
        if keys.len() < MAX_CLAIMANTS || keys.contains(key) {
            return true;
        }
        let is_gone = |key: &Arc<str>| {
            self.nodes.peek(&**key).is_none_or(|node| {
                node.claims.iter().all(|claim| claim.address != address || claim.has_ended(time))
            })
        };
        let gone: Vec<_> = keys.iter().filter(|key| is_gone(key)).cloned().collect();
        for key in &gone {
            self.nodes.change(key, Node::default, |node| {
                node.claims.retain(|claim| claim.address != address);
                true
            });
            self.unlink(key, address);
        }
        !gone.is_empty()
    }

    /// Removes a node from those that claim an address, unless it has another claim to it.
    fn unlink(&mut self, key: &str, address: IpAddr) {
        let known = self.nodes.peek(key);
        if known.is_some_and(|node| node.claims.iter().any(|claim| claim.address == address)) {
            return;
        }
        let place = (Box::from(cluster_of(key)), address);
        if let Some(keys) = self.by_address.get_mut(&place) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_address.remove(&place);
            }
        }
    }

    /// Removes a deleted node: its addresses may be reused by others.
    pub(super) fn remove(&mut self, event: &mut Event<'_>, node: &str, time: Option<i64>) {
        let key = key(&cluster(event), node);
        for claim in self.nodes.remove(&*key).unwrap_or_default().claims {
            self.unlink(&key, claim.address);
        }
        if let Some(time) = time.filter(|_| self.declared.get(node).is_some()) {
            self.make_room_for_node(&key);
            self.nodes.set(&key, Node { claims: Vec::new(), deleted: Some(time) });
        }
    }

    pub(super) fn track(&mut self) {
        self.nodes.track();
    }

    pub(super) fn take_changes(&mut self, changes: &mut Vec<StateChange>) {
        self.nodes.take_changes(kind::NODE, changes);
    }

    /// Restores a stored entry. Returns false if this version cannot read it.
    pub(super) fn restore(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Ok(name) = std::str::from_utf8(key) else { return false };
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains(name) {
            return false;
        }
        let before = self.nodes.peek(name).cloned().unwrap_or_default();
        if !self.nodes.restore(key, value, |node: &Node| node.claims.len() <= 2 * MAX_ADDRESSES) {
            return false;
        }
        for claim in before.claims {
            self.unlink(name, claim.address);
        }
        for claim in self.nodes.peek(name).cloned().unwrap_or_default().claims {
            let keys = self.by_address.entry((cluster_of(name).into(), claim.address)).or_default();
            keys.insert(Arc::from(name));
        }
        true
    }
}

impl Claim {
    /// Records that the node was seen with the address again. Returns whether the record changed.
    fn extend_to(&mut self, time: i64, is_identified: bool) -> bool {
        let before = self.clone();
        if self.has_ended(time) {
            (self.first, self.last, self.contested) = (time, time, is_identified);
        } else if time >= self.last.saturating_add(STEP) {
            self.last = time;
        } else if !self.contested && time < self.first && self.first.saturating_sub(time) <= MAX_IDLE {
            // The log of another apiserver, or lines out of order.
            self.first = time;
        }
        // The other node left.
        self.contested &= is_identified;
        *self != before
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
