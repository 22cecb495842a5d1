//! Node A, its peers B and C, and the frames that come in: IPv4, TCP, IP in IP.

pub(crate) use dpr_director::{
    Arrival, DeliveryRanges, Director, LEASE_MAX, LocalSockets, Peer, PersistenceSettings, PolicyKind,
    Settings, ThisNode, Update,
};
pub(crate) use dpr_model::{
    Candidate, Capacity, ClientSocket, Delivery, DropReason, Forward, HopBudget, Incarnation, LoadPermille,
    NodeId, NodeState, Protocol, Reply, ServiceReport, ServiceSocket, Timestamp, Verdict, Weight,
};
pub(crate) use dpr_rewrite::{Encapsulation, FlowHash, Tunnel, parse, parse_ip};
pub(crate) use etherparse::PacketBuilder;
pub(crate) use std::net::{IpAddr, Ipv4Addr};
pub(crate) use std::time::Duration;

pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
pub(crate) const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
pub(crate) const C: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 13);
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
pub(crate) const ALL: [Ipv4Addr; 4] = [A, B, C, STRANGER];
pub(crate) const START: Timestamp = Timestamp::from_millis(1_000_000);

pub(crate) const IDLE: u16 = 100;
pub(crate) const HOT: u16 = 900;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Tcp {
    Syn(u32),
    Ack,
    Fin,
}

/// Sockets of the local TCP stack, as clients' ports.
#[derive(Default)]
pub(crate) struct Sockets(pub(crate) Vec<u16>);

impl LocalSockets for Sockets {
    fn holds(&mut self, _protocol: Protocol, _local: ServiceSocket, client: ClientSocket) -> bool {
        self.0.contains(&client.port)
    }
}

/// Node A, its director, and a clock.
pub(crate) struct NodeA {
    pub(crate) director: Director,
    pub(crate) sockets: Sockets,
    pub(crate) update: Update,
    pub(crate) now: Timestamp,
}

pub(crate) fn id(address: Ipv4Addr) -> NodeId {
    NodeId::from_address(IpAddr::V4(address))
}

pub(crate) fn web(address: Ipv4Addr) -> ServiceReport {
    let socket = ServiceSocket { address: IpAddr::V4(address), port: 80 };
    ServiceReport::new(Protocol::Tcp, socket)
}

pub(crate) fn peer(address: Ipv4Addr, load: u16) -> Peer {
    Peer {
        candidate: Candidate {
            node: id(address),
            address: IpAddr::V4(address),
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
        services: [web(address)].into(),
        nat_ports: None,
        mtu: None,
        source_filters: dpr_model::SourceFilters::default(),
    }
}

impl NodeA {
    pub(crate) fn with_loads(own: u16, b: u16, c: u16) -> Self {
        Self::with(own, b, c, |_| {})
    }

    /// Of settings that `change` makes out of the ordinary ones.
    pub(crate) fn with_settings(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with(HOT, IDLE, 800, change)
    }

    pub(crate) fn with(own: u16, b: u16, c: u16, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            node: id(A),
            address: IpAddr::V4(A),
            delivery_ranges: DeliveryRanges::default(),
            services: vec![web(A)],
            answer_for: vec![],
            mtu: 1500,
            nat_ports: None,
            conntrack: dpr_conntrack::Config { capacity: 64, ..dpr_conntrack::Config::with_seed([1, 2]) },
            persistence: PersistenceSettings::default(),
            seed: 7,
        };
        change(&mut settings);
        let director = Director::new(settings);
        let this = ThisNode {
            state: NodeState::Active,
            load: LoadPermille(own),
            capacity: Capacity::new(1000),
            weight: Weight::ORDINARY,
            services: vec![web(A)],
        };
        let update = Update {
            this,
            peers: vec![peer(B, b), peer(C, c)],
            external: vec![],
            frozen: false,
            policy: PolicyKind::LocalEstimates,
            maxload: LoadPermille(700),
        };
        let mut node = Self { director, sockets: Sockets::default(), update, now: START };
        node.tell();
        node
    }

    /// The daemon's next update.
    pub(crate) fn tell(&mut self) {
        self.director.update(&self.update, self.now);
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.director.handle_timeout(self.now, usize::MAX);
    }

    pub(crate) fn receive(&mut self, frame: &[u8]) -> Verdict {
        self.receive_large(frame, None)
    }

    pub(crate) fn receive_large(&mut self, frame: &[u8], wire_len: Option<usize>) -> Verdict {
        let parsed = parse(frame).unwrap();
        let wire_len = wire_len.unwrap_or(frame.len() - 14);
        self.director.handle_frame(
            Arrival { parsed: &parsed, wire_len, packets: 1 },
            &mut self.sockets,
            self.now,
        )
    }

    /// A segment from the client's `port` to `service`, directly.
    pub(crate) fn segment(&mut self, port: u16, service: Ipv4Addr, tcp: Tcp) -> Verdict {
        self.receive(&frame(CLIENT, port, service, tcp, 0))
    }

    /// The same through a tunnel from `director`.
    pub(crate) fn tunnelled(
        &mut self,
        director: Ipv4Addr,
        hops: HopBudget,
        port: u16,
        service: Ipv4Addr,
        tcp: Tcp,
    ) -> Verdict {
        self.receive(&in_a_tunnel(director, hops, &frame(CLIENT, port, service, tcp, 0)))
    }
}

pub(crate) fn frame(client: Ipv4Addr, port: u16, service: Ipv4Addr, tcp: Tcp, data_len: usize) -> Vec<u8> {
    let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(client.octets(), service.octets(), 64);
    let builder = match tcp {
        Tcp::Syn(sequence) => ip.tcp(port, 80, sequence, 1000).syn(),
        Tcp::Ack => ip.tcp(port, 80, 5, 1000).ack(1),
        Tcp::Fin => ip.tcp(port, 80, 5, 1000).ack(1).fin(),
    };
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &vec![0; data_len]).unwrap();
    bytes
}

pub(crate) fn in_a_tunnel(director: Ipv4Addr, hops: HopBudget, inner: &[u8]) -> Vec<u8> {
    in_a_tunnel_of(Encapsulation::Ipip, director, hops, inner)
}

pub(crate) fn in_a_tunnel_of(
    encapsulation: Encapsulation,
    director: Ipv4Addr,
    hops: HopBudget,
    inner: &[u8],
) -> Vec<u8> {
    let tunnel = Tunnel { encapsulation, source: IpAddr::V4(director), destination: IpAddr::V4(A) };
    let packet = parse_ip(inner, 14).unwrap().packet;
    let mut bytes = vec![0; tunnel.overhead()];
    bytes.extend_from_slice(inner);
    let start =
        tunnel.encapsulate(&mut bytes, tunnel.overhead() + 14, hops, FlowHash::of(&packet, 0)).unwrap();
    let mut frame = inner[..14].to_vec();
    frame.extend_from_slice(&bytes[start..]);
    frame
}

pub(crate) fn here() -> Verdict {
    Verdict::Deliver(Delivery { to: Some(Ipv4Addr::new(169, 254, 64, 1).into()), decapsulate: 0 })
}

pub(crate) fn forwarded_to(address: Ipv4Addr) -> Verdict {
    Verdict::Forward(Forward {
        encapsulation: Encapsulation::Ipip,
        from: IpAddr::V4(A),
        to: IpAddr::V4(address),
        hops: HopBudget::SPENT,
        decapsulate: 0,
        fragment: None,
    })
}
