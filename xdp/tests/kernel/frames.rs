//! Frames of every kind: valid, odd and broken.

mod answers;
mod pieces;

use crate::world::{FURTHER, MAC, NODE, SHARED_MAC, STRANGER, VIRTUAL, node_address, peer_address};
use dpr_model::MacAddress;
use dpr_rewrite::checksum::{fold, pseudo_header, sum_of};
use dpr_rewrite::ethernet::{self, ethertype};
use dpr_rewrite::ipv4::{self, Fields};
use dpr_rewrite::tcp::flag;
use dpr_rewrite::tunnel::LABEL_MAGIC;
use dpr_rewrite::udp::checksum_to_send;
use dpr_rewrite::{Version, ipv6, protocol};
use fastrand::Rng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) use pieces::{as_v6, fix_header, fragment_v4, fragment_v6};
use pieces::{delivery_address, ethertype_of, in_v6, mapped, with_extension};

/// All hosts on the link.
const GROUP: MacAddress = MacAddress([0x01, 0x00, 0x5e, 0, 0, 1]);
const NEIGHBOUR: MacAddress = MacAddress([2, 0, 0, 0, 0, 77]);
const ETHERNET_LEN: usize = 14;
const IP_LEN: usize = 20;

/// Draws frames.
pub(crate) struct Frames {
    pub(crate) rng: Rng,
    /// Version of the node addresses.
    nodes: Version,
    /// Version of the packet that is drawn, not of the tunnel around it.
    version: Version,
    /// Whether peers are clients as well.
    pub(crate) peers_connect: bool,
    /// Whether most packets are for the address that no node may hold.
    pub(crate) prefers_virtual: bool,
    /// Packets that do not fit and ask for an answer, which are limited by the second.
    too_big_left: u32,
}

impl Frames {
    pub(crate) fn new(rng: Rng, nodes: Version, peers_connect: bool) -> Self {
        Self { rng, nodes, version: Version::V4, peers_connect, prefers_virtual: false, too_big_left: 50 }
    }

    /// The next frame.
    pub(crate) fn draw(&mut self) -> Vec<u8> {
        let mut frame = match self.rng.u8(..100) {
            0..80 => self.ip(),
            80..84 => self.arp(),
            84..88 => self.tagged(),
            88..92 => self.other_ethertype(),
            _ => self.broken(),
        };
        if self.rng.u8(..4) == 0 {
            // Ethernet pads short frames.
            frame.resize(frame.len() + self.rng.usize(..20), 0xaa);
        }
        frame
    }

    fn ip(&mut self) -> Vec<u8> {
        let packet = match self.rng.u8(..10) {
            0..6 => self.direct_packet(),
            _ => self.tunnel(),
        };
        let destination = match self.rng.u8(..40) {
            0 => GROUP,
            1 => SHARED_MAC,
            _ => MAC,
        };
        framed(destination, ethertype_of(&packet), &packet)
    }

    fn direct_packet(&mut self) -> Vec<u8> {
        self.version = if self.rng.u8(..5) < 2 { Version::V6 } else { Version::V4 };
        match self.rng.u8(..20) {
            0..8 => self.segment(),
            8..10 => self.answer(),
            10..13 => self.datagram(),
            13..16 => self.icmp_error(),
            16..19 => self.fragment(),
            _ => self.other_protocol(),
        }
    }

    /// In the drawn version; sometimes an address of IPv6 that looks as one of IPv4 does in maps.
    fn address(&mut self, address: Ipv4Addr) -> IpAddr {
        match self.version {
            Version::V6 if self.rng.u8(..40) == 0 => mapped(address).into(),
            version => node_address(version, address),
        }
    }

    fn client(&mut self) -> IpAddr {
        let address = match self.rng.u8(..10) {
            0 if self.peers_connect => peer_address(self.rng.u8(..4)),
            nth => Ipv4Addr::new(192, 0, 2, nth),
        };
        self.address(address)
    }

    fn service(&mut self, protocol: u8) -> (IpAddr, u16) {
        let address = match self.rng.u8(..20) {
            0..12 if !self.prefers_virtual => self.address(NODE),
            0..16 => self.address(VIRTUAL),
            16..18 => {
                let peer = peer_address(self.rng.u8(1..4));
                self.address(peer)
            }
            18 => self.address(STRANGER),
            _ => delivery_address(self.version, self.rng.u8(..4)),
        };
        let ports = if protocol == 17 { [53, 53, 53, 22] } else { [80, 80, 443, 22] };
        let port = ports[self.rng.usize(..4)];
        (address, if self.rng.u8(..3) == 0 { self.further(port) } else { port })
    }

