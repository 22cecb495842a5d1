//! The ownership map: who decides for which slot of which service address, and who stands ready.

use crate::hash::Hash;
use crate::held::{Held, Wish};
use crate::partition::SlotCount;
use crate::plan;
use crate::shares::Share;
use dpr_model::{MapVersion, NodeId, Slot};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most members of a cluster.
pub const MEMBERS_MAX: usize = 1024;
/// Most service addresses of a cluster.
pub const ADDRESSES_MAX: usize = 4096;
/// Most voters: four may die at once, and every node hears few promises.
pub const VOTERS_MAX: usize = 9;

/// Seed of the order in which nodes stand ready for a slot.
const BACKUP_SEED: u64 = 0x6470_7220_6261_636b;

/// A node that may own slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub node: NodeId,
    /// Its part of all slots; 0 for a node that joins, drains or leaves.
    pub share: Share,
}

/// Whose consent counts. A change of voters needs majorities of both groups until it is settled (joint consensus:
/// Ongaro and Ousterhout, "In search of an understandable consensus algorithm", 2014, section 6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voters {
    /// Of the map that this one was made from, by id.
    pub before: Vec<NodeId>,
    /// From now on, by id.
    pub now: Vec<NodeId>,
}

/// A service address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    /// What clients connect to.
    pub address: IpAddr,
    /// The node that owns all of its slots while it is a member; `None` for an address that all nodes share.
    pub home: Option<NodeId>,
}

/// Who decides for a slot of a service address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// The owner.
    pub owner: NodeId,
    /// Another node may have owned it since the map's base: the owner acts when the map is settled, and not before.
    pub moved: bool,
}

/// (service address, slot) → owner, backups, previous owner.
///
/// A map names its *base*, an earlier map that was settled: no node can act by a map from before the base. What has not
/// moved since the base belongs to its owner without waiting; the rest when this map is settled as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnershipMap {
    pub(crate) version: MapVersion,
    pub(crate) base: MapVersion,
    pub(crate) slots: SlotCount,
    pub(crate) voters: Voters,
    /// By id, each once.
    pub(crate) members: Vec<Member>,
    /// By address, each once.
    pub(crate) addresses: Vec<Address>,
    /// One for each slot.
    pub(crate) slot_owners: Vec<SlotOwner>,
}

/// A service address, and whether its holder changed since the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) service: ServiceAddress,
    pub(crate) moved: bool,
    pub(crate) held: Held,
    /// Who is to hold it by a later map.
    pub(crate) heir: Option<NodeId>,
}

/// Owners are positions among the members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotOwner {
    pub(crate) owner: Option<u16>,
    pub(crate) previous: Option<u16>,
    pub(crate) moved: bool,
}

/// What a new map is made of, beside the map before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapDraft {
    /// Above that of the map before.
    pub version: MapVersion,
    /// In any order.
    pub members: Vec<Member>,
    /// In any order.
    pub addresses: Vec<ServiceAddress>,
    /// In any order; taken over only if the map before is settled.
    pub voters: Vec<NodeId>,
    /// What is to become of addresses, beside what follows from the members.
    pub wishes: BTreeMap<IpAddr, Wish>,
}

impl OwnershipMap {
    /// The map before all others: nobody owns anything, and the configured voters elect the first coordinator. All
    /// nodes must have the same.
    pub fn genesis(slots: SlotCount, voters: &[NodeId]) -> Self {
        let voters = sorted_ids(voters);
        Self {
            version: MapVersion::default(),
            base: MapVersion::default(),
            slots,
            voters: Voters { before: voters.clone(), now: voters },
            members: Vec::new(),
            addresses: Vec::new(),
            slot_owners: vec![SlotOwner::default(); slots.get().into()],
        }
    }

