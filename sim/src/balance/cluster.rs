//! The run itself: arrivals, decisions, departures, reports.

use super::arrivals::{Arrivals, zipf};
use super::dns::Dns;
use super::figures::{Figures, Observations};
use super::server::Server;
use super::{Experiment, Method};
use crate::names::{SERVICE_PORT, address_of, service_of};
use crate::queue::Queue;
use dpr_director::{
    DeliveryRanges, Director, Peer, PersistenceSettings, PolicyKind, Settings, ThisNode, Update,
};
use dpr_model::{
    Candidate, Capacity, ClientSocket, FlowKey, Incarnation, LoadPermille, NodeId, NodeState, Protocol,
    ReceivedFrom, ServiceReport, Timestamp, Weight,
};
use dpr_rewrite::Version;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Time on the way from a director to a real server, and of a report to a peer.
const HOP: Duration = Duration::from_micros(100);
/// Time between two updates of a director, as in a daemon whose peers report often.
const UPDATE: Duration = Duration::from_millis(20);
/// Longest time between two observations of a node by itself, as in the daemon.
const OBSERVATION_MAX: Duration = Duration::from_millis(100);
/// Time between two moments at which loads are compared.
const MOMENT: Duration = Duration::from_millis(50);

/// All nodes and all connections of one run.
pub(super) struct Cluster<'a> {
    experiment: &'a Experiment,
    now: Timestamp,
    queue: Queue<Event>,
    arrivals: Arrivals,
    nodes: Vec<Node>,
    /// Cumulative shares of clients that go to each node, where no resolvers are modelled.
    shares: Vec<f64>,
    dns: Option<Dns>,
    connections: BTreeMap<u64, Connection>,
    opened: u64,
    /// Counted connections that have not ended.
    awaited: u64,
    observations: Observations,
    /// What clients do: the same for every method.
    clients_rng: Rng,
    /// What nodes do.
    nodes_rng: Rng,
}

struct Node {
    director: Director,
    server: Server,
    capacity: Capacity,
    /// Connections that are here or on their way.
    assigned: u64,
    /// What it knows of its own load.
    observed: LoadPermille,
    /// What its peers know of it.
    report: Report,
}

#[derive(Clone, Default)]
struct Report {
    load: LoadPermille,
    received: Vec<ReceivedFrom>,
}

struct Connection {
    node: usize,
    since: Timestamp,
    counted: bool,
}

enum Event {
    Arrival,
    /// A connection has reached its real server, from this director if not the same.
    Begin {
        name: u64,
        work: Duration,
        director: usize,
        flow: FlowKey,
    },
    Departure {
        node: usize,
        version: u64,
    },
    Observe {
        node: usize,
    },
    Report {
        node: usize,
    },
    Hear {
        node: usize,
        report: Report,
    },
    Update {
        node: usize,
    },
    Moment,
}

impl<'a> Cluster<'a> {
    pub(super) fn new(experiment: &'a Experiment) -> Self {
        let mut clients_rng = Rng::with_seed(experiment.seed);
        let mut nodes_rng = clients_rng.fork();
        let nodes = (0..experiment.capacities.len()).map(|node| Node::new(experiment, node, &mut nodes_rng));
        let mut cluster = Self {
            experiment,
            now: Timestamp::from_millis(1000),
            queue: Queue::new(),
            arrivals: Arrivals::new(experiment.arrivals, experiment.arrivals_per_s()),
            nodes: nodes.collect(),
            shares: zipf(experiment.capacities.len(), experiment.skew),
            dns: experiment
                .resolvers
                .map(|resolvers| Dns::new(resolvers, experiment.skew, &experiment.capacities)),
            connections: BTreeMap::new(),
            opened: 0,
            awaited: 0,
            observations: Observations::default(),
            clients_rng,
            nodes_rng,
        };
        for node in 0..cluster.nodes.len() {
            cluster.update(node);
            let events = [
                (experiment.interval, Event::Report { node }),
                (OBSERVATION_MAX.min(experiment.interval), Event::Observe { node }),
                (UPDATE, Event::Update { node }),
            ];
            for (period, event) in events {
                let phase = period.mul_f64(cluster.nodes_rng.f64());
                cluster.queue.push(cluster.now + phase, event);
            }
        }
        cluster.queue.push(cluster.now, Event::Arrival);
        cluster.queue.push(cluster.now + MOMENT, Event::Moment);
        cluster
    }

