//! Into a tunnel, out of it, and whose tunnel it is.

use crate::packets::{
    Carrying, IP_AT, Sent, addresses_of, assert_checksums, assert_sound, fix_ipv4_checksum, parsed, sent,
    version,
};
use core::net::{IpAddr, SocketAddr};
use dpr_model::{DropReason, HopBudget};
use dpr_rewrite::tunnel::OVERHEAD_MAX;
use dpr_rewrite::{
    ChecksumState, Encapsulation, FlowHash, Kind, Packet, Tunnel, Version, deliver, gue, parse_ip, too_big,
};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn tunnel(encapsulation: Encapsulation, outer: Version) -> Tunnel {
    let [source, destination] = match outer {
        Version::V4 => ["192.0.2.11", "192.0.2.12"],
        Version::V6 => ["2001:db8::11", "2001:db8::12"],
    };
    Tunnel { encapsulation, source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn encapsulation() -> impl Strategy<Value = Encapsulation> {
    prop_oneof![Just(Encapsulation::Ipip), Just(Encapsulation::Gue)]
}

fn hash_of(packet: &[u8]) -> FlowHash {
    FlowHash::of(&parse_ip(packet, 0).unwrap().packet, 7)
}

/// `packet` behind the headers of `tunnel`.
fn through(tunnel: &Tunnel, packet: &[u8], hops: HopBudget) -> Vec<u8> {
    let mut buffer = vec![0xaa; OVERHEAD_MAX];
    buffer.extend_from_slice(packet);
    let start = tunnel.encapsulate(&mut buffer, OVERHEAD_MAX, hops, hash_of(packet)).unwrap();
    assert_eq!(OVERHEAD_MAX - start, tunnel.overhead());
    buffer.split_off(start)
}

fn segment_from(port: u16) -> Sent {
    let source = SocketAddr::new("198.51.100.7".parse().unwrap(), port);
    Sent { source, destination: "192.0.2.11:80".parse().unwrap(), carrying: Carrying::Data, data: vec![1; 9] }
}

/// What the outer headers say to those who do not know of us.
fn assert_outer_sound(bytes: &[u8], tunnel: &Tunnel, inner: &[u8]) {
    let sliced = SlicedPacket::from_ip(bytes).unwrap();
    assert_eq!(addresses_of(&sliced), (tunnel.source, tunnel.destination));
    let expected = match (tunnel.encapsulation, inner[0] >> 4) {
        (Encapsulation::Gue, _) => 17,
        (Encapsulation::Ipip, 4) => 4,
        (Encapsulation::Ipip, _) => 41,
    };
    let (number, traffic_class) = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert!(header.dont_fragment && !header.is_fragmenting_payload());
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            (header.protocol, u8::from(header.dscp) << 2 | u8::from(header.ecn))
        }
        NetSlice::Ipv6(ip) => (ip.header().next_header(), ip.header().traffic_class()),
        other => panic!("{other:?}"),
    };
    assert_eq!(u8::from(number), expected);
    assert_eq!(traffic_class, parse_ip(inner, 0).unwrap().packet.ip.traffic_class());
    if tunnel.encapsulation == Encapsulation::Gue {
        assert_gue_sound(bytes, &sliced, inner);
    } else {
        assert_eq!(&bytes[tunnel.overhead()..], inner);
    }
}

fn assert_gue_sound(bytes: &[u8], sliced: &SlicedPacket<'_>, inner: &[u8]) {
    let Some(TransportSlice::Udp(udp)) = &sliced.transport else { panic!("no UDP") };
    assert_eq!(udp.destination_port(), 6080);
    assert!(udp.source_port() >= 49152);
    let number = if inner[0] >> 4 == 4 { 4 } else { 41 };
    assert_eq!(udp.payload()[..4], [1, number, 0, 0]);
    assert_eq!(&udp.payload()[8..], inner);
    match sliced.net {
        Some(NetSlice::Ipv4(_)) => assert_eq!(udp.checksum(), 0),
        _ => assert_checksums(bytes),
    }
}

