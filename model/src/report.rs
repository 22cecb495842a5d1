//! What a node multicasts about itself.

use crate::{
    Capacity, DeliveryMode, ForwardingMethod, Incarnation, LoadPermille, MapVersion, Metric, NodeId,
    NodeState, PartitionBy, PortGroup, PortRange, Protocol, ServiceSocket, Sharing, Weight,
};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

/// One node's word about itself; several times a second, so it is also the node's heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadReport {
    /// Who speaks.
    pub node: NodeId,
    /// In which life.
    pub incarnation: Incarnation,
    /// Name for people, at most 63 bytes.
    pub name: String,
    /// Joining, active, draining, leaving.
    pub state: NodeState,
    /// Where tunnels to it end.
    pub address: IpAddr,
    /// Concurrent connections that fill it.
    pub capacity: Capacity,
    /// The operator's preference.
    pub weight: Weight,
    /// Load index.
    pub load: LoadPermille,
    /// What the load index was made of.
    pub metrics: Vec<MetricSample>,
    /// Service sockets that it is home to, and whether their server answers.
    pub services: Vec<ServiceReport>,
    /// Connections received from directors, cumulative.
    pub received: Vec<ReceivedFrom>,
    /// Version of the content that it serves; 0 when unknown.
    pub content_version: u64,
    /// Ports that it uses for full NAT, if it does: what comes from one of them has made its last hop.
    pub nat_ports: Option<PortRange>,
    /// The ownership map that it acts on.
    pub map_version: MapVersion,
}

impl LoadReport {
    /// An active, idle node of ordinary weight that has neither name nor services and has received nothing.
    pub const fn new(node: NodeId, incarnation: Incarnation, address: IpAddr, capacity: Capacity) -> Self {
        Self {
            node,
            incarnation,
            name: String::new(),
            state: NodeState::Active,
            address,
            capacity,
            weight: Weight::ORDINARY,
            load: LoadPermille(0),
            metrics: Vec::new(),
            services: Vec::new(),
            received: Vec::new(),
            content_version: 0,
            nat_ports: None,
            map_version: MapVersion { term: 0, epoch: 0, coordinator: 0 },
        }
    }
}

/// One metric of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MetricSample {
    /// What was measured.
    pub metric: Metric,
    /// In permille of its capacity.
    pub load: LoadPermille,
}

/// One service of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceReport {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Service address and port.
    pub socket: ServiceSocket,
    /// Whether the server behind it accepts connections on this node.
    pub healthy: bool,
    /// How directors hand its connections to real servers.
    pub method: ForwardingMethod,
    /// How real servers deliver its packets. All services of one address have the same one.
    pub delivery: DeliveryMode,
    /// Ports that belong to it beside that of `socket`.
    pub ports: PortGroup,
    /// Who may own its slots. All services of one address have the same one.
    pub sharing: Sharing,
    /// What decides about a flow's slot. All nodes have to report the same.
    pub partition_by: PartitionBy,
}

impl ServiceReport {
    /// A healthy service of one node's own whose connections are tunnelled in IP and delivered by translation.
    pub const fn new(protocol: Protocol, socket: ServiceSocket) -> Self {
        Self {
            protocol,
            socket,
            healthy: true,
            method: ForwardingMethod::Ipip,
            delivery: DeliveryMode::Translate,
            ports: PortGroup::NONE,
            sharing: Sharing::Home,
            partition_by: PartitionBy::SourceAddressAndPort,
        }
    }

    /// True for packets to the socket that it is named by.
    pub fn is_named_by(&self, protocol: Protocol, socket: ServiceSocket) -> bool {
        (self.protocol, self.socket) == (protocol, socket)
    }

    /// True for packets to one of its further ports, as far as no other service is named by that.
    pub fn has_further(&self, protocol: Protocol, socket: ServiceSocket) -> bool {
        (self.protocol, self.socket.address) == (protocol, socket.address)
            && self.ports.ranges().any(|range| range.contains(socket.port))
    }
}

/// How many connections a node received from one director, ever.
///
/// Cumulative, so that a lost report loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedFrom {
    /// The director.
    pub director: NodeId,
    /// In which life of the director; the count starts anew with each.
    pub incarnation: Incarnation,
    /// Connections since then.
    pub connections: u64,
}
