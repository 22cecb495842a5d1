//! One address on all nodes, and addresses of dead nodes in others' hands: connections stay, new ones find an owner.

use crate::agreement::agree;
use dpr_lab::paired::{ConnectionRecord, ConnectionState, Crowd};
use dpr_lab::{Node, NodePlan, OwnershipPlan};
use dpr_model::NodeId;
use dpr_model::status::{Explanation, Status};
use dpr_tests::binary;
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

const CONNECTIONS: u16 = 120;
/// A dead owner is missed after 450 ms, and what it owned is owned again some 150 ms later; SYNs are sent again after one
/// second (RFC 6298).
const NEW_WITHIN: Duration = Duration::from_millis(2500);

/// How packets for the shared address come in, as the configuration names it.
#[derive(Clone, Copy)]
struct Ingress {
    kind: &'static str,
    mac: Option<&'static str>,
}

const ARP_OWNER: Ingress = Ingress { kind: "arp-owner", mac: None };

pub(crate) fn plan(variant: Variant, voters: u8) -> NodePlan {
    let ownership = Some(OwnershipPlan::majority_of(voters));
    NodePlan { ownership, ..variant.plan(NodePlan::paired(PAIRED_PORT)) }
}

/// So many nodes that share an address for which one of them answers.
pub(crate) fn shared_by_arp(variant: Variant, nodes: u8) -> (Stage, Vec<NodeId>) {
    shared_stage(variant, ARP_OWNER, nodes)
}

fn shared_stage(variant: Variant, ingress: Ingress, nodes: u8) -> (Stage, Vec<NodeId>) {
    let Ingress { kind, mac } = ingress;
    let stage = Stage::start(nodes, 1, NodePlan { shared: Some(kind), shared_mac: mac, ..plan(variant, 3) });
    let all = ids(&stage);
    agree(&stage, &(0..all.len()).collect::<Vec<_>>(), &all, PATIENCE);
    (stage, all)
}

pub(crate) fn ids(stage: &Stage) -> Vec<NodeId> {
    stage.nodes.iter().map(Node::id).collect()
}

pub(crate) fn by_arp_owner(variant: Variant) {
    owners_die(variant, ARP_OWNER);
}

pub(crate) fn by_group_mac(variant: Variant) {
    owners_die(variant, Ingress { kind: "shared-mac", mac: None });
}

pub(crate) fn by_ordinary_mac(variant: Variant) {
    owners_die(variant, Ingress { kind: "shared-mac", mac: Some("02:00:5e:00:00:63") });
}

/// Every node decides for its part. When one is cut off, its clients' connections that others serve go on, and so do new ones.
fn owners_die(variant: Variant, ingress: Ingress) {
    let (mut stage, all) = shared_stage(variant, ingress, 3);
    // Nobody keeps anything, so that the owner and the real server are mostly not the same.
    stage.set_loads(&[900, 900, 900]);
    let service = stage.nodes[0].service();
    let crowd = stage.open_crowd(0, crowd_plan(vec![service], CONNECTIONS));
    let owners = stage.statuses();
    for (node, status) in stage.nodes.iter().zip(&owners) {
        let counters = &status.counters;
        let decided = counters.connections_kept + counters.connections_forwarded;
        assert!(decided >= 10, "{} decided for {decided} connections", node.name());
    }
    // Long enough for copies to be at the backups.
    std::thread::sleep(Duration::from_secs(1));

    // Whoever answers for the address dies as well as one that does not.
    let victim = fronting(&owners, service).unwrap_or(0);
    let kill = stage.nodes[victim].node_kill().unwrap();
    let late = new_connections(&stage, service, 60);
    std::thread::sleep(Duration::from_secs(2));
    let records = crowd.finish();

    assert_only_those_served_by(&records, &kill.node);
    assert_none_broke(&late);
    let survivors: Vec<usize> = (0..all.len()).filter(|index| *index != victim).collect();
    let members: Vec<NodeId> = survivors.iter().map(|index| all[*index]).collect();
    agree(&stage, &survivors, &members, PATIENCE);
}

