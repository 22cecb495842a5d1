//! Two directors drain at one order, and work again at another.

use crate::order::{progress, succeed};
use crate::owners::{assert_accepted_once, ids, owned, start_in};
use crate::size::Size;
use crate::stage::{PATIENCE, Stage, assert_none_broke};
use crate::variant::Variant;
use dpr_lab::wait_until;
use dpr_model::NodeId;
use dpr_model::status::OwnershipStatus;
use std::time::Duration;

const OPENING: Duration = Duration::from_secs(8);

/// Half of all deciding goes to the others and comes back, while connections are opened all the time.
///
/// Both serve nothing, so that the order, given at a third one, ends while everything is open.
pub fn two_directors_drain(variant: Variant, size: Size) {
    let mut stage = start_in(variant, 4);
    stage.set_loads(&[900, 100, 100, 900]);
    let all = ids(&stage);
    let drained = [all[0], all[3]];
    let old = size.open(&stage);
    let new = size.open_for(&stage, OPENING);

    let lines = progress(&succeed(&stage.nodes[1], &["drain", "n1", "n4", "--timeout", "60", "--json"]));
    let left = slots_of(&owned(&stage.nodes[1]).unwrap(), &drained);
    succeed(&stage.nodes[2], &["undrain", "n1", "n4"]);
    wait_for_slots(&stage, &drained);
    std::thread::sleep(OPENING.saturating_sub(Duration::from_secs(2)) + size.pause);
    let (old, new) = (old.finish(), new.finish());

    assert_eq!((lines.len(), left), (2, 0), "{lines:?}");
    assert_none_broke(&old);
    assert_none_broke(&new);
    assert_accepted_once(&mut stage, old.iter().chain(&new));
}

/// Waits until these nodes own their part again.
pub fn wait_for_slots(stage: &Stage, nodes: &[NodeId]) {
    wait_until("slots to return", PATIENCE, || {
        let owned = owned(&stage.nodes[1])?;
        if slots_of(&owned, nodes) > 1000 { Ok(()) } else { Err(format!("{:?}", owned.addresses)) }
    })
    .unwrap();
}

/// How many slots of all addresses these nodes own.
pub fn slots_of(owned: &OwnershipStatus, nodes: &[NodeId]) -> u32 {
    let slots = owned.addresses.iter().flat_map(|address| &address.slots);
    slots.filter(|(node, _)| nodes.contains(node)).map(|(_, slots)| slots).sum()
}
