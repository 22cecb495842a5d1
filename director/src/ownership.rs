//! Who decides about which connections of which service address.

mod listed;

use dpr_model::{
    DeliveryMode, Encapsulation, FlowKey, ForwardingMethod, NodeId, PartitionBy, PortRange, Protocol,
    ServiceReport, ServiceSocket, Sharing, Slot, Timestamp,
};
use dpr_ownership::Right;
use dpr_ownership::agreement::Duty;
use dpr_ownership::partition::slot_without_ports;
use hashbrown::HashMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// (service address, flow) → owner: by reports for addresses that nobody but their home may own, and by what nodes
/// have agreed on for all others.
#[derive(Clone, Debug)]
pub struct OwnershipMap {
    this: NodeId,
    duty: Option<Duty>,
    home_by_service_address: HashMap<IpAddr, Home>,
    service_by_socket: HashMap<ServiceKey, Divided>,
    /// Further ports of services.
    service_by_range: Vec<(Protocol, IpAddr, PortRange, Divided)>,
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
    /// Who decides about what has no ports.
    pub owner: SlotOwner,
    /// The node that reports the address: its home, or for a shared one the first that was asked.
    pub reporter: NodeId,
    /// Who may own its slots.
    pub sharing: Sharing,
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

    /// True if both claims on an address can stand: they are of one node, or of nodes that share it.
    fn admits(&self, report: &ServiceReport, node: NodeId) -> bool {
        self.reporter == node || matches!(self.sharing, Sharing::Shared(_)) && self.sharing == report.sharing
    }
}

/// A service of the cluster, as its home announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Who decides about the flow that was asked about.
    pub owner: SlotOwner,
    /// Who may own its slots.
    pub sharing: Sharing,
    /// How the owner hands connections to real servers.
    pub method: ForwardingMethod,
    /// How real servers deliver packets.
    pub delivery: DeliveryMode,
    /// The port that it is named by: of its further ports not the flow's.
    pub port: u16,
    /// Its clients stay with their real server, as far as this node decides about them.
    pub is_persistent: bool,
}

impl Service {
    /// The flow as if it were to the port that the service is named by: it is decided about like that.
    pub fn named(&self, flow: &FlowKey) -> FlowKey {
        FlowKey { service: ServiceSocket { port: self.port, ..flow.service }, ..*flow }
    }
}

/// A service whose owner depends on the flow, unless it is owned without a lease.
#[derive(Clone, Copy, Debug)]
struct Divided {
    service: Service,
    by: PartitionBy,
}

impl Divided {
    fn slot_of(&self, flow: &FlowKey, duty: &Duty) -> Slot {
        duty.map.slots().slot_of(&self.service.named(flow), self.by)
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
    /// The slot is changing hands, or nobody's: this node does not act, and knows nobody who does.
    Pending,
}

impl OwnershipMap {
    /// An empty map, as node `this` sees it.
    pub(crate) fn new(this: NodeId) -> Self {
        Self {
            this,
            duty: None,
            home_by_service_address: HashMap::new(),
            service_by_socket: HashMap::new(),
            service_by_range: Vec::new(),
        }
    }

    /// Forgets all services; what nodes have agreed on stays.
    pub(crate) fn begin(&mut self) {
        self.home_by_service_address.clear();
        self.service_by_socket.clear();
        self.service_by_range.clear();
    }

    /// What nodes have agreed on.
    pub(crate) fn duty(&self) -> Option<&Duty> {
        self.duty.as_ref()
    }

    /// Returns what held before.
    pub(crate) fn set_duty(&mut self, duty: Duty) -> Option<Duty> {
        self.duty.replace(duty)
    }

    /// Until when this node may act for slots that others could own; `None` while it may not.
    pub(crate) fn acts_until(&self) -> Option<Timestamp> {
        self.duty.as_ref()?.until
    }

    /// Enters a service that `node` reports. The first claim on an address holds: callers enter themselves first and
    /// their peers in order of id, so that all nodes resolve a conflict alike. So does the first service's delivery for
    /// all of the address. `is_persistent` says whether its clients stay with their real server.
    pub(crate) fn add(&mut self, report: &ServiceReport, node: NodeId, is_persistent: bool) {
        let tenure = if report.sharing == Sharing::Home { Tenure::Home } else { Tenure::Leased };
        let owner = SlotOwner { node, tenure };
        let unclaimed = Home {
            owner,
            reporter: node,
            sharing: report.sharing,
            delivery: report.delivery,
            encapsulation: report.method.encapsulation(),
            direct_tcp: false,
            direct_udp: false,
        };
        let home = self.home_by_service_address.entry(report.socket.address).or_insert(unclaimed);
        if !home.admits(report, node) {
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
            sharing: home.sharing,
            method: report.method,
            delivery: home.delivery,
            port: report.socket.port,
            is_persistent,
        };
        // So do further ports of whatever claim: they are its service's.
        let divided = *self
            .service_by_socket
            .entry(ServiceKey(report.protocol, report.socket))
            .or_insert(Divided { service, by: report.partition_by });
        let further = report.ports.ranges();
        self.service_by_range
            .extend(further.map(|range| (report.protocol, report.socket.address, range, divided)));
    }

