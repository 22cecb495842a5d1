//! Edits held against an independent implementation: etherparse writes the packets and reads the results.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::net::Ipv4Addr;
use dpr_model::{DropReason, HopBudget};
use dpr_rewrite::segment::Segments;
use dpr_rewrite::{
    ChecksumState, Frame, Kind, Parsed, deliver, edit, icmp, parse, parse_ipv4, reply, tunnel,
};
use etherparse::{Ipv4Slice, PacketBuilder, SlicedPacket, TcpHeaderSlice, TcpSlice};
use proptest::prelude::*;

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const DELIVERY: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 1);
const DIRECTOR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const REAL_SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
/// Room in front of a frame for the outer header.
const HEADROOM: usize = 20;

fn segment(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), syn: bool, data: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(from.0.octets(), to.0.octets(), 64)
        .tcp(from.1, to.1, 1_000_000, 4096);
    let builder = if syn {
        builder.syn().options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1460)]).unwrap()
    } else {
        builder.ack(77).psh()
    };
    let mut frame = Vec::new();
    builder.write(&mut frame, data).unwrap();
    frame
}

fn parsed(frame: &[u8]) -> Frame {
    match parse(frame) {
        Ok(Parsed::Ipv4(frame)) => frame,
        other => panic!("not an IPv4 frame: {other:?}"),
    }
}

/// The packet at `at` has right checksums, addresses as given, and `data`.
fn assert_sound(packet: &[u8], source: Ipv4Addr, destination: Ipv4Addr, data: &[u8]) {
    let ip = Ipv4Slice::from_slice(packet).unwrap();
    let header = ip.header().to_header();
    assert_eq!(header.calc_header_checksum(), header.header_checksum);
    assert_eq!(ip.header().source_addr(), source);
    assert_eq!(ip.header().destination_addr(), destination);
    let tcp = TcpSlice::from_slice(ip.payload().payload).unwrap();
    let expected = tcp.calc_checksum_ipv4(source.octets(), destination.octets()).unwrap();
    assert_eq!(tcp.checksum(), expected);
    assert_eq!(tcp.payload(), data);
}

#[test]
fn delivery_changes_the_destination_and_nothing_else() {
    let mut frame = segment((CLIENT, 40000), (SERVICE, 80), false, b"GET /");
    let before = frame.clone();
    let facts = parsed(&frame);

    let at = deliver(&mut frame, &facts, DELIVERY, ChecksumState::Complete).unwrap();

    assert_sound(&frame[at..], CLIENT, DELIVERY, b"GET /");
    let changed: Vec<usize> = (0..frame.len()).filter(|&i| frame[i] != before[i]).collect();
    // Header checksum, destination address, TCP checksum.
    assert!(changed.iter().all(|i| (24..26).contains(i) || (30..34).contains(i) || (50..52).contains(i)));
}

#[test]
fn a_tunnel_carries_the_packet_and_its_hop_budget() {
    let inner = segment((CLIENT, 40000), (SERVICE, 80), true, b"");
    let mut buffer = vec![0; HEADROOM];
    buffer.extend_from_slice(&inner);
    let facts = parsed(&inner);
    edit::decrement_ttl(&mut buffer[HEADROOM..], &facts.packet).unwrap();

    let start =
        tunnel::encapsulate(&mut buffer, HEADROOM + 14, DIRECTOR, REAL_SERVER, HopBudget::SPENT).unwrap();

    let outer = Ipv4Slice::from_slice(&buffer[start..]).unwrap();
    let outer_header = outer.header().to_header();
    assert_eq!(outer_header.calc_header_checksum(), outer_header.header_checksum);
    assert!(outer_header.dont_fragment);
    assert_eq!(outer_header.destination, REAL_SERVER.octets());

    let arrived = parse_ipv4(&buffer, start).unwrap();
    assert_eq!(arrived.outer.unwrap().hops, HopBudget::SPENT);
    assert_eq!(arrived.packet.ip.ttl, 63);
    let at = deliver(&mut buffer, &arrived, DELIVERY, ChecksumState::Complete).unwrap();
    assert_sound(&buffer[at..], CLIENT, DELIVERY, b"");
}

