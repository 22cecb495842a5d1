//! All nodes are director and real server at once, under load, and no request fails.

use dpr_lab::http_load::{HttpLoad, LoadPlan, Tally, Targets};
use dpr_lab::{Node, NodePlan};
use dpr_tests::stage::{Stage, duration};
use dpr_tests::variant::Variant;
use std::time::{Duration, Instant};

const ROTATION: Duration = Duration::from_millis(400);

pub(crate) fn under_load(variant: Variant) {
    let stage = Stage::start(4, 2, variant.plan(NodePlan::default()));
    let time = duration(Duration::from_secs(10), Duration::from_secs(60));
    let plan = LoadPlan {
        targets: Targets::Fixed(stage.nodes.iter().map(Node::service).collect()),
        concurrency: 32,
        requests_per_connection: 4,
        think: Duration::from_millis(20),
        rest: Duration::from_millis(5),
        duration: time,
        timeout: Duration::from_secs(10),
    };
    let loads: Vec<HttpLoad> =
        stage.clients.iter().map(|client| HttpLoad::start(client, plan.clone()).unwrap()).collect();

    // Two of the four are overloaded at a time, so that everybody gives and everybody takes.
    let began = Instant::now();
    let mut step = 0;
    while began.elapsed() < time {
        let load = |node: u32| if (step + node) % 4 < 2 { 900 } else { 100 };
        stage.order_loads(&[load(0), load(1), load(2), load(3)]);
        step += 1;
        std::thread::sleep(ROTATION);
    }
    let records: Vec<_> = loads.into_iter().flat_map(HttpLoad::wait).collect();

    let tally = Tally::of(&records, &[]);
    let failed = records.iter().find(|record| record.outcome.is_err());
    assert_eq!(tally.failures, 0, "{tally}; the first: {failed:?}");
    assert!(tally.requests > 1000, "{tally}");
    for (node, status) in stage.nodes.iter().zip(stage.statuses()) {
        let counters = status.counters;
        assert!(counters.connections_forwarded > 0, "{} directed nothing: {counters:?}", node.name());
        assert!(counters.connections_received > 0, "{} served nothing for others", node.name());
        assert!(tally.served_by_node.contains_key(node.name()), "{tally}");
    }
    for whoami in records.iter().filter_map(|record| record.outcome.as_ref().ok().zip(record.client)) {
        assert_eq!(whoami.0.client, whoami.1.to_string(), "the server has to see the client's own address");
    }
}