    /// The service of a flow and who decides about it; `None` when it belongs to no service of the cluster.
    #[inline]
    pub fn service_of(&self, flow: &FlowKey) -> Option<Service> {
        let known = self.known(flow)?;
        if known.service.owner.tenure == Tenure::Home {
            return Some(known.service);
        }
        Some(Service { owner: self.owner_of(flow, known), ..known.service })
    }

    #[inline]
    fn known(&self, flow: &FlowKey) -> Option<&Divided> {
        let known = self.service_by_socket.get(&ServiceKey(flow.protocol, flow.service));
        if known.is_some() || self.service_by_range.is_empty() { known } else { self.known_with(flow) }
    }

    /// The service among whose further ports the flow's is.
    fn known_with(&self, flow: &FlowKey) -> Option<&Divided> {
        let ServiceSocket { address, port } = flow.service;
        let mut ranges = self.service_by_range.iter();
        ranges
            .find(|(protocol, of, range, _)| {
                (*protocol, *of) == (flow.protocol, address) && range.contains(port)
            })
            .map(|(.., known)| known)
    }

    #[inline(never)]
    fn owner_of(&self, flow: &FlowKey, known: &Divided) -> SlotOwner {
        self.duty.as_ref().map_or(known.service.owner, |duty| {
            self.by_agreement(duty, flow.service.address, known.slot_of(flow, duty))
        })
    }

    /// The slot of a flow of a service whose owner needs a lease.
    pub(crate) fn slot_of(&self, flow: &FlowKey) -> Option<Slot> {
        let known = self.known(flow)?;
        let duty = self.duty.as_ref().filter(|_| known.service.owner.tenure != Tenure::Home)?;
        Some(known.slot_of(flow, duty))
    }

    /// True if this node decides about a flow, leases aside.
    pub(crate) fn is_own(&self, flow: &FlowKey) -> bool {
        self.service_of(flow).is_some_and(|service| service.owner.node == self.this)
    }

    fn by_agreement(&self, duty: &Duty, address: IpAddr, slot: Slot) -> SlotOwner {
        self.by_right(duty, duty.map.right(address, slot))
    }

    fn by_right(&self, duty: &Duty, right: Option<Right>) -> SlotOwner {
        match right {
            Some(right) if right.owner != self.this || duty.settled || !right.moved => {
                SlotOwner { node: right.owner, tenure: Tenure::Leased }
            }
            _ => SlotOwner { node: self.this, tenure: Tenure::Pending },
        }
    }

    /// Who decides for an address where there are no ports: about fragments by their source, and about echo requests.
    /// `None` when it is no service address.
    pub fn home_of(&self, address: IpAddr, source: IpAddr) -> Option<Home> {
        let home = self.home_by_service_address.get(&address)?;
        let duty = self.duty.as_ref().filter(|_| home.owner.tenure != Tenure::Home);
        let owner = duty.map_or(home.owner, |duty| {
            self.by_agreement(duty, address, slot_without_ports(source, address, duty.map.slots()))
        });
        Some(Home { owner, ..*home })
    }

    /// Who may own an address, and the owner of its first slot, who stands for it on the link; `None` when it is no service
    /// address.
    pub(crate) fn first_owner(&self, address: IpAddr) -> Option<(Sharing, SlotOwner)> {
        let home = self.home_by_service_address.get(&address)?;
        Some((home.sharing, self.first_owner_of(address, home.owner)))
    }

    fn first_owner_of(&self, address: IpAddr, reported: SlotOwner) -> SlotOwner {
        let duty = self.duty.as_ref().filter(|_| reported.tenure != Tenure::Home);
        duty.map_or(reported, |duty| self.by_agreement(duty, address, Slot(0)))
    }

    /// The node that reports an address; `None` when it is no service address.
    pub fn reporter_of(&self, address: IpAddr) -> Option<NodeId> {
        self.home_by_service_address.get(&address).map(|home| home.reporter)
    }

