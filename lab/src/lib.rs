//! Whole clusters in network namespaces on one machine: topology, real daemons, faults, clients.
//!
//! For `dpr demo` and for scenario tests. A [`Lab`] is an Ethernet switch; a [`Machine`] is a host on it; a [`Node`] is
//! a machine with a `dpr` daemon; a [`Cluster`] is several of them with clients. Everything is removed when its value
//! is dropped, also by a panic; processes die with the process that made them; the host's own network is never touched.
//!
//! Works as root, and as an ordinary user inside an unprivileged user namespace: see [`enter`]. Its network
//! speaks IPv4, IPv6 or both. It refuses to measure speed: all machines share one processor set and one kernel.

mod bpf_file_system;
mod breakage;
pub mod capture;
mod cluster;
mod control;
mod enter;
mod error;
pub mod forge;
mod halt;
pub mod http_load;
mod ip_version;
mod ipv6_settings;
mod lab;
mod machine;
mod node;
mod node_plan;
mod packet_socket;
pub mod paired;
mod pattern;
mod process;
pub mod resolver;
mod routers;
mod runtime;
mod snapshot;
mod source_filter;
mod switch;
mod vlan;
mod wait;
mod ways;

pub use breakage::Breakage;
pub use cluster::{Cluster, ClusterPlan};
pub use enter::enter;
pub use error::LabError;
pub use halt::Halt;
pub use ip_version::{IpVersion, NETWORK, NETWORK_LENGTH, NETWORK_V6, NETWORK_V6_LENGTH};
pub use lab::Lab;
pub use machine::{INTERFACE, Machine};
pub use node::Node;
pub use node_plan::{DnsPlan, NodePlan, OwnershipPlan, Plane, Server};
pub use pattern::Mismatch;
pub use process::Process;
pub use snapshot::HostState;
pub use source_filter::SourceFilter;
pub use vlan::VlanTags;
pub use wait::wait_until;
pub use ways::Ways;
