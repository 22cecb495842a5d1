//! Tunnels between nodes: IP in IP (RFC 2003, RFC 2473, RFC 4213) and GUE, with the hop budget in the outer headers.
//!
//! Either version travels in either version. The budget is in the identification of an outer IPv4 header, in the flow
//! label of an outer IPv6 header, or in GUE's private data. What does not carry one there is somebody else's tunnel.
//!
//! The outer IPv4 header always says "don't fragment", so its identification has no meaning for fragmentation
//! (RFC 6864, section 4.1: atomic datagrams) and is free to say how far the packet may still travel.

use crate::flow_hash::FlowHash;
use crate::frame::{Outer, Packet};
use crate::ipv4::{self, Ipv4Header};
use crate::ipv6::{self, Ipv6Header};
use crate::network::{HOP_LIMIT, Network, Version};
use crate::udp::{self, UdpHeader};
use crate::{checksum, gue, protocol};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
pub use dpr_model::Encapsulation;
use dpr_model::{DropReason, HopBudget};

/// Upper twelve bits of the identification of our IPv4 tunnels; the lower four are the hops left.
pub const HOPS_MAGIC: u16 = 0xd940;
/// Which bits of the identification are the magic.
pub const HOPS_MAGIC_MASK: u16 = 0xfff0;

/// Upper six bits of the flow label of our IPv6 tunnels. The next two are the hops left, the lower twelve spread flows.
///
/// So few bits leave room for a mistake: of the flows in a foreign tunnel that has flow labels, one in 64 looks like ours.
/// Who takes packets away from the kernel by it has to ask for a peer's address as well.
pub const LABEL_MAGIC: u32 = 0xd_8000;
/// Which bits of the flow label are the magic.
pub const LABEL_MAGIC_MASK: u32 = 0xf_c000;
const LABEL_HOPS_SHIFT: u32 = 12;
const LABEL_HOPS_MASK: u32 = 0b11;
const LABEL_FLOW_MASK: u32 = 0xfff;

/// Most that a tunnel adds in front of a packet, bytes.
pub const OVERHEAD_MAX: usize = overhead(Encapsulation::Gue, Version::V6);

/// Bytes that a tunnel adds in front of a packet, with an outer header of version `outer`.
pub const fn overhead(encapsulation: Encapsulation, outer: Version) -> usize {
    match encapsulation {
        Encapsulation::Ipip => outer.header_len(),
        Encapsulation::Gue => outer.header_len() + gue::OVERHEAD,
    }
}

/// A way from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// How packets are wrapped.
    pub encapsulation: Encapsulation,
    /// This node's address.
    pub source: IpAddr,
    /// The other node's address, of the same version.
    pub destination: IpAddr,
}

impl Tunnel {
    /// Bytes that it adds in front of a packet.
    pub fn overhead(self) -> usize {
        overhead(self.encapsulation, Version::of(self.destination))
    }

    /// The hash of a packet's flow ([`FlowHash::of`]) for [`Self::encapsulate`], if there is a place for it: an IPv4 header in
    /// front of an IP header has none.
    #[inline]
    pub fn flow_hash(self, packet: &Packet, seed: u32) -> FlowHash {
        match (self.encapsulation, self.destination) {
            (Encapsulation::Ipip, IpAddr::V4(_)) => FlowHash::NONE,
            _ => FlowHash::of(packet, seed),
        }
    }

    /// Writes outer headers in front of the packet that begins at `at` in `buffer`; returns where they begin.
    ///
    /// The inner hop limit is the forwarder's business ([`crate::edit::decrement_hop_limit`], RFC 2003, section 3.1).
    /// DSCP and ECN are copied outward (RFC 6040, section 4.1, normal mode).
    ///
    /// # Errors
    /// `Truncated` when `buffer` has no room in front of `at` or no packet behind it, `TooBig` when the sum passes what
    /// a length field holds, `VersionMismatch` when the tunnel's ends are of different versions.
    #[inline(always)]
    pub fn encapsulate(
        self,
        buffer: &mut [u8],
        at: usize,
        hops: HopBudget,
        flow: FlowHash,
    ) -> Result<usize, DropReason> {
        let ipv4 = buffer.get(at..).and_then(|packet| Ipv4Header::parse_quoted(packet).ok());
        match (self.encapsulation, self.source, self.destination, ipv4) {
            // Most packets, in most tunnels.
            (Encapsulation::Ipip, IpAddr::V4(source), IpAddr::V4(destination), Some(inner)) => {
                encapsulate_ipv4_in_ipv4(buffer, at, &inner, hops, (source, destination))
            }
            _ => self.encapsulate_otherwise(buffer, at, hops, flow),
        }
    }

