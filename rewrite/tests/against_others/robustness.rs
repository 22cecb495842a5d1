//! Whatever a stranger sends: an answer or a reason, never a panic.

use crate::packets::{IP_AT, fix_ipv4_checksum, sent, with_extension_headers};
use core::net::IpAddr;
use dpr_model::{HopBudget, MacAddress};
use dpr_rewrite::fragment::Fragments;
use dpr_rewrite::segment::Segments;
use dpr_rewrite::tunnel::OVERHEAD_MAX;
use dpr_rewrite::{
    ChecksumState, Encapsulation, End, FlowHash, Frame, Parsed, Translation, Tunnel, deliver, echo, edit,
    parse, parse_ip, reply, too_big, translate,
};
use proptest::prelude::*;

const ADDRESSES: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const STATES: [ChecksumState; 2] = [ChecksumState::Complete, ChecksumState::Partial];

/// Every call that takes bytes.
fn do_everything(bytes: &[u8]) {
    let mut out = vec![0; 70_000];
    match parse(bytes) {
        Ok(Parsed::Ip(frame)) => edit_everything(bytes, &frame, &mut out),
        Ok(Parsed::Arp(request)) => drop(request.reply(MacAddress::BROADCAST, &mut out)),
        Ok(Parsed::Neighbour(asked)) => drop(asked.advertisement(MacAddress::BROADCAST, &mut out)),
        Ok(Parsed::Other) | Err(_) => {}
    }
    for at in [0, IP_AT, bytes.len(), bytes.len() + 1] {
        if let Ok(frame) = parse_ip(bytes, at) {
            edit_everything(bytes, &frame, &mut out);
        }
    }
}

fn edit_everything(bytes: &[u8], frame: &Frame, out: &mut [u8]) {
    let packet = &frame.packet;
    for address in ADDRESSES.map(|address| address.parse::<IpAddr>().unwrap()) {
        for state in STATES {
            let _ = deliver(&mut bytes.to_vec(), frame, address, state);
            let _ = reply(&mut bytes.to_vec(), packet, address, Some(1000), state);
            let end = Some(End { address, port: Some(7) });
            let translation = Translation { source: end, destination: end };
            let _ = translate(&mut bytes.to_vec(), packet, &translation, state);
        }
        let _ = too_big::answer(bytes.get(packet.at..).unwrap_or(&[]), 1300, address, out);
        for encapsulation in [Encapsulation::Ipip, Encapsulation::Gue] {
            let tunnel = Tunnel { encapsulation, source: address, destination: address };
            let mut buffer = [vec![0; OVERHEAD_MAX], bytes.to_vec()].concat();
            let at = OVERHEAD_MAX + packet.at;
            let _ = tunnel.encapsulate(&mut buffer, at, HopBudget::SPENT, FlowHash::of(packet, 1));
        }
    }
    let _ = edit::decrement_hop_limit(&mut bytes.to_vec(), packet);
    let _ = echo::reply(bytes, packet, out);
    if let Ok(mut segments) = Segments::new(bytes, packet, 7) {
        while let Some(Ok(_)) = segments.next_into(out) {}
    }
    for mtu in [0, 27, 28, 68, 1400, u16::MAX] {
        if let Ok(mut fragments) = Fragments::new(bytes, packet, mtu) {
            while let Some(Ok(_)) = fragments.next_into(out) {}
        }
    }
}

/// Bytes that are an IP packet of the given version at first sight.
fn plausible(mut bytes: Vec<u8>, version_4: bool) -> Vec<u8> {
    if bytes.len() < IP_AT + 40 {
        return bytes;
    }
    let packet_len = u16::try_from(bytes.len() - IP_AT).unwrap();
    if version_4 {
        bytes[12..14].copy_from_slice(&[0x08, 0x00]);
        bytes[IP_AT] = 0x45 + bytes[IP_AT] % 6;
        bytes[IP_AT + 2..IP_AT + 4].copy_from_slice(&packet_len.to_be_bytes());
        bytes[IP_AT + 9] = [1, 4, 6, 17, 41][usize::from(bytes[IP_AT + 9]) % 5];
        fix_ipv4_checksum(&mut bytes[IP_AT..]);
    } else {
        bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
        bytes[IP_AT] = 0x60;
        bytes[IP_AT + 4..IP_AT + 6].copy_from_slice(&(packet_len - 40).to_be_bytes());
        bytes[IP_AT + 6] = [0, 4, 6, 17, 41, 43, 44, 58, 60][usize::from(bytes[IP_AT + 6]) % 9];
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), version_4 in any::<bool>()) {
        do_everything(&bytes);
        do_everything(&plausible(bytes, version_4));
    }
}

proptest! {
    #[test]
    fn damaged_packets_never_panic(
        sent in sent(),
        extended in any::<bool>(),
        wrapped in 0usize..5,
        about_it in any::<bool>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        repaired in any::<bool>(),
    ) {
        let mut frame = sent.frame();
        if extended && sent.source.is_ipv6() {
            frame = with_extension_headers(frame);
        }
        let mut packet = frame.split_off(IP_AT);
        if about_it {
            let mut error = vec![0; too_big::ANSWER_LEN_MAX];
            let len = too_big::answer(&packet, 1400, sent.destination.ip(), &mut error).unwrap();
            error.truncate(len);
            packet = error;
        }
        if wrapped > 0 {
            packet = wrap(packet, wrapped - 1);
        }
        frame[12..14].copy_from_slice(if packet[0] >> 4 == 4 { &[0x08, 0x00] } else { &[0x86, 0xdd] });
        frame.extend_from_slice(&packet);
        for (index, value) in damage {
            let at = index.index(frame.len().min(160));
            frame[at] = value;
        }
        if repaired && frame[IP_AT] == 0x45 {
            fix_ipv4_checksum(&mut frame[IP_AT..]);
        }
        do_everything(&frame);
        do_everything(&frame[..cut.index(frame.len())]);
    }
}

/// The packet in one of the four kinds of tunnel.
fn wrap(packet: Vec<u8>, nth: usize) -> Vec<u8> {
    let address: IpAddr = ADDRESSES[nth % 2].parse().unwrap();
    let encapsulation = if nth < 2 { Encapsulation::Ipip } else { Encapsulation::Gue };
    let tunnel = Tunnel { encapsulation, source: address, destination: address };
    let hash = FlowHash::of(&parse_ip(&packet, 0).unwrap().packet, 1);
    let mut buffer = [vec![0; OVERHEAD_MAX], packet].concat();
    let start = tunnel.encapsulate(&mut buffer, OVERHEAD_MAX, HopBudget::SPENT, hash).unwrap();
    buffer.split_off(start)
}
