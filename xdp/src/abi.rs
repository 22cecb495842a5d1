//! Keys and values of the maps, as the programs in `bpf/structs.h` see them.
//!
//! A test compares every type here with the object's BTF. Addresses and ports are in network order, as in packets;
//! padding is a field, since the kernel compares keys byte by byte.

mod carried;
mod flows;
mod further;
mod owners;
mod straight;

use aya::Pod;
pub use carried::{Carried, Hop, Translator, carried_flag};
use dpr_model::MacAddress;
pub(crate) use flows::NamedFlow;
pub use flows::{Change, FlowEntry, FlowKey, FlowKeyV6, FragmentKey, FragmentPorts, RESET_HERE};
pub use further::{FURTHER_MAX, FurtherPorts, FurtherRange};
pub use owners::{Partition, SLOTS_MAX, Slot, TERM_BY_SLOT, Tenure, sharing_flag};
use std::net::{IpAddr, Ipv6Addr};
pub use straight::{STRAIGHT_BITS, StraightWay};

/// Nodes that have a number. Number 0 is this node.
pub const NODES_MAX: usize = 4096;
/// The number of this node.
pub const SELF: u16 = 0;
/// Lists of candidates.
pub const LISTS_MAX: usize = 64;
/// Candidates of one list.
pub const CANDIDATES_MAX: usize = 256;
/// Service sockets, service addresses and delivery addresses, each.
pub const SERVICES_MAX: usize = 4096;
/// Neighbours by which translated packets leave.
pub const HOPS_MAX: usize = 4096;
/// Reasons to drop.
pub const DROP_REASONS: usize = 20;
/// States of a connection, each with a timeout.
pub const TCP_STATES: usize = 5;
/// Deadlines count in units of 2^20 ns.
pub const TICK_SHIFT: u32 = 20;
/// Words of 64 bits in a map with a bit for each number of 16 bits.
pub const BIT_WORDS: usize = 1024;
/// [`Delivery::mss_max`] of connections that come without a tunnel.
pub const MSS_UNBOUNDED: u16 = 0xffff;

/// An IPv4 address in network order.
pub type AddressV4 = [u8; 4];
/// An address in network order. IPv4 as it is mapped into IPv6 (RFC 4291, section 2.5.5.2).
pub type Address = [u8; 16];
/// A MAC address as a key: two bytes of padding follow it.
pub type MacKey = [u8; 8];
/// A port in network order.
pub type Port = [u8; 2];

/// A service socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct ServiceKey {
    /// Service address.
    pub address: Address,
    /// Service port.
    pub port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// Padding.
    pub zero: u8,
}

/// What the packet path has to know about a service socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Service {
    /// Delivery address on this node, if it has one.
    pub delivery: Address,
    /// Number of the node that owns the address's slots.
    pub owner: u16,
    /// Which list of candidates new connections choose from; [`LISTS_MAX`] or more for none.
    pub candidates: u16,
    /// A [`Tenure`].
    pub tenure: u8,
    /// A [`Method`].
    pub method: u8,
    /// 1 when the host has the service address itself: packets are delivered as they are.
    pub is_alias: u8,
    /// 1 when there is a delivery address.
    pub has_delivery: u8,
    /// How often this node has become the owner; the count wraps below [`TERM_BY_SLOT`].
    pub term: u8,
    /// 1 while connections that it does not know may have begun before this term.
    pub is_recent: u8,
    /// A [`Partition`].
    pub partition: u8,
    /// [`sharing_flag`]s.
    pub sharing: u8,
    /// 1 when user space decides about its flows, and enters those that the programs may carry on.
    pub is_begun_above: u8,
    /// Padding.
    pub zero: u8,
    /// The port that it is named by: slots of flows to its further ports are those of flows to this one.
    pub port: Port,
}

/// What is known about an address where there are no ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Home {
    /// [`address_flag`]s.
    pub flags: u32,
    /// Of a service address: owner and delivery, and by which tunnel packets are handed to the owner.
    pub service: Service,
}

