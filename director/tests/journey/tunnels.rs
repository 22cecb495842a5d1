//! What comes through tunnels, and what may not.

use crate::stage::*;

#[test]
fn a_packet_with_spent_hops_is_delivered_although_this_node_would_send_it_on() {
    let mut node = NodeA::with_loads(HOT, IDLE, IDLE);
    let verdict = node.tunnelled(B, HopBudget::SPENT, 1000, B, Tcp::Syn(1));
    let delivery = Ipv4Addr::new(169, 254, 64, 2);
    assert_eq!(verdict, Verdict::Deliver(Delivery { to: Some(delivery.into()), decapsulate: 20 }));
    assert_eq!(node.director.counters().loops_stopped, 1);
}

#[test]
fn received_connections_are_acknowledged_once_each() {
    let mut node = NodeA::with_loads(IDLE, HOT, IDLE);
    for _ in 0..3 {
        node.tunnelled(B, HopBudget::SPENT, 1000, B, Tcp::Syn(1));
    }
    node.tunnelled(B, HopBudget::SPENT, 1000, B, Tcp::Ack);
    node.tunnelled(B, HopBudget::SPENT, 1001, B, Tcp::Syn(1));
    let [acknowledged] = node.director.acknowledgements().try_into().unwrap();
    assert_eq!((acknowledged.director, acknowledged.connections), (id(B), 2));
    assert_eq!(node.director.counters().loops_stopped, 0);
}

#[test]
fn a_packet_that_may_hop_once_more_is_handed_to_the_owner_of_its_slot() {
    let mut node = NodeA::with_loads(IDLE, IDLE, IDLE);
    let once = HopBudget::FRESH.after_a_hop().unwrap();
    let verdict = node.tunnelled(C, once, 1000, B, Tcp::Syn(1));
    let Verdict::Forward(handed) = verdict else { panic!("{verdict:?}") };
    assert_eq!((handed.to, handed.hops, handed.decapsulate), (IpAddr::V4(B), HopBudget::SPENT, 20));
    // One that comes from outside may make two.
    let Verdict::Forward(fresh) = node.segment(1000, B, Tcp::Syn(1)) else { panic!() };
    assert_eq!(fresh.hops, once);
}

#[test]
fn tunnels_from_strangers_and_for_nothing_of_ours_are_dropped() {
    let mut node = NodeA::with_loads(IDLE, IDLE, IDLE);
    assert_eq!(
        node.tunnelled(STRANGER, HopBudget::SPENT, 1, A, Tcp::Syn(1)),
        Verdict::Drop(DropReason::TunnelFromStranger)
    );
    for hops in [HopBudget::SPENT, HopBudget::FRESH] {
        assert_eq!(
            node.tunnelled(B, hops, 1, STRANGER, Tcp::Syn(1)),
            Verdict::Drop(DropReason::TunnelUnknownService)
        );
    }
    let drops = node.director.counters().drops;
    assert_eq!((drops["tunnel-from-stranger"], drops["tunnel-unknown-service"]), (1, 2));
}

#[test]
fn what_is_no_service_of_the_cluster_is_not_touched() {
    let mut node = NodeA::with_loads(HOT, IDLE, IDLE);
    assert_eq!(node.segment(1000, STRANGER, Tcp::Syn(1)), Verdict::Pass);
    let mut ssh = frame(CLIENT, 1000, A, Tcp::Syn(1), 0);
    ssh[36..38].copy_from_slice(&22u16.to_be_bytes());
    assert_eq!(node.receive(&ssh), Verdict::Pass);
}
