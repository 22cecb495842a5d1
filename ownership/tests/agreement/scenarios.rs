//! What agreement promises, one fault at a time.

use crate::network::{Network, Setup, home_address, shared_address};
use dpr_model::{NodeId, Slot};
use dpr_ownership::SlotCount;
use dpr_ownership::agreement::Quorum;
use std::time::Duration;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn founded(nodes: u32) -> Network {
    Network::founded(Setup::of(nodes))
}

#[test]
fn nodes_found_a_cluster_and_share_its_slots() {
    let network = founded(4);

    assert_eq!(network.map(1).slots_by_member(), [4; 4]);
    assert_eq!(network.acting(home_address(3), Slot(5)), [NodeId(3)]);
    assert_eq!(network.map(2).voters().now.len(), 3, "an odd number of voters");
}

#[test]
fn the_slots_of_a_dead_node_are_owned_again_soon_after_it_was_missed() {
    for victim in [1, 5] {
        let mut network = founded(5);
        network.kill(NodeId(victim));

        let took = network.run_until(ms(3000), |network| {
            network.is_converged() && !network.map(2).has_member(NodeId(victim))
        });

        // 450 ms until it is missed, 20 to notice, 50 of margin, and the messages of an election and a map.
        let took = took.expect("somebody takes over");
        assert!(took < ms(if victim == 1 { 800 } else { 700 }), "node {victim}: {took:?}");
        assert_ne!(network.acting(home_address(victim), Slot(0)), [NodeId(victim)]);
    }
}

#[test]
fn a_paused_owner_has_lost_its_rights_when_it_wakes_up() {
    let mut network = founded(3);
    let owned = (0..16).map(Slot).find(|slot| network.owner_of(*slot) == Some(NodeId(2))).unwrap();
    network.node(NodeId(2)).paused = true;
    network.run_for(ms(3000));
    assert!(network.owner_of(owned).is_some_and(|owner| owner != NodeId(2)));

    network.resume(NodeId(2));
    network.run_for(ms(1000));

    network.check_converged();
    assert!(network.map(1).has_member(NodeId(2)), "it is a member again");
}

#[test]
fn only_the_side_with_a_quorum_goes_on_and_both_agree_again_within_a_second() {
    let mut network = founded(5);
    network.partition(&[1, 2]);
    network.run_for(ms(3000));
    for slot in (0..16).map(Slot) {
        assert!(network.owner_of(slot).is_some_and(|owner| owner.0 > 2), "{slot:?}");
        assert!(network.acting(home_address(1), slot)[0].0 > 2);
    }

    network.cut.clear();
    let took =
        network.run_until(ms(1000), |network| network.is_converged() && network.map(3).members().len() == 5);

    assert!(took.is_some(), "one map within a second");
}

#[test]
fn without_any_majority_nobody_owns_anything_and_healing_restores_it() {
    let mut network = founded(5);
    network.partition(&[1, 2]);
    network.kill(NodeId(5));
    network.run_for(ms(3000));
    assert_eq!(network.orphans(), 16);

    network.cut.clear();

    let took = network.run_until(ms(1000), Network::is_converged);
    assert!(took.is_some(), "one map within a second");
}

#[test]
fn a_coordinator_that_hears_nobody_is_replaced() {
    let mut network = founded(3);
    assert_eq!(network.daemon(2).coordinator(), Some(NodeId(1)));
    network.cut.extend([2, 3].map(|other| (NodeId(other), NodeId(1))));

    network.run_for(ms(3000));

    assert_eq!(network.daemon(3).coordinator(), Some(NodeId(2)));
    assert_eq!(network.orphans(), 0);
}

#[test]
fn an_owner_that_nobody_hears_stops_before_others_begin() {
    let mut network = founded(3);
    network.cut.extend([2, 3].map(|other| (NodeId(1), NodeId(other))));

    network.run_for(ms(3000));

    assert_eq!(network.orphans(), 0);
    assert!((0..16).all(|slot| network.owner_of(Slot(slot)) != Some(NodeId(1))));
}

