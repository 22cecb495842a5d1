//! A cluster as one of its directors is told it, out of lines of text.
//!
//! `node ADDRESS load=900 maxload=700 mtu=1500 nat=61000-61999 policy=local-estimates answer=ADDRESS frozen draining`,
//! `peer ADDRESS load=100 weight=100 nat=… mtu=1400 dead draining leaving
//! replies-filtered tunnels-only`, `service HOME tcp SOCKET METHOD [alias] [unhealthy]
//! ports=20,50000-50009 persistence=SECONDS/PREFIX` with HOME `here` or a peer's address, `external tcp SERVICE SERVER
//! weight=100 capacity=1000 [unhealthy]`. A line about what was said before replaces it.

use crate::frame::{Words, address, number};
use dpr_director::{
    DeliveryRanges, Director, ExternalServer, Peer, PersistenceSettings, PersistentService, PolicyKind,
    Settings, ThisNode, Update,
};
use dpr_model::{
    Candidate, Capacity, DeliveryMode, ForwardingMethod, Incarnation, LoadPermille, NodeId, NodeState,
    PortGroup, PortRange, Protocol, ServiceReport, ServiceSocket, SourceFilters, Timestamp, Weight,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Lines about a cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    node: String,
    peers: Vec<String>,
    services: Vec<String>,
    external: Vec<String>,
}

/// What a data plane is told about a cluster.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Once.
    pub settings: Settings,
    /// Several times a second.
    pub update: Update,
}

impl Cluster {
    /// Takes in a line.
    pub(crate) fn say(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap();
        let subject =
            |line: &str, words: usize| line.split_whitespace().take(words).collect::<Vec<_>>().join(" ");
        let (list, words) = match word {
            "node" => return self.node = rest.to_owned(),
            "peer" => (&mut self.peers, 1),
            "service" => (&mut self.services, 3),
            "external" => (&mut self.external, 3),
            _ => panic!("a cluster has no {word}"),
        };
        match list.iter_mut().find(|line| subject(line, words) == subject(rest, words)) {
            Some(line) => rest.clone_into(line),
            None => list.push(rest.to_owned()),
        }
    }

    /// What the director of `node` is told.
    pub fn scene(&self) -> Scene {
        let words = Words::of(&self.node);
        let own = address(words.at(0));
        let services = self.services_of("here");
        let settings = Settings {
            node: NodeId::from_address(own),
            address: own,
            delivery_ranges: DeliveryRanges::default(),
            services: services.clone(),
            answer_for: words.value("answer").map(address).into_iter().collect(),
            mtu: words.number("mtu", 1500) as u16,
            nat_ports: ports(&words),
            conntrack: dpr_conntrack::Config { capacity: 64, ..dpr_conntrack::Config::with_seed([1, 2]) },
            persistence: PersistenceSettings { services: self.persistent(), clients_max: 64 },
            seed: 7,
        };
        let this = ThisNode {
            state: state(&words),
            load: load(&words),
            capacity: Capacity::new(1000),
            weight: Weight::ORDINARY,
            services,
        };
        let mut peers: Vec<Peer> = self.peers.iter().map(|line| self.peer(&Words::of(line))).collect();
        peers.sort_unstable_by_key(|peer| peer.candidate.node);
        let policy = words.value("policy").unwrap_or("local-estimates");
        let update = Update {
            this,
            peers,
            external: self.external.iter().map(|line| external(&Words::of(line))).collect(),
            frozen: words.has("frozen"),
            policy: PolicyKind::ALL.into_iter().find(|kind| kind.label() == policy).unwrap(),
            maxload: LoadPermille(words.number("maxload", 700) as u16),
        };
        Scene { settings, update }
    }

