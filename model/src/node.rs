//! What a node is: identity, state, capacity, weight.

use core::fmt;
use core::net::IpAddr;

/// Identity of a node within its cluster.
///
/// Unless configured, it is derived from the node address, so that a configuration file of two
/// lines is enough and two nodes cannot share an id by accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct NodeId(pub u32);

impl NodeId {
    /// The default id: the IPv4 address itself, or the last four bytes of an IPv6 address.
    pub fn from_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self(u32::from(v4)),
            IpAddr::V6(v6) => {
                let [.., a, b, c, d] = v6.octets();
                Self(u32::from_be_bytes([a, b, c, d]))
            }
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{:08x}", self.0)
    }
}

/// Which life of a node a message comes from; grows with every start of the daemon.
///
/// Milliseconds since the Unix epoch at start, or the previous incarnation + 1 if the clock went back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Incarnation(pub u64);

/// How many concurrent connections fill a node (its load index then stands at 1000 permille).
///
/// Range 1 to 2^32 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Capacity(u32);

impl Capacity {
    /// A capacity of `connections`; zero is raised to one, as a node that serves nothing says so by its state.
    pub fn new(connections: u32) -> Self {
        Self(connections.max(1))
    }

    /// Concurrent connections.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// The operator's preference for a node: twice the weight, twice the connections at equal load.
///
/// Range 0 to 65,535; 0 means "no new connections from peers", 100 is ordinary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Weight(pub u16);

impl Weight {
    /// The weight of a node whose operator expressed no preference.
    pub const ORDINARY: Self = Self(100);
}

/// Where a node stands in its life, as it says itself in its load reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum NodeState {
    /// Started, listening, not yet chosen by others.
    Joining,
    /// Serves and may be chosen.
    Active,
    /// Finishes what it has; not chosen for new connections.
    Draining,
    /// Last word before the process ends.
    Leaving,
}

impl NodeState {
    /// The word for it in logs, status and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
        }
    }
}

/// How a director hands a connection's packets to its real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum ForwardingMethod {
    /// IP-in-IP (RFC 2003).
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Full network address translation.
    Nat,
    /// Direct routing: only the MAC address changes.
    Dr,
}
