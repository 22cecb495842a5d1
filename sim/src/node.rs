//! One node: director, gossip, TCP stack and clocks, joined as the daemon's event loop joins them.
//!
//! All times that come in are the simulator's; the node only ever sees its own clock.

use crate::names::{GOSSIP_PORT, SERVICE_PORT, SHARED, address_of, service_of};
use crate::packets::Packet;
use crate::setup::Settings;
use crate::stack::Stack;
use crate::staying::{CLIENTS_MAX, STAY, prefix_len};
use dpr_director::{DeliveryRanges, Director, PersistenceSettings, PersistentService, ThisNode, Update};
use dpr_load_gossip::{Action, Config, Gossip};
use dpr_model::{
    ForwardingMethod, Incarnation, LoadPermille, LoadReport, MapVersion, Metric, MetricSample, NodeId,
    NodeState, PartitionBy, PortRange, Protocol, ServiceReport, Sharing, Timestamp,
};
use dpr_ownership::Agreement;
use dpr_ownership::agreement::Duty;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Intervals for which a node listens before it offers itself, as in the daemon.
const JOINING_INTERVALS: u32 = 3;
/// Ports for full NAT: more than a node ever has connections.
const NAT_PORTS: Option<PortRange> = PortRange::new(40_000, 49_999);
/// Entries that are looked at for expiry at a time.
const EXPIRY_BUDGET: usize = 1024;
/// A wall clock's reading when the simulator's clock begins, milliseconds since 1970.
const WALL_CLOCK_AT_START_MS: u64 = 1_700_000_000_000;

/// A node that is switched on.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) settings: Settings,
    clock: Clock,
    pub(crate) stack: Stack,
    pub(crate) daemon: Option<Daemon>,
    pub(crate) load_override: Option<LoadPermille>,
    pub(crate) incarnation: Incarnation,
    boots: u64,
    /// What agreement keeps on the disk.
    pub(crate) saved: Option<Vec<u8>>,
    /// An operator wants it to own nothing and to get nothing new.
    pub(crate) drained: bool,
    /// Clients do not reach it.
    pub(crate) cut_off: bool,
    /// It takes leave, and waits until then at most for others to own what it owns.
    pub(crate) leaves_until: Option<Timestamp>,
    /// An operator has given it up: it is never switched on again.
    pub(crate) is_given_up: bool,
    /// When the witness and other voters are asked again.
    pub(crate) ask_at: Timestamp,
    /// When the director is asked for messages about copies again.
    pub(crate) sync_at: Timestamp,
    /// Events of timers that belong to an earlier run are void.
    pub(crate) run: u32,
    pub(crate) standing: Standing,
    /// When gossip wants to be woken, on the simulator's clock, if that is scheduled.
    pub(crate) gossip_armed: Option<Timestamp>,
    /// True while an update of the data plane is scheduled.
    pub(crate) update_armed: bool,
    /// How long a packet waits for the data plane.
    pub(crate) lateness: Duration,
    /// What waits, in the order in which it came.
    pub(crate) waiting: VecDeque<Packet>,
}

/// Whether a node does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Running,
    Paused,
    Dead,
}

/// A daemon's life.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) director: Director,
    pub(crate) gossip: Gossip,
    pub(crate) state: NodeState,
    active_at: Timestamp,
    pub(crate) load: LoadPermille,
    /// With whom it agrees on who owns what, if anything is shared.
    pub(crate) agreement: Option<Agreement>,
    /// What its director was told last about what it may own.
    pub(crate) duty: Option<Duty>,
    /// Memory of the connection-forwarding table when it was new, bytes.
    pub(crate) memory_bytes_at_start: usize,
    /// Handshakes that the table had displaced when somebody last looked.
    pub(crate) displaced: u64,
}

/// A node's clocks against the simulator's.
#[derive(Clone, Copy, Debug)]
struct Clock {
    ahead: Duration,
    wall_clock_behind: Duration,
}

impl Node {
    /// A node that boots now; its clock began some time before.
    pub(crate) fn boot(id: NodeId, settings: &Settings, uptime: Duration, now: Timestamp) -> Self {
        let mut node = Self {
            id,
            settings: settings.clone(),
            clock: Clock { ahead: uptime, wall_clock_behind: Duration::ZERO },
            stack: Stack::new(id, SERVICE_PORT, 0),
            daemon: None,
            load_override: None,
            incarnation: Incarnation(0),
            boots: 0,
            saved: None,
            drained: false,
            cut_off: false,
            leaves_until: None,
            is_given_up: false,
            ask_at: Timestamp::default(),
            sync_at: Timestamp::default(),
            run: 0,
            standing: Standing::Dead,
            gossip_armed: None,
            update_armed: false,
            lateness: Duration::ZERO,
            waiting: VecDeque::new(),
        };
        node.start(now);
        node
    }