/// For whom a delivery address stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Delivery {
    /// The service address.
    pub service: Address,
    /// Upper bound for the MSS of SYN-ACKs, bytes, or [`MSS_UNBOUNDED`].
    pub mss_max: u16,
    /// Padding.
    pub zero: u16,
}

/// What an address is; flags of the map `addresses`.
pub mod address_flag {
    /// A service address of the cluster.
    pub const SERVICE: u32 = 1;
    /// The node address.
    pub const NODE: u32 = 2;
    /// Nobody else on this host answers ARP for it.
    pub const ANSWER_ARP: u32 = 4;
    /// Packets for a TCP service of it come by direct routing.
    pub const DIRECT_TCP: u32 = 8;
    /// The same of UDP.
    pub const DIRECT_UDP: u32 = 16;
}

/// Flags of a [`Node`].
pub mod node_flag {
    /// The cluster knows the node and its address.
    pub const KNOWN: u16 = 1;
    /// Its reports come.
    pub const ALIVE: u16 = 2;
    /// Its next hop's MAC address is valid.
    pub const REACHABLE: u16 = 4;
    /// It took leave: entries that name it are void.
    pub const OVER: u16 = 8;
}

/// A node, by its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Node {
    /// What the cluster calls it; not used by the programs.
    pub id: u32,
    /// Where tunnels to it end.
    pub address: Address,
    /// Index of the interface that leads to it.
    pub link: u32,
    /// MAC address of the next hop.
    pub mac: [u8; 6],
    /// MAC address of the interface.
    pub source_mac: [u8; 6],
    /// [`node_flag`]s.
    pub flags: u16,
    /// Largest IP packet that goes to it, bytes.
    pub mtu: u16,
}

/// What the kernel counts about a node, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NodeCounts {
    /// Connections given to it.
    pub sent: u64,
    /// Connections received from it as a director.
    pub received: u64,
    /// Times that it was chosen by turn.
    pub turns: u64,
}

/// A node that may be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Candidate {
    /// [`NodeCounts::sent`] up to which connections are known to its load report, or forgiven.
    pub settled: u64,
    /// [`NodeCounts::turns`] when it became a candidate.
    pub turns_settled: u64,
    /// Concurrent connections that fill it.
    pub capacity: u32,
    /// Load index, permille.
    pub load: u16,
    /// Weight.
    pub weight: u16,
    /// Its number.
    pub node: u16,
    /// Padding.
    pub zero: [u16; 3],
}

/// Nodes that may be chosen for some services, in order of id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Candidates {
    /// How many there are.
    pub count: u32,
    /// Position of this node, or `count`.
    pub own: u32,
    /// The first `count` are valid.
    pub list: [Candidate; CANDIDATES_MAX],
}

/// How a new connection finds its real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    /// `local-estimates`
    LocalEstimates,
    /// `lightest`
    Lightest,
    /// `inverse`
    Inverse,
    /// `round-robin`
    RoundRobin,
    /// `stateless`
    Stateless,
}

/// How a connection's packets go to their real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// `ipip`
    Ipip,
    /// `gue`
    Gue,
    /// `dr`
    Dr,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TcpState {
    /// SYN seen, nothing after it.
    HalfOpen,
    /// The client has answered the handshake.
    Established,
    /// The client has closed its half.
    Fin,
    /// A reset came.
    Reset,
    /// Over.
    Closed,
}

/// The next hop of the default route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Router {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// 1 when there is one, and its MAC address is known.
    pub is_known: u8,
    /// Padding.
    pub zero: u8,
}

