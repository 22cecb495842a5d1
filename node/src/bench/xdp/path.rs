//! The packet path, loaded, with knowledge that makes it forward everything.

use anyhow::Context as _;
use dpr_conntrack::Config;
use dpr_director::{
    CarriedFlow, DeliveryRanges, Director, Onward, Peer, PersistenceSettings, PolicyKind, Settings, ThisNode,
    Update,
};
use dpr_model::{
    Candidate, Capacity, ForwardingMethod, Incarnation, LoadPermille, MacAddress, NodeId, NodeState,
    Protocol, ServiceReport, ServiceSocket, Timestamp, Weight,
};
use dpr_rewrite::Version;
use dpr_xdp::abi::{FlowEntry, Hop, TICK_SHIFT, TcpState};
use dpr_xdp::{Connections, Host, Mirror, Next, NextHop, Programs, Sizes, Tables, Timeouts, Walk};
use rustix::time::{ClockId, clock_gettime};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The director: node address and service address.
pub(super) const NODE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// Somebody else.
pub(super) const OTHER: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
/// What both have in front of these over IPv6.
const PREFIX_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x78, 0, 0, 0, 0, 0, 0);
/// The first service's port; nothing listens below it.
pub(super) const SERVICE_PORT: u16 = 80;
/// Methods, each with a service on a port of its own.
const METHODS: [ForwardingMethod; 4] =
    [ForwardingMethod::Ipip, ForwardingMethod::Gue, ForwardingMethod::Dr, ForwardingMethod::Nat];
/// Real servers.
const PEERS: u8 = 3;
/// Longer than any measurement.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// In test runs, of the director and of whoever it sends to.
pub(super) const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// What becomes of more new clients than can be meant: a measurement of new flows is a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Floods {
    /// They get no entries.
    Recognised,
    /// They are treated as the first one.
    Overlooked,
}

/// Programs and tables.
pub(super) struct Path {
    pub(super) programs: Programs,
    pub(super) tables: Tables,
    director: Director,
    mirror: Mirror,
    /// Version of the node addresses.
    nodes: Version,
    /// The way to every peer.
    hop: NextHop,
}

impl Path {
    /// For test runs: they come in on the loopback device, and packets leave where they came in.
    pub(super) const IN_TEST_RUNS: NextHop = NextHop { link: 1, source: MAC, destination: MAC };

    /// Loads the programs; connections go to whom [`PolicyKind::LocalEstimates`] says, by `hop`, in tunnels of version `nodes`.
    pub(super) fn prepare(nodes: Version, sizes: Sizes, hop: NextHop) -> anyhow::Result<Self> {
        let (programs, tables) = dpr_xdp::load(sizes, None)?;
        let address = over(nodes, NODE);
        let node = NodeId::from_address(address);
        let director = Director::new(Settings {
            node,
            address,
            delivery_ranges: DeliveryRanges::default(),
            services: services(NODE),
            answer_for: Vec::new(),
            mtu: 1500,
            nat_ports: None,
            conntrack: Config { capacity: 1, half_open_capacity: 1, ..Config::with_seed([1, 2]) },
            persistence: PersistenceSettings::default(),
            seed: 1,
        });
        let mut path = Self { programs, tables, director, mirror: Mirror::new(node), nodes, hop };
        path.choose_by(PolicyKind::LocalEstimates, Floods::Recognised)?;
        Ok(path)
    }

    /// Changes the policy, and whether a flood is recognised.
    pub(super) fn choose_by(&mut self, policy: PolicyKind, floods: Floods) -> anyhow::Result<()> {
        let counts = self.tables.counts(self.mirror.numbers_end())?;
        let now = Timestamp::from_millis(1000);
        self.director.update(&update(self.nodes, policy), now);
        let timeouts =
            Timeouts { syn: PATIENCE, established: PATIENCE, fin: PATIENCE, close: PATIENCE, udp: PATIENCE };
        // The lease has to last: nothing here is anybody's.
        let host = Host {
            mac: self.hop.source,
            shared_macs: &[],
            routers: [None; 2],
            timeouts,
            boot_time_ns: u64::MAX / 2,
            now,
            flow_seed: 0,
        };
        let mut content = self.mirror.content(&self.director.view(), &counts, &host, |_| Some(self.hop));
        if floods == Floods::Overlooked {
            content.settings.flood_from = i32::MAX as u32;
        }
        self.tables.write(&content).context("filling the maps")
    }

