//! Which member gets which slot: as its share says, with as few moves as that allows.

use crate::map::{Member, OwnershipMap, position_of, rank, two_backups};
use dpr_model::Slot;

/// An owner for every slot, as positions in `members`, which are sorted.
///
/// Every member with a share gets its quota, rounded up or down (the method of largest remainders, in which those who
/// already hold the odd slot have it first). Only what dead or over-full members held is given away, and to a backup
/// where possible, as that one has the slot's connections already. Without any share nothing moves but the slots of
/// those who are gone.
pub(crate) fn assign(before: &OwnershipMap, members: &[Member]) -> Vec<Option<u16>> {
    let mut owners: Vec<Option<u16>> = before
        .slot_owners
        .iter()
        .map(|slot| {
            let owner = before.members.get(usize::from(slot.owner?))?.node;
            position_of(members, owner)
        })
        .collect();
    let held = held(&owners, members.len());
    let targets = targets(members, &held, owners.len());
    let mut moves = Moves::new(before, members, &held, &targets);
    for prefer_backups in [true, false] {
        for (number, owner) in owners.iter_mut().enumerate() {
            if moves.may_leave(*owner) {
                #[expect(clippy::cast_possible_truncation, reason = "there are at most 32,768 slots")]
                let slot = Slot(number as u16);
                moves.give(slot, owner, prefer_backups);
            }
        }
    }
    owners
}

/// Slots given away so far, and who still waits for some.
struct Moves<'a> {
    before: &'a OwnershipMap,
    members: &'a [Member],
    /// How many slots each member has too many.
    surplus: Vec<u32>,
    /// How many slots each member still gets.
    deficit: Vec<u32>,
}

impl<'a> Moves<'a> {
    fn new(before: &'a OwnershipMap, members: &'a [Member], held: &[u32], targets: &[u32]) -> Self {
        let difference = |a: &[u32], b: &[u32]| a.iter().zip(b).map(|(a, b)| a.saturating_sub(*b)).collect();
        Self { before, members, surplus: difference(held, targets), deficit: difference(targets, held) }
    }

    fn may_leave(&self, owner: Option<u16>) -> bool {
        owner.is_none_or(|owner| self.surplus[usize::from(owner)] > 0)
    }

    /// Gives a slot to whoever waits for one: only to a backup, or to the member that ranks highest for it.
    fn give(&mut self, slot: Slot, owner: &mut Option<u16>, only_to_backups: bool) {
        let heir = if only_to_backups { self.waiting_backup(slot) } else { self.highest_waiting(slot) };
        let Some(heir) = heir else { return };
        self.deficit[usize::from(heir)] -= 1;
        if let Some(owner) = owner.replace(heir) {
            self.surplus[usize::from(owner)] -= 1;
        }
    }

    fn waiting_backup(&self, slot: Slot) -> Option<u16> {
        let owner = self.before.slot_owners[usize::from(slot.0)].owner?;
        let owner = self.before.members.get(usize::from(owner))?.node;
        let backups = two_backups(&self.before.members, slot, owner);
        let mut waiting = backups.into_iter().flatten().filter_map(|node| position_of(self.members, node));
        waiting.find(|position| self.deficit[usize::from(*position)] > 0)
    }

    fn highest_waiting(&self, slot: Slot) -> Option<u16> {
        let waiting = self.members.iter().zip(&self.deficit).filter(|(_, deficit)| **deficit > 0);
        let (highest, _) = waiting.max_by_key(|(member, _)| (rank(slot, member.node), member.node))?;
        position_of(self.members, highest.node)
    }
}

fn held(owners: &[Option<u16>], members: usize) -> Vec<u32> {
    let mut held = vec![0; members];
    for owner in owners.iter().flatten() {
        held[usize::from(*owner)] += 1;
    }
    held
}

/// How many slots each member is to have: its quota, or one more.
fn targets(members: &[Member], held: &[u32], slots: usize) -> Vec<u32> {
    let total: u64 = members.iter().map(|member| u64::from(member.share.0)).sum();
    if total == 0 {
        return targets_without_shares(held, slots);
    }
    let exact = |member: &Member| slots as u64 * u64::from(member.share.0);
    let mut targets: Vec<u32> =
        members.iter().map(|member| u32::try_from(exact(member) / total).unwrap_or(0)).collect();
    let given: u32 = targets.iter().sum();
    let left = u32::try_from(slots).unwrap_or(0).saturating_sub(given);
    let mut entitled: Vec<usize> =
        (0..members.len()).filter(|at| !exact(&members[*at]).is_multiple_of(total)).collect();
    entitled.sort_by_key(|&at| {
        let has_it = held[at] > targets[at];
        (!has_it, std::cmp::Reverse(exact(&members[at]) % total), members[at].node)
    });
    for at in entitled.into_iter().take(left as usize) {
        targets[at] += 1;
    }
    targets
}

/// Everybody keeps what it has; the first member takes what nobody has.
fn targets_without_shares(held: &[u32], slots: usize) -> Vec<u32> {
    let mut targets = held.to_vec();
    let kept: u32 = held.iter().sum();
    if let Some(first) = targets.first_mut() {
        *first += u32::try_from(slots).unwrap_or(0).saturating_sub(kept);
    }
    targets
}