    /// One that a service may have beside its own, or one beside that.
    fn further(&mut self, port: u16) -> u16 {
        let Some((_, ranges)) = FURTHER.into_iter().find(|(named, _)| *named == port) else { return port };
        let range = ranges[self.rng.usize(..ranges.len())];
        match self.rng.u8(..8) {
            0 => range.first() - 1,
            1 => range.last().wrapping_add(1),
            2..5 => range.last(),
            _ => range.first(),
        }
    }

    fn segment(&mut self) -> Vec<u8> {
        let (source, (destination, port)) = (self.client(), self.service(6));
        let flags = match self.rng.u8(..12) {
            0..4 => flag::SYN,
            4..8 => flag::ACK,
            8 => flag::FIN | flag::ACK,
            9 => flag::RST,
            10 => flag::SYN | flag::ACK,
            _ => self.rng.u8(..),
        };
        let options_len = self.rng.usize(..=10) * 4;
        let data_len = self.data_len();
        let mut tcp = vec![0; 20 + options_len + data_len];
        tcp[..2].copy_from_slice(&(1024 + self.rng.u16(..6)).to_be_bytes());
        tcp[2..4].copy_from_slice(&port.to_be_bytes());
        tcp[4..8].copy_from_slice(&(1000 + self.rng.u32(..3)).to_be_bytes());
        tcp[12] = (((20 + options_len) / 4) << 4) as u8;
        tcp[13] = flags;
        self.rng.fill(&mut tcp[20..]);
        let checksum = !fold(pseudo_header(source, destination, 6, tcp.len() as u16) + sum_of(&tcp));
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        self.packet(6, source, destination, &tcp)
    }

    /// Sometimes too much for the way to some peers.
    fn data_len(&mut self) -> usize {
        match self.rng.u8(..40) {
            0 if self.too_big_left > 0 => {
                self.too_big_left -= 1;
                1420
            }
            _ => self.rng.usize(..60),
        }
    }

    fn datagram(&mut self) -> Vec<u8> {
        let (source, (destination, port)) = (self.client(), self.service(17));
        let mut udp = vec![0; 8 + self.data_len()];
        self.rng.fill(&mut udp[8..]);
        let len = udp.len() as u16;
        udp[..2].copy_from_slice(&(1024 + self.rng.u16(..6)).to_be_bytes());
        udp[2..4].copy_from_slice(&port.to_be_bytes());
        udp[4..6].copy_from_slice(&len.to_be_bytes());
        if self.rng.u8(..4) > 0 {
            let pseudo = pseudo_header(source, destination, 17, len);
            let checksum = checksum_to_send(!fold(pseudo + sum_of(&udp)));
            udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        }
        // An IP packet may be longer than its datagram.
        udp.resize(udp.len() + self.rng.usize(..2) * 4, 0);
        self.packet(17, source, destination, &udp)
    }

    fn icmp_error(&mut self) -> Vec<u8> {
        let protocol = if self.rng.u8(..3) == 0 { 17 } else { 6 };
        let (client, (service, port)) = (self.client(), self.service(protocol));
        let mut quoted = vec![0; self.rng.usize(4..40)];
        if self.rng.bool() {
            self.rng.fill(&mut quoted);
        }
        quoted[..2].copy_from_slice(&port.to_be_bytes());
        quoted[2..4].copy_from_slice(&(1024 + self.rng.u16(..6)).to_be_bytes());
        let quote = self.packet(protocol, service, client, &quoted);
        let destination = if self.rng.u8(..10) == 0 { self.service(protocol).0 } else { service };
        let router = self.rng.u8(..);
        let router = self.address(Ipv4Addr::new(203, 0, 113, router));
        let (carrier, messages) = match self.version {
            Version::V4 => (protocol::ICMP, [3, 3, 11, 12, 8, 0]),
            Version::V6 => (protocol::ICMPV6, [1, 2, 3, 4, 128, 135]),
        };
        let mut icmp = vec![messages[self.rng.usize(..6)], 4, 0, 0, 0, 0, 5, 0xdc];
        icmp.extend_from_slice(&quote);
        let pseudo = match self.version {
            Version::V4 => 0,
            Version::V6 => pseudo_header(router, destination, carrier, icmp.len() as u16),
        };
        let checksum = !fold(pseudo + sum_of(&icmp));
        icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
        self.packet(carrier, router, destination, &icmp)
    }

