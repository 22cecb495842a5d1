//! Network address translation: new ends for what goes to a real server, and the old ones for what comes back.

use crate::director::Director;
use crate::ownership::Service;
use crate::pipeline::{Journey, Placement};
use crate::sending::method_to;
use dpr_conntrack::sync::{Record, RecordState};
use dpr_conntrack::{NatTable, Segment, TcpState};
use dpr_model::{
    ClientSocket, DropReason, End, FlowKey, ForwardingMethod, Nat, NodeId, Protocol, Sharing, Timestamp,
    Translation, Verdict,
};
use dpr_rewrite::tcp::flag;
use dpr_rewrite::{Kind, Packet};
use std::net::{IpAddr, SocketAddr};

/// Ends of a packet of a real server. Of an error about what had been sent to it, those of what the error quotes, as seen
/// from there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServersPacket {
    pub(crate) protocol: Protocol,
    pub(crate) server: SocketAddr,
    pub(crate) to: SocketAddr,
}

impl ServersPacket {
    pub(crate) fn of(packet: &Packet) -> Option<Self> {
        let (source, destination) = (packet.ip.source(), packet.ip.destination());
        let ends = |protocol, port, to_port| Self {
            protocol,
            server: SocketAddr::new(source, port),
            to: SocketAddr::new(destination, to_port),
        };
        match &packet.kind {
            Kind::Tcp(header) => Some(ends(Protocol::Tcp, header.source_port(), header.destination_port())),
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
        let Some(stand_in) = self.stand_in_for(flow, server, placement, journey.now) else {
            return Verdict::Drop(DropReason::NoNatPort);
        };
        nat_verdict(Some(end_of(stand_in)), server, packet, journey)
    }

    /// To this node's own server, for a connection that its director had given to this node by full NAT, and that this node
    /// has taken over since: the server goes on seeing whom it saw. `None` for every other connection that stays here.
    pub(crate) fn translate_to_own_server(
        &mut self,
        placement: Placement,
        flow: &FlowKey,
        packet: &Packet,
        journey: Journey,
    ) -> Option<Verdict> {
        let server = self.peers.socket_of(self.node, flow)?;
        let busy_for = self.table.timeout_of(flow.protocol, placement.state);
        let stand_in = self.nat.as_mut()?.stand_in_for(flow, server, None, busy_for, journey.now)?;
        let delivery = SocketAddr::new(self.deliveries.delivery_of(server.ip())?, server.port());
        Some(nat_verdict(Some(end_of(stand_in)), delivery, packet, journey))
    }

    /// True for a connection that its real server had kept as a director, before this node took over: its stack knows the
    /// client itself. Connections that others translated have come with the end that stands for their client.
    pub(crate) fn was_kept(
        &self,
        placement: Placement,
        flow: &FlowKey,
        service: &Service,
        now: Timestamp,
    ) -> bool {
        let stand_in = || {
            let server = self.peers.socket_of(placement.server, flow)?;
            self.nat.as_ref()?.stand_in_of(flow, server, now)
        };
        service.sharing == Sharing::Takeover
            && !placement.server.is_external()
            && !self.policy_kind.is_stateless()
            && stand_in().is_none()
    }

    /// The other way: what this node's own server answers to a client whose place an address takes for which this node stands
    /// on the link. Nobody else would answer for it.
    pub(crate) fn answer_of_own_server(&self, packet: &Packet, from: IpAddr) -> Option<Verdict> {
        let nat = self.nat.as_ref()?;
        let ServersPacket { protocol, server, to } = ServersPacket::of(packet)?;
        let server = SocketAddr::new(from, server.port());
        if !self.stands_in_at(to) {
            return None;
        }
        let flow = nat.flow_of(protocol, to, server, self.table.latest())?;
        self.is_at(&flow, server)
            .then(|| Verdict::NatReply(Nat { ends: ends_for_client(&flow, true), decapsulate: 0 }))
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
        let busy_for = self.table.timeout_of(flow.protocol, placement.state);
        let address = self.nat_address(flow.service.address);
        let (server, nat) = (self.peers.socket_of(placement.server, flow), self.nat.as_mut());
        let Some((server, nat)) = server.zip(nat) else { return false };
        nat.begin(flow, server, address, busy_for, now).is_some()
    }

    fn stand_in_for(
        &mut self,
        flow: &FlowKey,
        server: SocketAddr,
        placement: Placement,
        now: Timestamp,
    ) -> Option<SocketAddr> {
        let busy_for = self.table.timeout_of(flow.protocol, placement.state);
        let address = self.nat_address(flow.service.address);
        self.nat.as_mut()?.stand_in_for(flow, server, address, busy_for, now)
    }

    /// Source of translated packets that this node begins with. At home an address that others take over, so that replies find
    /// those; otherwise the node address, where it is of the flow's version, and at home the service address where it is not.
    fn nat_address(&self, service: IpAddr) -> Option<IpAddr> {
        let (sharing, _) = self.ownership.first_owner(service)?;
        let is_home = self.ownership.reporter_of(service) == Some(self.node);
        match self.address.is_ipv4() == service.is_ipv4() {
            true if !(is_home && sharing == Sharing::Takeover) => Some(self.address),
            _ => is_home.then_some(service),
        }
    }

    /// As whom the real server of a flow sees its client, where this node's translation, or another's, changes that.
    pub(crate) fn stand_in_of(&self, server: NodeId, flow: &FlowKey) -> Option<SocketAddr> {
        let nat = self.nat.as_ref()?;
        nat.stand_in_of(flow, self.peers.socket_of(server, flow)?, self.table.latest())
    }

    /// Takes in what another node says of a flow that it translated; to be called when the flow has been taken in.
    pub(crate) fn adopt_translation(&mut self, record: &Record, now: Timestamp) {
        let server = self.peers.socket_of(record.real_server, &record.flow);
        let (Some(nat), Some(server), Some(stand_in)) = (&mut self.nat, server, record.stand_in) else {
            return;
        };
        let state = match record.state {
            RecordState::Established => TcpState::Established,
            RecordState::Closed => TcpState::Closed,
        };
        let busy_for = self.table.timeout_of(record.flow.protocol, state);
        // Without room the connection ends with its director, as all others do that nobody has a copy of.
        nat.adopt(&record.flow, server, stand_in, busy_for, now);
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
        let is_own_port = ports.is_some_and(|ports| ports.contains(ends.to.port()));
        if is_own_port && self.is_own_address(ends.to.ip()) || self.stands_in_at(ends.to) {
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
        let flow = self.nat.as_ref()?.flow_of(ends.protocol, ends.to, ends.server, now)?;
        self.is_at(&flow, ends.server).then_some(flow)
    }

    /// True for a port from which a node translated for whose address this node stands on the link.
    fn stands_in_at(&self, to: SocketAddr) -> bool {
        let (Some((Sharing::Takeover, owner)), Some(home)) =
            (self.ownership.first_owner(to.ip()), self.ownership.reporter_of(to.ip()))
        else {
            return false;
        };
        self.nat.is_some()
            && home != self.node
            && owner.node == self.node
            && self.peers.translates_from(home, to.port())
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
        Verdict::NatReply(Nat { ends: ends_for_client(flow, to_client), decapsulate: 0 })
    }

    /// Only with translation a director sees both halves of a conversation: answers keep a UDP flow, and a server's reset ends
    /// a connection. A forged one does no harm while the client goes on: its packets go where they went. Of what another node
    /// decides about by now, this one sees answers only.
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
            Kind::Tcp(_) if !self.ownership.is_own(flow) => {
                let Some(entry) = self.table.get(flow) else { return };
                self.table.observe(flow, Segment::going_on(entry.generation), now);
                entry.state
            }
            _ => return,
        };
        let busy_for = self.table.timeout_of(flow.protocol, state);
        if let Some(nat) = &mut self.nat {
            nat.renew(flow, server, busy_for, now);
        }
    }

    fn is_own_address(&self, address: IpAddr) -> bool {
        address == self.address || self.ownership.reporter_of(address) == Some(self.node)
    }
}

/// What a reply to the client of a flow gets; `to_client` says whether the server saw another one in its place.
fn ends_for_client(flow: &FlowKey, to_client: bool) -> Translation {
    let FlowKey { client, service, .. } = flow;
    let client = End { address: client.address, port: Some(client.port) };
    let service = End { address: service.address, port: Some(service.port) };
    Translation { source: Some(service), destination: to_client.then_some(client) }
}

fn end_of(socket: SocketAddr) -> End {
    End { address: socket.ip(), port: Some(socket.port()) }
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
