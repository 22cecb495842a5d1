//! Who decides about which connections of which service address.

use dpr_model::{FlowKey, MapVersion, NodeId, Protocol, ServiceSocket};
use hashbrown::{HashMap, HashSet};
use std::net::IpAddr;

/// (service address, slot) → owner.
///
/// All slots of a per-node address belong to its home node. The map answers per flow, so that addresses whose
/// slots are divided need no other callers.
#[derive(Clone, Debug, Default)]
pub struct OwnershipMap {
    version: MapVersion,
    home_by_service_address: HashMap<IpAddr, Home>,
    sockets: HashSet<(Protocol, ServiceSocket)>,
}

#[derive(Clone, Copy, Debug)]
struct Home {
    node: NodeId,
    tenure: Tenure,
}

/// Who decides for a slot, and by which right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotOwner {
    /// The owner.
    pub node: NodeId,
    /// Its right.
    pub tenure: Tenure,
}

/// By which right an owner owns a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenure {
    /// The address is the node's own, and nobody else may take it over: no lease needed.
    Home,
    /// Others may become owner: acts only with a valid lease.
    Leased,
}

impl OwnershipMap {
    /// Makes this an empty map of the given version.
    pub fn begin(&mut self, version: MapVersion) {
        self.version = version;
        self.home_by_service_address.clear();
        self.sockets.clear();
    }

    /// Version, to be compared with peers'.
    pub fn version(&self) -> MapVersion {
        self.version
    }

    /// Makes `home` the owner of all slots of the socket's address. The first claim holds: callers enter themselves
    /// first and their peers in order of id, so that all nodes resolve a conflict alike.
    pub fn add_home(&mut self, protocol: Protocol, socket: ServiceSocket, node: NodeId, tenure: Tenure) {
        let home = self.home_by_service_address.entry(socket.address).or_insert(Home { node, tenure });
        if home.node == node {
            self.sockets.insert((protocol, socket));
        }
    }

    /// True when the cluster has a service at this socket.
    pub fn has_service(&self, protocol: Protocol, socket: ServiceSocket) -> bool {
        self.sockets.contains(&(protocol, socket))
    }

    /// True when `address` is a service address of any kind.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.home_by_service_address.contains_key(&address)
    }

    /// Who decides about a flow; `None` when it belongs to no service of the cluster.
    pub fn owner_of(&self, flow: &FlowKey) -> Option<SlotOwner> {
        if !self.has_service(flow.protocol, flow.service) {
            return None;
        }
        self.owner_of_address(flow.service.address)
    }

    /// Who owns the slots of a per-node service address.
    pub fn owner_of_address(&self, address: IpAddr) -> Option<SlotOwner> {
        self.home_by_service_address
            .get(&address)
            .map(|home| SlotOwner { node: home.node, tenure: home.tenure })
    }

    /// Service addresses and their home nodes, in order of address.
    pub fn homes(&self) -> Vec<(IpAddr, NodeId)> {
        let mut homes: Vec<_> =
            self.home_by_service_address.iter().map(|(address, home)| (*address, home.node)).collect();
        homes.sort_unstable();
        homes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_first_claim_on_an_address_holds() {
        let socket = ServiceSocket { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), port: 80 };
        let stolen = ServiceSocket { port: 443, ..socket };
        let mut map = OwnershipMap::default();

        map.add_home(Protocol::Tcp, socket, NodeId(1), Tenure::Home);
        map.add_home(Protocol::Tcp, stolen, NodeId(2), Tenure::Home);

        assert_eq!(map.owner_of_address(socket.address).unwrap().node, NodeId(1));
        assert!(map.has_service(Protocol::Tcp, socket));
        assert!(!map.has_service(Protocol::Tcp, stolen));
    }
}
