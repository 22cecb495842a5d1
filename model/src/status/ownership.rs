//! Who owns what, as one node sees it.

use crate::{LoadPermille, MapVersion, NodeId};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// The ownership map that a node has accepted, and its right to act by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnershipStatus {
    /// What it takes to own what others could own: `majority`, `witness` or `none`.
    pub quorum: String,
    /// Clients do not reach this node, by what it sees of their network: it owns nothing while they reach another one.
    #[serde(default)]
    pub cut_off: bool,
    /// Hosts on the clients' network that ever answered, and how long ago the latest question was asked that they
    /// answered, milliseconds.
    #[serde(default)]
    pub answered_ms: BTreeMap<IpAddr, u64>,
    /// Latest election that this node voted in.
    pub term: u64,
    /// The coordinator that it follows, which may be itself.
    pub coordinator: Option<NodeId>,
    /// Version of the map that it has accepted.
    pub map: MapVersion,
    /// What has moved since the map's base may be acted on.
    pub settled: bool,
    /// For how long promises let this node act, milliseconds; `None` if it may not act at all. Its data plane stops
    /// after 250 ms without a word from the daemon, whatever is promised.
    pub promised_ms: Option<u64>,
    /// Nodes whose consent counts, by id.
    pub voters: Vec<NodeId>,
    /// Members of the map, by id.
    pub members: Vec<MemberStatus>,
    /// Service addresses of the map, in order.
    pub addresses: Vec<AddressStatus>,
    /// What this node has to remember over a restart is not on the disk: it says nothing until it is.
    pub unsaved: bool,
    /// Copies of connections, by the node that they go to or come from.
    #[serde(default)]
    pub copies: Vec<CopiesStatus>,
    /// Connections that this node asked others about, as it had become their owner without a copy, and somebody knew.
    #[serde(default)]
    pub asked_known: u64,
    /// Those that nobody knew.
    #[serde(default)]
    pub asked_unknown: u64,
    /// Messages that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// How things stand between this node and another one about copies of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesStatus {
    /// The other node.
    pub node: NodeId,
    /// How far its copies of this node's connections are behind; `None` if it gets none.
    pub behind: Option<BehindStatus>,
    /// Whether copies of all its connections are here; `None` if it sends none.
    pub whole: Option<bool>,
    /// Its connections for which there was no room here, cumulative.
    pub refused: u64,
}

/// How far copies are behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehindStatus {
    /// Messages that are not acknowledged.
    pub batches: u64,
    /// Age of the oldest of them, milliseconds.
    pub age_ms: u64,
    /// Messages that were given up as too many waited, cumulative: a snapshot makes them good.
    pub given_up: u64,
    /// A snapshot is on its way.
    pub snapshot: bool,
}

/// A member of an ownership map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Who.
    pub node: NodeId,
    /// Its part of all slots, relative to the others'.
    pub share: u16,
    /// How busy it says it is as a director; `None` if no report is known.
    pub load: Option<LoadPermille>,
}

/// A service address and its owners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressStatus {
    /// What clients connect to.
    pub address: IpAddr,
    /// The node that it belongs to; `None` for one that all share.
    pub home: Option<NodeId>,
    /// How many slots each node owns, by id; those without an owner are missing.
    pub slots: BTreeMap<NodeId, u32>,
    /// Others than its home own it although that may be there: by an operator's word, or until one gives it back.
    #[serde(default)]
    pub lent: bool,
    /// The node that is about to own all of it, when it has copies of its connections.
    #[serde(default)]
    pub heir: Option<NodeId>,
}
