//! A director and the kernel's tables with the same knowledge.

use crate::above::Entered;
use crate::duties;
use dpr_conntrack::Config;
use dpr_director::{
    DeliveryRanges, Director, FurtherView, LocalSockets, Peer, PersistenceSettings, PersistentService,
    PolicyKind, Settings, ThisNode, Update,
};
use dpr_model::status::Counters;
use dpr_model::{
    Candidate, Capacity, ClientSocket, DeliveryMode, FlowKey, ForwardingMethod, Incarnation, Ingress,
    LoadPermille, MacAddress, NodeId, NodeState, PartitionBy, PortGroup, PortRange, Protocol, ServiceReport,
    ServiceSocket, Sharing, Timestamp, Weight,
};
use dpr_rewrite::{Packet, Version};
use dpr_xdp::abi::{self, Hop, NodeCounts, TICK_SHIFT};
use dpr_xdp::{
    Carrying, Connections, Finder, Host, Mirror, Neighbour, NextHop, Programs, Sizes, Tables, Timeouts,
};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// A second service address of this node, which the host does not hold.
pub(crate) const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// A next hop that is not known.
pub(crate) const UNREACHABLE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
pub(crate) const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// One that all nodes have.
pub(crate) const SHARED_MAC: MacAddress = MacAddress([2, 0, 0x5e, 0, 0, 0x63]);
/// Next hops of the default routes of IPv4 and of IPv6.
pub(crate) const ROUTERS: [MacAddress; 2] =
    [MacAddress([2, 0, 0, 0, 0, 99]), MacAddress([2, 0, 0, 0, 0, 98])];
pub(crate) const MTU: u16 = 1500;
/// Of the ways to some peers: tunnels over IPv6 leave less there than every link has to carry of IPv6.
pub(crate) const MTU_MIN: u16 = MTU - 200;
/// Ports by which this node translates: few, so that drawn answers meet them.
pub(crate) const NAT_PORTS: PortRange = PortRange::new(61_000, 61_003).expect("a range");
/// Of peers that translate, some of those that clients have as well.
const NAT_PORTS_OF_PEERS: Option<PortRange> = PortRange::new(1024, 1026);
/// Further ports that services may have, by the ports that these are named by. One of them is a service of its own, and one is in two
/// ranges.
pub(crate) const FURTHER: [(u16, [PortRange; 2]); 3] = [
    (80, [range(440, 450), range(8000, 8002)]),
    (443, [range(8002, 8003), range(65_000, u16::MAX)]),
    (53, [range(5300, 5300), range(8000, 8001)]),
];
/// The interface that test runs pretend to come in on.
const LOOPBACK: u32 = 1;
/// Seed of the flow hash.
pub(crate) const FLOW_SEED: u32 = 7;
/// Of translated packets: the largest ones that are drawn are handed up.
pub(crate) const MTU_OF_HOPS: u16 = 1200;
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// By whom addresses of all nodes may be owned.
const SHARED: [Sharing; 4] = [
    Sharing::Shared(Ingress::ArpOwner),
    Sharing::Shared(Ingress::Routed),
    Sharing::Shared(Ingress::SharedMac),
    Sharing::Shared(Ingress::SharedMac),
];
const TIMEOUTS: Timeouts =
    Timeouts { syn: PATIENCE, established: PATIENCE, fin: PATIENCE, close: PATIENCE, udp: PATIENCE };

const fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).expect("a range")
}

const METHODS: [ForwardingMethod; 4] =
    [ForwardingMethod::Ipip, ForwardingMethod::Gue, ForwardingMethod::Dr, ForwardingMethod::Nat];

/// The kernel's side; loaded once, emptied for every world.
pub(crate) struct Kernel {
    pub(crate) programs: Programs,
    pub(crate) tables: Tables,
}

impl Kernel {
    pub(crate) fn load(sizes: Sizes) -> Self {
        let (programs, tables) = dpr_xdp::load(sizes, None).unwrap_or_else(|error| panic!("{error}"));
        Self { programs, tables }
    }
}

