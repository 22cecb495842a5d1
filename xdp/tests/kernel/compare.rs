//! What the director's verdict makes of a frame, and whether the kernel did the same.

use crate::above;
use crate::world::{
    FLOW_SEED, Kernel, MAC, MTU_MIN, NAT_PORTS, NODE, NoSockets, ROUTERS, VIRTUAL, World, next_hop,
    node_address, peer_address,
};
use dpr_director::Arrival;
use dpr_model::{Delivery, DropReason, Forward, MacAddress, Protocol, Verdict};
use dpr_rewrite::ethernet::{self, EthernetHeader, ethertype};
use dpr_rewrite::ipv4::Ipv4Header;
use dpr_rewrite::ipv6::Ipv6Header;
use dpr_rewrite::tunnel::{HOPS_MAGIC, HOPS_MAGIC_MASK, LABEL_MAGIC, LABEL_MAGIC_MASK};
use dpr_rewrite::udp::UdpHeader;
use dpr_rewrite::{
    FlowHash, Frame, Kind, Network, Parsed, Tunnel, Version, decapsulate, deliver, edit, gue, parse,
    protocol, too_big, translate,
};
use dpr_xdp::Run;
use dpr_xdp::abi::Counters;
use std::fmt;
use std::net::IpAddr;

const ETHERNET_LEN: usize = ethernet::HEADER_LEN;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const ICMP_LEN: usize = 8;
const VERSIONS: [Version; 2] = [Version::V4, Version::V6];
/// Room in front of a frame for an outer header.
const HEADROOM: usize = 64;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// What has to come out.
pub(crate) enum Outcome {
    /// The frame, untouched, to the host.
    Untouched,
    /// A frame to the host.
    ToHost(Vec<u8>),
    /// A frame to the network.
    ToNetwork(Vec<u8>),
    /// Nothing, for a reason.
    Dropped(DropReason),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untouched => f.write_str("untouched"),
            Self::ToHost(frame) => write!(f, "to the host {}", hex(frame)),
            Self::ToNetwork(frame) => write!(f, "to the network {}", hex(frame)),
            Self::Dropped(reason) => write!(f, "dropped: {}", reason.label()),
        }
    }
}

/// As much of a frame as headers take.
fn hex(frame: &[u8]) -> String {
    let bytes: Vec<String> = frame.iter().take(130).map(|byte| format!("{byte:02x}")).collect();
    format!("{} bytes: {}", frame.len(), bytes.join(" "))
}

/// Shows a frame to both, and says what differs.
pub(crate) fn check(
    world: &mut World,
    kernel: &mut Kernel,
    frame: &[u8],
    before: &mut Counters,
) -> Result<(), String> {
    let Some(expected) = expected(world, frame) else { return Ok(()) };
    let run = kernel.programs.run(frame).map_err(|error| error.to_string())?;
    above::learn(world, kernel, frame);
    let after = kernel.tables.counters().map_err(|error| error.to_string())?;
    let is_equal = agrees(&expected, frame, &run, before, &after);
    let drops: Vec<_> =
        DropReason::ALL.iter().filter(|reason| after.dropped(**reason) > before.dropped(**reason)).collect();
    *before = after;
    if is_equal {
        return Ok(());
    }
    Err(format!(
        "director: {expected}\nkernel: action {}, drops {drops:?}, {}\nframe: {}",
        run.action,
        hex(&run.frame),
        hex(frame)
    ))
}

fn agrees(expected: &Outcome, frame: &[u8], run: &Run, before: &Counters, after: &Counters) -> bool {
    match expected {
        Outcome::Untouched => run.action == XDP_PASS && run.frame == frame,
        Outcome::ToHost(wanted) => run.action == XDP_PASS && is_padded(wanted, &run.frame, frame),
        Outcome::ToNetwork(wanted) => run.action == XDP_TX && is_padded(wanted, &run.frame, frame),
        Outcome::Dropped(reason) => {
            let reasons: &[DropReason] = match reason {
                DropReason::Truncated | DropReason::Malformed if quotes_other_version(frame) => {
                    &[DropReason::Truncated, DropReason::Malformed]
                }
                _ => std::slice::from_ref(reason),
            };
            let counted = |reason: &DropReason| after.dropped(*reason) == before.dropped(*reason) + 1;
            run.action == XDP_DROP && reasons.iter().any(counted)
        }
    }
}

