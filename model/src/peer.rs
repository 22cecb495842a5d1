//! A peer: what gossip knows of it, as far as a director needs it.

use crate::{Candidate, Incarnation, NodeState, PortRange, ServiceReport};
use alloc::sync::Arc;
use core::time::Duration;

/// What the network was seen to do to packets whose source is none of their sender's own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceFilters {
    /// It drops those of the peer on the way to this node: its direct replies, which come from the service address, reach
    /// no clients.
    pub from_peer: bool,
    /// It drops those of this node on the way to the peer: a client's packet arrives there in a tunnel only.
    pub to_peer: bool,
}

/// A peer, as a director needs it to decide and to recognise its tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Identity, node address, load; `outstanding` is the director's to fill in.
    pub candidate: Candidate,
    /// Joining, active, draining, leaving.
    pub state: NodeState,
    /// Whether its reports still come.
    pub alive: bool,
    /// Its life; counters start anew with each.
    pub incarnation: Incarnation,
    /// Time between its reports, as it announces it.
    pub report_interval: Duration,
    /// How many of this director's connections its reports say it received, in this life of this director.
    pub acknowledged: Option<u64>,
    /// Service sockets that it is home to, and whether their servers answer: the same slice as long as reports say the same.
    pub services: Arc<[ServiceReport]>,
    /// Ports that it uses for full NAT, as its reports say.
    pub nat_ports: Option<PortRange>,
    /// Largest IP packet that the way to it was seen to carry, bytes; `None` when only the link's MTU is known.
    pub mtu: Option<u16>,
    /// What becomes of foreign sources between the two.
    pub source_filters: SourceFilters,
}
