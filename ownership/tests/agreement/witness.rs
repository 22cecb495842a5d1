//! Two nodes with a witness that answers both alike: one of them goes on whatever parts them, and never both.

use crate::network::{Network, Setup, shared_address};
use dpr_model::{NodeId, Slot};
use dpr_ownership::agreement::Quorum;
use fastrand::Rng;
use std::time::Duration;

const FIRST: NodeId = NodeId(1);
const SECOND: NodeId = NodeId(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn founded(seed: u64) -> Network {
    Network::founded(Setup { quorum: Quorum::Witness, seed, ..Setup::of(2) })
}

/// Parts the nodes; the witness stays with one of them, or with nobody.
fn part(network: &mut Network, witness: Option<NodeId>) {
    network.partition(&[1]);
    for node in [FIRST, SECOND] {
        network.node(node).reaches_witness = witness == Some(node);
    }
}

fn owners(network: &Network) -> Vec<NodeId> {
    network.acting(shared_address(), Slot(3))
}

#[test]
fn the_side_of_the_witness_goes_on_and_the_other_one_stops() {
    for side in [FIRST, SECOND] {
        let mut network = founded(1);
        part(&mut network, Some(side));
        network.run_for(ms(5000));
        assert!((0..16).all(|slot| network.acting(shared_address(), Slot(slot)) == [side]), "{side}");

        for node in [FIRST, SECOND] {
            network.node(node).reaches_witness = true;
        }
        network.cut.clear();
        let healed = |network: &Network| network.is_converged() && network.map(1).members().len() == 2;
        assert!(network.run_until(ms(2000), healed).is_some(), "one map soon after healing");
    }
}

#[test]
fn the_first_node_does_not_stop_for_a_moment_when_the_second_one_dies() {
    let mut network = founded(2);
    let slots: Vec<Slot> = (0..16).map(Slot).filter(|slot| network.owner_of(*slot) == Some(FIRST)).collect();
    network.kill(SECOND);
    for _ in 0..3000 {
        network.run_for(ms(1));
        assert!(slots.iter().all(|slot| network.owner_of(*slot) == Some(FIRST)), "at {:?}", network.now);
    }
    assert_eq!(network.orphans(), 0);
}

#[test]
fn without_the_witness_nobody_goes_on_alone_and_two_need_none() {
    let mut network = founded(3);
    for node in [FIRST, SECOND] {
        network.node(node).reaches_witness = false;
    }
    network.run_for(ms(5000));
    assert_eq!(network.orphans(), 0, "both are there");

    network.partition(&[1]);
    network.run_for(ms(5000));
    assert_eq!(network.orphans(), 16);
}

#[test]
fn who_hears_the_witness_again_before_the_other_node_waits_for_that_one() {
    let mut network = founded(4);
    part(&mut network, Some(SECOND));
    network.run_for(ms(5000));
    assert_eq!(owners(&network), [SECOND]);

    network.node(FIRST).reaches_witness = true;
    for _ in 0..1000 {
        network.run_for(ms(1));
        assert_eq!(owners(&network), [SECOND]);
    }
    network.cut.clear();
    network.run_for(ms(2000));
    network.check_converged();
}

#[test]
fn a_second_node_that_sees_the_first_on_the_clients_network_does_not_take_over() {
    let mut network = founded(5);
    // Only messages are lost; both still see each other's answers.
    network.partition(&[1]);
    let until = network.now + ms(6000);
    while network.now < until {
        network.run_for(ms(100));
        let (now, second) = (network.now, network.node(SECOND));
        let local = second.local(now);
        second.daemon.as_mut().unwrap().see_voter(FIRST, local);
    }

    assert_eq!(owners(&network), [FIRST]);
    assert!((0..16).all(|slot| network.acting(shared_address(), Slot(slot)) != [SECOND]));
}

#[test]
fn never_do_both_own_a_slot_whatever_parts_them_if_those_who_reach_the_witness_reach_each_other() {
    let seeds: u64 = std::env::var("AGREEMENT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(15);
    for seed in 1..=seeds {
        let mut draw = Rng::with_seed(seed);
        let mut network = Network::new(Setup { quorum: Quorum::Witness, seed, ..Setup::of(2) });
        network.run_for(ms(draw.u64(0..9000)));
        let end = network.now + Duration::from_secs(40);
        while network.now < end {
            disturb(&mut network, &mut draw);
            network.run_for(ms(draw.u64(1..3000)));
        }
        make_peace(&mut network);
        network.run_for(Duration::from_secs(10));
        network.check_converged();
    }
}

fn disturb(network: &mut Network, draw: &mut Rng) {
    let one = [FIRST, SECOND][draw.usize(0..2)];
    match draw.u32(0..9) {
        0 => network.kill(one),
        1 => network.start(one),
        2 => network.node(one).paused = true,
        3 => network.resume(one),
        4 => part(network, Some(one)),
        5 => part(network, None),
        6 => network.node(one).reaches_witness = false,
        7 => network.loss_permille = draw.u32(0..300),
        _ => {
            // Links first: whoever reaches the witness reaches the other one that does.
            network.cut.clear();
            for node in [FIRST, SECOND] {
                network.node(node).reaches_witness = true;
            }
        }
    }
}

fn make_peace(network: &mut Network) {
    network.cut.clear();
    network.loss_permille = 0;
    for node in [FIRST, SECOND] {
        network.resume(node);
        network.node(node).reaches_witness = true;
        if network.node(node).daemon.is_none() {
            network.start(node);
        }
    }
}
