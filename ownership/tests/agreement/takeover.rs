//! Addresses that move at an operator's word, stay away from homes that return, or leave a node that clients do not reach.

use crate::network::{Network, Setup, home_address, shared_address};
use dpr_model::{NodeId, Slot};
use dpr_ownership::agreement::{GiveBack, TakeOverError};
use std::time::Duration;

const HOME: u32 = 2;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Three nodes, of which the first coordinates.
fn founded(give_back: GiveBack) -> Network {
    Network::founded(Setup { give_back, ..Setup::of(3) })
}

fn holders(network: &Network, address: std::net::IpAddr) -> Vec<NodeId> {
    let mut holders: Vec<NodeId> = (0..16).flat_map(|slot| network.acting(address, Slot(slot))).collect();
    holders.sort_unstable();
    holders.dedup();
    holders
}

#[test]
fn an_address_moves_when_its_heir_has_copies_and_goes_back_at_a_word() {
    let mut network = founded(GiveBack::Auto);
    for address in [shared_address(), home_address(HOME)] {
        let before = holders(&network, address);
        network.node(NodeId(HOME)).has_copied = false;
        network.take_over(NodeId(1), address, Some(NodeId(3))).unwrap();
        network.run_for(ms(2000));
        assert_eq!(holders(&network, address), before, "copies are not there yet");
        assert_eq!(network.map(HOME).heir_of(address), Some(NodeId(3)));
        assert_eq!(network.map(HOME).backups(address, Slot(7))[0], Some(NodeId(3)), "it gets copies");

        network.node(NodeId(HOME)).has_copied = true;
        network.run_for(ms(1000));
        assert_eq!(holders(&network, address), [NodeId(3)]);
        assert_eq!(network.map(HOME).heir_of(address), None);

        network.take_over(NodeId(1), address, None).unwrap();
        network.run_for(ms(1000));
        assert_eq!(holders(&network, address), before);
        network.check_converged();
    }
}

#[test]
fn who_never_has_copies_does_not_hold_up_a_move_for_ever() {
    let mut network = founded(GiveBack::Auto);
    network.node(NodeId(HOME)).has_copied = false;
    network.take_over(NodeId(1), home_address(HOME), Some(NodeId(3))).unwrap();

    network.run_for(ms(9000));
    assert_eq!(holders(&network, home_address(HOME)), [NodeId(HOME)]);
    network.run_for(ms(3000));
    assert_eq!(holders(&network, home_address(HOME)), [NodeId(3)]);
}

#[test]
fn an_address_outlives_its_new_owner_and_the_coordinator_that_moved_it() {
    let mut network = founded(GiveBack::Auto);
    network.take_over(NodeId(1), home_address(HOME), Some(NodeId(3))).unwrap();
    network.run_for(ms(1000));

    network.kill(NodeId(1));
    network.run_for(ms(3000));
    assert_eq!(holders(&network, home_address(HOME)), [NodeId(3)], "it stays where it was put");
    network.start(NodeId(1));
    network.run_for(ms(4000));
    network.kill(NodeId(3));
    network.run_for(ms(3000));
    assert_eq!(holders(&network, home_address(HOME)), [NodeId(HOME)], "its home lives");
    network.start(NodeId(3));
    network.run_for(ms(4000));
    assert_eq!(holders(&network, home_address(HOME)), [NodeId(HOME)], "it goes back only once");
}

#[test]
fn a_home_that_returns_waits_for_a_word_where_addresses_are_given_back_by_hand() {
    for (give_back, gets_it) in [(GiveBack::Auto, true), (GiveBack::Manual, false)] {
        let mut network = founded(give_back);
        assert_eq!(holders(&network, home_address(HOME)), [NodeId(HOME)], "everybody begins with its own");
        network.kill(NodeId(HOME));
        network.run_for(ms(3000));
        assert_eq!(holders(&network, home_address(HOME)), [NodeId(1), NodeId(3)]);

        network.start(NodeId(HOME));
        network.run_for(ms(5000));
        assert!(network.map(1).has_member(NodeId(HOME)));
        assert_eq!(holders(&network, home_address(HOME)) == [NodeId(HOME)], gets_it, "{give_back:?}");
        network.check_converged();

        network.take_over(NodeId(1), home_address(HOME), None).unwrap();
        network.run_for(ms(1000));
        assert_eq!(holders(&network, home_address(HOME)), [NodeId(HOME)]);
    }
}

#[test]
fn what_cannot_be_moved_is_refused_with_a_reason() {
    let mut network = founded(GiveBack::Auto);
    let nobodys = std::net::IpAddr::from([192, 0, 2, 1]);
    let bound = network.node(NodeId(1)).daemon.as_mut().unwrap();
    bound.set_bound([home_address(3)]);
    let mut refused = |at: u32, address, to: u32| network.take_over(NodeId(at), address, Some(NodeId(to)));

    assert_eq!(refused(2, shared_address(), 3), Err(TakeOverError::NotCoordinator));
    assert_eq!(refused(1, nobodys, 3), Err(TakeOverError::UnknownAddress(nobodys)));
    assert_eq!(refused(1, shared_address(), 9), Err(TakeOverError::UnfitOwner(NodeId(9))));
    assert_eq!(refused(1, home_address(3), 2), Err(TakeOverError::NodeAddress(home_address(3), NodeId(3))));
}

#[test]
fn who_is_cut_off_from_clients_owns_nothing_while_others_are_not() {
    let mut network = founded(GiveBack::Auto);
    network.node(NodeId(HOME)).cut_off = true;
    network.run_for(ms(1000));
    assert_eq!(holders(&network, home_address(HOME)), [NodeId(1), NodeId(3)]);
    assert_eq!(holders(&network, shared_address()), [NodeId(1), NodeId(3)]);
    assert_eq!(network.map(1).voters().now.len(), 3, "it votes still");

    for node in [1, 3] {
        network.node(NodeId(node)).cut_off = true;
    }
    network.run_for(ms(1000));
    assert_eq!(holders(&network, home_address(HOME)), [NodeId(HOME)], "nobody is better off");

    for node in 1..=3 {
        network.node(NodeId(node)).cut_off = false;
    }
    network.run_for(ms(1000));
    network.check_converged();
    assert_eq!(holders(&network, home_address(HOME)), [NodeId(HOME)]);
}
