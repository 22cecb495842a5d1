//! However a daemon ends, the host is in the end as it was before the first start.

use dpr_lab::{Cluster, ClusterPlan, HostState, Node, NodePlan};
use dpr_tests::binary;
use dpr_tests::stage::PAIRED_PORT;
use rustix::process::Signal;
use std::path::Path;
use std::process::{Command, Output};

pub(crate) fn after_sigterm() {
    ended_by(Signal::TERM);
}

pub(crate) fn after_sigint() {
    ended_by(Signal::INT);
}

pub(crate) fn after_sigkill() {
    let mut cluster = dressed();
    let before = HostState::of(cluster.nodes[0].machine()).unwrap();

    cluster.start_daemons().unwrap();
    cluster.nodes[0].kill_daemon();
    cluster.nodes[0].start().unwrap();
    cluster.wait_until_they_meet().unwrap();
    let status = cluster.nodes[0].end_daemon(Signal::TERM).unwrap();

    assert!(status.success(), "{status}");
    assert_same(&before, &cluster);
}

/// `dpr stop` ends a daemon, or removes what a killed one left, and touches nothing of one that it cannot ask.
pub(crate) fn by_dpr_stop() {
    let mut cluster = dressed();
    let before = HostState::of(cluster.nodes[0].machine()).unwrap();

    cluster.start_daemons().unwrap();
    let elsewhere = Path::new("/nonexistent/control.sock");
    let refused = stop(&cluster.nodes[0], elsewhere);
    assert_eq!(refused.status.code(), Some(1), "a daemon is at work: {refused:?}");
    assert!(cluster.nodes[0].status().unwrap().dataplane.lease_valid);
    let stopped = stop(&cluster.nodes[0], &cluster.nodes[0].control_socket());
    assert_eq!(String::from_utf8_lossy(&stopped.stdout), "{\"done\":\"stopped\"}\n", "{stopped:?}");
    assert_same(&before, &cluster);

    cluster.nodes[0].end_daemon(Signal::CONT).unwrap();
    cluster.nodes[0].start().unwrap();
    cluster.nodes[0].kill_daemon();
    for done in ["removed", "nothing"] {
        let stopped = stop(&cluster.nodes[0], &cluster.nodes[0].control_socket());
        assert_eq!(
            String::from_utf8_lossy(&stopped.stdout),
            format!("{{\"done\":\"{done}\"}}\n"),
            "{stopped:?}"
        );
        assert_same(&before, &cluster);
    }
}

fn stop(node: &Node, socket: &Path) -> Output {
    let mut command = Command::new(binary::path());
    command.args(["stop", "--json", "--now", "--config"]).arg(node.configuration());
    command.arg("--socket").arg(socket);
    node.machine().run(command).unwrap()
}

fn ended_by(signal: Signal) {
    let mut cluster = dressed();
    let before = HostState::of(cluster.nodes[0].machine()).unwrap();

    cluster.start_daemons().unwrap();
    let during = HostState::of(cluster.nodes[0].machine()).unwrap();
    let status = cluster.nodes[0].end_daemon(signal).unwrap();

    assert!(status.success(), "{status}: {}", cluster.nodes[0].log_tail());
    assert_ne!(before.changes(&during), Vec::<String>::new(), "a daemon that changes nothing proves nothing");
    assert_same(&before, &cluster);
}

fn dressed() -> Cluster {
    let plan = ClusterPlan { nodes: 2, clients: 0, node: NodePlan::paired(PAIRED_PORT) };
    Cluster::build(&plan, binary::path()).unwrap()
}

fn assert_same(before: &HostState, cluster: &Cluster) {
    let after = HostState::of(cluster.nodes[0].machine()).unwrap();
    assert_eq!(before.changes(&after), Vec::<String>::new());
}
