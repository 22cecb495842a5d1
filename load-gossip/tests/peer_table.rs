//! One node and what it believes of its peers, datagram by datagram.

mod bench;

use bench::{Bench, LIFE, ME, PEER, datagram, peer, report, socket};
use dpr_load_gossip::message::{self, Via};
use dpr_load_gossip::{
    Action, Config, DatagramError, Destination, DownReason, Key, Keyring, PEERS_MAX, ReportError,
};
use dpr_model::{
    Incarnation, LoadPermille, LoadReport, NodeId, NodeState, Protocol, ReceivedFrom, ServiceReport,
    ServiceSocket, Weight,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

fn in_state(state: NodeState) -> LoadReport {
    LoadReport { state, ..peer() }
}

fn acknowledging(incarnation: u64, director: NodeId, connections: u64) -> LoadReport {
    let received = vec![ReceivedFrom { director, incarnation: LIFE, connections }];
    LoadReport { received, ..report(PEER, Incarnation(incarnation)) }
}

#[test]
fn a_replayed_datagram_is_counted_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.hear(&peer(), 100).unwrap();
    bench.hear(&LoadReport { load: LoadPermille(900), ..peer() }, 101).unwrap();

    assert_eq!(bench.hear(&peer(), 100), Err(DatagramError::Replayed { sequence: 100 }));
    assert_eq!(bench.hear(&peer(), 37), Err(DatagramError::TooOld { sequence: 37, newest: 101 }));

    assert_eq!(bench.gossip.candidates(bench.now)[0].load, LoadPermille(900));
    assert_eq!((bench.rejected("replayed"), bench.rejected("too-old")), (1, 1));
    assert_eq!(bench.gossip.counters().accepted, 2);
}

#[test]
fn an_overtaken_report_does_not_replace_a_fresher_one() {
    let mut bench = Bench::new();
    bench.hear(&LoadReport { load: LoadPermille(900), ..peer() }, 101).unwrap();

    bench.hear(&peer(), 100).unwrap();

    assert_eq!(bench.gossip.candidates(bench.now)[0].load, LoadPermille(900));
}

#[test]
fn a_director_is_told_what_the_freshest_report_says_and_what_others_know_of_the_way() {
    let mut bench = Bench::new();
    let said = LoadReport { load: LoadPermille(900), ..acknowledging(LIFE.0, ME, 7) };
    bench.hear(&said, 100).unwrap();

    let view = bench.gossip.peer(PEER, bench.now).unwrap();
    let peer = view.to_peer(Some(1400));

    let candidate = peer.candidate;
    assert_eq!((candidate.node, candidate.address, candidate.load), (PEER, said.address, said.load));
    assert_eq!((candidate.capacity, candidate.weight), (said.capacity, view.slow_start_weight));
    assert_eq!((peer.state, peer.alive, peer.incarnation), (said.state, true, said.incarnation));
    assert_eq!((peer.acknowledged, peer.mtu, peer.nat_ports), (Some(7), Some(1400), said.nat_ports));
    assert_eq!(peer.services[..], said.services[..]);
}

#[test]
fn directors_share_the_services_of_a_peer_until_it_reports_others() {
    let service =
        |port| ServiceReport::new(Protocol::Tcp, ServiceSocket { address: socket(PEER).ip(), port });
    let with = |services: &[ServiceReport]| LoadReport { services: services.to_vec(), ..peer() };
    let mut bench = Bench::new();
    let mut services_after = |said: &LoadReport, sequence| {
        bench.hear(said, sequence).unwrap();
        bench.gossip.peer(PEER, bench.now).unwrap().to_peer(None).services
    };

    let first = services_after(&with(&[service(80)]), 1);
    let again = services_after(&LoadReport { load: LoadPermille(900), ..with(&[service(80)]) }, 2);
    let others = services_after(&with(&[ServiceReport { healthy: false, ..service(80) }]), 3);

    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!((first[0].healthy, others[0].healthy), (true, false));
}

#[test]
fn an_earlier_life_is_refused_and_a_later_one_replaces() {
    let mut bench = Bench::new();
    bench.hear(&peer(), 100).unwrap();
    bench.actions();

    let stale = bench.hear(&report(PEER, Incarnation(9)), 500);
    bench.hear(&report(PEER, Incarnation(11)), 1).unwrap();

    assert_eq!(stale, Err(DatagramError::StaleIncarnation { incarnation: Incarnation(9), known: LIFE }));
    assert_eq!(bench.actions(), [Action::PeerRestarted(PEER)]);
}

