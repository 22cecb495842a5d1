//! A virtual network of nodes that agree: virtual clocks that run at different speeds, seeded loss, delay and faults.

use crate::node::{Node, describe};
use crate::observer::Observer;
use dpr_model::{Incarnation, LoadPermille, NodeId, Slot, Timestamp};
use dpr_ownership::agreement::{Action, Agreement, Applicant, Config, GiveBack, Quorum, TakeOverError};
use dpr_ownership::shares::Director;
use dpr_ownership::{OwnershipMap, ServiceAddress, Share, SlotCount};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How often nodes ask the witness.
const ASK_WITNESS_EVERY: Duration = Duration::from_millis(200);

/// How a network is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) nodes: u32,
    pub(crate) voters: u32,
    pub(crate) quorum: Quorum,
    pub(crate) give_back: GiveBack,
    pub(crate) slots: SlotCount,
    /// How much faster or slower than real time clocks run, at most.
    pub(crate) speed_max_ppm: i64,
}

impl Setup {
    pub(crate) fn of(nodes: u32) -> Self {
        let voters = nodes.min(5);
        Self {
            seed: 1,
            nodes,
            voters,
            quorum: Quorum::Majority,
            give_back: GiveBack::Auto,
            slots: SlotCount::MIN,
            speed_max_ppm: 500,
        }
    }
}

/// A message on its way.
#[derive(Clone)]
pub(crate) struct Flight {
    pub(crate) from: (NodeId, Incarnation),
    pub(crate) to: NodeId,
    pub(crate) bytes: Vec<u8>,
}

/// N nodes on one wire.
pub(crate) struct Network {
    setup: Setup,
    pub(crate) now: Timestamp,
    pub(crate) rng: Rng,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    in_flight: BTreeMap<(Timestamp, u64), Flight>,
    flights: u64,
    pub(crate) loss_permille: u32,
    pub(crate) delay_max: Duration,
    /// From whom nothing reaches whom.
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    /// Bytes sent by all nodes, each copy once.
    pub(crate) sent_bytes: u64,
    observer: Observer,
}

