//! The benchmark of the user-space plane sends packets by every way and gets them through.

use dpr_tests::binary;
use serde_json::Value;
use std::process::Command;

/// Slow and short: that it works is shown here, not what packets cost.
const ARGUMENTS: [&str; 9] =
    ["bench", "userspace", "--rounds", "5", "--slice", "100", "--rate", "5000", "--json"];
/// A machine that is busy with other tests may be late for some packets.
const LOST_MAX_PERMILLE: f64 = 50.0;

pub(crate) fn userspace() {
    let output = Command::new(binary::path()).args(ARGUMENTS).output().unwrap();

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ways = outcome["ways"].as_array().unwrap();
    let names: Vec<&str> = ways.iter().filter_map(|way| way["way"].as_str()).collect();
    // What else there is depends on the host and the user.
    assert!(["userspace", "kernel-routing"].iter().all(|way| names.contains(way)), "{names:?}");
    for way in ways {
        assert!(way["lost_permille"].as_f64().unwrap() <= LOST_MAX_PERMILLE, "{way}");
        assert!(way["cost_ns"]["median"].as_u64().unwrap() > 0, "{way}");
    }
}
