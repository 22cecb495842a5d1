//! Captured frames as far as scenarios ask about them: read with a library of others, not with `dpr`'s own code.

use dpr_lab::Machine;
use dpr_lab::capture::{Captured, Frame};
use etherparse::{Ethernet2HeaderSlice, IpNumber, IpSlice, TcpHeaderSlice, UdpHeaderSlice};
use std::net::{IpAddr, SocketAddr};

/// An IP packet and the tunnel headers around it.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Ethernet source and destination.
    pub macs: ([u8; 6], [u8; 6]),
    /// From the outermost inwards.
    pub tunnels: Vec<Outer>,
    /// Source and destination of the innermost packet.
    pub addresses: (IpAddr, IpAddr),
    /// Whether the innermost packet is a fragment.
    pub is_fragment: bool,
    /// What TCP says, if the innermost packet is an unfragmented TCP segment.
    pub tcp: Option<Segment>,
    /// The ends of a UDP datagram, if the innermost packet is an unfragmented one.
    pub udp: Option<(SocketAddr, SocketAddr)>,
}

/// A tunnel header (RFC 2003, RFC 2473, GUE).
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Destination address.
    pub to: IpAddr,
    /// Whether it is GUE, and not IP in IP.
    pub is_gue: bool,
    /// The hops left; `None` if the header is not marked as `dpr` marks its own.
    pub hops: Option<u8>,
}

/// The addresses and flags of a TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// Whether it opens a connection, or answers one that does.
    pub syn: bool,
    /// Whether it acknowledges anything.
    pub ack: bool,
    /// Sequence number.
    pub sequence: u32,
}

/// UDP port of GUE (IANA).
const GUE_PORT: u16 = 6080;
/// Length of a GUE header with `dpr`'s private data, bytes.
const GUE_LEN: usize = 8;
/// Upper twelve bits of an IPv4 identification, and of GUE's private data, that mark `dpr`'s tunnels.
const MAGIC: u16 = 0xd94;
/// Upper six bits of an IPv6 flow label that mark them.
const LABEL_MAGIC: u32 = 0xd8000 >> 14;

impl Packet {
    /// The packet of a frame; `None` if it is not IP.
    pub fn of(frame: &Frame) -> Option<Self> {
        let ethernet = Ethernet2HeaderSlice::from_slice(&frame.bytes).ok()?;
        let macs = (ethernet.source(), ethernet.destination());
        let mut tunnels = Vec::new();
        let mut rest = &frame.bytes[14..];
        loop {
            // Frames that are cut, and those whose length only an interface completes, are read as far as they go.
            let (ip, _) = etherparse::LaxIpSlice::from_slice(rest).ok()?;
            let payload = ip.payload();
            let addresses = (ip.source_addr(), ip.destination_addr());
            let whole = !payload.fragmented;
            let bytes = payload.payload;
            match payload.ip_number {
                IpNumber::IPV4 | IpNumber::IPV6 if whole => {
                    tunnels.push(Outer { to: addresses.1, is_gue: false, hops: hops_of(rest) });
                    rest = bytes;
                }
                IpNumber::UDP if whole && is_gue(bytes) => {
                    let private = u16::from_be_bytes([*bytes.get(12)?, *bytes.get(13)?]);
                    let hops = (private >> 4 == MAGIC).then_some((private & 0xf) as u8);
                    tunnels.push(Outer { to: addresses.1, is_gue: true, hops });
                    rest = bytes.get(8 + GUE_LEN..)?;
                }
                number => {
                    let tcp =
                        (whole && number == IpNumber::TCP).then(|| Segment::of(addresses, bytes)).flatten();
                    let udp = (whole && number == IpNumber::UDP).then(|| udp_of(addresses, bytes)).flatten();
                    return Some(Self { macs, tunnels, addresses, is_fragment: !whole, tcp, udp });
                }
            }
        }
    }

    /// Whether the machine sent it or received it, in Ethernet terms.
    pub fn touches(&self, machine: &Machine) -> bool {
        let mac = machine.mac().0;
        self.macs.0 == mac || self.macs.1 == mac
    }
}

/// The hops left that the IP header at the start of `bytes` carries.
fn hops_of(bytes: &[u8]) -> Option<u8> {
    match IpSlice::from_slice(bytes).ok()? {
        IpSlice::Ipv4(ip) => {
            let id = ip.header().identification();
            (id >> 4 == MAGIC).then_some((id & 0xf) as u8)
        }
        IpSlice::Ipv6(ip) => {
            let label = ip.header().flow_label().value();
            (label >> 14 == LABEL_MAGIC).then_some((label >> 12 & 0b11) as u8)
        }
    }
}

fn is_gue(datagram: &[u8]) -> bool {
    UdpHeaderSlice::from_slice(datagram).is_ok_and(|udp| udp.destination_port() == GUE_PORT)
}

fn udp_of(addresses: (IpAddr, IpAddr), payload: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let udp = UdpHeaderSlice::from_slice(payload).ok()?;
    let from = SocketAddr::new(addresses.0, udp.source_port());
    Some((from, SocketAddr::new(addresses.1, udp.destination_port())))
}

impl Segment {
    fn of(addresses: (IpAddr, IpAddr), payload: &[u8]) -> Option<Self> {
        let tcp = TcpHeaderSlice::from_slice(payload).ok()?;
        Some(Self {
            from: SocketAddr::new(addresses.0, tcp.source_port()),
            to: SocketAddr::new(addresses.1, tcp.destination_port()),
            syn: tcp.syn(),
            ack: tcp.ack(),
            sequence: tcp.sequence_number(),
        })
    }
}

/// A capture filter: packets that are tunnelled.
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