#[test]
fn loss_and_jitter_cause_no_takeover_and_no_pause_for_ten_minutes() {
    let mut network = founded(3);
    let before = network.map(1).version();
    network.loss_permille = 300;
    network.delay_max = ms(200);
    // It takes some gaps until a node knows how patient it has to be.
    network.run_for(Duration::from_secs(30));
    let learned = network.map(1).version();
    let mut orphaned = Duration::ZERO;
    for _ in 0..60_000 {
        network.run_for(ms(10));
        orphaned += ms(10) * u32::from(network.orphans() > 0);
    }

    assert_eq!(network.map(1).version(), learned, "no new map");
    assert_eq!(learned, before);
    assert_eq!(orphaned, Duration::ZERO);
}

#[test]
fn a_planned_move_leaves_no_slot_without_owner_for_longer_than_fifty_milliseconds() {
    let mut network = founded(4);
    network.add(NodeId(5));
    let mut longest = [0_u32; 16];
    let mut orphaned = [0_u32; 16];
    for _ in 0..3000 {
        network.run_for(ms(1));
        for slot in 0..16 {
            let has_owner = network.owner_of(Slot(slot)).is_some();
            orphaned[usize::from(slot)] = if has_owner { 0 } else { orphaned[usize::from(slot)] + 1 };
            longest[usize::from(slot)] = longest[usize::from(slot)].max(orphaned[usize::from(slot)]);
        }
    }

    assert!(network.map(1).slots_by_member().iter().all(|slots| (3..=4).contains(slots)));
    assert!(longest.iter().any(|ms| *ms > 0), "something moved");
    assert!(longest.iter().all(|ms| *ms <= 50), "{longest:?}");
}

#[test]
fn a_voter_whose_data_plane_lags_says_nothing_that_is_not_so_yet() {
    for nodes in [2, 3, 4] {
        let mut network = Network::founded(Setup { voters: 1, ..Setup::of(nodes) });
        network.node(NodeId(1)).update_every = ms(200);
        network.add(NodeId(nodes + 1));

        network.run_for(ms(3000));

        assert!(network.map(1).has_member(NodeId(nodes + 1)));
    }
}

#[test]
fn a_voter_that_begins_anew_says_of_no_move_that_nothing_binds_it() {
    for seed in 1..=20 {
        let mut network = Network::founded(Setup { seed, ..Setup::of(3) });
        let [coordinator, voter, owner] = [1, 2, 3].map(NodeId);
        network.cut.extend([(coordinator, owner), (owner, coordinator)]);
        network.run_for(ms(1000));
        // Nobody but the voter had promised the owner anything lately, and it remembers nothing of that.
        network.kill(voter);
        network.start(voter);
        network.partition(&[3]);
        network.node(owner).leaving = true;

        network.run_for(ms(4000));

        assert_eq!(network.orphans(), 0);
    }
}

#[test]
fn a_voter_that_has_forgotten_its_promises_waits_until_they_are_over() {
    let mut network = Network::founded(Setup { voters: 1, ..Setup::of(3) });
    network.partition(&[3]);
    network.kill(NodeId(1));
    network.start(NodeId(1));
    network.node(NodeId(2)).leaving = true;

    network.run_for(ms(5000));

    assert!(!network.map(1).has_member(NodeId(2)));
}

#[test]
fn a_node_that_takes_leave_hands_over_and_votes_no_more() {
    let mut network = founded(4);
    let leaving = network.map(1).voters().now[1];
    network.node(leaving).leaving = true;
    network.run_for(ms(1000));
    network.kill(leaving);

    network.run_for(ms(1000));

    assert!(!network.map(1).has_member(leaving));
    assert!(!network.map(1).voters().now.contains(&leaving));
    assert_eq!(network.orphans(), 0);
}