    /// A service by its own port, if nobody but its home may own it.
    pub(crate) fn undivided(&self, protocol: Protocol, socket: ServiceSocket) -> Option<&Service> {
        let service = &self.service_by_socket.get(&ServiceKey(protocol, socket))?.service;
        (service.owner.tenure == Tenure::Home && service.sharing == Sharing::Home).then_some(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::{ClientSocket, Ingress, PortGroup};
    use std::net::Ipv4Addr;

    fn flow(service: ServiceSocket) -> FlowKey {
        let client = ClientSocket { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 };
        FlowKey { protocol: Protocol::Tcp, client, service }
    }

    #[test]
    fn the_first_claim_on_an_address_holds() {
        let socket = ServiceSocket { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), port: 80 };
        let stolen = ServiceSocket { port: 443, ..socket };
        let mut map = OwnershipMap::new(NodeId(1));

        map.add(&ServiceReport::new(Protocol::Tcp, socket), NodeId(1), false);
        map.add(&ServiceReport::new(Protocol::Tcp, stolen), NodeId(2), false);

        assert_eq!(map.home_of(socket.address, socket.address).unwrap().owner.node, NodeId(1));
        assert_eq!(map.service_of(&flow(socket)).unwrap().owner.node, NodeId(1));
        assert_eq!(map.service_of(&flow(stolen)), None);
    }

    #[test]
    fn further_ports_are_the_service_s_but_for_those_that_another_one_is_named_by() {
        let ftp = ServiceSocket { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), port: 21 };
        let web = ServiceSocket { port: 80, ..ftp };
        let mut ports = PortGroup::NONE;
        assert!(ports.add(PortRange::new(20, 90).unwrap()));
        let mut map = OwnershipMap::new(NodeId(1));
        map.add(&ServiceReport { ports, ..ServiceReport::new(Protocol::Tcp, ftp) }, NodeId(1), true);
        map.add(&ServiceReport::new(Protocol::Tcp, web), NodeId(1), false);

        let port_of = |port| map.service_of(&flow(ServiceSocket { port, ..ftp })).map(|service| service.port);
        assert_eq!(
            [19, 20, 21, 80, 90, 91].map(port_of),
            [None, Some(21), Some(21), Some(80), Some(21), None]
        );
        let udp = FlowKey { protocol: Protocol::Udp, ..flow(ServiceSocket { port: 20, ..ftp }) };
        assert_eq!(map.service_of(&udp), None);
        map.begin();
        assert_eq!(map.service_of(&flow(ServiceSocket { port: 20, ..ftp })), None);
    }

    #[test]
    fn further_ports_that_another_sharer_reports_are_those_of_the_service_as_the_first_one_reports_it() {
        let socket = ServiceSocket { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), port: 21 };
        let sharing = Sharing::Shared(Ingress::Routed);
        let of_gue = ServiceReport {
            method: ForwardingMethod::Gue,
            sharing,
            ..ServiceReport::new(Protocol::Tcp, socket)
        };
        let mut ports = PortGroup::NONE;
        assert!(ports.add(PortRange::new(20, 20).unwrap()));
        let mut map = OwnershipMap::new(NodeId(1));
        map.add(&of_gue, NodeId(1), false);
        map.add(&ServiceReport { ports, method: ForwardingMethod::Ipip, ..of_gue }, NodeId(2), false);

        let further = map.service_of(&flow(ServiceSocket { port: 20, ..socket }));

        assert_eq!(further, map.service_of(&flow(socket)));
        assert_eq!(further.unwrap().method, ForwardingMethod::Gue);
    }

    #[test]
    fn all_services_of_an_address_are_delivered_alike() {
        let web = ServiceSocket { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), port: 80 };
        let other = ServiceSocket { port: 443, ..web };
        let alias = ServiceReport { delivery: DeliveryMode::Alias, ..ServiceReport::new(Protocol::Tcp, web) };
        let direct =
            ServiceReport { method: ForwardingMethod::Dr, ..ServiceReport::new(Protocol::Tcp, other) };
        let mut map = OwnershipMap::new(NodeId(1));

        map.add(&alias, NodeId(1), false);
        map.add(&direct, NodeId(1), false);

        assert_eq!(map.service_of(&flow(other)).unwrap().delivery, DeliveryMode::Alias);
        let home = map.home_of(web.address, web.address).unwrap();
        assert!(home.is_direct(Protocol::Tcp) && !home.is_direct(Protocol::Udp));
    }
}
