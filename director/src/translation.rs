//! Network address translation: new ends for what goes to a real server, and the old ones for what comes back.

use crate::director::Director;
use crate::ownership::Service;
use crate::pipeline::{Journey, Placement};
use crate::sending::method_to;
use dpr_conntrack::{NatTable, Segment, TcpState};
use dpr_model::{
    ClientSocket, DropReason, End, FlowKey, ForwardingMethod, Nat, NodeId, Protocol, ServiceSocket,
    Timestamp, Translation, Verdict,
};
use dpr_rewrite::tcp::flag;
use dpr_rewrite::{Kind, Packet};
use std::net::{IpAddr, SocketAddr};

/// Ends of a packet of a real server. Of an error about what had been sent to it, those of what the error quotes, as seen
/// from there.
#[derive(Clone, Copy, Debug)]
struct ServersPacket {
    protocol: Protocol,
    server: SocketAddr,
    to: SocketAddr,
}

impl ServersPacket {
    fn of(packet: &Packet) -> Option<Self> {
        let (source, destination) = (packet.ip.source(), packet.ip.destination());
        let ends = |protocol, port, to_port| Self {
            protocol,
            server: SocketAddr::new(source, port),
            to: SocketAddr::new(destination, to_port),
        };
        match &packet.kind {
            Kind::Tcp(header) => Some(ends(Protocol::Tcp, header.source_port, header.destination_port)),
            Kind::Udp(header) => Some(ends(Protocol::Udp, header.source_port, header.destination_port)),
            Kind::IcmpError(quote) => Some(Self {
                protocol: quote.protocol,
                server: SocketAddr::new(quote.destination, quote.destination_port),
                to: SocketAddr::new(destination, quote.source_port),
            }),
            _ => None,
        }
    }
}

impl Director {
    /// Full NAT.
    pub(crate) fn translate(
        &mut self,
        placement: Placement,
        flow: &FlowKey,
        packet: &Packet,
        journey: Journey,
    ) -> Verdict {
        if let Kind::Fragment(_) = packet.kind {
            return Verdict::Drop(DropReason::Fragment);
        }
        let Some(server) = self.peers.socket_of(placement.server, flow) else {
            return Verdict::Drop(DropReason::NoRoute);
        };
        let Some(port) = self.nat_port(flow, server, placement, journey.now) else {
            return Verdict::Drop(DropReason::NoNatPort);
        };
        let source = End { address: self.nat_address(flow.service.address), port: Some(port) };
        nat_verdict(Some(source), server, packet, journey)
    }

    /// Half NAT: the server sees the client.
    pub(crate) fn translate_half(
        &self,
        server: NodeId,
        flow: &FlowKey,
        packet: &Packet,
        journey: Journey,
    ) -> Verdict {
        match self.peers.socket_of(server, flow) {
            // Only the first fragment has ports, so none may have to change.
            Some(socket)
                if matches!(packet.kind, Kind::Fragment(_)) && socket.port() != flow.service.port =>
            {
                Verdict::Drop(DropReason::Fragment)
            }
            Some(socket) => nat_verdict(None, socket, packet, journey),
            None => Verdict::Drop(DropReason::NoRoute),
        }
    }

    /// True when nothing is missing to send a new flow where it was placed; a NAT port is the flow's from now on.
    pub(crate) fn can_reach(
        &mut self,
        placement: Placement,
        flow: &FlowKey,
        service: &Service,
        now: Timestamp,
    ) -> bool {
        if placement.server == self.node || method_to(placement.server, service) != ForwardingMethod::Nat {
            return true;
        }
        let server = self.peers.socket_of(placement.server, flow);
        server.is_some_and(|server| self.nat_port(flow, server, placement, now).is_some())
    }

    fn nat_port(
        &mut self,
        flow: &FlowKey,
        server: SocketAddr,
        placement: Placement,
        now: Timestamp,
    ) -> Option<u16> {
        let busy_for = self.table.timeout_of(flow.protocol, placement.state);
        self.nat.as_mut()?.port_for(flow, server, busy_for, now)
    }

    /// Source of translated packets: the node address, or for the other IP version the service address, whose home this is.
    fn nat_address(&self, service: IpAddr) -> IpAddr {
        if self.address.is_ipv4() == service.is_ipv4() { self.address } else { service }
    }

    /// The peer that sends translated packets from this socket: they have made their last hop.
    #[inline(always)]
    pub(crate) fn translated_by(&self, source: ClientSocket) -> Option<NodeId> {
        if self.peers.some_peer_translates() { self.translator_at(source) } else { None }
    }