    /// Gives every flow of a walk an established connection, to each peer in turn.
    pub(super) fn fill(&mut self, walk: &Walk) -> anyhow::Result<()> {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        let now_ns = Duration::new(now.tv_sec as u64, now.tv_nsec as u32).as_nanos();
        let deadline = ((now_ns + PATIENCE.as_nanos()) >> TICK_SHIFT) as u32;
        for (flow, nth) in walk.connections().zip(0u32..) {
            let entry = FlowEntry {
                generation: 0,
                deadline,
                real_server: (1 + nth % u32::from(PEERS)) as u16,
                state: TcpState::Established as u8,
                term: 0,
            };
            self.tables.insert(Connections::Flows, &flow, &entry)?;
        }
        Ok(())
    }

    /// Lets the programs translate every flow of a walk.
    pub(super) fn fill_translated(&mut self, walk: &Walk) -> anyhow::Result<()> {
        const HOP: u16 = 0;
        self.tables.set_hop(HOP, &Hop { mac: MAC.0, mtu: 1500 })?;
        for (flow, nth) in walk.connections().zip(0u32..) {
            let stand_in = Ipv4Addr::from(u32::from(NODE) + (nth >> 15));
            let onward = Onward::Translated {
                server: SocketAddr::from((OTHER, port_of(ForwardingMethod::Nat))),
                // Each has its own.
                stand_in: Some(SocketAddr::from((stand_in, 0x8000 | nth as u16))),
            };
            let carried = CarriedFlow { flow, real_server: NodeId(1), generation: 0, onward };
            self.tables.enter_carried(&carried, Next::Hops([HOP; 2]), 0, 0)?;
        }
        Ok(())
    }
}

/// The port of the service by a method.
pub(super) fn port_of(method: ForwardingMethod) -> u16 {
    SERVICE_PORT + method as u16
}

/// An address, or what stands for it over IPv6.
pub(super) fn over(version: Version, address: Ipv4Addr) -> IpAddr {
    match version {
        Version::V4 => address.into(),
        Version::V6 => Ipv6Addr::from(u128::from(PREFIX_V6) | u128::from(u32::from(address))).into(),
    }
}

/// One by each method over each version.
fn services(address: Ipv4Addr) -> Vec<ServiceReport> {
    let by = |version, method| {
        let socket = ServiceSocket { address: over(version, address), port: port_of(method) };
        ServiceReport { method, ..ServiceReport::new(Protocol::Tcp, socket) }
    };
    [Version::V4, Version::V6]
        .into_iter()
        .flat_map(|version| METHODS.map(|method| by(version, method)))
        .collect()
}

/// This node is full, its peers are not.
fn update(nodes: Version, policy: PolicyKind) -> Update {
    let peer = |nth: u8| {
        let services_at = Ipv4Addr::new(10, 78, 0, 1 + nth);
        let address = over(nodes, services_at);
        let candidate = Candidate {
            node: NodeId::from_address(address),
            address,
            load: LoadPermille(100 * u16::from(nth)),
            capacity: Capacity::new(1000),
            weight: Weight::ORDINARY,
            outstanding: 0,
        };
        Peer {
            candidate,
            state: NodeState::Active,
            alive: true,
            incarnation: Incarnation(1),
            report_interval: Duration::from_millis(100),
            acknowledged: Some(0),
            services: services(services_at).into(),
            nat_ports: None,
            mtu: None,
            source_filters: dpr_model::SourceFilters::default(),
        }
    };
    Update {
        this: ThisNode {
            state: NodeState::Draining,
            load: LoadPermille(1000),
            capacity: Capacity::new(1000),
            weight: Weight::ORDINARY,
            services: services(NODE),
        },
        peers: (1..=PEERS).map(peer).collect(),
        external: Vec::new(),
        frozen: false,
        policy,
        maxload: LoadPermille(0),
    }
}
