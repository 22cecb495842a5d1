//! Flows that another data plane carries on: in the kernel, by what it is told here.
//!
//! This director decides about them, sees how they begin and end, and keeps their ports and clients. It is told which of them are in
//! use.

use crate::director::Director;
use crate::ownership::{Service, SlotOwner, Tenure};
use crate::pipeline::Placement;
use crate::sending::method_to;
use crate::subject::flow_of;
use crate::translation::ServersPacket;
use dpr_conntrack::{EntryView, Segment, TcpState};
use dpr_model::{FlowKey, ForwardingMethod, NodeId, PortRange, Protocol, ServiceSocket, Sharing, Timestamp};
use dpr_rewrite::Packet;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// An established flow, and how its packets go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarriedFlow {
    /// The flow, as its client sees it.
    pub flow: FlowKey,
    /// Who terminates it.
    pub real_server: NodeId,
    /// The client's initial sequence number.
    pub generation: u32,
    /// How its packets go on.
    pub onward: Onward,
}

/// How a client's packets go on to the real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// As the service's packets go: in a tunnel, by direct routing, or delivered here.
    AsSent,
    /// Translated.
    Translated {
        /// Where the real server listens.
        server: SocketAddr,
        /// Whom the server sees in place of the client; `None` with half NAT, where it sees the client.
        stand_in: Option<SocketAddr>,
    },
}

/// Who sends translated packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translator {
    /// The peer.
    pub node: NodeId,
    /// From which ports.
    pub ports: PortRange,
}

impl Director {
    /// The flow of a packet that another data plane may carry on, if this node decides about it: of a client's packet, or of one
    /// that a real server answers with.
    pub fn flow_to_carry(&self, packet: &Packet) -> Option<FlowKey> {
        let may_begin_here =
            self.nat.is_some() || self.peers.has_half_nat() || self.persistence.is_asked_for();
        if !may_begin_here {
            return None;
        }
        match flow_of(packet).filter(|flow| self.ownership.service_of(flow).is_some()) {
            Some(flow) => Some(flow),
            None => {
                let ends = ServersPacket::of(packet)?;
                self.nat.as_ref()?.flow_of(ends.protocol, ends.to, ends.server, self.table.latest())
            }
        }
    }

    /// How a flow goes on that another data plane may carry on, as of the latest time that this director was told; `None` for one
    /// that has to be decided about, has not begun, ends, or that the other plane decides about itself.
    pub fn carried(&self, flow: &FlowKey) -> Option<CarriedFlow> {
        let service = self.service_decided_here(flow).filter(|_| !self.policy_kind.is_stateless())?;
        let EntryView { real_server, state, generation } = self.table.get(flow)?;
        // The next datagram after a server's death gets a better answer.
        let is_there = || real_server == self.node || self.peers.is_alive(real_server);
        if state != TcpState::Established || !(flow.protocol == Protocol::Tcp || is_there()) {
            return None;
        }
        let onward = self.onward(flow, &service, real_server)?;
        Some(CarriedFlow { flow: *flow, real_server, generation, onward })
    }

    /// `None` for what the other plane decides about itself, or finds among the host's sockets.
    fn onward(&self, flow: &FlowKey, service: &Service, real_server: NodeId) -> Option<Onward> {
        if real_server == self.node {
            return service.is_persistent.then_some(Onward::AsSent);
        }
        let server = || self.peers.socket_of(real_server, flow);
        match method_to(real_server, service) {
            ForwardingMethod::Ipip | ForwardingMethod::Gue | ForwardingMethod::Dr => {
                self.begins_above(flow, service).then_some(Onward::AsSent)
            }
            ForwardingMethod::HalfNat => Some(Onward::Translated { server: server()?, stand_in: None }),
            ForwardingMethod::Nat => {
                let server = server()?;
                let stand_in = self.nat.as_ref()?.stand_in_of(flow, server, self.table.latest())?;
                Some(Onward::Translated { server, stand_in: Some(stand_in) })
            }
        }
    }

    /// True for a service about whose flows this director decides in place of another data plane, as they may have to be translated,
    /// or their clients to stay. Servers that are ill change nothing: flows that have begun go on.
    pub(crate) fn is_begun_above(
        &self,
        protocol: Protocol,
        socket: ServiceSocket,
        service: &Service,
    ) -> bool {
        let stays = service.is_persistent && !self.policy_kind.is_stateless();
        stays || self.may_translate(protocol, socket, service)
    }