    fn translator_at(&self, source: ClientSocket) -> Option<NodeId> {
        let home = || self.ownership.reporter_of(source.address);
        let peer = self.peers.node_at(source.address).or_else(home)?;
        self.peers.translates_from(peer, source.port).then_some(peer)
    }

    /// What a real server sends back to who had translated its packets, and errors about those.
    pub(crate) fn handle_nat_reply(&mut self, packet: &Packet, now: Timestamp) -> Verdict {
        let Some(ends) = ServersPacket::of(packet) else { return Verdict::Pass };
        let ports = self.nat.as_ref().map(NatTable::ports);
        if ports.is_some_and(|ports| ports.contains(ends.to.port())) && self.is_own_address(ends.to.ip()) {
            return match self.translated_flow(ends, now) {
                Some(flow) => self.answer_client(&flow, ends.server, true, packet, now),
                None => Verdict::Drop(DropReason::UnknownNatPort),
            };
        }
        let Some(service) = self.peers.half_nat_service_of(ends.protocol, ends.server) else {
            return Verdict::Pass;
        };
        let client = ClientSocket { address: ends.to.ip(), port: ends.to.port() };
        let flow = FlowKey { protocol: ends.protocol, client, service };
        if self.is_at(&flow, ends.server) {
            self.answer_client(&flow, ends.server, false, packet, now)
        } else {
            Verdict::Pass
        }
    }

    /// The flow for which a server was sent something from a port of this node.
    fn translated_flow(&self, ends: ServersPacket, now: Timestamp) -> Option<FlowKey> {
        let flow = self.nat.as_ref()?.flow_of(ends.protocol, ends.to.port(), ends.server, now)?;
        let is_sound = self.nat_address(flow.service.address) == ends.to.ip();
        (is_sound && self.is_at(&flow, ends.server)).then_some(flow)
    }

    /// True while the flow's real server is the one that listens there.
    fn is_at(&self, flow: &FlowKey, server: SocketAddr) -> bool {
        // Without a table, who once got a packet of the flow may answer.
        self.policy_kind.is_stateless()
            || self
                .table
                .get(flow)
                .is_some_and(|entry| self.peers.socket_of(entry.real_server, flow) == Some(server))
    }

    fn answer_client(
        &mut self,
        flow: &FlowKey,
        server: SocketAddr,
        to_client: bool,
        packet: &Packet,
        now: Timestamp,
    ) -> Verdict {
        if packet.ip.hop_limit() <= 1 {
            return Verdict::Drop(DropReason::TtlExpired);
        }
        self.observe_reply(flow, server, packet, now);
        let ServiceSocket { address, port } = flow.service;
        let client = End { address: flow.client.address, port: Some(flow.client.port) };
        let ends = Translation {
            source: Some(End { address, port: Some(port) }),
            destination: to_client.then_some(client),
        };
        Verdict::NatReply(Nat { ends, decapsulate: 0 })
    }

    /// Only with translation a director sees both halves of a conversation: answers keep a UDP flow, and a server's reset ends
    /// a connection. A forged one does no harm while the client goes on: its packets go where they went.
    fn observe_reply(&mut self, flow: &FlowKey, server: SocketAddr, packet: &Packet, now: Timestamp) {
        let state = match &packet.kind {
            Kind::Udp(_) => {
                self.table.observe(flow, Segment::DATAGRAM, now);
                TcpState::Established
            }
            Kind::Tcp(header) if header.has(flag::RST) => {
                if let Some(entry) = self.table.get(flow) {
                    self.table.close(flow, entry.generation, now);
                }
                TcpState::Closed
            }
            _ => return,
        };
        let busy_for = self.table.timeout_of(flow.protocol, state);
        if let Some(nat) = &mut self.nat {
            nat.touch(flow, server, busy_for, now);
        }
    }

    fn is_own_address(&self, address: IpAddr) -> bool {
        address == self.address || self.ownership.reporter_of(address) == Some(self.node)
    }
}

fn nat_verdict(source: Option<End>, server: SocketAddr, packet: &Packet, journey: Journey) -> Verdict {
    if packet.ip.hop_limit() <= 1 {
        return Verdict::Drop(DropReason::TtlExpired);
    }
    if journey.hops.is_spent() {
        return Verdict::Drop(DropReason::HopsSpent);
    }
    // Without ports there is nothing to give one to.
    let port = (!matches!(packet.kind, Kind::Fragment(_))).then_some(server.port());
    let destination = Some(End { address: server.ip(), port });
    Verdict::Nat(Nat { ends: Translation { source, destination }, decapsulate: journey.decapsulate })
}
