//! A frame of any bytes, and everything that a data plane could be told to do to it.

use crate::input::Input;
use crate::soundness::{fault_of_header, transport_holds};
use dpr_model::{
    Delivery, Encapsulation, End, Forward, HopBudget, MacAddress, Nat, Reply, Translation, Verdict,
};
use dpr_rewrite::tunnel::overhead;
use dpr_rewrite::{ChecksumState, Frame, Kind, Packet, Parsed, Version, parse, translate};
use dpr_sim::edits::{Out, Way, carry_out};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// MAC address with which a node answers for others.
const MAC: MacAddress = MacAddress([2; 6]);
/// Two addresses of each IP version.
const ENDS: [[IpAddr; 2]; 2] = [
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11))],
    [
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11)),
    ],
];

/// Parses a frame and carries out every verdict about it. Whatever leaves is a whole packet; one that came with a
/// checksum that held leaves with one; translation there and back again is no change; pieces hold what was cut.
///
/// Bytes: what the verdicts say (5), then the frame.
///
/// # Panics
/// When the rule is broken.
pub fn frame(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let said = Said { mtu: input.u16(), port: input.u16(), hops: input.u8() };
    let frame = input.rest();
    let Ok(parsed) = parse(frame) else { return };
    for verdict in said.verdicts() {
        let Ok(outs) = carry_out(verdict, &parsed, frame.to_vec(), MAC) else { continue };
        for out in outs.iter().filter(|out| out.way != Way::Link) {
            assert_eq!(fault_of_header(&out.bytes), None, "{verdict:?}: {:02x?}", out.bytes);
        }
        if let Parsed::Ip(parsed) = &parsed {
            judge(frame, parsed, verdict, &outs);
        }
    }
    if let Parsed::Ip(parsed) = &parsed {
        goes_there_and_back(frame, parsed, &said);
    }
}

/// Whatever a verdict can say beside addresses.
struct Said {
    mtu: u16,
    port: u16,
    hops: u8,
}

impl Said {
    fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = vec![
            Verdict::Deliver(Delivery { to: None, decapsulate: 0 }),
            Verdict::AnswerArp,
            Verdict::AnswerNeighbour,
            Verdict::AnswerEcho,
        ];
        for [from, to] in ENDS {
            let source = Some(End { address: from, port: Some(self.port) });
            let destination = Some(End { address: to, port: None });
            let nat = |ends| Nat { ends, decapsulate: 0 };
            verdicts.extend([
                Verdict::Deliver(Delivery { to: Some(to), decapsulate: 0 }),
                Verdict::Direct { to },
                Verdict::Nat(nat(Translation { source, destination })),
                Verdict::Nat(nat(Translation { source: None, destination })),
                Verdict::NatReply(nat(Translation { source, destination: None })),
                Verdict::Reply(Reply { from, to, mss_max: Some(self.mtu) }),
                Verdict::Reply(Reply { from, to, mss_max: None }),
                Verdict::TooBig { mtu: self.mtu, from },
            ]);
            for encapsulation in [Encapsulation::Ipip, Encapsulation::Gue] {
                let hops = HopBudget::from_wire(self.hops);
                let forward = Forward { encapsulation, from, to, hops, decapsulate: 0, fragment: None };
                verdicts.push(Verdict::Forward(forward));
                verdicts.push(Verdict::Forward(Forward { fragment: Some(self.mtu), ..forward }));
            }
        }
        verdicts
    }
}

fn judge(frame: &[u8], parsed: &Frame, verdict: Verdict, outs: &[Out]) {
    let packet = &parsed.packet;
    let came_sound = transport_holds(frame, packet) == Some(true);
    let len = packet.ip.total_len();
    match (verdict, outs) {
        (Verdict::Forward(Forward { fragment: Some(mtu), .. }), pieces) => {
            hold_what_was_cut(frame, packet, mtu, verdict, pieces);
        }
        (Verdict::Forward(_), [out]) => {
            leaves_sound(came_sound, &out.bytes[out.bytes.len() - len..], packet, verdict);
        }
        (Verdict::TooBig { .. }, [out]) => is_answer(&out.bytes, verdict),
        (Verdict::AnswerEcho, [out]) if came_sound => is_answer(&out.bytes, verdict),
        (Verdict::AnswerEcho, [_]) => {}
        (_, [out]) => {
            assert_eq!(out.bytes.len(), len, "{verdict:?}");
            leaves_sound(came_sound, &out.bytes, packet, verdict);
            if !matches!(packet.kind, Kind::IcmpError(_)) {
                let from = packet.ip.header_len() + header_of(packet);
                let body = &frame[packet.at..packet.end()];
                assert_eq!(
                    out.bytes.get(from..),
                    body.get(from..),
                    "{verdict:?} changed what the packet carries"
                );
            }
        }
        (_, outs) => assert!(outs.is_empty(), "{verdict:?}: {outs:?}"),
    }
}

