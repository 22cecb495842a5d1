//! However a daemon ends, the host is in the end as it was before the first start.

use dpr_lab::{Cluster, ClusterPlan, HostState, NodePlan};
use dpr_tests::binary;
use dpr_tests::stage::PAIRED_PORT;
use rustix::process::Signal;

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