#[test]
fn a_forged_datagram_is_refused() {
    let secret = |byte| Keyring::new(Key::new(&[byte; 32]), None);
    let mut bench = Bench::with(Config::new(ME, LIFE).with_keyring(secret(1)));
    let mut tell = |keyring: &Keyring| {
        bench.gossip.handle_datagram(socket(PEER), &datagram(Via::Multicast, &peer(), 1, keyring), bench.now)
    };

    assert_eq!(tell(&Keyring::unauthenticated()), Err(DatagramError::Unauthenticated));
    assert_eq!(tell(&secret(2)), Err(DatagramError::UnknownKey(Key::new(&[2; 32]).id())));
    assert_eq!(tell(&secret(1)), Ok(()));
    assert_eq!((bench.rejected("unauthenticated"), bench.rejected("unknown-key")), (1, 1));
}

#[test]
fn own_datagrams_that_come_back_are_ignored_in_silence() {
    let mut bench = Bench::new();
    bench.gossip.set_report(&report(ME, LIFE)).unwrap();
    bench.gossip.handle_timeout(bench.now);
    let sent = bench.actions();
    let [Action::Send { to: Destination::Groups, bytes }] = &sent[..] else { panic!("{sent:?}") };

    assert_eq!(bench.gossip.handle_datagram(socket(ME), bytes, bench.now), Ok(()));

    assert_eq!(bench.actions(), []);
    assert_eq!(bench.gossip.peers(bench.now).count(), 0);
    assert_eq!(bench.gossip.counters().accepted, 0);
}

#[test]
fn another_node_with_this_id_is_told_once_and_counted_every_time() {
    let mut bench = Bench::new();
    bench.gossip.set_report(&report(ME, LIFE)).unwrap();
    let address = "10.9.9.9".parse().unwrap();
    let other = LoadReport { address, ..report(ME, Incarnation(3)) };

    for sequence in 1..=3 {
        let conflict = DatagramError::IdConflict { address, incarnation: Incarnation(3) };
        assert_eq!(bench.hear(&other, sequence), Err(conflict));
    }

    let expected = Action::Conflict { from: socket(ME), address, incarnation: Incarnation(3) };
    assert_eq!(bench.actions(), [expected]);
    assert_eq!(bench.rejected("id-conflict"), 3);
}

#[test]
fn an_echo_of_an_earlier_life_of_this_node_is_stale_and_one_of_a_later_life_a_conflict() {
    let mut bench = Bench::new();
    bench.gossip.set_report(&report(ME, LIFE)).unwrap();

    let earlier = bench.hear(&report(ME, Incarnation(9)), 1);
    let later = bench.hear(&report(ME, Incarnation(11)), 1);

    assert!(matches!(earlier, Err(DatagramError::StaleIncarnation { .. })));
    assert!(matches!(later, Err(DatagramError::IdConflict { .. })));
    assert_eq!(bench.actions().len(), 1);
}

#[test]
fn only_alive_active_peers_of_positive_weight_are_candidates_in_order_of_id() {
    let mut bench = Bench::new();
    for node in [9, 4, 7, 5, 6] {
        bench.hear(&report(NodeId(node), LIFE), 1000).unwrap();
    }
    bench.hear(&LoadReport { weight: Weight(0), ..report(NodeId(4), LIFE) }, 1001).unwrap();
    bench.hear(&LoadReport { state: NodeState::Draining, ..report(NodeId(5), LIFE) }, 1001).unwrap();
    bench.hear(&LoadReport { state: NodeState::Joining, ..report(NodeId(6), LIFE) }, 1001).unwrap();

    let candidates = bench.gossip.candidates(bench.now);

    assert_eq!(candidates.iter().map(|candidate| candidate.node.0).collect::<Vec<_>>(), [7, 9]);
    let first = candidates[0];
    assert_eq!((first.load.0, first.capacity.get(), first.outstanding), (400, 500, 0));
    assert_eq!((first.address, first.weight), (socket(NodeId(7)).ip(), Weight::ORDINARY));
}

