//! Bytes in, bytes out: what happens to a packet once somebody has decided about it.
//!
//! A frame is parsed once ([`parse`]) into offsets and facts. Every edit takes those facts and changes
//! the bytes in place; checksums are edited, not recomputed (RFC 1624). What does not fit into the place of what came
//! is written to a buffer of the caller's. Nothing here decides anything, allocates, or can panic on what a stranger
//! sent: lengths are checked when a frame is parsed and every access after that is a checked one.
//!
//! Both IP versions are treated alike: [`Network`] is the header as far as they agree.
//!
//! Callers are the data planes and the simulator.

#![no_std]

pub mod arp;
mod bytes;
pub mod checksum;
pub mod echo;
pub mod ecn;
pub mod edit;
pub mod ethernet;
pub mod flow_hash;
pub mod fragment;
pub mod frame;
pub mod gue;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod network;
pub mod protocol;
pub mod quote;
pub mod segment;
pub mod tcp;
pub mod too_big;
pub mod translate;
pub mod tunnel;
pub mod udp;

pub use edit::{ChecksumState, decapsulate, deliver, reply};
pub use flow_hash::FlowHash;
pub use frame::{Frame, Kind, Outer, Packet, Parsed, Piece, parse, parse_ip};
pub use network::{Network, Version};
pub use quote::Quote;
pub use translate::{End, Translation, translate};
pub use tunnel::{Encapsulation, Tunnel};
