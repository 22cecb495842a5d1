//! Services of several ports: connections to the further ones are decided about, told and explained as those to the service's own.

use dpr_lab::NodePlan;
use dpr_lab::paired::{CrowdPlan, PairedServer};
use dpr_model::status::Explanation;
use dpr_tests::order::explain;
use dpr_tests::owners::{agree, calm_crowd, plan, start_planned};
use dpr_tests::stage::{
    PAIRED_PORT, PATIENCE, Stage, assert_carried_by, assert_none_broke, crowd_plan, served_by,
};
use dpr_tests::variant::Variant;
use std::net::SocketAddr;
use std::time::Duration;

/// Ports of the service beside its own: far more than anybody would write down one by one.
const FURTHER: [&str; 2] = ["7001", "20000-60000"];
/// Those that servers listen on.
const LISTENING: [u16; 3] = [7001, 20_000, 60_000];
const CONNECTIONS: u16 = 40;

/// On all nodes, beside the servers on the service's own port.
fn servers(stage: &Stage) -> Vec<PairedServer> {
    let start = |port: u16| {
        stage.nodes.iter().map(move |node| PairedServer::start(node.machine(), node.name(), port).unwrap())
    };
    LISTENING.into_iter().flat_map(start).collect()
}

/// The same addresses with the ports that servers listen on.
fn further(entrances: &[SocketAddr]) -> Vec<SocketAddr> {
    let ports = |entrance: &SocketAddr| LISTENING.map(|port| SocketAddr::new(entrance.ip(), port));
    entrances.iter().flat_map(ports).collect()
}

pub(crate) fn forwarded(variant: Variant) {
    let node = NodePlan { ports: FURTHER.to_vec(), ..NodePlan::paired(PAIRED_PORT) };
    let stage = Stage::start(2, 1, variant.plan(node));
    let mut servers = servers(&stage);
    stage.set_loads(&[900, 100]);
    let service = stage.nodes[0].service();
    let targets = [further(&[service]), vec![service]].concat();

    let mut crowd = stage.open_crowd(0, crowd_plan(targets, CONNECTIONS));
    std::thread::sleep(Duration::from_secs(1));
    let listed = stage.nodes[0].connections(1000).unwrap();
    for record in crowd.records() {
        let client = record.local.unwrap();
        let is_it = |flow: &dpr_model::FlowKey| {
            (flow.client.address, flow.client.port) == (client.ip(), client.port())
                && flow.service.port == record.target.port()
        };
        let its = listed.iter().find(|connection| is_it(&connection.flow)).expect("it is listed");
        assert_eq!((its.real_server, its.state.as_str()), (stage.nodes[1].id(), "established"));
        assert_explained(&stage, client, record.target, "n2");
    }
    let records = crowd.finish();

    assert_none_broke(&records);
    assert_eq!(served_by(&records, "n2"), usize::from(CONNECTIONS));
    for status in stage.statuses() {
        assert_carried_by(variant, &status);
    }
    let of_n2 = servers.iter_mut().skip(1).step_by(2);
    for server in of_n2 {
        let port = server.port();
        let asked: Vec<u16> =
            server.record().sightings.iter().map(|sighting| sighting.local.port()).collect();
        assert_eq!(asked, vec![port; usize::from(CONNECTIONS) / 4]);
    }
}

/// Copies of connections are with others when their director dies.
pub(crate) fn outlive_their_director(variant: Variant) {
    let node = NodePlan { ports: FURTHER.to_vec(), ..plan(variant) };
    let mut stage = start_planned(variant, 3, node);
    let _servers = servers(&stage);
    stage.set_loads(&[900, 100, 100]);
    let calm = calm_crowd(&stage, CONNECTIONS * 5);
    let mut crowd = stage.open_crowd(0, CrowdPlan { targets: further(&calm.targets), ..calm });
    // All are open, and some have said something since.
    std::thread::sleep(Duration::from_secs(2));
    assert_carried_by(variant, &stage.statuses()[0]);
    let before = crowd.records().to_vec();
    for record in before.iter().step_by(20) {
        let server = record.greeting.as_ref().unwrap().node.clone();
        assert_explained(&stage, record.local.unwrap(), record.target, &server);
    }

    stage.nodes[0].node_kill().unwrap();
    agree(&stage, &[1, 2], PATIENCE);
    std::thread::sleep(Duration::from_secs(2));
    let records = crowd.finish();

    assert_none_broke(&records);
    assert_eq!(served_by(&records, "n1"), 0, "a director that serves none");
    assert!(served_by(&records, "n2") > 20 && served_by(&records, "n3") > 20, "too few to prove anything");
}

/// Whichever node is asked, the answer is the same.
fn assert_explained(stage: &Stage, client: SocketAddr, to: SocketAddr, server: &str) {
    let real_server = stage.nodes.iter().find(|node| node.name() == server).unwrap().id();
    let answers: Vec<Explanation> = stage.nodes.iter().map(|node| explain(node, client, to)).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(answers[0].real_server, Some(real_server), "{:#?}", answers[0]);
}