proptest! {
    #[test]
    fn forward_deliver_and_back_brings_back_every_byte(
        sent in sent(),
        outer in version(),
        encapsulation in encapsulation(),
        hops in 0u8..2,
        traffic_class in any::<u8>(),
    ) {
        let (tunnel, hops) = (tunnel(encapsulation, outer), HopBudget::from_wire(hops));
        let mut packet = sent.packet();
        if sent.source.is_ipv4() {
            packet[1] = traffic_class;
            fix_ipv4_checksum(&mut packet);
        } else {
            packet[..2].copy_from_slice(&(0x6000 | u16::from(traffic_class) << 4).to_be_bytes());
        }

        let mut bytes = through(&tunnel, &packet, hops);
        assert_outer_sound(&bytes, &tunnel, &packet);

        let arrived = parse_ip(&bytes, 0).unwrap();
        let seen = arrived.outer.unwrap();
        prop_assert_eq!((seen.encapsulation, seen.hops), (encapsulation, hops));
        prop_assert_eq!((seen.source, seen.destination), (tunnel.source, tunnel.destination));
        prop_assert_eq!(usize::from(seen.len), tunnel.overhead());
        prop_assert_eq!(arrived.packet.at, tunnel.overhead());

        let delivery: IpAddr = match sent.source {
            SocketAddr::V4(_) => "169.254.64.1".parse().unwrap(),
            SocketAddr::V6(_) => "fd00:40::1".parse().unwrap(),
        };
        let at = deliver(&mut bytes, &arrived, delivery, ChecksumState::Complete).unwrap();
        let delivered_to = SocketAddr::new(delivery, sent.destination.port());
        assert_sound(&bytes[at..], sent.source, delivered_to, &sent.data);

        let back = parse_ip(&bytes, at).unwrap();
        deliver(&mut bytes, &back, sent.destination.ip(), ChecksumState::Complete).unwrap();
        prop_assert_eq!(&bytes[at..], &packet[..]);
    }
}

#[test]
fn congestion_that_any_tunnel_saw_is_told() {
    for encapsulation in [Encapsulation::Ipip, Encapsulation::Gue] {
        for outer in [Version::V4, Version::V6] {
            let tunnel = tunnel(encapsulation, outer);
            let mut packet = segment_from(1).packet();
            packet[1] = 0b10;
            fix_ipv4_checksum(&mut packet);
            let mut bytes = through(&tunnel, &packet, HopBudget::SPENT);
            if outer == Version::V4 {
                bytes[1] |= 0b11;
                fix_ipv4_checksum(&mut bytes);
            } else {
                bytes[1] |= 0b11 << 4;
            }
            let arrived = parse_ip(&bytes, 0).unwrap();
            let at = dpr_rewrite::decapsulate(&mut bytes, &arrived).unwrap();
            assert_eq!(bytes[at + 1], 0b11);
            assert_checksums(&bytes[at..]);
        }
    }
}

#[test]
fn flows_spread_and_a_flow_stays_on_its_path() {
    let spread = |encapsulation, outer, path: fn(&[u8]) -> u32| {
        let tunnel = tunnel(encapsulation, outer);
        let paths = (0..256).map(|port| {
            let packet = segment_from(port).packet();
            path(&through(&tunnel, &packet, HopBudget::SPENT))
        });
        paths.collect::<BTreeSet<_>>().len()
    };
    assert!(spread(Encapsulation::Gue, Version::V4, |bytes| source_port_at(20, bytes)) > 240);
    assert!(spread(Encapsulation::Gue, Version::V6, |bytes| source_port_at(40, bytes)) > 240);
    assert!(spread(Encapsulation::Gue, Version::V6, label_of) > 240);
    // Twelve bits of hash: a few of 256 flows share one.
    assert!(spread(Encapsulation::Ipip, Version::V6, label_of) > 230);
}

