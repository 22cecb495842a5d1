//! Which packets are the data plane's: what the filter shows it, and what the diversion keeps from the kernel.

use crate::config::Vlan;
use crate::dataplane::{Settings, Update};
use dpr_director::{DeliveryRange, DeliveryRanges};
use dpr_model::{ForwardingMethod, Peer, PortRange, Protocol, ServiceReport, ServiceSocket, Sharing};
use dpr_rewrite::ethernet::Tags;
use dpr_rewrite::{Frame, Kind, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// A socket of one transport protocol.
pub(crate) type Socket = (Protocol, SocketAddr);

/// Ports of an address, of one transport protocol.
pub(crate) type Ports = (Protocol, IpAddr, PortRange);

/// Whose packets the data plane takes care of, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    /// Services that packets come for: own ones, and with direct routing those of peers.
    pub(crate) services: BTreeSet<Socket>,
    /// Their further ports.
    pub(crate) ranges: BTreeSet<Ports>,
    /// Where tunnels end.
    pub(crate) node_address: IpAddr,
    /// Whose tunnels those are.
    pub(crate) peers: BTreeSet<IpAddr>,
    /// Service addresses of this node that the host does not hold.
    pub(crate) answer_for: BTreeSet<IpAddr>,
    /// Those, and addresses of peers that this node may take over: somebody may ask for their MAC addresses.
    pub(crate) asked_for: BTreeSet<IpAddr>,
    /// Addresses of translated connections, by their ports; nothing where this node translates nothing.
    pub(crate) nat: BTreeMap<PortRange, BTreeSet<IpAddr>>,
    /// Servers whose replies are routed through this host to be translated back.
    pub(crate) half_nat_servers: BTreeSet<Socket>,
    /// VLANs on the interface whose frames are like untagged ones.
    pub(crate) vlans: Vec<Vlan>,
    /// Where only the data plane may send to, as far as it is for the packet filter to see to that.
    pub(crate) forbidden: Vec<DeliveryRange>,
}

impl Interest {
    /// Without peers. `held` are the host's addresses.
    pub(crate) fn new(settings: &Settings, held: &[IpAddr]) -> Self {
        let own: BTreeSet<Socket> = settings
            .services
            .iter()
            .map(|service| (service.protocol, SocketAddr::new(service.address, service.port)))
            .collect();
        let addresses: BTreeSet<IpAddr> = own.iter().map(|(_, socket)| socket.ip()).collect();
        let ranges = settings.services.iter().flat_map(|service| ranges_of(&service.report()));
        let half_nat = settings.services.iter().filter(|service| service.method == ForwardingMethod::HalfNat);
        let half_nat_servers = half_nat
            .flat_map(|service| service.servers.iter().map(|server| (service.protocol, server.socket)));
        let away: BTreeSet<IpAddr> =
            addresses.iter().copied().filter(|address| !held.contains(address)).collect();
        Self {
            node_address: settings.address,
            peers: BTreeSet::new(),
            asked_for: away.clone(),
            answer_for: away,
            nat: settings.nat_ports.map_or(BTreeMap::new(), |ports| {
                let node = std::iter::once(settings.address);
                BTreeMap::from([(ports, addresses.iter().copied().chain(node).collect())])
            }),
            half_nat_servers: half_nat_servers.collect(),
            vlans: settings.vlans.clone(),
            forbidden: both(settings.delivery_ranges),
            ranges: ranges.collect(),
            services: own,
        }
    }

    /// The same, which must be without peers, with those of `update`; `held` are the host's addresses.
    pub(crate) fn with_peers_of(&self, update: &Update, held: &[IpAddr]) -> Self {
        let comes_here = |service: &&ServiceReport| {
            service.method == ForwardingMethod::Dr || service.sharing != Sharing::Home
        };
        let of_peers = || update.peers.iter().flat_map(|peer| peer.services.iter().filter(comes_here));
        let may_be_owned = of_peers().filter(|service| service.sharing != Sharing::Home);
        let may_be_owned = may_be_owned.map(|service| service.socket.address);
        let asked_for = may_be_owned.filter(|address| !held.contains(address));
        let mut nat = self.nat.clone();
        for (service, ports) in update.peers.iter().flat_map(translated).filter(|_| !self.nat.is_empty()) {
            nat.entry(ports).or_default().insert(service);
        }
        let socket = |service: &ServiceReport| {
            let ServiceSocket { address, port } = service.socket;
            (service.protocol, SocketAddr::new(address, port))
        };
        Self {
            services: self.services.iter().copied().chain(of_peers().map(socket)).collect(),
            ranges: self.ranges.iter().copied().chain(of_peers().flat_map(ranges_of)).collect(),
            asked_for: self.asked_for.iter().copied().chain(asked_for).collect(),
            peers: update.peers.iter().map(|peer| peer.candidate.address).collect(),
            nat,
            ..self.clone()
        }
    }

