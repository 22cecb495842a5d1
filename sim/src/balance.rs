//! Balancing as a matter of statistics: connections instead of packets, minutes instead of seconds.
//!
//! Directors are the real ones: their policies, the rule by which they keep what is theirs, their accounts of what
//! they have sent and what reports acknowledge. Servers, clients and reports are models ([`Experiment`] says which).
//! It tells policies apart and makes no claim about any real server's speed.

mod arrivals;
mod cluster;
mod dns;
mod figures;
mod server;
mod service_time;

pub use arrivals::ArrivalProcess;
pub use dns::Resolvers;
pub use figures::Figures;
pub use service_time::ServiceTime;

use dpr_director::PolicyKind;
use dpr_model::{Capacity, LoadPermille};
use std::time::Duration;

/// How a connection finds its real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The node that DNS named: nothing is forwarded.
    RrDns,
    /// By the node that DNS named, with a policy of `dpr`.
    Policy(PolicyKind),
    /// Weighted least connections by somebody who knows at every moment how many connections every node has. Nobody
    /// does: it is what all others are measured against.
    Wlc,
}

impl Method {
    /// Every method, the reference last.
    pub const ALL: [Self; 7] = [
        Self::RrDns,
        Self::Policy(PolicyKind::Stateless),
        Self::Policy(PolicyKind::RoundRobin),
        Self::Policy(PolicyKind::Lightest),
        Self::Policy(PolicyKind::Inverse),
        Self::Policy(PolicyKind::LocalEstimates),
        Self::Wlc,
    ];

    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::RrDns => "rr-dns",
            Self::Policy(policy) => policy.label(),
            Self::Wlc => "wlc",
        }
    }

    /// Whether load reports change what it does, so that their interval matters. Round robin does not look at loads,
    /// but the rule by which a director keeps its own connections does.
    pub fn needs_reports(self) -> bool {
        match self {
            Self::RrDns | Self::Wlc | Self::Policy(PolicyKind::Stateless) => false,
            Self::Policy(_) => true,
        }
    }
}

/// One run: a cluster, its clients, and how connections find their real servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// All random choices follow from it, on one kind of machine: logarithms may differ in their last bit elsewhere.
    pub seed: u64,
    /// One node for each: connections that it works on at full speed. With more, all of them share its speed evenly
    /// (processor sharing). At least one, at most [`crate::NODES_MAX`].
    pub capacities: Vec<Capacity>,
    /// Mean of all work that arrives, as a share of all capacity; above 1 the cluster is overloaded.
    pub offered_load: f64,
    /// How connections arrive.
    pub arrivals: ArrivalProcess,
    /// How long a connection takes at full speed.
    pub service: ServiceTime,
    /// How unevenly clients are spread: node i, or with `resolvers` resolver i, gets a share in proportion to
    /// 1 / i^skew (Zipf). 0 is even.
    pub skew: f64,
    /// Resolvers that ask the cluster's DNS and remember what it says; without them, clients are spread over the nodes
    /// for good.
    pub resolvers: Option<Resolvers>,
    /// Time between two load reports of a node, plus or minus a tenth.
    pub interval: Duration,
    /// Load below which a node keeps its own connections; 0 switches the rule off.
    pub maxload: LoadPermille,
    /// How connections find their real servers.
    pub method: Method,
    /// Time before anything is counted.
    pub warm_up: Duration,
    /// Time in which connections that arrive are counted.
    pub duration: Duration,
}

impl Default for Experiment {
    /// Sixteen equal nodes at 80 %, exponential everything, and DNS that sends a third of all clients to one node.
    fn default() -> Self {
        Self {
            seed: 1,
            capacities: vec![Capacity::new(20); 16],
            offered_load: 0.8,
            arrivals: ArrivalProcess::Poisson,
            service: ServiceTime::Exponential { mean: Duration::from_millis(100) },
            skew: 1.0,
            resolvers: None,
            interval: Duration::from_millis(100),
            maxload: LoadPermille(700),
            method: Method::Policy(PolicyKind::default()),
            warm_up: Duration::from_secs(10),
            duration: Duration::from_secs(60),
        }
    }
}

impl Experiment {
    /// Runs it until every counted connection has ended.
    pub fn run(&self) -> Figures {
        cluster::Cluster::new(self).run()
    }

    /// Connections per second that make up the offered load.
    pub fn arrivals_per_s(&self) -> f64 {
        let capacity: f64 = self.capacities.iter().map(|capacity| f64::from(capacity.get())).sum();
        self.offered_load * capacity / self.service.mean().as_secs_f64()
    }
}

#[cfg(test)]
mod tests;
