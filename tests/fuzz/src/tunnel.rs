//! Tunnels: what goes in comes out, in whatever versions and however deep; and what comes in as one is survived.

use crate::input::Input;
use crate::soundness::fault_of_header;
use dpr_model::{Encapsulation, HopBudget};
use dpr_rewrite::{FlowHash, Frame, Network, Outer, Parsed, Tunnel, Version, decapsulate, parse, parse_ip};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHERNET_LEN: usize = 14;
/// Levels of tunnels in tunnels.
const DEPTH_MAX: u8 = 3;

/// Wraps a packet of any bytes as often and as the first bytes say, then reads it back level by level; and removes the
/// outer header of whatever the bytes themselves are taken for.
///
/// Bytes: levels (1), kind of each level (1 each), traffic class of an outer header (1), then the packet.
///
/// # Panics
/// When the rule is broken.
pub fn tunnel(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let depth = input.u8() % (DEPTH_MAX + 1);
    let levels: Vec<Level> = (0..depth).map(|_| Level::of(input.u8())).collect();
    let traffic_class = input.u8();
    let packet = input.rest();
    if let Some(outer) = arrives(packet) {
        is_removed(&framed(packet), &outer);
    }
    let (Ok(header), Ok(_)) = (Network::parse_quoted(packet), parse_ip(packet, 0)) else { return };
    let mut wrapped = vec![packet[..header.total_len()].to_vec()];
    for level in &levels {
        let inside = wrapped.last().expect("there is the packet itself");
        let Some(outside) = level.wrap(inside) else { break };
        wrapped.push(outside);
    }
    for (depth, pair) in wrapped.windows(2).enumerate() {
        comes_out(&levels[depth], &pair[0], &pair[1], traffic_class);
    }
}

/// How a packet is wrapped.
struct Level {
    tunnel: Tunnel,
    hops: HopBudget,
}

impl Level {
    fn of(byte: u8) -> Self {
        let encapsulation = if byte & 1 == 0 { Encapsulation::Ipip } else { Encapsulation::Gue };
        let (source, destination) = if byte & 2 == 0 {
            (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11)))
        } else {
            let end = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
            (end(0x10), end(0x11))
        };
        let hops = HopBudget::from_wire(byte >> 2 & 3);
        Self { tunnel: Tunnel { encapsulation, source, destination }, hops }
    }

    fn wrap(&self, inside: &[u8]) -> Option<Vec<u8>> {
        let overhead = self.tunnel.overhead();
        let flow = FlowHash::of(&parse_ip(inside, 0).ok()?.packet, 7);
        let mut buffer = vec![0; overhead];
        buffer.extend(inside);
        let start = self.tunnel.encapsulate(&mut buffer, overhead, self.hops, flow).ok()?;
        assert_eq!(start, 0, "the overhead is what was announced");
        Some(buffer)
    }
}

fn framed(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; ETHERNET_LEN - 2];
    frame.extend(if packet.first().is_some_and(|first| first >> 4 == 6) {
        [0x86, 0xdd]
    } else {
        [0x08, 0x00]
    });
    frame.extend(packet);
    frame
}

fn arrives(packet: &[u8]) -> Option<Frame> {
    match parse(&framed(packet)) {
        Ok(Parsed::Ip(frame)) if frame.outer.is_some() => Some(frame),
        _ => None,
    }
}

/// `outside` is `inside` wrapped as `level` says: it is taken for that, and `inside` comes out of it bit by bit.
fn comes_out(level: &Level, inside: &[u8], outside: &[u8], traffic_class: u8) {
    assert_eq!(fault_of_header(outside), None, "{outside:02x?}");
    let frame = arrives(outside).unwrap_or_else(|| panic!("this is not taken for a tunnel: {outside:02x?}"));
    let outer = frame.outer.expect("it arrived");
    let Tunnel { encapsulation, source, destination } = level.tunnel;
    assert_eq!((outer.encapsulation, outer.source, outer.destination), (encapsulation, source, destination));
    assert_eq!(outer.hops, level.hops, "hops are neither gained nor lost");
    let mut bytes = framed(outside);
    let at = decapsulate(&mut bytes, &frame).expect("the outer header has the inner one's traffic class");
    assert_eq!(&bytes[at..], inside, "what went in comes out");
    let marked = Outer { traffic_class, ..outer };
    is_removed(&framed(outside), &Frame { outer: Some(marked), ..frame });
}

/// An outer header goes, and leaves nothing but its congestion mark (RFC 6040, section 4.2).
fn is_removed(frame: &[u8], parsed: &Frame) {
    const NOT_CAPABLE: u8 = 0;
    const CONGESTED: u8 = 3;
    let packet = &parsed.packet;
    let outer = parsed.outer.expect("there is an outer header");
    let (inner_ecn, outer_ecn) = (packet.ip.traffic_class() & 3, outer.traffic_class & 3);
    let mut bytes = frame.to_vec();
    let Ok(at) = decapsulate(&mut bytes, parsed) else {
        assert_eq!((inner_ecn, outer_ecn), (NOT_CAPABLE, CONGESTED), "{frame:02x?}");
        return;
    };
    assert_eq!(at, packet.at);
    let left = &bytes[at..packet.end()];
    assert_eq!(fault_of_header(left), None, "{left:02x?}");
    let ecn = match left[0] >> 4 {
        4 => left[1] & 3,
        _ => left[1] >> 4 & 3,
    };
    let is_marked = ecn == CONGESTED;
    assert_eq!(is_marked, inner_ecn == CONGESTED || outer_ecn == CONGESTED && inner_ecn != NOT_CAPABLE);
    let header_len = if packet.ip.version() == Version::V4 { 12 } else { 2 };
    assert_eq!(left[header_len..], frame[at + header_len..packet.end()], "only the header's mark changes");
}
