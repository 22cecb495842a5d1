//! What a cluster is made of, before there is one.

use crate::names::NODES_MAX;
use crate::sim::Sim;
use dpr_director::PolicyKind;
use dpr_load_gossip::{INTERVAL_MAX, INTERVAL_MIN};
use dpr_model::{Capacity, ForwardingMethod, Ingress, LoadPermille, Weight};
use dpr_ownership::agreement::{GiveBack, Quorum};
use dpr_rewrite::Version;
use std::time::Duration;

/// A cluster to be: [`Sim::seeded`] begins one, [`Setup::nodes`] starts it.
#[derive(Clone, Debug)]
pub struct Setup {
    settings: Settings,
}

/// What all nodes have in common.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    /// Nodes at the start.
    pub(crate) count: u32,
    pub(crate) policy: PolicyKind,
    pub(crate) maxload: LoadPermille,
    pub(crate) interval: Duration,
    pub(crate) capacity: Capacity,
    pub(crate) weight: Weight,
    pub(crate) table_capacity: usize,
    pub(crate) half_open_capacity: usize,
    pub(crate) mtu: u16,
    pub(crate) method: ForwardingMethod,
    /// Version of service addresses and clients.
    pub(crate) services: Version,
    /// Version of node addresses.
    pub(crate) nodes: Version,
    /// How packets for an address that all nodes share come in, if they share one.
    pub(crate) ingress: Option<Ingress>,
    /// Clients stay with their real server; those count as one whose addresses differ in this many last bits only.
    pub(crate) persistence: Option<u8>,
    /// What it takes to own what others could own.
    pub(crate) quorum: Quorum,
    pub(crate) give_back: GiveBack,
}

impl Setup {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            settings: Settings {
                seed,
                count: 0,
                policy: PolicyKind::default(),
                maxload: LoadPermille(700),
                interval: Duration::from_millis(100),
                capacity: Capacity::new(100),
                weight: Weight::ORDINARY,
                table_capacity: 1024,
                half_open_capacity: 256,
                mtu: 1500,
                method: ForwardingMethod::Ipip,
                services: Version::V4,
                nodes: Version::V4,
                ingress: None,
                persistence: None,
                quorum: Quorum::Majority,
                give_back: GiveBack::Auto,
            },
        }
    }

    /// How directors choose; local estimates by default.
    #[must_use]
    pub fn policy(mut self, policy: PolicyKind) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Load below which a node keeps its own connections; 700 permille by default.
    #[must_use]
    pub fn maxload(mut self, maxload: LoadPermille) -> Self {
        self.settings.maxload = maxload;
        self
    }

    /// Time between load reports, 10 ms to 10 s (values beyond count as the nearest bound); 100 ms by default.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.settings.interval = interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
        self
    }

    /// Connections that fill a node; 100 by default.
    #[must_use]
    pub fn capacity(mut self, capacity: Capacity) -> Self {
        self.settings.capacity = capacity;
        self
    }

    /// Entries of each node's connection-forwarding table, and how many of them may be half-open; 1024 and 256 by
    /// default.
    #[must_use]
    pub fn table(mut self, capacity: usize, half_open_capacity: usize) -> Self {
        self.settings.table_capacity = capacity;
        self.settings.half_open_capacity = half_open_capacity;
        self
    }

    /// How directors hand on connections; IP in IP by default.
    #[must_use]
    pub fn method(mut self, method: ForwardingMethod) -> Self {
        self.settings.method = method;
        self
    }

    /// IP versions of services with their clients, and of node addresses; both IPv4 by default.
    #[must_use]
    pub fn versions(mut self, services: Version, nodes: Version) -> Self {
        self.settings.services = services;
        self.settings.nodes = nodes;
        self
    }

    /// All nodes share the address of [`crate::SHARED`] beside their own ones, which others take over when they die.
    #[must_use]
    pub fn shared(mut self, ingress: Ingress) -> Self {
        self.settings.ingress = Some(ingress);
        self
    }

    /// Clients stay with their real server for [`crate::STAY`]; those count as one whose addresses differ in the last `bits`
    /// only, at most 8. Then one node decides about all of a client's connections; by default about each on its own.
    #[must_use]
    pub fn persistence(mut self, bits: u8) -> Self {
        self.settings.persistence = Some(bits.min(8));
        self
    }

    /// What it takes to own what is shared; a majority of voters by default.
    #[must_use]
    pub fn quorum(mut self, quorum: Quorum) -> Self {
        self.settings.quorum = quorum;
        self
    }

    /// Whether homes that return get their addresses back by themselves; they do by default.
    #[must_use]
    pub fn give_back(mut self, give_back: GiveBack) -> Self {
        self.settings.give_back = give_back;
        self
    }

    /// Switches on nodes 1 to `count` (at most [`NODES_MAX`]) and runs until they know each other.
    ///
    /// # Panics
    /// As [`Sim::run_for`].
    #[must_use]
    pub fn nodes(mut self, count: u32) -> Sim {
        self.settings.count = count.clamp(1, NODES_MAX);
        Sim::start(self.settings)
    }
}
