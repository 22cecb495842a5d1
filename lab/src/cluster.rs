//! Several nodes and clients that are up and know each other.

use crate::error::LabError;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::node::Node;
use crate::node_plan::{NodePlan, Server};
use dpr_model::NodeId;
use std::path::Path;
use std::time::Duration;

/// How long nodes may take until all see each other.
const MEET_LIMIT: Duration = Duration::from_secs(15);

/// A running cluster; dropping it removes everything.
#[derive(Debug)]
pub struct Cluster {
    /// `n1`, `n2`, …
    pub nodes: Vec<Node>,
    /// `c1`, `c2`, …
    pub clients: Vec<Machine>,
    /// The network that they are in.
    pub lab: Lab,
}

/// What a cluster consists of.
#[derive(Clone, Debug)]
pub struct ClusterPlan {
    /// Nodes, 1 to 90.
    pub nodes: u8,
    /// Client machines, 1 to 154.
    pub clients: u8,
    /// What the nodes are like.
    pub node: NodePlan,
}

impl Cluster {
    /// Builds everything, starts the daemons of `binary`, and waits until each node sees all others as active.
    ///
    /// # Errors
    ///
    /// The host refuses, a daemon ends, or the nodes do not meet within 15 seconds.
    pub fn start(plan: &ClusterPlan, binary: &Path) -> Result<Self, LabError> {
        let mut cluster = Self::build(plan, binary)?;
        cluster.start_daemons()?;
        Ok(cluster)
    }

    /// Builds everything, with servers but without daemons.
    ///
    /// # Errors
    ///
    /// The host refuses.
    pub fn build(plan: &ClusterPlan, binary: &Path) -> Result<Self, LabError> {
        let lab = Lab::speaking(&[plan.node.node_version, plan.node.service_version])?;
        let mut nodes = Vec::new();
        for number in 1..=plan.nodes {
            let mut node = Node::new(&lab, number, plan.node.clone(), binary)?;
            if plan.node.server == Server::Paired {
                node.serve_paired()?;
            }
            nodes.push(node);
        }
        let clients: Vec<Machine> =
            (1..=plan.clients).map(|number| lab.client(number)).collect::<Result<_, _>>()?;
        if plan.node.plane.has_programs() {
            clients.iter().try_for_each(Machine::finish_checksums)?;
        }
        Ok(Self { nodes, clients, lab })
    }

    /// Starts every daemon, and waits until each node sees all others as active.
    ///
    /// # Errors
    ///
    /// A daemon ends, or the nodes do not meet within 15 seconds.
    pub fn start_daemons(&mut self) -> Result<(), LabError> {
        for node in &mut self.nodes {
            node.spawn_daemon()?;
        }
        for node in &mut self.nodes {
            node.wait_until_ready()?;
        }
        self.wait_until_they_meet()
    }

    /// Waits until each node with a daemon sees all others with one as active.
    ///
    /// # Errors
    ///
    /// They do not within 15 seconds.
    pub fn wait_until_they_meet(&self) -> Result<(), LabError> {
        let running = || self.nodes.iter().filter(|node| node.daemon_id().is_some());
        for node in running() {
            let others: Vec<NodeId> = running().map(Node::id).filter(|id| *id != node.id()).collect();
            node.wait_until_it_sees(&others, MEET_LIMIT)?;
        }
        Ok(())
    }
}
