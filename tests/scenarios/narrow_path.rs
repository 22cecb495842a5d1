//! A narrow link on the way to a client, which only ICMP errors tell of: they have to find the node that serves it.

use dpr_host::{Netlink, Route};
use dpr_lab::NodePlan;
use dpr_lab::paired::Transfer;
use dpr_tests::stage::{PAIRED_PORT, Stage, is_long};
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

fn add_all(routes: &[Route]) {
    let mut netlink = Netlink::open().unwrap();
    for route in routes {
        netlink.add_route(route).unwrap();
    }
}