/// What the nodes of a world are told.
pub(crate) struct World {
    /// Version of the node addresses; services are of both.
    pub(crate) nodes: Version,
    pub(crate) director: Director,
    pub(crate) mirror: Mirror,
    pub(crate) update: Update,
    /// Services whose flows are user space's to decide about, with their methods.
    method_above: BTreeMap<(Protocol, ServiceSocket), ForwardingMethod>,
    /// Services, by their own ports.
    services: BTreeSet<(Protocol, ServiceSocket)>,
    /// Ports that they have beside these.
    further: Vec<FurtherView>,
    /// Packets about flows to such ports, about which the programs have decided: of addresses that a node holds, and of those that are
    /// owned by slot.
    pub(crate) to_further: [usize; 2],
    /// Packets that the programs carried on to addresses that others may own, as they came, and in tunnels.
    pub(crate) entered: [usize; 2],
    /// Flows that the programs carry on.
    pub(crate) carrying: Carrying,
    /// What the director counted about packets that the programs hand up.
    pub(crate) counted_above: Counters,
    /// Of those, decisions that the programs know of.
    pub(crate) decided_above: u64,
    pub(crate) updated: Timestamp,
    /// The daemon is there.
    pub(crate) has_lease: bool,
    /// When packets arrive, for the director.
    pub(crate) now: Timestamp,
}

/// Nobody is connected to anything.
pub(crate) struct NoSockets;

impl LocalSockets for NoSockets {
    fn holds(&mut self, _protocol: Protocol, _local: ServiceSocket, _client: ClientSocket) -> bool {
        false
    }
}

pub(crate) fn peer_address(nth: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1 + nth)
}

/// What a node is called by others, where node addresses are of version `nodes`.
pub(crate) fn node_address(nodes: Version, address: Ipv4Addr) -> IpAddr {
    let [a, b, c, d] = address.octets();
    match nodes {
        Version::V4 => address.into(),
        Version::V6 => IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]),
    }
}

pub(crate) fn next_hop(address: IpAddr) -> Option<NextHop> {
    let last = match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    let destination = MacAddress([2, 0, 0, 0, 1, last]);
    let is_known =
        [Version::V4, Version::V6].iter().all(|nodes| node_address(*nodes, UNREACHABLE) != address);
    is_known.then_some(NextHop { link: LOOPBACK, source: MAC, destination })
}

/// Everybody is on the link.
fn neighbour_of(address: IpAddr) -> Option<Neighbour> {
    Some(Neighbour { address, hop: hop_to(address) })
}

fn hop_to(address: IpAddr) -> Hop {
    next_hop(address).map_or(Hop::default(), |next| Hop { mac: next.destination.0, mtu: MTU_OF_HOPS })
}

pub(crate) fn service(address: impl Into<IpAddr>, port: u16) -> ServiceReport {
    ServiceReport::new(Protocol::Tcp, ServiceSocket { address: address.into(), port })
}

pub(crate) fn datagrams(address: impl Into<IpAddr>, port: u16) -> ServiceReport {
    ServiceReport::new(Protocol::Udp, ServiceSocket { address: address.into(), port })
}

/// Services over both versions with drawn methods, and for each address one drawn way of delivery. Who may own it is drawn of
/// `sharings`. Flows to addresses that others may own are not translated.
fn services_of(
    rng: &mut Rng,
    address: Ipv4Addr,
    sharings: &[Sharing],
    methods: &[ForwardingMethod],
    have_further: bool,
) -> Vec<ServiceReport> {
    let mut services = Vec::new();
    for version in [Version::V4, Version::V6] {
        let address = node_address(version, address);
        let sharing = sharings[rng.usize(..sharings.len())];
        let delivery = match rng.u8(..4) {
            0 if sharing == Sharing::Home => DeliveryMode::Alias,
            _ => DeliveryMode::Translate,
        };
        for report in [service(address, 80), service(address, 443), datagrams(address, 53)] {
            let drawn = methods[rng.usize(..methods.len())];
            let may_be = sharing == Sharing::Home || drawn != ForwardingMethod::Nat;
            let method = if may_be { drawn } else { ForwardingMethod::Ipip };
            let partition_by = PartitionBy::ALL[rng.usize(..PartitionBy::ALL.len())];
            let ports = if have_further && rng.bool() { further_of(&report) } else { PortGroup::NONE };
            services.push(ServiceReport { method, delivery, sharing, partition_by, ports, ..report });
        }
    }
    services
}

fn further_of(service: &ServiceReport) -> PortGroup {
    let its = FURTHER.into_iter().filter(|(port, _)| *port == service.socket.port);
    let mut group = PortGroup::NONE;
    assert!(its.flat_map(|(_, ranges)| ranges).all(|range| group.add(range)));
    group
}

/// Some of the services, whose clients stay.
fn keeping_clients(services: &[ServiceReport], rng: &mut Rng) -> Vec<PersistentService> {
    let mut drawn = services.to_vec();
    drawn.retain(|_| rng.u8(..4) == 0);
    drawn.iter().map(|service| keeping(service, [24, 32, 64, 128][rng.usize(..4)])).collect()
}