    /// True for frames without tags, and for those of VLANs that count as such.
    pub(crate) fn takes(&self, tags: &Tags) -> bool {
        tags.is_empty() || self.vlans.iter().any(|vlan| vlan.is_of(tags))
    }
}

/// Where answers to a peer's translated connections come, which this node may take over.
fn translated(peer: &Peer) -> impl Iterator<Item = (IpAddr, PortRange)> {
    let is_taken_over = |service: &&ServiceReport| {
        service.method == ForwardingMethod::Nat && service.sharing == Sharing::Takeover
    };
    let addresses = peer.services.iter().filter(is_taken_over).map(|service| service.socket.address);
    peer.nat_ports.into_iter().flat_map(move |ports| addresses.clone().map(move |address| (address, ports)))
}

fn ranges_of(service: &ServiceReport) -> impl Iterator<Item = Ports> + use<> {
    let (protocol, address) = (service.protocol, service.socket.address);
    service.ports.ranges().map(move |range| (protocol, address, range))
}

/// The ranges of both IP versions.
fn both(ranges: DeliveryRanges) -> Vec<DeliveryRange> {
    vec![ranges.of(Version::V4), ranges.of(Version::V6)]
}

/// The interest as it is, and what it grows from.
pub(crate) struct Interests {
    /// Of this node alone.
    pub(crate) without_peers: Interest,
    /// With the peers of the last update.
    pub(crate) current: Interest,
    /// The host's addresses.
    pub(crate) held: Vec<IpAddr>,
}

impl Interests {
    /// Leaves it to the packet filter to keep strangers from delivery addresses.
    pub(crate) fn forbid(&mut self, ranges: DeliveryRanges) {
        for interest in [&mut self.without_peers, &mut self.current] {
            interest.forbidden = both(ranges);
        }
    }

    /// True for a fragment that the packet filter takes as it cannot see whose it is, and that may be another program's of
    /// this host.
    pub(crate) fn takes_for_want_of_ports(&self, frame: &Frame) -> bool {
        let (packet, address) = (&frame.packet, frame.packet.ip.destination());
        let is_fragment = matches!(packet.kind, Kind::Fragment(_)) && frame.outer.is_none();
        let is_of =
            |(protocol, socket): &Socket| (protocol.number(), socket.ip()) == (packet.ip.protocol(), address);
        is_fragment && self.held.contains(&address) && self.current.services.iter().any(is_of)
    }

    /// The interest with the peers of `update`, if that is another one than now.
    pub(crate) fn changed_by(&self, update: &Update) -> Option<Interest> {
        let new = self.without_peers.with_peers_of(update, &self.held);
        (new != self.current).then_some(new)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// For a host that holds the node address only.
    pub(in crate::dataplane::userspace) fn interest(
        node_address: IpAddr,
        services: &[Socket],
        nat_ports: Option<PortRange>,
    ) -> Interest {
        let services: BTreeSet<Socket> = services.iter().copied().collect();
        let addresses: BTreeSet<IpAddr> = services.iter().map(|(_, socket)| socket.ip()).collect();
        let away: BTreeSet<IpAddr> =
            addresses.iter().copied().filter(|address| *address != node_address).collect();
        Interest {
            node_address,
            peers: BTreeSet::new(),
            asked_for: away.clone(),
            answer_for: away,
            nat: nat_ports
                .map(|ports| (ports, addresses.into_iter().chain([node_address]).collect()))
                .into_iter()
                .collect(),
            half_nat_servers: BTreeSet::new(),
            vlans: Vec::new(),
            forbidden: both(DeliveryRanges::default()),
            ranges: BTreeSet::new(),
            services,
        }
    }
}
