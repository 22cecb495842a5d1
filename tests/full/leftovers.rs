//! `dpr check` where a daemon was killed.

use crate::programs;
use dpr_lab::{Cluster, ClusterPlan, HostState, Node, NodePlan};
use dpr_tests::binary;
use dpr_tests::stage::PAIRED_PORT;
use serde_json::Value;
use std::process::Command;

pub(crate) fn named() {
    let plan = ClusterPlan { nodes: 1, clients: 0, node: NodePlan::paired(PAIRED_PORT) };
    let mut cluster = Cluster::build(&plan, binary::path()).unwrap();
    let node = &mut cluster.nodes[0];
    let before = HostState::of(node.machine()).unwrap();
    assert_eq!(leftovers(node), Vec::<Leftover>::new(), "no daemon was here yet");

    node.start().unwrap();
    assert_eq!(leftovers(node), Vec::<Leftover>::new(), "what a running daemon uses is not left over");
    node.kill_daemon();
    let left = leftovers(node);

    // The nftables table is gone with its process, by itself.
    let count = |what: &str| left.iter().filter(|one| one.problem.starts_with(what)).count();
    assert_eq!(count("device dpr0 is left"), 1, "{left:?}");
    assert!(count("policy rule 7777") >= 2, "a rule for each IP version, at least: {left:?}");
    assert_eq!(count("device") + count("policy rule"), left.len(), "{left:?}");
    for leftover in &left {
        obey(node, &leftover.mend);
    }
    assert_eq!(leftovers(node), Vec::<Leftover>::new(), "the commands that it named remove what it named");
    let after = HostState::of(node.machine()).unwrap();
    assert_eq!(before.changes(&after), Vec::<String>::new());
}

#[derive(Debug, PartialEq, Eq)]
struct Leftover {
    problem: String,
    mend: String,
}

/// What `dpr check` says is left; it may say other things, but no error.
fn leftovers(node: &Node) -> Vec<Leftover> {
    let mut command = Command::new(binary::path());
    command.args(["check", "--json", "--config"]).arg(node.configuration());
    let output = node.machine().run(command).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}: {said}", output.status);
    let findings: Vec<Value> = serde_json::from_str(&said).unwrap();
    assert!(!findings.is_empty(), "a check always says something about the interface");
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    findings
        .iter()
        .filter(|finding| finding["subject"] == "leftovers")
        .map(|finding| Leftover { problem: text(finding, "problem"), mend: text(finding, "mend") })
        .collect()
}

/// Runs the command that a finding ends with.
fn obey(node: &Node, mend: &str) {
    let (_, line) = mend.split_once("or: ").unwrap();
    let mut words = line.split(' ');
    let mut command = programs::command(words.next().unwrap());
    command.args(words);
    let output = node.machine().run(command).unwrap();
    assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
}
