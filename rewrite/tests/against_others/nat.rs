//! Network address translation, there and back.

use crate::packets::{
    Carrying, IP_AT, Sent, assert_checksums, assert_sound, parsed, sent, sent_over, socket,
};
use core::net::SocketAddr;
use dpr_model::DropReason;
use dpr_rewrite::fragment::Fragments;
use dpr_rewrite::{ChecksumState, End, Kind, Translation, Version, checksum, parse_ip, too_big, translate};
use proptest::prelude::*;

fn end(socket: SocketAddr) -> Option<End> {
    Some(End { address: socket.ip(), port: Some(socket.port()) })
}

fn both(source: SocketAddr, destination: SocketAddr) -> Translation {
    Translation { source: end(source), destination: end(destination) }
}

fn translated(packet: &[u8], to: &Translation) -> Result<Vec<u8>, DropReason> {
    let mut packet = packet.to_vec();
    let facts = parse_ip(&packet, 0).unwrap().packet;
    translate(&mut packet, &facts, to, ChecksumState::Complete).map(|()| packet)
}

fn service(version: Version) -> SocketAddr {
    match version {
        Version::V4 => "192.0.2.11:443".parse().unwrap(),
        Version::V6 => "[2001:db8::11]:443".parse().unwrap(),
    }
}

/// A packet from anywhere, and two sockets to translate it to.
fn translations() -> impl Strategy<Value = (Sent, SocketAddr, SocketAddr)> {
    prop_oneof![Just(Version::V4), Just(Version::V6)]
        .prop_flat_map(|version| (sent_over(version), socket(version), socket(version)))
        .prop_filter("a tunnel's port", |(_, _, to)| to.port() != dpr_rewrite::gue::PORT)
}

/// An error from `router` about `packet`, with `transport_len` bytes of its transport.
fn error_about(packet: &[u8], router: SocketAddr, transport_len: usize) -> Vec<u8> {
    let quoted = parse_ip(packet, 0).unwrap().packet.transport_at() + transport_len;
    let mut error = vec![0; too_big::ANSWER_LEN_MAX];
    let quoted = &packet[..quoted.min(packet.len())];
    let len = too_big::answer(quoted, 1400, router.ip(), &mut error).unwrap();
    error.truncate(len);
    error
}

