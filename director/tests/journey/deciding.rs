//! Who gets a new connection, and that it stays there.

use crate::stage::*;
use std::sync::Arc;

#[test]
fn below_maxload_a_node_keeps_its_own_connections() {
    let mut node = NodeA::with_loads(IDLE, 0, 0);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
    assert_eq!(node.segment(1000, A, Tcp::Ack), here());
    assert_eq!(node.director.counters().connections_kept, 1);
}

#[test]
fn above_maxload_new_connections_go_to_the_lightest_and_stay_there() {
    let mut node = NodeA::with_loads(HOT, 500, IDLE);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(C));
    node.update.peers = vec![peer(B, 0), peer(C, HOT)];
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Ack), forwarded_to(C));
    assert_eq!(node.segment(1000, A, Tcp::Fin), forwarded_to(C));
}

#[test]
fn the_lightest_of_all_keeps_its_connections_even_above_maxload() {
    let mut node = NodeA::with_loads(HOT, 950, 960);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
}

#[test]
fn a_maxload_of_zero_leaves_the_decision_to_the_policy() {
    let mut node = NodeA::with_loads(IDLE, 0, 500);
    node.update.maxload = LoadPermille(0);
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(B));
}

#[test]
fn what_was_sent_counts_before_the_next_report() {
    let mut node = NodeA::with_loads(HOT, IDLE, IDLE);
    let to_b = (0..100).filter(|port| node.segment(*port, A, Tcp::Syn(1)) == forwarded_to(B)).count();
    assert!((49..=51).contains(&to_b), "{to_b} of 100 went to B");
}

#[test]
fn a_retransmitted_syn_gets_the_same_answer_whatever_the_load_is_now() {
    let mut node = NodeA::with_loads(IDLE, 0, 0);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
    node.update.this.load = LoadPermille(HOT);
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
    assert_ne!(node.segment(1001, A, Tcp::Syn(1)), here());
}

#[test]
fn a_kept_connection_has_no_entry_once_it_is_established() {
    let mut node = NodeA::with_loads(IDLE, 0, 0);
    node.segment(1000, A, Tcp::Syn(1));
    assert_eq!(node.director.conntrack_status().entries, 1);
    node.segment(1000, A, Tcp::Ack);
    assert_eq!(node.director.conntrack_status().entries, 0);
}

#[test]
fn a_late_duplicate_of_a_syn_does_not_move_an_established_connection() {
    let mut node = NodeA::with_loads(IDLE, 0, 0);
    node.segment(1000, A, Tcp::Syn(1));
    node.segment(1000, A, Tcp::Ack);
    node.sockets.0.push(1000);
    node.update.this.load = LoadPermille(HOT);
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
    assert_eq!(node.segment(1000, A, Tcp::Ack), here());
}

#[test]
fn a_syn_on_a_closing_connection_is_a_new_connection() {
    let mut node = NodeA::with_loads(HOT, 500, IDLE);
    node.segment(1000, A, Tcp::Syn(1));
    node.segment(1000, A, Tcp::Ack);
    node.segment(1000, A, Tcp::Fin);
    node.update.peers = vec![peer(B, 0), peer(C, HOT)];
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Syn(99)), forwarded_to(B));
}

#[test]
fn the_retransmission_of_a_syn_to_a_node_that_died_gets_a_better_answer() {
    let mut node = NodeA::with_loads(HOT, 500, IDLE);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(C));
    assert_eq!(node.segment(2000, A, Tcp::Syn(1)), forwarded_to(C));
    node.segment(2000, A, Tcp::Ack);
    node.update.peers[1].alive = false;
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(B));
    // An established one stays: perhaps only the reports are lost.
    assert_eq!(node.segment(2000, A, Tcp::Ack), forwarded_to(C));
}

