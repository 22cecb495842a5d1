//! Who is who: node 1 is [`A`] and has the first address of its network, and so on.

use dpr_model::{ClientSocket, FlowKey, NodeId, Protocol, ServiceSocket};
use dpr_rewrite::Version;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// Stands for the address that all nodes share, where a node would stand for its own.
pub const SHARED: NodeId = NodeId(0xff00);

/// The port of the one service that every node has.
pub const SERVICE_PORT: u16 = 80;

/// UDP port of load reports.
pub(crate) const GOSSIP_PORT: u16 = 7946;

/// Nodes of one cluster at most: their ids are the lower half of their addresses, and less than [`SHARED`].
pub const NODES_MAX: u32 = 1000;

/// Addresses of nodes are 10.0.0.0/16 and fd00:a::/112, which are no client's.
const NODE_NETWORK_V4: u32 = 0x0a00_0000;
const NODE_NETWORK_V6: u128 = 0xfd00_000a << 96;

/// The address of a node, or the one that [`SHARED`] stands for: as node address, as service address, or as both where they are of the same version.
pub fn address_of(node: NodeId, version: Version) -> IpAddr {
    match version {
        Version::V4 => Ipv4Addr::from(NODE_NETWORK_V4 + node.0).into(),
        Version::V6 => Ipv6Addr::from(NODE_NETWORK_V6 + u128::from(node.0)).into(),
    }
}

/// The node with this address.
pub(crate) fn node_at(address: IpAddr) -> Option<NodeId> {
    let id = match address {
        IpAddr::V4(address) => u32::from(address).checked_sub(NODE_NETWORK_V4)?,
        IpAddr::V6(address) => u32::try_from(u128::from(address).checked_sub(NODE_NETWORK_V6)?).ok()?,
    };
    (1..=NODES_MAX).contains(&id).then_some(NodeId(id))
}

/// The service socket of a node.
pub(crate) fn service_of(node: NodeId, version: Version) -> ServiceSocket {
    ServiceSocket { address: address_of(node, version), port: SERVICE_PORT }
}

/// The flow of `client` to the service address of `home` that is of the same IP version.
pub fn flow(client: ClientSocket, home: NodeId) -> FlowKey {
    FlowKey { protocol: Protocol::Tcp, client, service: service_of(home, Version::of(client.address)) }
}

/// What stands in for an IPv4 address of a client in a cluster with services of IPv6 (RFC 6052, section 2.1).
pub(crate) fn client_address(address: Ipv4Addr, version: Version) -> IpAddr {
    match version {
        Version::V4 => address.into(),
        Version::V6 => Ipv6Addr::from((0x0064_ff9b << 96) | u128::from(u32::from(address))).into(),
    }
}

/// One end of the network's paths: a node, or all that is outside of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// Where clients are.
    Outside,
    /// A host on the clients' network that answers whoever asks, and nothing else.
    Witness,
    /// A node.
    Node(NodeId),
}

impl Host {
    /// Where packets for `address` go.
    pub(crate) fn at(address: IpAddr) -> Self {
        node_at(address).map_or(Self::Outside, Self::Node)
    }
}
