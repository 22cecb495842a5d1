//! Clusters of gossips on a virtual network: what nodes believe of each other under loss, cuts and restarts.

mod network;

use dpr_load_gossip::{Action, Config, DownReason, Key, Keyring};
use dpr_model::{Incarnation, NodeId, NodeState};
use network::{Event, Network, report_of, socket_of};
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn suspicions(events: &[Event]) -> impl Iterator<Item = &Event> {
    events.iter().filter(|event| matches!(event.action, Action::PeerDown { reason: DownReason::Silent, .. }))
}

#[test]
fn nodes_that_hear_each_other_are_all_alive() {
    let mut network = Network::seeded(1).with_nodes(5);

    network.run_for(SECOND);

    assert_eq!(network.alive_for(1), [2, 3, 4, 5]);
    assert_eq!(network.alive_for(5), [1, 2, 3, 4]);
    let counters = network.node(3).counters();
    assert!(counters.accepted >= 30, "{counters:?}");
    assert!(counters.rejected.values().all(|count| *count == 0), "{counters:?}");
    assert_eq!(network.unicast_sent, 0);
}

#[test]
fn without_loss_a_dead_node_is_suspected_within_350_ms_and_nobody_else_is() {
    for seed in 1..=20 {
        let mut network = Network::seeded(seed).with_nodes(6);
        network.delay_max = Duration::from_millis(10);
        network.run_for(20 * SECOND + Duration::from_millis(seed * 7));
        assert_eq!(suspicions(&network.events).count(), 0, "seed {seed}");

        let died = network.now();
        network.kill(4);
        network.run_for(SECOND);

        let observers: Vec<NodeId> = suspicions(&network.events).map(|event| event.observer).collect();
        assert_eq!(BTreeSet::from_iter(&observers).len(), 5, "seed {seed}: {observers:?}");
        for event in suspicions(&network.events) {
            let node = NodeId(4);
            assert_eq!(event.action, Action::PeerDown { node, reason: DownReason::Silent });
            let after = event.at.since(died);
            assert!(after <= Duration::from_millis(350), "seed {seed}: {after:?}");
        }
    }
}

#[test]
fn at_30_percent_loss_false_suspicion_is_rare_and_death_is_noticed_within_1_5_s() {
    let mut false_suspicions = 0;
    for seed in 1..=20 {
        let mut network = Network::seeded(seed).with_nodes(6);
        network.loss_permille = 300;
        network.run_for(10 * SECOND);
        network.events.clear();

        network.run_for(60 * SECOND);
        false_suspicions += suspicions(&network.events).count();
        let died = network.now();
        network.kill(4);
        network.run_for(Duration::from_millis(1500));

        for observer in [1, 2, 3, 5, 6] {
            assert!(!network.alive_for(observer).contains(&4), "seed {seed}, observer {observer}");
        }
        assert!(network.events.iter().all(|event| event.at.since(died) <= Duration::from_millis(1500)));
    }
    // 30 pairs watched for 20 minutes in all, 360,000 reports: ten hours of one peer watching another.
    assert!(false_suspicions <= 10, "{false_suspicions} false suspicions");
}

/// What node 1 thinks of node 2's weight just after node 2 was cut off for a while.
fn weight_after_silence(silence: Duration) -> u16 {
    let mut network = Network::seeded(3).with_nodes(3);
    network.run_for(10 * SECOND);
    network.cut_off.insert(NodeId(2));
    network.run_for(silence);
    assert_eq!(network.alive_for(1), [3]);

    network.cut_off.clear();
    network.run_for(Duration::from_millis(115));

    assert_eq!(network.alive_for(1), [2, 3]);
    let now = network.now();
    let mut weight_of = |node| network.node(1).peer(NodeId(node), now).map(|peer| peer.slow_start_weight.0);
    assert_eq!(weight_of(3), Some(100));
    weight_of(2).expect("node 2 is alive")
}

#[test]
fn a_suspect_returns_with_its_first_fresh_report_in_full_strength_if_it_was_not_silent_for_long() {
    assert_eq!(weight_after_silence(SECOND), 100);
}

#[test]
fn a_suspect_that_was_silent_for_long_starts_slowly() {
    assert!(weight_after_silence(4 * SECOND) < 20);
}

#[test]
fn a_node_that_leaves_is_down_at_once() {
    let mut network = Network::seeded(4).with_nodes(3);
    network.run_for(SECOND);
    let mut goodbye = report_of(NodeId(2), 1);
    goodbye.state = NodeState::Leaving;
    let now = network.now();

    network.node(2).set_report(&goodbye).unwrap();
    network.node(2).send_now(now);
    network.run_for(Duration::from_millis(2));
    network.kill(2);
    assert_eq!((network.alive_for(1), network.alive_for(3)), (vec![3], vec![1]));
    network.run_for(2 * SECOND);

    let downs: Vec<&Action> =
        network.events.iter().map(|e| &e.action).filter(|a| matches!(a, Action::PeerDown { .. })).collect();
    let expected = Action::PeerDown { node: NodeId(2), reason: DownReason::Left };
    assert_eq!(downs, [&expected, &expected]);
}