    pub(super) fn run(mut self) -> Figures {
        let begin = self.now + self.experiment.warm_up;
        let end = begin + self.experiment.duration;
        let forever = Timestamp::from_nanos(u64::MAX);
        while let Some((at, event)) = self.queue.pop_until(forever) {
            self.now = at;
            if at > end && self.awaited == 0 {
                break;
            }
            let counts = (begin..end).contains(&at);
            self.handle(event, counts, at < end);
        }
        self.observations.figures()
    }

    /// One event; `counts` while the run is measured, `open` until its end.
    fn handle(&mut self, event: Event, counts: bool, open: bool) {
        match event {
            Event::Arrival if open => self.arrive(counts),
            Event::Arrival => {}
            Event::Begin { name, work, director, flow } => self.begin(name, work, director, &flow),
            Event::Departure { node, version } => self.depart(node, version),
            Event::Observe { node } => {
                self.nodes[node].observed = self.nodes[node].load();
                let again = OBSERVATION_MAX.min(self.experiment.interval);
                self.queue.push(self.now + again, Event::Observe { node });
            }
            Event::Report { node } => self.report(node),
            Event::Hear { node, report } => self.nodes[node].report = report,
            Event::Update { node } => {
                self.update(node);
                self.queue.push(self.now + UPDATE, Event::Update { node });
            }
            Event::Moment => {
                if counts {
                    let nodes = self.nodes.iter().map(|node| (node.server.open(), node.capacity));
                    self.observations.count_moment(nodes);
                }
                self.queue.push(self.now + MOMENT, Event::Moment);
            }
        }
    }

    fn arrive(&mut self, counts: bool) {
        let gap = self.arrivals.next(&mut self.clients_rng);
        self.queue.push(self.now + gap, Event::Arrival);
        let home = self.home();
        let client = ClientSocket {
            address: IpAddr::V4(Ipv4Addr::from(self.clients_rng.u32(0xc000_0000..0xdf00_0000))),
            port: self.clients_rng.u16(1024..),
        };
        let flow = FlowKey { protocol: Protocol::Tcp, client, service: service_of(id_of(home), Version::V4) };
        let node = self.choose(home, &flow);
        self.nodes[node].assigned += 1;
        self.opened += 1;
        let name = self.opened;
        self.connections.insert(name, Connection { node, since: self.now, counted: counts });
        if counts {
            self.awaited += 1;
            self.observations.count_decision(node != home);
        }
        let work = self.experiment.service.draw(&mut self.clients_rng);
        let on_the_way = if node == home { Duration::ZERO } else { HOP };
        self.queue.push(self.now + on_the_way, Event::Begin { name, work, director: home, flow });
    }

    /// The node that DNS names to the next client.
    fn home(&mut self) -> usize {
        let (nodes, rng) = (&self.nodes, &mut self.clients_rng);
        match &mut self.dns {
            Some(dns) => dns.home(self.experiment.maxload, |node| nodes[node].observed, self.now, rng),
            None => {
                let drawn = rng.f64();
                self.shares.iter().position(|share| drawn < *share).unwrap_or(0)
            }
        }
    }

    fn choose(&mut self, home: usize, flow: &FlowKey) -> usize {
        match self.experiment.method {
            Method::RrDns => home,
            Method::Policy(_) => index_of(self.nodes[home].director.place(flow, self.now)),
            Method::Wlc => self.least_connections(),
        }
    }

    /// The node with the fewest connections for its capacity, itself one more; the first of equals from a random one on.
    fn least_connections(&mut self) -> usize {
        let start = self.nodes_rng.usize(..self.nodes.len());
        let turns = (0..self.nodes.len()).map(|turn| (start + turn) % self.nodes.len());
        let filled = |node: &usize| {
            let node = &self.nodes[*node];
            (node.assigned + 1) * 1_000_000 / u64::from(node.capacity.get())
        };
        turns.min_by_key(filled).unwrap_or(start)
    }

    fn begin(&mut self, name: u64, work: Duration, director: usize, flow: &FlowKey) {
        let Some(connection) = self.connections.get(&name) else { return };
        let (now, at) = (self.now, connection.node);
        let node = &mut self.nodes[at];
        if at != director {
            node.director.accept(id_of(director), flow, now);
        }
        node.server.arrive(name, work, now);
        self.predict(at);
    }

