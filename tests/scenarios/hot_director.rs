//! A node that is busy with deciding and forwarding for others gets fewer slots, slowly, and nobody notices.

use dpr_lab::{NodePlan, wait_until};
use dpr_model::status::OwnershipStatus;
use dpr_tests::owners::{ids, owned, plan, start};
use dpr_tests::stage::{assert_none_broke, crowd_plan};
use dpr_tests::variant::Variant;
use std::time::Duration;

/// Shares are adjusted every ten seconds.
const TWO_PERIODS: Duration = Duration::from_secs(22);

/// Concurrent connections that make a node busy.
const CAPACITY: u32 = 100;

/// Only the first of three nodes forwards what it decides about: a tenth of its slots goes to the others in a period, and no
/// more.
pub(crate) fn gets_fewer_slots(variant: Variant) {
    let stage = start(3, NodePlan { capacity: CAPACITY, ..plan(variant) });
    let all = ids(&stage);
    let share_of_first = |owned: &OwnershipStatus| owned.members[0].share;
    assert_eq!(share_of_first(&owned(&stage.nodes[0]).unwrap()), 1000);
    stage.set_loads(&[900, 100, 100]);
    let service = stage.nodes[0].service();
    // The others keep theirs.
    let crowd = stage.open_crowd(0, crowd_plan(vec![service], 150));

    let mut adjusted = OwnershipStatus::default();
    wait_until("the first node to get fewer slots", TWO_PERIODS, || {
        adjusted = owned(&stage.nodes[1])?;
        let is_less = adjusted.settled && share_of_first(&adjusted) < 1000;
        if is_less { Ok(()) } else { Err(format!("{:?}", adjusted.members)) }
    })
    .unwrap();

    let shares: Vec<u16> = adjusted.members.iter().map(|member| member.share).collect();
    assert_eq!(shares, [900, 1000, 1000], "a tenth");
    let slots = &adjusted.addresses[0].slots;
    assert!(slots[&all[0]] < 4096 / 3 && slots[&all[1]] > 4096 / 3, "{slots:?}");
    std::thread::sleep(Duration::from_secs(1));
    assert_none_broke(&crowd.finish());
}