impl Network {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut network = Self {
            now: Timestamp::from_millis(1000),
            rng: Rng::with_seed(setup.seed),
            nodes: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            flights: 0,
            loss_permille: 0,
            delay_max: Duration::from_millis(1),
            cut: BTreeSet::new(),
            sent_bytes: 0,
            observer: Observer::default(),
            setup,
        };
        for number in 1..=network.setup.nodes {
            network.add(NodeId(number));
        }
        network
    }

    /// A network whose first map is settled.
    pub(crate) fn founded(setup: Setup) -> Self {
        let mut network = Self::new(setup);
        network.run_for(Duration::from_secs(6));
        network.check_converged();
        network
    }

    /// Starts a new node.
    pub(crate) fn add(&mut self, node: NodeId) {
        let offset = Duration::from_millis(self.rng.u64(0..10_000_000));
        let max = self.setup.speed_max_ppm;
        let speed_ppm = self.rng.i64(-max..=max);
        self.nodes.insert(node, Node::new(offset, speed_ppm));
        self.start(node);
    }

    /// Starts a node's daemon, with what its last life kept.
    pub(crate) fn start(&mut self, id: NodeId) {
        let voters: Vec<NodeId> = (1..=self.setup.voters).map(NodeId).collect();
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("the node was added");
        node.incarnation += 1;
        node.paused = false;
        node.leaving = false;
        node.waiting.clear();
        let config = Config::new(id, Incarnation(node.incarnation), &voters).expect("few voters");
        let config = config.with_quorum(self.setup.quorum).with_slots(self.setup.slots);
        let config = config.with_give_back(self.setup.give_back);
        let local = node.local(now);
        node.daemon = Some(Agreement::new(config, node.saved.as_deref(), local).expect("kept by itself"));
        self.settle_node(id);
    }

    /// SIGKILL of the daemon; the data plane goes on.
    pub(crate) fn kill(&mut self, id: NodeId) {
        self.node(id).daemon = None;
    }

    /// A node begins to end, as at an operator's word.
    pub(crate) fn take_leave(&mut self, id: NodeId) {
        let node = self.node(id);
        node.leaving = true;
        if let Some(daemon) = &mut node.daemon {
            daemon.leave();
        }
    }

    pub(crate) fn resume(&mut self, id: NodeId) {
        self.node(id).paused = false;
        while let Some(flight) = self.node(id).waiting.pop_front() {
            self.arrive(&flight);
        }
    }

    pub(crate) fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("the node was added")
    }

    pub(crate) fn daemon(&self, id: u32) -> &Agreement {
        self.nodes[&NodeId(id)].daemon.as_ref().expect("the node runs")
    }

    pub(crate) fn map(&self, id: u32) -> &OwnershipMap {
        self.daemon(id).map()
    }

    pub(crate) fn forget(&mut self, at: u32, node: u32) -> bool {
        let now = self.now;
        let asked = self.node(NodeId(at));
        let local = asked.local(now);
        asked.daemon.as_mut().expect("the node runs").forget(NodeId(node), local)
    }

    /// An operator moves an address, if `at` coordinates.
    pub(crate) fn take_over(
        &mut self,
        at: NodeId,
        address: IpAddr,
        to: Option<NodeId>,
    ) -> Result<(), TakeOverError> {
        let now = self.now;
        let asked = self.node(at);
        let local = asked.local(now);
        let Some(daemon) = &mut asked.daemon else { return Err(TakeOverError::NotCoordinator) };
        let ordered = daemon.take_over(&[address], to, local);
        self.settle_node(at);
        ordered
    }

    /// Cuts every link between the groups, both ways.
    pub(crate) fn partition(&mut self, group: &[u32]) {
        let inside = |node: &NodeId| group.contains(&node.0);
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for a in &ids {
            self.cut.extend(ids.iter().filter(|b| inside(a) != inside(b)).map(|b| (*a, *b)));
        }
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            // Large clusters are looked at every millisecond, smaller ones at every event.
            let step = if self.setup.nodes > 20 { Duration::from_millis(1) } else { Duration::ZERO };
            self.now = (self.now + step).max(at);
            self.deliver();
            self.fire_timers();
            self.check_owners();
        }
        self.now = end;
        self.check_owners();
    }

    /// Runs until `done`, at most for `longest`; says how long it took.
    pub(crate) fn run_until(&mut self, longest: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let began = self.now;
        while !done(self) {
            if self.now.since(began) >= longest {
                return None;
            }
            self.run_for(Duration::from_millis(1));
        }
        Some(self.now.since(began))
    }

    /// Who may act for a slot of the shared address, now.
    pub(crate) fn owner_of(&self, slot: Slot) -> Option<NodeId> {
        self.acting(shared_address(), slot).first().copied()
    }

    /// Slots of the shared address for which nobody may act.
    pub(crate) fn orphans(&self) -> usize {
        self.setup.slots.all().filter(|slot| self.owner_of(*slot).is_none()).count()
    }

    pub(crate) fn acting(&self, address: IpAddr, slot: Slot) -> Vec<NodeId> {
        let now = self.now;
        let acts = |id: &NodeId, node: &Node| {
            let local = node.local(now);
            let duty = node.plane.duty.as_ref().filter(|_| local <= node.plane.until);
            duty.is_some_and(|duty| duty.allows(*id, address, slot, local))
        };
        self.nodes.iter().filter(|(id, node)| acts(id, node)).map(|(id, _)| *id).collect()
    }

    /// True if all running nodes have the same map, and every slot of every address has an owner who may act.
    pub(crate) fn is_converged(&self) -> bool {
        let running = || self.nodes.values().filter_map(|node| node.daemon.as_ref());
        let first = running().next().map(|daemon| daemon.map().to_bytes());
        running().all(|daemon| Some(daemon.map().to_bytes()) == first)
            && self
                .addresses()
                .all(|address| self.setup.slots.all().all(|slot| self.acting(address, slot).len() == 1))
    }

    pub(crate) fn check_converged(&self) {
        let versions: Vec<String> = self.nodes.iter().map(|(id, node)| describe(*id, node)).collect();
        assert!(self.is_converged(), "seed {}: {versions:#?}", self.setup.seed);
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.nodes.keys().map(|node| home_address(node.0)).chain([shared_address()])
    }

    /// The invariant: no slot has two owners who may act; and what makes it hold.
    fn check_owners(&mut self) {
        // Without a quorum there is no such promise, and to look at large clusters at every event takes too long.
        if self.setup.quorum == Quorum::None
            || self.setup.nodes > 20 && !self.now.as_millis().is_multiple_of(10)
        {
            return;
        }
        let by_majority = self.setup.quorum == Quorum::Majority;
        let seen = self.observer.look_at_rights(&self.nodes, by_majority, self.now);
        seen.unwrap_or_else(|problem| self.fail(&problem));
        for address in [shared_address(), home_address(1), home_address(2)] {
            for slot in self.setup.slots.all().step_by(usize::from(self.setup.slots.get() / 16)) {
                let acting = self.acting(address, slot);
                if acting.len() > 1 {
                    let nodes: Vec<String> = acting.iter().map(|id| describe(*id, &self.nodes[id])).collect();
                    self.fail(&format!("{address} {slot:?} has owners {nodes:#?}"));
                }
            }
        }
    }

    fn fail(&self, problem: &str) -> ! {
        panic!("seed {} at {:?}: {problem}", self.setup.seed, self.now)
    }

    fn next_event(&self) -> Option<Timestamp> {
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        let timers = self.nodes.values().filter(|node| !node.paused).filter_map(|node| {
            let deadline = node.daemon.as_ref()?.poll_timeout().min(node.update_at);
            Some(node.global(deadline))
        });
        timers.chain(arrival).min()
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.in_flight.first_entry()
            && entry.key().0 <= self.now
        {
            let flight = entry.remove();
            self.arrive(&flight);
        }
    }

    fn arrive(&mut self, flight: &Flight) {
        let now = self.now;
        let node = self.node(flight.to);
        if node.paused {
            node.waiting.push_back(flight.clone());
            return;
        }
        let local = node.local(now);
        if let Some(daemon) = &mut node.daemon {
            daemon.handle_message(flight.from, &flight.bytes, local).expect("nodes understand each other");
            self.settle_node(flight.to);
        }
    }

    fn fire_timers(&mut self) {
        let now = self.now;
        let is_due = |node: &Node| {
            let local = node.local(now);
            let daemon = node.daemon.as_ref().filter(|_| !node.paused);
            daemon.is_some_and(|daemon| daemon.poll_timeout() <= local || node.update_at <= local)
        };
        let due: Vec<NodeId> =
            self.nodes.iter().filter(|(_, node)| is_due(node)).map(|(id, _)| *id).collect();
        if due.is_empty() {
            return;
        }
        let (applicants, addresses) = (self.applicants(), self.service_addresses());
        for id in due {
            let node = self.node(id);
            let local = node.local(now);
            if let Some(daemon) = node.daemon.as_mut().filter(|daemon| daemon.poll_timeout() <= local) {
                daemon.set_cluster(applicants.clone(), addresses.clone());
                daemon.set_handed(node.has_copied.then(|| daemon.map().version()));
                daemon.set_cut_off(node.cut_off);
                daemon.handle_timeout(local);
            }
            if node.update_at <= local {
                node.update(local);
            }
            self.ask_witness(id);
            self.settle_node(id);
        }
    }

    /// Asks the witness, and the other voters on the clients' network, as a daemon does five times a second.
    fn ask_witness(&mut self, id: NodeId) {
        let now = self.now;
        let lost = self.rng.u32(0..1000) < self.loss_permille;
        let others = self.nodes.keys().copied().filter(|other| *other != id);
        let is_seen = |other: &NodeId| {
            let is_up = self.nodes[other].daemon.is_some();
            is_up && !self.cut.contains(&(id, *other)) && !self.cut.contains(&(*other, id))
        };
        let seen: Vec<NodeId> = others.filter(is_seen).collect();
        let local = self.node(id).local(now);
        if self.setup.quorum != Quorum::Witness || local < self.node(id).ask_at {
            return;
        }
        let node = self.node(id);
        node.ask_at = local + ASK_WITNESS_EVERY;
        let answers = node.reaches_witness && !lost;
        let Some(daemon) = &mut node.daemon else { return };
        seen.iter().for_each(|other| daemon.see_voter(*other, local));
        if answers {
            daemon.hear_witness(local, local);
        }
    }

    /// What load reports would say: everybody who ever was there, as reports are remembered for an hour.
    fn applicants(&self) -> Vec<Applicant> {
        let applicant = |(id, node): (&NodeId, &Node)| Applicant {
            director: Director { node: *id, worth: Share(1000), load: LoadPermille(100) },
            leaving: node.leaving,
        };
        self.nodes.iter().map(applicant).collect()
    }

    fn service_addresses(&self) -> Vec<ServiceAddress> {
        let home = |id: &NodeId| ServiceAddress { address: home_address(id.0), home: Some(*id) };
        let shared = ServiceAddress { address: shared_address(), home: None };
        self.nodes.keys().map(home).chain([shared]).collect()
    }

    /// Does what a node's daemon asks for.
    fn settle_node(&mut self, id: NodeId) {
        let now = self.now;
        while let Some(action) = self.node(id).daemon.as_mut().and_then(Agreement::poll_action) {
            let lag_max = u64::try_from(self.nodes[&id].update_every.as_micros()).unwrap_or(u64::MAX) / 5 * 2;
            let latest = Duration::from_micros(self.rng.u64(lag_max / 2..lag_max));
            let node = self.node(id);
            match action {
                // The data plane is another thread: it may take a while.
                Action::DutyChanged => node.update_at = node.update_at.min(node.local(now) + latest),
                Action::Persist(bytes) => node.saved = Some(bytes),
                Action::Send { to, bytes } => {
                    let from = (id, Incarnation(node.incarnation));
                    self.launch(from, to, &bytes);
                }
            }
        }
        let seen = self.observer.look_at(id, &self.nodes[&id], self.setup.quorum == Quorum::Majority);
        seen.unwrap_or_else(|problem| self.fail(&problem));
    }

    fn launch(&mut self, from: (NodeId, Incarnation), to: Option<NodeId>, bytes: &[u8]) {
        assert!(bytes.len() <= dpr_ownership::agreement::MESSAGE_MAX);
        self.sent_bytes += bytes.len() as u64;
        let receivers: Vec<NodeId> = match to {
            Some(to) => vec![to],
            None => self.nodes.keys().copied().filter(|node| *node != from.0).collect(),
        };
        for to in receivers {
            if self.cut.contains(&(from.0, to)) || self.rng.u32(0..1000) < self.loss_permille {
                continue;
            }
            let delay = Duration::from_micros(self.rng.u64(50..=self.delay_max.as_micros() as u64));
            self.flights += 1;
            let flight = Flight { from, to, bytes: bytes.to_vec() };
            self.in_flight.insert((self.now + delay, self.flights), flight);
        }
    }
}

pub(crate) fn shared_address() -> IpAddr {
    IpAddr::from([192, 0, 2, 200])
}

pub(crate) fn home_address(node: u32) -> IpAddr {
    IpAddr::from([198, 51, (node >> 8) as u8, node as u8])
}