    /// Boots the node.
    pub(crate) fn start(&mut self, now: Timestamp) {
        self.boots += 1;
        let seed = self.seed();
        self.stack = Stack::new(self.id, SERVICE_PORT, seed);
        self.standing = Standing::Running;
        self.start_daemon(now);
    }

    /// Switches the node off; nothing of it is left but its disk.
    pub(crate) fn stop(&mut self) {
        self.stop_daemon();
        self.stack = Stack::new(self.id, SERVICE_PORT, 0);
        self.standing = Standing::Dead;
    }

    pub(crate) fn stop_daemon(&mut self) {
        self.daemon = None;
        self.leaves_until = None;
        self.begin_run();
    }

    /// Starts the daemon in a life after all former ones, whatever the wall clock says.
    pub(crate) fn start_daemon(&mut self, now: Timestamp) {
        let wall_clock_ms = WALL_CLOCK_AT_START_MS + now.as_millis();
        let behind_ms = u64::try_from(self.clock.wall_clock_behind.as_millis()).unwrap_or(u64::MAX);
        let by_clock = wall_clock_ms.saturating_sub(behind_ms);
        self.incarnation = Incarnation(by_clock.max(self.incarnation.0 + 1));
        let local = self.local(now);
        let director = self.new_director();
        let agreement = self.new_agreement(local);
        let daemon = Daemon {
            memory_bytes_at_start: director.memory_bytes(),
            director,
            gossip: Gossip::new(self.gossip_config(), local),
            state: NodeState::Joining,
            active_at: local + self.settings.interval * JOINING_INTERVALS,
            load: LoadPermille(0),
            agreement,
            duty: None,
            displaced: 0,
        };
        self.daemon = Some(daemon);
        self.begin_run();
        self.observe(now);
    }

    /// Voids all timers.
    pub(crate) fn begin_run(&mut self) {
        self.run += 1;
        self.gossip_armed = None;
        self.update_armed = false;
    }

    pub(crate) fn step_clock(&mut self, ahead: Duration) {
        self.clock.ahead += ahead;
    }

    pub(crate) fn set_back_wall_clock(&mut self, by: Duration) {
        self.clock.wall_clock_behind += by;
    }

    /// The node's own time.
    pub(crate) fn local(&self, now: Timestamp) -> Timestamp {
        now + self.clock.ahead
    }

    pub(crate) fn is_running(&self) -> bool {
        self.standing == Standing::Running
    }

    /// Measures load, says it, expires what is old: what the daemon does several times a second.
    pub(crate) fn observe(&mut self, now: Timestamp) {
        let local = self.local(now);
        let load = self.load_override.unwrap_or_else(|| self.measured_load());
        let Some(daemon) = &mut self.daemon else { return };
        if local >= daemon.active_at {
            daemon.state = match (self.leaves_until, self.drained) {
                (Some(_), _) => NodeState::Leaving,
                (None, true) => NodeState::Draining,
                (None, false) => NodeState::Active,
            };
        }
        daemon.load = load;
        daemon.director.handle_timeout(local, EXPIRY_BUDGET);
        let report = self.report();
        if let (Some(daemon), Some(report)) = (&mut self.daemon, report) {
            daemon.gossip.set_report(&report).expect("a report of this simulator is in bounds");
        }
    }

    /// Tells the data plane what gossip knows.
    pub(crate) fn update(&mut self, now: Timestamp) {
        let local = self.local(now);
        self.prolong_duty(local);
        let settings = &self.settings;
        let services = self.services();
        let Some(daemon) = &mut self.daemon else { return };
        let update = Update {
            this: ThisNode {
                state: daemon.state,
                load: daemon.load,
                capacity: settings.capacity,
                weight: settings.weight,
                services,
            },
            peers: daemon.gossip.peers(local).map(|view| view.to_peer(None)).collect(),
            external: Vec::new(),
            frozen: daemon.gossip.frozen(),
            policy: settings.policy,
            maxload: settings.maxload,
        };
        daemon.director.update(&update, local);
    }

    pub(crate) fn handle_datagram(&mut self, from: NodeId, bytes: &[u8], now: Timestamp) {
        let local = self.local(now);
        if let Some(daemon) = &mut self.daemon {
            // Refusals are counted by gossip.
            let _ = daemon.gossip.handle_datagram(
                gossip_socket(address_of(from, self.settings.nodes)),
                bytes,
                local,
            );
        }
    }

    pub(crate) fn handle_gossip_timeout(&mut self, now: Timestamp) {
        let local = self.local(now);
        self.handle_agreement_timeout(local);
        if let Some(daemon) = &mut self.daemon
            && daemon.gossip.poll_timeout().is_some_and(|at| at <= local)
        {
            daemon.gossip.handle_timeout(local);
        }
    }