/// What the kernel sends may end with the padding of what came in.
fn is_padded(wanted: &[u8], sent: &[u8], frame: &[u8]) -> bool {
    sent.starts_with(wanted) && frame.ends_with(&sent[wanted.len()..])
}

/// Whether the director does something for a packet that the programs do not: cut it, or answer it.
pub(crate) fn is_beyond_the_programs(frame: &[u8]) -> bool {
    let Ok(Parsed::Ip(Frame { packet, .. })) = parse(frame) else { return false };
    let is_too_big =
        packet.ip.total_len() + IPV6_LEN + gue::OVERHEAD > usize::from(MTU_MIN) && !packet.ip.dont_fragment();
    is_too_big || packet.kind == Kind::EchoRequest
}

/// What has to happen to a frame; the kernel is shown everything, the director only what is for an address of ours. `None` where
/// user space and programs know different things.
fn expected(world: &mut World, frame: &[u8]) -> Option<Outcome> {
    let Ok(ethernet) = EthernetHeader::parse(frame) else { return Some(Outcome::Untouched) };
    let bytes = &frame[ETHERNET_LEN..];
    let is_looked_at = match ethernet.ethertype {
        _ if !ethernet.tags.is_empty() => false,
        ethertype::IPV4 if is_for_a_delivery_address(bytes) => {
            world.director.count_drops(DropReason::UnknownDelivery, 1);
            return Some(Outcome::Dropped(DropReason::UnknownDelivery));
        }
        ethertype::IPV6 if is_for_a_delivery_address_v6(bytes) => {
            world.director.count_drops(DropReason::UnknownDelivery, 1);
            return Some(Outcome::Dropped(DropReason::UnknownDelivery));
        }
        ethertype::IPV4 => is_looked_at(bytes, world),
        ethertype::IPV6 => is_looked_at_v6(bytes, world),
        ethertype::ARP => true,
        _ => false,
    };
    if !is_looked_at {
        return Some(Outcome::Untouched);
    }
    let parsed = match parse(frame) {
        Ok(parsed) => parsed,
        Err(reason) => return Some(Outcome::Dropped(reason)),
    };
    let wire_len = match &parsed {
        Parsed::Ip(frame) => {
            frame.outer.map_or(0, |outer| usize::from(outer.len)) + frame.packet.ip.total_len()
        }
        Parsed::Arp(_) | Parsed::Neighbour(_) | Parsed::Other => frame.len(),
    };
    let arrival = Arrival { parsed: &parsed, wire_len, packets: 1 };
    if is_handed_up(world, &parsed) {
        return Some(Outcome::Untouched);
    }
    match above::part_of(world, &parsed) {
        above::Part::Nothing => {}
        above::Part::Entered(entered) => world.count_entered(&entered),
        above::Part::NotComparable => return None,
        above::Part::All => {
            above::handle(world, arrival);
            return Some(Outcome::Untouched);
        }
    }
    let verdict = world.director.handle_frame(arrival, &mut NoSockets, world.now);
    if let Parsed::Ip(frame) = &parsed
        && verdict != Verdict::Pass
    {
        let flow = above::about(&frame.packet);
        flow.iter().for_each(|flow| world.count_further(flow));
    }
    let outcome = outcome_of(verdict, &parsed, frame, &ethernet);
    Some(outcome.unwrap_or_else(|reason| {
        world.director.count_drops(reason, 1);
        Outcome::Dropped(reason)
    }))
}

/// Whether user space decides about a question: in the director behind the programs, which is another one than that of the test.
fn is_handed_up(world: &World, parsed: &Parsed) -> bool {
    matches!(parsed, Parsed::Arp(request) if world.may_move(request.target.into()))
}

/// Whether a packet is for an address that is valid on the node only. Where there are no programs, nftables drop it.
fn is_for_a_delivery_address(bytes: &[u8]) -> bool {
    bytes.len() >= IPV4_LEN && bytes[0] >> 4 == 4 && bytes[16..18] == [169, 254] && bytes[18] >> 4 == 4
}

fn is_for_a_delivery_address_v6(bytes: &[u8]) -> bool {
    bytes.len() >= IPV6_LEN && bytes[0] >> 4 == 6 && bytes[24..32] == [0xfd, 0x64, 0x70, 0x72, 0x40, 0, 0, 0]
}

/// Whether an address is a service address of some node, or this node's own.
fn is_ours(destination: IpAddr) -> bool {
    let addresses = [NODE, VIRTUAL].into_iter().chain((1..4).map(peer_address));
    addresses
        .flat_map(|address| VERSIONS.map(|version| node_address(version, address)))
        .any(|its| its == destination)
}

