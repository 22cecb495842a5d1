//! The daemon is killed and started again, and nobody notices: the kernel's programs go on by what they were last told.

use dpr_lab::paired::{Crowd, CrowdPlan};
use dpr_lab::{HostState, Node};
use dpr_tests::stage::{Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// What clients do meanwhile.
#[derive(Clone, Copy)]
struct Clients {
    /// Connections that are open before the first kill.
    open: u16,
    /// Of those, forwarded: some are kept, as so many at once weigh more than what was reported.
    forwarded_min: usize,
    /// Connections that begin every second.
    new_per_second: u16,
    /// Between two requests of a connection; the first comes at once.
    pause: Duration,
}

/// Beside other scenarios.
const SOME: Clients =
    Clients { open: 200, forwarded_min: 50, new_per_second: 50, pause: Duration::from_millis(100) };
/// With the machine for themselves.
const MANY: Clients =
    Clients { open: 1000, forwarded_min: 250, new_per_second: 500, pause: Duration::from_secs(2) };

/// While daemons come and go.
const OPENING: Duration = Duration::from_secs(10);
/// Without a daemon: longer than a lease, and than any peer's patience.
const OUTAGE: Duration = Duration::from_secs(2);

pub(crate) fn nobody_notices(variant: Variant) {
    through_kills(variant, SOME, "taken over", |_| {});
}

/// The next daemon has maps of another layout, and of another size.
pub(crate) fn with_other_maps(variant: Variant) {
    through_kills(variant, SOME, "carried over", lay_out_otherwise);
}

/// Many clients, and daemons of the same build.
pub(crate) fn many_notice_nothing(variant: Variant) {
    through_kills(variant, MANY, "taken over", |_| {});
}

/// Many clients, and daemons of another build.
pub(crate) fn many_notice_no_upgrade(variant: Variant) {
    through_kills(variant, MANY, "carried over", lay_out_otherwise);
}

/// Makes what is pinned look as a build leaves it that lays out other maps than those of connections otherwise.
fn lay_out_otherwise(node: &Node) {
    let namespace = node.pinned().pop().expect("something is pinned");
    let is_maps = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("maps-");
    let mut entries = fs::read_dir(&namespace).unwrap().map(|entry| entry.unwrap().path());
    let maps = entries.find(is_maps).expect("maps are pinned");
    let name = maps.file_name().unwrap().to_string_lossy().into_owned();
    let (layout, rest) = name["maps-".len()..].split_once('-').unwrap();
    fs::rename(&maps, namespace.join(format!("maps-{}-{rest}", "0".repeat(layout.len())))).unwrap();
    let text = fs::read_to_string(node.configuration()).unwrap();
    let smaller = text.replace("[conntrack]\n", "[conntrack]\nhalf-open-capacity = 20000\n");
    assert_ne!(text, smaller);
    fs::write(node.configuration(), smaller).unwrap();
}

/// Kills each daemon, does something before the next one starts, and holds that one to what it says it has found.
fn through_kills(variant: Variant, clients: Clients, found: &str, between: fn(&Node)) {
    let mut stage = Stage::paired_in(variant, 2, 1);
    stage.set_loads(&[900, 100]);
    let service = stage.nodes[0].service();
    let crowd = |connections, opening| CrowdPlan {
        opening,
        pause: clients.pause,
        ..crowd_plan(vec![service], connections)
    };
    let open = stage.open_crowd(0, crowd(clients.open, Duration::from_millis(2) * clients.open.into()));
    // Nobody translates what begins while there is no daemon; until the lease ends, the host takes it for its own.
    let new_per_second = if variant.hides_clients() { 0 } else { clients.new_per_second };
    let new = new_per_second * OPENING.as_secs() as u16;
    let new = Crowd::open(&stage.clients[0], crowd(new, OPENING)).unwrap();

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
    let forwarded = served_by(&open, "n2");
    assert!(forwarded >= clients.forwarded_min, "only {forwarded} were forwarded");
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
