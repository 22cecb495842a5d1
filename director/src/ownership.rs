//! Who decides about which connections of which service address.

use dpr_model::{
    DeliveryMode, Encapsulation, FlowKey, ForwardingMethod, MapVersion, NodeId, PortRange, Protocol,
    ServiceReport, ServiceSocket,
};
use hashbrown::HashMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// (service address, slot) → owner.
///
/// All slots of a per-node address belong to its home node. The map answers per flow, so that addresses whose
/// slots are divided need no other callers.
#[derive(Clone, Debug, Default)]
pub struct OwnershipMap {
    version: MapVersion,
    home_by_service_address: HashMap<IpAddr, Home>,
    service_by_socket: HashMap<ServiceKey, Service>,
    /// Further ports of services.
    service_by_range: Vec<(Protocol, IpAddr, PortRange, Service)>,
}

/// What a service is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ServiceKey(Protocol, ServiceSocket);

/// One word between IPv4 addresses: every packet looks its service up, and what would be derived takes an address byte by
/// byte.
impl Hash for ServiceKey {
    #[inline]
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self(protocol, ServiceSocket { address, port }) = self;
        let rest = u64::from(*port) << 8 | u64::from(protocol.number());
        match address {
            IpAddr::V4(address) => hasher.write_u64(u64::from(u32::from(*address)) << 32 | rest),
            IpAddr::V6(address) => {
                hasher.write_u128((*address).into());
                hasher.write_u64(rest);
            }
        }
    }
}

/// What holds for all services of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Who owns all slots.
    pub owner: SlotOwner,
    /// How real servers deliver its packets.
    pub delivery: DeliveryMode,
    /// The tunnel in which what has no service is handed to the owner: that of the address's first service.
    pub encapsulation: Encapsulation,
    /// Packets for a TCP service come by direct routing.
    direct_tcp: bool,
    /// Packets for a UDP service come by direct routing.
    direct_udp: bool,
}

impl Home {
    /// True when a service of this protocol hands its packets on by direct routing.
    pub fn is_direct(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Tcp => self.direct_tcp,
            Protocol::Udp => self.direct_udp,
        }
    }
}

/// A service of the cluster, as its home announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Who decides about the flow that was asked about.
    pub owner: SlotOwner,
    /// How the owner hands connections to real servers.
    pub method: ForwardingMethod,
    /// How real servers deliver packets.
    pub delivery: DeliveryMode,
    /// The port that it is named by: of its further ports not the flow's.
    pub port: u16,
    /// This node is its home, and its clients stay with their real server.
    pub is_persistent: bool,
}

