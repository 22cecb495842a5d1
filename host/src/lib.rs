//! What `dpr` asks of the Linux host.
//!
//! Links, addresses, routes, policy rules and neighbours over rtnetlink; nftables; socket lookup;
//! sysctls; offloads; namespaces; capabilities; echo requests; datagrams from foreign sources. Everything is a
//! system call: no external command is run, so that nothing needs to be installed. Everything is synchronous:
//! a netlink request is answered by the kernel before `send` returns.
//!
//! It works as root and, but for what the kernel itself forbids there (TUN devices, raising
//! `rmem_max`), inside an unprivileged user namespace.
//!
//! This crate knows nothing of services, packets or load, keeps no state of its own, and decides
//! nothing: `node` and `lab` call it.

mod address;
mod capabilities;
mod echo_socket;
mod foreign_source;
mod link;
mod namespace;
mod neighbour;
mod neighbour_monitor;
mod netlink;
mod offload;
mod prefix;
mod route;
mod route_message;
mod rule;
mod sysctl;
mod transport;
mod user_namespace;

pub mod nft;
pub mod sock_diag;

pub use address::{AddressOptions, InterfaceAddress};
pub use capabilities::Capabilities;
pub use dpr_model::MacAddress;
pub use echo_socket::{EchoReply, EchoSocket, EchoToken};
pub use foreign_source::{ForeignListener, ForeignSender, foreign_source};
pub use link::{BridgeOptions, Link, LinkIndex, VethEnd};
pub use namespace::{NamespaceError, NetNamespace};
pub use neighbour::{Neighbour, NeighbourState};
pub use neighbour_monitor::{Event, Monitor};
pub use netlink::Netlink;
pub use offload::{Offload, OffloadError, Offloads};
pub use prefix::{InvalidPrefix, IpPrefix};
pub use route::{ResolvedRoute, Route, RouteKind, RouteQuery, RouteTable, Scope};
pub use rule::PolicyRule;
pub use sysctl::{Ipv4Setting, Ipv6Setting, Sysctl, SysctlError, SysctlGuard};
pub use transport::NetlinkError;
pub use user_namespace::{UserNamespaceError, enter_user_namespace, is_initial_user_namespace};
