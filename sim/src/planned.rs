//! The planned part of a trial: nothing fails, and operators move addresses, drain, stop and start nodes under load.
//!
//! No slot may be without owner for longer than a moment, and all else holds that always does.

use crate::fault::Fault;
use crate::invariants::Violation;
use crate::names::SHARED;
use crate::sim::Sim;
use crate::workload::Workload;
use dpr_model::{LoadPermille, NodeId};
use dpr_ownership::shares::PERIOD;
use fastrand::Rng;
use std::time::Duration;

/// Orders in one trial at most.
const ORDERS_MAX: usize = 5;
/// And in one of a large cluster, where each takes long.
const ORDERS_OF_LARGE_MAX: usize = 2;
/// Nodes of a cluster that is not large.
const SMALL_NODES_MAX: usize = 12;
/// Time between two orders: a map takes a fraction of it.
const BETWEEN: Duration = Duration::from_secs(2);
/// Intervals for which a node that has begun a life may be bound by promises of the life before.
const REMEMBERING_INTERVALS: u32 = 26;
/// Nodes up to which loads are left uneven for long enough to move slots.
const UNEVEN_NODES_MAX: usize = 8;

/// Lets operators do what they do on a good day.
///
/// # Errors
/// The first promise that was broken.
pub(crate) fn run(sim: &mut Sim, workload: Workload, rng: &mut Rng) -> Result<(), Box<Violation>> {
    sim.set_workload(Some(workload));
    let orders_max = if sim.running().len() <= SMALL_NODES_MAX { ORDERS_MAX } else { ORDERS_OF_LARGE_MAX };
    for _ in 0..rng.usize(1..=orders_max) {
        let nodes = sim.running();
        let node = nodes[rng.usize(..nodes.len())];
        match rng.u8(..6) {
            0 => {
                order(sim, Fault::Drain(node, true), BETWEEN)?;
                order(sim, Fault::Drain(node, false), BETWEEN)?;
            }
            1 if nodes.len() > 2 => stop_and_start(sim, node)?,
            2 if nodes.len() <= UNEVEN_NODES_MAX => {
                let hot = LoadPermille(rng.u16(500..1500));
                order(sim, Fault::ReportLoad(node, Some(hot)), PERIOD + BETWEEN)?;
                order(sim, Fault::ReportLoad(node, None), BETWEEN)?;
            }
            _ => {
                let address = if rng.bool() { SHARED } else { nodes[rng.usize(..nodes.len())] };
                order(sim, Fault::TakeOver(address, (rng.u8(..4) > 0).then_some(node)), BETWEEN)?;
            }
        }
    }
    sim.set_workload(None);
    Ok(())
}

fn order(sim: &mut Sim, what: Fault, patience: Duration) -> Result<(), Box<Violation>> {
    sim.inject(what);
    sim.try_run_as_planned(patience)
}

/// A rolling restart's part: the node gives its slots away, ends, and is a member again.
fn stop_and_start(sim: &mut Sim, node: NodeId) -> Result<(), Box<Violation>> {
    order(sim, Fault::Stop(node), BETWEEN)?;
    let remembering = sim.settings.interval * REMEMBERING_INTERVALS;
    order(sim, Fault::StartDaemon(node), BETWEEN + remembering)
}