proptest! {
    #[test]
    fn full_nat_and_back_is_the_identity((sent, nat, server) in translations()) {
        let packet = sent.packet();
        let there = translated(&packet, &both(nat, server)).unwrap();
        assert_sound(&there, nat, server, &sent.data);

        // The real server's answer goes the other way.
        let answer = sent.between(server, nat);
        let back = translated(&answer.packet(), &both(sent.destination, sent.source)).unwrap();
        assert_sound(&back, sent.destination, sent.source, &sent.data);

        prop_assert_eq!(translated(&there, &both(sent.source, sent.destination)).unwrap(), packet);
    }

    #[test]
    fn half_nat_changes_one_end_and_nothing_else((sent, _, server) in translations(), address_only in any::<bool>()) {
        let packet = sent.packet();
        let mut to = server;
        if address_only {
            to.set_port(sent.destination.port());
        }
        let destination = end(to).map(|end| if address_only { End { port: None, ..end } } else { end });
        let there = translated(&packet, &Translation { source: None, destination }).unwrap();
        assert_sound(&there, sent.source, to, &sent.data);
        let back = Translation { source: None, destination: end(sent.destination) };
        prop_assert_eq!(&translated(&there, &back).unwrap(), &packet);

        let source = Translation { source: destination, destination: None };
        let answer = translated(&sent.between(sent.destination, sent.source).packet(), &source).unwrap();
        let answered_from = if address_only { SocketAddr::new(to.ip(), sent.destination.port()) } else { to };
        assert_sound(&answer, answered_from, sent.source, &sent.data);
    }

    #[test]
    fn only_ends_and_checksums_change((sent, nat, server) in translations()) {
        let packet = sent.packet();
        let there = translated(&packet, &both(nat, server)).unwrap();
        let facts = parse_ip(&packet, 0).unwrap().packet;
        let transport = facts.transport_at();
        let sum = transport + if sent.carrying == Carrying::Datagram { 6 } else { 16 };
        let addresses = if sent.source.is_ipv4() { 10..20 } else { 8..40 };
        for at in (0..packet.len()).filter(|&at| packet[at] != there[at]) {
            let intended = addresses.contains(&at)
                || (transport..transport + 4).contains(&at)
                || (sum..sum + 2).contains(&at);
            prop_assert!(intended, "byte {} changed", at);
        }
    }

    #[test]
    fn an_error_quotes_what_its_receiver_had_sent(
        (sent, nat, server) in translations(),
        router in any::<u64>(),
        quoted_len in 8usize..1500,
    ) {
        // The packet that arrived behind the translation met a router; its sender has to hear of it.
        let packet = sent.packet();
        let there = translated(&packet, &both(nat, server)).unwrap();
        let router = match sent.source {
            SocketAddr::V4(_) => SocketAddr::new((router as u32).to_be_bytes().into(), 0),
            SocketAddr::V6(_) => SocketAddr::new(u128::from(router).to_be_bytes().into(), 0),
        };
        let error = error_about(&there, router, quoted_len);
        let told = translated(&error, &both(sent.destination, sent.source)).unwrap();

        assert_checksums(&told);
        let facts = parse_ip(&told, 0).unwrap().packet;
        let Kind::IcmpError(quote) = facts.kind else { panic!("{facts:?}") };
        prop_assert_eq!(facts.ip.source(), sent.destination.ip());
        prop_assert_eq!(facts.ip.destination(), sent.source.ip());
        let quoted = &told[quote.at()..];
        // A checksum that is only half quoted cannot be edited.
        let sum_at = quote.transport_at() - quote.at() + if sent.carrying == Carrying::Datagram { 6 } else { 16 };
        let comparable = if quoted.len() >= sum_at + 2 { quoted.len() } else { quoted.len().min(sum_at) };
        prop_assert_eq!(&quoted[..comparable], &packet[..comparable]);

        // And back: the same error again, but for the address of the router.
        let again = translated(&told, &both(server, nat)).unwrap();
        let facts = parse_ip(&again, 0).unwrap().packet;
        prop_assert_eq!(facts.ip.destination(), nat.ip());
        let Kind::IcmpError(quote) = facts.kind else { panic!("{facts:?}") };
        prop_assert_eq!(&again[quote.at()..quote.at() + comparable], &there[..comparable]);
    }

    #[test]
    fn a_fragmented_packet_is_translated_fragment_by_fragment(
        data in proptest::collection::vec(any::<u8>(), 600..2000),
        mtu in 68u16..600,
        datagram in any::<bool>(),
    ) {
        let carrying = if datagram { Carrying::Datagram } else { Carrying::Data };
        let client = "198.51.100.7:40000".parse().unwrap();
        let server: SocketAddr = "10.0.0.5:443".parse().unwrap();
        let sent = Sent { source: client, destination: service(Version::V4), carrying, data };
        let to = Translation { source: None, destination: Some(End { address: server.ip(), port: None }) };
        let mut packet = sent.packet();
        packet[6] = 0; // May be fragmented.
        crate::packets::fix_ipv4_checksum(&mut packet);
        let whole = translated(&packet, &to).unwrap();

        let expected = crate::cutting::fragments_of(&whole, mtu);
        let fragments = crate::cutting::fragments_of(&packet, mtu);
        prop_assert!(fragments.len() > 1);
        for (fragment, expected) in fragments.iter().zip(&expected) {
            prop_assert_eq!(&translated(fragment, &to).unwrap(), expected);
            prop_assert_eq!(translated(fragment, &both(client, server)), Err(DropReason::Fragment));
        }
    }

    #[test]
    fn partial_checksums_are_completed_to_the_same_bytes((sent, nat, server) in translations()) {
        let expected = translated(&sent.packet(), &both(nat, server)).unwrap();
        let mut frame = sent.frame();
        let facts = parsed(&frame).packet;
        let at = facts.transport_at();
        let (protocol, offset) = if sent.carrying == Carrying::Datagram { (17, 6) } else { (6, 16) };
        let len = u16::try_from(frame.len() - at).unwrap();
        let (source, destination) = (sent.source.ip(), sent.destination.ip());
        let pseudo = checksum::fold(checksum::pseudo_header(source, destination, protocol, len));
        frame[at + offset..at + offset + 2].copy_from_slice(&pseudo.to_be_bytes());

        translate(&mut frame, &facts, &both(nat, server), ChecksumState::Partial).unwrap();

        // What the device does: the sum of everything, with the partial one in place.
        let sum = !checksum::fold(checksum::sum_of(&frame[at..]));
        let sum = if protocol == 17 && sum == 0 { 0xffff } else { sum };
        frame[at + offset..at + offset + 2].copy_from_slice(&sum.to_be_bytes());
        prop_assert_eq!(&frame[IP_AT..], &expected[..]);
    }

    #[test]
    fn a_packet_keeps_its_version(sent in sent()) {
        let other = service(if sent.source.is_ipv4() { Version::V6 } else { Version::V4 });
        let refused = translated(&sent.packet(), &both(other, other));
        prop_assert_eq!(refused, Err(DropReason::VersionMismatch));
    }
}