    /// Own services whose clients stay with their real server.
    fn persistent(&self) -> Vec<PersistentService> {
        let lines = self.services.iter().map(|line| Words::of(line));
        lines
            .filter(|words| words.at(0) == "here")
            .filter_map(|words| {
                let (seconds, prefix_len) = words.value("persistence")?.split_once('/').unwrap();
                Some(PersistentService {
                    protocol: protocol(words.at(1)),
                    service: service_socket(words.at(2)),
                    prefix_len: number(prefix_len) as u8,
                    timeout: Duration::from_secs(number(seconds).into()),
                })
            })
            .collect()
    }

    fn services_of(&self, home: &str) -> Vec<ServiceReport> {
        let lines = self.services.iter().map(|line| Words::of(line));
        lines.filter(|words| words.at(0) == home).map(|words| service(&words)).collect()
    }

    fn peer(&self, words: &Words<'_>) -> Peer {
        let node: IpAddr = address(words.at(0));
        Peer {
            candidate: Candidate {
                node: NodeId::from_address(node),
                address: node,
                load: load(words),
                capacity: Capacity::new(1000),
                weight: Weight(words.number("weight", 100) as u16),
                outstanding: 0,
            },
            state: state(words),
            alive: !words.has("dead"),
            incarnation: Incarnation(1),
            report_interval: Duration::from_millis(100),
            acknowledged: Some(0),
            services: self.services_of(words.at(0)).into(),
            nat_ports: ports(words),
            mtu: words.value("mtu").map(|mtu| number(mtu) as u16),
            source_filters: SourceFilters {
                from_peer: words.has("replies-filtered"),
                to_peer: words.has("tunnels-only"),
            },
        }
    }
}

fn load(words: &Words<'_>) -> LoadPermille {
    LoadPermille(words.number("load", 0) as u16)
}

fn ports(words: &Words<'_>) -> Option<PortRange> {
    words.value("nat").and_then(range)
}

fn range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    PortRange::new(number(first) as u16, number(last) as u16)
}

fn further_ports(words: &Words<'_>) -> PortGroup {
    let mut group = PortGroup::NONE;
    let texts = words.value("ports").into_iter().flat_map(|ports| ports.split(','));
    texts.for_each(|text| assert!(group.add(range(text).unwrap())));
    group
}

fn state(words: &Words<'_>) -> NodeState {
    match (words.has("draining"), words.has("leaving")) {
        (true, _) => NodeState::Draining,
        (_, true) => NodeState::Leaving,
        _ => NodeState::Active,
    }
}

pub(crate) fn protocol(word: &str) -> Protocol {
    if word == "udp" { Protocol::Udp } else { Protocol::Tcp }
}

fn service_socket(text: &str) -> ServiceSocket {
    let socket: SocketAddr = text.parse().unwrap();
    ServiceSocket { address: socket.ip(), port: socket.port() }
}

fn service(words: &Words<'_>) -> ServiceReport {
    use ForwardingMethod::{Dr, Gue, HalfNat, Ipip, Nat};
    let method = [Ipip, Gue, Nat, HalfNat, Dr].into_iter().find(|method| method.label() == words.at(3));
    ServiceReport {
        healthy: !words.has("unhealthy"),
        method: method.unwrap(),
        delivery: if words.has("alias") { DeliveryMode::Alias } else { DeliveryMode::Translate },
        ports: further_ports(words),
        ..ServiceReport::new(protocol(words.at(1)), service_socket(words.at(2)))
    }
}

fn external(words: &Words<'_>) -> ExternalServer {
    ExternalServer {
        protocol: protocol(words.at(0)),
        service: service_socket(words.at(1)),
        socket: words.at(2).parse().unwrap(),
        weight: Weight(words.number("weight", 100) as u16),
        capacity: Capacity::new(words.number("capacity", 1000)),
        healthy: !words.has("unhealthy"),
    }
}

impl Scene {
    /// A director that knows it.
    pub fn director(&self, now: Timestamp) -> Director {
        let mut director = Director::new(self.settings.clone());
        director.update(&self.update, now);
        director
    }
}
