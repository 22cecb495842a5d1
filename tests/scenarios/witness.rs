//! Two nodes with a witness that is no node, and nodes that clients do not reach.

use crate::agreement::agree;
use crate::control::owned;
use crate::shared::{ids, plan};
use dpr_host::{IpPrefix, Netlink, Route};
use dpr_lab::{Machine, NodePlan, OwnershipPlan, wait_until};
use dpr_model::NodeId;
use dpr_model::status::OwnershipStatus;
use dpr_tests::stage::{PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Long enough for the second node to take over, if it were to: 2.5 seconds of silence and two maps.
const LONG_PARTED: Duration = Duration::from_secs(6);

fn stage(nodes: u8, ownership: OwnershipPlan) -> (Stage, Vec<NodeId>) {
    let ownership = Some(ownership);
    let stage = Stage::start(
        nodes,
        1,
        NodePlan { ownership, shared: Some("arp-owner"), ..plan(Variant::ORDINARY, 2) },
    );
    let all = ids(&stage);
    agree(&stage, &(0..all.len()).collect::<Vec<_>>(), &all, PATIENCE);
    (stage, all)
}

/// Whichever of two nodes the witness stays with goes on, the other one stops, and never do both act.
pub(crate) fn tips_the_scales() {
    for side in [0, 1] {
        let (stage, all) = stage(2, OwnershipPlan::with_witness());
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
        agree(&stage, &[side], &all[side..=side], PATIENCE);
        assert_eq!(owned(&stage.nodes[other]).unwrap().promised_ms, None, "it has no quorum");
        let records = stage.open_crowd(0, crowd_plan(vec![service], 20)).finish();
        assert_none_broke(&records);

        stage.lab.heal(&[machines[0], machines[1], &stage.clients[0]]).unwrap();
        agree(&stage, &[0, 1], &all, PATIENCE);
    }
}

/// A node may act, by a map in which it is alone.
fn acts_alone(stage: &Stage, at: usize) -> bool {
    owned(&stage.nodes[at]).is_ok_and(|owned: OwnershipStatus| {
        owned.promised_ms.is_some() && owned.settled && owned.members.len() == 1
    })
}

/// A node whose way to the clients is dead gives up what it owns while the others' is not, although all nodes hear each other.
pub(crate) fn unreached_by_clients() {
    let ownership = OwnershipPlan { ping: true, ..OwnershipPlan::majority_of(3) };
    let (stage, all) = stage(3, ownership);
    stage.set_loads(&[100, 100, 100]);
    let (service, client) = (stage.nodes[0].service(), stage.clients[0].address());

    // Nobody has the address of this router.
    let nowhere = Route::via(IpPrefix::host(client), IpAddr::from([10, 77, 0, 240]));
    stage.nodes[2].machine().exec(move || Netlink::open()?.add_route(&nowhere)).unwrap().unwrap();
    let agreed = agree(&stage, &[0, 1], &all[..2], PATIENCE);
    assert_eq!(agreed.voters, all, "it votes still");
    assert!(owned(&stage.nodes[2]).unwrap().cut_off);
    // Others still have to be told not to give it connections: their real servers are another matter.
    let late = stage.open_crowd(0, crowd_plan(vec![service], 30)).finish();
    assert!(served_by(&late, "n1") + served_by(&late, "n2") == 30, "owners keep what is theirs");
    assert_none_broke(&late);

    stage.nodes[2].machine().exec(move || Netlink::open()?.delete_route(&nowhere)).unwrap().unwrap();
    agree(&stage, &[0, 1, 2], &all, PATIENCE);
    wait_until("it to own its part", PATIENCE, || {
        let owned = owned(&stage.nodes[0])?;
        let has_part = owned.addresses.iter().any(|address| address.slots.contains_key(&all[2]));
        if has_part { Ok(()) } else { Err(format!("{:?}", owned.addresses)) }
    })
    .unwrap();
}