#[test]
fn a_udp_checksum_never_becomes_the_zero_that_means_none() {
    for version in [Version::V4, Version::V6] {
        let client = match version {
            Version::V4 => "198.51.100.7:1".parse().unwrap(),
            Version::V6 => "[2001:db8:7::7]:1".parse().unwrap(),
        };
        let sent = Sent {
            source: client,
            destination: service(version),
            carrying: Carrying::Datagram,
            data: vec![3; 11],
        };
        let packet = sent.packet();
        let mut wrapped = 0;
        for port in 0..=u16::MAX {
            let from = SocketAddr::new(client.ip(), port);
            let there = translated(&packet, &Translation { source: end(from), destination: None }).unwrap();
            assert_sound(&there, from, sent.destination, &sent.data);
            let at = parse_ip(&there, 0).unwrap().packet.transport_at() + 6;
            wrapped += usize::from(there[at..at + 2] == [0xff, 0xff]);
        }
        // One port makes the sum zero; of another, ones' complement has both zeros.
        assert!((1..=2).contains(&wrapped), "{wrapped}");
    }
}

#[test]
fn no_udp_checksum_stays_none_over_ipv4_and_is_refused_over_ipv6() {
    for version in [Version::V4, Version::V6] {
        let to = service(version);
        let sent = Sent { source: to, destination: to, carrying: Carrying::Datagram, data: vec![1; 4] };
        let mut packet = sent.packet();
        let at = parse_ip(&packet, 0).unwrap().packet.transport_at();
        packet[at + 6..at + 8].copy_from_slice(&[0, 0]);
        let there = translated(&packet, &both(SocketAddr::new(to.ip(), 9), to));
        match version {
            Version::V4 => assert_eq!(there.unwrap()[at..at + 8], [0, 9, 1, 187, 0, 12, 0, 0]),
            Version::V6 => assert_eq!(there, Err(DropReason::Malformed)),
        }
    }
}

#[test]
fn a_first_fragment_without_its_checksum_is_refused() {
    let to = service(Version::V4);
    let sent = Sent { source: to, destination: to, carrying: Carrying::Data, data: vec![1; 40] };
    let mut packet = sent.packet();
    packet[6] = 0;
    crate::packets::fix_ipv4_checksum(&mut packet);
    let facts = parse_ip(&packet, 0).unwrap().packet;
    let mut fragments = Fragments::new(&packet, &facts, 28).unwrap();
    let mut out = [0; 28];
    let len = fragments.next_into(&mut out).unwrap().unwrap();
    let destination = Some(End { address: to.ip(), port: None });
    let refused = translated(&out[..len], &Translation { source: None, destination });
    assert_eq!(refused, Err(DropReason::Fragment));
}

