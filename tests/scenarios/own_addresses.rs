//! Service addresses that are no node's own: asked for, answered for, pinged, and held as aliases.

use dpr_host::Netlink;
use dpr_lab::paired::ConnectionRecord;
use dpr_lab::{HostState, IpVersion, NodePlan};
use dpr_tests::echo::ping;
use dpr_tests::stage::{PAIRED_PORT, Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;

const CONNECTIONS: u16 = 10;

/// Nobody's host holds the address: the data plane answers for it.
pub(crate) fn answered_for(variant: Variant) {
    let plan = NodePlan { separate_service_address: true, ..variant.plan(NodePlan::paired(PAIRED_PORT)) };
    let stage = Stage::start(2, 1, plan);
    stage.set_loads(&[900, 100]);
    let service = stage.nodes[0].service();
    assert_ne!(service.ip(), stage.nodes[0].address());

    let records = crowd(&stage);
    assert_eq!(served_by(&records, "n2"), usize::from(CONNECTIONS));
    ping(&stage.clients[0], service.ip());

    let counters = &stage.statuses()[0].counters;
    assert!(counters.echo_answered >= 1, "{counters:?}");
    let asked = match variant.service {
        IpVersion::V4 => counters.arp_answered,
        IpVersion::V6 => counters.neighbours_answered,
    };
    assert!(asked >= 1, "{counters:?}");
}

/// Every node holds the address on its loopback interface, as with LVS, until the daemon ends.
pub(crate) fn held_as_aliases(variant: Variant) {
    let plan = NodePlan {
        separate_service_address: true,
        delivery: Some("alias"),
        ..variant.plan(NodePlan::paired(PAIRED_PORT))
    };
    let mut stage = Stage::start(2, 1, plan);
    stage.set_loads(&[900, 100]);
    let services = [stage.nodes[0].service(), stage.nodes[1].service()];

    let records = crowd(&stage);
    assert_eq!(served_by(&records, "n2"), usize::from(CONNECTIONS));
    for record in &records {
        let greeting = record.greeting.as_ref().unwrap();
        assert_eq!(greeting.local, services[0], "the server has to see the address that clients asked for");
        assert_eq!(Some(greeting.peer), record.local);
    }
    // Kept connections are delivered the same way.
    stage.set_loads(&[100, 100]);
    assert_eq!(served_by(&crowd(&stage), "n1"), usize::from(CONNECTIONS));

    for node in &mut stage.nodes {
        let held = || Netlink::open().unwrap().addresses().unwrap();
        let of_services = |node: &dpr_lab::Node| {
            let held = node.machine().exec(held).unwrap();
            held.iter()
                .filter(|held| services.iter().any(|service| service.ip() == held.prefix.address()))
                .count()
        };
        assert_eq!(of_services(node), 2, "its own, and that of the node it serves for");
        let arp_settings = |state: &HostState| {
            state
                .to_string()
                .lines()
                .filter(|line| line.contains("eth0/arp_"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let running = arp_settings(&HostState::of(node.machine()).unwrap());
        node.terminate().unwrap();
        assert_eq!(of_services(node), 0);
        assert_ne!(running, arp_settings(&HostState::of(node.machine()).unwrap()), "settings are put back");
    }
}

fn crowd(stage: &Stage) -> Vec<ConnectionRecord> {
    let records = stage.open_crowd(0, crowd_plan(vec![stage.nodes[0].service()], CONNECTIONS)).finish();
    assert_none_broke(&records);
    records
}