#[test]
fn who_has_taken_leave_holds_up_no_later_move() {
    let mut network = founded(5);
    network.node(NodeId(5)).leaving = true;
    let has_left =
        |network: &Network| !network.map(5).has_member(NodeId(5)) && network.daemon(5).duty().settled;
    assert!(network.run_until(ms(1000), has_left).is_some());
    network.kill(NodeId(5));

    network.node(NodeId(4)).leaving = true;
    let began = network.run_until(ms(1000), |network| network.orphans() > 0);
    let ended = network.run_until(ms(1000), |network| network.orphans() == 0);

    assert!(began.is_some() && ended.is_some_and(|took| took <= ms(50)), "{ended:?}");
}

#[test]
fn a_coordinator_whose_map_is_known_before_its_word_is_not_replaced() {
    for quorum in [Quorum::Majority, Quorum::Witness] {
        let mut network = Network::founded(Setup { quorum, ..Setup::of(2) });
        network.run_for(ms(2000));
        let term = network.daemon(1).term();
        network.delay_max = ms(8);
        for nth in 0..40 {
            let to = NodeId(1 + nth % 2);
            network.take_over(NodeId(1), shared_address(), Some(to)).expect("it coordinates");
            network.run_for(ms(400));
        }

        assert_eq!(network.daemon(1).term(), term, "{quorum:?}");
    }
}

#[test]
fn rolling_restarts_keep_the_cluster() {
    let mut network = founded(5);
    for node in (1..=5).map(NodeId) {
        network.kill(node);
        network.run_for(ms(200));
        network.start(node);
        network.run_for(ms(4000));
        network.check_converged();
    }
    assert_eq!(network.map(1).members().len(), 5);
}

#[test]
fn a_cluster_whose_nodes_all_restart_comes_back_with_its_map() {
    let mut network = founded(3);
    let before = network.map(1).version();
    (1..=3).for_each(|node| network.kill(NodeId(node)));
    network.run_for(ms(1000));
    (1..=3).for_each(|node| network.start(NodeId(node)));
    network.run_for(ms(5000));

    network.check_converged();
    assert!(network.map(1).version() >= before);
}

#[test]
fn a_forgotten_voter_is_not_waited_for() {
    let mut network = founded(2);
    network.kill(NodeId(2));
    network.run_for(ms(2000));
    assert_eq!(network.orphans(), 16, "one of two is no majority");
    assert!(!network.forget(1, 1), "a node that lives cannot be forgotten");

    assert!(network.forget(1, 2));
    network.run_for(ms(1000));

    assert_eq!(network.orphans(), 0);
    assert_eq!(network.map(1).voters().now, [NodeId(1)]);
}

#[test]
fn without_quorum_both_sides_go_on_and_agree_again_within_a_second() {
    let setup = Setup { quorum: Quorum::None, ..Setup::of(4) };
    let mut network = Network::founded(setup);
    network.partition(&[1, 4]);
    network.run_for(ms(3000));
    let owners = network.acting(shared_address(), Slot(3));
    assert_eq!(owners.len(), 2, "one on each side");

    network.cut.clear();
    let healed = |network: &Network| network.is_converged() && network.map(1).members().len() == 4;
    let took = network.run_until(ms(1000), healed);

    network.check_converged();
    assert!(took.is_some(), "one map within a second");
}

#[test]
fn sixty_nodes_agree() {
    let slots = SlotCount::default();
    let mut network = Network::new(Setup { slots, ..Setup::of(60) });
    network.run_for(Duration::from_secs(5));
    network.kill(NodeId(7));

    network.run_for(Duration::from_secs(2));

    let first = network.map(1);
    assert!((1..=60).filter(|node| *node != 7).all(|node| network.map(node) == first));
    assert_eq!(first.members().len(), 59);
    assert_eq!(network.orphans(), 0);
}
