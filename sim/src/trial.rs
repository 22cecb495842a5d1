//! Trials: a random cluster on a random network, with random clients, to which random things happen.
//!
//! All of it follows from the seed. While faults last, the invariants have to hold. When they are over, everybody has
//! to find back to everybody, and every client has to be served.

use crate::client::{ConnectionId, Outcome, Plan};
use crate::fault::Fault;
use crate::invariants::{Broken, Violation};
use crate::names::{Host, SHARED, flow};
use crate::network::Quality;
use crate::planned;
use crate::sim::Sim;
use crate::workload::Workload;
use dpr_director::PolicyKind;
use dpr_model::{Capacity, ForwardingMethod, Ingress, LoadPermille, NodeId};
use dpr_ownership::agreement::{GiveBack, Quorum};
use dpr_rewrite::Version;
use fastrand::Rng;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Policies that keep what they decided; `stateless` breaks connections when a node joins or leaves, and says so.
const POLICIES: [PolicyKind; 4] =
    [PolicyKind::LocalEstimates, PolicyKind::Lightest, PolicyKind::Inverse, PolicyKind::RoundRobin];
/// Methods that reach peers.
const METHODS: [ForwardingMethod; 4] =
    [ForwardingMethod::Ipip, ForwardingMethod::Gue, ForwardingMethod::Nat, ForwardingMethod::Dr];
/// Faults in one trial at most.
const FAULTS_MAX: usize = 12;
/// Longest fault that ends by itself.
const FAULT_MAX: Duration = Duration::from_secs(4);
/// How late a data plane is at most: it has seen worse where it got no processor, and clients have sent again by then.
const LATE_MAX: Duration = Duration::from_millis(400);
/// Time in which everybody has to find back to everybody: reports, joining and suspicion take far less.
const RECOVERY: Duration = Duration::from_secs(5);
/// Intervals in which all nodes agree again: a node that restarts makes others wait for 25, until no promise of its life before
/// lasts any longer.
const AGREEING_INTERVALS: u32 = 60;
/// Time in which all nodes agree again after what was planned.
const PLANNED_SETTLES: Duration = Duration::from_secs(2);
/// Time in which an undisturbed cluster has to serve one request.
const SERVICE: Duration = Duration::from_secs(4);
/// Nodes up to which a trial waits for every connection to end.
const PATIENT_NODES_MAX: u32 = 8;
/// Time after which no connection can be left: retransmissions take 127 s, and the other end's as long again.
const PATIENCE: Duration = Duration::from_secs(270);
/// Tables of nodes that share addresses have so many times more room: they hold copies of others' connections.
const SPARE_OF_SHARED: usize = 64;
/// Nodes up to which every fourth trial is of a shared address.
const SHARING_NODES_MAX: u32 = 32;
/// Nodes up to which some of these have a witness.
const WITNESSED_NODES_MAX: u32 = 4;
/// Tells the choice of the number of nodes from all others with the same seed.
const SALT: u64 = 0x6e6f_6465_7321_0001;

/// One trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// All random choices follow from it.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: u32,
}

/// What a trial that held all its promises saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets, datagrams and other things that happened.
    pub events: u64,
    /// Connections that ended by their plan.
    pub finished: usize,
    /// Connections that ended otherwise, with an excuse each.
    pub excused: usize,
    /// A number that stands for everything that happened.
    pub fingerprint: u64,
}

impl Trial {
    /// The trial of a seed: the number of nodes is log-uniform in `nodes`, so that small clusters, which are fast, are
    /// tried most.
    pub fn of(seed: u64, nodes: &RangeInclusive<u32>) -> Self {
        let (least, most) = (f64::from(*nodes.start()), f64::from(*nodes.end()) + 1.0);
        let drawn = least * (most / least).powf(Rng::with_seed(seed ^ SALT).f64());
        // Truncation is meant: the bounds are small whole numbers.
        Self { seed, nodes: (drawn as u32).clamp(*nodes.start(), *nodes.end()) }
    }

