//! Real servers that do not run `dpr`, as a director needs them to decide.

use dpr_model::{Capacity, NodeId, Protocol, ServiceSocket, Weight};
use std::net::SocketAddr;

/// A server without `dpr` behind one of this node's services. It is reached by network address translation only.
///
/// There are no load reports from it: its load is what this director has open there, in permille of its capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalServer {
    /// Transport protocol of the service.
    pub protocol: Protocol,
    /// The service, which this node is home to.
    pub service: ServiceSocket,
    /// Where the server listens, with an address of the same version as the service's.
    pub socket: SocketAddr,
    /// The operator's preference.
    pub weight: Weight,
    /// Concurrent connections that fill it.
    pub capacity: Capacity,
    /// Whether it answers the daemon's probes.
    pub healthy: bool,
}

impl ExternalServer {
    /// The id under which candidates and tables have it; the same for all services that it is behind.
    pub fn id(&self) -> NodeId {
        NodeId::of_external(self.socket)
    }
}