/// Whether a packet is for an address of ours; a tunnel only if it ends here.
fn is_looked_at(bytes: &[u8], world: &World) -> bool {
    if bytes.len() < IPV4_LEN || bytes[0] >> 4 != 4 || is_to_no_service(bytes, world) {
        return false;
    }
    let destination = IpAddr::from([bytes[16], bytes[17], bytes[18], bytes[19]]);
    let Ok(header) = Ipv4Header::parse(bytes) else { return is_ours(destination) };
    let payload = &bytes[header.header_len()..header.total_len()];
    let is_tunnel = !header.is_fragment()
        && match header.protocol() {
            protocol::IPV4 | protocol::IPV6 => {
                header.dont_fragment() && header.id() & HOPS_MAGIC_MASK == HOPS_MAGIC
            }
            protocol::UDP => is_gue(payload),
            _ => false,
        };
    is_ours(destination) && (!is_tunnel || destination == node_address(world.nodes, NODE))
}

fn is_looked_at_v6(bytes: &[u8], world: &World) -> bool {
    let Some(destination) = bytes.get(24..40).and_then(|octets| <[u8; 16]>::try_from(octets).ok()) else {
        return false;
    };
    let destination = IpAddr::from(destination);
    if bytes[0] >> 4 != 6 || has_no_service(bytes[6], bytes.get(IPV6_LEN + 2..IPV6_LEN + 4), world) {
        return false;
    }
    let Ok(header) = Ipv6Header::parse(bytes) else { return is_ours(destination) };
    let payload = &bytes[header.header_len()..header.total_len()];
    let is_tunnel = header.fragment().is_none()
        && match header.protocol {
            protocol::IPV4 | protocol::IPV6 => header.flow_label() & LABEL_MAGIC_MASK == LABEL_MAGIC,
            protocol::UDP => is_gue(payload),
            _ => false,
        };
    is_ours(destination) && (!is_tunnel || destination == node_address(world.nodes, NODE))
}

/// Whether this is a GUE tunnel of ours.
fn is_gue(payload: &[u8]) -> bool {
    let Ok(datagram) = UdpHeader::parse(payload) else { return false };
    let gue: Option<&[u8; gue::HEADER_LEN]> =
        payload.get(8..usize::from(datagram.len)).and_then(|bytes| bytes.first_chunk());
    gue.is_some_and(|gue| {
        datagram.destination_port == gue::PORT
            && gue[0] == 1
            && matches!(gue[1], protocol::IPV4 | protocol::IPV6)
            && gue[2..5] == [0, 0, 0xd9]
            && gue[5] >> 4 == 4
    })
}

/// Whether a packet over IPv4, broken or not, has a port that no service has.
fn is_to_no_service(bytes: &[u8], world: &World) -> bool {
    let is_fragment = (bytes[6] & 0x3f, bytes[7]) != (0, 0);
    let port_at = usize::from(bytes[0] & 0xf) * 4 + 2;
    has_no_service(bytes[9], bytes.get(port_at..port_at + 2).filter(|_| !is_fragment), world)
}

fn has_no_service(protocol: u8, port: Option<&[u8]>, world: &World) -> bool {
    let Some(Ok(port)) = port.map(<[u8; 2]>::try_from) else { return false };
    let port = u16::from_be_bytes(port);
    // Real servers answer to those of translations.
    let has_none = |protocol: Protocol, own: [u16; 2]| {
        !own.contains(&port) && !NAT_PORTS.contains(port) && !world.has_further(protocol, port)
    };
    match protocol {
        protocol::TCP => has_none(Protocol::Tcp, [80, 443]),
        protocol::UDP => has_none(Protocol::Udp, [53, gue::PORT]),
        _ => false,
    }
}

/// Whether an ICMP error quotes what claims to be of the other version: how that is broken, the kernel does not look.
fn quotes_other_version(frame: &[u8]) -> bool {
    let mut at = ETHERNET_LEN;
    for _ in 0..2 {
        let Ok(header) = Network::parse_quoted(&frame[at.min(frame.len())..]) else { return false };
        at += header.header_len();
        at += match header.protocol() {
            protocol::ICMP | protocol::ICMPV6 => ICMP_LEN,
            protocol::UDP => gue::OVERHEAD,
            _ => 0,
        };
        let own = if header.version() == Version::V4 { 4 } else { 6 };
        if frame.get(at).is_some_and(|byte| byte >> 4 != own) {
            return true;
        }
    }
    false
}

