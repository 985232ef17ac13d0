//! Arguments that name the networks of a cluster.

use crate::detection::networks::{IncompleteNetworks, Network, Networks};

#[derive(Clone, Debug, Default, clap::Args)]
pub struct NetworkArgs {
    /// Network of pods, such as 10.244.0.0/16; repeatable. Rules report tokens of pods and identities of nodes from other addresses
    #[arg(long, value_name = "CIDR", requires = "node_network")]
    pod_network: Vec<Network>,

    /// Network of nodes, gateways and load balancers, such as 192.168.5.0/24; repeatable
    #[arg(long, value_name = "CIDR", requires = "pod_network")]
    node_network: Vec<Network>,
}

impl NetworkArgs {
    pub fn networks(&self) -> Result<Networks, IncompleteNetworks> {
        Networks::new(self.pod_network.clone(), self.node_network.clone())
    }
}
