//! Whatever loads do, an open connection stays where it is.

use dpr_lab::paired::{ConnectionRecord, Crowd};
use dpr_tests::stage::{Stage, assert_none_broke, crowd_plan, duration};
use dpr_tests::variant::Variant;
use std::time::{Duration, Instant};

const CONNECTIONS: u16 = 1000;
const CLIENTS: u8 = 2;
const SWING_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) fn thousand(variant: Variant) {
    let mut stage = Stage::paired_in(variant, 4, CLIENTS);
    let targets: Vec<_> = stage.nodes.iter().map(dpr_lab::Node::service).collect();
    let opening = Duration::from_secs(4);
    let mut plan = crowd_plan(targets, CONNECTIONS / u16::from(CLIENTS));
    plan.opening = opening;
    plan.pause = Duration::from_millis(700);
    let crowds: Vec<Crowd> =
        stage.clients.iter().map(|client| Crowd::open(client, plan.clone()).unwrap()).collect();

    // Long once, and in every other variant just long enough for many swings.
    let time = match variant {
        Variant::ORDINARY => duration(Duration::from_secs(8), Duration::from_secs(60)),
        _ => Duration::from_secs(4),
    };
    swing(&stage, opening + time);
    let records: Vec<ConnectionRecord> = crowds.into_iter().flat_map(Crowd::finish).collect();

    assert_none_broke(&records);
    assert_eq!(records.len(), usize::from(CONNECTIONS));
    assert!(records.iter().all(|record| record.rounds >= 5), "every connection has to have worked all along");
    let home = |record: &&ConnectionRecord| {
        let node = stage.nodes.iter().find(|node| node.service() == record.target).unwrap();
        record.node() == Some(node.name())
    };
    let kept = records.iter().filter(home).count();
    assert!((100..=900).contains(&kept), "{kept} of 1000 were kept: too one-sided to prove anything");
    let mut accepted = 0;
    for node in &mut stage.nodes {
        let record = node.paired().unwrap().record();
        assert!(record.breakages.is_empty(), "{:?}", record.breakages);
        accepted += record.sightings.len();
    }
    assert_eq!(accepted, records.len(), "each connection was accepted once");
}

/// Every node's load jumps between idle and overload, each in a rhythm of its own.
fn swing(stage: &Stage, time: Duration) {
    let began = Instant::now();
    for step in 0_u16.. {
        if began.elapsed() >= time {
            return;
        }
        let load = |node: u16| if (step / (node + 2)).is_multiple_of(2) { 1000 } else { 50 };
        stage.order_loads(&[load(0), load(1), load(2), load(3)]);
        std::thread::sleep(SWING_INTERVAL);
    }
}