/// The service, so many bits of whose clients' addresses are one client.
pub(crate) fn keeping(service: &ServiceReport, prefix_len: u8) -> PersistentService {
    let ServiceReport { protocol, socket, .. } = *service;
    PersistentService { protocol, service: socket, prefix_len, timeout: PATIENCE }
}

pub(crate) fn candidate(address: Ipv4Addr, load: u16, capacity: u32, weight: u16) -> Candidate {
    Candidate {
        node: NodeId::from_address(IpAddr::V4(address)),
        address: IpAddr::V4(address),
        load: LoadPermille(load),
        capacity: Capacity::new(capacity),
        weight: Weight(weight),
        outstanding: 0,
    }
}

pub(crate) fn peer(candidate: Candidate, services: Vec<ServiceReport>) -> Peer {
    Peer {
        candidate,
        state: NodeState::Active,
        alive: true,
        incarnation: Incarnation(1),
        report_interval: Duration::from_millis(100),
        acknowledged: Some(0),
        services: services.into(),
        nat_ports: None,
        mtu: None,
        source_filters: dpr_model::SourceFilters::default(),
    }
}

impl World {
    /// A world in which the director decides, and the peers are given.
    pub(crate) fn new(update: Update, seed: u64) -> Self {
        Self::over(Version::V4, update, Vec::new(), seed)
    }

    /// The same between nodes with addresses of version `nodes`; clients of `persistent` stay.
    pub(crate) fn over(
        nodes: Version,
        update: Update,
        persistent: Vec<PersistentService>,
        seed: u64,
    ) -> Self {
        let address = node_address(nodes, NODE);
        let services = update.this.services.clone();
        let director = Director::new(Settings {
            node: NodeId::from_address(address),
            address,
            delivery_ranges: DeliveryRanges::default(),
            services,
            answer_for: vec![VIRTUAL.into(), node_address(Version::V6, VIRTUAL)],
            mtu: MTU,
            nat_ports: Some(NAT_PORTS),
            conntrack: Config {
                capacity: 8192,
                half_open_capacity: 8192,
                timeouts: TIMEOUTS,
                hash_seed: [1, 2],
            },
            persistence: PersistenceSettings { services: persistent, clients_max: 4096 },
            seed,
        });
        let now = Timestamp::from_millis(1_000_000_000);
        let mirror = Mirror::new(NodeId::from_address(address));
        Self {
            nodes,
            director,
            mirror,
            update,
            method_above: BTreeMap::new(),
            services: BTreeSet::new(),
            further: Vec::new(),
            to_further: [0; 2],
            entered: [0; 2],
            carrying: Carrying::default(),
            counted_above: Counters::default(),
            decided_above: 0,
            updated: now,
            has_lease: false,
            now,
        }
    }

