//! A cluster as one of its directors sees it, and the frames that its clients and peers send.

use dpr_director::{
    Arrival, DeliveryRanges, Director, LocalSockets, Peer, PersistenceSettings, PolicyKind, Settings,
    ThisNode, Update,
};
use dpr_model::{
    Candidate, Capacity, ClientSocket, HopBudget, Incarnation, LoadPermille, MacAddress, NodeId, NodeState,
    Protocol, ServiceReport, ServiceSocket, Timestamp, Verdict, Weight,
};
use dpr_rewrite::ethernet::{self, ethertype};
use dpr_rewrite::ipv4::{self, Fields};
use dpr_rewrite::tcp::{self, flag};
use dpr_rewrite::{Encapsulation, Packet, Parsed, Tunnel, parse, protocol};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Free bytes in front of a frame, as in the user-space data plane.
pub(crate) const HEADROOM: usize = 64;
/// When everything happens.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_000_000);
/// Life of every node.
pub(crate) const LIFE: Incarnation = Incarnation(1_760_000_000_000);
/// Where services listen.
pub(crate) const PORT: u16 = 80;
/// Of every node: so large that no run fills it.
const CAPACITY: u32 = 100_000_000;
/// Bytes of data in a segment: a small request.
const DATA_LEN: usize = 64;

/// A local TCP stack without sockets: every SYN has to be decided about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoSockets;

impl LocalSockets for NoSockets {
    fn holds(&mut self, _protocol: Protocol, _local: ServiceSocket, _client: ClientSocket) -> bool {
        false
    }
}

/// Address of node `number`; the director is node 0, its peers count from 1.
pub(crate) fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + number)
}

/// Identity of node `number`.
pub(crate) fn id(number: u32) -> NodeId {
    NodeId::from_address(address(number).into())
}

/// The service of node `number`.
pub(crate) fn service(number: u32) -> ServiceReport {
    let socket = ServiceSocket { address: address(number).into(), port: PORT };
    ServiceReport::new(Protocol::Tcp, socket)
}

/// A director with `peers` peers and room for `capacity` connections, at work: loaded itself, so that it forwards.
pub(crate) fn director(peers: u32, capacity: usize) -> Director {
    let mut director = Director::new(Settings {
        node: id(0),
        address: address(0).into(),
        delivery_ranges: DeliveryRanges::default(),
        services: vec![service(0)],
        answer_for: Vec::new(),
        mtu: 1500,
        nat_ports: None,
        conntrack: dpr_conntrack::Config { capacity, ..dpr_conntrack::Config::with_seed([1, 2]) },
        persistence: PersistenceSettings::default(),
        seed: 1,
    });
    director.update(&update(peers), NOW);
    director
}

/// What the daemon of a loaded node tells its director.
pub(crate) fn update(peers: u32) -> Update {
    Update {
        this: ThisNode {
            state: NodeState::Active,
            load: LoadPermille(900),
            capacity: Capacity::new(CAPACITY),
            weight: Weight::ORDINARY,
            services: vec![service(0)],
        },
        peers: (1..=peers).map(peer).collect(),
        external: Vec::new(),
        frozen: false,
        policy: PolicyKind::LocalEstimates,
        maxload: LoadPermille(700),
    }
}

fn peer(number: u32) -> Peer {
    Peer {
        candidate: Candidate {
            node: id(number),
            address: address(number).into(),
            load: LoadPermille(300 + (number * 7919 % 300) as u16),
            capacity: Capacity::new(CAPACITY),
            weight: Weight::ORDINARY,
            outstanding: 0,
        },
        state: NodeState::Active,
        alive: true,
        incarnation: LIFE,
        report_interval: Duration::from_millis(100),
        acknowledged: Some(0),
        services: [service(number)].into(),
        nat_ports: None,
        mtu: None,
        source_filters: dpr_model::SourceFilters::default(),
    }
}

/// The socket of client `number`: many addresses, many ports.
pub(crate) fn client(number: u32) -> (Ipv4Addr, u16) {
    const PORTS: u32 = 20_000;
    let address = u32::from(Ipv4Addr::new(198, 18, 0, 1)) + number / PORTS;
    (Ipv4Addr::from(address), 30_000 + (number % PORTS) as u16)
}

/// An Ethernet frame with a TCP segment, behind [`HEADROOM`] free bytes.
pub(crate) fn segment(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let data_len = if flags & flag::SYN == 0 { DATA_LEN } else { 0 };
    let fields = Fields {
        tos: 0,
        total_len: (ipv4::HEADER_LEN + tcp::HEADER_LEN + data_len) as u16,
        id: 1,
        ttl: 57,
        protocol: protocol::TCP,
        source: source.0,
        destination: destination.0,
    };
    let mut frame = vec![0; HEADROOM];
    let (here, there) = (MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2]));
    frame.extend(ethernet::header(here, there, ethertype::IPV4));
    frame.extend(ipv4::header(&fields));
    frame.extend(source.1.to_be_bytes());
    frame.extend(destination.1.to_be_bytes());
    frame.extend(1000_u32.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(frame.len() + data_len, 0x61);
    frame
}

/// A client's segment to the service of node `service`.
pub(crate) fn from_client(number: u32, service: u32, flags: u8) -> Vec<u8> {
    segment(client(number), (address(service), PORT), flags)
}

/// What node `director` makes of a client's segment to its own service, for node 0.
pub(crate) fn through_a_tunnel(number: u32, director: u32, flags: u8) -> Vec<u8> {
    let mut inner = from_client(number, director, flags);
    let Parsed::Ip(packet) = parsed(&inner) else { panic!("written by this program") };
    let ends = (IpAddr::V4(address(director)), IpAddr::V4(address(0)));
    let start = wrap(&mut inner, &packet.packet, ends.0, ends.1, HopBudget::SPENT);
    let mut frame = vec![0; HEADROOM];
    frame.extend(ethernet::header(MacAddress([2; 6]), MacAddress([4; 6]), ethertype::IPV4));
    frame.extend(&inner[start..]);
    frame
}

/// Puts the packet of a frame that begins at [`HEADROOM`] into a tunnel, in place; returns where the outer header begins.
#[inline(always)]
pub(crate) fn wrap(buffer: &mut [u8], packet: &Packet, from: IpAddr, to: IpAddr, hops: HopBudget) -> usize {
    let tunnel = Tunnel { encapsulation: Encapsulation::Ipip, source: from, destination: to };
    let start = tunnel.encapsulate(buffer, HEADROOM + packet.at, hops, tunnel.flow_hash(packet, 0));
    start.expect("the headroom holds an outer header")
}

/// Parses a frame that begins behind [`HEADROOM`] bytes.
#[inline]
pub(crate) fn parsed(frame: &[u8]) -> Parsed {
    parse(&frame[HEADROOM..]).expect("the frame was written by this program")
}

/// Shows a parsed frame to a director as the data plane does.
#[inline(always)]
pub(crate) fn handle(director: &mut Director, frame: &[u8], parsed: &Parsed) -> Verdict {
    let wire_len = frame.len() - HEADROOM - ethernet::HEADER_LEN;
    let arrival = Arrival { parsed, wire_len, packets: 1 };
    director.handle_frame(arrival, &mut NoSockets, NOW)
}

/// Connects clients 0 to `count` - 1 and completes their handshakes; all are forwarded.
pub(crate) fn establish(director: &mut Director, count: u32) {
    for number in 0..count {
        for flags in [flag::SYN, flag::ACK] {
            let frame = from_client(number, 0, flags);
            handle(director, &frame, &parsed(&frame));
        }
    }
}
