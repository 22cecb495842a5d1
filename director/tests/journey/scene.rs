//! The same three nodes with any method, delivery, IP version and protocol.

use crate::stage::{START, Sockets};
use dpr_director::{
    Arrival, DeliveryRanges, Director, ExternalServer, Peer, PersistenceSettings, PolicyKind, Settings,
    ThisNode, Update,
};
use dpr_model::{
    Candidate, Capacity, Delivery, DeliveryMode, ForwardingMethod, HopBudget, Incarnation, LoadPermille, Nat,
    NodeId, NodeState, PortRange, Protocol, ServiceReport, ServiceSocket, Timestamp, Verdict, Weight,
};
use dpr_rewrite::{Encapsulation, FlowHash, Tunnel, parse, parse_ip};
use etherparse::PacketBuilder;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub(crate) const HOT: u16 = 900;
pub(crate) const NAT_PORTS: (u16, u16) = (61_000, 61_999);

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Carrying {
    Syn,
    SynAck,
    Ack,
    Fin,
    Rst,
    Datagram,
}

/// A cluster to be: node A looks at it from inside, B is idle, C is hot.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) method: ForwardingMethod,
    pub(crate) delivery: DeliveryMode,
    pub(crate) protocol: Protocol,
    pub(crate) ipv6_services: bool,
    pub(crate) ipv6_nodes: bool,
    /// Load of A; above its `maxload` of 700 it gives connections away.
    pub(crate) load: u16,
    pub(crate) external: Vec<ExternalServer>,
    pub(crate) answer_for: Vec<IpAddr>,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            method: ForwardingMethod::Ipip,
            delivery: DeliveryMode::Translate,
            protocol: Protocol::Tcp,
            ipv6_services: false,
            ipv6_nodes: false,
            load: HOT,
            external: Vec::new(),
            answer_for: Vec::new(),
        }
    }
}

/// Node A at work.
pub(crate) struct Node {
    pub(crate) scene: Scene,
    pub(crate) director: Director,
    pub(crate) sockets: Sockets,
    pub(crate) update: Update,
    pub(crate) now: Timestamp,
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Scene {
    /// Node address of 'a', 'b' or 'c'.
    pub(crate) fn node(&self, name: char) -> IpAddr {
        let last = name as u32 - 'a' as u32 + 10;
        if self.ipv6_nodes {
            address(&format!("2001:db8::{last}"))
        } else {
            address(&format!("192.0.2.{last}"))
        }
    }

    /// Service socket whose home is 'a', 'b' or 'c'.
    pub(crate) fn service(&self, name: char) -> SocketAddr {
        let last = name as u32 - 'a' as u32 + 10;
        match self.ipv6_services {
            true => socket(&format!("[2001:db8:5::{last}]:80")),
            false => socket(&format!("203.0.113.{last}:80")),
        }
    }

    pub(crate) fn client(&self, port: u16) -> SocketAddr {
        let client = if self.ipv6_services { "2001:db8:7::7" } else { "198.51.100.7" };
        SocketAddr::new(address(client), port)
    }

    pub(crate) fn id(&self, name: char) -> NodeId {
        NodeId::from_address(self.node(name))
    }

    pub(crate) fn report(&self, name: char) -> ServiceReport {
        let service = self.service(name);
        let socket = ServiceSocket { address: service.ip(), port: service.port() };
        let (method, delivery) = (self.method, self.delivery);
        ServiceReport { method, delivery, ..ServiceReport::new(self.protocol, socket) }
    }

    /// A server without `dpr` behind A's service.
    pub(crate) fn external(&self, server: &str) -> ExternalServer {
        let service = self.service('a');
        ExternalServer {
            protocol: self.protocol,
            service: ServiceSocket { address: service.ip(), port: service.port() },
            socket: socket(server),
            weight: Weight::ORDINARY,
            capacity: Capacity::new(1000),
            healthy: true,
        }
    }

    fn peer(&self, name: char, load: u16) -> Peer {
        Peer {
            candidate: Candidate {
                node: self.id(name),
                address: self.node(name),
                load: LoadPermille(load),
                capacity: Capacity::new(1000),
                weight: Weight::ORDINARY,
                outstanding: 0,
            },
            state: NodeState::Active,
            alive: true,
            incarnation: Incarnation(1),
            report_interval: Duration::from_millis(100),
            acknowledged: Some(0),
            services: [self.report(name)].into(),
            nat_ports: PortRange::new(NAT_PORTS.0, NAT_PORTS.1),
            mtu: None,
            source_filters: dpr_model::SourceFilters::default(),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            node: self.id('a'),
            address: self.node('a'),
            delivery_ranges: DeliveryRanges::default(),
            services: vec![self.report('a')],
            answer_for: self.answer_for.clone(),
            mtu: 1500,
            nat_ports: PortRange::new(NAT_PORTS.0, NAT_PORTS.1),
            conntrack: dpr_conntrack::Config { capacity: 64, ..dpr_conntrack::Config::with_seed([1, 2]) },
            persistence: PersistenceSettings::default(),
            seed: 7,
        }
    }

    pub(crate) fn begin(self) -> Node {
        let director = Director::new(self.settings());
        let update = Update {
            this: ThisNode {
                state: NodeState::Active,
                load: LoadPermille(self.load),
                capacity: Capacity::new(1000),
                weight: Weight::ORDINARY,
                services: vec![self.report('a')],
            },
            peers: vec![self.peer('b', 100), self.peer('c', HOT)],
            external: self.external.clone(),
            frozen: false,
            policy: PolicyKind::LocalEstimates,
            maxload: LoadPermille(700),
        };
        let mut node = Node { scene: self, director, sockets: Sockets::default(), update, now: START };
        node.tell();
        node
    }
}

impl Node {
    /// What the director was told once.
    pub(crate) fn settings(&self) -> Settings {
        self.scene.settings()
    }

