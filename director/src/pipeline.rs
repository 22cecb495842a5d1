//! A packet's journey: the order of steps, and nothing else.

use crate::director::{Director, LocalSockets};
use crate::ownership::Tenure;
use dpr_conntrack::{Observation, Segment, TcpState};
use dpr_model::{
    ClientSocket, Delivery, DropReason, FlowKey, Forward, HopBudget, NodeId, Protocol, Reply, ServiceSocket,
    Timestamp, Verdict,
};
use dpr_rewrite::tcp::{self, TcpHeader, flag};
use dpr_rewrite::{Encapsulation, Kind, Outer, Packet, Version, protocol, tunnel};
use std::net::IpAddr;

/// Bytes that forwarding adds to a packet: peers are reached over IPv4.
const TUNNEL_OVERHEAD: usize = tunnel::overhead(Encapsulation::Ipip, Version::V4);

/// What a packet may still do, and what has to be taken off it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Journey {
    pub(crate) hops: HopBudget,
    /// Bytes of outer header.
    pub(crate) decapsulate: u8,
    /// Largest IP packet without the outer header, bytes.
    pub(crate) wire_len: usize,
    /// When it came in.
    pub(crate) now: Timestamp,
}

impl Director {
    pub(crate) fn handle_tunnelled(
        &mut self,
        packet: &Packet,
        outer: &Outer,
        wire_len: usize,
        sockets: &mut dyn LocalSockets,
        now: Timestamp,
    ) -> Verdict {
        if outer.destination != self.address || outer.encapsulation != Encapsulation::Ipip {
            return Verdict::Pass;
        }
        let Some(director) = self.peers.node_at(outer.source) else {
            return Verdict::Drop(DropReason::TunnelFromStranger);
        };
        let journey = Journey {
            hops: outer.hops,
            decapsulate: outer.len,
            wire_len: wire_len.saturating_sub(usize::from(outer.len)),
            now,
        };
        if !outer.hops.is_spent() {
            return match self.handle_direct(packet, journey, sockets) {
                Verdict::Pass => Verdict::Drop(DropReason::TunnelUnknownService),
                verdict => verdict,
            };
        }
        match self.flow_of(packet) {
            Ok(Some(flow)) => self.receive(&flow, packet, director, journey),
            Ok(None) => Verdict::Drop(DropReason::TunnelUnknownService),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// A packet that ends its journey here, whatever this node would have decided about it.
    fn receive(&mut self, flow: &FlowKey, packet: &Packet, director: NodeId, journey: Journey) -> Verdict {
        if let Kind::Tcp(header) = &packet.kind {
            let segment = segment_of(header);
            match self.table.observe(flow, segment, journey.now) {
                Observation::Unknown if is_first(header) => {
                    self.accept(director, flow, journey.now);
                    // The entry is only there to count a retransmitted SYN once: without room it counts twice.
                    let _ = self.table.insert_if_room(flow, segment, self.node, journey.now);
                }
                Observation::Unknown => {}
                Observation::Known { state: TcpState::HalfOpen, .. } => {}
                Observation::Known { .. } => {
                    self.table.remove(flow);
                }
            }
        }
        self.deliver(flow, journey)
    }

    /// A packet that may go on: to the owner of its slot, or as this node decides as the owner.
    pub(crate) fn handle_direct(
        &mut self,
        packet: &Packet,
        journey: Journey,
        sockets: &mut dyn LocalSockets,
    ) -> Verdict {
        let flow = match self.flow_of(packet) {
            Ok(Some(flow)) => flow,
            Ok(None) => return Verdict::Pass,
            Err(reason) => return Verdict::Drop(reason),
        };
        let Some(owner) = self.ownership.owner_of_address(flow.service.address) else { return Verdict::Pass };
        if owner.node != self.node {
            return self.hand_to(owner.node, packet, journey);
        }
        if owner.tenure == Tenure::Leased && !self.lease.is_valid(journey.now) {
            return Verdict::Drop(DropReason::NoLease);
        }
        match &packet.kind {
            Kind::Tcp(header) if self.policy_kind.is_stateless() => {
                self.act_without_table(&flow, header, packet, journey)
            }
            Kind::Tcp(header) => self.act_as_owner(&flow, header, packet, journey, sockets),
            Kind::IcmpError(_) => match self.table.get(&flow) {
                Some(entry) => self.send_to(entry.real_server, &flow, packet, journey),
                None => self.deliver(&flow, journey),
            },
            Kind::Udp(_) | Kind::EchoRequest | Kind::Fragment(_) | Kind::Other => Verdict::Pass,
        }
    }

    fn act_as_owner(
        &mut self,
        flow: &FlowKey,
        header: &TcpHeader,
        packet: &Packet,
        journey: Journey,
        sockets: &mut dyn LocalSockets,
    ) -> Verdict {
        let segment = segment_of(header);
        if let Observation::Known { real_server, state, retransmitted_syn, .. } =
            self.table.observe(flow, segment, journey.now)
        {
            let server_is_gone = || real_server != self.node && !self.peers.is_alive(real_server);
            // A late copy of the SYN must not move a connection whose real server only seems to be gone.
            let begins = is_first(header) && !(retransmitted_syn && state != TcpState::HalfOpen);
            if !(begins && server_is_gone()) {
                if real_server == self.node && state != TcpState::HalfOpen {
                    // Kept connections cost nothing once they are established: the kernel's socket knows them.
                    self.table.remove(flow);
                }
                return self.send_to(real_server, flow, packet, journey);
            }
            // Its SYN went to a node that has died since: the client's retransmission gets a better answer.
            self.table.remove(flow);
        }
        if !is_first(header) || self.holds_socket(flow, sockets) {
            return self.deliver(flow, journey);
        }
        let chosen = self.decide(flow, journey.now);
        let chosen = match self.table.insert(flow, segment, chosen, journey.now) {
            Ok(()) => chosen,
            // Without an entry the next packet would not follow, so the connection stays.
            Err(_) => self.node,
        };
        self.record_decision(chosen, journey.now);
        self.send_to(chosen, flow, packet, journey)
    }

    fn act_without_table(
        &mut self,
        flow: &FlowKey,
        header: &TcpHeader,
        packet: &Packet,
        journey: Journey,
    ) -> Verdict {
        let chosen = self.choose(flow).unwrap_or(self.node);
        if is_first(header) {
            self.record_decision(chosen, journey.now);
        }
        self.send_to(chosen, flow, packet, journey)
    }

    fn holds_socket(&self, flow: &FlowKey, sockets: &mut dyn LocalSockets) -> bool {
        let Some(delivery) = self.deliveries.delivery_of(flow.service.address) else { return false };
        let local = ServiceSocket { address: delivery, port: flow.service.port };
        sockets.holds(flow.protocol, local, flow.client)
    }

    fn send_to(&mut self, server: NodeId, flow: &FlowKey, packet: &Packet, journey: Journey) -> Verdict {
        if server == self.node {
            return self.deliver(flow, journey);
        }
        self.forward(server, HopBudget::SPENT, packet, journey)
    }

    fn hand_to(&mut self, owner: NodeId, packet: &Packet, journey: Journey) -> Verdict {
        match journey.hops.after_a_hop() {
            Some(hops) => self.forward(owner, hops, packet, journey),
            None => Verdict::Drop(DropReason::HopsSpent),
        }
    }

    fn forward(&mut self, to: NodeId, hops: HopBudget, packet: &Packet, journey: Journey) -> Verdict {
        if journey.hops.is_spent() {
            return Verdict::Drop(DropReason::HopsSpent);
        }
        let Some(address) = self.peers.address_of(to) else { return Verdict::Drop(DropReason::NoRoute) };
        if journey.wire_len + TUNNEL_OVERHEAD > usize::from(self.mtu) {
            return self.too_big(packet, journey.now);
        }
        Verdict::Forward(Forward {
            encapsulation: Encapsulation::Ipip,
            from: self.address,
            to: address,
            hops,
            decapsulate: journey.decapsulate,
            fragment: None,
        })
    }

    fn too_big(&mut self, packet: &Packet, now: Timestamp) -> Verdict {
        let is_error = matches!(packet.kind, Kind::IcmpError(_));
        if !packet.ip.dont_fragment() || is_error || !self.error_limit.allows(now) {
            return Verdict::Drop(DropReason::TooBig);
        }
        Verdict::TooBig { mtu: self.mtu - TUNNEL_OVERHEAD as u16, from: self.address }
    }

    fn deliver(&self, flow: &FlowKey, journey: Journey) -> Verdict {
        match self.deliveries.delivery_of(flow.service.address) {
            Some(delivery) => {
                Verdict::Deliver(Delivery { to: Some(delivery), decapsulate: journey.decapsulate })
            }
            None => Verdict::Drop(DropReason::UnknownDelivery),
        }
    }

    pub(crate) fn reply_verdict(&self, packet: &Packet) -> Verdict {
        let delivery = packet.ip.source();
        if !self.deliveries.ranges().contains(delivery) {
            return Verdict::Pass;
        }
        let Kind::Tcp(_) = packet.kind else { return Verdict::Pass };
        let Some(service @ IpAddr::V4(_)) = self.deliveries.service_of(delivery) else {
            return Verdict::Drop(DropReason::UnknownDelivery);
        };
        let owner = self.ownership.owner_of_address(service);
        let came_through_a_tunnel = owner.is_none_or(|owner| owner.node != self.node);
        Verdict::Reply(Reply {
            from: service,
            to: packet.ip.destination(),
            mss_max: came_through_a_tunnel.then(|| tcp::mss_max(self.mtu, TUNNEL_OVERHEAD, Version::V4)),
        })
    }

    /// The flow of a packet from a client, if it is for a service address of the cluster.
    fn flow_of(&self, packet: &Packet) -> Result<Option<FlowKey>, DropReason> {
        let address = packet.ip.destination();
        let (client, service) = match &packet.kind {
            Kind::Tcp(header) => (
                ClientSocket { address: packet.ip.source(), port: header.source_port },
                ServiceSocket { address, port: header.destination_port },
            ),
            // The error is about a reply: its sender was the service, its receiver the client.
            Kind::IcmpError(quote) if quote.protocol == Protocol::Tcp => (
                ClientSocket { address: quote.destination, port: quote.destination_port },
                ServiceSocket { address, port: quote.source_port },
            ),
            Kind::Fragment(_) if self.is_for_a_service(packet) => return Err(DropReason::Fragment),
            Kind::Udp(_) | Kind::IcmpError(_) | Kind::EchoRequest | Kind::Fragment(_) | Kind::Other => {
                return Ok(None);
            }
        };
        if !self.ownership.has_service(Protocol::Tcp, service) {
            return Ok(None);
        }
        Ok(Some(FlowKey { protocol: Protocol::Tcp, client, service }))
    }

    fn is_for_a_service(&self, packet: &Packet) -> bool {
        packet.ip.protocol() == protocol::TCP && self.ownership.has_address(packet.ip.destination())
    }
}

fn segment_of(header: &TcpHeader) -> Segment {
    Segment {
        syn: header.has(flag::SYN),
        ack: header.has(flag::ACK),
        fin: header.has(flag::FIN),
        rst: header.has(flag::RST),
        sequence: header.sequence,
    }
}

/// True for the first segment of a connection.
fn is_first(header: &TcpHeader) -> bool {
    header.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN
}
