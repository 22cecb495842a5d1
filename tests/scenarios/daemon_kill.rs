//! The daemon is killed and started again, and nobody notices: the kernel's programs go on by what they were last told.

use dpr_lab::paired::{Crowd, CrowdPlan};
use dpr_lab::{HostState, Node, NodePlan, wait_until};
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage, assert_none_broke, crowd_plan, reconfigure, served_by};
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

/// What is killed, and what the next daemon is like.
#[derive(Clone, Copy)]
struct Story {
    clients: Clients,
    /// Clients stay with their real server, before the first kill.
    persistence: bool,
    /// What the next daemon says that it has found.
    found: &'static str,
    /// What is done to a node before its next daemon starts.
    between: fn(&Node),
}

const ORDINARY: Story = Story { clients: SOME, persistence: false, found: "taken over", between: |_| {} };

pub(crate) fn nobody_notices(variant: Variant) {
    through_kills(variant, ORDINARY);
}

/// User space decides about connections, and the programs carry them on.
pub(crate) fn clients_stay(variant: Variant) {
    through_kills(variant, Story { persistence: true, ..ORDINARY });
}

/// What the programs have decided about becomes user space's.
pub(crate) fn clients_begin_to_stay(variant: Variant) {
    let between = |node: &Node| reconfigure(node, "persistence = false", "persistence = true");
    through_kills(variant, Story { between, ..ORDINARY });
}

/// What user space has decided about becomes the programs'.
pub(crate) fn clients_stay_no_longer(variant: Variant) {
    let between = |node: &Node| reconfigure(node, "persistence = true", "persistence = false");
    through_kills(variant, Story { persistence: true, between, ..ORDINARY });
}

/// The next daemon has maps of another layout, and of another size.
pub(crate) fn with_other_maps(variant: Variant) {
    through_kills(variant, Story { found: "carried over", between: lay_out_otherwise, ..ORDINARY });
}

/// Many clients, and daemons of the same build.
pub(crate) fn many_notice_nothing(variant: Variant) {
    through_kills(variant, Story { clients: MANY, ..ORDINARY });
}

/// Many clients, and daemons of another build.
pub(crate) fn many_notice_no_upgrade(variant: Variant) {
    let other = Story { found: "carried over", between: lay_out_otherwise, ..ORDINARY };
    through_kills(variant, Story { clients: MANY, ..other });
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
    reconfigure(node, "[conntrack]\n", "[conntrack]\nhalf-open-capacity = 20000\n");
}

/// Kills each daemon, does something before the next one starts, and holds that one to what it says it has found.
fn through_kills(variant: Variant, story: Story) {
    let Story { clients, persistence, found, between } = story;
    let plan = NodePlan { persistence, ..NodePlan::paired(PAIRED_PORT) };
    let mut stage = Stage::start(2, 1, variant.plan(plan));
    stage.set_loads(&[900, 100]);
    let service = stage.nodes[0].service();
    let crowd = |connections, opening| CrowdPlan {
        opening,
        pause: clients.pause,
        ..crowd_plan(vec![service], connections)
    };
    let open = stage.open_crowd(0, crowd(clients.open, Duration::from_millis(2) * clients.open.into()));
    // Nobody decides about what begins above while there is no daemon; until the lease ends, the host takes it for its own.
    let begins_above = variant.hides_clients() || persistence;
    let new_per_second = if begins_above { 0 } else { clients.new_per_second };
    let new = new_per_second * OPENING.as_secs() as u16;
    let new = Crowd::open(&stage.clients[0], crowd(new, OPENING)).unwrap();

    if persistence {
        let is_carried = || carried(&stage.nodes[0]) >= clients.forwarded_min as u64;
        let carries = || is_carried().then_some(()).ok_or_else(|| carried(&stage.nodes[0]).to_string());
        wait_until("the programs to carry connections on", PATIENCE, carries).unwrap();
    }
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

/// How many flows the programs carry on that user space has decided about.
pub(crate) fn carried(node: &Node) -> u64 {
    let maps = node.status().unwrap().dataplane.programs.expect("programs are in use").maps;
    maps.iter().find(|map| map.name == "carried").expect("such a map").entries
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
