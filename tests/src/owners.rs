//! Nodes whose addresses others may own: that they agree, what clients connect to, and that nobody acts twice.

use crate::stage::{PAIRED_PORT, PATIENCE, Stage, crowd_plan};
use crate::variant::Variant;
use dpr_lab::paired::{ConnectionRecord, CrowdPlan};
use dpr_lab::{Node, NodePlan, OwnershipPlan, wait_until};
use dpr_model::NodeId;
use dpr_model::status::OwnershipStatus;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Nodes that found a cluster; others join it.
const VOTERS: u8 = 3;
/// Concurrent connections that fill a node: more than any scenario opens, so that none of them weighs much.
const CAPACITY: u32 = 20_000;

/// Nodes with verifying servers, whose addresses several may own.
pub fn plan(variant: Variant) -> NodePlan {
    let ownership = Some(OwnershipPlan::majority_of(VOTERS));
    variant.plan(NodePlan { ownership, capacity: CAPACITY, ..NodePlan::paired(PAIRED_PORT) })
}

/// So many nodes of a plan, which have agreed on who owns what, and a client.
pub fn start(nodes: u8, plan: NodePlan) -> Stage {
    start_with(nodes, 1, plan)
}

/// The same with more clients.
pub fn start_with(nodes: u8, clients: u8, plan: NodePlan) -> Stage {
    let is_routed = plan.shared == Some("routed");
    let mut stage = Stage::start(nodes, clients, plan);
    agree(&stage, &everybody(&stage), PATIENCE);
    if is_routed {
        stage.announce();
    }
    stage
}

/// The same in a variant, whose data plane carries packets.
pub fn start_in(variant: Variant, nodes: u8) -> Stage {
    start_planned(variant, nodes, plan(variant))
}

/// The same by another plan of the variant.
pub fn start_planned(variant: Variant, nodes: u8, plan: NodePlan) -> Stage {
    let stage = start(nodes, plan);
    for status in stage.statuses() {
        let dataplane = status.dataplane;
        assert_eq!(dataplane.kind, variant.plane.label(), "{:?}", dataplane.reason);
    }
    stage
}

/// Positions of all nodes.
pub fn everybody(stage: &Stage) -> Vec<usize> {
    (0..stage.nodes.len()).collect()
}

/// Identities of nodes.
pub fn ids(stage: &Stage) -> Vec<NodeId> {
    stage.nodes.iter().map(Node::id).collect()
}

/// What clients connect to: the address of all, or each node's own.
pub fn entrances(stage: &Stage) -> Vec<SocketAddr> {
    let mut entrances: Vec<SocketAddr> = stage.nodes.iter().map(Node::service).collect();
    entrances.dedup();
    entrances
}

/// Connections to all entrances, opened within a second, with small exchanges twice a second.
pub fn calm_crowd(stage: &Stage, connections: u16) -> CrowdPlan {
    CrowdPlan {
        opening: Duration::from_secs(1),
        pause: Duration::from_millis(500),
        ..crowd_plan(entrances(stage), connections)
    }
}

/// What a node knows of ownership.
///
/// # Errors
/// Its daemon does not answer, or agrees on nothing; as text, for [`wait_until`].
pub fn owned(node: &Node) -> Result<OwnershipStatus, String> {
    let status = node.status().map_err(|error| error.to_string())?;
    status.ownership.ok_or_else(|| format!("{} agrees on nothing", node.name()))
}

/// Waits until the nodes at these positions have one settled map with themselves as members, and may act by it.
pub fn agree(stage: &Stage, at: &[usize], limit: Duration) -> OwnershipStatus {
    let members: Vec<NodeId> = at.iter().map(|index| stage.nodes[*index].id()).collect();
    wait_until("nodes to agree on owners", limit, || {
        let maps = at.iter().map(|index| owned(&stage.nodes[*index])).collect::<Result<Vec<_>, _>>()?;
        let is_there = |map: &OwnershipStatus| {
            let named = map.members.iter().map(|member| member.node);
            map.map == maps[0].map
                && map.settled
                && map.promised_ms.is_some()
                && named.eq(members.iter().copied())
        };
        match maps.iter().all(is_there) {
            true => maps.into_iter().next().ok_or_else(|| "nobody was asked".to_owned()),
            false => Err(format!("{maps:?}")),
        }
    })
    .unwrap()
}

/// Fails unless each of these connections, all that there were, was accepted by one server once: two owners would each have
/// chosen one.
pub fn assert_accepted_once<'a>(
    stage: &mut Stage,
    connections: impl IntoIterator<Item = &'a ConnectionRecord>,
) {
    // Connections to different addresses may come from one port.
    let mut missing: BTreeMap<SocketAddr, i64> = BTreeMap::new();
    for client in connections.into_iter().filter_map(|record| record.local) {
        *missing.entry(client).or_default() += 1;
    }
    for node in &mut stage.nodes {
        // A machine that died took its server along.
        let seen = node.paired().map(|server| server.record().sightings.clone()).unwrap_or_default();
        for sighting in seen {
            *missing.entry(sighting.peer).or_default() -= 1;
        }
    }
    let twice: Vec<_> = missing.iter().filter(|(_, missing)| **missing < 0).collect();
    assert!(twice.is_empty(), "{} were accepted more than once: {twice:?}", twice.len());
}