#[test]
fn a_peer_that_joins_starts_slowly() {
    let mut bench = Bench::new();
    bench.hear(&in_state(NodeState::Joining), 1).unwrap();
    assert!(bench.gossip.candidates(bench.now).is_empty());

    bench.hear(&peer(), 2).unwrap();
    assert_eq!(bench.weight_of(PEER), 10);
    for sequence in 3..=32 {
        bench.pass(Duration::from_millis(100));
        bench.hear(&peer(), sequence).unwrap();
        if sequence == 17 {
            assert_eq!(bench.weight_of(PEER), 55);
        }
    }

    assert_eq!(bench.weight_of(PEER), 100);
    assert_eq!(bench.actions(), [Action::PeerUp(PEER)]);
}

#[test]
fn a_peer_that_was_up_long_before_it_was_heard_has_its_full_weight() {
    let mut bench = Bench::new();

    bench.hear(&peer(), 5000).unwrap();
    bench.hear(&report(NodeId(3), LIFE), 15).unwrap();

    assert_eq!(bench.weight_of(PEER), 100);
    assert_eq!(bench.weight_of(NodeId(3)), 55, "half of the slow start has passed");
}

#[test]
fn acknowledgements_only_grow_and_start_anew_with_a_new_life() {
    let mut bench = Bench::new();
    assert_eq!(bench.gossip.acknowledged_by(PEER), None);
    bench.hear(&peer(), 1).unwrap();
    assert_eq!(bench.gossip.acknowledged_by(PEER), None);

    bench.hear(&acknowledging(10, ME, 70), 3).unwrap();
    bench.hear(&acknowledging(10, NodeId(5), 99), 4).unwrap();
    bench.hear(&acknowledging(10, ME, 60), 2).unwrap();
    assert_eq!(bench.gossip.acknowledged_by(PEER), Some(70));

    bench.hear(&acknowledging(11, ME, 2), 1).unwrap();
    assert_eq!(bench.gossip.acknowledged_by(PEER), Some(2));
}

#[test]
fn silence_ends_in_suspicion_and_after_an_hour_in_oblivion_but_not_in_resurrection_by_replay() {
    let mut bench = Bench::new();
    bench.hear(&peer(), 100).unwrap();

    bench.pass(Duration::from_millis(329));
    assert_eq!(bench.actions(), [Action::PeerUp(PEER)]);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.actions(), [Action::PeerDown { node: PEER, reason: DownReason::Silent }]);
    assert!(bench.gossip.candidates(bench.now).is_empty());
    bench.pass(Duration::from_secs(3600));
    assert_eq!(bench.actions(), [Action::PeerForgotten(PEER)]);
    assert_eq!(bench.gossip.poll_timeout(), None);

    assert_eq!(bench.hear(&peer(), 100), Err(DatagramError::TooOld { sequence: 100, newest: 100 }));
    assert_eq!(bench.hear(&peer(), 101), Ok(()));
    assert_eq!(bench.actions(), [Action::PeerUp(PEER)]);
}

#[test]
fn a_peer_that_left_is_down_until_it_says_otherwise() {
    let mut bench = Bench::new();
    bench.hear(&peer(), 100).unwrap();
    bench.hear(&in_state(NodeState::Leaving), 102).unwrap();
    bench.hear(&peer(), 101).unwrap();
    assert_eq!(bench.gossip.peer(PEER, bench.now).map(|peer| peer.alive), Some(false));

    bench.hear(&report(PEER, Incarnation(11)), 1).unwrap();

    let expected = [
        Action::PeerUp(PEER),
        Action::PeerDown { node: PEER, reason: DownReason::Left },
        Action::PeerRestarted(PEER),
        Action::PeerUp(PEER),
    ];
    assert_eq!(bench.actions(), expected);
}

#[test]
fn a_pause_of_this_node_is_not_the_silence_of_its_peers() {
    let mut bench = Bench::new();
    bench.gossip.set_report(&report(ME, LIFE)).unwrap();
    bench.hear(&peer(), 100).unwrap();
    bench.pass(Duration::from_millis(100));

    bench.now = bench.now + Duration::from_secs(5);
    bench.gossip.handle_timeout(bench.now);

    assert_eq!(bench.gossip.candidates(bench.now).len(), 1);
    bench.pass(Duration::from_millis(400));
    assert!(bench.gossip.candidates(bench.now).is_empty());
}

