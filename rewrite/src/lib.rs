//! Bytes in, bytes out: what happens to a packet once somebody has decided about it.
//!
//! A frame is parsed once ([`parse`]) into offsets and facts. Every edit takes those facts and changes
//! the bytes in place; checksums are edited, not recomputed (RFC 1624). Nothing here decides anything,
//! allocates, or can panic on what a stranger sent: lengths are checked when a frame is parsed and every
//! access after that is a checked one.
//!
//! Callers are the data planes and the simulator.

#![no_std]

pub mod arp;
pub mod checksum;
pub mod ecn;
pub mod edit;
pub mod ethernet;
pub mod frame;
pub mod icmp;
pub mod ipv4;
pub mod segment;
pub mod tcp;
pub mod tunnel;

pub use edit::{ChecksumState, deliver, reply};
pub use frame::{Frame, Kind, Outer, Packet, Parsed, parse, parse_ipv4};
