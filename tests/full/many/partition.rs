//! Nodes are parted under load.

use super::SLACK;
use dpr_lab::paired::{ConnectionRecord, ConnectionState, Crowd, CrowdPlan};
use dpr_lab::{Machine, Node};
use dpr_tests::owners::{agree, assert_accepted_once, calm_crowd, everybody, plan, start_with};
use dpr_tests::size::Size;
use dpr_tests::stage::{PATIENCE, assert_none_broke};
use dpr_tests::variant::Variant;
use std::time::{Duration, Instant};

/// From healing to one map.
const HEALED: Duration = Duration::from_secs(1);

/// Three nodes and a client on one side, two and a client on the other: the smaller side does nothing, and after healing all
/// have one map.
pub(crate) fn under_load(variant: Variant) {
    let mut stage = start_with(5, 2, plan(variant));
    stage.set_loads(&[100, 100, 900, 900, 900]);
    let size = Size { new: 300, ..Size::THOUSANDS };
    let old = size.open(&stage);
    let (nodes, clients) = (&stage.nodes, &stage.clients);
    let larger: Vec<&Machine> = nodes[..3].iter().map(Node::machine).chain([&clients[0]]).collect();
    let smaller: Vec<&Machine> = nodes[3..].iter().map(Node::machine).chain([&clients[1]]).collect();

    stage.lab.partition(&[&larger, &smaller]).unwrap();
    agree(&stage, &[0, 1, 2], PATIENCE);
    let here = size.open_for(&stage, Duration::from_secs(2));
    let there = CrowdPlan { timeout: Duration::from_secs(2), ..calm_crowd(&stage, 50) };
    let there = Crowd::open(&stage.clients[1], there).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let there = there.finish();
    assert!(there.iter().all(|record| record.opened.is_none()), "nobody may act there: {there:?}");

    stage.lab.heal(&larger.into_iter().chain(smaller).collect::<Vec<_>>()).unwrap();
    let began = Instant::now();
    agree(&stage, &everybody(&stage), PATIENCE);
    let healed = began.elapsed();
    std::thread::sleep(size.pause * 2);
    let (old, here) = (old.finish(), here.finish());
    // Nobody else can go on with what nodes have kept that are out of reach now: whoever takes their addresses over asks for three
    // seconds who knows it. Nearly all of it is silent for less, and goes on after healing.
    let (parted, reached): (Vec<_>, Vec<_>) = old.iter().cloned().partition(is_served_by_the_smaller_side);
    let lost = parted.iter().filter(|record| record.state != ConnectionState::Finished).count();

    println!(
        "partition [{variant}]: one map {healed:.0?} after healing; {lost} of {} out of reach broke",
        parted.len()
    );
    assert!(healed <= HEALED + SLACK, "{healed:?}");
    assert!(parted.len() * 3 < reached.len(), "{} of {} were out of reach", parted.len(), old.len());
    assert!(lost * 10 <= parted.len(), "{lost} of {} broke", parted.len());
    assert_none_broke(&reached);
    assert_none_broke(&here);
    assert_accepted_once(&mut stage, old.iter().chain(&here));
}

fn is_served_by_the_smaller_side(record: &ConnectionRecord) -> bool {
    record.greeting.as_ref().is_some_and(|greeting| ["n4", "n5"].contains(&greeting.node.as_str()))
}
