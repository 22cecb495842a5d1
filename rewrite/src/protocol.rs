//! IP protocol numbers (IANA), which are also the "next header" numbers of IPv6.

/// Hop-by-hop options of IPv6.
pub const HOP_BY_HOP: u8 = 0;
/// Internet Control Message Protocol.
pub const ICMP: u8 = 1;
/// An IPv4 packet in a tunnel (RFC 2003, RFC 2473).
pub const IPV4: u8 = 4;
/// Transmission Control Protocol.
pub const TCP: u8 = 6;
/// User Datagram Protocol.
pub const UDP: u8 = 17;
/// An IPv6 packet in a tunnel (RFC 2473, RFC 4213).
pub const IPV6: u8 = 41;
/// Routing header of IPv6.
pub const ROUTING: u8 = 43;
/// Fragment header of IPv6.
pub const FRAGMENT: u8 = 44;
/// Internet Control Message Protocol for IPv6.
pub const ICMPV6: u8 = 58;
/// Destination options of IPv6.
pub const DESTINATION_OPTIONS: u8 = 60;
