//! What must hold after every event, whatever was done to the cluster.

use crate::client::{Connection, Outcome};
use crate::log::Entry;
use crate::names::node_at;
use crate::node::Node;
use crate::plane::Passage;
use crate::stack::SOCKETS_MAX;
use dpr_conntrack::TcpState;
use dpr_model::{FlowKey, HopBudget, NodeId, Slot, Timestamp, Verdict};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Bytes by which a table may grow for every node of the cluster: it numbers real servers as it meets them.
const TABLE_GROWTH_PER_NODE_BYTES: usize = 256;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A packet was forwarded more often than its budget allows.
    #[error("node {} forwarded a packet of {flow} that had made {hops} hops and had {budget:?} left", .node.0)]
    HopBudget {
        /// Who forwarded it.
        node: NodeId,
        /// The packet's flow.
        flow: FlowKey,
        /// Hops that it has made, this one included.
        hops: u8,
        /// Hops left, as its tunnel said when it came in.
        budget: Option<u8>,
    },
    /// A packet of an established connection was delivered to another node than its real server.
    #[error("a packet of {flow}, which is established on node {}, was delivered to node {}", .real_server.0, .delivered_to.0)]
    Moved {
        /// The connection's flow.
        flow: FlowKey,
        /// Where it is established.
        real_server: NodeId,
        /// Where the packet came out.
        delivered_to: NodeId,
    },
    /// A new connection of a client went to another node than the one that its director had given it, which lives.
    #[error("node {} gave {flow} to node {}, and its client is node {}'s", .director.0, .given_to.0, .stays_with.0)]
    Strayed {
        /// Who decided.
        director: NodeId,
        /// The connection's flow.
        flow: FlowKey,
        /// Who got the connection.
        given_to: NodeId,
        /// Who should have got it.
        stays_with: NodeId,
    },
    /// Two nodes answered on one connection.
    #[error("{flow} was answered by node {} and then by node {}", .first.0, .second.0)]
    TwoRealServers {
        /// The connection's flow.
        flow: FlowKey,
        /// Who was first.
        first: NodeId,
        /// And who was not.
        second: NodeId,
    },
    /// A node has an entry for a flow that it neither owns nor serves.
    #[error("node {} has an entry for {flow} at node {}, and is neither its owner nor its real server", .node.0, .real_server.0)]
    ForeignEntry {
        /// The node.
        node: NodeId,
        /// The entry's flow.
        flow: FlowKey,
        /// The entry's real server.
        real_server: NodeId,
    },
    /// A node has an entry for an established connection of its own, which its kernel's socket knows well enough.
    #[error("node {} has an entry for {flow}, which is its own and {state}", .node.0)]
    NeedlessEntry {
        /// The node.
        node: NodeId,
        /// The entry's flow.
        flow: FlowKey,
        /// The entry's state.
        state: String,
    },
    /// A connection was lost, and its packets were not.
    #[error("{flow} ended as {outcome:?} without an excuse, {}", match .real_server {
        Some(node) => format!("established on node {}, which lives", node.0),
        None => "before it was established".to_owned(),
    })]
    Lost {
        /// The connection's flow.
        flow: FlowKey,
        /// How it ended.
        outcome: Outcome,
        /// Where it was established.
        real_server: Option<NodeId>,
    },
    /// An edit left a frame that no end would accept.
    #[error("node {} made a broken frame of a packet of {flow}", .node.0)]
    BrokenFrame {
        /// Who edited it.
        node: NodeId,
        /// The packet's flow.
        flow: FlowKey,
    },
    /// Something has grown beyond its bound.
    #[error("node {}: {what}: {count} where {limit} is the most", .node.0)]
    Unbounded {
        /// The node.
        node: NodeId,
        /// What.
        what: &'static str,
        /// How much there is.
        count: usize,
        /// How much there may be.
        limit: usize,
    },
    /// More is about to happen than any cluster has to do: something answers itself.
    #[error("{events} events are about to happen")]
    Storm {
        /// How many.
        events: usize,
    },
    /// Long after all faults had ended, a node did not see all others.
    #[error("node {} sees {seen} of {running} nodes, itself included, although all faults are long over", .node.0)]
    Disagreement {
        /// The node.
        node: NodeId,
        /// Nodes that it takes for alive, and itself.
        seen: usize,
        /// Nodes that are.
        running: usize,
    },
    /// Two nodes may decide about the same flow.
    #[error("nodes {} and {} both decide about {flow}", .first.0, .second.0)]
    TwoOwners {
        /// The flow.
        flow: FlowKey,
        /// One of them.
        first: NodeId,
        /// And the other.
        second: NodeId,
    },
    /// Two nodes may act as owners of one slot.
    #[error("nodes {} and {} both own slot {} of {address}", .first.0, .second.0, .slot.0)]
    TwoRights {
        /// The service address.
        address: IpAddr,
        /// The slot.
        slot: Slot,
        /// One of them.
        first: NodeId,
        /// And the other.
        second: NodeId,
    },
    /// A planned move left a slot without anybody who may act for too long.
    #[error("nobody owned slot {} of {address} for {vacant:?} in a planned move", .slot.0)]
    Vacant {
        /// The service address.
        address: IpAddr,
        /// The slot.
        slot: Slot,
        /// For how long, so far.
        vacant: Duration,
    },
    /// Two nodes acted on copies of one packet, by the same map, or although all copies came in at one time.
    #[error("a packet of {flow} was handled by node {} and by node {}", .first.0, .second.0)]
    HandledTwice {
        /// The packet's flow.
        flow: FlowKey,
        /// Who was first.
        first: NodeId,
        /// And who was not.
        second: NodeId,
    },
    /// Long after all faults had ended, nodes had different maps.
    #[error("node {} has another ownership map than others although all faults are long over", .node.0)]
    MapsDiffer {
        /// One that has another map than the first node.
        node: NodeId,
    },
    /// Long after all faults had ended, nobody owned a slot.
    #[error("nobody owns slot {} of {address} although all faults are long over", .slot.0)]
    Orphaned {
        /// The service address.
        address: IpAddr,
        /// The slot.
        slot: Slot,
    },
    /// Long after all faults had ended, a client got no answer.
    #[error("node {} did not serve {flow} although all faults are long over", .node.0)]
    NotServed {
        /// The node that the client asked.
        node: NodeId,
        /// The connection's flow.
        flow: FlowKey,
    },
}

