//! Fragments that others put together again, and segments that are what the sender would have sent.

use crate::packets::{Carrying, Sent, assert_sound, fix_ipv4_checksum, parsed, with_extension_headers};

use dpr_model::DropReason;
use dpr_rewrite::fragment::Fragments;
use dpr_rewrite::segment::Segments;
use dpr_rewrite::{Kind, Network, Piece, parse_ip};
use etherparse::defrag::IpDefragPool;
use etherparse::{Ipv4HeaderSlice, SlicedPacket, TcpHeaderSlice};
use proptest::prelude::*;

fn large(version_4: bool, carrying: Carrying, data: Vec<u8>) -> Sent {
    let [source, destination] = if version_4 {
        ["198.51.100.7:40000", "192.0.2.11:80"]
    } else {
        ["[2001:db8:7::7]:40000", "[2001:db8::11]:80"]
    };
    Sent { source: source.parse().unwrap(), destination: destination.parse().unwrap(), carrying, data }
}

/// An IPv4 packet that may be fragmented, with `options` in its header.
fn fragmentable(data: Vec<u8>, options: &[u8]) -> Vec<u8> {
    let mut packet = large(true, Carrying::Datagram, data).packet();
    packet.splice(20..20, options.iter().copied());
    packet[0] = 0x45 + u8::try_from(options.len() / 4).unwrap();
    let total_len = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&total_len.to_be_bytes());
    packet[4..8].copy_from_slice(&[0xbe, 0xef, 0, 0]);
    fix_ipv4_checksum(&mut packet);
    packet
}

pub(crate) fn fragments_of(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let facts = parse_ip(packet, 0).unwrap().packet;
    let mut fragments = Fragments::new(packet, &facts, mtu).unwrap();
    let mut out = vec![0; usize::from(mtu)];
    let mut cut = Vec::new();
    while let Some(len) = fragments.next_into(&mut out) {
        cut.push(out[..len.unwrap()].to_vec());
    }
    cut
}

/// What etherparse makes of `fragments`.
fn reassembled(fragments: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut pool = IpDefragPool::<(), ()>::new();
    let mut whole = None;
    for fragment in fragments {
        let header = Ipv4HeaderSlice::from_slice(fragment).unwrap().to_header();
        assert_eq!(header.calc_header_checksum(), header.header_checksum);
        let sliced = SlicedPacket::from_ip(fragment).unwrap();
        if let Some(payload) = pool.process_sliced_packet(&sliced, (), ()).unwrap() {
            assert!(whole.is_none());
            whole = Some(payload.payload);
        }
    }
    whole
}

#[test]
fn only_the_first_fragment_knows_ports_and_all_know_their_packet() {
    let mut packet = fragmentable((0..100).collect(), &[]);
    packet[4..6].copy_from_slice(&0xbeefu16.to_be_bytes());
    fix_ipv4_checksum(&mut packet);
    let pieces: Vec<_> = fragments_of(&packet, 68)
        .iter()
        .map(|fragment| match parse_ip(fragment, 0).unwrap().packet.kind {
            Kind::Fragment(piece) => piece,
            kind => panic!("{kind:?}"),
        })
        .collect();
    assert!(pieces.iter().all(|piece| piece.id == 0xbeef));
    let ports = (u16::from_be_bytes([packet[20], packet[21]]), u16::from_be_bytes([packet[22], packet[23]]));
    assert_eq!(pieces[0].ports, Some(ports));
    assert!(pieces.len() > 1 && pieces[1..].iter().all(|piece| piece.ports.is_none()));

    // IPv6: fragment header with "more fragments" and an identification, then UDP.
    let mut bytes = vec![0x60, 0, 0, 0, 0, 16, 44, 64];
    bytes.extend([0x20; 32]);
    bytes.extend([17, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef, 0, 53, 0x12, 0x34, 0, 100, 0, 0]);
    let first = parse_ip(&bytes, 0).unwrap().packet.kind;
    assert_eq!(first, Kind::Fragment(Piece { id: 0xdead_beef, ports: Some((53, 0x1234)) }));
    bytes[42..44].copy_from_slice(&[0x10, 0]);
    let later = parse_ip(&bytes, 0).unwrap().packet.kind;
    assert_eq!(later, Kind::Fragment(Piece { id: 0xdead_beef, ports: None }));
}

