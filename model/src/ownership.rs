//! Who may decide for which part of a service address's connections, and how far a packet may travel.

use core::fmt;

/// Into how many slots a service address's connection space is divided by default.
pub const SLOTS_DEFAULT: u16 = 4096;

/// One of [`SLOTS_DEFAULT`] (configurable power of two) equal parts of a service address's connection space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// Version of an ownership map; maps are ordered by it, field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize))]
pub struct MapVersion {
    /// Election in which the coordinator came to office.
    pub term: u64,
    /// Count of maps within the term.
    pub epoch: u64,
    /// [`crate::NodeId`] of the coordinator, to break ties.
    pub coordinator: u32,
}

/// How many more times a packet may be forwarded between nodes.
///
/// A packet from outside may make two hops: once to the owner of its slot, once to its real server.
/// The budget travels in the outer header and only ever shrinks, so no configuration makes a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HopBudget(u8);

impl HopBudget {
    /// What a packet has that comes from outside of the cluster.
    pub const FRESH: Self = Self(2);
    /// Deliver here, never forward again.
    pub const SPENT: Self = Self(0);

    /// A budget read from a header; larger claims than a node would ever write are cut down.
    pub fn from_wire(hops: u8) -> Self {
        Self(hops.min(Self::FRESH.0 - 1))
    }

    /// The budget after one more hop, or `None` when there is none left.
    pub fn after_a_hop(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// Hops left.
    pub fn get(self) -> u8 {
        self.0
    }

    /// True when the packet has to end its journey here.
    pub fn is_spent(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for HopBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_only_shrinks() {
        let once = HopBudget::FRESH.after_a_hop().unwrap();
        let twice = once.after_a_hop().unwrap();
        assert!(twice.is_spent());
        assert_eq!(twice.after_a_hop(), None);
    }

    #[test]
    fn a_header_cannot_claim_more_hops_than_a_node_writes() {
        assert_eq!(HopBudget::from_wire(15), HopBudget::FRESH.after_a_hop().unwrap());
    }
}
