//! What happened, in order: the last of it as entries, all of it as a digest.
//!
//! Two runs are the same if their digests are: they cover every packet and every datagram, byte by byte.

use crate::client::Outcome;
use crate::fault::Fault;
use crate::names::node_at;
use dpr_model::{FlowKey, NodeId, Timestamp, Verdict};
use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Entries that are kept; older ones are in the digest only.
const ENTRIES_MAX: usize = 20_000;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// When, on the simulator's clock.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// A node decided about a packet of a client.
    Packet {
        /// The node.
        node: NodeId,
        /// The packet's flow.
        flow: FlowKey,
        /// The decision.
        verdict: Verdict,
    },
    /// A handshake was completed.
    Connected {
        /// The real server.
        node: NodeId,
        /// The connection's flow.
        flow: FlowKey,
    },
    /// A connection ended for its client.
    Ended {
        /// The connection's flow.
        flow: FlowKey,
        /// How.
        outcome: Outcome,
    },
    /// A node changed its mind about a peer.
    Peer {
        /// The node.
        observer: NodeId,
        /// The peer.
        peer: NodeId,
        /// The change, in one word.
        change: &'static str,
    },
    /// Something was done to the cluster.
    Fault(Fault),
}

impl What {
    /// True for what happened to a flow, for what its director thinks of peers, and for faults.
    pub(crate) fn matters_to(&self, about: &FlowKey) -> bool {
        match self {
            Self::Packet { flow, .. } | Self::Connected { flow, .. } | Self::Ended { flow, .. } => {
                flow == about
            }
            Self::Peer { observer, .. } => node_at(about.service.address) == Some(*observer),
            Self::Fault(_) => true,
        }
    }

    /// True for what happened to no flow.
    pub(crate) fn is_about_nodes(&self) -> bool {
        matches!(self, Self::Peer { .. } | Self::Fault(_))
    }
}

/// The record of one run.
#[derive(Debug)]
pub struct Log {
    entries: VecDeque<Entry>,
    hasher: DefaultHasher,
    recorded: u64,
}

impl Log {
    pub(crate) fn new() -> Self {
        // A hasher without random keys.
        Self { entries: VecDeque::new(), hasher: DefaultHasher::new(), recorded: 0 }
    }

    pub(crate) fn record(&mut self, at: Timestamp, what: What) {
        let entry = Entry { at, what };
        self.digest(&entry);
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// Takes something into the digest that is not worth an entry.
    pub(crate) fn digest(&mut self, thing: &impl Hash) {
        self.recorded += 1;
        thing.hash(&mut self.hasher);
    }

    /// A number that stands for everything that has happened.
    pub fn fingerprint(&self) -> u64 {
        self.hasher.finish()
    }

    /// Things that have happened, those without entries included.
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// The latest entries, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.6} s  ", std::time::Duration::from_nanos(self.at.as_nanos()).as_secs_f64())?;
        match &self.what {
            What::Packet { node, flow, verdict } => write!(f, "node {}: {flow}: {verdict:?}", node.0),
            What::Connected { node, flow } => write!(f, "node {}: {flow}: connected", node.0),
            What::Ended { flow, outcome } => write!(f, "client: {flow}: {outcome:?}"),
            What::Peer { observer, peer, change } => {
                write!(f, "node {}: peer {} {change}", observer.0, peer.0)
            }
            What::Fault(fault) => write!(f, "fault: {fault:?}"),
        }
    }
}