proptest! {
    #[test]
    fn fragments_are_put_together_by_others(
        data in proptest::collection::vec(any::<u8>(), 1500..6000),
        mtu in 68u16..1500,
        second_mtu in 68u16..1500,
    ) {
        let packet = fragmentable(data, &[]);
        let fragments = fragments_of(&packet, mtu);
        prop_assert!(fragments.iter().all(|fragment| fragment.len() <= usize::from(mtu)));
        prop_assert_eq!(reassembled(&fragments).unwrap(), &packet[20..]);

        // A narrower way later on.
        let again: Vec<_> = fragments.iter().flat_map(|fragment| fragments_of(fragment, second_mtu)).collect();
        prop_assert!(again.iter().all(|fragment| fragment.len() <= usize::from(second_mtu)));
        prop_assert_eq!(reassembled(&again).unwrap(), &packet[20..]);
    }

    #[test]
    fn a_large_packet_is_cut_into_sound_segments(
        data in proptest::collection::vec(any::<u8>(), 0..20_000),
        segment_len in 1usize..3000,
        version_4 in any::<bool>(),
        extended in any::<bool>(),
    ) {
        let sent = large(version_4, Carrying::Data, data);
        let mut frame = sent.frame();
        if extended && !version_4 {
            frame = with_extension_headers(frame);
        }
        let facts = parsed(&frame).packet;
        let sum_at = facts.transport_at() + 16;
        frame[sum_at..sum_at + 2].copy_from_slice(&[0xab, 0xcd]); // It is completed, whatever it was.
        frame[facts.transport_at() + 13] |= 0x81; // FIN, and the congestion window was reduced.
        let mut joined = Vec::new();
        for (nth, piece) in segments_of(&frame, segment_len).into_iter().enumerate() {
            let data = &sent.data[joined.len()..(joined.len() + segment_len).min(sent.data.len())];
            assert_sound(&piece, sent.source, sent.destination, data);
            let piece_facts = parse_ip(&piece, 0).unwrap().packet;
            let tcp = TcpHeaderSlice::from_slice(&piece[piece_facts.transport_at()..]).unwrap();
            prop_assert_eq!(tcp.sequence_number(), 1_000_000 + u32::try_from(joined.len()).unwrap());
            joined.extend_from_slice(data);
            let is_last = joined.len() == sent.data.len();
            prop_assert_eq!((tcp.psh(), tcp.fin(), tcp.cwr()), (is_last, is_last, nth == 0));
            if let (Network::V4(large), Network::V4(small)) = (facts.ip, piece_facts.ip) {
                prop_assert_eq!(usize::from(small.id()), usize::from(large.id()) + nth);
            }
        }
        prop_assert_eq!(joined, sent.data);
    }

    #[test]
    fn a_large_datagram_is_cut_into_sound_datagrams(
        data in proptest::collection::vec(any::<u8>(), 0..20_000),
        segment_len in 1usize..3000,
        version_4 in any::<bool>(),
    ) {
        let sent = large(version_4, Carrying::Datagram, data);
        let mut frame = sent.frame();
        let sum_at = parsed(&frame).packet.transport_at() + 6;
        frame[sum_at..sum_at + 2].copy_from_slice(&[0xab, 0xcd]);
        let mut expected = sent.data.chunks(segment_len);
        for piece in segments_of(&frame, segment_len) {
            assert_sound(&piece, sent.source, sent.destination, expected.next().unwrap_or(&[]));
        }
        prop_assert_eq!(expected.next(), None);
    }
}

