//! The cluster on its virtual clock: what can be asked of it, and the loop that makes time pass.

use crate::client::{Clients, ConnectionId, Outcome, Plan};
use crate::fault::Fault;
use crate::invariants::{Broken, Violation, check_bounds, check_entries};
use crate::log::{Entry, Log};
use crate::names::{Host, flow};
use crate::network::{Network, Quality};
use crate::node::{Datagram, Node, Standing};
use crate::packets::{Packet, Received};
use crate::queue::Queue;
use crate::segment::ClientSegment;
use crate::setup::{Settings, Setup};
use crate::sharing::Sharing;
use crate::staying::Staying;
use crate::witness::Answer;
use crate::workload::Workload;
use dpr_model::status::Counters;
use dpr_model::{ClientSocket, FlowKey, LoadPermille, NodeId, Timestamp};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;

/// Nodes start within this time.
const START_SPREAD: Duration = Duration::from_millis(100);
/// Clocks of nodes began up to this long before the simulator's, at random: ten days.
const UPTIME_MAX_S: u64 = 10 * 24 * 60 * 60;
/// Time in which a new cluster gets to know itself: joining takes three intervals, slow start three seconds.
const GET_ACQUAINTED: Duration = Duration::from_secs(4);
/// Intervals in which nodes agree on their first map: no promise of an earlier life lasts longer than 25.
const FOUNDING_INTERVALS: u32 = 40;
/// Time between two looks at every table entry.
const SWEEP: Duration = Duration::from_secs(1);
/// What waits for a paused node at most; more is lost, as in the ring of a packet socket.
pub(crate) const BACKLOG_MAX: usize = 4096;
/// Events to come at most; a thousand nodes' datagrams fit.
const EVENTS_MAX: usize = 4_000_000;
/// Entries of the log that a violation shows.
const ENTRIES_SHOWN: usize = 100;

/// A cluster, its clients and its network.
///
/// Everything that happens follows from the seed and the calls. Any broken invariant ends the run with a
/// [`Violation`], which names the seed.
#[derive(Debug)]
pub struct Sim {
    pub(crate) settings: Settings,
    pub(crate) now: Timestamp,
    pub(crate) queue: Queue<Event>,
    pub(crate) network: Network,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) clients: Clients,
    pub(crate) workload: Option<Workload>,
    pub(crate) astray_permille: u16,
    pub(crate) backlogs: BTreeMap<NodeId, Vec<Parcel>>,
    /// Flows by what they are called between a director that translates and the real server.
    pub(crate) flow_by_translated: BTreeMap<FlowKey, FlowKey>,
    pub(crate) sharing: Sharing,
    pub(crate) staying: Staying,
    pub(crate) log: Log,
    pub(crate) rng: Rng,
    broken: Option<Broken>,
}

/// What happens at some time.
#[derive(Debug)]
pub(crate) enum Event {
    Arrive(Host, Parcel),
    /// A node's turn to measure and report, in the run of its timers that this belongs to.
    Tick(NodeId, u32),
    Gossip(NodeId, u32),
    Update(NodeId, u32),
    /// A data plane that is late gets to a packet.
    Look(NodeId),
    /// A host that a node asked whether it is there has answered.
    Answer(NodeId, u32, Answer),
    Client(ConnectionId),
    NextConnection,
    Fault(Fault),
    Sweep,
}

/// What the network carries.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    /// In a box, as the queue moves its events about, and datagrams are many and small.
    Packet(Box<Packet>),
    Datagram(NodeId, Datagram),
}

impl Parcel {
    pub(crate) fn of(packet: Packet) -> Self {
        Self::Packet(Box::new(packet))
    }
}

impl Sim {
    /// Begins a cluster whose every random choice follows from `seed`.
    pub fn seeded(seed: u64) -> Setup {
        Setup::seeded(seed)
    }

    pub(crate) fn start(settings: Settings) -> Self {
        let mut rng = Rng::with_seed(settings.seed);
        let mut sim = Self {
            network: Network::new(rng.u64(..)),
            now: Timestamp::from_millis(0),
            queue: Queue::new(),
            nodes: BTreeMap::new(),
            clients: Clients::default(),
            workload: None,
            astray_permille: 0,
            backlogs: BTreeMap::new(),
            flow_by_translated: BTreeMap::new(),
            sharing: Sharing::default(),
            staying: Staying::default(),
            log: Log::new(),
            rng,
            broken: None,
            settings,
        };
        for id in (1..=sim.settings.count).map(NodeId) {
            let uptime = Duration::from_secs(sim.rng.u64(..UPTIME_MAX_S));
            let node = Node::boot(id, &sim.settings, uptime, sim.now);
            sim.nodes.insert(id, node);
            sim.start_timers(id, START_SPREAD);
        }
        sim.queue.push(sim.now + SWEEP, Event::Sweep);
        let agreed = sim.settings.interval * FOUNDING_INTERVALS;
        sim.run_for(if sim.is_shared() { GET_ACQUAINTED.max(agreed) } else { GET_ACQUAINTED });
        sim
    }

