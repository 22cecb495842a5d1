//! Members come and go, in order or not.

use dpr_model::LoadPermille;
use dpr_tests::owners::{agree, assert_accepted_once, everybody, start_in};
use dpr_tests::size::Size;
use dpr_tests::stage::{PATIENCE, assert_none_broke, served_by};
use dpr_tests::variant::Variant;
use std::time::Duration;

/// Each time it has been gone for long enough to be nobody's owner, and is an owner again before it goes the next time.
pub(crate) fn director_dies_five_times(variant: Variant) {
    let size = Size::as_many_as_possible();
    let mut stage = start_in(variant, 3);
    stage.set_loads(&[900, 100, 100]);
    let old = size.open(&stage);
    for _ in 0..5 {
        stage.nodes[0].node_kill().unwrap();
        agree(&stage, &[1, 2], PATIENCE);
        stage.nodes[0].revive().unwrap();
        stage.order_loads(&[900, 100, 100]);
        agree(&stage, &everybody(&stage), PATIENCE);
        std::thread::sleep(Duration::from_millis(500));
    }
    std::thread::sleep(size.pause);
    let records = old.finish();
    assert_none_broke(&records);
    assert_eq!(served_by(&records, "n1"), 0);
}

/// How long new connections are opened while members come and go.
const OPENING: Duration = Duration::from_secs(10);

/// A fourth node comes and two others go, one after another, while connections are opened all the time.
pub(crate) fn come_and_go(variant: Variant) {
    let size = Size::as_many_as_possible();
    let mut stage = start_in(variant, 4);
    // Those two decide, and serve nobody.
    stage.set_loads(&[900, 100, 100, 900]);
    stage.nodes[3].terminate().unwrap();
    agree(&stage, &[0, 1, 2], PATIENCE);
    let old = size.open(&stage);
    let mut new = size.open_for(&stage, OPENING);

    stage.nodes[3].start().unwrap();
    stage.nodes[3].override_load(Some(LoadPermille(900))).unwrap();
    agree(&stage, &everybody(&stage), PATIENCE);
    stage.nodes[0].terminate().unwrap();
    agree(&stage, &[1, 2, 3], PATIENCE);
    stage.nodes[3].terminate().unwrap();
    agree(&stage, &[1, 2], PATIENCE);
    // What a client gives up while it connects has a server that accepts it nevertheless.
    new.wait_until_open(OPENING + PATIENCE).unwrap();
    std::thread::sleep(Duration::from_secs(3) + size.pause);
    let (old, new) = (old.finish(), new.finish());

    assert_none_broke(&old);
    assert_none_broke(&new);
    assert_accepted_once(&mut stage, old.iter().chain(&new));
}
