//! Addresses of nodes according to the inventory.
//!
//! Takes an inventory, and returns the nodes of an address and the addresses of a node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::inventory::{DeclaredNode, Inventory};

/// Maximum number of nodes stored per address. An address of more nodes identifies none, even if some of them are deleted.
const MAX_NAMES: usize = 64;

/// The declared nodes by name and by address.
#[derive(Clone, Debug, Default)]
pub(super) struct DeclaredNodes {
    inventory: Arc<Inventory>,
    by_address: Arc<BTreeMap<IpAddr, Names>>,
}

/// The nodes of one address.
#[derive(Clone, Debug, Default)]
struct Names {
    names: Vec<Box<str>>,
    has_more: bool,
}

/// The owner of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder<'n> {
    /// It is not declared.
    Unknown,
    Node(&'n str),
    Several,
}

impl DeclaredNodes {
    pub(super) fn of(inventory: Arc<Inventory>) -> Self {
        let mut by_address: BTreeMap<IpAddr, Names> = BTreeMap::new();
        for (name, node) in inventory.nodes() {
            for address in &node.addresses {
                let known = by_address.entry(*address).or_default();
                if known.names.len() < MAX_NAMES {
                    known.names.push(name.into());
                } else {
                    known.has_more = true;
                }
            }
        }
        DeclaredNodes { inventory, by_address: Arc::new(by_address) }
    }

    /// Returns a declared node, and when it was declared.
    pub(super) fn get(&self, name: &str) -> Option<(&DeclaredNode, i64)> {
        self.inventory.node(name)
    }

    /// Returns the node that alone has an address, among those that still exist.
    pub(super) fn holder(&self, address: IpAddr, exists: impl Fn(&str) -> bool) -> Holder<'_> {
        let Some(known) = self.by_address.get(&address) else { return Holder::Unknown };
        if known.has_more {
            return Holder::Several;
        }
        let mut names = known.names.iter().filter(|name| exists(name));
        match (names.next(), names.next()) {
            (None, _) => Holder::Unknown,
            (Some(name), None) => Holder::Node(name),
            (Some(_), Some(_)) => Holder::Several,
        }
    }
}
