//! What the targets with scenarios share: the binary under test, the stage, captured packets, the run itself.
//!
//! `scenarios` needs nothing but a kernel and runs with `cargo test --workspace`. `full` is not part of that: it needs
//! programs of Debian packages, and runs with `cargo xtask test-full` or by name.

#![expect(clippy::unwrap_used, reason = "clippy does not see that a library for tests is a test")]

pub mod binary;
pub mod dns;
pub mod echo;
pub mod ingress;
pub mod noise;
pub mod order;
pub mod owners;
pub mod packet;
pub mod percentiles;
pub mod punctuality;
mod run;
pub mod size;
pub mod stage;
pub mod stories;
pub mod variant;

pub use run::{run, trial, trial_alone, trial_alone_in, trial_in};
