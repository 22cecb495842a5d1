//! Nodes agree on who owns what: after a death, across a partition, over restarts.

use dpr_lab::{Machine, Node, NodePlan, OwnershipPlan};
use dpr_tests::owners::{agree, everybody, ids, owned};
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage};
use std::time::Duration;

/// Promises last 4.5 intervals on a good network; an election and two maps come on top, on a machine that others use too.
const AGREED_WITHIN: Duration = Duration::from_secs(3);

fn stage(nodes: u8) -> Stage {
    let ownership = Some(OwnershipPlan::majority_of(nodes));
    Stage::start(nodes, 1, NodePlan { ownership, ..NodePlan::paired(PAIRED_PORT) })
}

/// Slots of dead nodes go to others; one that returns has its address again; one that leaves says so.
pub(crate) fn follows_deaths_and_departures() {
    let mut stage = stage(3);
    let all = ids(&stage);
    agree(&stage, &[0, 1, 2], PATIENCE);

    stage.nodes[2].node_kill().unwrap();
    let agreed = agree(&stage, &[0, 1], AGREED_WITHIN);
    let orphaned = agreed.addresses.iter().find(|address| address.home == Some(all[2])).unwrap();
    assert!(orphaned.slots.keys().eq(&all[..2]), "both of the others stand in for it: {orphaned:?}");

    stage.nodes[2].revive().unwrap();
    let agreed = agree(&stage, &[0, 1, 2], PATIENCE);
    let home = agreed.addresses.iter().find(|address| address.home == Some(all[2])).unwrap();
    assert!(home.slots.keys().eq(&all[2..]), "it has its own address back: {home:?}");

    // The third node has just begun a life: it has to wait until the promises of its former one are over.
    stage.nodes[0].terminate().unwrap();
    agree(&stage, &[1, 2], PATIENCE);
}

/// The side with most voters goes on, the other one may not act; both have one map again soon after healing.
pub(crate) fn survives_a_partition() {
    let stage = stage(5);
    let machines: Vec<&Machine> = stage.nodes.iter().map(Node::machine).collect();
    agree(&stage, &everybody(&stage), PATIENCE);

    stage.lab.partition(&[&machines[..3], &machines[3..]]).unwrap();
    agree(&stage, &[0, 1, 2], AGREED_WITHIN);
    for node in &stage.nodes[3..] {
        assert_eq!(owned(node).unwrap().promised_ms, None, "{} has no quorum", node.name());
    }

    stage.lab.heal(&machines).unwrap();
    agree(&stage, &everybody(&stage), AGREED_WITHIN);
}

/// What a node has promised and accepted it knows after a restart, and maps go on from there.
pub(crate) fn outlives_all_daemons() {
    let mut stage = stage(3);
    let before = agree(&stage, &[0, 1, 2], PATIENCE).map;

    for node in &mut stage.nodes {
        node.kill_daemon();
    }
    stage.start_daemons().unwrap();
    let after = agree(&stage, &[0, 1, 2], PATIENCE).map;

    assert!(after > before, "{before:?} and then {after:?}");
}