    /// True for a service some of whose flows may have to be translated.
    pub(crate) fn may_translate(&self, protocol: Protocol, socket: ServiceSocket, service: &Service) -> bool {
        let translates = matches!(service.method, ForwardingMethod::Nat | ForwardingMethod::HalfNat);
        translates || self.peers.has_external(protocol, socket)
    }

    /// True for a flow that this director decides about in place of another data plane.
    pub fn decides_about(&self, flow: &FlowKey) -> bool {
        self.service_decided_here(flow).is_some_and(|service| self.begins_above(flow, &service))
    }

    /// The service of a flow, if this node is its owner; leases aside.
    fn service_decided_here(&self, flow: &FlowKey) -> Option<Service> {
        let is_here = |owner: SlotOwner| owner.node == self.node && owner.tenure != Tenure::Pending;
        self.ownership.service_of(flow).filter(|service| is_here(service.owner))
    }

    fn begins_above(&self, flow: &FlowKey, service: &Service) -> bool {
        let named = service.named(flow);
        self.is_begun_above(named.protocol, named.service, service)
    }

    /// Another data plane has carried a flow on, in the direction that keeps it.
    pub fn note_carried(&mut self, carried: &CarriedFlow, now: Timestamp) {
        let CarriedFlow { flow, generation, onward, .. } = carried;
        let segment = match flow.protocol {
            Protocol::Tcp => Segment::going_on(*generation),
            Protocol::Udp => Segment::DATAGRAM,
        };
        self.table.observe(flow, segment, now);
        let busy_for = self.table.timeout_of(flow.protocol, TcpState::Established);
        if let (Some(nat), Onward::Translated { server, .. }) = (&mut self.nat, onward) {
            nat.renew(flow, *server, busy_for, now);
        }
        self.renew_carried_client(carried, now);
    }

    /// Goes on with a flow that another data plane carried on for an earlier life of the daemon, and so with its client: where others
    /// may have given that to another node meanwhile, not before its next packet. False if there is no room.
    pub fn adopt_carried(&mut self, carried: &CarriedFlow, now: Timestamp) -> bool {
        let CarriedFlow { flow, real_server, generation, onward } = carried;
        let entry =
            EntryView { real_server: *real_server, state: TcpState::Established, generation: *generation };
        let busy_for = self.table.timeout_of(flow.protocol, entry.state);
        let has_port = match (onward, &mut self.nat) {
            (Onward::AsSent | Onward::Translated { stand_in: None, .. }, _) => true,
            (Onward::Translated { server, stand_in: Some(stand_in) }, Some(nat)) => {
                nat.adopt(flow, *server, *stand_in, busy_for, now)
            }
            (Onward::Translated { stand_in: Some(_), .. }, None) => false,
        };
        let has_room = has_port && self.table.take_over(flow, entry, now);
        let nobody_else_owns =
            self.ownership.service_of(flow).is_some_and(|service| service.sharing == Sharing::Home);
        if has_room && nobody_else_owns {
            self.renew_carried_client(carried, now);
        }
        has_room
    }

    fn renew_carried_client(&mut self, carried: &CarriedFlow, now: Timestamp) {
        let CarriedFlow { flow, real_server, .. } = carried;
        let Some(service) = self.ownership.service_of(flow) else { return };
        let placement = Placement { server: *real_server, state: TcpState::Established };
        self.renew_client(flow, &service, placement, now);
    }

    /// Who sends translated packets, by the address that they come from.
    pub(crate) fn translators(&self) -> BTreeMap<IpAddr, Translator> {
        let of = |node| self.peers.ports_of(node).map(|ports| Translator { node, ports });
        let mut translators = BTreeMap::new();
        if !self.peers.some_peer_translates() {
            return translators;
        }
        for (address, _) in self.ownership.homes() {
            let translator = self.ownership.reporter_of(address).and_then(of);
            translators.extend(translator.map(|translator| (address, translator)));
        }
        for (node, facts) in self.peers.known() {
            match of(node) {
                Some(translator) => translators.insert(facts.address, translator),
                None => translators.remove(&facts.address),
            };
        }
        translators
    }
}
