//! A network that drops what real servers have to send: replies whose source is the service address.

use dpr_host::{Ipv4Setting, Sysctl};
use dpr_lab::{Cluster, ClusterPlan, INTERFACE, IpVersion, NodePlan, wait_until};
use dpr_tests::binary;
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;

const CONNECTIONS: u16 = 10;

pub(crate) fn is_noticed(variant: Variant) {
    let node = variant.plan(NodePlan::paired(PAIRED_PORT));
    let mut cluster = Cluster::build(&ClusterPlan { nodes: 2, clients: 1, node }, binary::path()).unwrap();
    if variant.nodes == IpVersion::V4 {
        // The receiver's own kernel would drop the probes too, and is not what they ask.
        let strict = || Sysctl::ipv4(INTERFACE, Ipv4Setting::RpFilter).unwrap().write("1").unwrap();
        cluster.nodes[0].machine().exec(strict).unwrap();
    }
    let filter = cluster.nodes[1].machine().filter_sources().unwrap();
    cluster.start_daemons().unwrap();
    let stage = Stage::of(cluster);

    wait_until_known(&stage, false);
    let with_filter = who_serves(&stage);
    drop(filter);
    wait_until_known(&stage, true);
    let without = who_serves(&stage);

    let forwarded = usize::from(CONNECTIONS);
    // Only what goes back through the director passes a filter.
    let passes = variant.method == "nat";
    assert_eq!(with_filter, if passes { forwarded } else { 0 });
    assert_eq!(without, forwarded);
}

/// Both nodes have to know what becomes of what the second one sends, and that what the first one sends arrives.
fn wait_until_known(stage: &Stage, arrives: bool) {
    wait_until("both nodes to know what the network drops", PATIENCE, || {
        let statuses = stage.statuses();
        let found: Vec<_> = statuses
            .iter()
            .map(|status| (status.peers[0].direct_replies, status.peers[0].own_direct_replies))
            .collect();
        let expected = [(Some(arrives), Some(true)), (Some(true), Some(arrives))];
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .unwrap();
}

/// How many connections to the first node, which is loaded, the second one serves.
fn who_serves(stage: &Stage) -> usize {
    stage.set_loads(&[900, 100]);
    let crowd = stage.open_crowd(0, crowd_plan(vec![stage.nodes[0].service()], CONNECTIONS));
    let records = crowd.finish();
    assert_none_broke(&records);
    served_by(&records, "n2")
}
