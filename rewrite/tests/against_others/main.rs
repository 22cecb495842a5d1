//! Every edit held against implementations that are not ours: etherparse writes packets, etherparse, pnet and smoltcp
//! read what becomes of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod cutting;
mod delivery;
mod nat;
mod neighbours;
mod packets;
mod robustness;
mod tunnels;