impl Broken {
    /// The flow that it is about, if it is about one.
    pub fn flow(&self) -> Option<&FlowKey> {
        match self {
            Self::HopBudget { flow, .. }
            | Self::Moved { flow, .. }
            | Self::Strayed { flow, .. }
            | Self::TwoRealServers { flow, .. }
            | Self::ForeignEntry { flow, .. }
            | Self::NeedlessEntry { flow, .. }
            | Self::Lost { flow, .. }
            | Self::BrokenFrame { flow, .. }
            | Self::TwoOwners { flow, .. }
            | Self::HandledTwice { flow, .. }
            | Self::NotServed { flow, .. } => Some(flow),
            Self::Unbounded { .. }
            | Self::Storm { .. }
            | Self::TwoRights { .. }
            | Self::Vacant { .. }
            | Self::Orphaned { .. }
            | Self::MapsDiffer { .. }
            | Self::Disagreement { .. } => None,
        }
    }
}

/// A broken promise with all that is needed to see it again.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Seed of the run.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// When, on the simulator's clock.
    pub at: Timestamp,
    /// What.
    pub broken: Broken,
    /// What happened before to the flow, if it is about one, and to the cluster; oldest first.
    pub before: Vec<Entry>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.before {
            writeln!(f, "{entry}")?;
        }
        let at_s = Duration::from_nanos(self.at.as_nanos()).as_secs_f64();
        write!(f, "seed {}, {} nodes, after {at_s:.6} s: {}", self.seed, self.nodes, self.broken)
    }
}

