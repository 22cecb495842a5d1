//! Whole clusters on a seeded virtual clock.
//!
//! Every node is the real thing from parsing to tunnels: [`dpr_director::Director`], [`dpr_load_gossip::Gossip`] and
//! their tables, fed with real frames and datagrams. What surrounds them is a model: the network, the nodes' TCP
//! stacks, clients with retransmission timers. After every event invariants are checked; whoever breaks one ends the
//! run with the seed that repeats it exactly.
//!
//! ```
//! use dpr_model::LoadPermille;
//! use dpr_sim::{A, B, CLIENT, Sim, syn_from};
//! use std::time::Duration;
//!
//! let mut cluster = Sim::seeded(7).nodes(2);
//! cluster.set_load(A, LoadPermille(950));
//! cluster.run_for(Duration::from_secs(2));
//! assert_eq!(cluster.receive(A, syn_from(CLIENT)).egress(), Some(B));
//! ```
//!
//! This crate refuses to use real time, threads, sockets or anything whose order differs between runs, and to model
//! what no invariant needs: windows, congestion, ARP, the speed of anything.

mod agreeing;
pub mod balance;
mod client;
pub mod edits;
mod fault;
mod faults;
mod invariants;
mod judgement;
mod late;
mod log;
mod names;
mod network;
mod node;
mod orders;
mod packets;
mod plane;
mod planned;
mod queue;
mod rights;
mod segment;
mod setup;
mod sharing;
mod sim;
mod socket;
mod stack;
mod staying;
mod trial;
mod turns;
mod witness;
mod workload;

pub use client::{ConnectionId, Outcome, Plan};
pub use fault::Fault;
pub use invariants::{Broken, Violation};
pub use log::{Entry, Log, What};
pub use names::{A, B, C, CLIENT, D, Host, NODES_MAX, SERVICE_PORT, SHARED, address_of, flow};
pub use network::Quality;
pub use packets::Received;
pub use segment::{ClientSegment, ack_from, syn_from};
pub use setup::Setup;
pub use sim::Sim;
pub use staying::STAY;
pub use trial::{Summary, Trial};
pub use workload::Workload;