/// A stopped daemon owns nothing when it wakes up, and nobody's connection breaks.
pub(crate) fn owner_is_stopped(variant: Variant) {
    let (stage, all) = shared_by_arp(variant, 3);
    stage.set_loads(&[900, 100, 100]);
    let service = stage.nodes[1].service();
    let crowd = stage.open_crowd(0, crowd_plan(vec![service], CONNECTIONS));
    std::thread::sleep(Duration::from_secs(1));

    // The first node has no connections of its own.
    stage.nodes[0].pause().unwrap();
    let late = new_connections(&stage, service, 60);
    std::thread::sleep(Duration::from_secs(2));
    stage.nodes[0].resume().unwrap();
    agree(&stage, &[0, 1, 2], &all, PATIENCE);
    let records = crowd.finish();

    assert_none_broke(&late);
    assert_only_those_served_by(&records, "n1");
    assert_eq!(served_by(&records, "n1"), 0);
}

/// A node drains, goes and comes back while connections are opened all the time; none of them fails, and old ones stay.
pub(crate) fn members_change(variant: Variant) {
    let (mut stage, all) = shared_by_arp(variant, 3);
    stage.set_loads(&[900, 100, 100]);
    let service = stage.nodes[1].service();
    let mut plan = crowd_plan(vec![service], 400);
    plan.opening = Duration::from_secs(8);
    let crowd = Crowd::open(&stage.clients[0], plan).unwrap();

    std::thread::sleep(Duration::from_secs(2));
    stage.nodes[0].terminate().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    stage.nodes[0].start().unwrap();
    std::thread::sleep(Duration::from_secs(6));
    let records = crowd.finish();

    assert_none_broke(&records);
    agree(&stage, &[0, 1, 2], &all, PATIENCE);
}

/// A dead node's own address answers soon by the others' hands, and is its own again when it is back.
pub(crate) fn home_address_is_taken_over(variant: Variant) {
    let mut stage = Stage::start(3, 1, plan(variant, 3));
    let all = ids(&stage);
    agree(&stage, &[0, 1, 2], &all, PATIENCE);
    stage.set_loads(&[100, 100, 100]);
    let service = stage.nodes[2].service();
    // Its MAC address is known to the client, as it would be.
    assert_none_broke(&stage.open_crowd(0, crowd_plan(vec![service], 10)).finish());

    stage.nodes[2].node_kill().unwrap();
    let late = new_connections(&stage, service, 60);
    assert_none_broke(&late);
    assert!(served_by(&late, "n1") > 0 && served_by(&late, "n2") > 0, "several nodes stand in");

    let crowd = stage.open_crowd(0, crowd_plan(vec![service], 40));
    std::thread::sleep(Duration::from_secs(1));
    stage.nodes[2].revive().unwrap();
    agree(&stage, &[0, 1, 2], &all, PATIENCE);
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
    let (stage, _) = shared_by_arp(variant, 3);
    stage.set_loads(&[900, 100, 100]);
    let service = stage.nodes[0].service();
    let mut crowd = stage.open_crowd(0, crowd_plan(vec![service], 12));
    std::thread::sleep(Duration::from_millis(300));

    for record in crowd.records() {
        let client = record.local.unwrap();
        let answers: Vec<Explanation> =
            stage.nodes.iter().map(|node| explain(node, client, service)).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
        let real_server = stage.nodes.iter().find(|node| record.node() == Some(node.name())).unwrap().id();
        assert_eq!(answers[0].real_server, Some(real_server), "{:#?}", answers[0]);
        assert!(answers[0].owner.is_some() && answers[0].backups.len() == 2, "{:#?}", answers[0]);
    }
    assert_none_broke(&crowd.finish());
}

fn explain(node: &Node, client: SocketAddr, service: SocketAddr) -> Explanation {
    let mut command = Command::new(binary::path());
    command.args(["explain", &client.to_string(), &service.to_string(), "--json", "--socket"]);
    let output = command.arg(node.control_socket()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Connections that are begun from the moment on at which a dead node has to have been noticed.
pub(crate) fn new_connections(stage: &Stage, service: SocketAddr, count: u16) -> Vec<ConnectionRecord> {
    std::thread::sleep(NEW_WITHIN);
    stage.open_crowd(0, crowd_plan(vec![service], count)).finish()
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
