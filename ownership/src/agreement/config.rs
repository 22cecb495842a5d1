//! What agreement is configured with; values out of range cannot be built.

use crate::agreement::takeover::GiveBack;
use crate::map::{OwnershipMap, VOTERS_MAX};
use crate::partition::SlotCount;
use dpr_model::{Incarnation, NodeId};
use std::time::Duration;

/// Shortest interval between statements.
pub const INTERVAL_MIN: Duration = Duration::from_millis(20);
/// Longest interval between statements.
pub const INTERVAL_MAX: Duration = Duration::from_secs(2);

/// What it takes to own what others could own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quorum {
    /// More than half of the voters.
    #[default]
    Majority,
    /// More than half of the voters, or half of them while the witness tips the scales
    /// ([`crate::Agreement::hear_witness`]).
    Witness,
    /// More than half of those voters that are heard. After a partition each side has its own owners.
    None,
}

/// Configuration of [`crate::Agreement`].
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) interval: Duration,
    pub(crate) quorum: Quorum,
    pub(crate) give_back: GiveBack,
    pub(crate) genesis: OwnershipMap,
}

impl Config {
    /// The defaults for `node` in its life `incarnation`: a statement every 100 ms, a majority of voters, 4096 slots.
    ///
    /// `voters` found the cluster, 1 to [`VOTERS_MAX`] of them; all nodes must be told the same. Later ones come with
    /// the maps.
    pub fn new(node: NodeId, incarnation: Incarnation, voters: &[NodeId]) -> Result<Self, ConfigError> {
        let genesis = OwnershipMap::genesis(SlotCount::default(), voters);
        let count = genesis.voters().now.len();
        if !(1..=VOTERS_MAX).contains(&count) {
            return Err(ConfigError::Voters(count));
        }
        let interval = Duration::from_millis(100);
        Ok(Self { node, incarnation, interval, quorum: Quorum::Majority, give_back: GiveBack::Auto, genesis })
    }

    /// Time between statements, [`INTERVAL_MIN`] to [`INTERVAL_MAX`]. A dead owner is noticed after 4.5 intervals.
    pub fn with_interval(mut self, interval: Duration) -> Result<Self, ConfigError> {
        if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
            return Err(ConfigError::Interval(interval));
        }
        self.interval = interval;
        Ok(self)
    }

    /// What it takes to own what others could own.
    pub fn with_quorum(mut self, quorum: Quorum) -> Self {
        self.quorum = quorum;
        self
    }

    /// Whether homes that return get their addresses back by themselves; counts on the coordinator.
    pub fn with_give_back(mut self, give_back: GiveBack) -> Self {
        self.give_back = give_back;
        self
    }

    /// How many slots there are when the cluster is founded.
    pub fn with_slots(mut self, slots: SlotCount) -> Self {
        self.genesis = OwnershipMap::genesis(slots, &self.genesis.voters().now.clone());
        self
    }

    /// Shortest promise, and so the shortest silence that may cost a node its slots.
    pub(crate) fn promise_min(&self) -> Duration {
        self.interval * 9 / 2
    }

    /// Longest promise: what a network with heavy loss needs.
    pub(crate) fn promise_max(&self) -> Duration {
        self.interval * 25
    }
}

/// A value that [`Config`] refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Too few or too many voters.
    #[error("{0} voters are not between 1 and {VOTERS_MAX}")]
    Voters(usize),
    /// The interval is out of range.
    #[error("interval {0:?} is not between {INTERVAL_MIN:?} and {INTERVAL_MAX:?}")]
    Interval(Duration),
}
