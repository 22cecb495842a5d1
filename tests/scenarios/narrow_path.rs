//! A narrow link on the way to a client, which only ICMP errors tell of: they have to find the node that serves it.

use dpr_host::{Netlink, Route};
use dpr_lab::paired::Transfer;
use dpr_lab::{Cluster, ClusterPlan, NodePlan, wait_until};
use dpr_tests::binary;
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage, is_long};
use dpr_tests::variant::Variant;
use std::time::Duration;

/// What the link takes, bytes; both ends of the connection are told 1500.
const MTU: u32 = 1400;

pub(crate) fn behind_the_client(variant: Variant) {
    let bytes = if is_long() { 10 } else { 2 } * 1024 * 1024;
    let mut stage = Stage::start(2, 1, variant.plan(NodePlan::paired(PAIRED_PORT)));
    let routes = stage.clients[0].move_behind_routers(MTU).unwrap();
    for node in &stage.nodes {
        node.machine().exec(|| add_all(&routes)).unwrap();
    }
    stage.set_loads(&[900, 100]);

    let transfer = Transfer {
        target: stage.nodes[0].service(),
        up: bytes,
        down: bytes,
        seed: 0x1400,
        source_port: None,
        timeout: Duration::from_secs(30),
    };
    let record = transfer.run(&stage.clients[0]).unwrap().unwrap();

    assert_eq!(record.greeting.node, "n2");
    assert_eq!(stage.nodes[1].paired().unwrap().record().breakages, []);
}

/// A switch between the nodes swallows what is larger, without a word. Only probes find that out.
pub(crate) fn between_nodes(variant: Variant) {
    let mut cluster = Cluster::build(
        &ClusterPlan { nodes: 2, clients: 1, node: variant.plan(NodePlan::paired(PAIRED_PORT)) },
        binary::path(),
    )
    .unwrap();
    cluster.nodes[1].machine().narrow_cable(MTU).unwrap();
    cluster.start_daemons().unwrap();
    let stage = Stage::of(cluster);
    stage.set_loads(&[900, 100]);
    let macs = [1, 0].map(|peer: usize| stage.nodes[peer].machine().mac().to_string());
    wait_until("both nodes to know the path MTU and the other's MAC address", PATIENCE, || {
        let statuses = stage.statuses();
        let found: Vec<_> =
            statuses.iter().map(|status| (status.peers[0].path_mtu, status.peers[0].mac.clone())).collect();
        let expected = macs.clone().map(|mac| (Some(MTU as u16), Some(mac)));
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .unwrap();

    let transfer = Transfer {
        target: stage.nodes[0].service(),
        up: 1024 * 1024,
        // Replies take another way, which the client's MSS does not fit: that is not what this is about.
        down: 1000,
        seed: 0x9000,
        source_port: None,
        timeout: Duration::from_secs(20),
    };
    let record = transfer.run(&stage.clients[0]).unwrap().unwrap();

    assert_eq!(record.greeting.node, "n2");
}

fn add_all(routes: &[Route]) {
    let mut netlink = Netlink::open().unwrap();
    for route in routes {
        netlink.add_route(route).unwrap();
    }
}
