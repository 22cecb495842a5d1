//! Captured frames as far as scenarios ask about them.

use dpr_lab::Machine;
use dpr_lab::capture::{Captured, Frame};
use etherparse::{Ethernet2HeaderSlice, Ipv4HeaderSlice, TcpHeaderSlice};
use std::net::{Ipv4Addr, SocketAddrV4};

/// An IPv4 packet and the tunnel headers around it.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Ethernet source and destination.
    pub macs: ([u8; 6], [u8; 6]),
    /// From the outermost inwards.
    pub tunnels: Vec<Outer>,
    /// What TCP says, if the innermost packet is an unfragmented TCP segment.
    pub tcp: Option<Segment>,
}

/// A tunnel header (RFC 2003).
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Destination address.
    pub to: Ipv4Addr,
    /// Identification; its low four bits are the hops left.
    pub id: u16,
}

/// The addresses and flags of a TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Source.
    pub from: SocketAddrV4,
    /// Destination.
    pub to: SocketAddrV4,
    /// Whether it opens a connection, or answers one that does.
    pub syn: bool,
}

/// IP in IP.
const PROTOCOL_IPIP: u8 = 4;
const PROTOCOL_TCP: u8 = 6;
const ETHERTYPE_IPV4: u16 = 0x0800;

impl Packet {
    /// The packet of a frame; `None` if it is not IPv4.
    pub fn of(frame: &Frame) -> Option<Self> {
        let ethernet = Ethernet2HeaderSlice::from_slice(&frame.bytes).ok()?;
        if ethernet.ether_type().0 != ETHERTYPE_IPV4 {
            return None;
        }
        let macs = (ethernet.source(), ethernet.destination());
        let mut tunnels = Vec::new();
        let mut rest = &frame.bytes[14..];
        loop {
            let ip = Ipv4HeaderSlice::from_slice(rest).ok()?;
            rest = &rest[ip.slice().len()..];
            if ip.protocol().0 == PROTOCOL_IPIP {
                tunnels.push(Outer { to: ip.destination_addr(), id: ip.identification() });
                continue;
            }
            let is_tcp = ip.protocol().0 == PROTOCOL_TCP && !ip.is_fragmenting_payload();
            let tcp = is_tcp.then(|| Segment::of(&ip, rest)).flatten();
            return Some(Self { macs, tunnels, tcp });
        }
    }

    /// Whether the machine sent it or received it, in Ethernet terms.
    pub fn touches(&self, machine: &Machine) -> bool {
        let mac = machine.mac().0;
        self.macs.0 == mac || self.macs.1 == mac
    }
}

impl Segment {
    fn of(ip: &Ipv4HeaderSlice<'_>, payload: &[u8]) -> Option<Self> {
        let tcp = TcpHeaderSlice::from_slice(payload).ok()?;
        Some(Self {
            from: SocketAddrV4::new(ip.source_addr(), tcp.source_port()),
            to: SocketAddrV4::new(ip.destination_addr(), tcp.destination_port()),
            syn: tcp.syn(),
        })
    }
}

/// A capture filter: IPv4 packets that are tunnelled.
pub fn is_tunnelled(frame: &Frame) -> bool {
    Packet::of(frame).is_some_and(|packet| !packet.tunnels.is_empty())
}

/// A capture filter: TCP, tunnelled or not.
pub fn is_tcp(frame: &Frame) -> bool {
    Packet::of(frame).is_some_and(|packet| packet.tcp.is_some())
}

/// The packets of a capture that lost nothing.
pub fn complete(captured: &Captured) -> Vec<Packet> {
    assert_eq!(captured.lost, 0, "the capture is incomplete and proves nothing");
    captured.frames.iter().filter_map(Packet::of).collect()
}