    fn depart(&mut self, node: usize, version: u64) {
        let (now, server) = (self.now, &mut self.nodes[node].server);
        if server.version != version {
            return;
        }
        if let Some(connection) = server.depart(now).and_then(|name| self.connections.remove(&name)) {
            self.nodes[node].assigned -= 1;
            if connection.counted {
                self.awaited -= 1;
                self.observations.count_end(now.since(connection.since));
            }
        }
        self.predict(node);
    }

    fn predict(&mut self, node: usize) {
        let server = &self.nodes[node].server;
        if let Some(at) = server.next_departure() {
            self.queue.push(at, Event::Departure { node, version: server.version });
        }
    }

    /// A node says its load, and which connections that covers.
    fn report(&mut self, node: usize) {
        let report =
            Report { load: self.nodes[node].load(), received: self.nodes[node].director.acknowledgements() };
        self.queue.push(self.now + HOP, Event::Hear { node, report });
        let again = self.experiment.interval.mul_f64(0.9 + 0.2 * self.nodes_rng.f64());
        self.queue.push(self.now + again, Event::Report { node });
    }

    /// Tells a director what its node knows by now.
    fn update(&mut self, this: usize) {
        let others = self.nodes.iter().enumerate().filter(|(node, _)| *node != this);
        let update = Update {
            this: ThisNode {
                state: NodeState::Active,
                load: self.nodes[this].observed,
                capacity: self.nodes[this].capacity,
                weight: Weight::ORDINARY,
                services: services_of(this),
            },
            peers: others
                .map(|(node, peer)| peer.as_seen_by(id_of(this), node, self.experiment.interval))
                .collect(),
            external: Vec::new(),
            frozen: false,
            policy: match self.experiment.method {
                Method::Policy(policy) => policy,
                Method::RrDns | Method::Wlc => PolicyKind::default(),
            },
            maxload: self.experiment.maxload,
        };
        self.nodes[this].director.update(&update, self.now);
    }
}

impl Node {
    fn new(experiment: &Experiment, node: usize, rng: &mut Rng) -> Self {
        let director = Director::new(Settings {
            node: id_of(node),
            address: address_of(id_of(node), Version::V4),
            delivery_ranges: DeliveryRanges::default(),
            services: services_of(node),
            answer_for: Vec::new(),
            mtu: 1500,
            nat_ports: None,
            // There are no packets to look up.
            conntrack: dpr_conntrack::Config { capacity: 1, ..dpr_conntrack::Config::with_seed([0, 0]) },
            persistence: PersistenceSettings::default(),
            seed: rng.u64(..),
        });
        let capacity = experiment.capacities[node];
        Self {
            director,
            server: Server::new(capacity),
            capacity,
            assigned: 0,
            observed: LoadPermille(0),
            report: Report::default(),
        }
    }

    fn load(&self) -> LoadPermille {
        LoadPermille::of(self.server.open(), self.capacity.get().into())
    }

    fn as_seen_by(&self, director: NodeId, node: usize, report_interval: Duration) -> Peer {
        let mut received = self.report.received.iter();
        let acknowledged = received.find(|count| count.director == director).map(|count| count.connections);
        Peer {
            candidate: Candidate {
                node: id_of(node),
                address: address_of(id_of(node), Version::V4),
                load: self.report.load,
                capacity: self.capacity,
                weight: Weight::ORDINARY,
                outstanding: 0,
            },
            state: NodeState::Active,
            alive: true,
            incarnation: Incarnation(1),
            report_interval,
            acknowledged,
            services: services_of(node).into(),
            nat_ports: None,
            mtu: None,
            source_filters: dpr_model::SourceFilters::default(),
        }
    }
}

fn id_of(node: usize) -> NodeId {
    NodeId(u32::try_from(node).unwrap_or(u32::MAX - 1) + 1)
}

fn index_of(node: NodeId) -> usize {
    node.0 as usize - 1
}

fn services_of(node: usize) -> Vec<ServiceReport> {
    let socket = service_of(id_of(node), Version::V4);
    debug_assert_eq!(socket.port, SERVICE_PORT);
    vec![ServiceReport::new(Protocol::Tcp, socket)]
}