#[test]
fn a_restarted_node_is_known_by_its_new_life() {
    let mut network = Network::seeded(5).with_nodes(3);
    network.run_for(SECOND);

    network.kill(2);
    network.start(Config::new(NodeId(2), Incarnation(2)), NodeId(2), 2);
    network.run_for(SECOND);

    let restarts = network.events.iter().filter(|e| e.action == Action::PeerRestarted(NodeId(2))).count();
    assert_eq!(restarts, 2);
    assert_eq!(network.alive_for(2), [1, 3]);
    assert_eq!(suspicions(&network.events).count(), 0);
    let now = network.now();
    assert_eq!(network.node(1).peer(NodeId(2), now).unwrap().report.incarnation, Incarnation(2));
}

#[test]
fn where_multicast_stops_working_nodes_find_each_other_by_unicast() {
    let mut network = Network::seeded(6).with_nodes(4);
    network.run_for(10 * SECOND);

    network.multicast_works = false;
    network.run_for(SECOND);
    assert_eq!(network.alive_for(1), [2, 3, 4]);
    let now = network.now();
    assert!(network.node(1).peers(now).all(|peer| !peer.heard_by_multicast && !peer.multicast_blocked));
    network.events.clear();
    network.run_for(9 * SECOND);

    assert_eq!(suspicions(&network.events).count(), 0);
    let now = network.now();
    assert!(network.node(1).peers(now).all(|peer| peer.multicast_blocked));

    network.multicast_works = true;
    network.run_for(SECOND);
    let (now, sent) = (network.now(), network.unicast_sent);
    assert!(network.node(1).peers(now).all(|peer| peer.heard_by_multicast && !peer.multicast_blocked));
    network.run_for(SECOND);
    assert_eq!(network.unicast_sent, sent, "unicast ends once multicast works");
}

#[test]
fn one_configured_peer_is_enough_without_multicast() {
    let mut network = Network::seeded(7);
    network.multicast_works = false;
    let config = Config::new(NodeId(1), Incarnation(1)).with_peers(vec![socket_of(NodeId(2))]).unwrap();
    network.start(config, NodeId(1), 1);
    network.start(Config::new(NodeId(2), Incarnation(1)), NodeId(2), 1);

    network.run_for(SECOND);

    assert_eq!((network.alive_for(1), network.alive_for(2)), (vec![2], vec![1]));
}

#[test]
fn copies_by_both_ways_make_nobody_more_or_less_patient() {
    let mut network = Network::seeded(8);
    network.delay_max = Duration::from_millis(15);
    let both = |id: u32| {
        let peers = (1..=3).filter(|peer| *peer != id).map(|peer| socket_of(NodeId(peer))).collect();
        Config::new(NodeId(id), Incarnation(1)).with_peers(peers).unwrap()
    };
    (1..=3).for_each(|id| network.start(both(id), NodeId(id), 1));
    network.run_for(20 * SECOND);
    assert_eq!(suspicions(&network.events).count(), 0);
    assert!(network.node(1).counters().rejected.values().all(|count| *count == 0));

    let died = network.now();
    network.kill(3);
    network.run_for(SECOND);

    let latest = suspicions(&network.events).map(|event| event.at.since(died)).max().unwrap();
    assert!(latest <= Duration::from_millis(350), "{latest:?}");
}

#[test]
fn keys_rotate_without_anybody_being_suspected() {
    let key = |byte| Key::new(&[byte; 32]);
    let mut network = Network::seeded(9);
    for id in 1..=4 {
        let config = Config::new(NodeId(id), Incarnation(1)).with_keyring(Keyring::new(key(1), None));
        network.start(config, NodeId(id), 1);
    }
    let steps =
        [Keyring::new(key(1), Some(key(2))), Keyring::new(key(2), Some(key(1))), Keyring::new(key(2), None)];

    for keyring in steps {
        for id in 1..=4 {
            network.run_for(SECOND / 3);
            network.set_keyring(id, keyring.clone());
        }
        network.run_for(SECOND);
    }

    assert_eq!(network.alive_for(1), [2, 3, 4]);
    assert_eq!(suspicions(&network.events).count(), 0);
    assert!(network.node(2).counters().rejected.values().all(|count| *count == 0));
}

#[test]
fn a_node_without_the_key_is_not_heard() {
    let keyring = Keyring::new(Key::new(&[1; 32]), None);
    let mut network = Network::seeded(10);
    network.start(Config::new(NodeId(1), Incarnation(1)).with_keyring(keyring), NodeId(1), 1);
    network.start(Config::new(NodeId(2), Incarnation(1)), NodeId(2), 1);

    network.run_for(SECOND);

    assert!(network.alive_for(1).is_empty() && network.alive_for(2).is_empty());
    assert!(network.node(1).counters().rejected["unauthenticated"] >= 9);
    assert!(network.node(2).counters().rejected["unknown-key"] >= 9);
}

#[test]
fn most_peers_silent_freezes_and_their_return_thaws() {
    let mut network = Network::seeded(11).with_nodes(5);
    network.run_for(SECOND);
    assert!(!network.node(1).frozen());

    network.cut_off.extend([NodeId(2), NodeId(3)]);
    network.run_for(SECOND);
    assert!(!network.node(1).frozen(), "two of four are alive");
    network.cut_off.insert(NodeId(4));
    network.run_for(SECOND);
    assert!(network.node(1).frozen(), "one of four is alive");

    network.cut_off.clear();
    network.run_for(SECOND);
    assert!(!network.node(1).frozen());
}
