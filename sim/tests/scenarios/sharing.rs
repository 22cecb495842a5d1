//! Nodes that share an address, and stand in for each other.

use dpr_model::{ClientSocket, DropReason, Ingress, LoadPermille, NodeId};
use dpr_sim::{A, B, C, CLIENT, ConnectionId, D, Fault, Host, Outcome, Plan, Quality, SHARED, Sim, Workload};
use std::time::Duration;

const LONG: Plan = Plan { requests: 200, think: Duration::from_millis(100), ..Plan::ONE_REQUEST };
const SECOND: Duration = Duration::from_secs(1);

fn sharing(seed: u64, ingress: Ingress, nodes: u32) -> Sim {
    // So low that connections go to others than their directors.
    Sim::seeded(seed).maxload(LoadPermille(0)).shared(ingress).nodes(nodes)
}

fn client(port: u16) -> ClientSocket {
    ClientSocket { port, ..CLIENT }
}

fn connect(cluster: &mut Sim, home: NodeId, count: u16) -> Vec<ConnectionId> {
    let open = |port| cluster.connect(client(port), home, LONG).expect("the sockets are free");
    (1..=count).map(open).collect()
}

fn are_finished(cluster: &Sim, connections: &[ConnectionId]) -> bool {
    connections.iter().all(|id| cluster.outcome(*id) == Some(Outcome::Finished))
}

fn not_on(cluster: &Sim, connections: &[ConnectionId], node: NodeId) -> Vec<ConnectionId> {
    connections.iter().copied().filter(|id| cluster.real_server_of(*id) != Some(node)).collect()
}

fn drops(cluster: &Sim, node: NodeId, reason: DropReason) -> u64 {
    cluster.counters(node).map_or(0, |counters| counters.drops.get(reason.label()).copied().unwrap_or(0))
}

#[test]
fn every_node_decides_about_its_part_of_a_shared_address() {
    for ingress in Ingress::ALL {
        let mut cluster = sharing(1, ingress, 4);
        assert!(cluster.is_agreed());
        let connections = connect(&mut cluster, SHARED, 100);
        let owners: Vec<_> = (1..=100).filter_map(|port| cluster.owner_of(client(port), SHARED)).collect();

        cluster.run_for(30 * SECOND);

        assert!(are_finished(&cluster, &connections), "{ingress:?}");
        for node in [A, B, C, D] {
            let owned = owners.iter().filter(|owner| **owner == node).count();
            assert!((10..40).contains(&owned), "{ingress:?}: {owned} of 100 are {node}'s");
        }
        let seen_by_others = drops(&cluster, A, DropReason::NotMine) > 100;
        assert_eq!(seen_by_others, ingress == Ingress::SharedMac, "{ingress:?}");
    }
}

#[test]
fn connections_outlive_their_director_and_new_ones_find_another() {
    for ingress in Ingress::ALL {
        let mut cluster = sharing(2, ingress, 4);
        let connections = connect(&mut cluster, SHARED, 100);
        cluster.run_for(2 * SECOND);

        cluster.inject(Fault::KillNode(B));
        cluster.run_for(SECOND);
        let later = cluster.connect(client(500), SHARED, LONG).unwrap();
        cluster.run_for(40 * SECOND);

        let others = not_on(&cluster, &connections, B);
        assert!(others.len() > 50 && are_finished(&cluster, &others), "{ingress:?}");
        assert!(are_finished(&cluster, &[later]), "{ingress:?}");
        assert!(cluster.is_agreed());
    }
}

#[test]
fn connections_of_a_dead_nodes_own_address_go_on_through_those_who_take_it_over() {
    let mut cluster = sharing(3, Ingress::ArpOwner, 5);
    let connections = connect(&mut cluster, B, 100);
    cluster.run_for(2 * SECOND);

    cluster.inject(Fault::KillNode(B));
    cluster.run_for(2 * SECOND);
    let stand_ins: Vec<_> = (1..=100).filter_map(|port| cluster.owner_of(client(port), B)).collect();
    cluster.run_for(4 * SECOND);
    cluster.inject(Fault::StartNode(B));
    cluster.run_for(40 * SECOND);

    assert!([A, C, D].iter().all(|node| stand_ins.contains(node)), "its slots are spread");
    let others = not_on(&cluster, &connections, B);
    assert!(others.len() > 50 && are_finished(&cluster, &others));
    assert_eq!(cluster.owner_of(client(1), B), Some(B), "it has its address again");
}