    /// When gossip or agreement wants to be woken, on the simulator's clock.
    pub(crate) fn gossip_timeout(&self) -> Option<Timestamp> {
        let daemon = self.daemon.as_ref()?;
        let agreement = daemon.agreement.as_ref().map(Agreement::poll_timeout);
        let local = daemon.gossip.poll_timeout().into_iter().chain(agreement).min()?;
        Some(Timestamp::default() + local.since(Timestamp::default() + self.clock.ahead))
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.daemon.as_mut()?.gossip.poll_action()
    }

    /// Entries that its table can hold, and how many of them may be half-open.
    pub(crate) fn table_limits(&self) -> (usize, usize) {
        (self.settings.table_capacity, self.settings.half_open_capacity)
    }

    fn measured_load(&self) -> LoadPermille {
        LoadPermille::of(self.stack.established().into(), self.settings.capacity.get().into())
    }

    fn report(&self) -> Option<LoadReport> {
        let daemon = self.daemon.as_ref()?;
        Some(LoadReport {
            node: self.id,
            incarnation: self.incarnation,
            name: String::new(),
            state: daemon.state,
            address: address_of(self.id, self.settings.nodes),
            capacity: self.settings.capacity,
            weight: self.settings.weight,
            load: daemon.load,
            metrics: vec![MetricSample { metric: Metric::Connections, load: self.measured_load() }],
            services: self.services(),
            received: daemon.director.acknowledgements(),
            content_version: 0,
            nat_ports: self.nat_ports(),
            map_version: daemon.agreement.as_ref().map_or(MapVersion::default(), |one| one.map().version()),
        })
    }

    fn new_director(&self) -> Director {
        let seed = self.seed();
        Director::new(dpr_director::Settings {
            node: self.id,
            address: address_of(self.id, self.settings.nodes),
            delivery_ranges: DeliveryRanges::default(),
            services: self.services(),
            answer_for: Vec::new(),
            mtu: self.settings.mtu,
            nat_ports: self.nat_ports(),
            conntrack: dpr_conntrack::Config {
                capacity: self.settings.table_capacity,
                half_open_capacity: self.settings.half_open_capacity,
                ..dpr_conntrack::Config::with_seed([seed, !seed])
            },
            persistence: self.persistence(),
            seed,
        })
    }

    fn persistence(&self) -> PersistenceSettings {
        let Some(bits) = self.settings.persistence else { return PersistenceSettings::default() };
        let persistent = |service: ServiceReport| PersistentService {
            protocol: service.protocol,
            service: service.socket,
            prefix_len: prefix_len(service.socket.address, bits),
            timeout: STAY,
        };
        PersistenceSettings {
            services: self.services().into_iter().map(persistent).collect(),
            clients_max: CLIENTS_MAX,
        }
    }

    fn nat_ports(&self) -> Option<PortRange> {
        NAT_PORTS.filter(|_| self.settings.method == ForwardingMethod::Nat)
    }

    pub(crate) fn services(&self) -> Vec<ServiceReport> {
        let service = service_of(self.id, self.settings.services);
        let method = self.settings.method;
        let by = self.settings.persistence.map_or(PartitionBy::default(), |_| PartitionBy::SourceAddress);
        let own = ServiceReport { method, partition_by: by, ..ServiceReport::new(Protocol::Tcp, service) };
        let Some(ingress) = self.settings.ingress else { return vec![own] };
        let socket = service_of(SHARED, self.settings.services);
        // Translation has no hop budget, and shared addresses may take two hops.
        let method = if method == ForwardingMethod::Nat { ForwardingMethod::Ipip } else { method };
        let shared = ServiceReport { socket, sharing: Sharing::Shared(ingress), method, ..own };
        vec![ServiceReport { sharing: Sharing::Takeover, ..own }, shared]
    }

    fn gossip_config(&self) -> Config {
        Config::new(self.id, self.incarnation)
            .with_interval(self.settings.interval)
            .expect("the interval was checked when the cluster was set up")
            .with_seed(self.seed())
    }

    fn seed(&self) -> u64 {
        self.settings.seed ^ u64::from(self.id.0) << 32 ^ self.incarnation.0 ^ self.boots << 48
    }
}

impl Daemon {
    /// Peers that this daemon takes for alive, by id.
    pub(crate) fn alive(&self, local: Timestamp) -> Vec<NodeId> {
        self.gossip.peers(local).filter(|peer| peer.alive).map(|peer| peer.report.node).collect()
    }
}

/// A datagram in the making: who gets it, and its bytes.
pub(crate) type Datagram = Arc<[u8]>;

fn gossip_socket(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, GOSSIP_PORT)
}