    /// Lets time pass.
    ///
    /// # Panics
    /// With the seed and what happened last, when an invariant does not hold.
    #[track_caller]
    pub fn run_for(&mut self, duration: Duration) {
        if let Err(violation) = self.try_run_for(duration) {
            panic!("{violation}");
        }
    }

    /// Lets time pass until it is over or an invariant does not hold.
    ///
    /// # Errors
    /// What does not hold. The run cannot go on then.
    pub fn try_run_for(&mut self, duration: Duration) -> Result<(), Box<Violation>> {
        let end = self.now + duration;
        while let Some((at, event)) = self.queue.pop_until(end) {
            self.now = at;
            let outcome = self.handle(event);
            self.note(outcome);
            if let Some(broken) = &self.broken {
                return Err(Box::new(self.violation(broken.clone())));
            }
        }
        self.now = end;
        Ok(())
    }

    /// Time on the simulator's clock.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// What has happened.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Nodes by id.
    pub fn node_ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Nodes whose daemon is at work, by id.
    pub(crate) fn running(&self) -> Vec<NodeId> {
        let runs = |node: &&Node| node.is_running() && node.daemon.is_some();
        self.nodes.values().filter(runs).map(|node| node.id).collect()
    }

    /// The node reports this load from its next observation on, whatever it has to do.
    pub fn set_load(&mut self, node: NodeId, load: LoadPermille) {
        self.inject(Fault::ReportLoad(node, Some(load)));
    }

    /// How well packets travel between nodes.
    pub fn set_inside(&mut self, quality: Quality) {
        self.network.inside = quality;
    }

    /// How well packets travel between nodes and clients.
    pub fn set_outside(&mut self, quality: Quality) {
        if !self.network.outside.keeps_pace() {
            self.sharing.begin_keeping_pace();
        }
        self.network.outside = quality;
    }

    /// This share of clients' packets arrives at any node, as from a router that spreads them.
    pub fn set_astray(&mut self, permille: u16) {
        self.astray_permille = permille;
    }

    /// Clients begin to come and go; `None` lets no more come.
    pub fn set_workload(&mut self, workload: Option<Workload>) {
        let was_idle = self.workload.is_none();
        self.workload = workload;
        if was_idle && self.workload.is_some() {
            self.queue.push(self.now, Event::NextConnection);
        }
    }

    /// A segment for `node`'s service address arrives there now; says what the node did.
    pub fn receive(&mut self, node: NodeId, segment: ClientSegment) -> Received {
        self.receive_for(node, node, segment)
    }

    /// A segment for the service address of `home` arrives at `node` now; says what the node did.
    pub fn receive_for(&mut self, node: NodeId, home: NodeId, segment: ClientSegment) -> Received {
        let flow = flow(segment.client, home);
        let frame = segment.addressed(&flow).to_frame();
        let handled = self.handle_packet(node, Packet::of_nobody(flow, frame));
        let verdict = handled.as_ref().ok().copied().flatten();
        self.note(handled.map(|_| ()));
        Received { verdict }
    }

    /// A client opens a connection to the service address of `home` and acts by `plan`; `None` when it still has one
    /// with these sockets.
    pub fn connect(&mut self, client: ClientSocket, home: NodeId, plan: Plan) -> Option<ConnectionId> {
        self.open(flow(client, home), home, plan)
    }

    /// What became of a connection; `None` while it goes on.
    pub fn outcome(&self, connection: ConnectionId) -> Option<Outcome> {
        self.clients.get(connection)?.outcome
    }

    /// The node on which a connection's handshake was completed.
    pub fn real_server_of(&self, connection: ConnectionId) -> Option<NodeId> {
        self.clients.get(connection)?.real_server
    }

    /// Connections of all clients that have had this outcome; `None` for those that go on.
    pub fn connections_with(&self, outcome: Option<Outcome>) -> usize {
        self.clients.count(outcome)
    }

    /// A node's counters; `None` without a daemon.
    pub fn counters(&self, node: NodeId) -> Option<Counters> {
        Some(self.nodes.get(&node)?.daemon.as_ref()?.director.counters())
    }

