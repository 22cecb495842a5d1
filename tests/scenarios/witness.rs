//! Two nodes with a witness that is no node, and nodes that clients do not reach.

use dpr_lab::paired::{Crowd, CrowdPlan};
use dpr_lab::{Machine, NodePlan, OwnershipPlan};
use dpr_model::status::OwnershipStatus;
use dpr_tests::ingress::Ingress;
use dpr_tests::owners::{agree, calm_crowd, everybody, ids, owned, plan, start};
use dpr_tests::size::Size;
use dpr_tests::stage::{PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::stories::wait_for_slots;
use dpr_tests::variant::Variant;
use std::time::{Duration, Instant};

/// Long enough for the second node to take over, if it were to: 2.5 seconds of silence and two maps.
const LONG_PARTED: Duration = Duration::from_secs(6);
/// Whoever has to send a SYN three times has found an owner that is none (RFC 6298: after one and three seconds).
const LOST_AT_ONCE: Duration = Duration::from_millis(2900);

/// Whichever of two nodes the witness stays with goes on, the other one stops, and never do both act.
pub(crate) fn tips_the_scales() {
    for side in [0, 1] {
        let ownership = Some(OwnershipPlan::with_witness());
        let variant = Variant { ingress: Some(Ingress::ArpOwner), ..Variant::ORDINARY };
        let stage = start(2, NodePlan { ownership, ..plan(variant) });
        let machines: Vec<&Machine> = stage.nodes.iter().map(dpr_lab::Node::machine).collect();
        let service = stage.nodes[0].service();

        let other = 1 - side;
        stage.lab.partition(&[&[machines[side], &stage.clients[0]], &[machines[other]]]).unwrap();
        let began = Instant::now();
        while began.elapsed() < LONG_PARTED {
            // Rights last longer than it takes to ask both, so that both are asked twice.
            let acting = || [0, 1].map(|at| acts_alone(&stage, at));
            assert!(acting() != [true, true] || acting() != [true, true], "both own everything");
            std::thread::sleep(Duration::from_millis(20));
        }
        agree(&stage, &[side], PATIENCE);
        assert_eq!(owned(&stage.nodes[other]).unwrap().promised_ms, None, "it has no quorum");
        let records = stage.open_crowd(0, crowd_plan(vec![service], 20)).finish();
        assert_none_broke(&records);

        stage.lab.heal(&[machines[0], machines[1], &stage.clients[0]]).unwrap();
        agree(&stage, &everybody(&stage), PATIENCE);
    }
}

/// A node may act, by a map in which it is alone.
fn acts_alone(stage: &Stage, at: usize) -> bool {
    owned(&stage.nodes[at]).is_ok_and(|owned: OwnershipStatus| {
        owned.promised_ms.is_some() && owned.settled && owned.members.len() == 1
    })
}

/// A node whose network of clients is dead gives up what it owns while the others' is not, although all nodes hear each other:
/// what it decided about goes on elsewhere.
pub(crate) fn unreached_by_clients(variant: Variant) {
    let ownership = Some(OwnershipPlan { ping: true, ..OwnershipPlan::majority_of(3) });
    let stage = start(3, NodePlan { ownership, ..plan(variant) });
    let all = ids(&stage);
    // It serves nobody: what it serves nothing can save.
    stage.set_loads(&[100, 100, 900]);
    let old = Size::SOME.open(&stage);
    let dead = [stage.nodes[2].machine(), &stage.clients[0]];

    stage.lab.isolate(&dead, true).unwrap();
    let agreed = agree(&stage, &[0, 1], PATIENCE);
    assert_eq!(agreed.voters, all, "it votes still");
    assert!(owned(&stage.nodes[2]).unwrap().cut_off);
    let late = CrowdPlan { timeout: LOST_AT_ONCE, ..calm_crowd(&stage, 60) };
    let mut late = Crowd::open(&stage.clients[0], late).unwrap();
    late.wait_until_open(PATIENCE).unwrap();
    let late = late.finish();
    assert_eq!(served_by(&late, "n1") + served_by(&late, "n2"), 60, "owners keep what is theirs");
    assert_none_broke(&late);

    stage.lab.isolate(&dead, false).unwrap();
    agree(&stage, &everybody(&stage), PATIENCE);
    wait_for_slots(&stage, &all[2..]);
    std::thread::sleep(Size::SOME.pause * 2);
    assert_none_broke(&old.finish());
}