#[test]
fn ipv6_fragments_are_translated_like_the_packet_that_they_are_of() {
    let client = "[2001:db8:7::7]:1".parse().unwrap();
    let data = vec![9; 60];
    let to: SocketAddr = "[fd00::5]:443".parse().unwrap();
    let to = Translation { source: None, destination: Some(End { address: to.ip(), port: None }) };
    for carrying in [Carrying::Data, Carrying::Datagram] {
        let destination = service(Version::V6);
        let whole = Sent { source: client, destination, carrying, data: data.clone() }.packet();
        let there = translated(&whole, &to).unwrap();
        for (offset, more, until) in [(0, true, 32), (32, false, whole.len() - 40)] {
            let fragment = ipv6_fragment(&whole, offset, more, until);
            let expected = ipv6_fragment(&there, offset, more, until);
            assert!(matches!(parse_ip(&fragment, 0).unwrap().packet.kind, Kind::Fragment(_)));
            assert_eq!(translated(&fragment, &to), Ok(expected));
        }
    }
}

/// Bytes from `offset` to `until` of the transport of `packet`, behind a fragment header.
fn ipv6_fragment(packet: &[u8], offset: usize, more: bool, until: usize) -> Vec<u8> {
    let mut fragment = packet[..40].to_vec();
    let payload_len = u16::try_from(8 + until - offset).unwrap();
    fragment[4..6].copy_from_slice(&payload_len.to_be_bytes());
    fragment[6] = 44;
    let offset_and_more = u16::try_from(offset).unwrap() | u16::from(more);
    fragment.extend_from_slice(&[packet[6], 0]);
    fragment.extend_from_slice(&offset_and_more.to_be_bytes());
    fragment.extend_from_slice(&[0, 0, 0, 1]);
    fragment.extend_from_slice(&packet[40 + offset..40 + until]);
    fragment
}

#[test]
fn a_quotation_may_end_anywhere_behind_the_ports() {
    for version in [Version::V4, Version::V6] {
        for carrying in [Carrying::Data, Carrying::Datagram] {
            let (client, server, nat) = match version {
                Version::V4 => ("198.51.100.7:1", "10.0.0.5:8443", "10.0.0.1:5"),
                Version::V6 => ("[2001:db8:7::7]:1", "[fd00::5]:8443", "[fd00::1]:5"),
            };
            let [client, server, nat] = [client, server, nat].map(|text| text.parse().unwrap());
            let sent = Sent { source: client, destination: service(version), carrying, data: vec![9; 20] };
            let packet = sent.packet();
            let there = translated(&packet, &both(nat, server)).unwrap();
            for transport_len in 4..28 {
                let error = error_about(&there, server, transport_len);
                let told = translated(&error, &both(sent.destination, client)).unwrap();
                assert_checksums(&told);
                let Kind::IcmpError(quote) = parse_ip(&told, 0).unwrap().packet.kind else { panic!() };
                assert_eq!(
                    told[quote.at()..quote.transport_at() + 4],
                    packet[..quote.transport_at() - quote.at() + 4]
                );
            }
        }
    }
}

#[test]
fn what_has_no_ports_is_refused() {
    let mut packet = error_about(
        &Sent {
            source: service(Version::V4),
            destination: service(Version::V4),
            carrying: Carrying::Data,
            data: vec![],
        }
        .packet(),
        service(Version::V4),
        8,
    );
    packet[20] = 8; // An echo request.
    let refused = translated(&packet, &both(service(Version::V4), service(Version::V4)));
    assert_eq!(refused, Err(DropReason::Malformed));
}