    /// Runs it.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn run(&self) -> Result<Summary, Box<Violation>> {
        let mut rng = Rng::with_seed(self.seed);
        let (mut sim, workload) = self.setup(&mut rng);
        let chaos = Duration::from_millis(rng.u64(5_000..12_000));
        schedule_faults(&mut sim, chaos, &mut rng);
        sim.try_run_for(chaos)?;
        recover(&mut sim);
        let agreeing = sim.settings.interval * AGREEING_INTERVALS;
        let recovery = if sim.is_shared() { RECOVERY.max(agreeing) } else { RECOVERY };
        sim.try_run_for(recovery)?;
        check_agreement(&sim)?;
        if sim.is_shared() {
            planned::run(&mut sim, workload, &mut rng)?;
            sim.try_run_for(PLANNED_SETTLES)?;
            check_agreement(&sim)?;
        }
        check_service(&mut sim)?;
        if self.nodes <= PATIENT_NODES_MAX {
            sim.try_run_for(PATIENCE)?;
        }
        let count = |outcome| sim.connections_with(Some(outcome));
        Ok(Summary {
            events: sim.log().recorded(),
            finished: count(Outcome::Finished),
            excused: count(Outcome::Refused) + count(Outcome::Reset) + count(Outcome::TimedOut),
            fingerprint: sim.log().fingerprint(),
        })
    }

    /// In some trials nodes share an address; in fewer of large clusters, as that takes long.
    fn ingress(&self, rng: &mut Rng) -> Option<Ingress> {
        let ingress = Ingress::ALL[rng.usize(..Ingress::ALL.len())];
        let every = if self.nodes <= SHARING_NODES_MAX { 4 } else { 16 };
        self.seed.is_multiple_of(every).then_some(ingress)
    }

    /// Where nodes are few, a witness may tip the scales.
    fn quorum(&self, rng: &mut Rng) -> Quorum {
        if self.nodes <= WITNESSED_NODES_MAX && rng.bool() { Quorum::Witness } else { Quorum::Majority }
    }

    fn setup(&self, rng: &mut Rng) -> (Sim, Workload) {
        let half_open_capacity = rng.usize(16..512);
        let ingress = self.ingress(rng);
        let method = METHODS[rng.usize(..METHODS.len())];
        // Where a table is full, a node that takes over has no room for what it has to learn.
        let spare = if ingress.is_some() { SPARE_OF_SHARED } else { 1 };
        let setup = Sim::seeded(self.seed)
            .policy(POLICIES[rng.usize(..POLICIES.len())])
            .maxload(LoadPermille(if rng.bool() { 0 } else { rng.u16(50..900) }))
            .interval(Duration::from_millis(rng.u64(80..250)))
            .capacity(Capacity::new(rng.u32(5..100)))
            .table(half_open_capacity * rng.usize(2..8) * spare, half_open_capacity)
            .method(method);
        // Where several nodes decide about one client at a time, they may choose differently at first.
        let bits = |rng: &mut Rng| if ingress.is_some() { 0 } else { rng.u8(..4) };
        let setup = if rng.bool() { setup.persistence(bits(rng)) } else { setup };
        let setup = setup.versions(version(rng), version(rng));
        let setup = match ingress {
            Some(ingress) => {
                let give_back = if rng.bool() { GiveBack::Auto } else { GiveBack::Manual };
                setup.shared(ingress).quorum(self.quorum(rng)).give_back(give_back)
            }
            None => setup,
        };
        let mut sim = setup.nodes(self.nodes);
        sim.set_inside(quality(rng));
        sim.set_outside(quality(rng));
        // What comes in astray cannot be told from what came by direct routing.
        let may_stray = method != ForwardingMethod::Dr && ingress.is_none() && rng.u8(..3) == 0;
        sim.set_astray(if may_stray { rng.u16(..300) } else { 0 });
        let workload = Workload {
            gap_mean: Duration::from_micros(rng.u64(2_000..20_000)),
            skew_permille: rng.u16(..=1000),
            requests_max: rng.u32(1..10),
            think_max: Duration::from_millis(rng.u64(1..600)),
            clients: rng.u8(1..40),
            ports: if rng.bool() { rng.u16(5..50) } else { rng.u16(50..5000) },
        };
        sim.set_workload(Some(workload));
        (sim, workload)
    }
}

fn version(rng: &mut Rng) -> Version {
    if rng.bool() { Version::V4 } else { Version::V6 }
}

fn quality(rng: &mut Rng) -> Quality {
    if rng.u8(..4) == 0 {
        return Quality::default();
    }
    let loss_permille = if rng.u8(..4) == 0 { rng.u16(..300) } else { rng.u16(..50) };
    Quality {
        loss_permille,
        delay: Duration::from_micros(rng.u64(20..10_000)),
        jitter: Duration::from_micros(rng.u64(..5_000)),
        duplicate_permille: rng.u16(..50),
        reorder_permille: rng.u16(..100),
        straggle_max: Duration::from_millis(rng.u64(..300)),
    }
}

fn schedule_faults(sim: &mut Sim, chaos: Duration, rng: &mut Rng) {
    let nodes = sim.node_ids();
    for _ in 0..rng.usize(..=FAULTS_MAX) {
        let start = part_of(chaos, rng);
        let end = start + part_of(FAULT_MAX, rng);
        let node = nodes[rng.usize(..nodes.len())];
        let (fault, its_end) = match sim.is_shared() && rng.u8(..4) == 0 {
            true => (order(node, &nodes, rng), None),
            false => fault(node, &nodes, rng),
        };
        // A witness is for nodes that reach each other if they reach it: what parts them leaves it to one side.
        let is_witnessed = sim.settings.quorum == Quorum::Witness;
        let (fault, its_end) = match fault {
            Fault::Cut(from, _) if is_witnessed && rng.bool() => {
                (Fault::Cut(from, Host::Witness), Some(Fault::Mend(from, Host::Witness)))
            }
            Fault::Cut(from, _) if is_witnessed => {
                let (one, other) = nodes.iter().partition(|node| Host::Node(**node) == from);
                (Fault::Partition(vec![one, other]), Some(Fault::Heal))
            }
            fault => (fault, its_end),
        };
        sim.inject_in(start, fault);
        if let Some(its_end) = its_end {
            sim.inject_in(end, its_end);
        }
    }
}

