//! Who is who: node 1 is [`A`] and has the first address of its network, and so on.

use dpr_model::{ClientSocket, FlowKey, NodeId, Protocol, ServiceSocket};
use std::net::{IpAddr, Ipv4Addr};

/// The first node.
pub const A: NodeId = NodeId(1);
/// The second node.
pub const B: NodeId = NodeId(2);
/// The third node.
pub const C: NodeId = NodeId(3);
/// The fourth node.
pub const D: NodeId = NodeId(4);

/// A client that is nobody in particular.
pub const CLIENT: ClientSocket =
    ClientSocket { address: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), port: 40_000 };

/// The port of the one service that every node has.
pub const SERVICE_PORT: u16 = 80;

/// UDP port of load reports.
pub(crate) const GOSSIP_PORT: u16 = 7946;

/// Nodes of one cluster at most: their ids are the lower half of their addresses.
pub const NODES_MAX: u32 = 1000;

/// Addresses of nodes are 10.0.0.0/16, which is no client's.
const NODE_NETWORK: u32 = 0x0a00_0000;

/// The node address of a node, which is its service address as well.
pub fn address_of(node: NodeId) -> Ipv4Addr {
    Ipv4Addr::from(NODE_NETWORK + node.0)
}

/// The node with this address.
pub(crate) fn node_at(address: Ipv4Addr) -> Option<NodeId> {
    let id = u32::from(address).checked_sub(NODE_NETWORK)?;
    (1..=NODES_MAX).contains(&id).then_some(NodeId(id))
}

/// The service socket of a node.
pub(crate) fn service_of(node: NodeId) -> ServiceSocket {
    ServiceSocket { address: IpAddr::V4(address_of(node)), port: SERVICE_PORT }
}

/// The flow of `client` to the service address of `home`.
pub fn flow(client: ClientSocket, home: NodeId) -> FlowKey {
    FlowKey { protocol: Protocol::Tcp, client, service: service_of(home) }
}

/// One end of the network's paths: a node, or all that is outside of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// Where clients are.
    Outside,
    /// A node.
    Node(NodeId),
}

impl Host {
    /// Where packets for `address` go.
    pub(crate) fn at(address: Ipv4Addr) -> Self {
        node_at(address).map_or(Self::Outside, Self::Node)
    }
}
