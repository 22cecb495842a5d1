//! How far packets travel.

use dpr_model::{LoadPermille, Verdict};
use dpr_sim::{A, B, C, CLIENT, Outcome, Plan, Sim, Workload, syn_from};
use std::time::Duration;

const HOT: LoadPermille = LoadPermille(950);

#[test]
fn a_packet_that_comes_in_astray_is_handed_to_its_owner_and_from_there_to_its_real_server() {
    let mut cluster = Sim::seeded(1).nodes(3);
    cluster.set_load(A, HOT);
    cluster.set_load(B, HOT);
    cluster.run_for(Duration::from_secs(1));
    cluster.set_astray(1000);

    let handed = cluster.receive_for(B, A, syn_from(CLIENT));
    assert_eq!(handed.egress(), Some(A));
    let plan = Plan::of(20, Duration::from_millis(20));
    let connection = cluster.connect(CLIENT, A, plan).unwrap();
    cluster.run_for(Duration::from_secs(5));

    assert_eq!(cluster.real_server_of(connection), Some(C));
    assert_eq!(cluster.outcome(connection), Some(Outcome::Finished));
}

#[test]
fn nodes_that_both_take_the_other_for_lighter_stop_the_loop() {
    let mut cluster = Sim::seeded(2).maxload(LoadPermille(100)).nodes(2);
    cluster.set_load(A, HOT);
    cluster.set_load(B, HOT);
    cluster.run_for(Duration::from_secs(1));
    cluster.set_workload(Some(Workload { gap_mean: Duration::from_millis(1), ..Workload::default() }));

    cluster.run_for(Duration::from_secs(5));

    let stopped = [A, B].map(|node| cluster.counters(node).unwrap().loops_stopped);
    assert!(stopped.iter().sum::<u64>() > 0, "{stopped:?}");
}

#[test]
fn full_size_requests_get_through_whatever_way_their_packets_take() {
    let mut cluster = Sim::seeded(3).nodes(3);
    cluster.set_astray(500);
    let plan = Plan { request_len: 1460, ..Plan::of(20, Duration::from_millis(10)) };

    let connection = cluster.connect(CLIENT, A, plan).unwrap();
    cluster.run_for(Duration::from_secs(10));

    // Kept by A, so its SYN-ACK promises 1460 bytes, and the way through another node has room for 1440.
    assert_eq!(cluster.outcome(connection), Some(Outcome::Finished));
    let too_big = |entry: &dpr_sim::Entry| {
        matches!(entry.what, dpr_sim::What::Packet { verdict: Verdict::TooBig { .. }, .. })
    };
    assert!(cluster.log().entries().any(too_big));
}
