//! Clients in VLANs of the nodes' interface: under one tag or two they are served as without, by every node.

use dpr_lab::paired::{Crowd, Transfer};
use dpr_lab::{NodePlan, VlanTags};
use dpr_tests::echo::ping;
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use std::time::Duration;

const CONNECTIONS: u16 = 10;
const BYTES: u64 = 1024 * 1024;

/// Identifiers of the tags that each client's frames have; only the first three are the nodes' business.
const TAGS: [&[u16]; 4] = [&[], &[100], &[200, 7], &[300]];

pub(crate) fn one_tag_or_two(variant: Variant) {
    let plan = NodePlan { vlans: vec!["100", "200.7"], ..variant.plan(NodePlan::paired(PAIRED_PORT)) };
    let stage = Stage::start(2, TAGS.len() as u8, plan);
    let _tags: Vec<VlanTags> =
        stage.clients.iter().zip(TAGS).map(|(client, tags)| client.move_into_vlan(tags).unwrap()).collect();
    let service = stage.nodes[0].service();

    for (director, loads) in [("n2", [900, 100]), ("n1", [100, 900])] {
        stage.set_loads(&loads);
        for (client, tags) in TAGS.iter().take(3).enumerate() {
            let crowd = stage.open_crowd(client, crowd_plan(vec![service], CONNECTIONS));
            let transfer = Transfer {
                target: service,
                up: BYTES,
                down: BYTES,
                seed: 3,
                source_port: None,
                timeout: PATIENCE,
            };
            let transferred = transfer.run(&stage.clients[client]).unwrap().unwrap();
            let records = crowd.finish();
            assert_none_broke(&records);
            assert_eq!(served_by(&records, director), usize::from(CONNECTIONS), "under {tags:?}");
            assert_eq!(transferred.greeting.node, director, "under {tags:?}");
        }
    }
    for client in &stage.clients[..3] {
        ping(client, service.ip());
    }
    let mut stranger = Crowd::open(&stage.clients[3], crowd_plan(vec![service], 1)).unwrap();
    assert!(stranger.wait_until_open(Duration::from_secs(2)).is_err(), "nobody is in VLAN 300");
}
