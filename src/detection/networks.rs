//! The networks of a cluster: from where its pods and nodes reach the apiserver.
//!
//! Takes networks in CIDR notation (RFC 4632, RFC 4291) and the address of a client, returns which of them it is in.

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
        // In the highest bits, so that prefixes mean the same for both.
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

/// The networks of pods and nodes, as far as they are configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// The networks that pods have their addresses from.
    pub pods: Vec<Network>,
    /// The networks of nodes, and of what else connects in their name: gateways, load balancers.
    pub nodes: Vec<Network>,
}

impl Networks {
    /// Returns where an address is: `pods`, `nodes` or `outside`; `nodes` for the loopback addresses of the control plane. `None`
    /// if nothing is configured. What is not an address is outside.
    pub fn place_of(&self, address: &str) -> Option<&'static str> {
        if self.pods.is_empty() && self.nodes.is_empty() {
            return None;
        }
        let Ok(address) = address.parse::<IpAddr>() else { return Some("outside") };
        let is_in = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
        Some(if is_in(&self.pods) {
            "pods"
        } else if is_in(&self.nodes) || address.to_canonical().is_loopback() {
            "nodes"
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
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let networks = Networks {
            pods: list(&["10.244.0.0/16", "fd00:10:244::/56"]),
            nodes: list(&["192.168.5.128/25"]),
        };
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
        let everything = Networks { pods: list(&["0.0.0.0/0"]), nodes: list(&["::/0"]) };
        assert_eq!(everything.place_of("203.0.113.7"), Some("pods"));
        assert_eq!(everything.place_of("2001:db8::7"), Some("nodes"));
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
