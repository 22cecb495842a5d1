//! Addresses that move at an operator's word: to another node, back home, and not by themselves where that is not wanted.

use dpr_lab::{NodePlan, OwnershipPlan, wait_until};
use dpr_model::NodeId;
use dpr_model::status::{AddressStatus, Status};
use dpr_tests::ingress::Ingress;
use dpr_tests::order::{order, succeed};
use dpr_tests::owners::{agree, everybody, ids, owned, plan, start, start_in};
use dpr_tests::stage::{PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use std::net::IpAddr;
use std::time::Duration;

/// A living node's address goes to another node, at a third one's order, and back.
pub(crate) fn of_a_home_address(variant: Variant) {
    let stage = start_in(variant, 3);
    let all = ids(&stage);
    // Some of what comes to the second node it keeps, and the rest others serve.
    stage.set_loads(&[100, 100, 100]);
    let service = stage.nodes[1].service();
    let kept = stage.open_crowd(0, crowd_plan(vec![service], 40));
    stage.set_loads(&[100, 900, 900]);
    let forwarded = stage.open_crowd(0, crowd_plan(vec![service], 40));
    stage.set_loads(&[100, 100, 100]);

    succeed(&stage.nodes[0], &["takeover", &service.ip().to_string(), "--to", "n3", "--json"]);
    assert_eq!(owners_of(&stage, 1, service.ip()), [all[2]]);
    let late = stage.open_crowd(0, crowd_plan(vec![service], 20)).finish();
    succeed(&stage.nodes[0], &["takeover", &service.ip().to_string(), "--give-back"]);
    assert_eq!(owners_of(&stage, 2, service.ip()), [all[1]]);
    let later = stage.open_crowd(0, crowd_plan(vec![service], 20)).finish();
    std::thread::sleep(Duration::from_secs(1));

    for records in [&kept.finish(), &forwarded.finish(), &late, &later] {
        assert_none_broke(records);
    }
    assert_eq!((served_by(&late, "n3"), served_by(&later, "n2")), (20, 20));
}

/// All slots of a shared address go to one node, which has copies of the others' connections first; then to all again.
pub(crate) fn of_a_shared_address(variant: Variant) {
    let stage = start_in(variant, 3);
    let all = ids(&stage);
    stage.set_loads(&[900, 100, 900]);
    let service = stage.nodes[0].service();
    let crowd = stage.open_crowd(0, crowd_plan(vec![service], 90));
    let before = stage.statuses();

    let address = service.ip().to_string();
    succeed(&stage.nodes[1], &["takeover", &address, "--to", "n1"]);
    assert_eq!(owners_of(&stage, 1, service.ip()), [all[0]]);
    let late = stage.open_crowd(0, crowd_plan(vec![service], 20)).finish();
    std::thread::sleep(Duration::from_secs(1));
    let after = stage.nodes[0].status().unwrap();
    succeed(&stage.nodes[1], &["takeover", &address, "--give-back"]);
    assert_eq!(owners_of(&stage, 1, service.ip()), all);
    std::thread::sleep(Duration::from_secs(1));

    assert_none_broke(&crowd.finish());
    assert_none_broke(&late);
    // Copies came first: it had to ask only for what the second node kept and nobody else had to know.
    let asked = |status: &Status| {
        status.ownership.as_ref().map_or(0, |owned| owned.asked_known + owned.asked_unknown)
    };
    assert_eq!(asked(&after), asked(&before[0]), "{:?}", after.ownership);
    let node_address = stage.nodes[1].address().to_string();
    let unknown = order(&stage.nodes[0], &["takeover", &node_address, "--to", "n1"]).output().unwrap();
    assert!(!unknown.status.success(), "it is no service address: {unknown:?}");
}

/// With `give-back = "manual"` a node that died and returned is a member again, and its address is its own at an operator's
/// word.
pub(crate) fn given_back_by_hand() {
    let ownership = Some(OwnershipPlan { give_back: "manual", ..OwnershipPlan::majority_of(3) });
    let homes = Variant { ingress: Some(Ingress::Homes), ..Variant::ORDINARY };
    let mut stage = start(3, NodePlan { ownership, ..plan(homes) });
    let all = ids(&stage);
    let service = stage.nodes[2].service();
    assert_eq!(owners_of(&stage, 0, service.ip()), [all[2]], "everybody begins with its own");

    stage.nodes[2].node_kill().unwrap();
    agree(&stage, &[0, 1], PATIENCE);
    stage.nodes[2].revive().unwrap();
    let agreed = agree(&stage, &everybody(&stage), PATIENCE);
    let address = agreed.addresses.iter().find(|address| address.address == service.ip()).unwrap();
    assert!(address.lent && address.slots.len() > 1, "{address:?}");
    assert_none_broke(&stage.open_crowd(0, crowd_plan(vec![service], 20)).finish());

    succeed(&stage.nodes[0], &["takeover", &service.ip().to_string(), "--give-back"]);
    assert_eq!(owners_of(&stage, 0, service.ip()), [all[2]]);
    assert_none_broke(&stage.open_crowd(0, crowd_plan(vec![service], 20)).finish());
}

/// Who owns slots of an address, by what one node says when the map is settled.
fn owners_of(stage: &Stage, at: usize, address: IpAddr) -> Vec<NodeId> {
    let mut owners = Vec::new();
    wait_until("a settled map", PATIENCE, || {
        let owned = owned(&stage.nodes[at])?;
        let is_it = |known: &&AddressStatus| known.address == address && known.heir.is_none();
        let known = owned.addresses.iter().find(is_it).filter(|_| owned.settled);
        let known = known.ok_or_else(|| format!("{:?}", owned.addresses))?;
        owners = known.slots.keys().copied().collect();
        Ok(())
    })
    .unwrap();
    owners
}
