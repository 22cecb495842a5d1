//! One address on all nodes, and addresses of dead nodes in others' hands: connections stay, new ones find an owner.

use dpr_lab::paired::{ConnectionRecord, ConnectionState, Crowd, CrowdPlan};
use dpr_lab::{NodePlan, OwnershipPlan, wait_until};
use dpr_model::status::{Explanation, Status};
use dpr_tests::order::explain;
use dpr_tests::owners::{agree, assert_accepted_once, calm_crowd, entrances, everybody, start, start_in};
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections of which some are to break.
const CONNECTIONS: u16 = 300;
/// A dead owner is missed after 450 ms, and what it owned is owned again some 150 ms later; SYNs are sent again after one
/// second (RFC 6298).
const NEW_WITHIN: Duration = Duration::from_millis(2500);

/// Every node decides for its part. When one is cut off, its clients' connections that others serve go on, and so do new ones.
pub(crate) fn owners_die(variant: Variant) {
    let mut stage = start_in(variant, 3);
    // Nobody keeps anything, so that the owner and the real server are mostly not the same.
    stage.set_loads(&[900, 900, 900]);
    let crowd = stage.open_crowd(0, calm_crowd(&stage, CONNECTIONS));
    let owners = counted(&stage, CONNECTIONS);
    for (node, status) in stage.nodes.iter().zip(&owners) {
        assert!(decided(status) >= 20, "{} decided for {} connections", node.name(), decided(status));
    }
    // Long enough for copies to be at the backups.
    std::thread::sleep(Duration::from_secs(1));

    // Whoever answers for the address dies as well as one that does not.
    let victim = fronting(&owners, entrances(&stage)[0]).unwrap_or(0);
    let kill = stage.nodes[victim].node_kill().unwrap();
    let late = new_connections(&stage, 60);
    std::thread::sleep(Duration::from_secs(2));
    let records = crowd.finish();

    assert_only_those_served_by(&records, &kill.node);
    assert_none_broke(&late);
    let survivors: Vec<usize> = everybody(&stage).into_iter().filter(|index| *index != victim).collect();
    agree(&stage, &survivors, PATIENCE);
}

/// A node drains, goes and comes back while connections are opened all the time; none of them fails, and old ones stay.
pub(crate) fn members_change(variant: Variant) {
    let mut stage = start_in(variant, 3);
    stage.set_loads(&[900, 100, 100]);
    let crowd = Crowd::open(
        &stage.clients[0],
        CrowdPlan { opening: Duration::from_secs(8), ..calm_crowd(&stage, 500) },
    )
    .unwrap();

    std::thread::sleep(Duration::from_secs(2));
    stage.nodes[0].terminate().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    stage.nodes[0].start().unwrap();
    std::thread::sleep(Duration::from_secs(6));
    let records = crowd.finish();

    assert_none_broke(&records);
    assert_accepted_once(&mut stage, &records);
    agree(&stage, &everybody(&stage), PATIENCE);
}

/// A dead node's own address answers soon by the others' hands, and is its own again when it is back.
pub(crate) fn home_address_is_taken_over(variant: Variant) {
    let ownership = Some(OwnershipPlan::majority_of(3));
    let mut stage = start(3, variant.plan(NodePlan { ownership, ..NodePlan::paired(PAIRED_PORT) }));
    stage.set_loads(&[100, 100, 100]);
    let service = stage.nodes[2].service();
    // Its MAC address is known to the client, as it would be.
    assert_none_broke(&stage.open_crowd(0, crowd_plan(vec![service], 10)).finish());

    stage.nodes[2].node_kill().unwrap();
    std::thread::sleep(NEW_WITHIN);
    let late = stage.open_crowd(0, crowd_plan(vec![service], 60)).finish();
    assert_none_broke(&late);
    assert!(served_by(&late, "n1") > 0 && served_by(&late, "n2") > 0, "several nodes stand in");

    let crowd = stage.open_crowd(0, crowd_plan(vec![service], 40));
    std::thread::sleep(Duration::from_secs(1));
    stage.nodes[2].revive().unwrap();
    agree(&stage, &everybody(&stage), PATIENCE);
    let began = Instant::now();
    loop {
        let records = stage.open_crowd(0, crowd_plan(vec![service], 10)).finish();
        assert_none_broke(&records);
        if served_by(&records, "n3") == 10 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the node does not get its address back");
    }
    assert_none_broke(&crowd.finish());
}

/// Whichever node is asked, the answer is the same, and it is true.
pub(crate) fn explained_alike(variant: Variant) {
    let stage = start_in(variant, 3);
    stage.set_loads(&[900, 100, 100]);
    let mut crowd = stage.open_crowd(0, calm_crowd(&stage, 12));
    std::thread::sleep(Duration::from_millis(300));

    for record in crowd.records() {
        let client = record.local.unwrap();
        let answers: Vec<Explanation> =
            stage.nodes.iter().map(|node| explain(node, client, record.target)).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
        let real_server = stage.nodes.iter().find(|node| record.node() == Some(node.name())).unwrap().id();
        assert_eq!(answers[0].real_server, Some(real_server), "{:#?}", answers[0]);
        assert!(answers[0].owner.is_some() && answers[0].backups.len() == 2, "{:#?}", answers[0]);
    }
    assert_none_broke(&crowd.finish());
}

/// Connections that are begun from the moment on at which a dead node has to have been noticed.
pub(crate) fn new_connections(stage: &Stage, count: u16) -> Vec<ConnectionRecord> {
    std::thread::sleep(NEW_WITHIN);
    stage.open_crowd(0, calm_crowd(stage, count)).finish()
}

/// What all nodes say when they have counted so many connections.
fn counted(stage: &Stage, connections: u16) -> Vec<Status> {
    wait_until("all connections to be counted", PATIENCE, || {
        let statuses = stage.statuses();
        let counted: u64 = statuses.iter().map(decided).sum();
        if counted >= u64::from(connections) { Ok(statuses) } else { Err(format!("{counted}")) }
    })
    .unwrap()
}

/// For how many connections a node chose a real server.
fn decided(status: &Status) -> u64 {
    status.counters.connections_kept + status.counters.connections_forwarded
}

/// Which node has answered who asked for the address.
fn fronting(statuses: &[Status], service: SocketAddr) -> Option<usize> {
    statuses.iter().position(|status| {
        let counters = &status.counters;
        match service.is_ipv4() {
            true => counters.arp_answered > 0,
            false => counters.neighbours_answered > 0,
        }
    })
}

fn assert_only_those_served_by(records: &[ConnectionRecord], dead: &str) {
    for record in records {
        let lived = record.state == ConnectionState::Finished;
        assert_eq!(lived, record.node() != Some(dead), "{dead} is gone, and {record:?}");
    }
}
