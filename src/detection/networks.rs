//! The networks from which the pods and nodes of a cluster reach the apiserver.
//!
//! Takes networks in CIDR notation (RFC 4632, RFC 4291) and the address of a client; returns which network it is in.

use std::net::IpAddr;
use std::str::FromStr;

/// A network in CIDR notation, such as `10.244.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_len: u8,
}

/// A text that is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an address and a prefix length, such as 10.244.0.0/16 or fd00:10:244::/56")]
pub struct InvalidNetwork;

/// An IPv4 address inside IPv6 (`::ffff:10.0.0.1`) is the IPv4 address.
fn bits(address: IpAddr) -> (u128, u8) {
    match address.to_canonical() {
        // In the highest bits, so that prefix lengths mean the same for both.
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl Network {
    /// Returns whether an address is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((own, own_len), (other, other_len)) = (bits(self.address), bits(address));
        let differing = own ^ other;
        own_len == other_len && differing.leading_zeros() >= u32::from(self.prefix_len)
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, prefix_len) = text.split_once('/').ok_or(InvalidNetwork)?;
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let prefix_len: u8 = prefix_len.parse().map_err(|_| InvalidNetwork)?;
        if prefix_len > bits(address).1 || address != address.to_canonical() {
            return Err(InvalidNetwork);
        }
        Ok(Network { address, prefix_len })
    }
}

/// The networks of pods and nodes; the default knows none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    pods: Vec<Network>,
    nodes: Vec<Network>,
}

/// Either the networks of pods or those of nodes are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "name the networks of both pods and nodes: with one of them alone, the others would count as outside of the cluster"
)]
pub struct IncompleteNetworks;

impl Networks {
    /// Creates the networks from which pods get their addresses, and those of nodes and of anything that connects on their behalf:
    /// gateways, load balancers. The two may overlap.
    ///
    /// # Errors
    /// If only one of them is known.
    pub fn new(pods: Vec<Network>, nodes: Vec<Network>) -> Result<Self, IncompleteNetworks> {
        if pods.is_empty() != nodes.is_empty() {
            return Err(IncompleteNetworks);
        }
        Ok(Networks { pods, nodes })
    }

    /// Returns where an address is: `nodes` (the loopback addresses of the control plane too), else `pods`, else `outside`. `None` if no
    /// network is known. A text that is not an address is outside.
    pub fn place_of(&self, address: &str) -> Option<&'static str> {
        if self.nodes.is_empty() {
            return None;
        }
        let Ok(address) = address.parse::<IpAddr>() else { return Some("outside") };
        let is_in = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
        Some(if is_in(&self.nodes) || address.to_canonical().is_loopback() {
            "nodes"
        } else if is_in(&self.pods) {
            "pods"
        } else {
            "outside"
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_the_network_with_the_longest_equal_prefix() {
        let networks = known(&["10.244.0.0/16", "fd00:10:244::/56"], &["192.168.5.128/25"]);
        for (address, expected) in [
            ("10.244.255.1", "pods"),
            ("::ffff:10.244.255.1", "pods"),
            ("10.245.0.0", "outside"),
            ("fd00:10:244:ff::1", "pods"),
            ("fd00:10:244:100::1", "outside"),
            ("192.168.5.128", "nodes"),
            ("192.168.5.127", "outside"),
            ("127.0.0.1", "nodes"),
            ("::1", "nodes"),
            ("::", "outside"),
            ("", "outside"),
            ("10.244.0.1, 10.244.0.2", "outside"),
        ] {
            assert_eq!(networks.place_of(address), Some(expected), "{address}");
        }
        assert_eq!(Networks::default().place_of("10.0.0.1"), None);
        let everything = known(&["0.0.0.0/0"], &["::/0"]);
        assert_eq!(everything.place_of("203.0.113.7"), Some("pods"));
        assert_eq!(everything.place_of("2001:db8::7"), Some("nodes"));
    }

    fn known(pods: &[&str], nodes: &[&str]) -> Networks {
        let [pods, nodes] =
            [pods, nodes].map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect());
        Networks::new(pods, nodes).unwrap()
    }

    /// If pods have addresses from the nodes' network, as in many clouds, their address must not be attributed to a node.
    #[test]
    fn an_address_of_both_is_one_of_nodes() {
        let shared = known(&["10.0.0.0/16"], &["10.0.0.0/16"]);
        assert_eq!(shared.place_of("10.0.3.4"), Some("nodes"));
        assert_eq!(shared.place_of("203.0.113.7"), Some("outside"));
    }

    #[test]
    fn one_of_them_alone_is_refused() {
        let network = || vec!["10.0.0.0/16".parse().unwrap()];
        assert_eq!(Networks::new(network(), Vec::new()), Err(IncompleteNetworks));
        assert_eq!(Networks::new(Vec::new(), network()), Err(IncompleteNetworks));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/8", "::/129", "::ffff:10.0.0.0/8", "x/8"]
        {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork), "{text}");
        }
    }
}