/// Bytes of a transport header that an edit may change.
fn header_of(packet: &Packet) -> usize {
    match packet.kind {
        // With its options: the largest segment size is one.
        Kind::Tcp(_) => 60,
        Kind::Udp(_) => 8,
        // The checksum of a first fragment, where there is one.
        Kind::Fragment(_) => 18,
        Kind::IcmpError(_) | Kind::EchoRequest | Kind::Other => 0,
    }
}

fn leaves_sound(came_sound: bool, bytes: &[u8], packet: &Packet, verdict: Verdict) {
    let left = Packet { at: 0, ..*packet };
    if came_sound {
        assert_eq!(transport_holds(bytes, &left), Some(true), "{verdict:?}: {bytes:02x?}");
    }
}

fn is_answer(bytes: &[u8], verdict: Verdict) {
    let answer = dpr_rewrite::parse_ip(bytes, 0).expect("what was written can be read");
    assert_eq!(transport_holds(bytes, &answer.packet), Some(true), "{verdict:?}: {bytes:02x?}");
}

/// IPv4 fragments: in order, without gaps, none larger than what was asked for.
fn hold_what_was_cut(frame: &[u8], packet: &Packet, mtu: u16, verdict: Verdict, pieces: &[Out]) {
    let Verdict::Forward(forward) = verdict else { return };
    let mut carried: Vec<u8> = Vec::new();
    for piece in pieces {
        let inner = &piece.bytes[overhead(forward.encapsulation, Version::of(forward.to))..];
        assert_eq!(fault_of_header(inner), None, "{verdict:?}");
        assert!(inner.len() <= usize::from(mtu), "{verdict:?}: a piece of {} bytes", inner.len());
        let word = u16::from_be_bytes([inner[6], inner[7]]);
        let before =
            usize::from(u16::from_be_bytes([frame[packet.at + 6], frame[packet.at + 7]]) & 0x1fff) * 8;
        assert_eq!(usize::from(word & 0x1fff) * 8, before + carried.len(), "{verdict:?}: a gap");
        carried.extend(&inner[usize::from(inner[0] & 0x0f) * 4..]);
    }
    assert_eq!(carried, &frame[packet.transport_at()..packet.end()], "{verdict:?}");
}

/// What NAT does on the way in, it undoes on the way back.
fn goes_there_and_back(frame: &[u8], parsed: &Frame, said: &Said) {
    let packet = &parsed.packet;
    let Some(ports) = (match packet.kind {
        Kind::Tcp(_) | Kind::Udp(_) => frame.get(packet.transport_at()..packet.transport_at() + 4),
        _ => None,
    }) else {
        return;
    };
    let end = |address, high: u8, low: u8| Some(End { address, port: Some(u16::from_be_bytes([high, low])) });
    let before = Translation {
        source: end(packet.ip.source(), ports[0], ports[1]),
        destination: end(packet.ip.destination(), ports[2], ports[3]),
    };
    let [high, low] = said.port.to_be_bytes();
    for [from, to] in ENDS {
        let there = Translation { source: end(from, high, low), destination: end(to, low, high) };
        let mut bytes = frame.to_vec();
        if translate(&mut bytes, packet, &there, ChecksumState::Complete).is_err() {
            continue;
        }
        translate(&mut bytes, packet, &before, ChecksumState::Complete).expect("what went there comes back");
        // 0 and 0xffff are the same number in one's complement.
        for (at, (is, was)) in bytes.chunks(2).zip(frame.chunks(2)).enumerate() {
            let is_zero = |pair: &[u8]| pair == [0, 0] || pair == [0xff, 0xff];
            assert!(
                is == was || is_zero(is) && is_zero(was),
                "there and back changed byte {}: {frame:02x?}",
                at * 2
            );
        }
    }
}
