//! What a node writes itself: "too big" errors and echo replies, read by smoltcp.

use crate::packets::{Carrying, IP_AT, Sent, assert_checksums, with_extension_headers};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use dpr_model::DropReason;
use dpr_rewrite::{Kind, Network, echo, parse_ip, too_big};
use etherparse::PacketBuilder;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
};

const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);
const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);

fn segment(source: IpAddr, destination: IpAddr, data_len: usize) -> Vec<u8> {
    let sent = Sent {
        source: SocketAddr::new(source, 40000),
        destination: SocketAddr::new(destination, 80),
        carrying: Carrying::Data,
        data: vec![7; data_len],
    };
    sent.packet()
}

fn answer(original: &[u8], mtu: u16, source: IpAddr) -> Result<Vec<u8>, DropReason> {
    let mut out = vec![0; too_big::ANSWER_LEN_MAX];
    let len = too_big::answer(original, mtu, source, &mut out)?;
    out.truncate(len);
    Ok(out)
}

#[test]
fn fragmentation_needed_says_the_mtu_and_quotes_what_fits_576_bytes() {
    for (data_len, expected_len) in [(10, 28 + 50), (1400, 576)] {
        let original = segment(CLIENT_V4.into(), SERVICE_V4.into(), data_len);
        let error = answer(&original, 1480, SERVICE_V4.into()).unwrap();

        assert_eq!(error.len(), expected_len);
        assert_checksums(&error);
        let ip = Ipv4Packet::new_checked(&error).unwrap();
        let repr = Ipv4Repr::parse(&ip, &ChecksumCapabilities::default()).unwrap();
        assert_eq!((repr.src_addr, repr.dst_addr), (SERVICE_V4, CLIENT_V4));
        let message = ip.payload();
        assert_eq!(message[..2], [3, 4]);
        assert_eq!(message[4..8], [0, 0, 0x05, 0xc8]);
        assert_eq!(message[8..], original[..expected_len - 28]);
    }
}

#[test]
fn packet_too_big_says_the_mtu_and_quotes_what_fits_1280_bytes() {
    for (data_len, expected_len) in [(10, 48 + 70), (1400, 1280)] {
        let original = segment(CLIENT_V6.into(), SERVICE_V6.into(), data_len);
        let error = answer(&original, 1460, SERVICE_V6.into()).unwrap();

        assert_eq!(error.len(), expected_len);
        assert_checksums(&error);
        let ip = Ipv6Packet::new_checked(&error).unwrap();
        let repr = Ipv6Repr::parse(&ip).unwrap();
        assert_eq!((repr.src_addr, repr.dst_addr), (SERVICE_V6, CLIENT_V6));
        let message = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        let caps = ChecksumCapabilities::default();
        let parsed = Icmpv6Repr::parse(&repr.src_addr, &repr.dst_addr, &message, &caps).unwrap();
        let Icmpv6Repr::PktTooBig { mtu, header, data } = parsed else { panic!("{parsed:?}") };
        assert_eq!((mtu, header.src_addr, header.dst_addr), (1460, CLIENT_V6, SERVICE_V6));
        assert_eq!(*data, original[40..expected_len - 48]);
    }
}

#[test]
fn no_answer_is_written_that_nobody_would_heed() {
    let ipv4 = segment(CLIENT_V4.into(), SERVICE_V4.into(), 1400);
    let ipv6 = segment(CLIENT_V6.into(), SERVICE_V6.into(), 1400);
    assert_eq!(answer(&ipv6, 1279, SERVICE_V6.into()), Err(DropReason::TooBig));
    assert_eq!(answer(&ipv6, 1400, SERVICE_V4.into()), Err(DropReason::VersionMismatch));
    assert_eq!(answer(&ipv4, 1400, SERVICE_V6.into()), Err(DropReason::VersionMismatch));
    assert_eq!(answer(&[], 1400, SERVICE_V6.into()), Err(DropReason::Truncated));
    for (original, source) in [(ipv4, IpAddr::V4(SERVICE_V4)), (ipv6, IpAddr::V6(SERVICE_V6))] {
        let refused = too_big::answer(&original, 1400, source, &mut [0; 575]);
        assert_eq!(refused, Err(DropReason::Truncated));
    }
}

