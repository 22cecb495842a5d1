//! A server and clients that verify every byte they exchange.
//!
//! The server greets first: its node's name, the peer that it sees, its own local address. The client's header says
//! what is to follow. Both directions carry a seeded pattern; the downward one also depends on the node's
//! name, so that bytes of another server never pass for those of the first.
//!
//! Not a benchmark: it is built to notice, not to be fast.

mod client;
mod crowd;
mod server;
mod wire;

pub use client::{Transfer, TransferRecord};
pub use crowd::{ConnectionRecord, ConnectionState, Crowd, CrowdPlan, Exchange, SourcePorts};
pub use server::{PairedServer, ServerRecord, Sighting};
pub use wire::Greeting;
