//! Agreement of whole clusters on a virtual network.

mod network;
mod node;
mod observer;
mod scenarios;
mod takeover;
mod trials;
mod witness;
