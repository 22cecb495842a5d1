//! A data plane without devices: a verdict's edits, and where the packet goes then.
//!
//! It does with `rewrite` what every data plane does, for frames that are one segment each.

use crate::names::Host;
use dpr_director::{Arrival, Director, LocalSockets};
use dpr_model::{DropReason, Forward, Timestamp, Verdict};
use dpr_rewrite::ethernet::{self, ethertype};
use dpr_rewrite::{
    ChecksumState, FlowHash, Frame, Kind, Parsed, Tunnel, decapsulate, deliver, edit, parse, parse_ip, reply,
    too_big,
};
use std::net::{IpAddr, Ipv4Addr};

/// What became of a frame.
#[derive(Debug)]
pub(crate) struct Passage {
    /// The verdict, or why there was none.
    pub(crate) verdict: Verdict,
    /// Hops that the frame had left when it came in, if through a tunnel.
    pub(crate) hops_in: Option<u8>,
    /// Where which bytes go now.
    pub(crate) exit: Exit,
}

/// Where a packet goes.
#[derive(Debug)]
pub(crate) enum Exit {
    /// To the local TCP stack.
    Stack(Vec<u8>),
    /// Over the network.
    Network(Host, Vec<u8>),
    /// Nowhere.
    Nowhere,
}

/// Shows a frame from the network to the director and does what it says. `own` is the node's address.
pub(crate) fn pass(
    director: &mut Director,
    sockets: &mut dyn LocalSockets,
    own: Ipv4Addr,
    bytes: Vec<u8>,
    now: Timestamp,
) -> Passage {
    let parsed = match parse(&bytes) {
        Ok(parsed) => parsed,
        Err(reason) => return dropped(director, reason, None),
    };
    let Parsed::Ip(frame) = &parsed else { return dropped(director, DropReason::Malformed, None) };
    let hops_in = frame.outer.as_ref().map(|outer| outer.hops.get());
    let wire_len = frame.packet.end() - ethernet::HEADER_LEN;
    let verdict = director.handle_frame(Arrival { parsed: &parsed, wire_len, packets: 1 }, sockets, now);
    match carry_out(verdict, frame, own, bytes) {
        Ok(exit) => Passage { verdict, hops_in, exit },
        Err(reason) => dropped(director, reason, hops_in),
    }
}

/// What a node without a daemon does with a frame from the network: its kernel takes what is for it.
pub(crate) fn pass_to_kernel(own: Ipv4Addr, bytes: Vec<u8>) -> Passage {
    let is_own = parse_ip(&bytes, ethernet::HEADER_LEN)
        .is_ok_and(|frame| frame.outer.is_none() && frame.packet.ip.destination() == own);
    let exit = if is_own { Exit::Stack(bytes) } else { Exit::Nowhere };
    Passage { verdict: Verdict::Pass, hops_in: None, exit }
}

/// Shows a segment of the local TCP stack to the director. Without one it goes out as it is.
pub(crate) fn pass_reply(director: Option<&mut Director>, mut bytes: Vec<u8>) -> Passage {
    let Ok(frame) = parse_ip(&bytes, ethernet::HEADER_LEN) else {
        return Passage { verdict: Verdict::Drop(DropReason::Malformed), hops_in: None, exit: Exit::Nowhere };
    };
    let Ok(to) = v4(frame.packet.ip.destination()).map(Host::at) else {
        return Passage { verdict: Verdict::Pass, hops_in: None, exit: Exit::Nowhere };
    };
    let Some(director) = director else {
        return Passage { verdict: Verdict::Pass, hops_in: None, exit: Exit::Network(to, bytes) };
    };
    let verdict = director.handle_reply(&frame, 1);
    let edited = match verdict {
        Verdict::Reply(say) => {
            reply(&mut bytes, &frame.packet, say.from, say.mss_max, ChecksumState::Complete)
        }
        Verdict::Drop(reason) => Err(reason),
        _ => Ok(()),
    };
    let exit = if edited.is_ok() { Exit::Network(to, bytes) } else { Exit::Nowhere };
    Passage { verdict, hops_in: None, exit }
}

fn dropped(director: &mut Director, reason: DropReason, hops_in: Option<u8>) -> Passage {
    director.count_drop(reason);
    Passage { verdict: Verdict::Drop(reason), hops_in, exit: Exit::Nowhere }
}

fn carry_out(verdict: Verdict, frame: &Frame, own: Ipv4Addr, mut bytes: Vec<u8>) -> Result<Exit, DropReason> {
    let packet = &frame.packet;
    match verdict {
        // The host's own stack, which takes what is for it and routes nothing.
        Verdict::Pass if packet.ip.destination() == own => Ok(Exit::Stack(bytes)),
        Verdict::Pass
        | Verdict::Drop(_)
        | Verdict::Reply(_)
        | Verdict::Direct { .. }
        | Verdict::Nat(_)
        | Verdict::NatReply(_)
        | Verdict::AnswerArp
        | Verdict::AnswerNeighbour
        | Verdict::AnswerEcho => Ok(Exit::Nowhere),
        Verdict::Deliver(delivery) => {
            let at = match delivery.to {
                Some(to) => deliver(&mut bytes, frame, to, ChecksumState::Complete)?,
                None => decapsulate(&mut bytes, frame)?,
            };
            // The model of the stack has no ear for ICMP: clients send none that it would need.
            let is_segment = matches!(packet.kind, Kind::Tcp(_));
            let inner = framed(&bytes[at..packet.end()]);
            Ok(if is_segment { Exit::Stack(inner) } else { Exit::Nowhere })
        }
        Verdict::Forward(forward) => {
            decapsulate(&mut bytes, frame)?;
            edit::decrement_hop_limit(&mut bytes, packet)?;
            let Forward { encapsulation, from, to, .. } = forward;
            let tunnel = Tunnel { encapsulation, source: from, destination: to };
            let mut buffer = vec![0; tunnel.overhead()];
            buffer.extend_from_slice(&bytes[packet.at..packet.end()]);
            let flow = FlowHash::of(packet, 0);
            tunnel.encapsulate(&mut buffer, tunnel.overhead(), forward.hops, flow)?;
            Ok(Exit::Network(Host::at(v4(forward.to)?), framed(&buffer)))
        }
        Verdict::TooBig { mtu, from } => {
            let mut error = [0; too_big::ANSWER_LEN_MAX];
            let original = &bytes[packet.at..packet.end()];
            let len = too_big::answer(original, mtu, from, &mut error)?;
            Ok(Exit::Network(Host::at(v4(packet.ip.source())?), framed(&error[..len])))
        }
    }
}

/// An IP packet in a frame of its own. MAC addresses are of no meaning here and all zero.
fn framed(packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ethernet::HEADER_LEN + packet.len());
    frame.extend_from_slice(&ethernet::header(Default::default(), Default::default(), ethertype::IPV4));
    frame.extend_from_slice(packet);
    frame
}

fn v4(address: IpAddr) -> Result<Ipv4Addr, DropReason> {
    match address {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(_) => Err(DropReason::NoRoute),
    }
}
