//! A node that a director may choose: the only place where gossip and packets meet.

use crate::{Capacity, LoadPermille, NodeId, Weight};
use core::net::IpAddr;

/// A live node that may own a new connection, as one director sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Its node address: where tunnels to it end.
    pub address: IpAddr,
    /// Load index of its freshest report.
    pub load: LoadPermille,
    /// Concurrent connections that fill it.
    pub capacity: Capacity,
    /// Weight, already lowered while the node starts slowly.
    pub weight: Weight,
    /// Connections that this director gave it and that its report does not know yet.
    pub outstanding: u32,
}

impl Candidate {
    /// Load index plus what is on its way, in permille of the node's capacity; not capped.
    pub fn estimated_load(&self) -> u64 {
        u64::from(self.load.0) + u64::from(self.outstanding) * 1000 / u64::from(self.capacity.get())
    }

    /// What policies compare: estimated load per weight, lower is lighter. A weight of zero is never light.
    ///
    /// One is added to the load so that weights matter between idle nodes as well.
    pub fn score(&self) -> u64 {
        if self.weight.0 == 0 {
            return u64::MAX;
        }
        let milliload = (u64::from(self.load.0) + 1) * 1000
            + u64::from(self.outstanding) * 1_000_000 / u64::from(self.capacity.get());
        milliload * u64::from(Weight::ORDINARY.0) / u64::from(self.weight.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    fn candidate(load: u16, weight: u16, outstanding: u32) -> Candidate {
        Candidate {
            node: NodeId(1),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            load: LoadPermille(load),
            capacity: Capacity::new(100),
            weight: Weight(weight),
            outstanding,
        }
    }

    #[test]
    fn what_was_sent_counts_as_load_until_a_report_knows_it() {
        assert_eq!(candidate(300, 100, 5).estimated_load(), 350);
        assert!(candidate(300, 100, 5).score() > candidate(340, 100, 0).score());
    }

    #[test]
    fn twice_the_weight_halves_the_score() {
        assert_eq!(candidate(999, 200, 0).score() * 2, candidate(999, 100, 0).score());
        assert_eq!(candidate(0, 0, 0).score(), u64::MAX);
    }
}
