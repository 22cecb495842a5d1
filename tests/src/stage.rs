//! What scenarios have in common: clusters, chosen loads, and the daemons' logs when something fails.

use crate::binary;
use crate::variant::Variant;
use dpr_host::{IpPrefix, Netlink, Route};
use dpr_lab::paired::{ConnectionRecord, ConnectionState, Crowd, CrowdPlan, SourcePorts};
use dpr_lab::{Cluster, ClusterPlan, Node, NodePlan, Ways, wait_until};
use dpr_model::LoadPermille;
use dpr_model::status::Status;
use std::fs;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// Port of the services that a verifying server answers.
pub const PAIRED_PORT: u16 = 7000;

/// How long anything may take that happens within a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A peer's weight grows for three seconds after it was first heard of; until then it counts as heavier than it is.
const SLOW_START: Duration = Duration::from_millis(3300);

/// Status and counters are renewed with every load report, ten times a second.
const RENEWAL: Duration = Duration::from_millis(300);

/// A cluster that shows its daemons' logs when a scenario panics.
pub struct Stage {
    // Dropped before the nodes that they lead to.
    ways: Vec<Ways>,
    cluster: Cluster,
    met: Instant,
}

impl Stage {
    /// Nodes with verifying servers on [`PAIRED_PORT`].
    pub fn paired(nodes: u8, clients: u8) -> Self {
        Self::start(nodes, clients, NodePlan::paired(PAIRED_PORT))
    }

    /// The same with another forwarding method or other IP versions.
    pub fn paired_in(variant: Variant, nodes: u8, clients: u8) -> Self {
        Self::start(nodes, clients, variant.plan(NodePlan::paired(PAIRED_PORT)))
    }

    /// Nodes of any plan.
    pub fn start(nodes: u8, clients: u8, node: NodePlan) -> Self {
        Self::of(Cluster::start(&ClusterPlan { nodes, clients, node }, binary::path()).unwrap())
    }

    /// A cluster whose nodes have just met.
    pub fn of(cluster: Cluster) -> Self {
        Self { ways: Vec::new(), cluster, met: Instant::now() }
    }

    /// Makes each node report its load of `permille`, and waits until all nodes know and nobody starts slowly any more.
    pub fn set_loads(&self, permille: &[u16]) {
        std::thread::sleep(SLOW_START.saturating_sub(self.met.elapsed()));
        self.order_loads(permille);
        for (node, own) in self.nodes.iter().zip(permille) {
            let what = format!("{} to know all loads", node.name());
            let known = || {
                let status = node.status().map_err(|error| error.to_string())?;
                let expected = |other: &Node| self.load_of(other, permille);
                let all = status.node.load.0 == *own
                    && self
                        .nodes
                        .iter()
                        .filter(|other| other.id() != node.id())
                        .all(|other| seen_load(&status, other) == expected(other));
                if all { Ok(()) } else { Err(format!("{:?}", status.peers)) }
            };
            wait_until(&what, PATIENCE, known).unwrap();
        }
        // What a daemon knows, its data plane is told a moment later.
        std::thread::sleep(RENEWAL);
    }

    /// Makes each node report its load of `permille` from now on.
    pub fn order_loads(&self, permille: &[u16]) {
        for (node, load) in self.nodes.iter().zip(permille) {
            node.override_load(Some(LoadPermille(*load))).unwrap();
        }
    }

    /// What every node says, once it knows all that has happened before.
    pub fn statuses(&self) -> Vec<Status> {
        std::thread::sleep(RENEWAL);
        self.nodes.iter().map(|node| node.status().unwrap()).collect()
    }

    /// Has a client machine send to the first one through the first node, as a server behind half NAT has to.
    pub fn route_replies_through_the_director(&self, server: usize) {
        let (client, director) = (self.clients[0].address(), self.nodes[0].address());
        let add = move || Netlink::open()?.add_route(&Route::via(IpPrefix::host(client), director));
        self.clients[server].exec(add).unwrap().unwrap();
    }