    pub(crate) fn tell(&mut self) {
        self.director.update(&self.update, self.now);
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.director.handle_timeout(self.now, usize::MAX);
        self.tell();
    }

    pub(crate) fn receive(&mut self, frame: &[u8]) -> Verdict {
        let parsed = parse(frame).unwrap();
        let arrival = Arrival { parsed: &parsed, wire_len: frame.len() - 14, packets: 1 };
        self.director.handle_frame(arrival, &mut self.sockets, self.now)
    }

    /// A packet from one socket to another, directly.
    pub(crate) fn send(&mut self, from: SocketAddr, to: SocketAddr, carrying: Carrying) -> Verdict {
        self.receive(&packet(from, to, carrying, &[]))
    }

    /// A packet of A's client to A's service.
    pub(crate) fn client_sends(&mut self, port: u16, carrying: Carrying) -> Verdict {
        self.send(self.scene.client(port), self.scene.service('a'), carrying)
    }

    /// The same through a tunnel from node `forwarder`, for the service of `home`.
    pub(crate) fn tunnelled(
        &mut self,
        (forwarder, encapsulation, hops): (char, Encapsulation, HopBudget),
        home: char,
        carrying: Carrying,
    ) -> Verdict {
        let inner = packet(self.scene.client(1000), self.scene.service(home), carrying, &[]);
        self.receive(&in_a_tunnel(
            (self.scene.node(forwarder), self.scene.node('a')),
            encapsulation,
            hops,
            &inner,
        ))
    }

    pub(crate) fn reply(&mut self, frame: &[u8]) -> Verdict {
        self.director.handle_reply(&parse_ip(frame, 14).unwrap(), 1)
    }
}

/// An Ethernet frame.
pub(crate) fn packet(from: SocketAddr, to: SocketAddr, carrying: Carrying, data: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("{from} and {to} are of different versions"),
    };
    let mut frame = Vec::new();
    let (port, to_port) = (from.port(), to.port());
    match carrying {
        Carrying::Syn => ip.tcp(port, to_port, 1, 1000).syn().write(&mut frame, data),
        Carrying::SynAck => ip.tcp(port, to_port, 1, 1000).syn().ack(1).write(&mut frame, data),
        Carrying::Ack => ip.tcp(port, to_port, 2, 1000).ack(1).write(&mut frame, data),
        Carrying::Fin => ip.tcp(port, to_port, 2, 1000).ack(1).fin().write(&mut frame, data),
        Carrying::Rst => ip.tcp(port, to_port, 2, 1000).rst().write(&mut frame, data),
        Carrying::Datagram => ip.udp(port, to_port).write(&mut frame, data),
    }
    .unwrap();
    frame
}

pub(crate) fn in_a_tunnel(
    (source, destination): (IpAddr, IpAddr),
    encapsulation: Encapsulation,
    hops: HopBudget,
    inner: &[u8],
) -> Vec<u8> {
    let tunnel = Tunnel { encapsulation, source, destination };
    let facts = parse_ip(inner, 14).unwrap().packet;
    let mut bytes = vec![0; tunnel.overhead()];
    bytes.extend_from_slice(inner);
    let at = tunnel.overhead() + 14;
    let start = tunnel.encapsulate(&mut bytes, at, hops, FlowHash::of(&facts, 0)).unwrap();
    let mut frame = inner[..12].to_vec();
    frame.extend(if source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
    frame.extend_from_slice(&bytes[start..]);
    frame
}

/// The error that a router on the way sends back about `frame`: it does not fit.
pub(crate) fn too_big(frame: &[u8], router: &str) -> Vec<u8> {
    let mut error = [0; dpr_rewrite::too_big::ANSWER_LEN_MAX];
    let len = dpr_rewrite::too_big::answer(&frame[14..], 1400, address(router), &mut error).unwrap();
    [&frame[..14], &error[..len]].concat()
}

pub(crate) fn kept() -> Verdict {
    Verdict::Deliver(Delivery { to: Some(address("169.254.64.1")), decapsulate: 0 })
}

pub(crate) fn nat_of(verdict: Verdict) -> Nat {
    match verdict {
        Verdict::Nat(nat) | Verdict::NatReply(nat) => nat,
        verdict => panic!("{verdict:?} is no translation"),
    }
}
