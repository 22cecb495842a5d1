//! Nodes that share an address, and stand in for each other.

use dpr_model::{ClientSocket, DropReason, Ingress, LoadPermille, NodeId};
use dpr_ownership::agreement::Quorum;
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

/// The owners of some slots.
fn owners(cluster: &Sim) -> Vec<Option<NodeId>> {
    (1..=50).map(|port| cluster.owner_of(client(port), SHARED)).collect()
}

/// Lets ten minutes pass with connections all the time; nothing may move, and nothing break.
fn stay_for_ten_minutes(cluster: &mut Sim) {
    let before = owners(cluster);
    assert!(before.iter().all(Option::is_some));
    for minute in 0..10 {
        let ports = 1000 + minute * 100..1000 + minute * 100 + 50;
        let open = |port| cluster.connect(client(port), SHARED, LONG).expect("the sockets are free");
        let connections: Vec<_> = ports.map(open).collect();
        cluster.run_for(60 * SECOND);
        assert!(are_finished(cluster, &connections));
        assert_eq!(owners(cluster), before);
    }
}

#[test]
fn loss_and_jitter_between_nodes_move_no_slot_in_ten_minutes() {
    // What nodes forward to each other is lost as well: connections stay where they come in.
    let mut cluster = Sim::seeded(8).shared(Ingress::SharedMac).nodes(3);
    cluster.set_inside(Quality {
        loss_permille: 300,
        jitter: Duration::from_millis(200),
        ..Quality::default()
    });
    // It takes some gaps until a node knows how patient it has to be.
    cluster.run_for(40 * SECOND);

    stay_for_ten_minutes(&mut cluster);
}

#[test]
fn who_is_not_heard_by_one_node_keeps_what_it_owns_for_ten_minutes() {
    let mut cluster = Sim::seeded(14).shared(Ingress::SharedMac).nodes(4);
    cluster.inject(Fault::Cut(Host::Node(C), Host::Node(D)));

    stay_for_ten_minutes(&mut cluster);
}

#[test]
fn clocks_that_jump_or_are_wrong_move_nothing() {
    let mut cluster = Sim::seeded(15).shared(Ingress::ArpOwner).nodes(4);
    let before = owners(&cluster);
    let connections = connect(&mut cluster, SHARED, 50);

    for (node, ahead) in [(A, 1), (B, 5), (C, 30), (D, 10)] {
        cluster.inject(Fault::StepClock(node, ahead * SECOND));
        cluster.inject(Fault::SetBackWallClock(node, 1000 * ahead * SECOND));
        cluster.run_for(5 * SECOND);
    }
    cluster.run_for(20 * SECOND);

    assert!(are_finished(&cluster, &connections));
    assert_eq!(owners(&cluster), before);
}

#[test]
fn an_address_moves_at_a_word_and_back_under_load_and_breaks_no_connection() {
    for ingress in Ingress::ALL {
        let mut cluster = sharing(9, ingress, 4);
        let connections = connect(&mut cluster, SHARED, 200);
        cluster.run_for(2 * SECOND);

        cluster.inject(Fault::TakeOver(SHARED, Some(C)));
        cluster.try_run_as_planned(4 * SECOND).unwrap();
        let is_lent = (1..=50).all(|port| cluster.owner_of(client(port), SHARED) == Some(C));
        cluster.inject(Fault::TakeOver(SHARED, None));
        cluster.try_run_as_planned(4 * SECOND).unwrap();
        let owners: Vec<_> = (1..=100).filter_map(|port| cluster.owner_of(client(port), SHARED)).collect();
        cluster.run_for(30 * SECOND);

        assert!(is_lent && [A, B, C, D].iter().all(|node| owners.contains(node)), "{ingress:?}");
        assert!(are_finished(&cluster, &connections), "{ingress:?}");
    }
}

#[test]
fn nodes_that_stop_and_start_one_after_the_other_leave_no_slot_without_owner() {
    let mut cluster = sharing(10, Ingress::ArpOwner, 4);
    cluster.set_workload(Some(Workload::default()));
    for node in [A, B, C, D] {
        cluster.inject(Fault::Stop(node));
        cluster.try_run_as_planned(2 * SECOND).unwrap();
        assert!(cluster.counters(node).is_none(), "its daemon has ended");
        cluster.inject(Fault::StartDaemon(node));
        cluster.try_run_as_planned(6 * SECOND).unwrap();
    }
    assert!(cluster.is_agreed());
}

