//! A map as bytes: the same map is the same bytes on every node, so that hashes can be compared.

use crate::held::Held;
use crate::map::{
    ADDRESSES_MAX, Address, MEMBERS_MAX, Member, OwnershipMap, ServiceAddress, SlotOwner, VOTERS_MAX, Voters,
};
use crate::partition::SlotCount;
use crate::shares::Share;
use dpr_model::{MapVersion, NodeId};
use dpr_wire::{Fields, push_address, read_address};

/// Version of this encoding; maps in any other are refused.
const FORMAT: u8 = 1;
/// Flags of an address.
const MOVED: u8 = 1;
const HAS_HOME: u8 = 2;
const BY_SLOT: u8 = 4;
const HAS_HOLDER: u8 = 8;
const HAS_HEIR: u8 = 16;
const FLAGS: u8 = MOVED | HAS_HOME | BY_SLOT | HAS_HOLDER | HAS_HEIR;
/// Position of no member, one or two bytes wide.
const NOBODY: u16 = u16::MAX;
/// Most members whose positions take one byte; 255 stands for nobody.
const NARROW_MAX: usize = 255;

/// Longest encoded map, bytes: every limit reached at once.
pub const MAP_BYTES_MAX: usize = 1 << 18;

/// Names a map by its content: the first 16 bytes of the BLAKE3 hash of its encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapHash(pub [u8; 16]);

/// Why bytes are no map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// They end before the map does.
    #[error("the map is cut off")]
    Truncated,
    /// Bytes are left over.
    #[error("{0} bytes are left over behind the map")]
    TooLong(usize),
    /// Written by another version of `dpr`.
    #[error("map format {0} is not known")]
    UnknownFormat(u8),
    /// The number of slots is no power of two or out of range.
    #[error("a map cannot have {0} slots")]
    BadSlotCount(u16),
    /// A list is longer than it may be.
    #[error("a list of {0} entries is too long")]
    TooManyEntries(usize),
    /// A list is not in order, or has an entry twice.
    #[error("a list is not in order")]
    NotInOrder,
    /// An address has flags that this version does not know.
    #[error("flags {0:#04x} of an address are not known")]
    UnknownFlags(u8),
    /// A slot belongs to a member that there is not.
    #[error("there is no member {0}")]
    NoSuchMember(u16),
}

impl MapHash {
    /// The hash of an encoded map.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
        Self(hash)
    }
}

impl OwnershipMap {
    /// The map as bytes; `docs/wire-format.md` has the table.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        push_version(&mut bytes, self.version);
        push_version(&mut bytes, self.base);
        bytes.extend(self.slots.get().to_be_bytes());
        for voters in [&self.voters.before, &self.voters.now] {
            push_count(&mut bytes, voters.len());
            bytes.extend(voters.iter().flat_map(|node| node.0.to_be_bytes()));
        }
        push_count(&mut bytes, self.members.len());
        for member in &self.members {
            bytes.extend(member.node.0.to_be_bytes());
            bytes.extend(member.share.0.to_be_bytes());
        }
        push_count(&mut bytes, self.addresses.len());
        for address in &self.addresses {
            push_service_address(&mut bytes, address);
        }
        self.push_slots(&mut bytes);
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote. Whatever the bytes are, the result is a map that keeps its own invariants,
    /// or an error.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MapError> {
        let mut fields = Fields::new(bytes);
        let map = read_map(&mut fields)?;
        match fields.rest().len() {
            0 => Ok(map),
            left => Err(MapError::TooLong(left)),
        }
    }

    fn push_slots(&self, bytes: &mut Vec<u8>) {
        let narrow = self.members.len() <= NARROW_MAX;
        let mut push = |position: Option<u16>| {
            let [high, low] = position.unwrap_or(NOBODY).to_be_bytes();
            if !narrow {
                bytes.push(high);
            }
            bytes.push(low);
        };
        self.slot_owners.iter().for_each(|slot| push(slot.owner));
        self.slot_owners.iter().for_each(|slot| push(slot.previous));
        let (eights, _) = self.slot_owners.as_chunks::<8>();
        bytes.extend(
            eights
                .iter()
                .map(|eight| eight.iter().rev().fold(0_u8, |bits, slot| bits << 1 | u8::from(slot.moved))),
        );
    }
}

