//! A packet's journey: the order of steps, and nothing else.

use crate::director::{Director, LocalSockets};
use crate::handing::{WayToOwner, gathers_fragments};
use crate::ownership::{Home, Service, SlotOwner, Tenure};
use crate::subject::{Step, Subject, flow_of};
use dpr_conntrack::{Observation, Segment, TcpState};
use dpr_model::{
    DropReason, FlowKey, ForwardingMethod, HopBudget, NodeId, Protocol, ServiceSocket, Sharing, Timestamp,
    Verdict,
};
use dpr_rewrite::ethernet::Tags;
use dpr_rewrite::{Kind, Outer, Packet};
use std::ops::ControlFlow;

/// What a packet may still do, and what has to be taken off it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Journey {
    pub(crate) hops: HopBudget,
    /// Who forwarded it in a tunnel; `None` for a packet that came directly.
    pub(crate) forwarder: Option<NodeId>,
    /// Bytes of outer header.
    pub(crate) decapsulate: u8,
    /// Largest IP packet without the outer header, bytes.
    pub(crate) wire_len: usize,
    /// It came directly and under VLAN tags, where the host itself hears nothing.
    pub(crate) tagged: bool,
    /// When it came in.
    pub(crate) now: Timestamp,
}

/// A flow's real server, and how the flow stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    pub(crate) server: NodeId,
    pub(crate) state: TcpState,
}

