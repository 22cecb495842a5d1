//! A data plane that got no processor for a while, where all nodes see all packets: what has waited for it meanwhile, others
//! have handled.

use dpr_lab::paired::{Crowd, CrowdPlan};
use dpr_tests::order::succeed;
use dpr_tests::owners::{agree, assert_accepted_once, calm_crowd, everybody, ids, owned, plan, start};
use dpr_tests::stage::{PATIENCE, assert_none_broke};
use dpr_tests::stories::slots_of;
use dpr_tests::variant::Variant;
use std::time::Duration;

/// The thread that stands still.
const DATA_PLANE: &str = "dataplane";
/// Of which a twelfth is answered by the first node and becomes the fourth one's.
const CONNECTIONS: u16 = 900;
/// Until the last of them has been answered, where nobody stands still.
const ANSWERED: Duration = Duration::from_millis(500);

/// The first node gives its slots away while packets wait for the data plane of the fourth one, which gets some of these slots:
/// it becomes their owner with all that the first one has answered before its eyes.
pub(crate) fn leaves_what_others_have_handled(variant: Variant) {
    let mut stage = start(4, plan(variant));
    // Those two decide, and serve nothing.
    stage.set_loads(&[900, 100, 100, 900]);
    let late = [ids(&stage)[3]];
    let before = slots_of(&owned(&stage.nodes[1]).unwrap(), &late);
    let halt = stage.nodes[3].halt(DATA_PLANE).unwrap();
    let opening = CrowdPlan { opening: Duration::from_secs(1), ..calm_crowd(&stage, CONNECTIONS) };
    let mut crowd = Crowd::open(&stage.clients[0], opening.clone()).unwrap();
    std::thread::sleep(opening.opening + ANSWERED);

    succeed(&stage.nodes[1], &["drain", "n1", "--timeout", "60"]);
    let after = slots_of(&agree(&stage, &everybody(&stage), PATIENCE), &late);
    drop(halt);
    crowd.wait_until_open(PATIENCE).unwrap();
    std::thread::sleep(opening.pause);
    let records = crowd.finish();

    assert!(after > before, "it owns {before} slots, and then {after}");
    assert_none_broke(&records);
    assert_accepted_once(&mut stage, &records);
}
