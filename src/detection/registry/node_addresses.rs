//! From which addresses the kubelet of each node reaches the apiserver, and so on which node a client is.
//!
//! Takes who sent a request, from where and when; returns whose address that is, and whether it is that of the client's own node.
//! The facts are the requests of kubelets: the apiserver authenticates a node by its certificate, and the last of `sourceIPs` is the peer
//! of the connection, which a client cannot forge.
//!
//! An address identifies a node only if it was seen for [`MIN_AGE`] with the kubelet of that node, and with no other: behind a load
//! balancer or a proxy many nodes have one address, which identifies none. Who holds the certificate of one node could make the address of
//! another look shared by using it there. So a claim to an address that identifies a node already is contested: it counts only after
//! [`MAX_CONTEST`], in which both nodes used the address and the second one was reported, or when the first node left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::eviction::{Standing, make_room};
use super::{is, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::lru::LruMap;
use crate::detection::state::{StateChange, kind};

/// Maximum number of nodes. Kubernetes supports clusters of 5,000.
const MAX_NODES: usize = 8192;

/// Maximum number of addresses of a node, of each kind of evidence. Those that are in use keep others out, so that they cannot be
/// displaced.
const MAX_ADDRESSES: usize = 16;

/// Maximum number of nodes with a claim to one address: more are behind the same proxy.
const MAX_CLAIMANTS: usize = 64;

const MINUTE: i64 = 60_000_000_000;

/// How long an address must have been seen with a node to identify it, in nanoseconds. A kubelet renews the tokens of its pods within an
/// hour, so that each one behind the same proxy is seen in that time.
const MIN_AGE: i64 = 60 * MINUTE;

/// How long an address stays that of a node that is not seen there.
const MAX_IDLE: i64 = 24 * 60 * MINUTE;

/// How long a contested claim does not count while the other node stays.
const MAX_CONTEST: i64 = 3 * 24 * 60 * MINUTE;

/// The time of the last use is recorded in steps of this length.
const STEP: i64 = 5 * MINUTE;

/// Two nodes use an address at the same time if the first one is seen this long after the second one came.
const MIN_OVERLAP: i64 = 10 * MINUTE;

/// Maximum length of the name of a node (RFC 1123 subdomain), in bytes.
const MAX_NAME_BYTES: usize = 253;

/// Product tokens of programs that contain a kubelet.
const KUBELET_PROGRAMS: [&str; 8] =
    ["kubelet", "kubelet.exe", "k3s", "k3s-agent", "kubelite", "hyperkube", "rke2", "virtual-kubelet"];

/// What speaks for an address being that of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Witness {
    Kubelet,
    /// The token of a pod on that node, from an address of another node's kubelet: both are behind the same proxy.
    Token,
}

/// An address that a node was seen with. Times are in nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    address: IpAddr,
    by: Witness,
    first: i64,
    last: i64,
    /// Whether the address identified another node when this one came.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    contested: bool,
}

impl Claim {
    /// Whether the node was seen with the address within a day before a time.
    fn is_current(&self, time: i64) -> bool {
        self.first <= time && !self.has_ended(time)
    }

    fn has_ended(&self, time: i64) -> bool {
        time.saturating_sub(self.last) > MAX_IDLE
    }

    fn is_mature(&self) -> bool {
        self.last.saturating_sub(self.first) >= MIN_AGE
    }

    fn is_settled(&self) -> bool {
        !self.contested || self.last.saturating_sub(self.first) >= MAX_CONTEST
    }
}

type Claims = Vec<Claim>;

/// Who sent a request, as the apiserver authenticated it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Client {
    /// The identity of a node, and whether its program contains a kubelet.
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
    /// None if it is unknown, or of the host of the apiserver.
    address: Option<IpAddr>,
    pub(super) time: Option<i64>,
}

/// On which node the client of an event is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientNode {
    /// The node that alone has the client's address.
    pub(crate) name: Option<String>,
    /// Whether it is the node that the client's token or certificate is for; none if one of them is unknown.
    pub(crate) is_own: Option<bool>,
}