#[test]
fn a_node_whose_timers_are_always_late_still_suspects_the_silent() {
    let mut bench = Bench::new();
    bench.gossip.set_report(&report(ME, LIFE)).unwrap();
    bench.hear(&peer(), 100).unwrap();

    for _ in 0..6 {
        bench.now = bench.gossip.poll_timeout().unwrap() + Duration::from_millis(250);
        bench.gossip.handle_timeout(bench.now);
    }

    assert!(bench.gossip.candidates(bench.now).is_empty());
}

#[test]
fn an_operator_can_forget_a_peer() {
    let mut bench = Bench::new();
    bench.hear(&peer(), 100).unwrap();
    bench.actions();

    assert!(bench.gossip.forget(PEER));
    assert!(!bench.gossip.forget(PEER));

    assert_eq!(bench.actions(), [Action::PeerForgotten(PEER)]);
    assert_eq!(bench.gossip.poll_timeout(), None);
    assert!(bench.hear(&peer(), 99).is_err());
}

#[test]
fn a_full_table_refuses_newcomers_and_keeps_hearing_the_known() {
    let mut bench = Bench::new();
    let first = 100;
    let count = u32::try_from(PEERS_MAX).unwrap();
    for node in first..first + count {
        bench.hear(&report(NodeId(node), LIFE), 1).unwrap();
    }

    let newcomer = bench.hear(&report(NodeId(first + count), LIFE), 1);

    assert_eq!(newcomer, Err(DatagramError::TableFull { limit: PEERS_MAX }));
    assert_eq!(bench.rejected("table-full"), 1);
    assert_eq!(bench.hear(&report(NodeId(first), LIFE), 2), Ok(()));
}

#[test]
fn a_change_of_state_is_sent_at_once_and_supersedes_what_was_not_picked_up() {
    let mut bench = Bench::new();
    bench.gossip.send_now(bench.now);
    assert_eq!(bench.actions(), [], "there is no report yet");
    bench.gossip.set_report(&report(ME, LIFE)).unwrap();
    assert_eq!(bench.gossip.poll_timeout(), Some(bench.now), "the first report does not wait");
    bench.gossip.handle_timeout(bench.now);
    bench.gossip.set_report(&LoadReport { state: NodeState::Leaving, ..report(ME, LIFE) }).unwrap();

    bench.gossip.send_now(bench.now);

    let actions = bench.actions();
    let [Action::Send { bytes, .. }] = &actions[..] else { panic!("{actions:?}") };
    let sent = message::decode(bytes, &Keyring::unauthenticated()).unwrap();
    assert_eq!((sent.report.state, sent.header.sequence), (NodeState::Leaving, 2));
    assert_eq!(bench.gossip.counters().sent, 2);
    let next = bench.gossip.poll_timeout().unwrap().since(bench.now);
    assert!((90..=110).contains(&next.as_millis()), "{next:?}");
}

#[test]
fn a_report_of_somebody_else_is_not_sent() {
    let mut bench = Bench::new();

    let refused = bench.gossip.set_report(&peer());

    assert_eq!(refused, Err(ReportError::NotOwn { node: PEER, incarnation: LIFE }));
    assert_eq!(bench.gossip.poll_timeout(), None);
}

#[test]
fn peers_heard_by_unicast_only_get_unicast_copies_beside_the_configured_ones() {
    let configured: SocketAddr = "198.51.100.1:7946".parse().unwrap();
    let mut bench = Bench::with(Config::new(ME, LIFE).with_peers(vec![configured]).unwrap());
    bench.gossip.set_report(&report(ME, LIFE)).unwrap();
    bench.hear_via(Via::Unicast, &peer(), 100).unwrap();
    bench.hear_via(Via::Multicast, &report(NodeId(3), LIFE), 100).unwrap();
    bench.hear_via(Via::Unicast, &report(NodeId(3), LIFE), 100).unwrap();
    bench.actions();

    bench.gossip.send_now(bench.now);

    let mut destinations = Vec::new();
    for action in bench.actions() {
        let Action::Send { to, bytes } = action else { panic!("{action:?}") };
        let via = message::decode(&bytes, &Keyring::unauthenticated()).unwrap().header.via;
        assert_eq!(via == Via::Multicast, to == Destination::Groups);
        destinations.push(to);
    }
    let expected = [Destination::Groups, Destination::Peer(socket(PEER)), Destination::Peer(configured)];
    assert_eq!(destinations, expected);
}