    /// Free entries of a node's connection-forwarding table; 0 without a daemon.
    pub fn table_room(&self, node: NodeId) -> u64 {
        let daemon = self.nodes.get(&node).and_then(|node| node.daemon.as_ref());
        let status = daemon.map(|daemon| daemon.director.conntrack_status()).unwrap_or_default();
        status.capacity - status.entries
    }

    /// Established connections in a node's TCP stack.
    pub fn established(&self, node: NodeId) -> u32 {
        self.nodes.get(&node).map_or(0, |node| node.stack.established())
    }

    /// Peers that a node takes for alive.
    pub fn alive_for(&self, node: NodeId) -> Vec<NodeId> {
        let Some(node) = self.nodes.get(&node) else { return Vec::new() };
        node.daemon.as_ref().map_or(Vec::new(), |daemon| daemon.alive(node.local(self.now)))
    }

    /// Keeps the first broken promise.
    pub(crate) fn note(&mut self, outcome: Result<(), Broken>) {
        if let Err(broken) = outcome {
            self.broken.get_or_insert(broken);
        }
    }

    pub(crate) fn violation(&self, broken: Broken) -> Violation {
        let matters = |entry: &&Entry| match broken.flow() {
            Some(flow) => entry.what.matters_to(flow),
            None => entry.what.is_about_nodes(),
        };
        let mut before: Vec<_> =
            self.log.entries().rev().filter(matters).take(ENTRIES_SHOWN).cloned().collect();
        before.reverse();
        Violation { seed: self.settings.seed, nodes: self.nodes.len(), at: self.now, broken, before }
    }

    fn handle(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Arrive(Host::Outside, Parcel::Packet(packet)) => self.arrive_outside(&packet),
            Event::Arrive(Host::Node(node), parcel) => {
                self.arrive(node, parcel)?;
                self.note_right(node)
            }
            Event::Arrive(Host::Witness, _) | Event::Arrive(Host::Outside, Parcel::Datagram(..)) => Ok(()),
            Event::Tick(node, run) => {
                self.tick(node, run)?;
                self.note_right(node)
            }
            Event::Gossip(node, run) => {
                if let Some(node) = self.current(node, run) {
                    node.gossip_armed = None;
                }
                self.gossip(node, run);
                self.note_right(node)
            }
            Event::Update(node, run) => {
                let now = self.now;
                if let Some(current) = self.current(node, run) {
                    current.update_armed = false;
                    self.follow_duty(node);
                }
                if let Some(node) = self.current(node, run) {
                    node.update(now);
                }
                self.gossip(node, run);
                self.note_right(node)
            }
            Event::Look(node) => self.look(node),
            Event::Answer(node, run, answer) => {
                self.hear_answer(node, run, answer);
                Ok(())
            }
            Event::Client(id) => self.handle_client_timer(id),
            Event::NextConnection => self.handle_next_connection(),
            Event::Fault(fault) => {
                self.inject(fault);
                Ok(())
            }
            Event::Sweep => self.sweep(),
        }
    }

    pub(crate) fn arrive(&mut self, id: NodeId, parcel: Parcel) -> Result<(), Broken> {
        let standing = self.nodes.get(&id).map_or(Standing::Dead, |node| node.standing);
        match (standing, parcel) {
            (Standing::Running, Parcel::Packet(packet)) => self.take_in(id, *packet),
            (Standing::Running, Parcel::Datagram(from, bytes)) => {
                self.handle_datagram(id, from, &bytes);
                Ok(())
            }
            (Standing::Paused, parcel) => {
                let backlog = self.backlogs.entry(id).or_default();
                if backlog.len() < BACKLOG_MAX {
                    backlog.push(parcel);
                } else if let Parcel::Packet(packet) = parcel {
                    self.lose(&packet);
                }
                Ok(())
            }
            (Standing::Dead, Parcel::Packet(packet)) => {
                self.lose(&packet);
                Ok(())
            }
            (Standing::Dead, Parcel::Datagram(..)) => Ok(()),
        }
    }

    fn sweep(&mut self) -> Result<(), Broken> {
        self.queue.push(self.now + SWEEP, Event::Sweep);
        let (count, events) = (self.nodes.len(), self.queue.len());
        if events > EVENTS_MAX {
            return Err(Broken::Storm { events });
        }
        self.nodes.values().try_for_each(|node| {
            check_bounds(node, count, self.now)?;
            if self.is_shared() { Ok(()) } else { check_entries(node, self.now) }
        })
    }
}

impl Drop for Sim {
    /// A failing assertion of a test says which run it was.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed of this run was {}", self.settings.seed);
        }
    }
}