    /// The map after this one: a pure function of its arguments, the same on every node. `settled` says whether this
    /// map is. Members and addresses beyond their limits are left out, those with the highest ids and addresses first.
    pub fn next(&self, draft: MapDraft, settled: bool) -> Self {
        let members = sorted_members(draft.members);
        let owners = plan::assign(self, &members);
        let slot_owners = self.slots.all().zip(owners).map(|(slot, owner)| {
            let before = self.slot_owners[usize::from(slot.0)];
            let position = |member: Option<u16>| {
                let node = self.members.get(usize::from(member?))?.node;
                position_of(&members, node)
            };
            let same = before.owner.is_some() && position(before.owner) == owner;
            let previous = if same { position(before.previous) } else { position(before.owner) };
            SlotOwner {
                owner,
                previous: previous.filter(|previous| Some(*previous) != owner),
                moved: !same || !settled && before.moved,
            }
        });
        let mut next = Self {
            version: draft.version,
            base: if settled { self.version } else { self.base },
            slots: self.slots,
            voters: self.voters_after(&draft.voters, settled),
            slot_owners: slot_owners.collect(),
            members,
            addresses: Vec::new(),
        };
        next.addresses = self.addresses_after(&next, draft.addresses, &draft.wishes, settled);
        next
    }

    /// Version; maps are ordered by it.
    pub fn version(&self) -> MapVersion {
        self.version
    }

    /// Version of the last settled map before this one.
    pub fn base(&self) -> MapVersion {
        self.base
    }

    /// How many slots there are.
    pub fn slots(&self) -> SlotCount {
        self.slots
    }

    /// Members, by id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whose consent counts.
    pub fn voters(&self) -> &Voters {
        &self.voters
    }

    /// Service addresses, in order.
    pub fn addresses(&self) -> impl Iterator<Item = ServiceAddress> {
        self.addresses.iter().map(|address| address.service)
    }

    /// True if a node is a member.
    pub fn has_member(&self, node: NodeId) -> bool {
        position_of(&self.members, node).is_some()
    }

    /// Who decides for a slot of a service address; `None` if nobody does.
    pub fn right(&self, address: IpAddr, slot: Slot) -> Option<Right> {
        let address = self.address(address)?;
        if let Some(owner) = self.holder(address) {
            return Some(Right { owner, moved: address.moved });
        }
        let right = self.shared_right(slot)?;
        Some(Right { moved: address.moved || right.moved, ..right })
    }

    /// Who decides for a slot of those addresses that no home holds.
    pub fn shared_right(&self, slot: Slot) -> Option<Right> {
        let slot_owner = self.slot_owners.get(usize::from(slot.0))?;
        let owner = self.members.get(usize::from(slot_owner.owner?))?.node;
        Some(Right { owner, moved: slot_owner.moved })
    }

    /// True for a service address that all its slots have changed hands with since the base.
    pub fn has_moved(&self, address: IpAddr) -> bool {
        self.address(address).is_some_and(|address| address.moved)
    }

    /// The member that owns all slots of a service address, as its home or in place of that.
    pub fn holder_of(&self, address: IpAddr) -> Option<NodeId> {
        self.holder(self.address(address)?)
    }

    /// Who owned a slot of a service address before its present owner, if it is a member still.
    pub fn previous_owner(&self, address: IpAddr, slot: Slot) -> Option<NodeId> {
        let address = self.address(address)?;
        let slot_owner = self.slot_owners.get(usize::from(slot.0))?;
        let home = address.service.home.filter(|home| self.has_member(*home));
        if matches!(address.held, Held::By(_)) && home.is_some() {
            return home;
        }
        // Of what is at home again, those who stood in for it know the connections.
        let before = if self.holder(address).is_some() { slot_owner.owner } else { slot_owner.previous };
        self.members.get(usize::from(before?)).map(|member| member.node)
    }

    /// The two nodes that hold copies of a slot's entries, the likelier successor first.
    ///
    /// They follow from the members (rendezvous hashing: Thaler and Ravishankar, "Using name-based mappings to
    /// increase hit rates", 1998), so that a change of members changes few of them.
    pub fn backups(&self, address: IpAddr, slot: Slot) -> [Option<NodeId>; 2] {
        let Some(right) = self.right(address, slot) else { return [None; 2] };
        self.with_heir(address, self.stand_ins(right.owner, slot), right.owner)
    }

