//! The IP header of either version, as far as both say the same.

use crate::ipv4::{self, Ipv4Header};
use crate::ipv6::{self, Ipv6Header};
use crate::{checksum, protocol};
use core::net::IpAddr;
use dpr_model::DropReason;

/// Hop limit of packets that a node makes itself, outer headers included: what RFC 1700 suggests.
pub(crate) const HOP_LIMIT: u8 = 64;

/// Version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl Version {
    /// The version whose address this is.
    #[inline]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Length of a header without options and extension headers, bytes.
    pub const fn header_len(self) -> usize {
        match self {
            Self::V4 => ipv4::HEADER_LEN,
            Self::V6 => ipv6::HEADER_LEN,
        }
    }

    /// The protocol number of such a packet inside of another one.
    pub const fn protocol_in_a_tunnel(self) -> u8 {
        match self {
            Self::V4 => protocol::IPV4,
            Self::V6 => protocol::IPV6,
        }
    }

    /// The version that a protocol number announces inside of a tunnel.
    pub(crate) const fn in_a_tunnel(protocol: u8) -> Option<Self> {
        match protocol {
            protocol::IPV4 => Some(Self::V4),
            protocol::IPV6 => Some(Self::V6),
            _ => None,
        }
    }
}

/// An IP header that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    V4(Ipv4Header),
    /// IPv6 with its extension headers.
    V6(Ipv6Header),
}

impl From<Ipv4Header> for Network {
    #[inline]
    fn from(ip: Ipv4Header) -> Self {
        Self::V4(ip)
    }
}

impl From<Ipv6Header> for Network {
    #[inline]
    fn from(ip: Ipv6Header) -> Self {
        Self::V6(ip)
    }
}

impl Network {
    /// Checks a header behind which the packet may be cut off, and whose checksum need not hold.
    ///
    /// # Errors
    /// `Truncated` or `Malformed`.
    #[inline]
    pub fn parse_quoted(bytes: &[u8]) -> Result<Self, DropReason> {
        match version_of(bytes)? {
            Version::V4 => Ipv4Header::parse_quoted(bytes).map(Self::V4),
            Version::V6 => Ipv6Header::parse_quoted(bytes).map(Self::V6),
        }
    }

    /// Which version it is.
    #[inline]
    pub fn version(&self) -> Version {
        match self {
            Self::V4(_) => Version::V4,
            Self::V6(_) => Version::V6,
        }
    }

    /// Who sent the packet.
    #[inline]
    pub fn source(&self) -> IpAddr {
        match self {
            Self::V4(ip) => IpAddr::V4(ip.source()),
            Self::V6(ip) => IpAddr::V6(ip.source),
        }
    }

    /// To whom.
    #[inline]
    pub fn destination(&self) -> IpAddr {
        match self {
            Self::V4(ip) => IpAddr::V4(ip.destination()),
            Self::V6(ip) => IpAddr::V6(ip.destination),
        }
    }

    /// Length with options or extension headers, up to the transport, bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        match self {
            Self::V4(ip) => ip.header_len(),
            Self::V6(ip) => ip.header_len(),
        }
    }

    /// Length of the whole packet, bytes.
    #[inline]
    pub fn total_len(&self) -> usize {
        match self {
            Self::V4(ip) => ip.total_len(),
            Self::V6(ip) => ip.total_len(),
        }
    }

    /// Differentiated services code point and ECN: type of service, or traffic class.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        match self {
            Self::V4(ip) => ip.tos(),
            Self::V6(ip) => ip.traffic_class(),
        }
    }

    /// How many more routers the packet may pass: time to live, or hop limit.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        match self {
            Self::V4(ip) => ip.ttl(),
            Self::V6(ip) => ip.hop_limit,
        }
    }

    /// Protocol of what begins behind [`Self::header_len`].
    #[inline]
    pub fn protocol(&self) -> u8 {
        match self {
            Self::V4(ip) => ip.protocol(),
            Self::V6(ip) => ip.protocol,
        }
    }

    /// True for any fragment, the first one included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        match self {
            Self::V4(ip) => ip.is_fragment(),
            Self::V6(ip) => ip.fragment().is_some(),
        }
    }

    /// Where a fragment belongs in its packet, bytes; 0 for a packet that is whole.
    #[inline]
    pub fn fragment_offset(&self) -> usize {
        match self {
            Self::V4(ip) => ip.fragment_offset(),
            Self::V6(ip) => ip.fragment().map_or(0, |fragment| usize::from(fragment.offset)),
        }
    }

    /// True when routers must not fragment the packet, which for IPv6 they never may.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        match self {
            Self::V4(ip) => ip.dont_fragment(),
            Self::V6(_) => true,
        }
    }

    /// Sum of the pseudo header of `length` bytes of transport ([`checksum::pseudo_header`]).
    pub fn pseudo_header(&self, length: u16) -> u32 {
        checksum::pseudo_header(self.source(), self.destination(), self.protocol(), length)
    }
}

#[inline]
pub(crate) fn version_of(bytes: &[u8]) -> Result<Version, DropReason> {
    match bytes.first().ok_or(DropReason::Truncated)? >> 4 {
        4 => Ok(Version::V4),
        6 => Ok(Version::V6),
        _ => Err(DropReason::Malformed),
    }
}
