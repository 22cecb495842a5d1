//! What maps promise, over random histories of members and shares.

use dpr_model::{MapVersion, NodeId, Slot};
use dpr_ownership::{MapDraft, Member, OwnershipMap, ServiceAddress, Share, SlotCount};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;

const SLOTS: u32 = 4096;

fn shared_address() -> IpAddr {
    IpAddr::from([192, 0, 2, 100])
}

fn home_address(node: u32) -> IpAddr {
    IpAddr::from([192, 0, 2, node as u8])
}

fn draft(epoch: u64, shares: &BTreeMap<u32, u16>) -> MapDraft {
    let shared = ServiceAddress { address: shared_address(), home: None };
    let homes = (1..=60).map(|node| ServiceAddress { address: home_address(node), home: Some(NodeId(node)) });
    MapDraft {
        version: MapVersion { term: 1, epoch, coordinator: 1 },
        members: shares
            .iter()
            .map(|(node, share)| Member { node: NodeId(*node), share: Share(*share) })
            .collect(),
        addresses: homes.chain([shared]).collect(),
        voters: shares.keys().take(3).map(|node| NodeId(*node)).collect(),
        wishes: BTreeMap::new(),
    }
}

fn genesis() -> OwnershipMap {
    OwnershipMap::genesis(SlotCount::default(), &[NodeId(1)])
}

fn of_equals(count: u32) -> BTreeMap<u32, u16> {
    (1..=count).map(|node| (node, 1000)).collect()
}

fn owner(map: &OwnershipMap, slot: Slot) -> Option<NodeId> {
    map.right(shared_address(), slot).map(|right| right.owner)
}

fn moved_between(before: &OwnershipMap, after: &OwnershipMap) -> Vec<Slot> {
    before.slots().all().filter(|slot| owner(before, *slot) != owner(after, *slot)).collect()
}

/// Histories of up to ten maps: who is a member, with which share.
fn histories() -> impl Strategy<Value = Vec<BTreeMap<u32, u16>>> {
    let members =
        prop::collection::btree_map(1..60_u32, prop_oneof![Just(0), Just(1000), 1..5000_u16], 1..20);
    prop::collection::vec(members, 1..10)
}

#[test]
fn the_nth_node_takes_its_part_and_nothing_else_moves() {
    let mut map = genesis().next(draft(1, &of_equals(1)), true);
    for count in 2..=40 {
        let next = map.next(draft(count.into(), &of_equals(count)), true);

        let moved = moved_between(&map, &next);
        assert!(moved.iter().all(|slot| owner(&next, *slot) == Some(NodeId(count))), "only to the new node");
        assert!((SLOTS / count..=SLOTS / count + 1).contains(&(moved.len() as u32)), "{}", moved.len());
        map = next;
    }
}

#[test]
fn the_slots_of_a_dead_node_go_to_its_backups_and_no_others_move() {
    let before = genesis().next(draft(1, &of_equals(9)), true);
    let mut survivors = of_equals(9);
    survivors.remove(&4);

    let after = before.next(draft(2, &survivors), true);

    let moved = moved_between(&before, &after);
    assert!(moved.iter().all(|slot| owner(&before, *slot) == Some(NodeId(4))));
    let to_backups =
        moved.iter().filter(|slot| before.backups(shared_address(), **slot).contains(&owner(&after, **slot)));
    assert!(to_backups.count() * 100 >= moved.len() * 90);
}

#[test]
fn a_home_address_goes_to_its_first_backups_when_its_node_dies_and_comes_back() {
    let before = genesis().next(draft(1, &of_equals(3)), true);
    let mut survivors = of_equals(3);
    survivors.remove(&2);
    let without = before.next(draft(2, &survivors), true);
    let again = without.next(draft(3, &of_equals(3)), true);

    for slot in before.slots().all() {
        let at_home = before.right(home_address(2), slot).unwrap();
        assert_eq!((at_home.owner, at_home.moved), (NodeId(2), true), "nobody had the address before");
        let taken = without.right(home_address(2), slot).unwrap();
        assert!(taken.moved && taken.owner != NodeId(2));
        let returned = again.right(home_address(2), slot).unwrap();
        assert_eq!((returned.owner, returned.moved), (NodeId(2), true));
        assert!(!again.right(home_address(1), slot).unwrap().moved, "node 1 was at home all the time");
    }
}

