//! An owner stops for longer than it may act, and is killed: nobody else acts while it does, and nobody's connection breaks.

use crate::owners::{agree, assert_accepted_once, everybody, start_in};
use crate::size::Size;
use crate::stage::{PATIENCE, assert_none_broke, served_by};
use crate::variant::Variant;
use std::time::Duration;

/// Without a word of its daemon: longer than anything lasts that lets it act.
const STOPPED: Duration = Duration::from_secs(3);
const KILLED: Duration = Duration::from_secs(1);
/// The last new ones open before everything is over, however fast nodes agree.
const OPENING: Duration = Duration::from_secs(8);

/// SIGSTOP and daemon-kill of a node that decides and serves nothing, while connections are opened all the time.
///
/// Two owners would both choose a real server: no connection is accepted by two.
pub fn owner_stops_and_is_killed(variant: Variant, size: Size) {
    let mut stage = start_in(variant, 3);
    stage.set_loads(&[900, 100, 100]);
    let old = size.open(&stage);
    let new = size.open_for(&stage, OPENING);

    stage.nodes[0].pause().unwrap();
    std::thread::sleep(STOPPED);
    stage.nodes[0].resume().unwrap();
    agree(&stage, &everybody(&stage), PATIENCE);
    stage.nodes[0].kill_daemon();
    std::thread::sleep(KILLED);
    stage.nodes[0].start().unwrap();
    stage.order_loads(&[900, 100, 100]);
    agree(&stage, &everybody(&stage), PATIENCE);
    std::thread::sleep(OPENING.saturating_sub(STOPPED + KILLED) + size.pause);
    let (old, new) = (old.finish(), new.finish());

    assert_none_broke(&old);
    assert_none_broke(&new);
    assert_eq!(served_by(&old, "n1"), 0, "what a stopped machine serves is not its owner's business");
    assert_accepted_once(&mut stage, old.iter().chain(&new));
}
