//! The nouns of `dpr`: what every other crate talks about.
//!
//! This crate has no behaviour beyond keeping its own invariants: no I/O, no clock, no randomness.
//! Without the `alloc` feature it is plain `core`, so that `rewrite` can run where there is no
//! operating system.

#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;

mod candidate;
mod exclusion;
mod flow;
mod load;
mod mac;
mod method;
mod node;
mod ownership;
#[cfg(feature = "alloc")]
mod peer;
mod port_group;
#[cfg(feature = "alloc")]
mod report;
mod sharing;
#[cfg(feature = "alloc")]
pub mod status;
mod time;
mod translation;
mod verdict;

pub use candidate::Candidate;
pub use exclusion::Exclusion;
pub use flow::{ClientSocket, FlowKey, Protocol, ServiceSocket};
pub use load::{LoadPermille, Metric};
pub use mac::{InvalidMacAddress, MacAddress};
pub use method::{DeliveryMode, Encapsulation, ForwardingMethod};
pub use node::{Capacity, Incarnation, NodeId, NodeState, Weight};
pub use ownership::{HopBudget, MapVersion, SLOTS_DEFAULT, Slot};
#[cfg(feature = "alloc")]
pub use peer::{Peer, SourceFilters};
pub use port_group::{PORT_RANGES_MAX, PortGroup};
#[cfg(feature = "alloc")]
pub use report::{LoadReport, MetricSample, ReceivedFrom, ServiceReport};
pub use sharing::{Ingress, PartitionBy, Sharing};
pub use time::Timestamp;
pub use translation::{End, PortRange, Translation};
pub use verdict::{Delivery, DropReason, Forward, Nat, Reply, Verdict};