/// What holds for every packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Until when this node may decide, boot-time clock.
    pub lease_until_ns: u64,
    /// Until when it may act for addresses that others could own, by the same clock.
    pub owns_until_ns: u64,
    /// Node address.
    pub address: Address,
    /// Range of delivery addresses over IPv4.
    pub delivery_network: AddressV4,
    /// Its mask; all zero while there is none.
    pub delivery_mask: AddressV4,
    /// Range of delivery addresses over IPv6.
    pub delivery_network_v6: Address,
    /// Its mask; all zero while there is none.
    pub delivery_mask_v6: Address,
    /// Patience for each [`TcpState`], ticks.
    pub timeout: [u32; TCP_STATES],
    /// Below this load index the node keeps its own connections; 0 switches the rule off.
    pub maxload: u16,
    /// MAC address of the interface that packets come in on.
    pub mac: [u8; 6],
    /// A [`Policy`].
    pub policy: u8,
    /// 1 while nothing new is moved.
    pub frozen: u8,
    /// Which half of the candidate lists and of the slots is in use, 0 or 1.
    pub bank: u8,
    /// 1 when the node addresses, and so the outer headers of tunnels, are of IPv6.
    pub is_ipv6: u8,
    /// Where answers over IPv4 go whose way back is not the way they came.
    pub router: Router,
    /// The same over IPv6.
    pub router_v6: Router,
    /// Patience after a datagram, ticks.
    pub timeout_udp: u32,
    /// Keeps strangers from aiming at one path.
    pub flow_seed: u32,
    /// Handshakes a second that nobody completed, from which on SYNs get no entries.
    pub flood_from: u32,
    /// By how much to shift a hash of 64 bits so that a slot is left.
    pub slot_shift: u32,
    /// 1 when some peer sends translated packets.
    pub peers_translate: u32,
    /// 1 when there are services of further ports.
    pub has_further_ports: u32,
}

impl Settings {
    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        1_u64.checked_shl(u64::BITS.saturating_sub(self.slot_shift)).map_or(0, |slots| slots as u32)
    }
}

/// Cumulative counts of one processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// New connections that this node kept.
    pub connections_kept: u64,
    /// New connections that it gave to others.
    pub connections_forwarded: u64,
    /// Connections that would have been sent on if their hop budget had allowed it.
    pub loops_stopped: u64,
    /// Packets sent to other nodes.
    pub packets_forwarded: u64,
    /// Packets that came directly and were delivered here.
    pub packets_delivered: u64,
    /// Packets that came through a tunnel and were delivered here.
    pub packets_received: u64,
    /// Replies of local servers.
    pub packets_replied: u64,
    /// Packets that went back through this node as their director.
    pub nat_replies: u64,
    /// ICMP errors about packets that did not fit.
    pub icmp_too_big_sent: u64,
    /// ARP requests answered.
    pub arp_answered: u64,
    /// Connections that found no room among the established ones.
    pub refused_full: u64,
    /// SYNs of a flood, that went by their flow's hash and got no entry.
    pub syns_without_entry: u64,
    /// Drops by [`dpr_model::DropReason::index`].
    pub drops: [u64; DROP_REASONS],
}

/// How many handshakes nobody completes; kept by the programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flood {
    /// Which window is counted.
    pub window: u32,
    /// SYNs in it, less handshakes that were completed in it.
    pub open: i32,
    /// Until when SYNs get no entries, ticks of the monotonic clock; 0 before the first flood.
    pub until: u32,
    /// Padding.
    pub zero: u32,
}

/// A token bucket for ICMP errors, kept by the programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ErrorLimit {
    /// When tokens were last added, monotonic clock.
    pub refilled_ns: u64,
    /// Errors that may be sent.
    pub tokens: u64,
}

/// A MAC address as maps have it.
pub fn mac_key(MacAddress([a, b, c, d, e, f]): MacAddress) -> MacKey {
    [a, b, c, d, e, f, 0, 0]
}

/// An address as maps have it.
pub fn mapped(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The address that maps have so.
pub fn unmapped(octets: Address) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
}

impl Default for Candidates {
    fn default() -> Self {
        Self { count: 0, own: 0, list: [Candidate::default(); CANDIDATES_MAX] }
    }
}

macro_rules! plain_bytes {
    ($($name:ident)*) => {
        $(
            // SAFETY: `repr(C)` of integers and arrays of them, without hidden padding, so that every byte is a
            // value; the test `sizes_leave_no_room_for_padding` adds the fields up.
            unsafe impl Pod for $name {}
        )*
    };
}

plain_bytes! {
    FlowKey FlowKeyV6 FlowEntry ServiceKey Service FurtherPorts StraightWay Slot Home FragmentKey FragmentPorts Carried Delivery
    Node Hop Translator NodeCounts Candidate Candidates Router Settings Counters Flood ErrorLimit
}
