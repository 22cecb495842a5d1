//! What a node is: identity, state, capacity, weight.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// Identity of a node within its cluster.
///
/// Unless configured, it is derived from the node address, so that a configuration file of two
/// lines is enough and two nodes cannot share an id by accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct NodeId(pub u32);

impl NodeId {
    /// From here on ids stand for servers without `dpr`. No IPv4 node address is as high (RFC 1112, section 4: class E).
    const EXTERNAL_MIN: u32 = 0xf000_0000;

    /// The default id: the IPv4 address itself, or the last four bytes of an IPv6 address, of which the highest bit is
    /// left out where they would stand for a server without `dpr`.
    pub fn from_address(address: IpAddr) -> Self {
        let id = match address {
            IpAddr::V4(v4) => u32::from(v4),
            IpAddr::V6(v6) => {
                let [.., a, b, c, d] = v6.octets();
                u32::from_be_bytes([a, b, c, d])
            }
        };
        Self(if id < Self::EXTERNAL_MIN { id } else { id & (u32::MAX >> 1) })
    }

    /// The id under which tables keep a server without `dpr`: 28 bits of a hash of its socket (FNV-1a; Fowler, Noll and
    /// Vo 1991), so that all nodes agree on it. Of a hundred such servers two share one id once in 50,000 clusters.
    pub fn of_external(socket: SocketAddr) -> Self {
        let hash = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        let of_address = match socket.ip() {
            IpAddr::V4(v4) => v4.octets().iter().fold(0x811c_9dc5, hash),
            IpAddr::V6(v6) => v6.octets().iter().fold(0x811c_9dc5, hash),
        };
        Self(Self::EXTERNAL_MIN | socket.port().to_be_bytes().iter().fold(of_address, hash))
    }

    /// True for a server without `dpr`. No node may have such an id.
    pub const fn is_external(self) -> bool {
        self.0 >= Self::EXTERNAL_MIN
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_node_has_the_id_of_a_server_without_dpr() {
        for address in ["10.0.0.1", "255.255.255.255", "2001:db8::1", "2001:db8::f123:4567", "::ffff:ffff"] {
            assert!(!NodeId::from_address(address.parse().unwrap()).is_external(), "{address}");
        }
        let sockets = ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "[2001:db8::1]:80"];
        let ids = sockets.map(|socket| NodeId::of_external(socket.parse().unwrap()));
        assert!(ids.iter().all(|id| id.is_external()));
        for (position, id) in ids.iter().enumerate() {
            assert_eq!(ids.iter().position(|other| other == id), Some(position));
        }
    }
}
