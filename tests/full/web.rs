//! A cluster whose port 80 is nginx's on every node.

use crate::curl::{Fetched, curl};
use crate::nginx::Nginx;
use dpr_lab::{Cluster, ClusterPlan, Machine, Node, NodePlan, Server};
use dpr_tests::binary;
use dpr_tests::stage::Stage;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};

/// Nodes with nginx, and one client.
pub(crate) struct Web {
    // Dropped in this order: programs before the machines they run on.
    /// That of each node.
    pub(crate) nginxes: Vec<Nginx>,
    pub(crate) stage: Stage,
}

impl Web {
    /// Starts everything on `nodes` nodes; daemons come last.
    pub(crate) fn start(nodes: u8) -> Self {
        Self::start_on_prepared(nodes, |_| ())
    }

    /// The same, on machines that `prepare` may change before anything runs on them.
    pub(crate) fn start_on_prepared(nodes: u8, prepare: impl Fn(&Machine)) -> Self {
        let node = NodePlan { server: Server::Other, ..NodePlan::paired(80) };
        let plan = ClusterPlan { nodes, clients: 1, node };
        let mut cluster = Cluster::build(&plan, binary::path()).unwrap();
        let start = |node: &Node| {
            prepare(node.machine());
            Nginx::start(node.machine(), &cluster.lab.directory().join(format!("nginx-{}", node.name())))
        };
        let nginxes = cluster.nodes.iter().map(start).collect();
        cluster.start_daemons().unwrap();
        Self { nginxes, stage: Stage::of(cluster) }
    }

    /// The address that clients connect to.
    pub(crate) fn address(&self) -> IpAddr {
        self.nodes[0].machine().address()
    }

    /// A URL of the first node.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", SocketAddr::new(self.address(), 80))
    }

    /// Runs curl on the client.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Fetched {
        curl(&self.clients[0], arguments)
    }
}

impl Deref for Web {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl DerefMut for Web {
    fn deref_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }
}