/// Appends a version, 20 bytes.
pub(crate) fn push_version(bytes: &mut Vec<u8>, version: MapVersion) {
    bytes.extend(version.term.to_be_bytes());
    bytes.extend(version.epoch.to_be_bytes());
    bytes.extend(version.coordinator.to_be_bytes());
}

/// Reads what [`push_version`] wrote.
pub(crate) fn read_version(fields: &mut Fields<'_>) -> Option<MapVersion> {
    Some(MapVersion { term: fields.u64()?, epoch: fields.u64()?, coordinator: fields.u32()? })
}

fn push_count(bytes: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("lists of a map are bounded");
    bytes.extend(count.to_be_bytes());
}

fn push_service_address(bytes: &mut Vec<u8>, address: &Address) {
    let home = address.service.home;
    let (by_slot, holder) = match address.held {
        Held::ByHome => (false, None),
        Held::BySlot => (true, None),
        Held::By(node) => (false, Some(node)),
    };
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    bytes.push(
        flag(address.moved, MOVED)
            | flag(home.is_some(), HAS_HOME)
            | flag(by_slot, BY_SLOT)
            | flag(holder.is_some(), HAS_HOLDER)
            | flag(address.heir.is_some(), HAS_HEIR),
    );
    push_address(bytes, address.service.address);
    bytes.extend([home, holder, address.heir].into_iter().flatten().flat_map(|node| node.0.to_be_bytes()));
}

fn read_map(fields: &mut Fields<'_>) -> Result<OwnershipMap, MapError> {
    let format = fields.u8().ok_or(MapError::Truncated)?;
    if format != FORMAT {
        return Err(MapError::UnknownFormat(format));
    }
    let version = read_version(fields).ok_or(MapError::Truncated)?;
    let base = read_version(fields).ok_or(MapError::Truncated)?;
    let count = fields.u16().ok_or(MapError::Truncated)?;
    let slots = SlotCount::new(count).ok_or(MapError::BadSlotCount(count))?;
    let before = read_list(fields, VOTERS_MAX, read_node, |node| *node)?;
    let now = read_list(fields, VOTERS_MAX, read_node, |node| *node)?;
    let members = read_list(fields, MEMBERS_MAX, read_member, |member| member.node)?;
    let by_address = |address: &Address| address.service.address;
    let addresses = read_list(fields, ADDRESSES_MAX, read_service_address, by_address)?;
    let slot_owners = read_slots(fields, slots, members.len())?;
    let voters = Voters { before, now };
    Ok(OwnershipMap { version, base, slots, voters, members, addresses, slot_owners })
}

