//! Servers without `dpr`, by translation: they get connections while they answer, and clients notice nothing.

use dpr_lab::paired::{ConnectionRecord, PairedServer};
use dpr_lab::{IpVersion, Lab, NodePlan, wait_until};
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use std::net::SocketAddr;

/// Not the service's: translation changes ports too.
const SERVER_PORT: u16 = 8000;
/// First port of translated connections (`nat.ports`): the kernel draws none from there for the node's own probes, which
/// say nothing and hang up.
const NAT_PORT_MIN: u16 = 61_000;
const CONNECTIONS: u16 = 20;
/// Machines: c1 is the client, c2 the server.
const SERVER: usize = 1;

pub(crate) fn full_over_ipv4() {
    translated(IpVersion::V4, false);
}

pub(crate) fn full_over_ipv6() {
    translated(IpVersion::V6, false);
}

pub(crate) fn half_over_ipv4() {
    translated(IpVersion::V4, true);
}

pub(crate) fn half_over_ipv6() {
    translated(IpVersion::V6, true);
}

fn translated(version: IpVersion, half: bool) {
    let plan = NodePlan {
        method: Some("nat".to_owned()),
        half_nat: half,
        servers: vec![SocketAddr::new(Lab::client_address(2, version), SERVER_PORT)],
        ..NodePlan::paired(PAIRED_PORT)
    };
    let stage = Stage::start(1, 2, plan.in_version(version));
    if half {
        stage.route_replies_through_the_director(SERVER);
    }
    stage.set_loads(&[900]);
    let start = || PairedServer::start(&stage.clients[SERVER], "x1", SERVER_PORT).unwrap();

    let mut server = start();
    wait_until_served_by(&stage, "x1");
    let records = crowd(&stage);
    assert_eq!(served_by(&records, "x1"), usize::from(CONNECTIONS), "the only server lighter than n1");
    for record in &records {
        let seen = record.greeting.as_ref().unwrap().peer;
        match half {
            true => assert_eq!(Some(seen), record.local, "half of a translation leaves the client's end"),
            false => assert_eq!(seen.ip(), stage.nodes[0].address(), "the director is the client"),
        }
    }
    let is_probe = |peer: &SocketAddr| peer.ip() == stage.nodes[0].address() && peer.port() < NAT_PORT_MIN;
    let broken: Vec<_> = server.record().breakages.iter().filter(|(peer, _)| !is_probe(peer)).collect();
    assert!(broken.is_empty(), "{broken:?}");

    // It stops to answer: the node serves by itself, and gives it nothing until it is back.
    drop(server);
    wait_until_served_by(&stage, "n1");
    assert_eq!(served_by(&crowd(&stage), "n1"), usize::from(CONNECTIONS));
    let _server = start();
    wait_until_served_by(&stage, "x1");
}

/// Connections of which none breaks.
fn crowd(stage: &Stage) -> Vec<ConnectionRecord> {
    let plan = crowd_plan(vec![stage.nodes[0].service()], CONNECTIONS);
    let records = stage.open_crowd(0, plan).finish();
    assert_none_broke(&records);
    records
}

/// Waits until new connections get to `who`; some may fail or go elsewhere before.
fn wait_until_served_by(stage: &Stage, who: &str) {
    wait_until(&format!("connections to get to {who}"), PATIENCE, || {
        let plan = crowd_plan(vec![stage.nodes[0].service()], 1);
        let crowd =
            dpr_lab::paired::Crowd::open(&stage.clients[0], plan).map_err(|error| error.to_string())?;
        std::thread::sleep(std::time::Duration::from_millis(200));
        let records = crowd.finish();
        if served_by(&records, who) == 1 { Ok(()) } else { Err(format!("{records:?}")) }
    })
    .unwrap();
}
