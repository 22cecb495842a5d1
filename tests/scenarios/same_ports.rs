//! One client port, two connections, one real server: to its own address and through another director.

use dpr_lab::paired::SourcePorts;
use dpr_lab::wait_until;
use dpr_tests::stage::{PATIENCE, Stage, assert_none_broke, crowd_plan};
use dpr_tests::variant::Variant;
use std::collections::BTreeSet;

pub(crate) fn both(variant: Variant) {
    let mut stage = Stage::paired_in(variant, 2, 1);
    // n1 hands everything to n2, and n2 keeps its own.
    stage.set_loads(&[900, 100]);
    let targets = vec![stage.nodes[0].service(), stage.nodes[1].service()];
    let mut plan = crowd_plan(targets, 2);
    plan.source_ports = SourcePorts::Same(40_000);

    let mut crowd = stage.open_crowd(0, plan);
    wait_until("ten exchanges of each connection", PATIENCE, || {
        let rounds: Vec<u64> = crowd.records().iter().map(|record| record.rounds).collect();
        if rounds.iter().all(|rounds| *rounds >= 10) { Ok(()) } else { Err(format!("{rounds:?}")) }
    })
    .unwrap();
    let records = crowd.finish();

    assert_none_broke(&records);
    assert!(records.iter().all(|record| record.node() == Some("n2")), "{records:?}");
    assert!(records.iter().all(|record| record.local.unwrap().port() == 40_000));
    let record = stage.nodes[1].paired().unwrap().record();
    assert!(record.breakages.is_empty(), "{:?}", record.breakages);
    let peers: BTreeSet<_> = record.sightings.iter().map(|sighting| sighting.peer).collect();
    let locals: BTreeSet<_> = record.sightings.iter().map(|sighting| sighting.local).collect();
    let (clients, own) = if variant.hides_clients() { (2, 1) } else { (1, 2) };
    assert_eq!((peers.len(), locals.len()), (clients, own), "client sockets, addresses of the server");
}
