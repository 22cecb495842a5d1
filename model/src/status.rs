//! What a node says about itself to people and programs: one value that CLI, metrics and web page render.

mod explanation;
mod ownership;

pub use explanation::Explanation;
pub use ownership::{AddressStatus, BehindStatus, CopiesStatus, MemberStatus, OwnershipStatus};

use crate::report::MetricSample;
use crate::{Exclusion, FlowKey, Incarnation, LoadPermille, MapVersion, NodeId, NodeState, Weight};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use serde::{Deserialize, Serialize};

/// One node's view of itself and its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the running binary.
    pub version: String,
    /// This node.
    pub node: NodeStatus,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// Connections that would suffer if the node ended now: it serves them, or forwards them.
    #[serde(default)]
    pub open_connections: u64,
    /// Which data plane runs, and on what.
    pub dataplane: DataplaneStatus,
    /// Services and their addresses.
    pub services: Vec<ServiceStatus>,
    /// Service addresses that several living nodes claim for their own.
    #[serde(default)]
    pub claims: Vec<AddressClaim>,
    /// Everyone else, by id.
    pub peers: Vec<PeerStatus>,
    /// How this node balances.
    pub balance: BalanceStatus,
    /// The connection-forwarding table.
    pub conntrack: ConntrackStatus,
    /// Clients that stay with their real server; `None` where no service of this node has persistence.
    #[serde(default)]
    pub clients: Option<ClientsStatus>,
    /// Packets and decisions, cumulative.
    pub counters: Counters,
    /// Gossip datagrams, cumulative.
    pub gossip: GossipCounters,
    /// The DNS server, if this node has one.
    #[serde(default)]
    pub dns: Option<DnsStatus>,
    /// What operators decided about which service addresses DNS names, also those that are back.
    #[serde(default)]
    pub exclusions: Vec<Exclusion>,
    /// Who owns what, if nodes agree on that.
    #[serde(default)]
    pub ownership: Option<OwnershipStatus>,
}

/// The DNS server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// The zone that it answers for.
    pub zone: String,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Names of services and what they give at the moment.
    pub names: Vec<DnsName>,
    /// Addresses of those services that are not given at the moment.
    pub left_out: Vec<DnsAbsence>,
    /// Queries by UDP, cumulative since the start.
    pub queries_udp: u64,
    /// Queries by TCP.
    pub queries_tcp: u64,
    /// Queries by what became of them.
    pub outcomes: BTreeMap<String, u64>,
}

/// A service address that DNS does not name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAbsence {
    /// The address, with the port of the service.
    pub address: SocketAddr,
    /// Why: `excluded`, `weight 0`, `silent`, `unhealthy`, or the state of its node.
    pub reason: String,
}

/// A service's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsName {
    /// The name.
    pub name: String,
    /// Port of the service.
    pub port: u16,
    /// Addresses that answers are made of at the moment.
    pub addresses: Vec<IpAddr>,
}

/// What a node reports about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Identity.
    pub id: NodeId,
    /// Name for people.
    pub name: String,
    /// Node address.
    pub address: IpAddr,
    /// Life.
    pub incarnation: Incarnation,
    /// Joining, active, draining, leaving.
    pub state: NodeState,
    /// Load index.
    pub load: LoadPermille,
    /// Concurrent connections that fill it.
    pub capacity: u32,
    /// Preference.
    pub weight: Weight,
    /// What the load index was made of.
    pub metrics: Vec<MetricSample>,
    /// The ownership map that it acts on.
    pub map_version: MapVersion,
}

/// Which data plane runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataplaneStatus {
    /// `userspace` or `xdp`.
    pub kind: String,
    /// Interface that service packets come in on.
    pub interface: String,
    /// Whether the lease to decide is valid.
    pub lease_valid: bool,
    /// The kernel's programs, where they are in use.
    #[serde(default)]
    pub programs: Option<ProgramsStatus>,
    /// Why it is this data plane, where there was something to choose or something went wrong.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Programs in the kernel, and their maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramsStatus {
    /// `native`: in the driver, or `generic`: behind it.
    pub mode: String,
    /// Why they are not in the driver.
    pub why_generic: Option<String>,
    /// Where maps and links are pinned; without it the programs end with the daemon.
    pub pinned: Option<String>,
    /// What an earlier daemon left, and what became of it: `nothing`, `taken over` or `replaced`.
    pub found: String,
    /// Packets that went up to user space and were handled there.
    pub handled_above: u64,
    /// SYNs of a flood, that went by their flow's hash and got no entry.
    pub syns_without_entry: u64,
    /// Fill of the maps.
    pub maps: Vec<MapStatus>,
}

/// A map of the kernel's programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapStatus {
    /// Its name.
    pub name: String,
    /// Entries in use; of tables of connections, at the last walk through them.
    pub entries: u64,
    /// Entries that it can hold.
    pub capacity: u64,
    /// Memory that the kernel has set aside for it, bytes; `None` where it does not say.
    pub memory_bytes: Option<u64>,
}