    /// Who stands ready for a slot of which `owner` decides, whatever the address.
    pub fn stand_ins(&self, owner: NodeId, slot: Slot) -> [Option<NodeId>; 2] {
        let stand_in = self.slot_owners.get(usize::from(slot.0)).and_then(|slot_owner| slot_owner.owner);
        let stand_in = stand_in.and_then(|owner| self.members.get(usize::from(owner)));
        match stand_in.map(|member| member.node).filter(|node| *node != owner) {
            Some(heir) => [Some(heir), ranked(&self.members, slot, [Some(owner), Some(heir)])],
            None => two_backups(&self.members, slot, owner),
        }
    }

    /// Slots of shared addresses that each member owns, in order of members.
    pub fn slots_by_member(&self) -> Vec<u32> {
        let mut counts = vec![0; self.members.len()];
        for owner in self.slot_owners.iter().filter_map(|slot_owner| slot_owner.owner) {
            counts[usize::from(owner)] += 1;
        }
        counts
    }

    /// True if two maps say the same but for their versions and what has moved.
    pub fn means_the_same_as(&self, other: &Self) -> bool {
        let owners = |map: &Self| map.slot_owners.iter().map(|slot| slot.owner).collect::<Vec<_>>();
        self.slots == other.slots
            && self.voters == other.voters
            && self.members == other.members
            && self.addresses().eq(other.addresses())
            && self
                .addresses
                .iter()
                .map(|address| (address.held, address.heir))
                .eq(other.addresses.iter().map(|address| (address.held, address.heir)))
            && owners(self) == owners(other)
    }

    /// True while the voters change.
    pub fn is_joint(&self) -> bool {
        self.voters.before != self.voters.now
    }

    fn voters_after(&self, wanted: &[NodeId], settled: bool) -> Voters {
        if settled {
            let mut now = sorted_ids(wanted);
            now.truncate(VOTERS_MAX);
            return Voters { before: self.voters.now.clone(), now };
        }
        self.voters.clone()
    }

    fn addresses_after(
        &self,
        next: &Self,
        wanted: Vec<ServiceAddress>,
        wishes: &BTreeMap<IpAddr, Wish>,
        settled: bool,
    ) -> Vec<Address> {
        let mut wanted = wanted;
        wanted.sort_unstable_by_key(|service| (service.address, service.home));
        wanted.dedup_by_key(|service| service.address);
        wanted.truncate(ADDRESSES_MAX);
        let after = |service: ServiceAddress| {
            self.address_after(service, next, wishes.get(&service.address).copied(), settled)
        };
        wanted.into_iter().map(after).collect()
    }

    pub(crate) fn address(&self, address: IpAddr) -> Option<&Address> {
        let found = self.addresses.binary_search_by_key(&address, |known| known.service.address);
        found.ok().map(|position| &self.addresses[position])
    }
}

/// The position of a node among members that are sorted.
pub(crate) fn position_of(members: &[Member], node: NodeId) -> Option<u16> {
    let position = members.binary_search_by_key(&node, |member| member.node).ok()?;
    u16::try_from(position).ok()
}

/// The two members that stand ready for a slot of `owner`.
pub(crate) fn two_backups(members: &[Member], slot: Slot, owner: NodeId) -> [Option<NodeId>; 2] {
    let first = ranked(members, slot, [Some(owner), None]);
    [first, first.and_then(|first| ranked(members, slot, [Some(owner), Some(first)]))]
}

/// How a node ranks for a slot; the highest stands ready first.
pub(crate) fn rank(slot: Slot, node: NodeId) -> u64 {
    Hash::seeded(BACKUP_SEED).word(u64::from(node.0) << 16 | u64::from(slot.0)).get()
}

/// The highest member with a share that is none of `others`.
fn ranked(members: &[Member], slot: Slot, others: [Option<NodeId>; 2]) -> Option<NodeId> {
    let ready = members.iter().filter(|member| member.share.0 > 0).map(|member| member.node);
    ready.filter(|node| !others.contains(&Some(*node))).max_by_key(|node| (rank(slot, *node), *node))
}

fn sorted_members(members: Vec<Member>) -> Vec<Member> {
    let mut members = members;
    members.sort_unstable_by_key(|member| (member.node, member.share));
    members.dedup_by_key(|member| member.node);
    members.truncate(MEMBERS_MAX);
    members
}

fn sorted_ids(nodes: &[NodeId]) -> Vec<NodeId> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}
