//! What clients see when something fails.

use dpr_model::{ClientSocket, LoadPermille, NodeId};
use dpr_sim::{
    A, B, C, CLIENT, ConnectionId, D, Fault, Host, Outcome, Plan, Quality, Sim, Workload, syn_from,
};
use std::time::Duration;

const HOT: LoadPermille = LoadPermille(950);
const LONG: Plan = Plan { requests: 200, think: Duration::from_millis(100), ..Plan::ONE_REQUEST };

/// `count` long connections to A, which is hot, so that others serve them.
fn long_connections(cluster: &mut Sim, count: u16) -> Vec<ConnectionId> {
    cluster.set_load(A, HOT);
    cluster.run_for(Duration::from_secs(1));
    let open =
        |port| cluster.connect(ClientSocket { port, ..CLIENT }, A, LONG).expect("the sockets are free");
    let connections = (1..=count).map(open).collect();
    cluster.run_for(Duration::from_secs(1));
    connections
}

fn on(cluster: &Sim, connections: &[ConnectionId], node: NodeId) -> Vec<ConnectionId> {
    let is_there = |id: &ConnectionId| cluster.real_server_of(*id) == Some(node);
    connections.iter().copied().filter(is_there).collect()
}

#[test]
fn a_node_that_dies_loses_its_own_connections_and_no_others() {
    let mut cluster = Sim::seeded(1).nodes(4);
    let connections = long_connections(&mut cluster, 60);
    let (lost, kept) = (on(&cluster, &connections, B), on(&cluster, &connections, C));
    assert!(lost.len() >= 10 && kept.len() >= 10, "{} {}", lost.len(), kept.len());

    cluster.inject(Fault::KillNode(B));
    cluster.run_for(Duration::from_secs(160));

    assert!(lost.iter().all(|id| cluster.outcome(*id) == Some(Outcome::TimedOut)));
    assert!(kept.iter().all(|id| cluster.outcome(*id) == Some(Outcome::Finished)));
}

#[test]
fn a_dead_node_gets_no_new_connection_after_half_a_second_and_returns() {
    let mut cluster = Sim::seeded(2).nodes(3);
    cluster.set_load(A, HOT);
    cluster.set_load(C, LoadPermille(600));
    cluster.run_for(Duration::from_secs(1));
    let chosen =
        |cluster: &mut Sim, port| cluster.receive(A, syn_from(ClientSocket { port, ..CLIENT })).egress();
    assert_eq!(chosen(&mut cluster, 1), Some(B));

    cluster.inject(Fault::KillNode(B));
    cluster.run_for(Duration::from_millis(500));
    assert_eq!(chosen(&mut cluster, 2), Some(C));
    cluster.inject(Fault::StartNode(B));
    cluster.run_for(Duration::from_secs(5));

    assert_eq!(chosen(&mut cluster, 3), Some(B));
}

#[test]
fn loads_that_swing_move_no_connection() {
    let mut cluster = Sim::seeded(3).nodes(4);
    let connections = long_connections(&mut cluster, 200);

    for swing in 0..60_u16 {
        for node in [A, B, C, D] {
            let load = (swing * 331 + u16::try_from(node.0).unwrap() * 617) % 1000;
            cluster.set_load(node, LoadPermille(load));
        }
        cluster.run_for(Duration::from_millis(500));
    }

    assert!(connections.iter().all(|id| cluster.outcome(*id) == Some(Outcome::Finished)));
}

#[test]
fn a_partition_breaks_only_what_has_to_cross_it_and_heals() {
    let mut cluster = Sim::seeded(4).nodes(4);
    let connections = long_connections(&mut cluster, 60);

    cluster.inject(Fault::Partition(vec![vec![A, B], vec![C, D]]));
    cluster.run_for(Duration::from_secs(3));
    assert_eq!(cluster.alive_for(A), [B]);
    cluster.inject(Fault::Heal);
    cluster.run_for(Duration::from_secs(40));

    // Three seconds without an answer are two retransmissions for those that had to wait.
    assert!(connections.iter().all(|id| cluster.outcome(*id) == Some(Outcome::Finished)));
    assert_eq!(cluster.alive_for(A), [B, C, D]);
}

