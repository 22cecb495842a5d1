//! A data plane without devices: what a verdict does to a packet, and to whom the packet goes then.

use crate::edits::{Out, Way, carry_out};
use crate::names::{Host, node_at};
use dpr_director::{Arrival, DeliveryRanges, Director, LocalSockets};
use dpr_model::{DropReason, MacAddress, NodeId, Timestamp, Verdict};
use dpr_rewrite::ethernet::{self, ethertype};
use dpr_rewrite::{Kind, Parsed, parse, parse_ip};

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

/// Where a packet goes. None of the simulator's is ever cut.
#[derive(Debug)]
pub(crate) enum Exit {
    /// To the local TCP stack.
    Stack(Vec<u8>),
    /// Over the network.
    Network(Host, Vec<u8>),
    /// Nowhere.
    Nowhere,
}

/// Shows a frame from the network to the director of `node` and does what it says.
pub(crate) fn pass(
    director: &mut Director,
    sockets: &mut dyn LocalSockets,
    node: NodeId,
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
    let is_own = node_at(frame.packet.ip.destination()) == Some(node);
    let is_segment = matches!(frame.packet.kind, Kind::Tcp(_));
    let verdict = director.handle_frame(Arrival { parsed: &parsed, wire_len, packets: 1 }, sockets, now);
    if verdict == Verdict::Pass {
        // The host's own stack, which takes what is for it and routes nothing.
        let exit = if is_own { Exit::Stack(bytes) } else { Exit::Nowhere };
        return Passage { verdict, hops_in, exit };
    }
    match carry_out(verdict, &parsed, bytes, MacAddress::default()) {
        Ok(outs) => Passage { verdict, hops_in, exit: exit_of(outs, is_segment) },
        Err(reason) => dropped(director, reason, hops_in),
    }
}

/// What a node without a daemon does with a frame from the network: its kernel takes what is for it.
pub(crate) fn pass_to_kernel(node: NodeId, bytes: Vec<u8>) -> Passage {
    let is_own = parse_ip(&bytes, ethernet::HEADER_LEN)
        .is_ok_and(|frame| frame.outer.is_none() && node_at(frame.packet.ip.destination()) == Some(node));
    let exit = if is_own { Exit::Stack(bytes) } else { Exit::Nowhere };
    Passage { verdict: Verdict::Pass, hops_in: None, exit }
}

/// Shows a segment of the local TCP stack to the director. Without one it goes out as it is.
pub(crate) fn pass_reply(director: Option<&mut Director>, bytes: Vec<u8>) -> Passage {
    let Ok(frame) = parse_ip(&bytes, ethernet::HEADER_LEN) else {
        return Passage { verdict: Verdict::Drop(DropReason::Malformed), hops_in: None, exit: Exit::Nowhere };
    };
    let verdict = director.map_or(Verdict::Pass, |director| director.handle_reply(&frame, 1));
    if verdict == Verdict::Pass {
        let to = Host::at(frame.packet.ip.destination());
        return Passage { verdict, hops_in: None, exit: Exit::Network(to, bytes) };
    }
    let outs = carry_out(verdict, &Parsed::Ip(frame), bytes, MacAddress::default());
    let exit = outs.map_or(Exit::Nowhere, |outs| exit_of(outs, true));
    Passage { verdict, hops_in: None, exit }
}

fn dropped(director: &mut Director, reason: DropReason, hops_in: Option<u8>) -> Passage {
    director.count_drops(reason, 1);
    Passage { verdict: Verdict::Drop(reason), hops_in, exit: Exit::Nowhere }
}

fn exit_of(outs: Vec<Out>, is_segment: bool) -> Exit {
    let Some(Out { way, bytes }) = outs.into_iter().next() else { return Exit::Nowhere };
    match way {
        // The model of the stack has no ear for ICMP: clients send none that it would need.
        Way::Stack if is_segment => Exit::Stack(framed(&bytes)),
        Way::Route(to) if is_segment && DeliveryRanges::default().contains(to) => Exit::Stack(framed(&bytes)),
        Way::Stack | Way::Link => Exit::Nowhere,
        Way::Route(to) | Way::Neighbour(to) => Exit::Network(Host::at(to), framed(&bytes)),
    }
}

/// An IP packet in a frame of its own. MAC addresses are of no meaning here and all zero.
fn framed(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { ethertype::IPV4 } else { ethertype::IPV6 };
    let mut frame = Vec::with_capacity(ethernet::HEADER_LEN + packet.len());
    frame.extend_from_slice(&ethernet::header(Default::default(), Default::default(), ethertype));
    frame.extend_from_slice(packet);
    frame
}