    #[inline(never)]
    fn encapsulate_otherwise(
        self,
        buffer: &mut [u8],
        at: usize,
        hops: HopBudget,
        flow: FlowHash,
    ) -> Result<usize, DropReason> {
        let inner = Inner::of(buffer.get(at..).ok_or(DropReason::Truncated)?)?;
        let start = at.checked_sub(self.overhead()).ok_or(DropReason::Truncated)?;
        let wrapped = buffer.get_mut(start..at + inner.total_len).ok_or(DropReason::Truncated)?;
        let outer = OuterFields { encapsulation: self.encapsulation, inner, hops, flow };
        let written = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => outer.write_v4(wrapped, source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => outer.write_v6(wrapped, source, destination),
            _ => Err(DropReason::VersionMismatch),
        };
        written.map(|()| start)
    }
}

#[inline(always)]
fn encapsulate_ipv4_in_ipv4(
    buffer: &mut [u8],
    at: usize,
    inner: &Ipv4Header,
    hops: HopBudget,
    (source, destination): (Ipv4Addr, Ipv4Addr),
) -> Result<usize, DropReason> {
    let (before, packet) = buffer.split_at_mut_checked(at).ok_or(DropReason::Truncated)?;
    let place: &mut [u8; ipv4::HEADER_LEN] = before.last_chunk_mut().ok_or(DropReason::Truncated)?;
    if inner.total_len() > packet.len() {
        return Err(DropReason::Truncated);
    }
    let total_len = inner.total_len() + ipv4::HEADER_LEN;
    *place = outer_ipv4(inner.tos(), total_len, hops, protocol::IPV4, source, destination)?;
    Ok(at - ipv4::HEADER_LEN)
}

/// The outer header of a tunnel over IPv4 in which `total_len` bytes travel, itself included.
#[inline]
fn outer_ipv4(
    tos: u8,
    total_len: usize,
    hops: HopBudget,
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
) -> Result<[u8; ipv4::HEADER_LEN], DropReason> {
    Ok(ipv4::header(&ipv4::Fields {
        tos,
        total_len: u16::try_from(total_len).map_err(|_| DropReason::TooBig)?,
        id: HOPS_MAGIC | u16::from(hops.get()),
        ttl: HOP_LIMIT,
        protocol,
        source,
        destination,
    }))
}

/// What outer headers need to know of the packet behind them.
struct Inner {
    version: Version,
    traffic_class: u8,
    /// Length of the whole packet, bytes.
    total_len: usize,
}

impl Inner {
    fn of(packet: &[u8]) -> Result<Self, DropReason> {
        let ip = Network::parse_quoted(packet)?;
        Ok(Self { version: ip.version(), traffic_class: ip.traffic_class(), total_len: ip.total_len() })
    }
}

struct OuterFields {
    encapsulation: Encapsulation,
    inner: Inner,
    hops: HopBudget,
    flow: FlowHash,
}

impl OuterFields {
    fn protocol(&self) -> u8 {
        match self.encapsulation {
            Encapsulation::Ipip => self.inner.version.protocol_in_a_tunnel(),
            Encapsulation::Gue => protocol::UDP,
        }
    }

    fn write_v4(
        &self,
        wrapped: &mut [u8],
        source: Ipv4Addr,
        destination: Ipv4Addr,
    ) -> Result<(), DropReason> {
        let total_len = wrapped.len();
        let tos = self.inner.traffic_class;
        let (ip, payload) = wrapped.split_first_chunk_mut().ok_or(DropReason::Truncated)?;
        *ip = outer_ipv4(tos, total_len, self.hops, self.protocol(), source, destination)?;
        match self.encapsulation {
            Encapsulation::Ipip => Ok(()),
            Encapsulation::Gue => self.write_gue(payload),
        }
    }