/// A fault of `node`, and what ends it.
fn fault(node: NodeId, nodes: &[NodeId], rng: &mut Rng) -> (Fault, Option<Fault>) {
    match rng.u8(..12) {
        0 => (Fault::Pause(node), Some(Fault::Resume(node))),
        1 => (Fault::KillDaemon(node), Some(Fault::StartDaemon(node))),
        2 => (Fault::KillNode(node), Some(Fault::StartNode(node))),
        3 => {
            let (from, to) = (Host::Node(node), Host::Node(nodes[rng.usize(..nodes.len())]));
            (Fault::Cut(from, to), Some(Fault::Mend(from, to)))
        }
        4 => {
            let (one, other) = nodes.iter().partition(|_| rng.bool());
            (Fault::Partition(vec![one, other]), Some(Fault::Heal))
        }
        5 => (Fault::StepClock(node, part_of(Duration::from_secs(5), rng)), None),
        6 => (Fault::SetBackWallClock(node, part_of(Duration::from_secs(7200), rng)), None),
        7 => (Fault::Flood(node, rng.u32(..3000)), None),
        8 => (Fault::Drain(node, true), Some(Fault::Drain(node, false))),
        9 => {
            let lateness = part_of(LATE_MAX, rng);
            (Fault::Late(node, lateness), Some(Fault::Late(node, Duration::ZERO)))
        }
        10 => (Fault::CutOff(node, true), Some(Fault::CutOff(node, false))),
        _ => {
            let load = LoadPermille(rng.u16(..2000));
            (Fault::ReportLoad(node, Some(load)), Some(Fault::ReportLoad(node, None)))
        }
    }
}

/// What an operator may order in the midst of it.
fn order(node: NodeId, nodes: &[NodeId], rng: &mut Rng) -> Fault {
    let address = if rng.bool() { SHARED } else { nodes[rng.usize(..nodes.len())] };
    match rng.u8(..8) {
        0 => Fault::Stop(node),
        1 => Fault::Forget(node),
        2 | 3 => Fault::TakeOver(address, None),
        _ => Fault::TakeOver(address, Some(node)),
    }
}

fn part_of(duration: Duration, rng: &mut Rng) -> Duration {
    let most_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(rng.u64(..=most_us))
}

/// Ends every fault and lets no more clients come.
fn recover(sim: &mut Sim) {
    sim.set_inside(Quality::default());
    sim.set_outside(Quality::default());
    sim.set_astray(0);
    sim.set_workload(None);
    sim.inject(Fault::Heal);
    for node in sim.node_ids() {
        // Who takes leave would be gone in a moment.
        if sim.nodes.get(&node).is_some_and(|node| node.leaves_until.is_some()) {
            sim.inject(Fault::Resume(node));
            sim.inject(Fault::KillDaemon(node));
        }
        for fault in [Fault::Resume, Fault::StartNode, Fault::StartDaemon] {
            sim.inject(fault(node));
        }
        sim.inject(Fault::ReportLoad(node, None));
        sim.inject(Fault::Drain(node, false));
        sim.inject(Fault::Late(node, Duration::ZERO));
        sim.inject(Fault::CutOff(node, false));
    }
}

fn check_agreement(sim: &Sim) -> Result<(), Box<Violation>> {
    let running = sim.running().len();
    for node in sim.running() {
        let seen = sim.alive_for(node).len() + 1;
        if seen != running {
            return Err(Box::new(sim.violation(Broken::Disagreement { node, seen, running })));
        }
    }
    sim.check_maps().map_err(|broken| Box::new(sim.violation(broken)))
}

/// Every node serves. One whose table is full may have to displace a handshake, and is not asked.
fn check_service(sim: &mut Sim) -> Result<(), Box<Violation>> {
    let mut asked: Vec<(NodeId, Option<ConnectionId>)> = Vec::new();
    let client = sim.a_client();
    for node in sim.running() {
        if sim.table_room(node) > 0 {
            asked.push((node, sim.connect(client, node, Plan::ONE_REQUEST)));
        }
    }
    if sim.owner_of(client, SHARED).is_some_and(|owner| sim.table_room(owner) > 0) {
        asked.push((SHARED, sim.connect(client, SHARED, Plan::ONE_REQUEST)));
    }
    sim.try_run_for(SERVICE)?;
    for (node, connection) in asked {
        if connection.and_then(|id| sim.outcome(id)) != Some(Outcome::Finished) {
            let flow = flow(client, node);
            return Err(Box::new(sim.violation(Broken::NotServed { node, flow })));
        }
    }
    Ok(())
}