    /// Lays ways of all clients to a shared address, by the nodes that announce it, now and from now on.
    pub fn announce(&mut self) {
        let Cluster { nodes, clients, .. } = &self.cluster;
        self.ways = clients.iter().map(|client| Ways::follow(client, nodes).unwrap()).collect();
    }

    /// A crowd of one client, open when this returns.
    pub fn open_crowd(&self, client: usize, plan: CrowdPlan) -> Crowd {
        let mut crowd = Crowd::open(&self.clients[client], plan).unwrap();
        crowd.wait_until_open(PATIENCE).unwrap();
        crowd
    }

    fn load_of(&self, node: &Node, permille: &[u16]) -> Option<LoadPermille> {
        let position = self.nodes.iter().position(|other| other.id() == node.id())?;
        permille.get(position).copied().map(LoadPermille)
    }
}

impl Deref for Stage {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- end of the log of {}\n{}", node.name(), node.log_tail());
                if let Ok(status) = node.status() {
                    eprintln!("--- {} counts {:?} {:?}", node.name(), status.counters, status.gossip);
                }
            }
        }
    }
}

fn seen_load(status: &Status, other: &Node) -> Option<LoadPermille> {
    status.peers.iter().find(|peer| peer.node.id == other.id()).map(|peer| peer.node.load)
}

/// Connections to `targets` in turn with a small exchange every 100 ms.
pub fn crowd_plan(targets: Vec<SocketAddr>, connections: u16) -> CrowdPlan {
    CrowdPlan {
        targets,
        connections,
        source_ports: SourcePorts::Any,
        opening: Duration::ZERO,
        pause: Duration::from_millis(100),
        up: 64,
        down: 256,
        timeout: PATIENCE,
        seed: 7,
    }
}

/// Fails unless every connection lived until the crowd itself ended it.
pub fn assert_none_broke(records: &[ConnectionRecord]) {
    let broken: Vec<&ConnectionRecord> =
        records.iter().filter(|record| record.state != ConnectionState::Finished).collect();
    assert!(broken.is_empty(), "{} of {} broke, the first: {:?}", broken.len(), records.len(), broken[0]);
}

/// Fails unless the data plane of this variant is the one that carried packets.
pub fn assert_carried_by(variant: Variant, status: &Status) {
    let dataplane = &status.dataplane;
    assert_eq!(dataplane.kind, variant.plane.label(), "{:?}", dataplane.reason);
    if let Some(programs) = &dataplane.programs {
        let counters = &status.counters;
        let carried = counters.packets_forwarded
            + counters.packets_received
            + counters.packets_delivered
            + counters.nat_replies;
        // User space begins and ends what is translated.
        let part = if variant.hides_clients() { 2 } else { 10 };
        assert!(programs.handled_above * part < carried, "{dataplane:?} {:?}", status.counters);
    }
}

/// How many connections `node` serves.
pub fn served_by(records: &[ConnectionRecord], node: &str) -> usize {
    records.iter().filter(|record| record.node() == Some(node)).count()
}

/// `ordinary`, or `long` when the environment variable `DPR_LONG` is set to 1.
pub fn duration(ordinary: Duration, long: Duration) -> Duration {
    if is_long() { long } else { ordinary }
}

/// Whether scenarios are to take their time: the environment variable `DPR_LONG` is set to 1.
pub fn is_long() -> bool {
    std::env::var_os("DPR_LONG").is_some_and(|value| value == "1")
}

/// Writes something else into the configuration that the node's next daemon reads.
pub fn reconfigure(node: &Node, old: &str, new: &str) {
    let text = fs::read_to_string(node.configuration()).unwrap();
    assert!(text.contains(old), "{text}");
    fs::write(node.configuration(), text.replace(old, new)).unwrap();
}