fn segments_of(frame: &[u8], segment_len: usize) -> Vec<Vec<u8>> {
    let facts = parsed(frame).packet;
    let mut segments = Segments::new(frame, &facts, segment_len).unwrap();
    let mut out = vec![0; 4000];
    let mut cut = Vec::new();
    while let Some(len) = segments.next_into(&mut out) {
        cut.push(out[..len.unwrap()].to_vec());
    }
    cut
}

#[test]
fn every_fragment_has_the_options_that_are_copied_and_only_the_first_the_others() {
    // No operation, a time stamp that is not copied, a router alert that is.
    let options = [1, 68, 6, 5, 0, 0, 0, 148, 4, 0, 0, 0];
    let packet = fragmentable(vec![5; 1000], &options);
    let fragments = fragments_of(&packet, 576);
    assert_eq!(fragments[0][20..32], options);
    for later in &fragments[1..] {
        assert_eq!((later[0], &later[20..24]), (0x46, &[148, 4, 0, 0][..]));
    }
    assert_eq!(reassembled(&fragments).unwrap(), packet[32..]);
}

#[test]
fn options_that_lie_are_malformed() {
    for options in [[68, 1, 0, 0], [68, 0, 0, 0], [68, 5, 0, 0], [1, 1, 1, 68]] {
        let packet = fragmentable(vec![5; 1000], &options);
        let facts = parse_ip(&packet, 0).unwrap().packet;
        assert_eq!(Fragments::new(&packet, &facts, 576).unwrap_err(), DropReason::Malformed);
    }
}

#[test]
fn a_packet_that_fits_is_one_piece_whatever_it_says_about_fragments() {
    let packet = large(true, Carrying::Data, vec![1; 100]).packet();
    assert_eq!(fragments_of(&packet, 1500), [packet]);
}

#[test]
fn what_must_not_be_cut_is_too_big() {
    let reason = |packet: &[u8], mtu| {
        let facts = parse_ip(packet, 0).unwrap().packet;
        Fragments::new(packet, &facts, mtu).unwrap_err()
    };
    assert_eq!(reason(&large(true, Carrying::Data, vec![1; 600]).packet(), 576), DropReason::TooBig);
    assert_eq!(reason(&large(false, Carrying::Data, vec![1; 600]).packet(), 576), DropReason::TooBig);
    assert_eq!(reason(&fragmentable(vec![1; 600], &[]), 27), DropReason::TooBig);
}

#[test]
fn a_fragment_that_reaches_past_any_packets_end_is_malformed() {
    let mut packet = fragmentable(vec![1; 600], &[]);
    packet[6..8].copy_from_slice(&0x1fff_u16.to_be_bytes());
    fix_ipv4_checksum(&mut packet);
    let facts = parse_ip(&packet, 0).unwrap().packet;
    assert_eq!(Fragments::new(&packet, &facts, 576).unwrap_err(), DropReason::Malformed);
}

#[test]
fn a_buffer_that_is_too_short_and_what_has_no_segments_have_their_reasons() {
    let frame = large(true, Carrying::Data, vec![1; 600]).frame();
    let facts = parsed(&frame).packet;
    let mut segments = Segments::new(&frame, &facts, 100).unwrap();
    assert_eq!(segments.next_into(&mut [0; 139]), Some(Err(DropReason::Truncated)));
    assert_eq!(Segments::new(&frame, &facts, 0).unwrap_err(), DropReason::Malformed);
    let packet = fragmentable(vec![1; 600], &[]);
    let mut out = [0; 27];
    let facts = parse_ip(&packet, 0).unwrap().packet;
    let mut fragments = Fragments::new(&packet, &facts, 28).unwrap();
    assert_eq!(fragments.next_into(&mut out), Some(Err(DropReason::Truncated)));
    let fragment = &fragments_of(&packet, 100)[1];
    let facts = parse_ip(fragment, 0).unwrap().packet;
    assert_eq!(Segments::new(fragment, &facts, 100).unwrap_err(), DropReason::Malformed);
}
