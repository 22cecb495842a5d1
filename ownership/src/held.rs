//! Who holds an address as a whole: its home, or who stands in its place.

use crate::map::{Address, Member, OwnershipMap, ServiceAddress};
use dpr_model::NodeId;
use std::net::IpAddr;

/// By whom all slots of an address are owned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Held {
    /// By its home while that is a member; else, and if it has none, by all members, slot by slot.
    #[default]
    ByHome,
    /// By all members, slot by slot, although its home may be a member.
    BySlot,
    /// By this node, while that is a member.
    By(NodeId),
}

/// What a new map is to do about an address, beside what follows from its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A home that returns does not get it back.
    StayAway,
    /// This node is to have copies of all its connections, so that it can hold it by a later map.
    Prepare(NodeId),
    /// This node is to hold it.
    Hold(NodeId),
    /// Its home is to hold it again; or all members, slot by slot, if it has none.
    GiveBack,
}

impl OwnershipMap {
    /// The node that is to hold an address by a later map, and stands ready for all of it until then.
    pub fn heir_of(&self, address: IpAddr) -> Option<NodeId> {
        self.address(address)?.heir
    }

    /// True if somebody else than the home, if there is one, holds an address by an operator's word, or because homes do
    /// not get theirs back by themselves.
    pub fn is_lent(&self, address: IpAddr) -> bool {
        self.address(address).is_some_and(|address| address.held != Held::ByHome)
    }

    /// Addresses that are to be held by another node, and by which.
    pub fn heirs(&self) -> impl Iterator<Item = (IpAddr, NodeId)> {
        self.addresses.iter().filter_map(|address| Some((address.service.address, address.heir?)))
    }

    /// True if a node owns any slot of an address.
    pub fn owns_any(&self, node: NodeId, address: IpAddr) -> bool {
        match self.holder_of(address) {
            Some(holder) => holder == node,
            None => self
                .slots
                .all()
                .any(|slot| self.right(address, slot).is_some_and(|right| right.owner == node)),
        }
    }

    /// True if a node may hold an address: its home always, others unless they drain or leave.
    pub fn may_hold(&self, node: NodeId, home: Option<NodeId>) -> bool {
        let member = self.members.iter().find(|member| member.node == node);
        member.is_some_and(|Member { share, .. }| share.0 > 0 || home == Some(node))
    }

    /// The two nodes with copies of a slot that `owner` owns: of an address with an heir that one, and the first of
    /// those who stand ready whatever the address.
    pub fn with_heir(
        &self,
        address: IpAddr,
        stand_ins: [Option<NodeId>; 2],
        owner: NodeId,
    ) -> [Option<NodeId>; 2] {
        match self.heir_of(address).filter(|heir| *heir != owner) {
            Some(heir) => [Some(heir), stand_ins.into_iter().flatten().find(|stand_in| *stand_in != heir)],
            None => stand_ins,
        }
    }

    /// The address of this map, as `next` has it.
    pub(crate) fn address_after(
        &self,
        service: ServiceAddress,
        next: &Self,
        wish: Option<Wish>,
        settled: bool,
    ) -> Address {
        let before = self.address(service.address);
        let may_hold = |node: &NodeId| next.may_hold(*node, service.home);
        let held =
            next_held(before.map(|before| (before.held, self.holder(before))), service, wish, may_hold);
        let mut address = Address { service, moved: true, held, heir: None };
        let holder = next.holder(&address);
        let heir = match wish {
            Some(Wish::Prepare(node)) => Some(node),
            Some(Wish::Hold(_) | Wish::GiveBack) => None,
            Some(Wish::StayAway) | None => before.and_then(|before| before.heir),
        };
        address.heir = heir.filter(may_hold).filter(|heir| holder != Some(*heir));
        address.moved = before.is_none_or(|before| self.holder(before) != holder || !settled && before.moved);
        address
    }

    /// The member that holds an address as a whole.
    pub(crate) fn holder(&self, address: &Address) -> Option<NodeId> {
        let holder = match address.held {
            Held::ByHome => address.service.home,
            Held::BySlot => None,
            Held::By(node) => Some(node),
        };
        holder.filter(|holder| self.has_member(*holder))
    }
}

fn next_held(
    before: Option<(Held, Option<NodeId>)>,
    service: ServiceAddress,
    wish: Option<Wish>,
    may_hold: impl Fn(&NodeId) -> bool,
) -> Held {
    match (wish, before) {
        (Some(Wish::Hold(node)), _) if may_hold(&node) => {
            if service.home == Some(node) {
                Held::ByHome
            } else {
                Held::By(node)
            }
        }
        (Some(Wish::GiveBack), _) => Held::ByHome,
        (_, Some((Held::By(node), _))) if may_hold(&node) => Held::By(node),
        // Nobody has held it as a whole, and that stays so.
        (Some(Wish::StayAway), Some((Held::BySlot | Held::ByHome, None))) if service.home.is_some() => {
            Held::BySlot
        }
        _ => Held::ByHome,
    }
}
