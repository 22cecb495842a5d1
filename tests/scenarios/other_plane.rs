//! The data plane becomes another one while connections are open, and they go on.

use dpr_lab::{INTERFACE, Machine, wait_until};
use dpr_tests::stage::{PATIENCE, Stage, assert_none_broke, crowd_plan, reconfigure, served_by};
use dpr_tests::variant::Variant;
use dpr_xdp::{Mode, Programs, Sizes, Wanted};
use rustix::process::Signal;
use std::process::Command;
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
    let ownership = format!("[ownership]\nvoters = [\"{}\"]\n\n[control]", stage.nodes[2].address());
    reconfigure(&stage.nodes[2], "[control]", &ownership);
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
    for (status, why) in statuses.iter().zip(["do not do", "do not do", "others may own"]) {
        let reason = status.dataplane.reason.as_deref().expect("a reason");
        assert!(reason.contains(why), "{reason}");
    }
}

/// Somebody else has a program on the interface: a daemon that has to have its own there says so and ends, one that may do
/// without goes by user space and leaves the stranger alone, and the next one finds the place free.
pub(crate) fn foreign_program(variant: Variant) {
    let mut stage = Stage::paired_in(variant, 2, 1);
    stage.nodes[0].end_daemon(Signal::TERM).unwrap();
    let stranger = occupy(stage.nodes[0].machine());

    let refused = stage.nodes[0].start().unwrap_err().to_string();
    assert!(refused.contains("another program"), "{refused}");

    reconfigure(&stage.nodes[0], "kind = \"xdp\"", "kind = \"auto\"");
    stage.nodes[0].start().unwrap();
    stage.wait_until_they_meet().unwrap();
    stage.set_loads(&[900, 100]);
    let service = stage.nodes[0].service();
    let forwarded = stage.open_crowd(0, crowd_plan(vec![service], OPEN)).finish();
    let dataplane = stage.nodes[0].status().unwrap().dataplane;
    assert_none_broke(&forwarded);
    assert!(served_by(&forwarded, "n2") >= FORWARDED_MIN, "too few were forwarded to prove anything");
    assert_eq!(dataplane.kind, "userspace");
    assert!(dataplane.reason.as_deref().is_some_and(|why| why.contains("another program")), "{dataplane:?}");

    stage.nodes[0].end_daemon(Signal::TERM).unwrap();
    assert!(is_occupied(stage.nodes[0].machine()), "the daemon has removed somebody else's program");
    drop(stranger);
    stage.nodes[0].start().unwrap();
    stage.wait_until_they_meet().unwrap();
    let dataplane = stage.nodes[0].status().unwrap().dataplane;
    assert!(dataplane.programs.as_ref().is_some_and(|programs| programs.mode == "native"), "{dataplane:?}");
}

/// Puts a program on a machine's interface that knows nothing and lets everything pass; it leaves when dropped.
fn occupy(machine: &Machine) -> Programs {
    let (mut programs, _) = dpr_xdp::load(Sizes { flows: 1, half_open: 1 }, None).unwrap();
    machine.exec(|| programs.attach_ingress(INTERFACE, Wanted::Only(Mode::Native))).unwrap().unwrap();
    programs
}

/// Whether the interface has a program, by the word of `ip`.
fn is_occupied(machine: &Machine) -> bool {
    let mut ip = Command::new("ip");
    ip.args(["link", "show", "dev", INTERFACE]);
    String::from_utf8_lossy(&machine.run(ip).unwrap().stdout).contains("prog/xdp")
}
