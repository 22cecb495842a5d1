//! Whole clusters in network namespaces on one machine: topology, real daemons, faults, clients.
//!
//! For `dpr demo` and for scenario tests. A [`Lab`] is an Ethernet switch; a [`Machine`] is a host on it; a [`Node`] is
//! a machine with a `dpr` daemon; a [`Cluster`] is several of them with clients. Everything is removed when its value
//! is dropped, also by a panic; processes die with the process that made them; the host's own network is never touched.
//!
//! Works as root, and as an ordinary user inside an unprivileged user namespace: see [`enter`]. The lab's network is
//! IPv4 only. It refuses to measure speed: all machines share one processor set and one kernel.

mod breakage;
pub mod capture;
mod cluster;
mod control;
mod enter;
mod error;
pub mod forge;
pub mod http_load;
mod lab;
mod machine;
mod node;
mod node_plan;
mod packet_socket;
pub mod paired;
mod pattern;
mod process;
pub mod resolver;
mod runtime;
mod snapshot;
mod switch;
mod wait;

pub use breakage::Breakage;
pub use cluster::{Cluster, ClusterPlan};
pub use enter::enter;
pub use error::LabError;
pub use lab::Lab;
pub use machine::{INTERFACE, Machine, NETWORK, NETWORK_LENGTH};
pub use node::Node;
pub use node_plan::{DnsPlan, NodePlan, Server};
pub use pattern::Mismatch;
pub use process::Process;
pub use snapshot::HostState;
pub use wait::wait_until;