impl Journey {
    pub(crate) fn direct(tags: Tags, wire_len: usize, now: Timestamp) -> Self {
        let tagged = !tags.is_empty();
        Self { hops: HopBudget::FRESH, forwarder: None, decapsulate: 0, wire_len, tagged, now }
    }
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
        if outer.destination != self.address {
            return Verdict::Pass;
        }
        let Some(forwarder) = self.peers.node_at(outer.source) else {
            return Verdict::Drop(DropReason::TunnelFromStranger);
        };
        let journey = Journey {
            hops: outer.hops,
            forwarder: Some(forwarder),
            decapsulate: outer.len,
            wire_len: wire_len.saturating_sub(usize::from(outer.len)),
            tagged: false,
            now,
        };
        let subject = Subject::of(packet, &self.ownership);
        let verdict = match outer.hops.is_spent() {
            true => self.end_journey(subject, packet, forwarder, journey),
            false => self.go_on(subject, packet, journey, sockets),
        };
        match verdict {
            // The kernel would not know what to do with a tunnel.
            Verdict::Pass => Verdict::Drop(DropReason::TunnelUnknownService),
            verdict => verdict,
        }
    }

    /// A packet that came directly: of a client, of a peer that only changed its addresses, or of a real server.
    #[inline(always)]
    pub(crate) fn handle_direct(
        &mut self,
        packet: &Packet,
        journey: Journey,
        sockets: &mut dyn LocalSockets,
    ) -> Verdict {
        // Nearly every packet: no subject is put together only to be taken apart again.
        if let Some(flow) = flow_of(packet) {
            return match self.ownership.service_of(&flow) {
                Some(service) => self.handle_flow(&flow, &service, packet, journey, sockets),
                None => self.handle_nat_reply(packet, journey.now),
            };
        }
        match Subject::of_other(packet, &self.ownership) {
            Subject::Nothing => self.handle_nat_reply(packet, journey.now),
            subject => self.go_on(subject, packet, journey, sockets),
        }
    }

    /// A packet that may go on: to the owner of its slot, or as this node decides as the owner.
    fn go_on(
        &mut self,
        subject: Subject,
        packet: &Packet,
        journey: Journey,
        sockets: &mut dyn LocalSockets,
    ) -> Verdict {
        match subject {
            Subject::Flow(ref flow, ref service) => self.handle_flow(flow, service, packet, journey, sockets),
            Subject::Fragment(piece, protocol, home) => {
                if gathers_fragments(&home, journey) {
                    return self.handle_fragment(piece, protocol, packet, journey, sockets);
                }
                let way = WayToOwner::of(home.encapsulation, home.is_direct(protocol), home.sharing);
                let left = self.leave_to_owner(home.owner, way, subject, packet, journey);
                left.unwrap_or_else(|| self.handle_fragment(piece, protocol, packet, journey, sockets))
            }
            Subject::Echo(home) => {
                let way = WayToOwner::of(home.encapsulation, false, home.sharing);
                self.leave_to_owner(home.owner, way, subject, packet, journey)
                    .unwrap_or_else(|| self.answer_echo(&home, packet, journey))
            }
            Subject::Nothing => Verdict::Pass,
        }
    }

    /// A packet that ends its journey here, whatever this node would have decided about it.
    pub(crate) fn end_journey(
        &mut self,
        subject: Subject,
        packet: &Packet,
        director: NodeId,
        journey: Journey,
    ) -> Verdict {
        match subject {
            Subject::Flow(flow, service) => {
                self.receive(&flow, &service, packet, director, journey.now);
                self.deliver(service.delivery, flow.service.address, journey)
            }
            Subject::Fragment(_, _, home) => self.deliver(home.delivery, packet.ip.destination(), journey),
            Subject::Echo(_) => Verdict::AnswerEcho,
            Subject::Nothing => Verdict::Pass,
        }
    }

    /// Counts a connection that `director` gave to this node, once.
    fn receive(
        &mut self,
        flow: &FlowKey,
        service: &Service,
        packet: &Packet,
        director: NodeId,
        now: Timestamp,
    ) {
        let step = match &packet.kind {
            Kind::Tcp(header) => Step::of_tcp(header),
            Kind::Udp(_) => Step::DATAGRAM,
            _ => return,
        };
        match self.table.observe(flow, step.segment, now) {
            Observation::Unknown if step.opens => {
                self.accept(director, &service.named(flow), now);
                // The entry is only there to count a retransmitted SYN once: without room it counts twice.
                let _ = self.table.insert_if_room(flow, step.segment, self.node, now);
            }
            Observation::Unknown => {}
            Observation::Known { state: TcpState::HalfOpen, .. } => {}
            // Nothing else says which datagram is the first.
            Observation::Known { .. } if flow.protocol == Protocol::Udp => {}
            Observation::Known { .. } => {
                self.table.remove(flow);
            }
        }
    }

    #[inline(always)]
    fn handle_flow(
        &mut self,
        flow: &FlowKey,
        service: &Service,
        packet: &Packet,
        journey: Journey,
        sockets: &mut dyn LocalSockets,
    ) -> Verdict {
        // Nearly always it is this node's own: then nothing has to be put together to be handed on.
        if service.owner != (SlotOwner { node: self.node, tenure: Tenure::Home }) {
            let left = self.leave_flow(flow, service, packet, journey);
            if let Some(verdict) = left {
                return verdict;
            }
        }
        if let Some(director) = self.translator_of(flow, journey) {
            return self.end_journey(Subject::Flow(*flow, *service), packet, director, journey);
        }
        if self.was_sent_back(service, packet, journey) {
            return self.deliver(service.delivery, flow.service.address, journey);
        }
        let placement = match &packet.kind {
            Kind::Tcp(header) => self.place_packet(flow, service, Step::of_tcp(header), journey.now, sockets),
            Kind::Udp(_) => self.place_packet(flow, service, Step::DATAGRAM, journey.now, sockets),
            _ => Some(self.placement_of(flow, service)),
        };
        match placement {
            Some(placement) => self.send_to(placement, flow, service, packet, journey),
            None => Verdict::Ask,
        }
    }

    /// What becomes of a packet of a flow that others own, or could own; `None` when this node decides.
    #[inline(never)]
    fn leave_flow(
        &mut self,
        flow: &FlowKey,
        service: &Service,
        packet: &Packet,
        journey: Journey,
    ) -> Option<Verdict> {
        let way = WayToOwner::of_flow(service);
        let subject = Subject::Flow(*flow, *service);
        // Its last hop needs nobody's right any more.
        if way.may_move
            && let Some(director) = self.translator_of(flow, journey)
        {
            return Some(self.end_journey(subject, packet, director, journey));
        }
        self.leave_to_owner(service.owner, way, subject, packet, journey)
    }

    /// The peer that has given this node a flow by translation. One that went on before this node knew the peer stays where
    /// it is.
    #[inline(always)]
    fn translator_of(&self, flow: &FlowKey, journey: Journey) -> Option<NodeId> {
        if journey.forwarder.is_none()
            && let Some(translator) = self.translated_by(flow.client)
            && self.table.get(flow).is_none_or(|entry| entry.real_server == self.node)
        {
            return Some(translator);
        }
        None
    }

    /// True for a packet with which a peer that also takes itself for the owner has made the last hop by direct routing.
    #[inline]
    pub(crate) fn was_sent_back(&mut self, service: &Service, packet: &Packet, journey: Journey) -> bool {
        let is_spent = service.method == ForwardingMethod::Dr
            && journey.forwarder.is_none()
            && packet.ip.hop_limit() <= 1;
        self.counters.loops_stopped += u64::from(is_spent);
        is_spent
    }

    /// Where a segment or datagram goes, which may be the first of its flow; `None` while others are asked.
    #[inline(always)]
    pub(crate) fn place_packet(
        &mut self,
        flow: &FlowKey,
        service: &Service,
        step: Step,
        now: Timestamp,
        sockets: &mut dyn LocalSockets,
    ) -> Option<Placement> {
        if self.policy_kind.is_stateless() {
            let placement = self.placement_of(flow, service);
            if step.opens && flow.protocol == Protocol::Tcp {
                self.record_decision(placement.server, now);
            }
            return Some(placement);
        }
        if let Observation::Known { real_server, state, retransmitted_syn, handshake_completed } =
            self.table.observe(flow, step.segment, now)
        {
            let server_is_gone = || real_server != self.node && !self.peers.is_alive(real_server);
            // A late copy of the SYN must not move a connection whose real server only seems to be gone.
            let begins = step.opens && !(retransmitted_syn && state != TcpState::HalfOpen);
            if !(begins && server_is_gone()) {
                if service.sharing != Sharing::Home
                    && let ControlFlow::Break(placement) =
                        self.progress(flow, service, (step.segment, state, handshake_completed), now, sockets)
                {
                    return placement;
                }
                let placement = Placement { server: real_server, state };
                let is_kept = real_server == self.node && state != TcpState::HalfOpen;
                if service.is_persistent {
                    self.renew_client(flow, service, placement, now);
                } else if is_kept && flow.protocol == Protocol::Tcp && !self.remembers_kept(flow, service) {
                    // Kept connections cost nothing once they are established: the kernel's socket knows them.
                    self.table.remove(flow);
                }
                return Some(placement);
            }
            // Its SYN went to a node that has died since: the client's retransmission gets a better answer. So does the next
            // datagram: there is no connection to lose.
            self.table.remove(flow);
        }
        if !step.opens {
            let is_anothers = service.sharing != Sharing::Home && !self.holds_socket(flow, service, sockets);
            if is_anothers && self.must_ask(flow, service, now) {
                return None;
            }
            return Some(self.place_answer(flow, service, step, now).unwrap_or(self.here()));
        }
        if self.holds_socket(flow, service, sockets) {
            return Some(self.here());
        }
        if service.sharing != Sharing::Home {
            self.copies.asked.withdraw(flow);
        }
        Some(self.place_new(flow, service, step, now))
    }

    /// A packet of a known flow that others could own: they hear of it, or are asked, and then it is theirs to say where it
    /// goes.
    #[inline(never)]
    fn progress(
        &mut self,
        flow: &FlowKey,
        service: &Service,
        (segment, state, is_established): (Segment, TcpState, bool),
        now: Timestamp,
        sockets: &mut dyn LocalSockets,
    ) -> ControlFlow<Option<Placement>> {
        // What is over for a node that has just taken over may have begun again for the one before it.
        if state == TcpState::Closed && !segment.rst {
            if self.holds_socket(flow, service, sockets) {
                return ControlFlow::Break(Some(self.here()));
            }
            if self.must_ask(flow, service, now) {
                return ControlFlow::Break(None);
            }
        }
        self.note_progress(flow, segment, is_established, now);
        ControlFlow::Continue(())
    }

    /// Decides about a flow that begins, and remembers it.
    fn place_new(&mut self, flow: &FlowKey, service: &Service, step: Step, now: Timestamp) -> Placement {
        let state = match flow.protocol {
            Protocol::Tcp => TcpState::HalfOpen,
            Protocol::Udp => TcpState::Established,
        };
        let decided = self.decide_for_client(flow, service, now);
        let mut placement = Placement { server: decided, state };
        if !self.can_reach(placement, flow, service, now) {
            self.counters.nat_refused += 1;
            placement.server = self.node;
        }
        if self.table.insert(flow, step.segment, placement.server, now).is_err() {
            // Without an entry the next packet would not follow, so the connection stays.
            placement.server = self.node;
        }
        if placement.server == decided {
            self.give_client(flow, service, decided, now);
        }
        self.record_decision(placement.server, now);
        if service.sharing != Sharing::Home && flow.protocol == Protocol::Udp {
            self.note_progress(flow, step.segment, true, now);
        }
        placement
    }

    /// Where what cannot begin a flow goes: to the flow's real server.
    pub(crate) fn placement_of(&mut self, flow: &FlowKey, service: &Service) -> Placement {
        if self.policy_kind.is_stateless() {
            let server = self.choose(&service.named(flow)).unwrap_or(self.node);
            return Placement { server, state: TcpState::Established };
        }
        let entry = self.table.get(flow);
        entry.map_or(self.here(), |entry| Placement { server: entry.real_server, state: entry.state })
    }

    fn here(&self) -> Placement {
        Placement { server: self.node, state: TcpState::Established }
    }

    pub(crate) fn holds_socket(
        &self,
        flow: &FlowKey,
        service: &Service,
        sockets: &mut dyn LocalSockets,
    ) -> bool {
        self.local_socket(flow, service).is_some_and(|local| sockets.holds(flow.protocol, local, flow.client))
    }

    /// True when the local stack certainly has no socket for a flow; false also where this node does not know yet where it would be.
    pub(crate) fn lacks_socket(
        &self,
        flow: &FlowKey,
        service: &Service,
        sockets: &mut dyn LocalSockets,
    ) -> bool {
        self.local_socket(flow, service).is_some_and(|local| sockets.lacks(flow.protocol, local, flow.client))
    }

    fn local_socket(&self, flow: &FlowKey, service: &Service) -> Option<ServiceSocket> {
        let address = self.local_address(service.delivery, flow.service.address)?;
        Some(ServiceSocket { address, port: flow.service.port })
    }

    fn answer_echo(&self, home: &Home, packet: &Packet, journey: Journey) -> Verdict {
        // The kernel answers for what the host holds, unless it would have to look into a tunnel or under tags.
        let is_its_home = home.reporter == self.node && !matches!(home.sharing, Sharing::Shared(_));
        let is_held = is_its_home && !self.answer_for.contains(&packet.ip.destination());
        if journey.forwarder.is_none() && !journey.tagged && is_held {
            Verdict::Pass
        } else {
            Verdict::AnswerEcho
        }
    }
}
