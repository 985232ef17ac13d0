use super::*;
use crate::detection::registry::inventory::{DeclaredNode, Origin, insert};

const HOUR: i64 = 60;
const DAY: i64 = 24 * HOUR;

/// State learned from one cluster; times are in minutes.
#[derive(Default)]
struct Cluster(NodeAddresses);

impl Cluster {
    /// Nodes with their addresses, declared at the given time.
    fn declared(nodes: &[(&str, &[&str])], minute: i64) -> Self {
        let mut cluster = Cluster::default();
        cluster.declare(nodes, minute);
        cluster
    }

    fn declare(&mut self, nodes: &[(&str, &[&str])], minute: i64) {
        let mut inventory = Inventory::default();
        let time = (1_000_000 + minute) * MINUTE;
        let origin = inventory.add_origin(Origin { source: "nodes".to_owned(), time });
        for (name, addresses) in nodes {
            let mut node = DeclaredNode::default();
            addresses.iter().for_each(|address| node.add_address(address));
            insert(&mut inventory.nodes, "nodes", name, node, origin).unwrap();
        }
        self.0.set_inventory(Arc::new(inventory));
    }

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

    /// Two nodes that have been known for an hour.
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
        for (key, _, node) in self.0.nodes.iter_with_use() {
            for claim in &node.claims {
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
    assert_eq!(cluster.pod("n", "::ffff:10.0.0.2", 91), None, "addresses are canonical when they are read");
    // An address without a kubelet, and a node without known addresses.
    assert_eq!(cluster.pod("n", "10.0.0.3", 91), None);
    assert_eq!(cluster.pod("k", "10.0.0.2", 91), None);
    // A day without requests of the kubelet.
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
    // The node of the token has no known address yet.
    assert_eq!(cluster.pod("n", "10.0.0.2", 64), None);
    cluster.kubelet("n", "10.0.0.1", 64);
    assert_eq!(cluster.pod("n", "10.0.0.2", 65), Some(false));
    // Earlier events of another log.
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
        // A second load balancer address that only one kubelet uses.
        cluster.kubelet("b", "10.9.0.2", minute + 6);
    }
    for (node, address) in [("a", "10.9.0.1"), ("n", "10.9.0.1"), ("a", "10.9.0.2"), ("b", "10.0.0.2")] {
        assert_eq!(cluster.pod(node, address, 97), None, "{node} {address}");
    }
    // A joining node is one more of many behind the address.
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
    // Repeated uses of a stolen token are still reported.
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
    // After three days both have the address.
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
    assert_eq!(cluster.0.nodes.peek("/m").unwrap().claims.len(), MAX_ADDRESSES);
    assert_eq!(cluster.0.evicted(), 200 - MAX_ADDRESSES as u64 + 1);
    // Addresses that are no longer used can be displaced.
    cluster.kubelet("m", "10.7.1.1", 102 + 2 * DAY);
    assert!(cluster.0.nodes.peek("/m").unwrap().claims.iter().any(|claim| claim.first == claim.last));
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
    // When they are gone, there is room for others.
    cluster.kubelet("late", "10.0.0.2", 96 + 2 * DAY);
    assert!(cluster.0.nodes.peek("/late").is_some_and(|node| node.claims.len() == 1));
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
    // Implausible times.
    let odd = format!(
        r#"{{"v":1,"used":9,"is":{{"claims":[{{"address":"10.0.0.2","by":"kubelet","first":{},"last":{}}}]}}}}"#,
        i64::MIN,
        i64::MAX
    );
    assert!(restored.0.restore(b"/n", odd.as_bytes()));
    restored.pod("n", "10.0.0.2", 91);
    restored.kubelet("n", "10.0.0.2", 91);
}

const DECLARED: &[(&str, &[&str])] = &[
    ("n", &["10.0.0.1", "fd00::1"]),
    ("m", &["10.0.0.2"]),
    ("a", &["10.0.0.3", "203.0.113.1"]),
    ("b", &["10.0.0.4", "203.0.113.1"]),
];

#[test]
fn declared_addresses_identify_nodes_from_the_first_event_on() {
    // No kubelet is seen, as on K3s servers.
    let mut cluster = Cluster::declared(DECLARED, 0);
    assert_eq!(cluster.pod("n", "10.0.0.2", 0), Some(false));
    assert_eq!(cluster.pod("n", "10.0.0.1", 0), Some(true));
    assert_eq!(cluster.pod("n", "fd00::1", 0), Some(true));
    assert_eq!(cluster.pod("m", "fd00::1", 0), Some(false));
    // An address of no node, one of several nodes, and a node that is not declared.
    assert_eq!(cluster.pod("n", "10.244.0.7", 0), None);
    for node in ["n", "a", "b"] {
        assert_eq!(cluster.pod(node, "203.0.113.1", 0), None);
    }
    assert_eq!(cluster.pod("new", "10.0.0.2", 0), None);
    // The identity of a node used by a program other than a kubelet; a kubelet that is first seen elsewhere may be behind a proxy there.
    let curl = Client::Node { name: "n".to_owned(), is_kubelet: false };
    assert_eq!(cluster.send(curl, "10.0.0.2", 0).is_own, Some(false));
    cluster.kubelet("n", "10.0.0.1", 1);
    assert_eq!(cluster.kubelet("n", "10.0.0.2", 1), Some(false));
    assert_eq!(cluster.pod("m", "10.0.0.2", 1), Some(true));
    assert!(cluster.is_consistent());
}

#[test]
fn tokens_and_certificates_do_not_make_a_declared_address_look_shared() {
    let mut cluster = Cluster::declared(DECLARED, 0);
    for minute in (0..2 * DAY).step_by(25) {
        cluster.kubelet("n", "10.0.0.1", minute);
        assert_eq!(cluster.pod("n", "10.0.0.2", minute), Some(false), "{minute}");
        // A forged node identity.
        cluster.kubelet("bogus", "10.0.0.2", minute);
        cluster.pod("bogus", "10.0.0.2", minute);
        assert_eq!(cluster.kubelet("n", "10.0.0.2", minute), Some(false), "{minute}");
        assert_eq!(cluster.pod("n", "10.0.0.2", minute), Some(false), "{minute}");
    }
    // After three days both have the address.
    for minute in (2 * DAY..4 * DAY).step_by(25) {
        cluster.kubelet("n", "10.0.0.1", minute);
        cluster.kubelet("n", "10.0.0.2", minute);
    }
    assert_eq!(cluster.pod("n", "10.0.0.2", 4 * DAY), None);
}

/// As with HAProxy on control plane nodes, and a virtual address that moves from one to another.
#[test]
fn kubelets_behind_a_proxy_on_a_declared_node_are_quiet() {
    let mut cluster = Cluster::declared(
        &[("cp1", &["10.0.0.1"]), ("cp2", &["10.0.0.2"]), ("w1", &["10.0.1.1"]), ("w2", &["10.0.1.2"])],
        0,
    );
    for (proxy, minute) in [("10.0.0.1", 0), ("10.0.0.2", 200), ("10.0.0.1", 300)] {
        for minute in (minute..minute + 80).step_by(10) {
            for node in ["w1", "cp1", "w2", "cp2", "new"] {
                assert_ne!(cluster.kubelet(node, proxy, minute), Some(false), "{node} {proxy} {minute}");
                assert_ne!(cluster.pod(node, proxy, minute), Some(false), "{node} {proxy} {minute}");
            }
        }
    }
    // The route of these nodes' requests is unknown.
    assert_eq!(cluster.pod("w1", "10.0.1.2", 400), None);
}

#[test]
fn nodes_behind_a_shared_address_are_compared_at_declared_ones() {
    let mut cluster = Cluster::declared(DECLARED, 0);
    for minute in [0, 45, 90] {
        for node in ["n", "m", "a"] {
            assert_eq!(cluster.kubelet(node, "203.0.113.1", minute), None);
            assert_eq!(cluster.pod(node, "203.0.113.1", minute), None);
        }
        // A node without such a route.
        cluster.kubelet("b", "10.0.0.4", minute);
        cluster.kubelet("b", "203.0.113.1", minute);
    }
    assert_eq!(cluster.pod("b", "10.0.0.2", 91), Some(false));
    // Requests of pods do not go through the load balancer for kubelets.
    assert_eq!(cluster.pod("n", "10.0.0.2", 91), Some(false));
    assert_eq!(cluster.pod("n", "10.0.0.1", 91), Some(true));
    // A kubelet that is seen elsewhere for the first time may use a proxy there.
    assert_eq!(cluster.kubelet("n", "10.0.0.2", 91), None);
}

#[test]
fn an_address_goes_over_to_a_node_that_is_newer_than_the_inventory() {
    let mut cluster = Cluster::declared(DECLARED, 0);
    cluster.kubelet("m", "10.0.0.2", 1);
    for minute in (100..3 * DAY).step_by(50) {
        assert_ne!(cluster.kubelet("new", "10.0.0.2", minute), Some(false));
        assert_ne!(cluster.pod("new", "10.0.0.2", minute), Some(false));
        assert_eq!(cluster.pod("n", "10.0.0.2", minute), Some(false));
    }
    cluster.0.remove(&mut Event::new(b"{}"), "m", Some((1_000_000 + 4 * DAY) * MINUTE));
    // For the new node, only what was learned counts.
    for minute in [4 * DAY, 4 * DAY + 70] {
        cluster.kubelet("new", "10.0.0.2", minute);
    }
    assert_eq!(cluster.pod("new", "10.0.0.2", 4 * DAY + 71), Some(true));
    // Declared again.
    cluster.declare(DECLARED, 5 * DAY);
    assert_eq!(cluster.pod("m", "10.0.0.1", 5 * DAY), Some(false));
}

#[test]
fn a_deletion_is_restored() {
    let mut cluster = Cluster::declared(DECLARED, 0);
    cluster.0.track();
    cluster.0.remove(&mut Event::new(b"{}"), "m", Some(1_000_001 * MINUTE));
    let mut changes = Vec::new();
    cluster.0.take_changes(&mut changes);
    let mut restored = Cluster::declared(DECLARED, 0);
    for change in &changes {
        assert!(restored.0.restore(&change.key, change.value.as_ref().unwrap()));
    }
    assert_eq!(restored.pod("n", "10.0.0.2", 2), None);
}

#[test]
fn nodes_of_another_cluster_with_the_same_names_are_not_where_they_are_declared() {
    let mut cluster = Cluster::declared(DECLARED, 0);
    for minute in [0, 45, 90] {
        cluster.send_in("c", Client::Node { name: "n".to_owned(), is_kubelet: true }, "10.0.0.2", minute);
        let pod = cluster.send_in("c", Client::Pod { node: "n".to_owned() }, "10.0.0.2", minute);
        assert_eq!(pod.is_own, None);
    }
}

#[test]
fn an_address_of_very_many_declared_nodes_identifies_none() {
    let names: Vec<String> = (0..200).map(|number| format!("x{number}")).collect();
    let nodes: Vec<(&str, &[&str])> = names.iter().map(|name| (&**name, &["10.0.0.9"][..])).collect();
    let mut cluster = Cluster::declared(&nodes, 0);
    assert_eq!(cluster.pod("x7", "10.0.0.9", 1), None);
    for name in &names[1..] {
        cluster.0.remove(&mut Event::new(b"{}"), name, Some(1_000_001 * MINUTE));
    }
    assert_eq!(cluster.pod("x7", "10.0.0.9", 2), None);
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
        // A token that is only bound to a node.
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
    // A client that impersonates another user is located by its own identity, and does not count as a kubelet.
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
        assert_eq!(of(&event).unwrap().address, expected.map(|text| text.parse().unwrap()), "{addresses}");
    }
}

/// The rules contain the same list, for conditions about the program itself.
#[test]
fn programs_are_those_of_the_rules() {
    let rules = include_str!("../../../../rules.d/00-common.yaml");
    let items: Vec<String> = KUBELET_PROGRAMS.iter().map(|program| format!("{program}/")).collect();
    assert!(rules.contains(&format!("items: [{}]", items.join(", "))));
}