impl std::error::Error for Violation {}

/// A packet makes no more hops than it may, and none with a spent budget.
pub(crate) fn check_hops(
    node: NodeId,
    flow: &FlowKey,
    passage: &Passage,
    hops_before: u8,
) -> Result<(), Broken> {
    let left = match passage.verdict {
        Verdict::Forward(forward) => forward.hops,
        // The last one.
        Verdict::Direct { .. } | Verdict::Nat(_) => HopBudget::SPENT,
        _ => return Ok(()),
    };
    let hops = hops_before + 1;
    let was_spent = passage.hops_in == Some(HopBudget::SPENT.get());
    if was_spent || hops + left.get() > HopBudget::FRESH.get() {
        return Err(Broken::HopBudget { node, flow: *flow, hops, budget: passage.hops_in });
    }
    Ok(())
}

/// A node has entries for flows that it owns or serves, and for no others.
pub(crate) fn check_entry(node: NodeId, flow: &FlowKey, real_server: NodeId) -> Result<(), Broken> {
    if node_at(flow.service.address) == Some(node) || real_server == node {
        return Ok(());
    }
    Err(Broken::ForeignEntry { node, flow: *flow, real_server })
}

/// A connection that ended did so by its plan, or with an excuse.
pub(crate) fn check_end(connection: &Connection, outcome: Outcome) -> Result<(), Broken> {
    let excused = connection.excused
        || match outcome {
            Outcome::Finished => true,
            Outcome::TimedOut => connection.lost > 0,
            Outcome::Refused | Outcome::Reset => false,
        };
    if excused {
        return Ok(());
    }
    Err(Broken::Lost { flow: connection.flow, outcome, real_server: connection.real_server })
}

/// Nothing of a node is larger than it may be in a cluster of `nodes`.
pub(crate) fn check_bounds(node: &Node, nodes: usize, now: Timestamp) -> Result<(), Broken> {
    let within = |what, count: usize, limit: usize| {
        if count <= limit { Ok(()) } else { Err(Broken::Unbounded { node: node.id, what, count, limit }) }
    };
    within("sockets", node.stack.sockets(), SOCKETS_MAX)?;
    let Some(daemon) = &node.daemon else { return Ok(()) };
    let director = &daemon.director;
    let (status, limits) = (director.conntrack_status(), node.table_limits());
    within("entries", usize::try_from(status.entries).unwrap_or(usize::MAX), limits.0)?;
    within("half-open entries", usize::try_from(status.half_open).unwrap_or(usize::MAX), limits.1)?;
    within("accounts of peers", director.sent().len(), nodes - 1)?;
    within("acknowledgements", director.acknowledgements().len(), nodes - 1)?;
    within("delivery addresses", director.delivery_addresses().len(), nodes + 1)?;
    within("known peers", daemon.gossip.peers(node.local(now)).count(), nodes - 1)?;
    let memory_bytes_max = daemon.memory_bytes_at_start + nodes * TABLE_GROWTH_PER_NODE_BYTES;
    within("bytes of the table", director.memory_bytes(), memory_bytes_max)
}

/// [`check_entry`] for every entry of a node, and none for a connection that its own kernel has, unless its packets renew the
/// client's stay.
pub(crate) fn check_entries(node: &Node, now: Timestamp) -> Result<(), Broken> {
    let Some(daemon) = &node.daemon else { return Ok(()) };
    let is_client = |flow: &FlowKey| flow.client.port == 0;
    for entry in daemon.director.connections(node.local(now)).filter(|entry| !is_client(&entry.flow)) {
        check_entry(node.id, &entry.flow, entry.real_server)?;
        let is_needed = node.settings.persistence.is_some();
        if !is_needed && entry.real_server == node.id && entry.state != TcpState::HalfOpen.label() {
            return Err(Broken::NeedlessEntry { node: node.id, flow: entry.flow, state: entry.state });
        }
    }
    Ok(())
}