#[test]
fn who_stops_hands_on_what_still_comes_to_it() {
    let mut cluster = sharing(17, Ingress::ArpOwner, 4);
    // So much is on its way to a node when its addresses are given away.
    cluster.set_outside(Quality { delay: Duration::from_millis(60), ..Quality::default() });
    cluster.set_workload(Some(Workload { skew_permille: 0, ..Workload::default() }));
    for node in [A, B, C, D] {
        cluster.inject(Fault::Stop(node));
        cluster.run_for(3 * SECOND);
        cluster.inject(Fault::StartDaemon(node));
        cluster.run_for(6 * SECOND);
    }
}

#[test]
fn of_packets_that_wait_for_late_data_planes_none_is_handled_by_two_owners() {
    let mut cluster = sharing(16, Ingress::SharedMac, 4);
    for (node, late_ms) in [(A, 0), (B, 20), (C, 100), (D, 400)] {
        cluster.inject(Fault::Late(node, Duration::from_millis(late_ms)));
    }
    cluster.set_workload(Some(Workload { skew_permille: 1000, ..Workload::default() }));

    for drained in [true, false, true, false] {
        cluster.inject(Fault::Drain(A, drained));
        cluster.run_for(3 * SECOND);
    }
    cluster.set_workload(None);
    cluster.run_for(30 * SECOND);

    assert!(cluster.connections_with(Some(Outcome::Finished)) > 1000);
}

#[test]
fn a_hot_director_gives_slots_away_and_gets_them_back() {
    let mut cluster = sharing(11, Ingress::SharedMac, 3);
    let share_of = |cluster: &Sim| {
        let owners = (1..=1000).map(|port| cluster.owner_of(client(port), SHARED));
        owners.filter(|owner| *owner == Some(B)).count()
    };
    let before = share_of(&cluster);

    cluster.inject(Fault::ReportLoad(B, Some(LoadPermille(900))));
    cluster.try_run_as_planned(25 * SECOND).unwrap();
    let hot = share_of(&cluster);
    cluster.inject(Fault::ReportLoad(B, None));
    for node in [A, C] {
        cluster.inject(Fault::ReportLoad(node, Some(LoadPermille(400))));
    }
    cluster.try_run_as_planned(40 * SECOND).unwrap();

    assert!(hot * 10 < before * 9, "{before} {hot}");
    assert!(share_of(&cluster) > hot);
}

#[test]
fn of_two_nodes_that_are_parted_the_one_goes_on_that_the_witness_answers() {
    for (side, other) in [(A, B), (B, A)] {
        let setup = Sim::seeded(12).shared(Ingress::SharedMac).quorum(Quorum::Witness);
        let mut cluster = setup.nodes(2);
        cluster.run_for(2 * SECOND);

        cluster.inject(Fault::Partition(vec![vec![side], vec![other]]));
        cluster.run_for(5 * SECOND);
        assert!((1..=50).all(|port| cluster.owner_of(client(port), SHARED) == Some(side)));
        cluster.inject(Fault::Heal);
        cluster.run_for(2 * SECOND);

        assert!(cluster.is_agreed());
    }
}

#[test]
fn a_client_stays_with_its_real_server_when_its_director_dies() {
    let setup = Sim::seeded(13).maxload(LoadPermille(0)).persistence(0).shared(Ingress::ArpOwner);
    let mut cluster = setup.nodes(4);
    let first = cluster.connect(client(1), B, LONG).unwrap();
    cluster.run_for(2 * SECOND);
    let server = cluster.real_server_of(first).filter(|server| *server != B).expect("B is not lightest");

    cluster.inject(Fault::KillNode(B));
    cluster.run_for(3 * SECOND);
    let later: Vec<_> = (2..20).map(|port| cluster.connect(client(port), B, LONG).unwrap()).collect();
    cluster.run_for(2 * SECOND);

    assert!(later.iter().all(|id| cluster.real_server_of(*id) == Some(server)));
}

#[test]
fn clients_stay_with_their_real_servers_while_owners_change() {
    for ingress in Ingress::ALL {
        let mut cluster = Sim::seeded(18).maxload(LoadPermille(0)).persistence(0).shared(ingress).nodes(4);
        cluster.set_workload(Some(Workload { clients: 30, ..Workload::default() }));
        cluster.run_for(2 * SECOND);
        for node in [A, B, C, D] {
            cluster.inject(Fault::Stop(node));
            cluster.run_for(3 * SECOND);
            cluster.inject(Fault::StartDaemon(node));
            cluster.run_for(4 * SECOND);
            cluster.inject(Fault::TakeOver(SHARED, Some(node)));
            cluster.run_for(2 * SECOND);
            cluster.inject(Fault::TakeOver(SHARED, None));
            cluster.run_for(2 * SECOND);
        }
        assert!(cluster.connections_with(Some(Outcome::Finished)) > 1000);
    }
}