    /// A world with everything drawn at random that a packet's way depends on.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let nodes = if rng.u8(..3) == 0 { Version::V6 } else { Version::V4 };
        let (is_agreed, have_further) = (rng.bool(), rng.u8(..4) > 0);
        let policies =
            [PolicyKind::LocalEstimates, PolicyKind::Lightest, PolicyKind::Stateless, PolicyKind::RoundRobin];
        let policy = policies[rng.usize(..policies.len())];
        let weights_are_equal = policy == PolicyKind::RoundRobin;
        // Programs and director take turns of their own.
        let methods = if weights_are_equal { &METHODS[..3] } else { &METHODS[..] };
        let of_homes = match is_agreed {
            true => &[Sharing::Home, Sharing::Takeover, Sharing::Takeover, Sharing::Takeover][..],
            false => &[Sharing::Home],
        };
        // Of all nodes, where they have agreed.
        let of_virtual = if is_agreed && rng.u8(..4) > 0 { &SHARED[..] } else { of_homes };
        let virtual_services = services_of(rng, VIRTUAL, of_virtual, methods, have_further);
        let is_shared = |service: &&ServiceReport| matches!(service.sharing, Sharing::Shared(_));
        let shared: Vec<ServiceReport> = virtual_services.iter().filter(is_shared).copied().collect();
        let mut peers: Vec<Peer> = (1..=3)
            .map(|nth| {
                let address = peer_address(nth);
                let drawn =
                    candidate(address, rng.u16(..1000), rng.u32(50..5000), rng.u16(..300) * rng.u16(..2));
                let services =
                    [services_of(rng, address, of_homes, methods, have_further), shared.clone()].concat();
                let mut peer = peer(drawn, services);
                peer.candidate.address = node_address(nodes, address);
                peer.candidate.node = NodeId::from_address(peer.candidate.address);
                peer.mtu = (rng.u8(..4) == 0).then_some(MTU_MIN);
                peer.nat_ports = NAT_PORTS_OF_PEERS.filter(|_| rng.u8(..4) == 0);
                match rng.u8(..8) {
                    0 => peer.alive = false,
                    1 => (peer.alive, peer.state) = (false, NodeState::Leaving),
                    2 => peer.state = NodeState::Draining,
                    _ => {}
                }
                peer
            })
            .collect();
        if weights_are_equal {
            peers.iter_mut().for_each(|peer| peer.candidate.weight = Weight::ORDINARY);
        }
        peers.sort_by_key(|peer| peer.candidate.node);
        let weight = if weights_are_equal { Weight::ORDINARY } else { Weight(rng.u16(..300)) };
        let update = Update {
            this: ThisNode {
                state: if rng.u8(..8) == 0 { NodeState::Draining } else { NodeState::Active },
                load: LoadPermille(rng.u16(..1000)),
                capacity: Capacity::new(rng.u32(50..5000)),
                weight,
                services: [services_of(rng, NODE, of_homes, methods, have_further), virtual_services]
                    .concat(),
            },
            peers,
            external: Vec::new(),
            frozen: rng.u8(..16) == 0,
            policy,
            maxload: LoadPermille([0, 500, 900][rng.usize(..3)]),
        };
        // Whose turn it is, programs and director count each for themselves.
        let persistent =
            if weights_are_equal { Vec::new() } else { keeping_clients(&update.this.services, rng) };
        let mut world = Self::over(nodes, update, persistent, rng.u64(..));
        if is_agreed {
            let this = (NodeId::from_address(node_address(nodes, NODE)), &*world.update.this.services);
            let agreed = duties::draw(rng, this, &world.update.peers, world.updated);
            world.director.set_duty(agreed.duty, agreed.since);
        }
        world
    }

    /// Whether several nodes may own an address.
    pub(crate) fn may_move(&self, address: IpAddr) -> bool {
        let of_peers = self.update.peers.iter().flat_map(|peer| peer.services.iter());
        let mut services = self.update.this.services.iter().chain(of_peers);
        services.any(|service| service.socket.address == address && service.sharing != Sharing::Home)
    }

    /// Gives both sides the update, and walks through what was entered; without `lease` it is one that has run out. The director
    /// sees the packets itself, so it need not hear what the kernel counted.
    pub(crate) fn tell(&mut self, kernel: &mut Kernel, lease: bool) {
        self.tell_before_the_walk(kernel, lease);
        self.carrying
            .walk(&mut kernel.tables, &mut self.director, &self.mirror, usize::MAX, self.updated)
            .unwrap();
    }

    pub(crate) fn tell_before_the_walk(&mut self, kernel: &mut Kernel, lease: bool) {
        let counts = kernel.tables.counts(self.mirror.numbers_end()).unwrap();
        self.director.update(&self.update, self.updated);
        let boot_time_ns = if lease { u64::MAX / 2 } else { 0 };
        let host = Host {
            mac: MAC,
            shared_macs: &[SHARED_MAC],
            routers: ROUTERS.map(Some),
            timeouts: TIMEOUTS,
            boot_time_ns,
            now: self.updated,
            flow_seed: FLOW_SEED,
        };
        let view = self.director.view();
        let above = view.services.iter().filter(|service| service.is_begun_above);
        self.method_above = above.map(|its| ((its.protocol, its.socket), its.service.method)).collect();
        self.services = view.services.iter().map(|its| (its.protocol, its.socket)).collect();
        self.further.clone_from(&view.further);
        let content = self.mirror.content(&view, &counts, &host, next_hop);
        assert_eq!(content.left_out, 0);
        self.mirror.enter_gained(&mut kernel.tables, &self.director, &TIMEOUTS, ticks_now());
        kernel.tables.write(&content).unwrap();
        self.carrying.write_hops(&mut kernel.tables, hop_to).unwrap();
        self.has_lease = lease;
        self.now = self.updated + Duration::from_millis(if lease { 1 } else { 300 });
    }

    /// Lets the programs carry on the flow of a packet that they have handed up, or takes it back.
    pub(crate) fn learn(&mut self, kernel: &mut Kernel, packet: &Packet) {
        let Self { carrying, director, mirror, .. } = self;
        let mut finder = Finder { mirror, neighbour_of: &mut neighbour_of };
        carrying.learn(&mut kernel.tables, director, packet, &mut finder, 0).unwrap();
    }

    /// How the packets go of a flow that is user space's to decide about, on whatever node.
    pub(crate) fn method_above(&self, flow: &FlowKey) -> Option<ForwardingMethod> {
        self.method_above.get(&(flow.protocol, self.named(flow).service)).copied()
    }

    /// The flow as if it were to the port that its service is named by.
    fn named(&self, flow: &FlowKey) -> FlowKey {
        let is_its = |further: &&FurtherView| {
            (further.protocol, further.service.address) == (flow.protocol, flow.service.address)
                && further.ports.contains(flow.service.port)
        };
        let is_named = self.services.contains(&(flow.protocol, flow.service));
        let further = self.further.iter().find(is_its).filter(|_| !is_named);
        FlowKey { service: further.map_or(flow.service, |its| its.service), ..*flow }
    }

    /// Whether some service has a port beside its own.
    pub(crate) fn has_further(&self, protocol: Protocol, port: u16) -> bool {
        self.further.iter().any(|its| its.protocol == protocol && its.ports.contains(port))
    }

    /// The programs have decided about a packet of a flow.
    pub(crate) fn count_further(&mut self, flow: &FlowKey) {
        if self.named(flow) == *flow {
            return;
        }
        let is_by_slot = self.is_by_slot(flow.service.address);
        self.to_further[usize::from(is_by_slot)] += 1;
    }

    /// Whether no node holds an address that several may own.
    pub(crate) fn is_by_slot(&self, address: IpAddr) -> bool {
        self.director.view().homes.iter().any(|its| its.address == address && its.is_by_slot)
    }

    pub(crate) fn count_entered(&mut self, entered: &Entered) {
        if entered.may_move {
            self.entered[usize::from(entered.is_tunnelled)] += 1;
        }
    }

    /// True when two candidates for a port score alike, so that chance decides between them.
    pub(crate) fn has_a_tie(&self, port: u16) -> bool {
        let reported_only = self.update.policy == PolicyKind::Lightest;
        let view = self.director.view();
        let Some(service) = view.services.iter().find(|service| service.socket.port == port) else {
            return false;
        };
        let score = |candidate: &Candidate| match reported_only {
            true => Candidate { outstanding: 0, ..*candidate }.score(),
            false => candidate.score(),
        };
        let mut scores: Vec<u64> =
            service.candidates.iter().map(score).filter(|score| *score != u64::MAX).collect();
        scores.sort_unstable();
        scores.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// Both sides' connections, in order, in words.
    pub(crate) fn connections(&self, kernel: &Kernel) -> [Vec<String>; 2] {
        let is_above = |flow: &FlowKey| self.method_above(flow).is_some();
        let of_director = self.director.connections(self.now);
        let of_director = of_director.filter(|connection| !is_above(&connection.flow)).map(|connection| {
            let (flow, state) = (connection.flow, connection.state);
            format!("{flow} {state} {} {}", connection.real_server, connection.generation)
        });
        let mut of_director: Vec<String> = of_director.collect();
        of_director.sort();
        let mut of_kernel: Vec<String> = Connections::ALL
            .into_iter()
            .flat_map(|table| kernel.tables.connections(table, usize::MAX).unwrap())
            .filter(|(flow, _)| !is_above(flow))
            .filter_map(|(flow, entry)| self.connection_in_words(flow, entry))
            .collect();
        of_kernel.sort();
        [of_director, of_kernel]
    }

    fn connection_in_words(&self, flow: FlowKey, entry: abi::FlowEntry) -> Option<String> {
        let labels = ["half-open", "established", "fin", "reset", "closed"];
        let node = self.mirror.node(entry.real_server).unwrap();
        let has_left = |peer: &Peer| peer.candidate.node == node && peer.state == NodeState::Leaving;
        if self.update.peers.iter().any(has_left) {
            return None;
        }
        Some(format!("{flow} {} {node} {}", labels[usize::from(entry.state)], entry.generation))
    }
}

/// By the clock of the programs.
/// Now, as deadlines of entries count.
pub(crate) fn ticks_now() -> u32 {
    (monotonic_ns() >> TICK_SHIFT) as u32
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The counts of the kernel for a node.
pub(crate) fn counts_of(kernel: &Kernel, number: u16) -> NodeCounts {
    kernel.tables.counts(number + 1).unwrap()[usize::from(number)]
}