#[test]
fn congestion_in_the_tunnel_reaches_the_transport() {
    let mut inner = segment((CLIENT, 40000), (SERVICE, 80), false, b"x");
    let mut facts = parsed(&inner);
    // ECT(0) inside, CE outside.
    inner[15] = 0b10;
    fix_ip_checksum(&mut inner[14..34]);
    facts.packet.ip.tos = 0b10;
    facts.outer = Some(dpr_rewrite::Outer {
        source: DIRECTOR,
        destination: REAL_SERVER,
        tos: 0b11,
        hops: HopBudget::SPENT,
        len: 20,
    });

    let at = deliver(&mut inner, &facts, DELIVERY, ChecksumState::Complete).unwrap();

    assert_eq!(inner[at + 1] & 0b11, 0b11);
    assert_sound(&inner[at..], CLIENT, DELIVERY, b"x");
}

fn fix_ip_checksum(header: &mut [u8]) {
    header[10..12].copy_from_slice(&[0, 0]);
    let sum = !dpr_rewrite::checksum::fold(dpr_rewrite::checksum::sum_of(header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn a_reply_gets_the_service_address_and_a_syn_ack_a_smaller_mss() {
    let mut frame = segment((DELIVERY, 80), (CLIENT, 40000), true, b"");
    let facts = parsed(&frame);

    reply(&mut frame, &facts.packet, SERVICE, Some(1440), ChecksumState::Complete).unwrap();

    assert_sound(&frame[14..], SERVICE, CLIENT, b"");
    let header = TcpHeaderSlice::from_slice(&frame[34..]).unwrap();
    assert_eq!(
        header.options_iterator().next().unwrap().unwrap(),
        etherparse::TcpOptionElement::MaximumSegmentSize(1440)
    );
}

#[test]
fn a_partial_checksum_stays_the_sum_of_the_pseudo_header() {
    let mut frame = segment((DELIVERY, 80), (CLIENT, 40000), true, b"hello");
    let facts = parsed(&frame);
    let pseudo = |source: Ipv4Addr| {
        let len = u16::try_from(frame_len_of(&facts)).unwrap();
        dpr_rewrite::checksum::fold(dpr_rewrite::checksum::pseudo_header_ipv4(source, CLIENT, 6, len))
    };
    frame[50..52].copy_from_slice(&pseudo(DELIVERY).to_be_bytes());

    reply(&mut frame, &facts.packet, SERVICE, Some(1440), ChecksumState::Partial).unwrap();

    assert_eq!(frame[50..52], pseudo(SERVICE).to_be_bytes());
}

fn frame_len_of(frame: &Frame) -> usize {
    frame.packet.ip.total_len - frame.packet.ip.header_len
}

#[test]
fn an_icmp_error_is_translated_with_what_it_quotes() {
    let sent = segment((SERVICE, 80), (CLIENT, 40000), false, &[7; 100]);
    let mut error = [0; icmp::FRAGMENTATION_NEEDED_LEN_MAX];
    let router = Ipv4Addr::new(203, 0, 113, 1);
    let len = icmp::fragmentation_needed(&sent[14..], 1400, router, &mut error).unwrap();
    let mut frame = segment((router, 1), (SERVICE, 1), false, b"")[..14].to_vec();
    frame.extend_from_slice(&error[..len]);
    let facts = parsed(&frame);
    let Kind::IcmpError(quote) = facts.packet.kind else { panic!("{facts:?}") };
    assert_eq!((quote.ip.source, quote.source_port, quote.destination_port), (SERVICE, 80, 40000));

    let at = deliver(&mut frame, &facts, DELIVERY, ChecksumState::Complete).unwrap();

    let packet = Ipv4Slice::from_slice(&frame[at..]).unwrap();
    assert_eq!(packet.header().destination_addr(), DELIVERY);
    let message = packet.payload().payload;
    assert_eq!(dpr_rewrite::checksum::fold(dpr_rewrite::checksum::sum_of(message)), 0xffff);
    let quoted = etherparse::Ipv4HeaderSlice::from_slice(&message[8..]).unwrap().to_header();
    assert_eq!(quoted.source, DELIVERY.octets());
    assert_eq!(quoted.calc_header_checksum(), quoted.header_checksum);
    assert_eq!(u16::from_be_bytes([message[6], message[7]]), 1400);
}

#[test]
fn a_time_to_live_that_runs_out_is_a_reason_of_its_own() {
    let mut frame = segment((CLIENT, 40000), (SERVICE, 80), false, b"");
    let mut facts = parsed(&frame);
    facts.packet.ip.ttl = 1;
    assert_eq!(edit::decrement_ttl(&mut frame, &facts.packet), Err(DropReason::TtlExpired));
}

#[test]
fn fragments_and_foreign_tunnels_are_told_apart() {
    let mut frame = segment((CLIENT, 40000), (SERVICE, 80), false, b"");
    frame[20] = 0x20; // More fragments.
    fix_ip_checksum(&mut frame[14..34]);
    assert_eq!(parsed(&frame).packet.kind, Kind::Fragment);

    let mut tunnel = vec![0; HEADROOM];
    tunnel.extend_from_slice(&segment((CLIENT, 1), (SERVICE, 80), false, b""));
    let start =
        tunnel::encapsulate(&mut tunnel, HEADROOM + 14, DIRECTOR, REAL_SERVER, HopBudget::SPENT).unwrap();
    tunnel[start + 4] = 0; // Somebody else's identification.
    fix_ip_checksum(&mut tunnel[start..start + 20]);
    let foreign = parse_ipv4(&tunnel, start).unwrap();
    assert_eq!((foreign.outer, foreign.packet.kind), (None, Kind::Other));
}

proptest! {
    #[test]
    fn forward_deliver_and_reply_bring_back_every_byte(
        data in proptest::collection::vec(any::<u8>(), 0..1400),
        client in any::<[u8; 4]>(),
        port in any::<u16>(),
    ) {
        let client = Ipv4Addr::from(client);
        let frame = segment((client, port), (SERVICE, 80), false, &data);
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(&frame);

        let start = tunnel::encapsulate(&mut buffer, HEADROOM + 14, DIRECTOR, REAL_SERVER, HopBudget::SPENT).unwrap();
        let arrived = parse_ipv4(&buffer, start).unwrap();
        let at = deliver(&mut buffer, &arrived, DELIVERY, ChecksumState::Complete).unwrap();
        assert_sound(&buffer[at..], client, DELIVERY, &data);

        let back = parse_ipv4(&buffer, at).unwrap();
        deliver(&mut buffer, &back, SERVICE, ChecksumState::Complete).unwrap();
        prop_assert_eq!(&buffer[HEADROOM + 14..], &frame[14..]);
    }

    #[test]
    fn a_large_packet_is_cut_into_sound_segments(
        data in proptest::collection::vec(any::<u8>(), 0..20_000),
        segment_len in 1usize..3000,
    ) {
        let mut frame = segment((CLIENT, 40000), (SERVICE, 80), false, &data);
        frame[50..52].copy_from_slice(&[0xab, 0xcd]); // The checksum is completed, whatever it was.
        let facts = parsed(&frame);
        let mut segments = Segments::new(&frame, &facts.packet, segment_len).unwrap();
        let mut out = vec![0; 4000];
        let mut joined = Vec::new();
        while let Some(len) = segments.next_into(&mut out) {
            let len = len.unwrap();
            let piece = &data[joined.len()..(joined.len() + segment_len).min(data.len())];
            assert_sound(&out[..len], CLIENT, SERVICE, piece);
            let tcp = TcpHeaderSlice::from_slice(&out[20..len]).unwrap();
            prop_assert_eq!(tcp.sequence_number(), 1_000_000 + u32::try_from(joined.len()).unwrap());
            joined.extend_from_slice(piece);
            prop_assert_eq!(tcp.psh(), joined.len() == data.len());
        }
        prop_assert_eq!(joined, data);
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), ipv4 in any::<bool>()) {
        if ipv4 && bytes.len() > 14 {
            bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
            if bytes.len() >= 34 {
                let len = u16::try_from(bytes.len() - 14).unwrap();
                bytes[16..18].copy_from_slice(&len.to_be_bytes());
                fix_ip_checksum(&mut bytes[14..34]);
            }
        }
        if let Ok(Parsed::Ipv4(frame)) = parse(&bytes) {
            let _ = deliver(&mut bytes.clone(), &frame, DELIVERY, ChecksumState::Complete);
            let _ = reply(&mut bytes.clone(), &frame.packet, SERVICE, Some(1000), ChecksumState::Complete);
            let _ = Segments::new(&bytes, &frame.packet, 100);
        }
        let _ = SlicedPacket::from_ethernet(&bytes);
    }
}