#[test]
fn what_moved_stays_marked_until_a_map_is_settled() {
    let first = genesis().next(draft(1, &of_equals(2)), true);
    let unsettled = first.next(draft(2, &of_equals(3)), true).next(draft(3, &of_equals(2)), false);
    let settled = unsettled.next(draft(4, &of_equals(2)), true);

    let marked = |map: &OwnershipMap| {
        map.slots().all().filter(|slot| map.right(shared_address(), *slot).unwrap().moved).count() as u32
    };
    assert!(marked(&unsettled) >= SLOTS / 3, "a third went to node 3 and came back");
    assert_eq!(unsettled.base(), first.version());
    assert_eq!((marked(&settled), settled.base()), (0, unsettled.version()));
}

#[test]
fn an_address_that_moved_stays_marked_until_a_map_is_settled() {
    let home = home_address(3);
    let is_moved = |map: &OwnershipMap| map.right(home, Slot(0)).map(|right| right.moved);
    let away = genesis().next(draft(1, &of_equals(2)), true).next(draft(2, &of_equals(2)), true);
    let back = away.next(draft(3, &of_equals(3)), true);
    assert_eq!(back.holder_of(home), Some(NodeId(3)));

    let unsettled = back.next(draft(4, &of_equals(3)), false);
    let settled = unsettled.next(draft(5, &of_equals(3)), true);

    assert_eq!([&back, &unsettled, &settled].map(is_moved), [Some(true), Some(true), Some(false)]);
}

#[test]
fn voters_change_only_from_a_settled_map() {
    let first = genesis().next(draft(1, &of_equals(5)), true);
    let kept = first.next(draft(2, &BTreeMap::from([(7, 1000)])), false);
    let changed = first.next(draft(2, &BTreeMap::from([(7, 1000)])), true);

    assert_eq!(kept.voters(), first.voters());
    assert_eq!((&changed.voters().before, &changed.voters().now), (&first.voters().now, &vec![NodeId(7)]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_member_has_its_quota_within_one_slot(history in histories()) {
        let mut map = genesis();
        for (epoch, shares) in (1..).zip(&history) {
            map = map.next(draft(epoch, shares), true);
            let total: u32 = shares.values().map(|share| u32::from(*share)).sum();
            prop_assert_eq!(map.slots_by_member().iter().sum::<u32>(), SLOTS);
            for (share, slots) in shares.values().zip(map.slots_by_member()) {
                let quota = (SLOTS * u32::from(*share)).checked_div(total);
                prop_assert!(quota.is_none_or(|quota| (quota..=quota + 1).contains(&slots)), "{slots}");
            }
        }
    }

    #[test]
    fn no_more_slots_move_than_quotas_demand(history in histories()) {
        let mut map = genesis();
        for (epoch, shares) in (1..).zip(&history) {
            let held: BTreeMap<NodeId, u32> =
                map.members().iter().map(|member| member.node).zip(map.slots_by_member()).collect();
            let next = map.next(draft(epoch, shares), true);

            let gained = next.members().iter().zip(next.slots_by_member()).map(|(member, slots)| {
                slots.saturating_sub(held.get(&member.node).copied().unwrap_or(0))
            });
            prop_assert_eq!(moved_between(&map, &next).len() as u32, gained.sum::<u32>());
            map = next;
        }
    }

    #[test]
    fn backups_are_others_than_the_owner_and_each_other(history in histories()) {
        let mut map = genesis();
        for (epoch, shares) in (1..).zip(&history) {
            map = map.next(draft(epoch, shares), true);
            for slot in map.slots().all().step_by(37) {
                for address in [shared_address(), home_address(3)] {
                    let owner = map.right(address, slot).map(|right| right.owner);
                    let [first, second] = map.backups(address, slot);
                    prop_assert!(first.is_none() || first != owner);
                    prop_assert!(second.is_none() || second != owner && second != first);
                    let sharing = shares.values().filter(|share| **share > 0).count();
                    prop_assert!(sharing < 3 || second.is_some(), "{sharing} nodes can hold copies");
                }
            }
        }
    }

    #[test]
    fn the_order_of_members_does_not_matter(history in histories(), epoch in 1..9_u64) {
        let mut map = genesis();
        for shares in &history {
            let mut reversed = draft(epoch, shares);
            reversed.members.reverse();
            reversed.addresses.reverse();
            let next = map.next(draft(epoch, shares), true);
            prop_assert_eq!(&map.next(reversed, true), &next);
            map = next;
        }
    }
}
