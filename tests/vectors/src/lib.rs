//! Vectors: frames in, tables, verdict, frames out, as text that people can read.
//!
//! A table (`table`) names clusters and vectors; a frame is one line (`frame` writes its bytes, `describe` reads them
//! back, with every checksum). Who shows the frames to a data plane is an [`Executor`]; [`run`] has the one for
//! [`dpr_director::Director`], and another data plane needs nothing but another executor to be held to the same tables.
//!
//! [`mod@reference`] holds the director to a naive model of it.
//!
//! This crate refuses to say what is right: the tables do. `DPR_BLESS=1` writes what the director says into them, to be
//! read by whoever commits it.

#![expect(clippy::unwrap_used, reason = "clippy does not see that a library for tests is a test")]

mod cluster;
mod describe;
mod frame;
pub mod reference;
mod run;
mod table;

pub use cluster::{Cluster, Scene};
pub use describe::{describe_frame, describe_packet};
pub use frame::{NODE_MAC, frame_of};
pub use run::{DirectorExecutor, Executor, Outcome, Sockets, run};
pub use table::{Step, Table, Vector};