#[test]
fn nodes_that_join_drain_and_return_break_no_connection() {
    for ingress in Ingress::ALL {
        let mut cluster = sharing(4, ingress, 6);
        cluster.inject(Fault::KillNode(D));
        cluster.run_for(2 * SECOND);
        let connections = connect(&mut cluster, SHARED, 200);
        cluster.run_for(2 * SECOND);

        cluster.inject(Fault::StartNode(D));
        cluster.run_for(8 * SECOND);
        cluster.inject(Fault::Drain(A, true));
        cluster.inject(Fault::Drain(B, true));
        cluster.run_for(4 * SECOND);
        let owners: Vec<_> = (1..=100).filter_map(|port| cluster.owner_of(client(port), SHARED)).collect();
        cluster.inject(Fault::Drain(A, false));
        cluster.run_for(40 * SECOND);

        assert!(owners.contains(&D) && !owners.contains(&A) && !owners.contains(&B), "{ingress:?}");
        assert!(are_finished(&cluster, &connections), "{ingress:?}");
    }
}

#[test]
fn a_paused_owner_that_wakes_up_acts_on_nothing_that_is_not_its_own_any_more() {
    let mut cluster = sharing(5, Ingress::SharedMac, 4);
    let connections = connect(&mut cluster, SHARED, 100);
    cluster.run_for(2 * SECOND);

    cluster.inject(Fault::Pause(B));
    cluster.run_for(3 * SECOND);
    cluster.inject(Fault::Resume(B));
    cluster.run_for(40 * SECOND);

    assert!(drops(&cluster, B, DropReason::NoLease) > 0, "it had packets waiting");
    assert!(are_finished(&cluster, &connections));
}

#[test]
fn after_a_partition_heals_all_maps_are_the_same_within_a_second() {
    let mut cluster = sharing(6, Ingress::SharedMac, 5);
    cluster.set_workload(Some(Workload { skew_permille: 800, ..Workload::default() }));

    cluster.inject(Fault::Partition(vec![vec![A, B], vec![C, D, NodeId(5)]]));
    cluster.run_for(3 * SECOND);
    assert!((1..=50).all(|port| cluster.owner_of(client(port), SHARED).is_some_and(|owner| owner.0 > 2)));
    cluster.inject(Fault::Heal);
    cluster.run_for(SECOND);

    assert!(cluster.is_agreed());
}

#[test]
fn an_owner_that_nobody_hears_stops_before_others_begin() {
    let mut cluster = sharing(7, Ingress::SharedMac, 4);
    let connections = connect(&mut cluster, SHARED, 60);
    cluster.run_for(2 * SECOND);

    for node in [A, C, D] {
        cluster.inject(Fault::Cut(Host::Node(B), Host::Node(node)));
    }
    cluster.run_for(4 * SECOND);

    assert!((1..=60).all(|port| cluster.owner_of(client(port), SHARED).is_some_and(|owner| owner != B)));
    for node in [A, C, D] {
        cluster.inject(Fault::Mend(Host::Node(B), Host::Node(node)));
    }
    cluster.run_for(40 * SECOND);
    assert!(cluster.connections_with(Some(Outcome::Finished)) > connections.len() / 2);
}

#[test]
fn loss_and_jitter_between_nodes_move_no_slot() {
    let mut cluster = sharing(8, Ingress::SharedMac, 3);
    let owners =
        |cluster: &Sim| -> Vec<_> { (1..=50).map(|port| cluster.owner_of(client(port), SHARED)).collect() };
    cluster.set_inside(Quality {
        loss_permille: 200,
        jitter: Duration::from_millis(100),
        ..Quality::default()
    });
    cluster.run_for(40 * SECOND);
    let before = owners(&cluster);

    cluster.run_for(120 * SECOND);

    assert!(before.iter().all(Option::is_some));
    assert_eq!(owners(&cluster), before);
}
