//! Whose packet it is: this node's to decide about, the owner's to be handed to, or somebody's who sees it as well.

use crate::director::Director;
use crate::ownership::{Home, Service, SlotOwner, Tenure};
use crate::pipeline::Journey;
use crate::subject::Subject;
use dpr_model::{DropReason, Encapsulation, FlowKey, ForwardingMethod, Ingress, NodeId, Sharing, Verdict};
use dpr_rewrite::Packet;

/// How packets come to the owner of their slot, or from there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WayToOwner {
    /// The tunnel in which they are handed to it.
    encapsulation: Encapsulation,
    /// It sends them on by direct routing.
    is_direct: bool,
    /// The owner may be another one soon.
    pub(crate) may_move: bool,
    /// The owner sees them as well, wherever they are.
    all_see: bool,
}

impl WayToOwner {
    pub(crate) fn of(encapsulation: Encapsulation, is_direct: bool, sharing: Sharing) -> Self {
        Self {
            encapsulation,
            is_direct,
            may_move: sharing != Sharing::Home,
            all_see: sharing == Sharing::Shared(Ingress::SharedMac),
        }
    }

    pub(crate) fn of_flow(service: &Service) -> Self {
        let is_direct = service.method == ForwardingMethod::Dr;
        Self::of(service.method.encapsulation(), is_direct, service.sharing)
    }
}

impl Director {
    /// What becomes of a packet about whose slot this node does not decide; `None` when it does.
    pub(crate) fn leave_to_owner(
        &mut self,
        owner: SlotOwner,
        way: WayToOwner,
        subject: Subject,
        packet: &Packet,
        journey: Journey,
    ) -> Option<Verdict> {
        if owner.node != self.node {
            // Whom a packet reaches by its MAC address only, its owner has chosen. To an address that many nodes have, clients'
            // packets come in the same way, but not with their last hop before them.
            let is_last = !way.may_move || packet.ip.hop_limit() <= 1;
            let was_chosen = way.is_direct && journey.forwarder.is_none() && is_last;
            return Some(match was_chosen {
                true => self.end_journey(subject, packet, owner.node, journey),
                false if way.may_move => self.hand_to_sharer(owner.node, way, packet, journey),
                false => self.hand_to(owner.node, way.encapsulation, packet, journey),
            });
        }
        match owner.tenure {
            Tenure::Home => None,
            Tenure::Leased if self.may_own(journey.now) => None,
            Tenure::Leased | Tenure::Pending => Some(Verdict::Drop(DropReason::NoLease)),
        }
    }

    /// What becomes of a fragment that this node has brought together with its others, as [`Self::leave_to_owner`]: nobody
    /// else knows whose it is.
    pub(crate) fn leave_gathered(
        &mut self,
        (flow, service): (&FlowKey, &Service),
        packet: &Packet,
        journey: Journey,
    ) -> Option<Verdict> {
        let way = WayToOwner { all_see: false, ..WayToOwner::of_flow(service) };
        self.leave_to_owner(service.owner, way, Subject::Flow(*flow, *service), packet, journey)
    }

    /// To the owner of a slot that may change hands; silence where the owner sees the packet as well.
    fn hand_to_sharer(
        &mut self,
        owner: NodeId,
        way: WayToOwner,
        packet: &Packet,
        journey: Journey,
    ) -> Verdict {
        // Of a packet with one hop before it, the owner could only be the real server: it would refuse connections that it
        // knows to be elsewhere. Who handed it here has an old map, and the next copy finds a newer one.
        match journey.forwarder.is_none() && !way.all_see {
            true => self.hand_to(owner, way.encapsulation, packet, journey),
            false => Verdict::Drop(DropReason::NotMine),
        }
    }
}

/// True if this node is the one that brings fragments together and hands them to their flow's owner. By source, fragments
/// have an owner only where all nodes see all of them, or where one node has everything: a way from the first node to that
/// owner, from there to the flow's owner and to the real server would be one hop too long.
pub(crate) fn gathers_fragments(home: &Home, journey: Journey) -> bool {
    match home.sharing {
        Sharing::Home => false,
        Sharing::Shared(Ingress::SharedMac) => journey.forwarder.is_some(),
        Sharing::Takeover | Sharing::Shared(Ingress::ArpOwner | Ingress::Routed) => true,
    }
}
