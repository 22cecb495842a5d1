//! Every node once, one after another, as an upgrade does it.

use dpr_lab::http_load::{HttpLoad, LoadPlan, Tally, Targets};
use dpr_lab::{NodePlan, OwnershipPlan};
use dpr_tests::binary;
use dpr_tests::owners::{agree, entrances, everybody, start};
use dpr_tests::stage::PATIENCE;
use dpr_tests::variant::Variant;
use std::path::PathBuf;
use std::time::Duration;

/// Environment variable: the binary that nodes run before they are upgraded, of an earlier version for example. Without it
/// they restart with what they had.
const OLD_BINARY: &str = "DPR_OLD_BINARY";

/// While clients make requests on connections that last for some of them.
pub(crate) fn rolling(variant: Variant) {
    let ownership = Some(OwnershipPlan::majority_of(3));
    let mut stage = start(3, variant.plan(NodePlan { ownership, capacity: 1000, ..NodePlan::default() }));
    let old = std::env::var_os(OLD_BINARY).map(PathBuf::from);
    for index in 0..3 {
        let Some(old) = &old else { break };
        stage.nodes[index].terminate().unwrap();
        stage.nodes[index].install(old);
        stage.nodes[index].start().unwrap();
        agree(&stage, &everybody(&stage), PATIENCE);
    }
    let load = LoadPlan {
        targets: Targets::Fixed(entrances(&stage)),
        concurrency: 24,
        requests_per_connection: 4,
        think: Duration::from_millis(20),
        rest: Duration::from_millis(5),
        duration: Duration::from_secs(60),
        timeout: PATIENCE,
    };
    let load = HttpLoad::start(&stage.clients[0], load).unwrap();
    for index in 0..3 {
        std::thread::sleep(Duration::from_secs(1));
        stage.nodes[index].terminate().unwrap();
        stage.nodes[index].install(binary::path());
        stage.nodes[index].start().unwrap();
        agree(&stage, &everybody(&stage), PATIENCE);
    }
    std::thread::sleep(Duration::from_secs(1));
    let records = load.finish();

    let tally = Tally::of(&records, &[]);
    println!("every node is upgraded [{variant}]: {tally}");
    let failed = records.iter().find(|record| record.outcome.is_err());
    assert_eq!(tally.failures, 0, "{tally}; the first: {failed:?}");
    assert!(tally.requests > 500, "{tally}");
}
