//! Packets to test with, and what makes one sound.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use dpr_rewrite::{Frame, Parsed, Version, parse};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use pnet_packet::{icmp, icmpv6, ipv4, tcp, udp};
use proptest::prelude::*;

/// Where the packet begins in the frames that are made here.
pub(crate) const IP_AT: usize = 14;

/// Transport protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrying {
    Syn,
    Data,
    Datagram,
}

/// A packet as its sender wants it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) carrying: Carrying,
    pub(crate) data: Vec<u8>,
}

impl Sent {
    /// An Ethernet frame, written by etherparse.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ip = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ethernet.ipv4(source.octets(), destination.octets(), 64)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ethernet.ipv6(source.octets(), destination.octets(), 64)
            }
            _ => panic!("a packet has one version"),
        };
        let (from, to) = (self.source.port(), self.destination.port());
        let mut frame = Vec::new();
        match self.carrying {
            Carrying::Syn => {
                let mss = [etherparse::TcpOptionElement::MaximumSegmentSize(1460)];
                let builder = ip.tcp(from, to, 1_000_000, 4096).syn().options(&mss).unwrap();
                builder.write(&mut frame, &self.data).unwrap();
            }
            Carrying::Data => {
                ip.tcp(from, to, 1_000_000, 4096).ack(77).psh().write(&mut frame, &self.data).unwrap();
            }
            Carrying::Datagram => ip.udp(from, to).write(&mut frame, &self.data).unwrap(),
        }
        frame
    }

    /// The IP packet alone.
    pub(crate) fn packet(&self) -> Vec<u8> {
        self.frame().split_off(IP_AT)
    }

    /// The same from and to others.
    pub(crate) fn between(&self, source: SocketAddr, destination: SocketAddr) -> Self {
        Self { source, destination, ..self.clone() }
    }
}

/// What `dpr` makes of a frame.
pub(crate) fn parsed(frame: &[u8]) -> Frame {
    match parse(frame) {
        Ok(Parsed::Ip(frame)) => frame,
        other => panic!("not an IP frame: {other:?}"),
    }
}

/// `packet` is one from `source` to `destination` with `data`, and all of its checksums are right.
pub(crate) fn assert_sound(packet: &[u8], source: SocketAddr, destination: SocketAddr, data: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    assert_eq!(addresses_of(&sliced), (source.ip(), destination.ip()));
    let (ports, payload) = match sliced.transport.as_ref().unwrap() {
        TransportSlice::Tcp(tcp) => ((tcp.source_port(), tcp.destination_port()), tcp.payload()),
        TransportSlice::Udp(udp) => ((udp.source_port(), udp.destination_port()), udp.payload()),
        other => panic!("{other:?}"),
    };
    assert_eq!(ports, (source.port(), destination.port()));
    assert_eq!(payload, data);
    assert_checksums(packet);
}

pub(crate) fn addresses_of(sliced: &SlicedPacket<'_>) -> (IpAddr, IpAddr) {
    match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        other => panic!("{other:?}"),
    }
}

/// Every checksum in `packet` is what pnet computes.
pub(crate) fn assert_checksums(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let (source, destination) = addresses_of(&sliced);
    if source.is_ipv4() {
        let header = ipv4::Ipv4Packet::new(packet).unwrap();
        assert_eq!(header.get_checksum(), ipv4::checksum(&header), "IPv4 header checksum");
    }
    match sliced.transport.as_ref().unwrap() {
        TransportSlice::Tcp(slice) => {
            let segment = tcp::TcpPacket::new(slice.slice()).unwrap();
            let expected = match (source, destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    tcp::ipv4_checksum(&segment, &source, &destination)
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    tcp::ipv6_checksum(&segment, &source, &destination)
                }
                _ => unreachable!(),
            };
            assert_eq!(segment.get_checksum(), expected, "TCP checksum");
        }
        TransportSlice::Udp(slice) => {
            let datagram = udp::UdpPacket::new(slice.slice()).unwrap();
            let computed = match (source, destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    udp::ipv4_checksum(&datagram, &source, &destination)
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    udp::ipv6_checksum(&datagram, &source, &destination)
                }
                _ => unreachable!(),
            };
            let expected = if computed == 0 { 0xffff } else { computed };
            assert_eq!(datagram.get_checksum(), expected, "UDP checksum");
        }
        TransportSlice::Icmpv4(slice) => {
            let message = icmp::IcmpPacket::new(slice.slice()).unwrap();
            assert_eq!(message.get_checksum(), icmp::checksum(&message), "ICMP checksum");
        }
        TransportSlice::Icmpv6(slice) => {
            let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) else { panic!() };
            let message = icmpv6::Icmpv6Packet::new(slice.slice()).unwrap();
            let expected = icmpv6::checksum(&message, &source, &destination);
            assert_eq!(message.get_checksum(), expected, "ICMPv6 checksum");
        }
        other @ TransportSlice::Igmp(_) => panic!("{other:?}"),
    }
}

/// Writes the right checksum into the IPv4 header at the start of `header`.
pub(crate) fn fix_ipv4_checksum(header: &mut [u8]) {
    let sum = ipv4::checksum(&ipv4::Ipv4Packet::new(header).unwrap());
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Puts headers without meaning between the IPv6 header of a frame and its transport: hop-by-hop options, a routing
/// header that has been followed, destination options.
pub(crate) fn with_extension_headers(mut frame: Vec<u8>) -> Vec<u8> {
    let transport = frame[IP_AT + 6];
    frame[IP_AT + 6] = 0;
    let payload_len = u16::from_be_bytes([frame[IP_AT + 4], frame[IP_AT + 5]]) + 32;
    frame[IP_AT + 4..IP_AT + 6].copy_from_slice(&payload_len.to_be_bytes());
    let mut extensions = vec![43, 0, 1, 4, 0, 0, 0, 0];
    extensions.extend_from_slice(&[60, 0, 4, 0, 0, 0, 0, 0]);
    extensions.extend_from_slice(&[transport, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    frame.splice(IP_AT + 40..IP_AT + 40, extensions);
    frame
}

pub(crate) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V4), Just(Version::V6)]
}

pub(crate) fn socket(version: Version) -> impl Strategy<Value = SocketAddr> {
    (any::<[u8; 16]>(), any::<u16>()).prop_map(move |(octets, port)| match version {
        Version::V4 => {
            SocketAddr::new(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(), port)
        }
        Version::V6 => SocketAddr::new(Ipv6Addr::from(octets).into(), port),
    })
}

pub(crate) fn sent_over(version: Version) -> impl Strategy<Value = Sent> {
    let carrying = prop_oneof![Just(Carrying::Syn), Just(Carrying::Data), Just(Carrying::Datagram)];
    let data = proptest::collection::vec(any::<u8>(), 0..1400);
    // A port of our tunnels would make a tunnel of it.
    let destination = socket(version).prop_filter("GUE", |to| to.port() != dpr_rewrite::gue::PORT);
    (socket(version), destination, carrying, data).prop_map(|(source, destination, carrying, data)| Sent {
        source,
        destination,
        carrying,
        data,
    })
}

pub(crate) fn sent() -> impl Strategy<Value = Sent> {
    version().prop_flat_map(sent_over)
}
