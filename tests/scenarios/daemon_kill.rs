//! The daemon is killed and started again, and nobody notices: the kernel's programs go on by what they were last told.

use dpr_lab::paired::Crowd;
use dpr_lab::{HostState, Node};
use dpr_tests::stage::{Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Open before the first kill.
const OPEN: u16 = 200;
/// Of those, forwarded: some are kept, as so many at once weigh more than what was reported.
const FORWARDED_MIN: usize = 50;
/// Opened while daemons come and go, one every 20 ms.
const NEW: u16 = 500;
const OPENING: Duration = Duration::from_secs(10);
/// Without a daemon: longer than a lease, and than any peer's patience.
const OUTAGE: Duration = Duration::from_secs(2);

pub(crate) fn nobody_notices(variant: Variant) {
    through_kills(variant, "taken over", |_| {});
}

/// The next daemon has maps of another layout, and of another size.
pub(crate) fn with_other_maps(variant: Variant) {
    through_kills(variant, "carried over", |node| {
        let namespace = node.pinned().pop().expect("something is pinned");
        let is_maps = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("maps-");
        let mut entries = fs::read_dir(&namespace).unwrap().map(|entry| entry.unwrap().path());
        let maps = entries.find(is_maps).expect("maps are pinned");
        let name = maps.file_name().unwrap().to_string_lossy().into_owned();
        // As a build names them that lays out other maps than those of connections otherwise.
        let (layout, rest) = name["maps-".len()..].split_once('-').unwrap();
        fs::rename(&maps, namespace.join(format!("maps-{}-{rest}", "0".repeat(layout.len())))).unwrap();
        let text = fs::read_to_string(node.configuration()).unwrap();
        let smaller = text.replace("[conntrack]\n", "[conntrack]\nhalf-open-capacity = 5000\n");
        assert_ne!(text, smaller);
        fs::write(node.configuration(), smaller).unwrap();
    });
}

/// Kills each daemon, does something before the next one starts, and holds that one to what it says it has found.
fn through_kills(variant: Variant, found: &str, between: fn(&Node)) {
    let mut stage = Stage::paired_in(variant, 2, 1);
    stage.set_loads(&[900, 100]);
    let service = stage.nodes[0].service();
    let open = stage.open_crowd(0, crowd_plan(vec![service], OPEN));
    let mut plan = crowd_plan(vec![service], NEW);
    plan.opening = OPENING;
    let new = Crowd::open(&stage.clients[0], plan).unwrap();

    // First the director of all these connections, then their real server.
    for node in 0..2 {
        stage.nodes[node].kill_daemon();
        std::thread::sleep(OUTAGE);
        between(&stage.nodes[node]);
        stage.nodes[node].start().unwrap();
    }
    stage.wait_until_they_meet().unwrap();
    std::thread::sleep(OPENING.saturating_sub(2 * OUTAGE));
    let (open, new) = (open.finish(), new.finish());

    assert_none_broke(&open);
    assert_none_broke(&new);
    assert!(served_by(&open, "n2") >= FORWARDED_MIN, "too few were forwarded to prove anything");
    for status in stage.statuses() {
        let programs = status.dataplane.programs.expect("programs are in use");
        assert_eq!(programs.found, found);
    }
}

/// A daemon that ends in good order takes its programs along, also those that an earlier one left.
pub(crate) fn no_traces(variant: Variant) {
    let mut stage = Stage::paired_in(variant, 2, 0);
    let node = &mut stage.nodes[0];
    node.end_daemon(Signal::TERM).unwrap();
    let before = HostState::of(node.machine()).unwrap();

    node.start().unwrap();
    assert!(!node.pinned().is_empty(), "nothing is pinned that could be kept");
    node.kill_daemon();
    assert!(!node.pinned().is_empty(), "a killed daemon leaves its programs");
    node.start().unwrap();
    node.end_daemon(Signal::TERM).unwrap();

    assert_eq!(node.pinned(), Vec::<PathBuf>::new());
    let after = HostState::of(node.machine()).unwrap();
    assert_eq!(before.changes(&after), Vec::<String>::new());
}
