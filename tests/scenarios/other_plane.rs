//! The data plane becomes another one while connections are open, and they go on.

use dpr_lab::{Node, wait_until};
use dpr_tests::stage::{PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use rustix::process::Signal;
use std::fs;
use std::time::Duration;

/// Open before the change.
const OPEN: u16 = 200;
/// Of those, forwarded: some are kept, as so many at once weigh more than what was reported.
const FORWARDED_MIN: usize = 50;
/// Ten exchanges on each connection.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// A node joins that needs what the kernel's programs do not do: they leave, and their connections are user space's.
pub(crate) fn programs_leave(variant: Variant) {
    let mut stage = Stage::paired_in(variant, 3, 1);
    stage.set_loads(&[900, 100, 900]);
    stage.nodes[2].end_daemon(Signal::TERM).unwrap();
    reconfigure(&stage.nodes[2], &format!("method = \"{}\"", variant.method), "method = \"nat\"");
    reconfigure(&stage.nodes[2], "kind = \"xdp\"", "kind = \"auto\"");
    let service = stage.nodes[0].service();
    let open = stage.open_crowd(0, crowd_plan(vec![service], OPEN));
    std::thread::sleep(AFTERWARDS);
    let before = stage.nodes[0].status().unwrap().counters.packets_forwarded;

    stage.nodes[2].start().unwrap();
    wait_until("user space to forward", PATIENCE, || {
        let dataplane = stage.nodes[0].status().unwrap().dataplane;
        if dataplane.kind == "userspace" { Ok(()) } else { Err(dataplane.kind) }
    })
    .unwrap();
    std::thread::sleep(AFTERWARDS);
    let statuses = stage.statuses();
    let open = open.finish();

    assert_none_broke(&open);
    assert!(served_by(&open, "n2") >= FORWARDED_MIN, "too few were forwarded to prove anything");
    assert!(statuses[0].counters.packets_forwarded > before, "counters go on");
    assert_eq!(statuses[2].dataplane.kind, "userspace");
    for (status, why) in statuses.iter().zip(["do not do", "do not do", "translate"]) {
        let reason = status.dataplane.reason.as_deref().expect("a reason");
        assert!(reason.contains(why), "{reason}");
    }
}

/// Puts other words into a node's configuration, for its next daemon.
fn reconfigure(node: &Node, old: &str, new: &str) {
    let text = fs::read_to_string(node.configuration()).unwrap();
    assert!(text.contains(old), "{text}");
    fs::write(node.configuration(), text.replace(old, new)).unwrap();
}