fn source_port_at(at: usize, bytes: &[u8]) -> u32 {
    u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn label_of(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([0, bytes[1] & 0xf, bytes[2], bytes[3]])
}

#[test]
fn an_error_has_the_hash_of_the_flow_that_it_belongs_to() {
    let forward = segment_from(40000);
    let backward = forward.between(forward.destination, forward.source).packet();
    let mut error = [0; too_big::ANSWER_LEN_MAX];
    let router = "203.0.113.1".parse().unwrap();
    let len = too_big::answer(&backward, 1400, router, &mut error).unwrap();
    assert_eq!(hash_of(&error[..len]), hash_of(&forward.packet()));
    assert_ne!(hash_of(&backward), hash_of(&forward.packet()));
    let packet: Packet = parse_ip(&forward.packet(), 0).unwrap().packet;
    assert_ne!(FlowHash::of(&packet, 7), FlowHash::of(&packet, 8));
}

#[test]
fn a_gue_checksum_over_ipv6_is_never_the_zero_that_means_none() {
    let tunnel = tunnel(Encapsulation::Gue, Version::V6);
    let mut packet = segment_from(1).packet();
    let last = packet.len() - 3;
    let mut wrapped = 0;
    // One of all values of a word makes the sum zero, as nothing compensates it.
    for word in 0..=u16::MAX {
        packet[last..last + 2].copy_from_slice(&word.to_be_bytes());
        let bytes = through(&tunnel, &packet, HopBudget::SPENT);
        assert_ne!(bytes[46..48], [0, 0]);
        wrapped += usize::from(bytes[46..48] == [0xff, 0xff]);
    }
    assert!((1..=2).contains(&wrapped), "{wrapped}");
}

#[test]
fn somebody_elses_tunnels_are_packets_like_others() {
    let packet = segment_from(1).packet();
    let kind_of = |bytes: &[u8]| {
        let frame = parse_ip(bytes, 0).unwrap();
        assert_eq!(frame.outer, None);
        frame.packet.kind
    };
    let spoilt = |encapsulation, outer, at: usize, value: u8| {
        let mut bytes = through(&tunnel(encapsulation, outer), &packet, HopBudget::SPENT);
        bytes[at] = value;
        if outer == Version::V4 {
            fix_ipv4_checksum(&mut bytes);
        }
        kind_of(&bytes)
    };
    // Another identification; may be fragmented; another flow label.
    assert_eq!(spoilt(Encapsulation::Ipip, Version::V4, 4, 0), Kind::Other);
    assert_eq!(spoilt(Encapsulation::Ipip, Version::V4, 6, 0), Kind::Other);
    assert_eq!(spoilt(Encapsulation::Ipip, Version::V6, 1, 0), Kind::Other);
    // Another port; variant 1; flags; no private data of ours.
    for (at, value) in [(22, 0), (28, 0x45), (30, 0x80), (32, 0)] {
        assert!(matches!(spoilt(Encapsulation::Gue, Version::V4, at, value), Kind::Udp(_)), "byte {at}");
    }
}

#[test]
fn a_tunnel_with_something_else_in_it_than_it_says_is_malformed() {
    for (encapsulation, outer, at) in [
        (Encapsulation::Ipip, Version::V4, 9),
        (Encapsulation::Ipip, Version::V6, 6),
        (Encapsulation::Gue, Version::V6, 40 + 8 + 1),
    ] {
        let packet = segment_from(1).packet();
        let mut bytes = through(&tunnel(encapsulation, outer), &packet, HopBudget::SPENT);
        bytes[at] = 41;
        if outer == Version::V4 {
            fix_ipv4_checksum(&mut bytes);
        }
        assert_eq!(parse_ip(&bytes, 0), Err(DropReason::Malformed));
    }
}

#[test]
fn what_cannot_be_wrapped_has_its_reason() {
    let packet = segment_from(1).packet();
    let hash = hash_of(&packet);
    let mixed = Tunnel { source: "::1".parse().unwrap(), ..tunnel(Encapsulation::Ipip, Version::V4) };
    let wrap =
        |tunnel: &Tunnel, buffer: &mut [u8], at| tunnel.encapsulate(buffer, at, HopBudget::SPENT, hash);

    let mut buffer = [vec![0; OVERHEAD_MAX], packet.clone()].concat();
    assert_eq!(wrap(&mixed, &mut buffer, OVERHEAD_MAX), Err(DropReason::VersionMismatch));
    let gue = tunnel(Encapsulation::Gue, Version::V6);
    assert_eq!(wrap(&gue, &mut buffer[1..], OVERHEAD_MAX - 1), Err(DropReason::Truncated));
    let cut = buffer.len() - 1;
    assert_eq!(wrap(&gue, &mut buffer[..cut], OVERHEAD_MAX), Err(DropReason::Truncated));

    let long = Sent { data: vec![0; 65_535 - 40], ..segment_from(1) }.packet();
    for (encapsulation, outer) in [(Encapsulation::Ipip, Version::V4), (Encapsulation::Gue, Version::V6)] {
        let mut buffer = [vec![0; OVERHEAD_MAX], long.clone()].concat();
        let refused = wrap(&tunnel(encapsulation, outer), &mut buffer, OVERHEAD_MAX);
        assert_eq!(refused, Err(DropReason::TooBig));
    }
}

#[test]
fn the_bytes_of_a_gue_header_are_those_of_the_draft() {
    let packet = segment_from(1).packet();
    let once = HopBudget::FRESH.after_a_hop().unwrap();
    let bytes = through(&tunnel(Encapsulation::Gue, Version::V4), &packet, once);
    assert_eq!(bytes[22..24], gue::PORT.to_be_bytes());
    assert_eq!(bytes[26..36], [0, 0, 1, 4, 0, 0, 0xd9, 0x41, 0, 0]);
    let ipv6 = through(&tunnel(Encapsulation::Ipip, Version::V6), &packet, once);
    assert_eq!([ipv6[0], ipv6[1], ipv6[2] & 0xf0], [0x60, 0x0d, 0x90]);
    assert_eq!(parsed(&segment_from(1).frame()).packet.at, IP_AT);
}
