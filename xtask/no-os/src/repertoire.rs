//! What `rewrite` can do beyond the journey of a TCP connection over IPv4: IPv6, UDP, GUE, address translation,
//! fragments, echo replies, neighbour discovery.

use crate::journey::Step;
use core::hint::black_box;
use core::net::{Ipv4Addr, Ipv6Addr};
use dpr_model::{HopBudget, MacAddress};
use dpr_rewrite::ethernet::{self, ethertype};
use dpr_rewrite::fragment::Fragments;
use dpr_rewrite::ndp::ADVERTISEMENT_LEN_MAX;
use dpr_rewrite::tunnel::{self, OVERHEAD_MAX};
use dpr_rewrite::{
    ChecksumState, Encapsulation, End, FlowHash, Parsed, Translation, Tunnel, Version, checksum, echo, ipv4,
    ipv6, parse, parse_ip, protocol, translate, udp,
};

const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);
const SERVICE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x12);
const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// Bytes behind an IPv6 header that is made here: header and data of a datagram, or of a message.
const PAYLOAD_LEN: usize = 24;
const PACKET_LEN: usize = ipv6::HEADER_LEN + PAYLOAD_LEN;

/// Takes packets through what the journey does not need.
pub(crate) fn all() -> Result<(), Step> {
    gue().ok_or(Step::Gue)?;
    translation().ok_or(Step::Translate)?;
    fragments().ok_or(Step::Fragment)?;
    echo_reply().ok_or(Step::Echo)?;
    neighbour().ok_or(Step::Neighbour)
}

/// A datagram over IPv6 through GUE over IPv6.
fn gue() -> Option<()> {
    let sent = black_box(datagram());
    let mut buffer = [0; OVERHEAD_MAX + PACKET_LEN];
    buffer[OVERHEAD_MAX..].copy_from_slice(&sent);
    let tunnel =
        Tunnel { encapsulation: Encapsulation::Gue, source: SERVICE.into(), destination: SERVER.into() };
    let flow = FlowHash::of(&parse_ip(&sent, 0).ok()?.packet, 1);
    let start = tunnel.encapsulate(&mut buffer, OVERHEAD_MAX, HopBudget::SPENT, flow).ok()?;
    let arrived = parse_ip(&buffer, start).ok()?;
    let right = arrived.outer?.encapsulation == Encapsulation::Gue
        && arrived.packet.at == start + tunnel::overhead(Encapsulation::Gue, Version::V6);
    right.then_some(())
}

/// To the server and back again.
fn translation() -> Option<()> {
    let sent = black_box(datagram());
    let mut packet = sent;
    for (source, destination) in [(SERVICE, SERVER), (CLIENT, SERVICE)] {
        let facts = parse_ip(&packet, 0).ok()?.packet;
        let end = |address: Ipv6Addr| Some(End { address: address.into(), port: None });
        let to = Translation { source: end(source), destination: end(destination) };
        translate(&mut packet, &facts, &to, ChecksumState::Complete).ok()?;
    }
    (packet == sent).then_some(())
}

/// An IPv4 packet that may be fragmented, in two.
fn fragments() -> Option<()> {
    const LEN: usize = ipv4::HEADER_LEN + 40;
    let mut packet = [0; LEN];
    packet[..ipv4::HEADER_LEN].copy_from_slice(&ipv4::header(&ipv4::Fields {
        tos: 0,
        total_len: LEN as u16,
        id: 1,
        ttl: 64,
        protocol: protocol::UDP,
        source: Ipv4Addr::new(192, 0, 2, 1),
        destination: Ipv4Addr::new(198, 51, 100, 1),
    }));
    packet[ipv4::HEADER_LEN + udp::field::LENGTH + 1] = 40;
    // Without "don't fragment" the sum is less, the checksum more by it.
    packet[ipv4::field::FRAGMENT] = 0;
    packet[ipv4::field::CHECKSUM] = packet[ipv4::field::CHECKSUM].checked_add(0x40)?;
    let facts = parse_ip(&black_box(packet), 0).ok()?.packet;
    let mut fragments = Fragments::new(&packet, &facts, 48).ok()?;
    let mut out = [0; LEN];
    let mut pieces = 0;
    while let Some(len) = fragments.next_into(&mut out) {
        parse_ip(&out[..len.ok()?], 0).ok()?;
        pieces += 1;
    }
    (pieces == 2).then_some(())
}

fn echo_reply() -> Option<()> {
    const REQUEST: u8 = 128;
    let request = black_box(packet(protocol::ICMPV6, CLIENT, SERVICE, 64, [REQUEST; 1], 2));
    let facts = parse_ip(&request, 0).ok()?.packet;
    let mut out = [0; PACKET_LEN];
    let len = echo::reply(&request, &facts, &mut out).ok()?;
    (parse_ip(&out[..len], 0).ok()?.packet.ip.destination() == CLIENT).then_some(())
}

fn neighbour() -> Option<()> {
    const SOLICITATION: u8 = 135;
    let mut start = [0; 24];
    start[0] = SOLICITATION;
    start[8..].copy_from_slice(&SERVICE.octets());
    let asked = packet(protocol::ICMPV6, CLIENT, SERVICE, 255, start, 2);
    let mut frame = [0; ethernet::HEADER_LEN + PACKET_LEN];
    frame[..ethernet::HEADER_LEN].copy_from_slice(&ethernet::header(MAC, MAC, ethertype::IPV6));
    frame[ethernet::HEADER_LEN..].copy_from_slice(&asked);
    let Ok(Parsed::Neighbour(solicitation)) = parse(&black_box(frame)) else { return None };
    let mut out = [0; ADVERTISEMENT_LEN_MAX];
    let len = solicitation.advertisement(MAC, &mut out).ok()?;
    let Ok(Parsed::Ip(answer)) = parse(&out[..len]) else { return None };
    (answer.packet.ip.destination() == CLIENT).then_some(())
}

/// From client to service.
fn datagram() -> [u8; PACKET_LEN] {
    let start = [0x9c, 0x40, 0, 53, 0, PAYLOAD_LEN as u8];
    packet(protocol::UDP, CLIENT, SERVICE, 64, start, udp::field::CHECKSUM)
}

/// An IPv6 packet whose payload begins with `start` and has its checksum at `checksum_at`.
fn packet<const N: usize>(
    protocol: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    start: [u8; N],
    checksum_at: usize,
) -> [u8; PACKET_LEN] {
    let mut packet = [0; PACKET_LEN];
    let (ip, payload) = packet.split_at_mut(ipv6::HEADER_LEN);
    let payload_len = PAYLOAD_LEN as u16;
    ip.copy_from_slice(&ipv6::header(&ipv6::Fields {
        traffic_class: 0,
        flow_label: 0,
        payload_len,
        protocol,
        hop_limit,
        source,
        destination,
    }));
    payload[..N].copy_from_slice(&start);
    let pseudo = checksum::pseudo_header(source.into(), destination.into(), protocol, payload_len);
    let sum = !checksum::fold(pseudo + checksum::sum_of(payload));
    payload[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}