/// One service socket, who is home to it and how its packets are delivered here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Service address.
    pub address: IpAddr,
    /// Service port.
    pub port: u16,
    /// Node that owns its slots.
    pub owner: NodeId,
    /// Delivery address on this node.
    pub delivery: IpAddr,
    /// Whether the server behind it accepts connections on this node.
    pub healthy: bool,
    /// Further ports of the service, as ranges such as `50000-50099`.
    #[serde(default)]
    pub ports: Vec<String>,
    /// How its clients stay with their real server, where this node decides about that.
    #[serde(default)]
    pub persistence: Option<PersistenceStatus>,
}

/// A service address that several nodes claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressClaim {
    /// The address.
    pub address: IpAddr,
    /// Who claims it, in order of id.
    pub homes: Vec<NodeId>,
}

/// How clients of a service stay with their real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistenceStatus {
    /// So many bits of clients' addresses say who is one client.
    pub prefix_len: u8,
    /// Seconds that a client stays after its last packet.
    pub timeout_s: u32,
}

/// A peer as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// What it last said of itself.
    #[serde(flatten)]
    pub node: NodeStatus,
    /// Alive, as far as this node can tell.
    pub alive: bool,
    /// Age of its freshest report, milliseconds.
    pub report_age_ms: u64,
    /// Largest IP packet that the way to it was seen to carry, bytes; `None` while nobody knows.
    #[serde(default)]
    pub path_mtu: Option<u16>,
    /// Its MAC address, as in `02:00:5e:10:00:01`; `None` for a peer behind a router, and while nobody knows.
    #[serde(default)]
    pub mac: Option<String>,
    /// Whether packets of the peer from other addresses than its own arrive here, as its direct replies to clients have to
    /// arrive there; `None` while nobody knows.
    #[serde(default)]
    pub direct_replies: Option<bool>,
    /// The same of this node's packets to the peer, as the peer says.
    #[serde(default)]
    pub own_direct_replies: Option<bool>,
    /// Its reports come by unicast only: something between the two blocks multicast.
    pub multicast_blocked: bool,
    /// Connections that this node gave it, cumulative.
    pub sent: u64,
    /// Of those, on their way: not in its reports yet.
    pub outstanding: u32,
    /// Connections that it gave this node, cumulative.
    pub received: u64,
}

/// How this node balances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceStatus {
    /// Name of the policy.
    pub policy: String,
    /// Threshold below which it keeps its own connections.
    pub maxload: LoadPermille,
    /// True while most peers look bad and nothing is moved.
    pub frozen: bool,
}

/// The connection-forwarding table's fill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackStatus {
    /// Entries that it can hold.
    pub capacity: u64,
    /// Entries in use.
    pub entries: u64,
    /// Of those, half-open.
    pub half_open: u64,
    /// Half-open entries that had to go for newer ones.
    pub half_open_evicted: u64,
    /// Connections kept here because the table was full.
    pub refused_full: u64,
}

/// Clients of services with persistence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientsStatus {
    /// Clients that there is room for.
    pub capacity: u64,
    /// Clients that have a real server.
    pub clients: u64,
    /// Clients that lost theirs to others for want of room, since the start.
    pub displaced: u64,
}

/// Packets and decisions, cumulative since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// New connections that this node kept as a director.
    pub connections_kept: u64,
    /// New connections that this node gave to others.
    pub connections_forwarded: u64,
    /// New connections that others gave to this node.
    pub connections_received: u64,
    /// Packets sent to real servers and owners, by whatever method.
    pub packets_forwarded: u64,
    /// Packets delivered to the local TCP stack that came directly.
    pub packets_delivered: u64,
    /// Packets delivered to the local TCP stack that others forwarded.
    pub packets_received: u64,
    /// Packets of local servers sent back to clients.
    pub packets_replied: u64,
    /// Packets that would have been forwarded again but for their spent hop budget.
    pub loops_stopped: u64,
    /// Packets of real servers sent back to clients through this node, which had translated their addresses.
    #[serde(default)]
    pub nat_replies: u64,
    /// New connections that stayed on this node because no NAT port was left for them.
    #[serde(default)]
    pub nat_refused: u64,
    /// Times that there was no room to hear of ended connections, to tell a director of them, or to ask a real server.
    #[serde(default)]
    pub closings_overlooked: u64,
    /// ICMP "fragmentation needed" and "packet too big" sent.
    pub icmp_too_big_sent: u64,
    /// ARP requests answered.
    pub arp_answered: u64,
    /// Neighbour solicitations answered.
    #[serde(default)]
    pub neighbours_answered: u64,
    /// Echo requests answered.
    #[serde(default)]
    pub echo_answered: u64,
    /// Drops by reason.
    pub drops: BTreeMap<String, u64>,
}

/// Gossip datagrams, cumulative since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipCounters {
    /// Reports sent.
    pub sent: u64,
    /// Reports accepted.
    pub accepted: u64,
    /// Rejections by reason.
    pub rejected: BTreeMap<String, u64>,
}

/// One entry of the connection-forwarding table, or a client that stays with its real server: that has port 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Which connection.
    #[serde(flatten)]
    pub flow: FlowKey,
    /// TCP state as seen from the client's half.
    pub state: String,
    /// Node that terminates it.
    pub real_server: NodeId,
    /// The client's initial sequence number.
    pub generation: u32,
    /// Seconds until it expires if nothing more is seen.
    pub expires_in_s: u32,
}
