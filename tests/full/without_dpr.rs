//! nginx on a host without `dpr`, behind a director's service by translation: it serves while it answers.

use crate::curl::curl;
use crate::nginx::{NAME, Nginx};
use dpr_lab::{Cluster, ClusterPlan, IpVersion, Lab, NodePlan, Server, wait_until};
use dpr_tests::binary;
use dpr_tests::stage::{PATIENCE, Stage};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

const PORT: u16 = 80;
const REQUESTS: usize = 50;
/// Machines: c1 is the client, c2 the server.
const SERVER: usize = 1;

pub(crate) fn by_full_nat() {
    killed_and_back(false);
}

pub(crate) fn by_half_nat() {
    killed_and_back(true);
}

fn killed_and_back(half_nat: bool) {
    let node = NodePlan {
        method: Some("nat".to_owned()),
        half_nat,
        servers: vec![SocketAddr::new(Lab::client_address(2, IpVersion::V4), PORT)],
        server: Server::Other,
        ..NodePlan::paired(PORT)
    };
    let mut cluster = Cluster::build(&ClusterPlan { nodes: 1, clients: 2, node }, binary::path()).unwrap();
    let directory = |name: &str| cluster.lab.directory().join(format!("nginx-{name}"));
    let (own_directory, its_directory) = (directory("n1"), directory("c2"));
    let _own = Nginx::start(cluster.nodes[0].machine(), &own_directory);
    let mut server = Nginx::start(&cluster.clients[SERVER], &its_directory);
    cluster.start_daemons().unwrap();
    let stage = Stage::of(cluster);
    if half_nat {
        stage.route_replies_through_the_director(SERVER);
    }
    stage.set_loads(&[900]);
    let name = stage.clients[SERVER].name().to_owned();

    wait_until_served_by(&stage, &name);
    assert_all_served_by(&stage, &name);
    let expected = if half_nat { stage.clients[0].address() } else { stage.nodes[0].address() };
    let seen: BTreeSet<IpAddr> = server.requests().iter().map(|request| request.client.ip()).collect();
    assert_eq!(seen, BTreeSet::from([expected]), "clients as the server sees them");

    // Killed: the node serves by itself, without a failure once it knows.
    drop(server);
    wait_until_served_by(&stage, "n1");
    assert_all_served_by(&stage, "n1");
    server = Nginx::start(&stage.clients[SERVER], &its_directory);
    wait_until_served_by(&stage, &name);
    assert_all_served_by(&stage, &name);
    drop(server);
}

fn fetch(stage: &Stage) -> String {
    let url = format!("http://{}{NAME}", stage.nodes[0].service());
    let fetched = curl(&stage.clients[0], &["--connect-timeout", "1", &url]);
    fetched.text().to_owned()
}

fn assert_all_served_by(stage: &Stage, name: &str) {
    let served: Vec<String> = (0..REQUESTS).map(|_| fetch(stage)).collect();
    assert!(served.iter().all(|one| one == name), "{name} has to serve: {served:?}");
}

/// Requests may fail before the director has noticed.
fn wait_until_served_by(stage: &Stage, name: &str) {
    let served = || match fetch(stage) {
        one if one == name => Ok(()),
        other => Err(format!("{other:?} served it")),
    };
    wait_until(&format!("{name} to serve"), PATIENCE, served).unwrap();
}
