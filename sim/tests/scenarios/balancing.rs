//! Who gets a new connection.

use dpr_director::PolicyKind;
use dpr_model::{Capacity, LoadPermille};
use dpr_sim::{A, B, C, CLIENT, Outcome, Plan, Sim, Workload, ack_from, syn_from};
use std::time::Duration;

const HOT: LoadPermille = LoadPermille(950);
const REPORTED: Duration = Duration::from_secs(1);

#[test]
fn an_idle_node_keeps_its_own_connections() {
    let mut cluster = Sim::seeded(7).nodes(3);

    assert!(cluster.receive(A, syn_from(CLIENT)).is_kept());
}

#[test]
fn a_hot_node_gives_new_connections_to_the_lightest_and_they_stay_there() {
    let mut cluster = Sim::seeded(7).nodes(3);
    cluster.set_load(A, HOT);
    cluster.set_load(B, LoadPermille(500));
    cluster.run_for(REPORTED);
    assert_eq!(cluster.receive(A, syn_from(CLIENT)).egress(), Some(C));

    cluster.set_load(B, LoadPermille(0));
    cluster.set_load(C, HOT);
    cluster.run_for(Duration::from_millis(300));

    assert_eq!(cluster.receive(A, ack_from(CLIENT)).egress(), Some(C));
}

#[test]
fn a_client_of_a_hot_node_is_served_by_another_and_does_not_notice() {
    let mut cluster = Sim::seeded(8).nodes(2);
    cluster.set_load(A, HOT);
    cluster.run_for(REPORTED);

    let connection = cluster.connect(CLIENT, A, Plan::of(10, Duration::from_millis(50))).unwrap();
    cluster.run_for(Duration::from_secs(2));

    assert_eq!(cluster.real_server_of(connection), Some(B));
    assert_eq!(cluster.outcome(connection), Some(Outcome::Finished));
}

#[test]
fn the_same_client_port_to_two_nodes_that_end_on_one_real_server_are_two_connections() {
    let mut cluster = Sim::seeded(9).nodes(2);
    cluster.set_load(A, HOT);
    cluster.run_for(REPORTED);

    let plan = Plan::of(10, Duration::from_millis(50));
    let [to_a, to_b] = [A, B].map(|home| cluster.connect(CLIENT, home, plan).unwrap());
    cluster.run_for(Duration::from_secs(2));

    assert_eq!([to_a, to_b].map(|id| cluster.real_server_of(id)), [Some(B), Some(B)]);
    assert_eq!([to_a, to_b].map(|id| cluster.outcome(id)), [Some(Outcome::Finished); 2]);
}

#[test]
fn all_clients_on_one_node_end_up_on_all_nodes() {
    // Entries of closed connections stay for two minutes.
    let mut cluster = Sim::seeded(10).capacity(Capacity::new(20)).table(4096, 512).nodes(4);
    cluster.set_workload(Some(Workload { skew_permille: 1000, ..Workload::default() }));

    cluster.run_for(Duration::from_secs(20));

    for node in cluster.node_ids() {
        let established = cluster.established(node);
        assert!((10..=40).contains(&established), "{established} on {node:?}");
    }
    assert_eq!(cluster.connections_with(Some(Outcome::Reset)), 0);
    assert_eq!(cluster.connections_with(Some(Outcome::TimedOut)), 0);
    assert!(cluster.connections_with(Some(Outcome::Finished)) > 1000);
}

#[test]
fn a_full_table_keeps_new_connections_and_breaks_none() {
    let mut cluster = Sim::seeded(12).capacity(Capacity::new(20)).table(64, 16).nodes(4);
    cluster.set_workload(Some(Workload { skew_permille: 1000, ..Workload::default() }));
    cluster.run_for(Duration::from_secs(20));
    cluster.set_workload(None);
    cluster.run_for(Duration::from_secs(10));

    assert_eq!(cluster.connections_with(None), 0);
    assert!(
        cluster.counters(A).unwrap().connections_kept
            > cluster.connections_with(Some(Outcome::Finished)) as u64 / 2
    );
}

#[test]
fn every_policy_serves_every_client_of_a_quiet_cluster() {
    for policy in PolicyKind::ALL {
        let mut cluster = Sim::seeded(11).policy(policy).maxload(LoadPermille(0)).nodes(3);
        cluster.set_workload(Some(Workload::default()));
        cluster.run_for(Duration::from_secs(5));
        cluster.set_workload(None);
        cluster.run_for(Duration::from_secs(5));

        let finished = cluster.connections_with(Some(Outcome::Finished));
        assert!(finished > 300, "{policy:?}: {finished}");
        assert_eq!(cluster.connections_with(None), 0, "{policy:?}");
        assert!(cluster.counters(A).unwrap().connections_forwarded > 0, "{policy:?}");
    }
}
