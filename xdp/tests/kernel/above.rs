//! What user space does in place of the programs, of flows that it decides about: the same director does both here.

use crate::world::{Kernel, MTU_OF_HOPS, NAT_PORTS, NODE, NoSockets, World, next_hop, node_address};
use dpr_director::{Arrival, Onward};
use dpr_model::status::Counters;
use dpr_model::{ClientSocket, FlowKey, ForwardingMethod, Protocol, ServiceSocket};
use dpr_rewrite::tcp::flag;
use dpr_rewrite::{Frame, Kind, Packet, Parsed, parse, protocol};

/// How much of a packet is user space's.
pub(crate) enum Part {
    /// The programs do what the director says.
    Nothing,
    /// So they do, by what user space has entered.
    Entered(Entered),
    /// They hand it up.
    All,
    /// Programs and user space have tables of their own, the director of the test has one.
    NotComparable,
}

/// A packet of a flow that user space has entered.
pub(crate) struct Entered {
    /// Others may own the address.
    pub(crate) may_move: bool,
    pub(crate) is_tunnelled: bool,
}

/// What user space does about a packet for a service whose flows it decides about, or of a real server.
pub(crate) fn part_of(world: &World, parsed: &Parsed) -> Part {
    let Parsed::Ip(frame) = parsed else { return Part::Nothing };
    let packet = &frame.packet;
    let Some(flow) = about(packet) else { return part_of_fragment(world, packet) };
    match world.method_above(&flow) {
        Some(method) if world.director.decides_about(&flow) => part_of_flow(world, frame, &flow, method),
        None if frame.outer.is_none() && NAT_PORTS.contains(flow.service.port) => {
            part_of_what_goes_on(world, frame, &flow)
        }
        _ => Part::Nothing,
    }
}

/// The same of a flow that user space decides about; leases aside.
fn part_of_flow(world: &World, frame: &Frame, flow: &FlowKey, method: ForwardingMethod) -> Part {
    let comes_translated = comes_translated(world, flow);
    match &frame.outer {
        Some(outer) => {
            let is_handed_on = !outer.hops.is_spent()
                && outer.destination == node_address(world.nodes, NODE)
                && world.update.peers.iter().any(|peer| peer.candidate.address == outer.source);
            if !is_handed_on || comes_translated {
                return Part::NotComparable;
            }
        }
        None if comes_translated => return Part::Nothing,
        // By direct routing, from a peer that takes itself for the owner.
        None if frame.packet.ip.hop_limit() <= 1 && method == ForwardingMethod::Dr => return Part::Nothing,
        None => {}
    }
    // Without a lease nothing becomes of it.
    if world.may_move(flow.service.address) && !world.director.decides_for(flow, world.now) {
        return Part::Nothing;
    }
    part_of_what_goes_on(world, frame, flow)
}

fn part_of_what_goes_on(world: &World, frame: &Frame, flow: &FlowKey) -> Part {
    if is_carried_on(world, frame) {
        let may_move = world.may_move(flow.service.address);
        return Part::Entered(Entered { may_move, is_tunnelled: frame.outer.is_some() });
    }
    // Without a daemon nobody would be above.
    if world.has_lease { Part::All } else { Part::NotComparable }
}

/// Only first fragments say what they are about.
fn part_of_fragment(world: &World, packet: &Packet) -> Part {
    let Kind::Fragment(_) = packet.kind else { return Part::Nothing };
    let address = packet.ip.destination();
    let is_above = |protocol: Protocol, port: u16| {
        let client = ClientSocket { address: packet.ip.source(), port: 0 };
        let flow = FlowKey { protocol, client, service: ServiceSocket { address, port } };
        let may_decide = world.may_move(address) || world.director.decides_about(&flow);
        world.method_above(&flow).is_some() && may_decide
    };
    let is_above = [(Protocol::Tcp, 80), (Protocol::Tcp, 443), (Protocol::Udp, 53)]
        .into_iter()
        .filter(|(protocol, _)| protocol.number() == packet.ip.protocol())
        .any(|(protocol, port)| is_above(protocol, port));
    match packet.ip.protocol() {
        protocol::TCP | protocol::UDP if is_above => Part::NotComparable,
        _ => Part::Nothing,
    }
}

/// The flow of a client's packet, or of an error about an answer to one.
pub(crate) fn about(packet: &Packet) -> Option<FlowKey> {
    let (source, address) = (packet.ip.source(), packet.ip.destination());
    let (protocol, client, port) = match &packet.kind {
        Kind::Tcp(header) => (Protocol::Tcp, (source, header.source_port()), header.destination_port()),
        Kind::Udp(header) => (Protocol::Udp, (source, header.source_port), header.destination_port),
        Kind::IcmpError(quote) => {
            (quote.protocol, (quote.destination, quote.destination_port), quote.source_port)
        }
        _ => return None,
    };
    let client = ClientSocket { address: client.0, port: client.1 };
    Some(FlowKey { protocol, client, service: ServiceSocket { address, port } })
}

/// Whether a peer may have translated a packet: it stays here, and the programs see to that.
fn comes_translated(world: &World, flow: &FlowKey) -> bool {
    let view = world.director.view();
    let translator = view.translators.get(&flow.client.address);
    translator.is_some_and(|translator| translator.ports.contains(flow.client.port))
}

fn is_carried_on(world: &World, frame: &Frame) -> bool {
    let packet = &frame.packet;
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
        // What came out of a tunnel is not translated there.
        _ if frame.outer.is_some() => return false,
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