/// An echo request, written by etherparse.
fn request(version_4: bool, data: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let mut frame = Vec::new();
    if version_4 {
        let ip = ethernet.ipv4(CLIENT_V4.octets(), SERVICE_V4.octets(), 3);
        ip.icmpv4_echo_request(77, 5).write(&mut frame, data).unwrap();
    } else {
        let ip = ethernet.ipv6(CLIENT_V6.octets(), SERVICE_V6.octets(), 3);
        ip.icmpv6_echo_request(77, 5).write(&mut frame, data).unwrap();
    }
    frame
}

fn reply_to(packet: &[u8]) -> Vec<u8> {
    let facts = parse_ip(packet, 0).unwrap().packet;
    assert_eq!(facts.kind, Kind::EchoRequest);
    let mut out = vec![0; packet.len()];
    let len = echo::reply(packet, &facts, &mut out).unwrap();
    out.truncate(len);
    out
}

proptest! {
    #[test]
    fn an_echo_request_is_answered_with_what_it_brought(
        data in proptest::collection::vec(any::<u8>(), 0..1400),
        extended in any::<bool>(),
    ) {
        let caps = ChecksumCapabilities::default();
        let reply = reply_to(&request(true, &data)[IP_AT..]);
        let ip = Ipv4Packet::new_checked(&reply).unwrap();
        let repr = Ipv4Repr::parse(&ip, &caps).unwrap();
        prop_assert_eq!((repr.src_addr, repr.dst_addr, repr.hop_limit), (SERVICE_V4, CLIENT_V4, 64));
        let message = Icmpv4Packet::new_checked(ip.payload()).unwrap();
        let expected = Icmpv4Repr::EchoReply { ident: 77, seq_no: 5, data: &data };
        prop_assert_eq!(Icmpv4Repr::parse(&message, &caps).unwrap(), expected);

        let frame = request(false, &data);
        let frame = if extended { with_extension_headers(frame) } else { frame };
        let reply = reply_to(&frame[IP_AT..]);
        let ip = Ipv6Packet::new_checked(&reply).unwrap();
        let repr = Ipv6Repr::parse(&ip).unwrap();
        prop_assert_eq!((repr.src_addr, repr.dst_addr, repr.hop_limit), (SERVICE_V6, CLIENT_V6, 64));
        let message = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        let expected = Icmpv6Repr::EchoReply { ident: 77, seq_no: 5, data: &data };
        prop_assert_eq!(Icmpv6Repr::parse(&SERVICE_V6, &CLIENT_V6, &message, &caps).unwrap(), expected);
    }
}

#[test]
fn a_damaged_echo_request_does_not_get_a_sound_answer() {
    for version_4 in [true, false] {
        let mut frame = request(version_4, b"data");
        *frame.last_mut().unwrap() ^= 1;
        let reply = reply_to(&frame[IP_AT..]);
        let facts = parse_ip(&reply, 0).unwrap().packet;
        let message = &reply[facts.transport_at()..];
        let pseudo = match facts.ip {
            Network::V4(_) => 0,
            Network::V6(_) => facts.ip.pseudo_header(u16::try_from(message.len()).unwrap()),
        };
        let sum = dpr_rewrite::checksum::fold(pseudo + dpr_rewrite::checksum::sum_of(message));
        assert_ne!(sum, 0xffff);
    }
}

#[test]
fn only_echo_requests_are_answered() {
    let packet = segment(CLIENT_V4.into(), SERVICE_V4.into(), 0);
    let facts = parse_ip(&packet, 0).unwrap().packet;
    assert_eq!(echo::reply(&packet, &facts, &mut [0; 100]), Err(DropReason::Malformed));

    let frame = request(true, b"data");
    let facts = parse_ip(&frame, IP_AT).unwrap().packet;
    assert_eq!(echo::reply(&frame, &facts, &mut [0; 31]), Err(DropReason::Truncated));
}