fn is_node_name(name: &str) -> bool {
    let is_part =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_part)
}

/// Returns whether a node or a pod sent the request of an event, by its first members.
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
    nodes: LruMap<Arc<str>, Claims>,
    /// The keys of the nodes with a claim to an address, by cluster and address.
    by_address: BTreeMap<(Box<str>, IpAddr), BTreeSet<Arc<str>>>,
    evicted: u64,
    current: ClientNode,
}

impl Default for NodeAddresses {
    fn default() -> Self {
        NodeAddresses {
            nodes: LruMap::new(MAX_NODES),
            by_address: BTreeMap::new(),
            evicted: 0,
            current: ClientNode::default(),
        }
    }
}

/// The cluster of an event; empty without one. A slash would end it in a key.
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
    /// Forgets the client of the event before.
    pub(super) fn start_event(&mut self) {
        self.current = ClientNode::default();
    }

    /// On which node the client of the current event is.
    pub(super) fn current(&self) -> &ClientNode {
        &self.current
    }

    /// Number of nodes that were evicted, and of addresses that were not taken in.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Determines on which node the client is, and learns from the request if it `counts`.
    pub(super) fn observe(&mut self, request: &NodeRequest, counts: bool) {
        let (Some(address), Some(time)) = (request.address, request.time) else { return };
        self.current = self.locate(request, address, time);
        if !counts {
            return;
        }
        let key = key(&request.cluster, request.client.node());
        match request.client {
            Client::Node { is_kubelet: true, .. } => self.claim(&key, address, Witness::Kubelet, time),
            Client::Pod { .. } if self.is_behind_proxy(&key, address, time) => {
                self.claim(&key, address, Witness::Token, time);
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
            let claims = self.nodes.peek(&**key)?.iter();
            let current = claims.filter(|claim| claim.address == address && claim.is_current(time));
            current.min_by_key(|claim| (!claim.is_settled(), claim.by)).map(|claim| (key, claim))
        })
    }

    /// The claims to an address that count, apart from those of one node, but at most two of them. While nothing else counts, contested claims do.
    fn counted(&self, cluster: &str, address: IpAddr, time: i64, except: &str) -> Vec<(&Arc<str>, &Claim)> {
        let others = |(key, _): &(&Arc<str>, &Claim)| &***key != except;
        let claims = || self.claims_to(cluster, address, time).filter(others);
        let settled: Vec<_> = claims().filter(|(_, claim)| claim.is_settled()).take(2).collect();
        if settled.is_empty() { claims().take(2).collect() } else { settled }
    }

    /// The only node whose claim to an address counts, if it counts for long enough.
    fn owner(&self, cluster: &str, address: IpAddr, time: i64) -> Option<(&Arc<str>, &Claim)> {
        match *self.counted(cluster, address, time, "") {
            [(key, claim)] if claim.by == Witness::Kubelet && claim.is_mature() => Some((key, claim)),
            _ => None,
        }
    }

    /// Whether a node has an address that identifies it, and none that it shares with other kubelets, as behind a proxy.
    fn has_own_address(&self, key: &str, time: i64) -> bool {
        let Some(claims) = self.nodes.peek(key) else { return false };
        let cluster = cluster_of(key);
        let mut has_own = false;
        for claim in claims.iter().filter(|claim| claim.by == Witness::Kubelet && claim.is_current(time)) {
            has_own |= self.owner(cluster, claim.address, time).is_some_and(|(owner, _)| **owner == *key);
            let is_shared = claim.is_settled()
                && self
                    .counted(cluster, claim.address, time, key)
                    .iter()
                    .any(|(_, other)| other.by == Witness::Kubelet && other.is_settled());
            if is_shared {
                return false;
            }
        }
        has_own
    }

    fn locate(&self, request: &NodeRequest, address: IpAddr, time: i64) -> ClientNode {
        let Some((owner, claim)) = self.owner(&request.cluster, address, time) else {
            return ClientNode::default();
        };
        let key = key(&request.cluster, request.client.node());
        let own = self.nodes.peek(&*key).and_then(|claims| {
            claims
                .iter()
                .find(|own| own.address == address && own.by == Witness::Kubelet && own.is_current(time))
        });
        // The address went over to another node if the one that had it does not use it anymore.
        let overlaps = own.map(|own| claim.last.saturating_sub(own.first) >= MIN_OVERLAP);
        let is_own = if **owner == *key {
            Some(true)
        } else {
            let is_other = match (&request.client, overlaps) {
                (Client::Node { .. }, Some(true)) => true,
                (Client::Pod { .. }, Some(false)) => false,
                _ => self.has_own_address(&key, time),
            };
            is_other.then_some(false)
        };
        ClientNode { name: Some(node_of(owner).to_owned()), is_own }
    }

    /// Whether the token of a pod shows that the address of another node's kubelet does not identify that node: it is known for less than
    /// [`MIN_AGE`], or shared anyway.
    fn is_behind_proxy(&self, key: &str, address: IpAddr, time: i64) -> bool {
        let cluster = cluster_of(key);
        let has_kubelet = self
            .claims_to(cluster, address, time)
            .any(|(other, claim)| **other != *key && claim.by == Witness::Kubelet);
        has_kubelet && self.owner(cluster, address, time).is_none()
    }

    fn claim(&mut self, key: &str, address: IpAddr, by: Witness, time: i64) {
        let cluster = cluster_of(key);
        let is_identified = self.owner(cluster, address, time).is_some_and(|(owner, _)| **owner != *key);
        if !self.make_room_for_claimant(key, address, time) {
            self.evicted += 1;
            return;
        }
        let evicted = make_room(&mut self.nodes, MAX_NODES, key, |_, claims| Standing {
            class: u8::from(claims.iter().any(Claim::is_mature)),
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
        let mut is_added = false;
        let mut is_full = false;
        let mut removed = Vec::new();
        self.nodes.change(key, Vec::new, |claims| {
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

    /// Returns whether an address can have a claim by this node: it has one, or there is room for one more. Nodes that left make room.
    fn make_room_for_claimant(&mut self, key: &str, address: IpAddr, time: i64) -> bool {
        let Some(keys) = self.by_address.get(&(Box::from(cluster_of(key)), address)) else { return true };
        if keys.len() < MAX_CLAIMANTS || keys.contains(key) {
            return true;
        }
        let is_gone = |key: &Arc<str>| {
            self.nodes.peek(&**key).is_none_or(|claims| {
                claims.iter().all(|claim| claim.address != address || claim.has_ended(time))
            })
        };
        let gone: Vec<_> = keys.iter().filter(|key| is_gone(key)).cloned().collect();
        for key in &gone {
            self.nodes.change(key, Vec::new, |claims| {
                claims.retain(|claim| claim.address != address);
                true
            });
            self.unlink(key, address);
        }
        !gone.is_empty()
    }

    /// Removes a node from those with a claim to an address, unless it has another one to it.
    fn unlink(&mut self, key: &str, address: IpAddr) {
        if self.nodes.peek(key).is_some_and(|claims| claims.iter().any(|claim| claim.address == address)) {
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

    /// Forgets a node that was deleted: its addresses may become those of others.
    pub(super) fn remove(&mut self, event: &mut Event<'_>, node: &str) {
        let key = key(&cluster(event), node);
        for claim in self.nodes.remove(&*key).unwrap_or_default() {
            self.unlink(&key, claim.address);
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
        if !self.nodes.restore(key, value, |claims: &Claims| claims.len() <= 2 * MAX_ADDRESSES) {
            return false;
        }
        for claim in before {
            self.unlink(name, claim.address);
        }
        for claim in self.nodes.peek(name).cloned().unwrap_or_default() {
            let keys = self.by_address.entry((cluster_of(name).into(), claim.address)).or_default();
            keys.insert(Arc::from(name));
        }
        true
    }
}

impl Claim {
    /// Records that the node was seen with the address again. Returns whether that changes anything.
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
mod tests {
    use super::*;

    const HOUR: i64 = 60;
    const DAY: i64 = 24 * HOUR;

    /// What was learned of one cluster; times are in minutes.
    #[derive(Default)]
    struct Cluster(NodeAddresses);

    impl Cluster {
        fn send(&mut self, client: Client, address: &str, minute: i64) -> ClientNode {
            self.send_in("", client, address, minute)
        }

        fn send_in(&mut self, cluster: &str, client: Client, address: &str, minute: i64) -> ClientNode {
            let address = Some(address.parse().unwrap());
            let time = Some((1_000_000 + minute) * MINUTE);
            self.0.start_event();
            self.0.observe(&NodeRequest { client, cluster: cluster.to_owned(), address, time }, true);
            self.0.current().clone()
        }

        fn kubelet(&mut self, node: &str, address: &str, minute: i64) -> Option<bool> {
            let client = Client::Node { name: node.to_owned(), is_kubelet: true };
            self.send(client, address, minute).is_own
        }

        fn pod(&mut self, node: &str, address: &str, minute: i64) -> Option<bool> {
            self.send(Client::Pod { node: node.to_owned() }, address, minute).is_own
        }

        /// Two nodes that are known for an hour.
        fn of_two() -> Self {
            let mut cluster = Cluster::default();
            for minute in [0, 45, 90] {
                cluster.kubelet("n", "10.0.0.1", minute);
                cluster.kubelet("m", "10.0.0.2", minute);
            }
            cluster
        }

        fn is_consistent(&self) -> bool {
            let mut index: BTreeMap<(Box<str>, IpAddr), BTreeSet<Arc<str>>> = BTreeMap::new();
            for (key, _, claims) in self.0.nodes.iter_with_use() {
                for claim in claims {
                    let place = (cluster_of(key).into(), claim.address);
                    index.entry(place).or_default().insert(key.clone());
                }
            }
            index == self.0.by_address
        }
    }

    #[test]
    fn a_token_is_on_its_node_or_on_another_one() {
        let mut cluster = Cluster::of_two();
        assert_eq!(cluster.pod("n", "10.0.0.1", 91), Some(true));
        assert_eq!(cluster.pod("n", "10.0.0.2", 91), Some(false));
        assert_eq!(
            cluster.pod("n", "::ffff:10.0.0.2", 91),
            None,
            "addresses are canonical when they are read"
        );
        // An address of no kubelet, and a node of which none is known.
        assert_eq!(cluster.pod("n", "10.0.0.3", 91), None);
        assert_eq!(cluster.pod("k", "10.0.0.2", 91), None);
        // A day without a sign of the kubelet.
        assert_eq!(cluster.pod("n", "10.0.0.2", 90 + DAY), Some(false));
        assert_eq!(cluster.pod("n", "10.0.0.2", 91 + DAY), None);
        // Nodes of another cluster with the same names and addresses.
        let other = cluster.send_in("c", Client::Pod { node: "n".to_owned() }, "10.0.0.2", 91);
        assert_eq!(other, ClientNode::default());
    }

    #[test]
    fn an_address_counts_after_an_hour() {
        let mut cluster = Cluster::default();
        for node in ["n", "m"] {
            let address = if node == "n" { "10.0.0.1" } else { "10.0.0.2" };
            cluster.kubelet(node, address, 0);
            cluster.kubelet(node, address, 59);
        }
        assert_eq!(cluster.pod("n", "10.0.0.1", 59), None);
        cluster.kubelet("m", "10.0.0.2", 64);
        // The node of the token has no address of its own yet.
        assert_eq!(cluster.pod("n", "10.0.0.2", 64), None);
        cluster.kubelet("n", "10.0.0.1", 64);
        assert_eq!(cluster.pod("n", "10.0.0.2", 65), Some(false));
        // Events of another log, from before.
        assert_eq!(cluster.pod("n", "10.0.0.2", -1), None);
    }

    #[test]
    fn a_node_has_several_addresses() {
        let mut cluster = Cluster::of_two();
        for minute in [100, 150, 200] {
            cluster.kubelet("n", "fd00::1", minute);
        }
        assert_eq!(cluster.pod("n", "fd00::1", 201), Some(true));
        assert_eq!(cluster.pod("n", "10.0.0.1", 201), Some(true));
        assert_eq!(cluster.pod("m", "fd00::1", 201), Some(false));
    }

    #[test]
    fn shared_addresses_identify_no_node_nor_do_nodes_behind_them() {
        let mut cluster = Cluster::of_two();
        for minute in [0, 45, 90] {
            cluster.kubelet("a", "10.9.0.1", minute);
            cluster.kubelet("b", "10.9.0.1", minute + 5);
            // A second address of the load balancer that only one kubelet has.
            cluster.kubelet("b", "10.9.0.2", minute + 6);
        }
        for (node, address) in [("a", "10.9.0.1"), ("n", "10.9.0.1"), ("a", "10.9.0.2"), ("b", "10.0.0.2")] {
            assert_eq!(cluster.pod(node, address, 97), None, "{node} {address}");
        }
        // A node that joins is one more of many.
        assert_eq!(cluster.kubelet("c", "10.9.0.1", 100), None);
        assert!(cluster.is_consistent());
    }

    #[test]
    fn tokens_show_that_an_address_is_one_of_a_proxy_only_before_it_identifies_a_node() {
        let mut cluster = Cluster::of_two();
        cluster.kubelet("k", "10.9.0.1", 0);
        cluster.pod("n", "10.9.0.1", 30);
        cluster.kubelet("k", "10.9.0.1", 70);
        assert_eq!(cluster.pod("n", "10.9.0.1", 71), None);
        // Uses of a stolen token do not make it quiet.
        for minute in (91..10 * DAY).step_by(50) {
            cluster.kubelet("n", "10.0.0.1", minute);
            cluster.kubelet("m", "10.0.0.2", minute);
            assert_eq!(cluster.pod("n", "10.0.0.2", minute), Some(false));
        }
    }

    #[test]
    fn a_certificate_of_another_node_does_not_make_an_address_look_shared() {
        let mut cluster = Cluster::of_two();
        // The attacker is on m, and has the certificate of n. Each use is reported.
        for minute in (95..3 * DAY).step_by(45) {
            cluster.kubelet("n", "10.0.0.1", minute);
            cluster.kubelet("m", "10.0.0.2", minute);
            assert_eq!(cluster.kubelet("n", "10.0.0.2", minute), Some(false), "{minute}");
            assert_ne!(cluster.pod("n", "10.0.0.2", minute), Some(true));
            if minute > 95 + MIN_OVERLAP / MINUTE {
                assert_eq!(cluster.pod("n", "10.0.0.2", minute), Some(false), "{minute}");
            }
            assert_eq!(cluster.pod("m", "10.0.0.2", minute), Some(true));
        }
        // After three days both have it.
        for minute in [3 * DAY + 100, 3 * DAY + 145] {
            cluster.kubelet("m", "10.0.0.2", minute);
            cluster.kubelet("n", "10.0.0.2", minute);
        }
        assert_eq!(cluster.pod("m", "10.0.0.2", 3 * DAY + 146), None);
    }

    #[test]
    fn a_new_identity_of_a_node_is_reported_where_the_other_one_stays() {
        let mut cluster = Cluster::of_two();
        // As after the creation of a node with an address that became free.
        assert_eq!(cluster.kubelet("new", "10.0.0.2", 95), None);
        assert_eq!(cluster.pod("new", "10.0.0.2", 96), None);
        assert_eq!(cluster.pod("n", "10.0.0.2", 96), Some(false));
        cluster.kubelet("m", "10.0.0.2", 120);
        assert_eq!(cluster.kubelet("new", "10.0.0.2", 121), Some(false));
        assert_eq!(cluster.pod("n", "10.0.0.2", 122), Some(false));
    }

    #[test]
    fn a_free_address_goes_over_to_the_node_that_takes_it() {
        let mut cluster = Cluster::of_two();
        for minute in (100..3 * DAY).step_by(50) {
            cluster.kubelet("n", "10.0.0.1", minute);
            assert_eq!(cluster.pod("new", "10.0.0.2", minute).filter(|own| !own), None);
            cluster.kubelet("new", "10.0.0.2", minute);
        }
        assert_eq!(cluster.pod("new", "10.0.0.2", 3 * DAY), Some(true));
        assert_eq!(cluster.pod("n", "10.0.0.2", 3 * DAY), Some(false));
    }

    #[test]
    fn addresses_in_use_are_not_displaced() {
        let mut cluster = Cluster::of_two();
        for number in 0..200 {
            cluster.kubelet("m", &format!("10.7.0.{number}"), 100);
        }
        assert_eq!(cluster.pod("n", "10.0.0.2", 101), Some(false));
        assert_eq!(cluster.0.nodes.peek("/m").unwrap().len(), MAX_ADDRESSES);
        assert_eq!(cluster.0.evicted(), 200 - MAX_ADDRESSES as u64 + 1);
        // Those that are not used anymore are.
        cluster.kubelet("m", "10.7.1.1", 102 + 2 * DAY);
        assert!(cluster.0.nodes.peek("/m").unwrap().iter().any(|claim| claim.first == claim.last));
        assert!(cluster.is_consistent());
    }

    #[test]
    fn everything_is_bounded() {
        let mut cluster = Cluster::of_two();
        for number in 0..2 * MAX_CLAIMANTS {
            cluster.kubelet(&format!("x{number}"), "10.0.0.2", 95);
        }
        assert!(cluster.0.by_address.values().all(|keys| keys.len() <= MAX_CLAIMANTS));
        assert_eq!(cluster.pod("n", "10.0.0.2", 96), Some(false));
        // When they are gone, others have room.
        cluster.kubelet("late", "10.0.0.2", 96 + 2 * DAY);
        assert!(cluster.0.nodes.peek("/late").is_some_and(|claims| claims.len() == 1));
        assert!(cluster.is_consistent());
        for number in 0..MAX_NODES + 100 {
            let [a, b] = [number / 250, number % 250];
            cluster.kubelet(&format!("flood{number}"), &format!("10.1.{a}.{b}"), 96 + 2 * DAY);
        }
        assert!(cluster.0.nodes.len() <= MAX_NODES && cluster.0.evicted() > 0);
        assert!(cluster.0.nodes.contains("/n") && cluster.is_consistent());
    }

    #[test]
    fn what_was_learned_is_restored() {
        let mut cluster = Cluster::of_two();
        cluster.0.track();
        let mut changes = Vec::new();
        cluster.0.take_changes(&mut changes);
        let mut restored = Cluster::default();
        for change in &changes {
            assert!(restored.0.restore(&change.key, change.value.as_ref().unwrap()));
            assert!(restored.0.restore(&change.key, change.value.as_ref().unwrap()));
        }
        assert!(restored.is_consistent());
        assert_eq!(restored.pod("n", "10.0.0.2", 91), Some(false));
        assert!(!restored.0.restore(b"/n", b"{}") && !restored.0.restore(b"\xff", b""));
        // Times that no event has.
        let odd = format!(
            r#"{{"v":1,"used":9,"is":[{{"address":"10.0.0.2","by":"kubelet","first":{},"last":{}}}]}}"#,
            i64::MIN,
            i64::MAX
        );
        assert!(restored.0.restore(b"/n", odd.as_bytes()));
        restored.pod("n", "10.0.0.2", 91);
        restored.kubelet("n", "10.0.0.2", 91);
    }

    fn of(event: &str) -> Option<NodeRequest> {
        NodeRequest::of(&mut Event::new(event.as_bytes()))
    }

    fn request(user: &str, rest: &str) -> Option<NodeRequest> {
        of(&format!(
            r#"{{"user":{user},"sourceIPs":["203.0.113.9","10.0.0.1"],"userAgent":"kubelet/v1.36"{rest},"stageTimestamp":"2026-01-01T00:00:00Z"}}"#
        ))
    }

    #[test]
    fn only_authenticated_nodes_and_pods_are_read() {
        let kubelet = request(r#"{"username":"system:node:n","groups":["system:nodes"]}"#, "").unwrap();
        assert_eq!(kubelet.client, Client::Node { name: "n".to_owned(), is_kubelet: true });
        assert_eq!(kubelet.address, Some("10.0.0.1".parse().unwrap()));
        for (user, rest) in [
            (r#"{"username":"system:node:n","groups":["system:masters"]}"#, ""),
            (r#"{"username":"system:node:","groups":["system:nodes"]}"#, ""),
            (r#"{"username":"system:node:a/b","groups":["system:nodes"]}"#, ""),
            (
                r#"{"username":"mallory","extra":{"authentication.kubernetes.io/pod-name":["p"],"authentication.kubernetes.io/node-name":["n"]}}"#,
                "",
            ),
            // Bound to a node alone.
            (
                r#"{"username":"system:serviceaccount:a:b","extra":{"authentication.kubernetes.io/node-name":["n"]}}"#,
                "",
            ),
            (r#"{"username":"system:serviceaccount:a:b"}"#, ""),
            ("{}", ""),
        ] {
            assert_eq!(request(user, rest), None, "{user} {rest}");
        }
        let pod = r#"{"username":"system:serviceaccount:a:b","extra":{"authentication.kubernetes.io/pod-name":["p"],"authentication.kubernetes.io/node-name":["n"]}}"#;
        assert_eq!(request(pod, "").unwrap().client, Client::Pod { node: "n".to_owned() });
        // A client that impersonates another is where its own user is, and does not count as a kubelet.
        let other = r#","impersonatedUser":{"username":"system:node:m","groups":["system:nodes"]}"#;
        assert_eq!(request(pod, other).unwrap().client, Client::Pod { node: "n".to_owned() });
        let node = r#"{"username":"system:node:n","groups":["system:nodes"]}"#;
        let client = request(node, other).unwrap().client;
        assert_eq!(client, Client::Node { name: "n".to_owned(), is_kubelet: false });
        for (agent, expected) in
            [("k3s/v1.30.1+k3s1 (linux/amd64)", true), ("kubelet", false), ("kubectl/v1", false), ("", false)]
        {
            let event = format!(r#"{{"user":{node},"userAgent":"{agent}"}}"#);
            let client = of(&event).unwrap().client;
            assert_eq!(client, Client::Node { name: "n".to_owned(), is_kubelet: expected }, "{agent}");
        }
        for (addresses, expected) in [
            (r#"["10.0.0.1","127.0.0.1"]"#, None),
            (r#"["10.0.0.1","::1"]"#, None),
            (r#"["x"]"#, None),
            ("[]", None),
            (r#"["::ffff:10.0.0.1"]"#, Some("10.0.0.1")),
        ] {
            let event = format!(r#"{{"user":{node},"sourceIPs":{addresses}}}"#);
            assert_eq!(
                of(&event).unwrap().address,
                expected.map(|text| text.parse().unwrap()),
                "{addresses}"
            );
        }
    }

    /// The rules have the same list, for conditions about the program itself.
    #[test]
    fn programs_are_those_of_the_rules() {
        let rules = include_str!("../../../rules.d/00-common.yaml");
        let items: Vec<String> = KUBELET_PROGRAMS.iter().map(|program| format!("{program}/")).collect();
        assert!(rules.contains(&format!("items: [{}]", items.join(", "))));
    }
}