impl Service {
    /// The flow as if it were to the port that the service is named by: it is decided about like that.
    pub fn named(&self, flow: &FlowKey) -> FlowKey {
        FlowKey { service: ServiceSocket { port: self.port, ..flow.service }, ..*flow }
    }
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
        self.service_by_socket.clear();
        self.service_by_range.clear();
    }

    /// Version, to be compared with peers'.
    pub fn version(&self) -> MapVersion {
        self.version
    }

    /// Makes `node` the owner of all slots of the service's address. The first claim holds: callers enter themselves
    /// first and their peers in order of id, so that all nodes resolve a conflict alike. So does the first service's
    /// delivery for all of the address. `is_persistent` says whether its clients stay with their real server.
    pub fn add_home(&mut self, report: &ServiceReport, node: NodeId, tenure: Tenure, is_persistent: bool) {
        let owner = SlotOwner { node, tenure };
        let unclaimed = Home {
            owner,
            delivery: report.delivery,
            encapsulation: report.method.encapsulation(),
            direct_tcp: false,
            direct_udp: false,
        };
        let home = self.home_by_service_address.entry(report.socket.address).or_insert(unclaimed);
        if home.owner.node != node {
            return;
        }
        if report.method == ForwardingMethod::Dr {
            match report.protocol {
                Protocol::Tcp => home.direct_tcp = true,
                Protocol::Udp => home.direct_udp = true,
            }
        }
        let service = Service {
            owner: home.owner,
            method: report.method,
            delivery: home.delivery,
            port: report.socket.port,
            is_persistent,
        };
        self.service_by_socket.insert(ServiceKey(report.protocol, report.socket), service);
        let further = report.ports.ranges();
        self.service_by_range
            .extend(further.map(|range| (report.protocol, report.socket.address, range, service)));
    }

    /// The service of a flow and who decides about it; `None` when it belongs to no service of the cluster.
    #[inline]
    pub fn service_of(&self, flow: &FlowKey) -> Option<Service> {
        let service = self.service_by_socket.get(&ServiceKey(flow.protocol, flow.service)).copied();
        if service.is_some() || self.service_by_range.is_empty() { service } else { self.service_with(flow) }
    }

    /// The service among whose further ports the flow's is.
    fn service_with(&self, flow: &FlowKey) -> Option<Service> {
        let ServiceSocket { address, port } = flow.service;
        let mut ranges = self.service_by_range.iter();
        ranges
            .find(|(protocol, of, range, _)| {
                (*protocol, *of) == (flow.protocol, address) && range.contains(port)
            })
            .map(|(.., service)| *service)
    }

    /// Port ranges that services have beside their own ports.
    pub fn further_ranges(&self) -> usize {
        self.service_by_range.len()
    }

    /// Who decides for an address where there are no ports: about fragments by their source, and about echo requests.
    /// `None` when it is no service address.
    pub fn home_of(&self, address: IpAddr) -> Option<Home> {
        self.home_by_service_address.get(&address).copied()
    }

    /// Every service, in order of protocol and socket.
    pub fn services(&self) -> Vec<(Protocol, ServiceSocket, Service)> {
        let mut services: Vec<_> = self
            .service_by_socket
            .iter()
            .map(|(ServiceKey(protocol, socket), service)| (*protocol, *socket, *service))
            .collect();
        services.sort_unstable_by_key(|(protocol, socket, _)| (*protocol, *socket));
        services
    }

    /// Service addresses with their homes, in order of address.
    pub fn homes(&self) -> Vec<(IpAddr, Home)> {
        let mut homes: Vec<_> =
            self.home_by_service_address.iter().map(|(address, home)| (*address, *home)).collect();
        homes.sort_unstable_by_key(|(address, _)| *address);
        homes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::{ClientSocket, PortGroup};
    use std::net::Ipv4Addr;

    fn flow(service: ServiceSocket) -> FlowKey {
        let client = ClientSocket { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 };
        FlowKey { protocol: Protocol::Tcp, client, service }
    }

    #[test]
    fn the_first_claim_on_an_address_holds() {
        let socket = ServiceSocket { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), port: 80 };
        let stolen = ServiceSocket { port: 443, ..socket };
        let mut map = OwnershipMap::default();

        map.add_home(&ServiceReport::new(Protocol::Tcp, socket), NodeId(1), Tenure::Home, false);
        map.add_home(&ServiceReport::new(Protocol::Tcp, stolen), NodeId(2), Tenure::Home, false);

        assert_eq!(map.home_of(socket.address).unwrap().owner.node, NodeId(1));
        assert_eq!(map.service_of(&flow(socket)).unwrap().owner.node, NodeId(1));
        assert_eq!(map.service_of(&flow(stolen)), None);
    }

    #[test]
    fn further_ports_are_the_service_s_but_for_those_that_another_one_is_named_by() {
        let ftp = ServiceSocket { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), port: 21 };
        let web = ServiceSocket { port: 80, ..ftp };
        let mut ports = PortGroup::NONE;
        assert!(ports.add(PortRange::new(20, 90).unwrap()));
        let mut map = OwnershipMap::default();
        map.add_home(
            &ServiceReport { ports, ..ServiceReport::new(Protocol::Tcp, ftp) },
            NodeId(1),
            Tenure::Home,
            true,
        );
        map.add_home(&ServiceReport::new(Protocol::Tcp, web), NodeId(1), Tenure::Home, false);

        let port_of = |port| map.service_of(&flow(ServiceSocket { port, ..ftp })).map(|service| service.port);
        assert_eq!(
            [19, 20, 21, 80, 90, 91].map(port_of),
            [None, Some(21), Some(21), Some(80), Some(21), None]
        );
        let udp = FlowKey { protocol: Protocol::Udp, ..flow(ServiceSocket { port: 20, ..ftp }) };
        assert_eq!(map.service_of(&udp), None);
        map.begin(MapVersion::default());
        assert_eq!(map.service_of(&flow(ServiceSocket { port: 20, ..ftp })), None);
    }

    #[test]
    fn all_services_of_an_address_are_delivered_alike() {
        let web = ServiceSocket { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), port: 80 };
        let other = ServiceSocket { port: 443, ..web };
        let alias = ServiceReport { delivery: DeliveryMode::Alias, ..ServiceReport::new(Protocol::Tcp, web) };
        let direct =
            ServiceReport { method: ForwardingMethod::Dr, ..ServiceReport::new(Protocol::Tcp, other) };
        let mut map = OwnershipMap::default();

        map.add_home(&alias, NodeId(1), Tenure::Home, false);
        map.add_home(&direct, NodeId(1), Tenure::Home, false);

        assert_eq!(map.service_of(&flow(other)).unwrap().delivery, DeliveryMode::Alias);
        let home = map.home_of(web.address).unwrap();
        assert!(home.is_direct(Protocol::Tcp) && !home.is_direct(Protocol::Udp));
    }
}
