//! The journey of a packet, step by step: one node's director, frames written by etherparse, verdicts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod carried;
mod closings;
mod copies;
mod deciding;
mod errors;
mod external;
mod fragments;
mod inherited;
mod neighbours;
mod persistence;
mod replies;
mod scene;
mod shared;
mod stage;
mod translation;
mod tunnels;
mod udp;
mod versions;
mod without_tunnels;
