//! What user space does in place of the programs, of flows that it decides about: the same director does both here.

use crate::world::{Kernel, MTU_OF_HOPS, NAT_PORTS, NoSockets, World, next_hop};
use dpr_director::{Arrival, Onward};
use dpr_model::status::Counters;
use dpr_model::{FlowKey, ForwardingMethod, Protocol};
use dpr_rewrite::tcp::flag;
use dpr_rewrite::{Kind, Packet, Parsed, parse, protocol};
use std::net::IpAddr;

/// How much of a packet is user space's.
pub(crate) enum Part {
    /// The programs do what the director says.
    Nothing,
    /// They hand it up.
    All,
    /// Programs and user space have tables of their own, the director of the test has one.
    NotComparable,
}

/// What user space does about a packet for a service whose flows it decides about, or of a real server.
pub(crate) fn part_of(world: &World, parsed: &Parsed) -> Part {
    let Parsed::Ip(frame) = parsed else { return Part::Nothing };
    let packet = &frame.packet;
    let Some((protocol, port)) = about(packet) else { return part_of_fragment(world, packet) };
    let address = packet.ip.destination();
    let service = world.is_begun_above(protocol, address, port);
    let is_own_port = NAT_PORTS.contains(port);
    if !service && !is_own_port {
        return Part::Nothing;
    }
    if frame.outer.is_some() {
        return if service { Part::NotComparable } else { Part::Nothing };
    }
    if service && comes_translated(world, packet) {
        return Part::Nothing;
    }
    // By direct routing, from a peer that takes itself for the owner.
    let by_dr =
        || world.own_service(protocol, address, port).is_some_and(|its| its.method == ForwardingMethod::Dr);
    if service && packet.ip.hop_limit() <= 1 && by_dr() {
        return Part::Nothing;
    }
    if is_carried_on(world, packet) {
        return Part::Nothing;
    }
    // Without a daemon nobody would be above.
    if world.has_lease { Part::All } else { Part::NotComparable }
}

/// Only first fragments say what they are about.
fn part_of_fragment(world: &World, packet: &Packet) -> Part {
    let Kind::Fragment(_) = packet.kind else { return Part::Nothing };
    let translates = [(Protocol::Tcp, 80), (Protocol::Tcp, 443), (Protocol::Udp, 53)]
        .into_iter()
        .filter(|(protocol, _)| protocol.number() == packet.ip.protocol())
        .any(|(protocol, port)| world.is_begun_above(protocol, packet.ip.destination(), port));
    match packet.ip.protocol() {
        protocol::TCP | protocol::UDP if translates => Part::NotComparable,
        _ => Part::Nothing,
    }
}

/// Protocol, and the port of this node's.
fn about(packet: &Packet) -> Option<(Protocol, u16)> {
    match &packet.kind {
        Kind::Tcp(header) => Some((Protocol::Tcp, header.destination_port())),
        Kind::Udp(header) => Some((Protocol::Udp, header.destination_port)),
        Kind::IcmpError(quote) => Some((quote.protocol, quote.source_port)),
        _ => None,
    }
}

/// Whether a peer may have translated a packet: it stays here, and the programs see to that.
fn comes_translated(world: &World, packet: &Packet) -> bool {
    let (address, port): (IpAddr, u16) = match &packet.kind {
        Kind::Tcp(header) => (packet.ip.source(), header.source_port()),
        Kind::Udp(header) => (packet.ip.source(), header.source_port),
        Kind::IcmpError(quote) => (quote.destination, quote.destination_port),
        _ => return false,
    };
    let view = world.director.view();
    view.translators.get(&address).is_some_and(|translator| translator.ports.contains(port))
}

fn is_carried_on(world: &World, packet: &Packet) -> bool {
    let is_plain = match &packet.kind {
        Kind::Tcp(header) => {
            let telling = flag::SYN | flag::ACK | flag::RST | flag::FIN;
            header.flags() & telling == flag::ACK || !world.has_lease && !header.has(flag::SYN)
        }
        Kind::Udp(_) => true,
        _ => false,
    };
    let Some(flow) = world.director.flow_to_carry(packet).filter(|_| is_plain) else { return false };
    let to = match (world.carrying.carried(&flow).map(|carried| carried.onward), is_of_client(&flow, packet))
    {
        (None, _) => return false,
        (Some(Onward::AsSent), _) => return true,
        (Some(Onward::Translated { server, .. }), true) => server.ip(),
        (Some(Onward::Translated { .. }), false) => flow.client.address,
    };
    next_hop(to).is_some() && packet.ip.total_len() <= usize::from(MTU_OF_HOPS)
}

fn is_of_client(flow: &FlowKey, packet: &Packet) -> bool {
    (flow.client.address, flow.service.address) == (packet.ip.source(), packet.ip.destination())
}

/// The director behind the programs sees a packet. What it counts is no count of the programs.
pub(crate) fn handle(world: &mut World, arrival: Arrival<'_>) {
    let before = world.director.counters();
    world.director.handle_frame(arrival, &mut NoSockets, world.now);
    let after = world.director.counters();
    add_difference(&mut world.counted_above, &after, &before);
}

/// What the programs are told after a packet: who got a connection that user space has decided about, they know from the next
/// update on.
pub(crate) fn learn(world: &mut World, kernel: &mut Kernel, frame: &[u8]) {
    let Counters { connections_kept, connections_forwarded, .. } = world.counted_above;
    let decided = connections_kept + connections_forwarded;
    if decided != world.decided_above {
        world.decided_above = decided;
        world.tell(kernel, world.has_lease);
    }
    if let Ok(Parsed::Ip(frame)) = parse(frame) {
        world.learn(kernel, &frame.packet);
    }
}

fn add_difference(total: &mut Counters, after: &Counters, before: &Counters) {
    total.connections_kept += after.connections_kept - before.connections_kept;
    total.connections_forwarded += after.connections_forwarded - before.connections_forwarded;
    total.connections_received += after.connections_received - before.connections_received;
    total.packets_forwarded += after.packets_forwarded - before.packets_forwarded;
    total.packets_delivered += after.packets_delivered - before.packets_delivered;
    total.packets_received += after.packets_received - before.packets_received;
    total.loops_stopped += after.loops_stopped - before.loops_stopped;
    total.nat_replies += after.nat_replies - before.nat_replies;
    total.icmp_too_big_sent += after.icmp_too_big_sent - before.icmp_too_big_sent;
}
