//! Service addresses that an operator takes out of DNS, and back.

use crate::NodeId;
use core::net::IpAddr;

/// One operator's decision about one service address; of several, the latest counts everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize))]
pub struct Exclusion {
    /// The service address.
    pub address: IpAddr,
    /// Whether it is out; false once it is back.
    pub excluded: bool,
    /// When that was decided, milliseconds since 1970 by the clock of the node where it was.
    pub decided_ms: u64,
    /// Node where it was decided.
    pub by: NodeId,
}

impl Exclusion {
    /// Whether it counts more than `other`, about the same address.
    pub fn supersedes(&self, other: &Self) -> bool {
        (self.decided_ms, self.by, self.excluded) > (other.decided_ms, other.by, other.excluded)
    }
}
