//! The benchmarks get packets and requests through by every way, and leave nothing behind.

use dpr_lab::{HostState, Lab};
use dpr_tests::binary;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Slow and short: that it works is shown here, not what packets cost.
const USERSPACE: [&str; 9] =
    ["bench", "userspace", "--rounds", "5", "--slice", "100", "--rate", "5000", "--json"];
const PROGRAMS: [&str; 7] = ["bench", "xdp", "--rounds", "1", "--packets", "10000", "--json"];
/// What is measured of packets of either version.
const OF_BOTH_VERSIONS: [&str; 12] = [
    "parse and look up, 1 flows",
    "known flow, ipip, 1 flows",
    "parse and look up, 65536 flows",
    "known flow, ipip, 65536 flows",
    "parse and look up, 1048576 flows",
    "known flow, ipip, 1048576 flows",
    "known flow, ipip in IPv6, 1 flows",
    "known flow, ipip in IPv6, 65536 flows",
    "parse and insert, table full",
    "new flow, local-estimates, table full",
    "other traffic, same address",
    "other traffic, other address",
];
/// And of IPv4 only.
const OF_IPV4: [&str; 12] = [
    "known flow, gue, 1 flows",
    "known flow, gue, 65536 flows",
    "known flow, dr, 1 flows",
    "known flow, dr, 65536 flows",
    "known flow, nat, 1 flows",
    "known flow, nat, 65536 flows",
    "known flow, nat, 262144 flows",
    "new flow, lightest, table full",
    "new flow, inverse, table full",
    "new flow, round-robin, table full",
    "new flow, stateless, table full",
    "new flow, in a flood of SYNs",
];
/// Where programs would pin maps, and where namespaces get names.
const GLOBAL: [&str; 2] = ["/sys/fs/bpf", "/run/netns"];
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

/// In a namespace of its own, so that whatever it left would be seen.
pub(crate) fn programs() {
    let lab = Lab::new().unwrap();
    let machine = lab.client(1).unwrap();
    let (before, names_before) = (HostState::of(&machine).unwrap(), names());
    let mut command = Command::new(binary::path());
    command.args(PROGRAMS);
    let outcome = json(&machine.run(command).unwrap());
    let after = HostState::of(&machine).unwrap();
    assert_eq!(before.changes(&after), Vec::<String>::new());
    assert_eq!(names(), names_before);

    assert_eq!((&outcome["rounds"], &outcome["packets"]), (&1.into(), &10_000.into()));
    assert_cases_are_complete(&outcome);
    assert_entries_are_of_a_sensible_length(&outcome);
    assert_ways_are_compared(&outcome["forwarding"]);
}

fn assert_cases_are_complete(outcome: &Value) {
    let cases = outcome["cases"].as_array().unwrap();
    let of = |version: u64, name: &str| {
        let mut its = cases.iter().filter(|case| case["ip_version"] == version && case["case"] == name);
        let only = its.next().unwrap_or_else(|| panic!("{name} of IPv{version} is missing"));
        assert!(its.next().is_none(), "{name} of IPv{version} is there twice");
        only
    };
    for name in OF_IPV4.into_iter().chain(OF_BOTH_VERSIONS) {
        of(4, name);
    }
    for version in [4, 6] {
        for name in OF_BOTH_VERSIONS {
            of(version, name);
        }
        let cost = |name| of(version, name)["median_ns"].as_u64().unwrap();
        let promise = |name| of(version, name)["promise_ns"].as_u64().unwrap();
        assert_eq!(promise(OF_BOTH_VERSIONS[1]), cost(OF_BOTH_VERSIONS[0]) + 40);
        assert_eq!(promise(OF_BOTH_VERSIONS[5]), cost(OF_BOTH_VERSIONS[4]) * 17 / 10);
        assert_eq!(promise(OF_BOTH_VERSIONS[9]), cost(OF_BOTH_VERSIONS[8]) * 5 / 2);
    }
    assert_eq!(cases.len(), OF_IPV4.len() + 2 * OF_BOTH_VERSIONS.len());
    for case in cases {
        assert_eq!((&case["least_ns"], &case["most_ns"]), (&case["median_ns"], &case["median_ns"]), "{case}");
    }
}

/// No shorter than a key and a value; and not far from what is promised, as what others take meanwhile is counted over IPv6.
fn assert_entries_are_of_a_sensible_length(outcome: &Value) {
    let entries = outcome["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    for (entry, (version, least)) in entries.iter().zip([(4, 32), (6, 56)]) {
        assert_eq!(entry["ip_version"], version);
        // Before Linux 6.4 the kernel does not say.
        let Some(bytes) = entry["bytes"].as_u64() else { continue };
        assert!(bytes > least && bytes <= 2 * entry["bytes_max"].as_u64().unwrap(), "{entry}");
    }
}

fn assert_ways_are_compared(forwarding: &Value) {
    let ways = forwarding["ways"].as_array().unwrap();
    let rate = |name: &str| {
        let its = ways.iter().find(|way| way["way"] == name).unwrap_or_else(|| panic!("no {name}"));
        let rate = its["packets_per_s"]["median"].as_u64().unwrap();
        assert!(rate > 0, "{its}");
        rate
    };
    assert!(["nobody", "kernel-routing"].into_iter().map(rate).all(|rate| rate > 0));
    let of_empty = forwarding["of_empty_permille"]["median"].as_u64().unwrap();
    assert!(of_empty.abs_diff(rate("programs") * 1000 / rate("empty")) <= 1, "{forwarding}");
}

/// What has a name for everybody.
fn names() -> BTreeSet<PathBuf> {
    let mut names = BTreeSet::new();
    GLOBAL.iter().for_each(|directory| add_names(Path::new(directory), &mut names));
    names
}

fn add_names(directory: &Path, names: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            add_names(&entry.path(), names);
        }
        names.insert(entry.path());
    }
}

fn run(arguments: &[&str]) -> Value {
    json(&Command::new(binary::path()).args(arguments).output().unwrap())
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