    fn write_v6(
        &self,
        wrapped: &mut [u8],
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Result<(), DropReason> {
        let (ip, payload) = wrapped.split_at_mut_checked(ipv6::HEADER_LEN).ok_or(DropReason::Truncated)?;
        let payload_len = u16::try_from(payload.len()).map_err(|_| DropReason::TooBig)?;
        let flow_label = match self.encapsulation {
            Encapsulation::Ipip => label_of(self.hops, self.flow),
            Encapsulation::Gue => self.flow.get(),
        };
        ip.copy_from_slice(&ipv6::header(&ipv6::Fields {
            traffic_class: self.inner.traffic_class,
            flow_label,
            payload_len,
            protocol: self.protocol(),
            hop_limit: HOP_LIMIT,
            source,
            destination,
        }));
        if self.encapsulation == Encapsulation::Ipip {
            return Ok(());
        }
        self.write_gue(payload)?;
        // Nothing else protects the outer addresses. RFC 6935 lets tunnels do without, but middleboxes and Linux's
        // own GUE receiver drop what has no checksum over IPv6.
        let pseudo = checksum::pseudo_header(source.into(), destination.into(), protocol::UDP, payload_len);
        let sum = !checksum::fold(pseudo + checksum::sum_of(payload));
        let place = payload.get_mut(udp::field::CHECKSUM..udp::HEADER_LEN).ok_or(DropReason::Truncated)?;
        place.copy_from_slice(&udp::checksum_to_send(sum).to_be_bytes());
        Ok(())
    }

    /// UDP and GUE header without a UDP checksum, which IPv4 lets a tunnel leave out (RFC 768).
    fn write_gue(&self, payload: &mut [u8]) -> Result<(), DropReason> {
        let len = u16::try_from(payload.len()).map_err(|_| DropReason::TooBig)?;
        let headers: &mut [u8; gue::OVERHEAD] = payload.first_chunk_mut().ok_or(DropReason::Truncated)?;
        headers[..2].copy_from_slice(&gue::source_port(self.flow.get()).to_be_bytes());
        headers[2..4].copy_from_slice(&gue::PORT.to_be_bytes());
        headers[4..6].copy_from_slice(&len.to_be_bytes());
        headers[6..8].copy_from_slice(&[0, 0]);
        headers[8..].copy_from_slice(&gue::header(self.inner.version, self.hops));
        Ok(())
    }
}

/// The outer headers of a tunnel of ours and the version of what is in it, if `ip` at `at` in `frame` is such a tunnel's.
///
/// The UDP checksum of GUE is not verified: the packet inside has its own, and only peers are believed anyway.
pub(crate) fn recognise(frame: &[u8], at: usize, ip: &Network) -> Option<(Outer, Version)> {
    if ip.is_fragment() {
        return None;
    }
    let (encapsulation, hops, version, len) = if ip.protocol() == protocol::UDP {
        let payload = frame.get(at + ip.header_len()..at + ip.total_len())?;
        let datagram = UdpHeader::parse(payload).ok()?;
        if datagram.destination_port != gue::PORT {
            return None;
        }
        let (version, hops) = gue::parse(payload.get(udp::HEADER_LEN..usize::from(datagram.len))?)?;
        (Encapsulation::Gue, hops, version, ip.header_len() + gue::OVERHEAD)
    } else {
        let version = Version::in_a_tunnel(ip.protocol())?;
        (Encapsulation::Ipip, hops_of(ip)?, version, ip.header_len())
    };
    let outer = Outer {
        encapsulation,
        source: ip.source(),
        destination: ip.destination(),
        traffic_class: ip.traffic_class(),
        hops,
        // Extension headers may be longer than that: no node writes them.
        len: u8::try_from(len).ok()?,
    };
    Some((outer, version))
}

fn hops_of(outer: &Network) -> Option<HopBudget> {
    match outer {
        Network::V4(ip) => hops_of_v4(ip),
        Network::V6(ip) => hops_of_v6(ip),
    }
}

fn hops_of_v4(outer: &Ipv4Header) -> Option<HopBudget> {
    let ours = outer.id() & HOPS_MAGIC_MASK == HOPS_MAGIC && outer.dont_fragment();
    ours.then(|| HopBudget::from_wire((outer.id() & !HOPS_MAGIC_MASK) as u8))
}

fn hops_of_v6(outer: &Ipv6Header) -> Option<HopBudget> {
    let ours = outer.flow_label() & LABEL_MAGIC_MASK == LABEL_MAGIC;
    ours.then(|| HopBudget::from_wire((outer.flow_label() >> LABEL_HOPS_SHIFT & LABEL_HOPS_MASK) as u8))
}

fn label_of(hops: HopBudget, flow: FlowHash) -> u32 {
    let hops = u32::from(hops.get()).min(LABEL_HOPS_MASK);
    LABEL_MAGIC | hops << LABEL_HOPS_SHIFT | flow.get() & LABEL_FLOW_MASK
}
