//! Flows, segments and times that tests speak of.

use dpr_conntrack::{Config, Observation, Segment, Table, TcpState};
use dpr_model::{ClientSocket, FlowKey, NodeId, Protocol, ServiceSocket, Timestamp};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV4};

pub(crate) const A: NodeId = NodeId(0xa);
pub(crate) const B: NodeId = NodeId(0xb);
pub(crate) const C: NodeId = NodeId(0xc);

/// The client's initial sequence number where a test needs only one.
pub(crate) const ISN: u32 = 1000;

pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn at_s(seconds: u64) -> Timestamp {
    at(seconds * 1000)
}

pub(crate) fn config() -> Config {
    Config { capacity: 1024, half_open_capacity: 64, ..Config::with_seed([0x0123_4567_89ab_cdef, 42]) }
}

pub(crate) fn table() -> Table {
    Table::new(config())
}

/// A flow of its own for each number; every other one is IPv6.
pub(crate) fn flow(number: u32) -> FlowKey {
    let [a, b, c, d] = number.to_be_bytes();
    let (client, service) = if number.is_multiple_of(2) {
        (IpAddr::from([10, b, c, d]), IpAddr::from([192, 0, 2, 1]))
    } else {
        let client = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, u16::from(b), u16::from_be_bytes([c, d]));
        (client.into(), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]))
    };
    FlowKey {
        protocol: Protocol::Tcp,
        client: ClientSocket { address: client, port: 1024 + u16::from(a) },
        service: ServiceSocket { address: service, port: 80 },
    }
}

pub(crate) fn syn(sequence: u32) -> Segment {
    Segment { syn: true, sequence, ..Segment::default() }
}

pub(crate) fn ack(sequence: u32) -> Segment {
    Segment { ack: true, sequence, ..Segment::default() }
}

pub(crate) fn fin(sequence: u32) -> Segment {
    Segment { fin: true, ..ack(sequence) }
}

pub(crate) fn rst(sequence: u32) -> Segment {
    Segment { rst: true, sequence, ..Segment::default() }
}

/// What a packet without surprises is answered.
pub(crate) fn known(real_server: NodeId, state: TcpState) -> Observation {
    Observation::Known { real_server, state, retransmitted_syn: false, handshake_completed: false }
}

/// Inserts a connection and finishes its handshake.
pub(crate) fn establish(table: &mut Table, number: u32, real_server: NodeId, now: Timestamp) {
    table.insert(&flow(number), syn(ISN), real_server, now).expect("the table has room");
    table.observe(&flow(number), ack(ISN + 1), now);
}

/// Client and service of a flow between IPv4 addresses.
pub(crate) fn ipv4_ends(flow: &FlowKey) -> Option<(SocketAddrV4, SocketAddrV4)> {
    match (flow.client.address, flow.service.address) {
        (IpAddr::V4(client), IpAddr::V4(service)) => {
            Some((SocketAddrV4::new(client, flow.client.port), SocketAddrV4::new(service, flow.service.port)))
        }
        _ => None,
    }
}
