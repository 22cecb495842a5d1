//! A verdict's edits: what becomes of a frame's bytes, and where the result goes.
//!
//! It does with `rewrite` what every data plane does, for frames whose checksums are complete and that are one packet
//! each. It refuses to know devices, routes and MAC addresses; callers are this simulator and the vectors.

use dpr_model::{DropReason, Forward, MacAddress, Nat, Verdict};
use dpr_rewrite::fragment::Fragments;
use dpr_rewrite::ndp::ADVERTISEMENT_LEN_MAX;
use dpr_rewrite::{
    ChecksumState, FlowHash, Frame, Packet, Parsed, Tunnel, arp, decapsulate, deliver, echo, edit, reply,
    too_big, translate,
};
use std::net::IpAddr;

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the local stack, as an IP packet.
    Stack,
    /// By route to this address, as an IP packet.
    Route(IpAddr),
    /// To the neighbour with this address, as an IP packet that may be for somebody else.
    Neighbour(IpAddr),
    /// Back on the link, as a frame.
    Link,
}

/// Something that leaves the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    /// Where to.
    pub way: Way,
    /// An IP packet, or with [`Way::Link`] an Ethernet frame.
    pub bytes: Vec<u8>,
}

/// What leaves a node whose director says `verdict` about `frame`; `mac` is the address with which it answers for others.
/// `Pass` and `Drop` leave nothing.
///
/// # Errors
/// Why the packet has to be dropped after all.
pub fn carry_out(
    verdict: Verdict,
    parsed: &Parsed,
    mut frame: Vec<u8>,
    mac: MacAddress,
) -> Result<Vec<Out>, DropReason> {
    match (verdict, parsed) {
        (Verdict::Pass | Verdict::Drop(_), _) => Ok(Vec::new()),
        (Verdict::AnswerArp, Parsed::Arp(request)) => {
            let mut out = [0; arp::FRAME_LEN_MAX];
            let len = request.reply(mac, &mut out)?;
            Ok(vec![Out { way: Way::Link, bytes: out[..len].to_vec() }])
        }
        (Verdict::AnswerNeighbour, Parsed::Neighbour(request)) => {
            let mut out = [0; ADVERTISEMENT_LEN_MAX];
            let len = request.advertisement(mac, &mut out)?;
            Ok(vec![Out { way: Way::Link, bytes: out[..len].to_vec() }])
        }
        (verdict, Parsed::Ip(parsed)) => edit_packet(verdict, parsed, &mut frame),
        _ => Err(DropReason::Malformed),
    }
}

fn edit_packet(verdict: Verdict, frame: &Frame, bytes: &mut [u8]) -> Result<Vec<Out>, DropReason> {
    let packet = &frame.packet;
    match verdict {
        Verdict::Deliver(delivery) => {
            match delivery.to {
                Some(to) => deliver(bytes, frame, to, ChecksumState::Complete)?,
                None => decapsulate(bytes, frame)?,
            };
            one(Way::Stack, bytes, packet)
        }
        Verdict::Forward(forward) => tunnel(&forward, frame, bytes),
        Verdict::Direct { to } => {
            edit::spend_hop_limit(bytes, packet)?;
            one(Way::Neighbour(to), bytes, packet)
        }
        Verdict::Nat(nat) | Verdict::NatReply(nat) => {
            decapsulate(bytes, frame)?;
            edit::decrement_hop_limit(bytes, packet)?;
            let Nat { ends, .. } = nat;
            translate(bytes, packet, &ends, ChecksumState::Complete)?;
            let to = ends.destination.map_or(packet.ip.destination(), |end| end.address);
            one(Way::Route(to), bytes, packet)
        }
        Verdict::Reply(say) => {
            reply(bytes, packet, say.from, say.mss_max, ChecksumState::Complete)?;
            one(Way::Route(say.to), bytes, packet)
        }
        Verdict::TooBig { mtu, from } => {
            let mut error = [0; too_big::ANSWER_LEN_MAX];
            let len = too_big::answer(&bytes[packet.at..packet.end()], mtu, from, &mut error)?;
            Ok(vec![Out { way: Way::Route(packet.ip.source()), bytes: error[..len].to_vec() }])
        }
        Verdict::AnswerEcho => {
            let mut answer = vec![0; packet.ip.total_len()];
            let len = echo::reply(bytes, packet, &mut answer)?;
            answer.truncate(len);
            Ok(vec![Out { way: Way::Route(packet.ip.source()), bytes: answer }])
        }
        Verdict::Ask => Ok(Vec::new()),
        Verdict::Pass | Verdict::Drop(_) | Verdict::AnswerArp | Verdict::AnswerNeighbour => {
            Err(DropReason::Malformed)
        }
    }
}

fn one(way: Way, bytes: &[u8], packet: &Packet) -> Result<Vec<Out>, DropReason> {
    Ok(vec![Out { way, bytes: bytes[packet.at..packet.end()].to_vec() }])
}

/// Into a tunnel, in pieces if the packet is too big for it and may be cut.
fn tunnel(forward: &Forward, frame: &Frame, bytes: &mut [u8]) -> Result<Vec<Out>, DropReason> {
    let packet = &frame.packet;
    decapsulate(bytes, frame)?;
    edit::decrement_hop_limit(bytes, packet)?;
    let flow = FlowHash::of(packet, 0);
    let Some(mtu) = forward.fragment else {
        return Ok(vec![wrapped(forward, &bytes[packet.at..packet.end()], flow)?]);
    };
    let mut fragments = Fragments::new(bytes, packet, mtu)?;
    let mut piece = vec![0; usize::from(mtu)];
    let mut outs = Vec::new();
    while let Some(len) = fragments.next_into(&mut piece) {
        outs.push(wrapped(forward, &piece[..len?], flow)?);
    }
    Ok(outs)
}

fn wrapped(forward: &Forward, packet: &[u8], flow: FlowHash) -> Result<Out, DropReason> {
    let Forward { encapsulation, from, to, hops, .. } = *forward;
    let tunnel = Tunnel { encapsulation, source: from, destination: to };
    let overhead = tunnel.overhead();
    let mut bytes = vec![0; overhead];
    bytes.extend_from_slice(packet);
    tunnel.encapsulate(&mut bytes, overhead, hops, flow)?;
    Ok(Out { way: Way::Route(to), bytes })
}