#[test]
fn a_director_that_hears_nobody_keeps_what_it_would_have_moved() {
    let mut cluster = Sim::seeded(5).nodes(4);
    cluster.set_load(A, HOT);
    cluster.run_for(Duration::from_secs(1));

    for node in [B, C, D] {
        cluster.inject(Fault::Cut(Host::Node(node), Host::Node(A)));
    }
    cluster.run_for(Duration::from_secs(2));

    assert!(cluster.receive(A, syn_from(CLIENT)).is_kept());
    assert_eq!(cluster.alive_for(B), [A, C, D]);
}

#[test]
fn a_paused_node_keeps_its_connections_and_takes_nobody_for_dead() {
    let mut cluster = Sim::seeded(6).nodes(4);
    let connections = long_connections(&mut cluster, 60);

    cluster.inject(Fault::Pause(B));
    cluster.run_for(Duration::from_secs(5));
    assert_eq!(cluster.alive_for(A), [C, D]);
    cluster.inject(Fault::Resume(B));
    cluster.run_for(Duration::from_millis(1));
    assert_eq!(cluster.alive_for(B), [A, C, D]);
    cluster.run_for(Duration::from_secs(40));

    assert!(connections.iter().all(|id| cluster.outcome(*id) == Some(Outcome::Finished)));
}

#[test]
fn a_killed_daemon_is_known_again_although_its_wall_clock_went_back() {
    let mut cluster = Sim::seeded(7).nodes(3);
    cluster.inject(Fault::SetBackWallClock(B, Duration::from_secs(86_400)));

    cluster.inject(Fault::KillDaemon(B));
    cluster.run_for(Duration::from_secs(2));
    assert_eq!(cluster.alive_for(A), [C]);
    cluster.inject(Fault::StartDaemon(B));
    cluster.run_for(Duration::from_secs(1));

    assert_eq!(cluster.alive_for(A), [B, C]);
    assert_eq!(cluster.alive_for(B), [A, C]);
}

#[test]
fn a_clock_that_jumps_ahead_disturbs_no_connection() {
    let mut cluster = Sim::seeded(8).nodes(3);
    let connections = long_connections(&mut cluster, 30);

    cluster.inject(Fault::StepClock(A, Duration::from_secs(30)));
    cluster.inject(Fault::StepClock(B, Duration::from_secs(5)));
    cluster.run_for(Duration::from_secs(30));

    assert!(connections.iter().all(|id| cluster.outcome(*id) == Some(Outcome::Finished)));
}

#[test]
fn a_flood_of_syns_takes_no_established_connection_with_it() {
    let mut cluster = Sim::seeded(9).table(256, 64).nodes(3);
    let connections = long_connections(&mut cluster, 60);

    cluster.inject(Fault::Flood(A, 5_000));
    cluster.run_for(Duration::from_secs(30));

    assert!(connections.iter().all(|id| cluster.outcome(*id) == Some(Outcome::Finished)));
}

#[test]
fn a_bad_network_costs_time_and_no_connections() {
    let mut cluster = Sim::seeded(10).maxload(LoadPermille(50)).nodes(6);
    let bad = Quality {
        loss_permille: 100,
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(5),
        duplicate_permille: 50,
        reorder_permille: 100,
        straggle_max: Duration::from_millis(100),
    };
    cluster.set_inside(bad);
    cluster.set_outside(bad);
    cluster.set_workload(Some(Workload { ports: 40, ..Workload::default() }));
    cluster.run_for(Duration::from_secs(20));
    cluster.set_workload(None);
    cluster.run_for(Duration::from_secs(100));

    let lost = [Outcome::Refused, Outcome::Reset, Outcome::TimedOut];
    let lost: usize = lost.into_iter().map(|outcome| cluster.connections_with(Some(outcome))).sum();
    let finished = cluster.connections_with(Some(Outcome::Finished));
    // Before the real server knows of a handshake, a late answer of another one may end it.
    assert!(finished > 1000 && lost * 200 < finished, "{lost} lost, {finished} finished");
}
