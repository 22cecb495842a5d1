//! Nodes that contradict each other forward to each other, and no packet runs in circles.

use dpr_lab::capture::Capture;
use dpr_lab::paired::Crowd;
use dpr_lab::{Node, NodePlan};
use dpr_model::LoadPermille;
use dpr_tests::packet::{complete, is_tunnelled};
use dpr_tests::stage::{PAIRED_PORT, Stage, assert_none_broke, crowd_plan};
use dpr_tests::variant::Variant;
use std::time::{Duration, Instant};

const OPENING: Duration = Duration::from_secs(6);

pub(crate) fn wrong_reports(variant: Variant) {
    // Every connection is balanced, so that a node wants to pass on what it just got whenever it looks heavy to itself.
    let plan = NodePlan { maxload: LoadPermille(0), ..NodePlan::paired(PAIRED_PORT) };
    let stage = Stage::start(3, 1, variant.plan(plan));
    let captures: Vec<Capture> =
        stage.nodes.iter().map(|node| Capture::start(node.machine(), is_tunnelled).unwrap()).collect();
    let mut plan = crowd_plan(stage.nodes.iter().map(Node::service).collect(), 400);
    plan.opening = OPENING;
    plan.pause = Duration::from_millis(500);
    let crowd = Crowd::open(&stage.clients[0], plan).unwrap();

    // Loads change several times between two reports, so that what peers believe is mostly wrong.
    let began = Instant::now();
    let mut step = 0;
    while began.elapsed() < OPENING + Duration::from_secs(1) {
        let load = |node: u32| if (step / 3 + node).is_multiple_of(3) { 50 } else { 950 };
        stage.order_loads(&[load(0), load(1), load(2)]);
        step += 1;
        std::thread::sleep(Duration::from_millis(30));
    }
    let records = crowd.finish();

    assert_none_broke(&records);
    let mut tunnelled = 0;
    for capture in captures {
        for packet in complete(&capture.finish().unwrap()) {
            tunnelled += 1;
            let [outer] = packet.tunnels[..] else { panic!("a tunnel within a tunnel: {packet:?}") };
            assert_eq!(outer.hops, Some(0), "the home of an address needs one hop only: {packet:?}");
        }
    }
    assert!(tunnelled > 1000, "only {tunnelled} packets were tunnelled");
    let stopped: u64 = stage.statuses().iter().map(|status| status.counters.loops_stopped).sum();
    assert!(stopped > 0, "no node had to stop a loop: the reports were not wrong enough to prove anything");
}
