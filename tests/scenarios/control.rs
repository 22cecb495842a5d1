//! What operators order at one node and others do: drain, undrain, forget.

use crate::agreement::agree;
use crate::shared::{ids, new_connections, plan, shared_by_arp};
use dpr_lab::paired::Crowd;
use dpr_lab::{Node, wait_until};
use dpr_model::status::OwnershipStatus;
use dpr_model::{NodeId, NodeState};
use dpr_tests::binary;
use dpr_tests::stage::{PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use serde_json::Value;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Two of four nodes drain at one order, given at a third, while connections are opened all the time: none fails, none
/// breaks, and the command waits until both are unused.
pub(crate) fn two_drain_at_once(variant: Variant) {
    let (stage, all) = shared_by_arp(variant, 4);
    stage.set_loads(&[100; 4]);
    let service = stage.nodes[0].service();
    let mut plan = crowd_plan(vec![service], 400);
    plan.opening = Duration::from_secs(8);
    let crowd = Crowd::open(&stage.clients[0], plan).unwrap();
    std::thread::sleep(Duration::from_secs(3));

    let mut order = order(&stage.nodes[0], &["drain", "n3", "n4", "--timeout", "60", "--json"]);
    let draining = order.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("slots to leave both", PATIENCE, || {
        let owned = owned(&stage.nodes[1])?;
        let slots = slots_of(&owned, &all[2..]);
        if slots == 0 { Ok(()) } else { Err(format!("{slots} slots")) }
    })
    .unwrap();
    let late = stage.open_crowd(0, crowd_plan(vec![service], 60)).finish();
    std::thread::sleep(Duration::from_secs(5));
    let records = crowd.finish();

    assert_none_broke(&records);
    assert_none_broke(&late);
    for node in ["n3", "n4"] {
        assert!(served_by(&records, node) > 0, "{node} had something to finish");
        assert_eq!(served_by(&late, node), 0, "{node} takes nothing new");
    }
    let lines = lines_of(&draining.wait_with_output().unwrap());
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        assert_eq!(line["state"], "draining", "{line}");
        assert_eq!((&line["open_connections"], &line["slots"]), (&0.into(), &0.into()), "{line}");
    }

    succeed(&stage.nodes[3], &["undrain", "n3", "n4"]);
    wait_until("slots to return", PATIENCE, || {
        let owned = owned(&stage.nodes[1])?;
        if slots_of(&owned, &all[2..]) > 1000 { Ok(()) } else { Err(format!("{:?}", owned.addresses)) }
    })
    .unwrap();
    let records = new_connections(&stage, service, 60);
    assert_none_broke(&records);
    assert!(served_by(&records, "n3") > 0 && served_by(&records, "n4") > 0, "both work again");
}

/// A lighter node that was told to drain, at another one, gets nothing new and keeps what it has, until it is told otherwise.
pub(crate) fn drained_from_elsewhere() {
    let stage = Stage::paired(2, 1);
    stage.set_loads(&[900, 100]);
    let service = stage.nodes[0].service();
    let crowd = stage.open_crowd(0, crowd_plan(vec![service], 20));

    let refused = order(&stage.nodes[0], &["drain", "n2", "--timeout", "1"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "20 connections are open: {refused:?}");
    let late = stage.open_crowd(0, crowd_plan(vec![service], 10)).finish();
    succeed(&stage.nodes[0], &["undrain", "n2"]);
    stage.set_loads(&[900, 100]);
    let later = stage.open_crowd(0, crowd_plan(vec![service], 10)).finish();
    let records = crowd.finish();

    assert_none_broke(&records);
    assert_eq!((served_by(&records, "n2"), served_by(&late, "n2")), (20, 0));
    assert!(served_by(&later, "n2") > 0, "it has begun slowly, but begun");
    let unknown = order(&stage.nodes[0], &["drain", "n2", "n9"]).output().unwrap();
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("nobody knows a node \"n9\""), "{unknown:?}");
    let state = stage.nodes[1].status().unwrap().node.state;
    assert_eq!(state, NodeState::Active, "a mistyped name stops everything");
}

/// A dead node is forgotten by all at one order, given at any of them; one that lives by nobody.
pub(crate) fn forgotten_by_all() {
    let mut stage = Stage::start(3, 1, plan(Variant::ORDINARY, 3));
    let all = ids(&stage);
    agree(&stage, &[0, 1, 2], &all, PATIENCE);
    let refused = order(&stage.nodes[1], &["forget", "n3"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("speaks"), "{refused:?}");

    stage.nodes[2].node_kill().unwrap();
    agree(&stage, &[0, 1], &all[..2], PATIENCE);
    succeed(&stage.nodes[1], &["forget", "n3"]);

    wait_until("everybody to have forgotten it", PATIENCE, || {
        for node in &stage.nodes[..2] {
            let status = node.status().map_err(|error| error.to_string())?;
            let owned = status.ownership.ok_or("it agrees on nothing")?;
            let is_known = status.peers.iter().any(|peer| peer.node.id == all[2]);
            let is_home = owned.addresses.iter().any(|address| address.home == Some(all[2]));
            if is_known || is_home || owned.voters.contains(&all[2]) {
                return Err(format!("{}: {:?} {:?}", node.name(), owned.voters, owned.addresses));
            }
        }
        Ok(())
    })
    .unwrap();
}

/// `dpr` with these arguments, asking a node.
pub(crate) fn order(node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary::path());
    command.args(arguments).arg("--socket").arg(node.control_socket());
    command
}

pub(crate) fn succeed(node: &Node, arguments: &[&str]) -> Output {
    let output = order(node, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

pub(crate) fn owned(node: &Node) -> Result<OwnershipStatus, String> {
    let status = node.status().map_err(|error| error.to_string())?;
    status.ownership.ok_or_else(|| format!("{} agrees on nothing", node.name()))
}

fn slots_of(owned: &OwnershipStatus, nodes: &[NodeId]) -> u32 {
    let slots = owned.addresses.iter().flat_map(|address| &address.slots);
    slots.filter(|(node, _)| nodes.contains(node)).map(|(_, slots)| slots).sum()
}

fn lines_of(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
