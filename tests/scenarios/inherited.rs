//! A node dies, and others stand in for its address: what it had translated goes on, and its clients stay where they were.

use crate::daemon_kill::carried;
use dpr_lab::paired::{CrowdPlan, PairedServer, Transfer};
use dpr_lab::{IpVersion, Lab, NodePlan, OwnershipPlan, wait_until};
use dpr_tests::owners::{agree, calm_crowd, everybody, plan, start_planned};
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use std::net::SocketAddr;
use std::time::Duration;

/// Not the service's: translation changes ports too.
const SERVER_PORT: u16 = 8000;
const CONNECTIONS: u16 = 60;
/// Until others stand in for a dead node, with time to spare on a busy machine.
const TAKEN_OVER_WITHIN: Duration = Duration::from_millis(2500);
/// Machines: c1 is the client, c2 a server without `dpr`.
const SERVER: usize = 1;

pub(crate) fn by_a_server_without_dpr() {
    outlives_its_director(IpVersion::V4, true);
}

pub(crate) fn by_a_server_without_dpr_in_ipv6() {
    outlives_its_director(IpVersion::V6, true);
}

pub(crate) fn by_nodes() {
    outlives_its_director(IpVersion::V4, false);
}

pub(crate) fn by_nodes_in_ipv6() {
    outlives_its_director(IpVersion::V6, false);
}

/// Whoever serves goes on seeing the same client, whoever sends its packets; also a node that has become the director of what
/// it serves.
fn outlives_its_director(version: IpVersion, external: bool) {
    let server = SocketAddr::new(Lab::client_address(2, version), SERVER_PORT);
    let plan = NodePlan {
        method: Some("nat".to_owned()),
        servers: external.then_some(server).into_iter().collect(),
        ..NodePlan::paired(PAIRED_PORT)
    };
    let mut stage = start(plan.in_version(version));
    let _server = PairedServer::start(&stage.clients[SERVER], "x1", SERVER_PORT).unwrap();
    let service = stage.nodes[0].service();
    match external {
        true => {
            stage.set_loads(&[900, 900, 900]);
            wait_until("the server without dpr to get connections", PATIENCE, || {
                let transfer = Transfer {
                    target: service,
                    up: 1,
                    down: 1,
                    seed: 1,
                    source_port: None,
                    timeout: PATIENCE,
                };
                let transferred = transfer.run(&stage.clients[0]).map_err(|error| error.to_string())?;
                match transferred {
                    Ok(record) if record.greeting.node == "x1" => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .unwrap();
        }
        false => stage.set_loads(&[900, 100, 100]),
    }
    let crowd = stage.open_crowd(0, crowd_plan(vec![service], CONNECTIONS));
    // Long enough for copies to be at the backups.
    std::thread::sleep(Duration::from_secs(1));

    let kill = stage.nodes[0].node_kill().unwrap();
    std::thread::sleep(TAKEN_OVER_WITHIN);
    let records = crowd.finish();

    assert_none_broke(&records);
    assert_eq!(served_by(&records, "n1"), 0);
    if external {
        assert_eq!(served_by(&records, "x1"), usize::from(CONNECTIONS));
    }
    for record in &records {
        assert!(record.last_round.unwrap() > kill.at + Duration::from_secs(1), "{record:?}");
        let seen = record.greeting.as_ref().unwrap().peer;
        assert_eq!(seen.ip(), service.ip(), "the address that others take over stands for the client");
    }
}

/// A client stays with its node, connection by connection, when who decided about it is killed, dies and returns; also one that has
/// no connection open any more is known to whoever decides then.
pub(crate) fn clients(variant: Variant) {
    let mut stage = start_planned(variant, 3, NodePlan { persistence: true, ..plan(variant) });
    stage.set_loads(&[900, 100, 800]);
    let service = stage.nodes[0].service();
    let crowd = |stage: &Stage, connections| {
        let calm = calm_crowd(stage, connections);
        stage.open_crowd(0, CrowdPlan { targets: vec![service], ..calm })
    };
    let open = crowd(&stage, CONNECTIONS);
    if variant.plane.has_programs() {
        wait_until("the programs to carry connections on", PATIENCE, || {
            let carried = stage.nodes.iter().map(carried).sum::<u64>();
            (carried >= CONNECTIONS.into()).then_some(()).ok_or_else(|| carried.to_string())
        })
        .unwrap();
    }
    // Whoever does not know the client gives it to n3.
    let loads = [900, 800, 100];
    stage.set_loads(&loads);
    let mut late = Vec::new();

    stage.nodes[0].kill_daemon();
    std::thread::sleep(TAKEN_OVER_WITHIN);
    late.extend(crowd(&stage, 20).finish());
    stage.nodes[0].start().unwrap();
    stage.order_loads(&loads);
    agree(&stage, &everybody(&stage), PATIENCE);
    // Longer than whoever returns takes to hear where clients stay.
    std::thread::sleep(Duration::from_secs(1));
    late.extend(crowd(&stage, 20).finish());

    stage.nodes[0].node_kill().unwrap();
    std::thread::sleep(TAKEN_OVER_WITHIN);
    late.extend(crowd(&stage, 20).finish());
    stage.nodes[0].revive().unwrap();
    stage.order_loads(&loads);
    agree(&stage, &everybody(&stage), PATIENCE);
    std::thread::sleep(Duration::from_secs(1));
    late.extend(crowd(&stage, 20).finish());
    let open = open.finish();

    for records in [&open, &late] {
        assert_none_broke(records);
        assert_eq!(served_by(records, "n2"), records.len());
    }
}

fn start(plan: NodePlan) -> Stage {
    let ownership = Some(OwnershipPlan::majority_of(3));
    let stage = Stage::start(3, 2, NodePlan { ownership, ..plan });
    agree(&stage, &everybody(&stage), PATIENCE);
    stage
}
