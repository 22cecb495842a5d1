//! The benchmarks that have networks of their own get packets and requests through by every way.

use dpr_tests::binary;
use serde_json::Value;
use std::process::Command;

/// Slow and short: that it works is shown here, not what packets cost.
const USERSPACE: [&str; 9] =
    ["bench", "userspace", "--rounds", "5", "--slice", "100", "--rate", "5000", "--json"];
const HTTP: [&str; 7] = ["bench", "http", "--rounds", "3", "--slice", "100", "--json"];
/// A machine that is busy with other tests may be late for some packets.
const LOST_MAX_PERMILLE: f64 = 50.0;

pub(crate) fn userspace() {
    let outcome = run(&USERSPACE);
    let ways = outcome["ways"].as_array().unwrap();
    let names: Vec<&str> = ways.iter().filter_map(|way| way["way"].as_str()).collect();
    // What else there is depends on the host and the user.
    assert!(["userspace", "kernel-routing"].iter().all(|way| names.contains(way)), "{names:?}");
    for way in ways {
        assert!(way["lost_permille"].as_f64().unwrap() <= LOST_MAX_PERMILLE, "{way}");
        assert!(way["cost_ns"]["median"].as_u64().unwrap() > 0, "{way}");
    }
}

pub(crate) fn http() {
    let outcome = run(&HTTP);
    let results = outcome["results"].as_array().unwrap();
    let of = |way: &str| results.iter().filter(|result| result["way"] == way).count();
    // Each under three loads; what else there is depends on the host and the user.
    assert!(["direct", "dpr, user space"].iter().all(|way| of(way) == 3), "{results:?}");
    for result in results {
        // A request that fails ends the benchmark.
        assert!(result["per_second"]["median"].as_u64().unwrap() > 0, "{result}");
        assert!(result["processor_us"]["median"].as_u64().unwrap() > 0, "{result}");
    }
}

fn run(arguments: &[&str]) -> Value {
    let output = Command::new(binary::path()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
