//! A shared address that nodes announce by BGP: BIRD on nodes and router, the files of `examples/bird`, ECMP in between.

use crate::programs;
use dpr_lab::{Node, NodePlan, OwnershipPlan, Process, wait_until};
use dpr_tests::binary;
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/bird");
/// Seconds after which BIRD misses a silent neighbour, in the example.
const HOLD_TIME: Duration = Duration::from_secs(3);

/// The client is its own router. New connections are spread by ECMP and by slots, a dead node is gone from the routes.
pub(crate) fn by_two_nodes() {
    let ownership = Some(OwnershipPlan::majority_of(3));
    let plan = NodePlan { ownership, shared: Some("routed"), ..NodePlan::paired(PAIRED_PORT) };
    let mut stage = Stage::start(3, 1, plan);
    let service = stage.nodes[0].service();
    let mut running: Vec<Vec<Process>> =
        stage.nodes[..2].iter().map(|node| announcing(&stage, node)).collect();
    let _router = router(&stage);
    wait_until("two ways to the address", PATIENCE, || ways(&stage, 2)).unwrap();
    stage.set_loads(&[100, 100, 100]);

    let records = stage.open_crowd(0, crowd_plan(vec![service], 120)).finish();
    assert_none_broke(&records);
    for node in ["n1", "n2", "n3"] {
        assert!(served_by(&records, node) >= 10, "{node} serves too few");
    }
    for (node, status) in stage.nodes.iter().zip(stage.statuses()) {
        assert_eq!(status.counters.arp_answered, 0, "{} answers for a routed address", node.name());
    }
    let forwarded = |node: &Node| node.status().unwrap().counters.packets_forwarded;
    assert!(forwarded(&stage.nodes[0]) > 0 && forwarded(&stage.nodes[1]) > 0, "both get packets");

    stage.nodes[1].node_kill().unwrap();
    running.remove(1);
    wait_until("one way to the address", HOLD_TIME * 3, || ways(&stage, 1)).unwrap();
    let records = stage.open_crowd(0, crowd_plan(vec![service], 60)).finish();
    assert_none_broke(&records);
    assert_eq!(served_by(&records, "n2"), 0);
}

fn ways(stage: &Stage, wanted: usize) -> Result<(), String> {
    let service = stage.nodes[0].service().ip().to_string();
    let mut command = programs::command("ip");
    command.args(["route", "show", &service]);
    let routes = String::from_utf8(stage.clients[0].run(command).unwrap().stdout).unwrap();
    match routes.matches("via 10.77.0.").count() {
        count if count == wanted => Ok(()),
        _ => Err(routes),
    }
}

/// BIRD and the script beside it, on a node, with the addresses of the lab.
fn announcing(stage: &Stage, node: &Node) -> Vec<Process> {
    let router = stage.clients[0].address().to_string();
    let text = fs::read_to_string(format!("{EXAMPLE}/bird.conf")).unwrap();
    let text = text
        .replace("192.0.2.11", &node.address().to_string())
        .replace("neighbor 192.0.2.1 ", &format!("neighbor {router} "))
        .replace("198.51.100.99", &node.service().ip().to_string());
    let directory = stage.lab.directory().join(node.name());
    let bird = node.machine().spawn(bird(&directory, &text)).unwrap();
    let mut script = Command::new(format!("{EXAMPLE}/announce"));
    script.arg(node.control_socket()).arg(socket(&directory));
    symlink(binary::path(), directory.join("dpr")).unwrap();
    script.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", directory.display()));
    vec![bird, node.machine().spawn(script).unwrap()]
}

fn router(stage: &Stage) -> Process {
    let own = stage.clients[0].address();
    let mut text = format!(
        "router id {own};\nprotocol device {{ }}\n\
         protocol kernel {{ merge paths yes; ipv4 {{ export all; }}; }}\n"
    );
    for node in &stage.nodes[..2] {
        let (name, address) = (node.name(), node.address());
        text += &format!(
            "protocol bgp {name} {{ local {own} as 65000; neighbor {address} as 65001; hold time 3; \
             ipv4 {{ import all; export none; }}; }}\n"
        );
    }
    // One client's connections are to be spread, so ports have to count.
    let by_ports = || fs::write("/proc/sys/net/ipv4/fib_multipath_hash_policy", "1");
    stage.clients[0].exec(by_ports).unwrap().unwrap();
    let directory = stage.lab.directory().join("router");
    fs::create_dir_all(&directory).unwrap();
    stage.clients[0].spawn(bird(&directory, &text)).unwrap()
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("bird.ctl")
}

fn bird(directory: &Path, configuration: &str) -> Command {
    let file = directory.join("bird.conf");
    fs::write(&file, configuration).unwrap();
    let mut command = programs::command("bird");
    command.arg("-f").arg("-c").arg(file).arg("-s").arg(socket(directory));
    command.arg("-P").arg(directory.join("bird.pid"));
    command
}
