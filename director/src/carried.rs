//! Translated flows that another data plane carries on: in the kernel, by what it is told here.
//!
//! This director decides about them, sees how they begin and end, and keeps their ports. It is told which of them are in use.

use crate::director::Director;
use crate::ownership::{SlotOwner, Tenure};
use crate::sending::method_to;
use crate::subject::flow_of;
use crate::translation::ServersPacket;
use dpr_conntrack::{EntryView, Segment, TcpState};
use dpr_model::{FlowKey, ForwardingMethod, NodeId, PortRange, Protocol, Timestamp};
use dpr_rewrite::Packet;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// An established flow, and how it is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslatedFlow {
    /// The flow, as its client sees it.
    pub flow: FlowKey,
    /// Who terminates it.
    pub real_server: NodeId,
    /// Where that listens.
    pub server: SocketAddr,
    /// Whom the server sees in place of the client; `None` with half NAT, where it sees the client.
    pub stand_in: Option<SocketAddr>,
    /// The client's initial sequence number.
    pub generation: u32,
}

impl TranslatedFlow {
    /// Where its packets are sent: towards the real server, and towards the client.
    pub fn ends(&self) -> [IpAddr; 2] {
        [self.server.ip(), self.flow.client.address]
    }
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
    /// The flow that a packet is of, if this node may translate it: a client's packet, or a real server's.
    pub fn flow_to_translate(&self, packet: &Packet) -> Option<FlowKey> {
        if self.nat.is_none() && !self.peers.has_half_nat() {
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

    /// How a flow is translated that another data plane may carry on, as of the latest time that this director was told; `None`
    /// for one that has to be decided about, has not begun, ends, or is not translated.
    pub fn translated(&self, flow: &FlowKey) -> Option<TranslatedFlow> {
        let service = self.ownership.service_of(flow)?;
        let is_own = service.owner == SlotOwner { node: self.node, tenure: Tenure::Home };
        if !is_own || self.policy_kind.is_stateless() || service.is_persistent {
            return None;
        }
        let EntryView { real_server, state, generation } = self.table.get(flow)?;
        // The next datagram after a server's death gets a better answer.
        let goes_on = flow.protocol == Protocol::Tcp || self.peers.is_alive(real_server);
        if state != TcpState::Established || real_server == self.node || !goes_on {
            return None;
        }
        let server = self.peers.socket_of(real_server, flow)?;
        let stand_in = match method_to(real_server, &service) {
            ForwardingMethod::Nat => {
                Some(self.nat.as_ref()?.stand_in_of(flow, server, self.table.latest())?)
            }
            ForwardingMethod::HalfNat => None,
            ForwardingMethod::Ipip | ForwardingMethod::Gue | ForwardingMethod::Dr => return None,
        };
        Some(TranslatedFlow { flow: *flow, real_server, server, stand_in, generation })
    }

    /// Another data plane has carried a flow on, in the direction that keeps it.
    pub fn note_carried(&mut self, carried: &TranslatedFlow, now: Timestamp) {
        let TranslatedFlow { flow, server, generation, .. } = carried;
        let segment = match flow.protocol {
            Protocol::Tcp => Segment::going_on(*generation),
            Protocol::Udp => Segment::DATAGRAM,
        };
        self.table.observe(flow, segment, now);
        let busy_for = self.table.timeout_of(flow.protocol, TcpState::Established);
        if let Some(nat) = &mut self.nat {
            nat.renew(flow, *server, busy_for, now);
        }
    }

    /// Goes on with a flow that another data plane carried on for an earlier life of the daemon. False if there is no room.
    pub fn adopt_carried(&mut self, carried: &TranslatedFlow, now: Timestamp) -> bool {
        let TranslatedFlow { flow, real_server, server, stand_in, generation } = carried;
        let entry =
            EntryView { real_server: *real_server, state: TcpState::Established, generation: *generation };
        let busy_for = self.table.timeout_of(flow.protocol, entry.state);
        let has_port = match (stand_in, &mut self.nat) {
            (None, _) => true,
            (Some(stand_in), Some(nat)) => nat.adopt(flow, *server, *stand_in, busy_for, now),
            (Some(_), None) => false,
        };
        has_port && self.table.take_over(flow, entry, now)
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
