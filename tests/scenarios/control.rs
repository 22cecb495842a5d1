//! What operators order at one node and others do: drain, undrain, forget.

use crate::shared::new_connections;
use dpr_lab::paired::{Crowd, CrowdPlan};
use dpr_lab::wait_until;
use dpr_model::NodeState;
use dpr_tests::ingress::Ingress;
use dpr_tests::order::{order, progress, succeed};
use dpr_tests::owners::{agree, assert_accepted_once, calm_crowd, ids, owned, plan, start, start_in};
use dpr_tests::stage::{PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::stories::{slots_of, wait_for_slots};
use dpr_tests::variant::Variant;
use std::process::Stdio;
use std::time::Duration;

/// Of an address.
const SLOTS: u32 = 4096;
/// What a daemon knows, its data plane is told a moment later.
const RENEWAL: Duration = Duration::from_millis(300);

/// Two of four nodes drain at one order, given at a third, while connections are opened all the time: none fails, none
/// breaks, and the command waits until both are unused.
pub(crate) fn two_drain_at_once(variant: Variant) {
    let mut stage = start_in(variant, 4);
    let all = ids(&stage);
    stage.set_loads(&[100; 4]);
    let opening = CrowdPlan { opening: Duration::from_secs(8), ..calm_crowd(&stage, 500) };
    let crowd = Crowd::open(&stage.clients[0], opening).unwrap();
    std::thread::sleep(Duration::from_secs(3));

    let mut order = order(&stage.nodes[0], &["drain", "n3", "n4", "--timeout", "60", "--json"]);
    let draining = order.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A home decides for its address while it lives.
    let kept_slots = if variant.ingress == Some(Ingress::Homes) { SLOTS } else { 0 };
    wait_until("both to drain and slots to leave", PATIENCE, || {
        let states = stage.nodes[2..].iter().map(|node| node.status().map(|status| status.node.state));
        let draining = states.filter(|state| matches!(state, Ok(NodeState::Draining))).count();
        let slots = slots_of(&owned(&stage.nodes[1])?, &all[2..]);
        if (draining, slots) == (2, 2 * kept_slots) { Ok(()) } else { Err(format!("{slots} slots")) }
    })
    .unwrap();
    std::thread::sleep(RENEWAL);
    let late = stage.open_crowd(0, calm_crowd(&stage, 60)).finish();
    std::thread::sleep(Duration::from_secs(5));
    let records = crowd.finish();

    assert_none_broke(&records);
    assert_none_broke(&late);
    for node in ["n3", "n4"] {
        assert!(served_by(&records, node) > 0, "{node} had something to finish");
        assert_eq!(served_by(&late, node), 0, "{node} takes nothing new");
    }
    let lines = progress(&draining.wait_with_output().unwrap());
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        assert_eq!(line["state"], "draining", "{line}");
        assert_eq!((&line["open_connections"], &line["slots"]), (&0.into(), &0.into()), "{line}");
    }

    succeed(&stage.nodes[3], &["undrain", "n3", "n4"]);
    wait_for_slots(&stage, &all[2..]);
    let later = new_connections(&stage, 60);
    assert_none_broke(&later);
    assert!(served_by(&later, "n3") > 0 && served_by(&later, "n4") > 0, "both work again");
    assert_accepted_once(&mut stage, records.iter().chain(&late).chain(&later));
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
    let homes = Variant { ingress: Some(Ingress::Homes), ..Variant::ORDINARY };
    let mut stage = start(3, plan(homes));
    let all = ids(&stage);
    let refused = order(&stage.nodes[1], &["forget", "n3"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("speaks"), "{refused:?}");

    stage.nodes[2].node_kill().unwrap();
    agree(&stage, &[0, 1], PATIENCE);
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
