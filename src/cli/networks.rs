//! Arguments that name the networks of a cluster.

use crate::detection::networks::{Network, Networks};

#[derive(Clone, Debug, Default, clap::Args)]
pub struct NetworkArgs {
    /// Network of pods, such as 10.244.0.0/16; repeatable. With one of these, rules report tokens of pods that are used from elsewhere
    #[arg(long, value_name = "CIDR")]
    pod_network: Vec<Network>,

    /// Network of nodes, gateways and load balancers, such as 192.168.5.0/24; repeatable
    #[arg(long, value_name = "CIDR")]
    node_network: Vec<Network>,
}

impl NetworkArgs {
    pub fn networks(&self) -> Networks {
        Networks { pods: self.pod_network.clone(), nodes: self.node_network.clone() }
    }
}
