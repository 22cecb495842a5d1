//! The packet path in the kernel: what comes in is decided and rewritten by a BPF program at the interface (XDP), what
//! local servers answer by another one on the way out (tc).
//!
//! The programs are C in `bpf/`; the object is committed, so that building needs no clang, and `cargo xtask bpf` makes it
//! anew. They do what [`dpr_director::Director`] does. User space fills their maps: [`Mirror`] turns what a director
//! knows into [`Content`], [`Tables`] writes it and reads back what was counted.
//!
//! This crate refuses to decide anything, to know where knowledge comes from, and to ask for the time.

pub mod abi;
mod attach;
mod batch;
mod carried;
mod carrying;
mod content;
mod counts;
mod entering;
mod error;
mod hops;
mod left;
mod links;
mod listing;
mod mirror;
mod numbers;
mod pins;
mod programs;
mod relay;
mod settling;
mod sweep;
mod tables;
mod terms;
mod traffic;
mod walk;
mod yardsticks;

pub use attach::{Attached, Mode, Wanted, has_tcx};
pub use carried::Next;
pub use carrying::{Carrying, Finder};
pub use content::{Content, NextHop};
pub use dpr_conntrack::Timeouts;
pub use error::XdpError;
pub use hops::Neighbour;
pub use left::Left;
pub use listing::Change;
pub use mirror::{Host, Mirror};
pub use pins::{Found, Pins, remove_pins};
pub use programs::{Programs, Run, Sizes, load};
pub use relay::Relay;
pub use sweep::{Standing, Sweep, Tally};
pub use tables::{Connections, Tables};
pub use traffic::{End, Traffic};
pub use walk::Walk;
pub use yardsticks::{Subject, Yardsticks};

/// The object that is loaded, for those who look into it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/dpr.bpf.o");
