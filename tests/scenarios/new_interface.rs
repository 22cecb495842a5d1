//! A node's interface goes, and another one comes with its name and addresses: a driver is loaded again, a bond built again.

use dpr_model::NodeId;
use dpr_tests::stage::{PATIENCE, Stage, assert_carried_by, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use std::time::Duration;

/// Open while the director's interface is another one.
const OPEN: u16 = 100;
/// Of so many that the director hands on, when it is loaded and the others are not.
const FORWARDED_MIN: usize = 50;
/// How long there is none: peers notice.
const GONE: Duration = Duration::from_millis(600);
/// Ten exchanges on each connection.
const EXCHANGES: Duration = Duration::from_secs(1);

/// The director has another interface within a second and a half, and its connections with it.
pub(crate) fn on_the_director(variant: Variant) {
    let mut stage = Stage::paired_in(variant, 3, 1);
    stage.set_loads(&[900, 100, 100]);
    let service = stage.nodes[0].service();
    let open = stage.open_crowd(0, crowd_plan(vec![service], OPEN));
    std::thread::sleep(EXCHANGES);

    stage.nodes[0].replace_interface(GONE).unwrap();
    let peers: Vec<NodeId> = stage.nodes[1..].iter().map(dpr_lab::Node::id).collect();
    stage.nodes[0].wait_until_it_sees(&peers, PATIENCE).unwrap();
    stage.wait_until_they_meet().unwrap();
    std::thread::sleep(EXCHANGES);
    let before = open.finish();
    stage.set_loads(&[900, 100, 100]);
    let after = stage.open_crowd(0, crowd_plan(vec![service], OPEN)).finish();

    assert_none_broke(&before);
    assert_none_broke(&after);
    for records in [&before, &after] {
        let forwarded = served_by(records, "n2") + served_by(records, "n3");
        assert!(forwarded >= FORWARDED_MIN, "{forwarded} were forwarded");
    }
    assert_carried_by(variant, &stage.statuses()[0]);
}