#[test]
fn a_node_that_took_leave_is_forgotten_with_its_connections() {
    let mut node = NodeA::with_loads(HOT, 500, IDLE);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(C));
    assert_eq!(node.segment(1000, A, Tcp::Ack), forwarded_to(C));
    node.update.peers[1].state = NodeState::Leaving;
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Ack), forwarded_to(C));
    node.update.peers[1].alive = false;
    node.tell();
    // The local TCP stack resets it.
    assert_eq!(node.segment(1000, A, Tcp::Ack), here());
}

#[test]
fn a_late_copy_of_a_syn_does_not_move_a_connection_whose_server_is_suspected() {
    let mut node = NodeA::with_loads(HOT, 500, IDLE);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(C));
    assert_eq!(node.segment(1000, A, Tcp::Ack), forwarded_to(C));
    node.update.peers[1].alive = false;
    node.tell();

    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(C));
    assert_eq!(node.segment(1000, A, Tcp::Ack), forwarded_to(C));
    // Another generation is another connection, and gets a server that lives.
    assert_eq!(node.segment(1000, A, Tcp::Syn(99)), forwarded_to(B));
}

#[test]
fn dead_draining_weightless_and_unhealthy_nodes_are_not_chosen() {
    let cases: [fn(&mut Peer); 4] = [
        |peer| peer.alive = false,
        |peer| peer.state = NodeState::Draining,
        |peer| peer.candidate.weight = Weight(0),
        |peer| Arc::make_mut(&mut peer.services)[0].healthy = false,
    ];
    for spoil in cases {
        let mut node = NodeA::with_loads(HOT, IDLE, 500);
        spoil(&mut node.update.peers[0]);
        node.tell();
        assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(C));
    }
}

#[test]
fn a_draining_director_gives_its_new_connections_away_and_keeps_the_old() {
    let mut node = NodeA::with_loads(IDLE, IDLE, 500);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
    node.update.this.state = NodeState::Draining;
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Ack), here());
    assert_eq!(node.segment(1001, A, Tcp::Syn(1)), forwarded_to(B));
    node.update.peers.clear();
    node.tell();
    assert_eq!(node.segment(1002, A, Tcp::Syn(1)), here());
}

#[test]
fn a_connection_is_not_given_to_the_node_that_is_its_client() {
    let mut node = NodeA::with_loads(HOT, IDLE, 500);
    let from_b = frame(B, 1000, A, Tcp::Syn(1), 0);
    assert_eq!(node.receive(&from_b), forwarded_to(C));
}

#[test]
fn a_silent_daemon_or_a_panic_freeze_keeps_new_connections_at_home() {
    let mut node = NodeA::with_loads(HOT, IDLE, IDLE);
    node.update.frozen = true;
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
    node.update.frozen = false;
    node.tell();
    let forwarded = node.segment(1001, A, Tcp::Syn(1));
    node.wait(LEASE_MAX + Duration::from_millis(1));
    assert_eq!(node.segment(1002, A, Tcp::Syn(1)), here());
    assert_eq!(node.segment(1001, A, Tcp::Ack), forwarded);
    assert!(!node.director.lease_is_valid(node.now));
}

#[test]
fn a_full_table_keeps_connections_at_home() {
    let mut node = NodeA::with_loads(HOT, IDLE, IDLE);
    for port in 0..64 {
        assert_ne!(node.segment(port, A, Tcp::Syn(1)), here());
        node.segment(port, A, Tcp::Ack);
    }
    assert_eq!(node.segment(64, A, Tcp::Syn(1)), here());
    assert_eq!(node.director.conntrack_status().refused_full, 1);
}

#[test]
fn the_stateless_policy_needs_no_entries() {
    let mut node = NodeA::with_loads(IDLE, IDLE, IDLE);
    node.update.policy = PolicyKind::Stateless;
    node.tell();
    let mut spread = std::collections::BTreeSet::new();
    for port in 0..50 {
        let first = node.segment(port, A, Tcp::Syn(1));
        assert_eq!(node.segment(port, A, Tcp::Ack), first);
        spread.insert(format!("{first:?}"));
    }
    assert_eq!(spread.len(), 3);
    assert_eq!(node.director.conntrack_status().entries, 0);
}
