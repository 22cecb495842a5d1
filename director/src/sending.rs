//! How a packet gets from here to where it has to go.

use crate::director::Director;
use crate::ownership::Service;
use crate::pipeline::{Journey, Placement};
use dpr_model::{
    Delivery, DeliveryMode, DropReason, Encapsulation, FlowKey, Forward, ForwardingMethod, HopBudget, NodeId,
    Timestamp, Verdict,
};
use dpr_rewrite::{Kind, Packet, Version, tunnel};
use std::net::IpAddr;

/// Largest IP packet that fits into a tunnel of this outer version, bytes: by the interface's MTU, and by what the way was
/// seen to carry.
#[inline]
pub(crate) fn room_in_tunnel(
    (mtu, seen_mtu): (u16, Option<u16>),
    encapsulation: Encapsulation,
    outer: Version,
) -> u16 {
    let overhead = tunnel::overhead(encapsulation, outer) as u16;
    seen_mtu.map_or(mtu, |seen| seen.min(mtu)).saturating_sub(overhead)
}

impl Director {
    /// To a flow's real server, by the service's method: the last hop.
    #[inline(always)]
    pub(crate) fn send_to(
        &mut self,
        placement: Placement,
        flow: &FlowKey,
        service: &Service,
        packet: &Packet,
        journey: Journey,
    ) -> Verdict {
        if placement.server == self.node {
            if service.method == ForwardingMethod::Nat
                && let Some(verdict) = self.translate_to_own_server(placement, flow, packet, journey)
            {
                return verdict;
            }
            return self.deliver(service.delivery, flow.service.address, journey);
        }
        match self.method_of(placement, flow, service, journey.now) {
            // From a tunnel into a tunnel: a peer that does not know this method would send the packet back, with all its hops
            // before it.
            ForwardingMethod::Dr if journey.forwarder.is_none() => self.redirect(placement.server, packet),
            ForwardingMethod::Nat => self.translate(placement, flow, packet, journey),
            ForwardingMethod::HalfNat => self.translate_half(placement.server, flow, packet, journey),
            method @ (ForwardingMethod::Ipip | ForwardingMethod::Gue | ForwardingMethod::Dr) => {
                self.forward(placement.server, method.encapsulation(), HopBudget::SPENT, packet, journey)
            }
        }
    }

    /// How a flow goes to its real server.
    fn method_of(
        &self,
        placement: Placement,
        flow: &FlowKey,
        service: &Service,
        now: Timestamp,
    ) -> ForwardingMethod {
        match method_to(placement.server, service) {
            ForwardingMethod::Nat if self.was_kept(placement, flow, service, now) => ForwardingMethod::Ipip,
            method => method,
        }
    }

    /// To the owner of a packet's slot, always in a tunnel.
    pub(crate) fn hand_to(
        &mut self,
        owner: NodeId,
        encapsulation: Encapsulation,
        packet: &Packet,
        journey: Journey,
    ) -> Verdict {
        match journey.hops.after_a_hop() {
            Some(hops) => self.forward(owner, encapsulation, hops, packet, journey),
            None => Verdict::Drop(DropReason::HopsSpent),
        }
    }

    fn redirect(&self, server: NodeId, packet: &Packet) -> Verdict {
        if packet.ip.hop_limit() <= 1 {
            return Verdict::Drop(DropReason::TtlExpired);
        }
        match self.peers.address_of(server) {
            Some(to) => Verdict::Direct { to },
            None => Verdict::Drop(DropReason::NoRoute),
        }
    }

    #[inline(always)]
    fn forward(
        &mut self,
        to: NodeId,
        encapsulation: Encapsulation,
        hops: HopBudget,
        packet: &Packet,
        journey: Journey,
    ) -> Verdict {
        if journey.hops.is_spent() {
            return Verdict::Drop(DropReason::HopsSpent);
        }
        let Some((address, mtu)) = self.peers.way_to(to) else { return Verdict::Drop(DropReason::NoRoute) };
        let room = self.room_in(mtu, encapsulation);
        let is_too_big = journey.wire_len > usize::from(room);
        if is_too_big && packet.ip.dont_fragment() {
            return self.too_big(packet, room, journey);
        }
        Verdict::Forward(Forward {
            encapsulation,
            from: self.address,
            to: address,
            hops,
            decapsulate: journey.decapsulate,
            fragment: is_too_big.then_some(room),
        })
    }

    /// Largest IP packet that fits into a tunnel to a peer, bytes.
    pub(crate) fn room_to(&self, peer: NodeId, encapsulation: Encapsulation) -> u16 {
        self.room_in(self.peers.way_to(peer).and_then(|(_, mtu)| mtu), encapsulation)
    }

    #[inline]
    fn room_in(&self, seen_mtu: Option<u16>, encapsulation: Encapsulation) -> u16 {
        room_in_tunnel((self.mtu, seen_mtu), encapsulation, Version::of(self.address))
    }

    fn too_big(&mut self, packet: &Packet, mtu: u16, journey: Journey) -> Verdict {
        let is_error = matches!(packet.kind, Kind::IcmpError(_));
        if is_error || !self.error_limit.allows(journey.now) {
            return Verdict::Drop(DropReason::TooBig);
        }
        let is_own_version = Version::of(self.address) == packet.ip.version();
        let from = if is_own_version { self.address } else { packet.ip.destination() };
        Verdict::TooBig { mtu, from }
    }

    /// To the local stack.
    pub(crate) fn deliver(&self, mode: DeliveryMode, service: IpAddr, journey: Journey) -> Verdict {
        let to = match mode {
            DeliveryMode::Alias => None,
            DeliveryMode::Translate => match self.deliveries.delivery_of(service) {
                Some(delivery) => Some(delivery),
                None => return Verdict::Drop(DropReason::UnknownDelivery),
            },
        };
        Verdict::Deliver(Delivery { to, decapsulate: journey.decapsulate })
    }

    /// The address that the server on this node sees as its own.
    pub(crate) fn local_address(&self, mode: DeliveryMode, service: IpAddr) -> Option<IpAddr> {
        match mode {
            DeliveryMode::Alias => Some(service),
            DeliveryMode::Translate => self.deliveries.delivery_of(service),
        }
    }
}

/// How `server` is reached: nothing but translation reaches a server without `dpr`.
pub(crate) fn method_to(server: NodeId, service: &Service) -> ForwardingMethod {
    match (server.is_external(), service.method) {
        (true, ForwardingMethod::HalfNat) => ForwardingMethod::HalfNat,
        (true, _) => ForwardingMethod::Nat,
        // No peer is a candidate then; a flow may be older than the method.
        (false, ForwardingMethod::HalfNat) => ForwardingMethod::Ipip,
        (false, method) => method,
    }
}