fn read_list<T, K: Ord>(
    fields: &mut Fields<'_>,
    count_max: usize,
    read: fn(&mut Fields<'_>) -> Result<T, MapError>,
    key: impl Fn(&T) -> K,
) -> Result<Vec<T>, MapError> {
    let count = usize::from(fields.u16().ok_or(MapError::Truncated)?);
    if count > count_max {
        return Err(MapError::TooManyEntries(count));
    }
    let list = (0..count).map(|_| read(fields)).collect::<Result<Vec<T>, MapError>>()?;
    if list.is_sorted_by(|a, b| key(a) < key(b)) { Ok(list) } else { Err(MapError::NotInOrder) }
}

fn read_node(fields: &mut Fields<'_>) -> Result<NodeId, MapError> {
    fields.u32().map(NodeId).ok_or(MapError::Truncated)
}

fn read_member(fields: &mut Fields<'_>) -> Result<Member, MapError> {
    let node = read_node(fields)?;
    Ok(Member { node, share: Share(fields.u16().ok_or(MapError::Truncated)?) })
}

fn read_service_address(fields: &mut Fields<'_>) -> Result<Address, MapError> {
    let flags = fields.u8().ok_or(MapError::Truncated)?;
    let has = |flag: u8| flags & flag != 0;
    if flags & !FLAGS != 0 || has(BY_SLOT) && has(HAS_HOLDER) {
        return Err(MapError::UnknownFlags(flags));
    }
    let address = read_address(fields).ok_or(MapError::Truncated)?;
    let mut node = |flag: u8| if has(flag) { read_node(fields).map(Some) } else { Ok(None) };
    let (home, holder, heir) = (node(HAS_HOME)?, node(HAS_HOLDER)?, node(HAS_HEIR)?);
    let held = match holder {
        Some(node) => Held::By(node),
        None if has(BY_SLOT) => Held::BySlot,
        None => Held::ByHome,
    };
    Ok(Address { service: ServiceAddress { address, home }, moved: has(MOVED), held, heir })
}

fn read_slots(fields: &mut Fields<'_>, slots: SlotCount, members: usize) -> Result<Vec<SlotOwner>, MapError> {
    let owners = read_positions(fields, slots, members)?;
    let previous = read_positions(fields, slots, members)?;
    let moved = fields.bytes(usize::from(slots.get()) / 8).ok_or(MapError::Truncated)?;
    let is_moved = |slot: usize| moved[slot / 8] >> (slot % 8) & 1 == 1;
    let pairs = owners.into_iter().zip(previous).enumerate();
    Ok(pairs.map(|(slot, (owner, previous))| SlotOwner { owner, previous, moved: is_moved(slot) }).collect())
}

fn read_positions(
    fields: &mut Fields<'_>,
    slots: SlotCount,
    members: usize,
) -> Result<Vec<Option<u16>>, MapError> {
    let narrow = members <= NARROW_MAX;
    let read = |_| {
        let position = if narrow { fields.u8().map(u16::from) } else { fields.u16() };
        let position = position.ok_or(MapError::Truncated)?;
        let nobody = if narrow { NOBODY & 0xff } else { NOBODY };
        match position {
            position if position == nobody => Ok(None),
            position if usize::from(position) < members => Ok(Some(position)),
            position => Err(MapError::NoSuchMember(position)),
        }
    };
    (0..slots.get()).map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::Wish;
    use crate::map::MapDraft;
    use proptest::prelude::*;

    fn map(members: u32) -> OwnershipMap {
        let member = |number| Member { node: NodeId(number * 7), share: Share(1000) };
        let draft = |epoch, count| MapDraft {
            version: MapVersion { term: 3, epoch, coordinator: 7 },
            members: (1..=count).map(member).collect(),
            addresses: vec![
                ServiceAddress { address: [192, 0, 2, 1].into(), home: Some(NodeId(7)) },
                ServiceAddress { address: [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), home: None },
            ],
            voters: vec![NodeId(7), NodeId(14)],
            wishes: [
                ([192, 0, 2, 1].into(), Wish::Prepare(NodeId(14))),
                ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), Wish::Hold(NodeId(7))),
            ]
            .into(),
        };
        let genesis = OwnershipMap::genesis(SlotCount::default(), &[NodeId(7)]);
        genesis.next(draft(1, members), true).next(draft(2, members - 1), true)
    }

    #[test]
    fn a_map_comes_back_as_it_was_whatever_its_size() {
        for members in [2, 3, 255, 256, 257, 1024] {
            let map = map(members);
            let bytes = map.to_bytes();

            assert!(bytes.len() <= MAP_BYTES_MAX);
            assert_eq!(OwnershipMap::from_bytes(&bytes), Ok(map), "{members} members");
        }
    }

    #[test]
    fn a_map_of_a_hundred_nodes_fits_eight_datagrams() {
        assert!(map(100).to_bytes().len() <= 8 * 1200 + 200);
    }

    #[test]
    fn what_is_no_map_is_refused_with_a_reason() {
        let good = map(3).to_bytes();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            OwnershipMap::from_bytes(&bytes).unwrap_err()
        };
        let slots_at = 41;
        let owners_at = good.len() - 4096 * 2 - 512;

        assert_eq!(OwnershipMap::from_bytes(&good[..good.len() - 1]), Err(MapError::Truncated));
        assert_eq!(OwnershipMap::from_bytes(&[good.as_slice(), &[0]].concat()), Err(MapError::TooLong(1)));
        assert_eq!(with(0, 9), MapError::UnknownFormat(9));
        assert_eq!(with(slots_at, 0x11), MapError::BadSlotCount(0x1100));
        assert_eq!(with(slots_at + 2, 1), MapError::TooManyEntries(258));
        assert_eq!(with(owners_at, 77), MapError::NoSuchMember(77));
        // The second voter becomes the same as the first.
        assert_eq!(with(slots_at + 2 + 2 + 4 + 3, 7), MapError::NotInOrder);
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>, at in 0..8800_usize, byte: u8) {
            let _ = OwnershipMap::from_bytes(&bytes);
            let mut changed = map(3).to_bytes();
            if let Some(place) = changed.get_mut(at) {
                *place = byte;
            }
            if let Ok(map) = OwnershipMap::from_bytes(&changed) {
                prop_assert_eq!(map.to_bytes(), changed, "one map, one encoding");
            }
        }
    }
}