fn outcome_of(
    verdict: Verdict,
    parsed: &Parsed,
    frame: &[u8],
    ethernet: &EthernetHeader,
) -> Result<Outcome, DropReason> {
    match (verdict, parsed) {
        (Verdict::Drop(reason), _) => Ok(Outcome::Dropped(reason)),
        (Verdict::Deliver(delivery), Parsed::Ip(parsed)) => {
            delivered(frame, parsed, delivery, ethernet.source)
        }
        (Verdict::Forward(forward), Parsed::Ip(parsed)) => forwarded(frame, parsed, forward),
        (Verdict::Direct { to }, Parsed::Ip(parsed)) => {
            let mut bytes = frame.to_vec();
            edit::spend_hop_limit(&mut bytes, &parsed.packet)?;
            sent_to(to, &bytes[parsed.packet.at..parsed.packet.end()])
        }
        (Verdict::Nat(nat) | Verdict::NatReply(nat), Parsed::Ip(parsed)) => {
            let mut bytes = frame.to_vec();
            edit::decrement_hop_limit(&mut bytes, &parsed.packet)?;
            translate(&mut bytes, &parsed.packet, &nat.ends, edit::ChecksumState::Complete)?;
            let to = nat.ends.destination.map_or(parsed.packet.ip.destination(), |end| end.address);
            sent_to(to, &bytes[parsed.packet.at..parsed.packet.end()])
        }
        (Verdict::TooBig { mtu, from }, Parsed::Ip(parsed)) => {
            let original = &frame[parsed.packet.at..parsed.packet.end()];
            let mut answer = vec![0; too_big::ANSWER_LEN_MAX];
            let len = too_big::answer(original, mtu, from, &mut answer)?;
            let router = ROUTERS[usize::from(parsed.packet.ip.version() == Version::V6)];
            let to = if parsed.outer.is_some() { router } else { ethernet.source };
            Ok(Outcome::ToNetwork(with_header(to, MAC, &answer[..len])))
        }
        (Verdict::AnswerArp, Parsed::Arp(request)) => {
            let mut reply = vec![0; dpr_rewrite::arp::FRAME_LEN_MAX];
            let len = request.reply(MAC, &mut reply)?;
            Ok(Outcome::ToNetwork(reply[..len].to_vec()))
        }
        _ => Ok(Outcome::Untouched),
    }
}

fn delivered(
    frame: &[u8],
    parsed: &Frame,
    delivery: Delivery,
    source: MacAddress,
) -> Result<Outcome, DropReason> {
    let mut bytes = frame.to_vec();
    let at = match delivery.to {
        Some(to) => deliver(&mut bytes, parsed, to, edit::ChecksumState::Complete)?,
        None => decapsulate(&mut bytes, parsed)?,
    };
    Ok(Outcome::ToHost(with_header(MAC, source, &bytes[at..parsed.packet.end()])))
}

fn forwarded(frame: &[u8], parsed: &Frame, forward: Forward) -> Result<Outcome, DropReason> {
    let mut buffer = vec![0; HEADROOM];
    buffer.extend_from_slice(frame);
    decapsulate(&mut buffer[HEADROOM..], parsed)?;
    edit::decrement_hop_limit(&mut buffer[HEADROOM..], &parsed.packet)?;
    let tunnel =
        Tunnel { encapsulation: forward.encapsulation, source: forward.from, destination: forward.to };
    let flow = FlowHash::of(&parsed.packet, FLOW_SEED);
    let start = tunnel.encapsulate(&mut buffer, HEADROOM + parsed.packet.at, forward.hops, flow)?;
    sent_to(forward.to, &buffer[start..HEADROOM + parsed.packet.end()])
}

fn sent_to(node: IpAddr, packet: &[u8]) -> Result<Outcome, DropReason> {
    let next = next_hop(node).ok_or(DropReason::NoNeighbour)?;
    Ok(Outcome::ToNetwork(with_header(next.destination, next.source, packet)))
}

pub(crate) fn with_header(destination: MacAddress, source: MacAddress, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 6 { ethertype::IPV6 } else { ethertype::IPV4 };
    let mut frame = ethernet::header(destination, source, ethertype).to_vec();
    frame.extend_from_slice(packet);
    frame
}