    fn fragment(&mut self) -> Vec<u8> {
        let packet = if self.rng.bool() { self.segment() } else { self.datagram() };
        // Few identifications, so that later fragments find their first one.
        let id = self.rng.u8(..4);
        let (offset, more) = [(0, true), (0, true), (1, false), (9, true)][self.rng.usize(..4)];
        let len = if self.rng.u8(..8) == 0 { self.rng.usize(..24) } else { packet.len() };
        match self.version {
            Version::V4 => fragment_v4(packet, id, (offset, more), len),
            Version::V6 => fragment_v6(packet, id, (offset, more && self.rng.u8(..8) > 0), len),
        }
    }

    fn other_protocol(&mut self) -> Vec<u8> {
        let (source, (destination, port)) = (self.client(), self.service(6));
        let mut payload = vec![0; self.rng.usize(8..40)];
        payload[2..4].copy_from_slice(&port.to_be_bytes());
        let len = payload.len() as u16;
        payload[4..6].copy_from_slice(&len.to_be_bytes());
        let protocol = [17, 17, 47, 41, 4, 50, 1, 58][self.rng.usize(..8)];
        self.packet(protocol, source, destination, &payload)
    }

    /// An IP packet, sometimes with options or extension headers.
    fn packet(&mut self, protocol: u8, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.packet_v4(protocol, source, destination, payload)
            }
            (source, destination) => self.packet_v6(protocol, as_v6(source), as_v6(destination), payload),
        }
    }

    fn packet_v4(
        &mut self,
        protocol: u8,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        payload: &[u8],
    ) -> Vec<u8> {
        let options_len = if self.rng.u8(..16) == 0 { self.rng.usize(..=10) * 4 } else { 0 };
        let total_len = IP_LEN + options_len + payload.len();
        let fields = Fields {
            tos: self.rng.u8(..),
            total_len: total_len as u16,
            id: self.rng.u16(..),
            ttl: [64, 64, 64, 2, 1, 0, 255][self.rng.usize(..7)],
            protocol,
            source,
            destination,
        };
        let mut packet = ipv4::header(&fields).to_vec();
        if self.rng.bool() {
            packet[6] = 0;
        }
        packet.resize(IP_LEN + options_len, 1);
        packet[0] = 0x40 + (packet.len() / 4) as u8;
        packet.extend_from_slice(payload);
        fix_header(&mut packet);
        packet
    }

    fn packet_v6(
        &mut self,
        protocol: u8,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut body = payload.to_vec();
        let mut first = protocol;
        if self.rng.u8(..8) == 0 {
            for _ in 0..self.rng.usize(1..8) {
                (first, body) = with_extension(&mut self.rng, first, &body);
            }
        }
        let mut packet = ipv6::header(&ipv6::Fields {
            traffic_class: self.rng.u8(..),
            flow_label: self.rng.u32(..),
            payload_len: body.len() as u16,
            protocol: first,
            hop_limit: [64, 64, 64, 2, 1, 0, 255][self.rng.usize(..7)],
            source,
            destination,
        })
        .to_vec();
        packet.extend(body);
        packet
    }

    fn tunnel(&mut self) -> Vec<u8> {
        let inner = self.direct_packet();
        self.tunnel_of(&inner)
    }

    fn tunnel_of(&mut self, inner: &[u8]) -> Vec<u8> {
        // Nodes of IPv6 get a tunnel over IPv4 as well at times, and the other way round.
        if (self.nodes == Version::V6) != (self.rng.u8(..8) == 0) {
            return self.tunnel_over_ipv6(inner);
        }
        let source = if self.rng.u8(..10) == 0 { STRANGER } else { peer_address(self.rng.u8(..4)) };
        let destination = if self.rng.u8(..10) == 0 { VIRTUAL } else { NODE };
        if self.rng.bool() {
            let udp = self.gue(inner);
            return self.packet_v4(17, source, destination, &udp);
        }
        let inside = self.protocol_of(inner);
        let mut outer = self.packet_v4(inside, source, destination, inner);
        if self.rng.u8(..10) > 0 {
            let id = 0xd940 + [0, 0, 1, 1, 2, 15][self.rng.usize(..6)];
            outer[4..6].copy_from_slice(&u16::to_be_bytes(id));
            outer[6] = 0x40;
        }
        fix_header(&mut outer);
        outer
    }

    /// The protocol number of a packet in a tunnel, which lies at times.
    fn protocol_of(&mut self, inner: &[u8]) -> u8 {
        if (inner[0] >> 4 == 6) != (self.rng.u8(..20) == 0) { protocol::IPV6 } else { protocol::IPV4 }
    }

    /// Mostly a tunnel of ours; sometimes one bit is another.
    fn gue(&mut self, inner: &[u8]) -> Vec<u8> {
        let hops = [0, 0, 1, 1, 2, 15][self.rng.usize(..6)];
        let inside = self.protocol_of(inner);
        let mut udp = vec![0xc0, 1, 0, 0, 0, 0, 0, 0, 1, inside, 0, 0, 0xd9, 0x40 | hops, 0, 0];
        udp[2..4].copy_from_slice(&dpr_rewrite::gue::PORT.to_be_bytes());
        udp[4..6].copy_from_slice(&(16 + inner.len() as u16).to_be_bytes());
        if self.rng.u8(..10) == 0 {
            udp[self.rng.usize(2..16)] ^= 1 << self.rng.u8(..8);
        }
        udp.extend_from_slice(inner);
        udp
    }

    fn tunnel_over_ipv6(&mut self, inner: &[u8]) -> Vec<u8> {
        let is_gue = self.rng.bool();
        let payload = if is_gue { self.gue(inner) } else { inner.to_vec() };
        let inside = self.protocol_of(inner);
        let source = if self.rng.u8(..10) == 0 { STRANGER } else { peer_address(self.rng.u8(..4)) };
        let destination = if self.rng.u8(..10) == 0 { VIRTUAL } else { NODE };
        let magic = if self.rng.u8(..10) == 0 { 0 } else { LABEL_MAGIC };
        let longer = usize::from(self.rng.u8(..20) == 0);
        // The same bytes as a node address of IPv4 has in the maps, and yet another address.
        let ends = if self.rng.u8(..8) == 0 { mapped } else { in_v6 };
        let mut packet = ipv6::header(&ipv6::Fields {
            traffic_class: self.rng.u8(..),
            flow_label: magic | self.rng.u32(..0x4000),
            payload_len: (payload.len() + longer) as u16,
            protocol: if is_gue { protocol::UDP } else { inside },
            hop_limit: 64,
            source: ends(source),
            destination: ends(destination),
        })
        .to_vec();
        packet.extend(payload);
        packet
    }

    fn arp(&mut self) -> Vec<u8> {
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, self.rng.u8(1..3)];
        arp.extend_from_slice(&NEIGHBOUR.0);
        arp.extend_from_slice(&[192, 0, 2, self.rng.u8(..10)]);
        arp.extend_from_slice(&[0; 6]);
        arp.extend_from_slice(&[NODE, VIRTUAL, STRANGER][self.rng.usize(..3)].octets());
        framed(MacAddress([0xff; 6]), ethertype::ARP, &arp)
    }

    fn tagged(&mut self) -> Vec<u8> {
        let mut frame = self.ip();
        frame.splice(12..12, [0x81, 0, 0, 5]);
        frame
    }

    fn other_ethertype(&mut self) -> Vec<u8> {
        let mut frame = self.ip();
        let other = if frame[12] == 0x08 { ethertype::IPV6 } else { ethertype::IPV4 };
        frame[12..14].copy_from_slice(&other.to_be_bytes());
        frame
    }

    /// Some bytes are wrong, or missing.
    fn broken(&mut self) -> Vec<u8> {
        let mut frame = self.ip();
        for _ in 0..self.rng.usize(1..4) {
            let headers = frame.len().min(ETHERNET_LEN + 120);
            let at = self.rng.usize(ETHERNET_LEN..headers);
            frame[at] = self.rng.u8(..);
        }
        if self.rng.bool() {
            fix_header(&mut frame[ETHERNET_LEN..]);
        }
        if self.rng.bool() {
            frame.truncate(self.rng.usize(ETHERNET_LEN..=frame.len()));
        }
        frame
    }
}

/// A frame with this IP packet or other payload.
pub(crate) fn framed(destination: MacAddress, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet::header(destination, NEIGHBOUR, ethertype).to_vec();
    frame.extend_from_slice(payload);
    frame
}
