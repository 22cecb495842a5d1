//! A frame parsed once: where its headers are and what they say.

mod plain;

use crate::arp::ArpRequest;
use crate::bytes::array_at;
use crate::ethernet::{self, EthernetHeader, Tags, ethertype};
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Header;
use crate::ndp::NeighbourSolicitation;
use crate::network::{self, Network, Version};
use crate::quote::{self, Quote};
use crate::tcp::TcpHeader;
use crate::tunnel::{self, Encapsulation};
use crate::udp::UdpHeader;
use crate::{icmp, icmpv6, protocol};
use core::convert::identity;
use core::net::IpAddr;
use dpr_model::{DropReason, HopBudget, Protocol};

/// Frames are copied at times: up to this length the compiler does it in registers, without calling for help.
const _: () = assert!(size_of::<Result<Parsed, DropReason>>() <= 128);

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Somebody asks for the MAC address of an IPv4 address.
    Arp(ArpRequest),
    /// Somebody asks for the MAC address of an IPv6 address.
    Neighbour(NeighbourSolicitation),
    /// An IP packet, perhaps through one of our tunnels.
    Ip(Frame),
    /// Nothing that `dpr` deals with.
    Other,
}

/// An IP frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// VLAN tags.
    pub tags: Tags,
    /// The tunnel that the packet came through, if it did.
    pub outer: Option<Outer>,
    /// The packet that somebody sent to or from a service.
    pub packet: Packet,
}

/// The outer headers of a tunnel of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// What kind of tunnel it is.
    pub encapsulation: Encapsulation,
    /// Node that forwarded the packet.
    pub source: IpAddr,
    /// Node that it was forwarded to.
    pub destination: IpAddr,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Hops left.
    pub hops: HopBudget,
    /// Length of everything in front of the packet, from the outer IP header on, bytes.
    pub len: u8,
}

/// A packet within a frame. Every offset in it was checked against the frame's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where its IP header begins, from the start of the frame.
    pub at: usize,
    /// Its IP header.
    pub ip: Network,
    /// What it carries.
    pub kind: Kind,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP segment.
    Tcp(TcpHeader),
    /// A UDP datagram.
    Udp(UdpHeader),
    /// An ICMP error about a segment or datagram that the receiver of the error had sent.
    IcmpError(Quote),
    /// "Are you there?"
    EchoRequest,
    /// A fragment; the first one as well, since the others have no ports.
    Fragment(Piece),
    /// Something else.
    Other,
}

/// Which packet a fragment is of, beside its addresses and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Identification, the same in all fragments of a packet (RFC 791, section 3.2; RFC 8200, section 4.5).
    pub id: u32,
    /// Source and destination port of the TCP segment or UDP datagram: the first fragment has them.
    pub ports: Option<(u16, u16)>,
}

impl Packet {
    /// Where the payload of the IP packet begins, from the start of the frame.
    #[inline]
    pub fn transport_at(&self) -> usize {
        self.at + self.ip.header_len()
    }

    /// Where the packet ends, from the start of the frame; the frame may go on with padding.
    #[inline]
    pub fn end(&self) -> usize {
        self.at + self.ip.total_len()
    }
}

/// Parses an Ethernet frame.
///
/// # Errors
/// Why the frame has to be dropped. Tunnels that are not ours are not an error: they are packets like others.
pub fn parse(frame: &[u8]) -> Result<Parsed, DropReason> {
    if ethernet::ethertype_of(frame) == Some(ethertype::IPV4)
        && let Some((ip, tcp)) = plain::segment(frame, ethernet::HEADER_LEN)
    {
        let packet = Packet { at: ethernet::HEADER_LEN, ip: Network::V4(ip), kind: Kind::Tcp(tcp) };
        return Ok(Parsed::Ip(Frame { tags: Tags::default(), outer: None, packet }));
    }
    parse_any(frame)
}

#[inline(never)]
fn parse_any(frame: &[u8]) -> Result<Parsed, DropReason> {
    let (tags, ethertype, at) = ethernet::tags_and_ethertype(frame)?;
    match ethertype {
        ethertype::IPV4 => parse_v4(frame, at, tags),
        ethertype::IPV6 => parse_v6(frame, at, tags),
        ethertype::ARP => {
            let request = ArpRequest::parse(frame, &EthernetHeader::parse(frame)?);
            Ok(request.map_or(Parsed::Other, Parsed::Arp))
        }
        _ => Ok(Parsed::Other),
    }
}

/// Parses the IP packet that begins at `at` in `frame`, and the one inside of it if it is a tunnel of ours.
///
/// # Errors
/// Why the frame has to be dropped.
pub fn parse_ip(frame: &[u8], at: usize) -> Result<Frame, DropReason> {
    if let Some((ip, tcp)) = plain::segment(frame, at) {
        let packet = Packet { at, ip: Network::V4(ip), kind: Kind::Tcp(tcp) };
        return Ok(Frame { tags: Tags::default(), outer: None, packet });
    }
    let bytes = frame.get(at..).ok_or(DropReason::Truncated)?;
    match network::version_of(bytes)? {
        Version::V4 => frame_of(frame, at, Ipv4Header::parse(bytes)?, Tags::default(), identity),
        Version::V6 => frame_of(frame, at, Ipv6Header::parse(bytes)?, Tags::default(), identity),
    }
}

#[inline(always)]
fn parse_v4(frame: &[u8], at: usize, tags: Tags) -> Result<Parsed, DropReason> {
    let ip = Ipv4Header::parse(frame.get(at..).ok_or(DropReason::Truncated)?)?;
    frame_of(frame, at, ip, tags, Parsed::Ip)
}

fn parse_v6(frame: &[u8], at: usize, tags: Tags) -> Result<Parsed, DropReason> {
    let ip = Ipv6Header::parse(frame.get(at..).ok_or(DropReason::Truncated)?)?;
    if ip.protocol == protocol::ICMPV6
        && let Some(solicitation) =
            NeighbourSolicitation::parse(frame, &EthernetHeader::parse(frame)?, &ip.into())
    {
        return Ok(Parsed::Neighbour(solicitation));
    }
    frame_of(frame, at, ip, tags, Parsed::Ip)
}

/// Inlined for each IP version, so that the compiler knows it and keeps a segment's header in registers. What is no segment
/// gets a header of its own: one whose address is passed on would have to be in memory for both.
#[inline(always)]
fn frame_of<T>(
    frame: &[u8],
    at: usize,
    header: impl Into<Network> + Copy,
    tags: Tags,
    wrap: impl Fn(Frame) -> T,
) -> Result<T, DropReason> {
    let ip: Network = header.into();
    let whole = frame.get(..at + ip.total_len()).ok_or(DropReason::Truncated)?;
    if is_segment(&ip) {
        let packet = segment_of(whole, at, ip)?;
        return Ok(wrap(Frame { tags, outer: None, packet }));
    }
    frame_of_other(whole, at, header.into(), tags).map(wrap)
}

#[inline(never)]
fn frame_of_other(whole: &[u8], at: usize, ip: Network, tags: Tags) -> Result<Frame, DropReason> {
    let Some((outer, inner_version)) = tunnel::recognise(whole, at, &ip) else {
        return Ok(Frame { tags, outer: None, packet: packet_of_other(whole, at, ip)? });
    };
    let inner_at = at + usize::from(outer.len);
    if inner_version == Version::V4
        && let Some((ip, tcp)) = plain::segment(whole, inner_at)
    {
        let packet = Packet { at: inner_at, ip: Network::V4(ip), kind: Kind::Tcp(tcp) };
        return Ok(Frame { tags, outer: Some(outer), packet });
    }
    let inner = whole.get(inner_at..).ok_or(DropReason::Truncated)?;
    let packet = match inner_version {
        Version::V4 => packet_of(whole, inner_at, Ipv4Header::parse(inner)?)?,
        Version::V6 => packet_of(whole, inner_at, Ipv6Header::parse(inner)?)?,
    };
    Ok(Frame { tags, outer: Some(outer), packet })
}

#[inline(always)]
fn packet_of(frame: &[u8], at: usize, header: impl Into<Network> + Copy) -> Result<Packet, DropReason> {
    let ip: Network = header.into();
    if is_segment(&ip) {
        return segment_of(frame, at, ip);
    }
    packet_of_other(frame, at, header.into())
}

#[inline(never)]
fn packet_of_other(frame: &[u8], at: usize, ip: Network) -> Result<Packet, DropReason> {
    let payload_at = at + ip.header_len();
    let payload = frame.get(payload_at..at + ip.total_len()).ok_or(DropReason::Truncated)?;
    let kind = match ip.is_fragment() {
        true => Kind::Fragment(piece_of(frame, payload_at, payload, &ip)?),
        false => other_kind(payload, payload_at, &ip)?,
    };
    Ok(Packet { at, ip, kind })
}

/// True for a whole TCP segment: what most packets are.
#[inline(always)]
fn is_segment(ip: &Network) -> bool {
    ip.protocol() == protocol::TCP && !ip.is_fragment()
}

#[inline(always)]
fn segment_of(frame: &[u8], at: usize, ip: Network) -> Result<Packet, DropReason> {
    let payload = frame.get(at + ip.header_len()..at + ip.total_len()).ok_or(DropReason::Truncated)?;
    Ok(Packet { at, ip, kind: Kind::Tcp(TcpHeader::parse(payload)?) })
}

fn other_kind(payload: &[u8], payload_at: usize, ip: &Network) -> Result<Kind, DropReason> {
    match ip.protocol() {
        protocol::UDP => UdpHeader::parse(payload).map(Kind::Udp),
        number if number == quote::carrier(ip.version()) => icmp_kind(payload, payload_at, ip),
        _ => Ok(Kind::Other),
    }
}

fn piece_of(frame: &[u8], payload_at: usize, payload: &[u8], ip: &Network) -> Result<Piece, DropReason> {
    let id = match ip {
        Network::V4(ip) => u32::from(ip.id()),
        // The fragment header is the last one that was stepped over, and this its second half.
        Network::V6(_) => u32::from_be_bytes(array_at(frame, payload_at - 4)?),
    };
    let has_ports = ip.fragment_offset() == 0 && Protocol::from_number(ip.protocol()).is_some();
    let ports = match payload.first_chunk() {
        Some([source_high, source_low, high, low]) if has_ports => {
            Some((u16::from_be_bytes([*source_high, *source_low]), u16::from_be_bytes([*high, *low])))
        }
        _ => None,
    };
    Ok(Piece { id, ports })
}

fn icmp_kind(payload: &[u8], payload_at: usize, ip: &Network) -> Result<Kind, DropReason> {
    if let Some(quote) = Quote::parse(payload, payload_at, ip)? {
        return Ok(Kind::IcmpError(quote));
    }
    let request = match ip.version() {
        Version::V4 => icmp::ECHO_REQUEST,
        Version::V6 => icmpv6::ECHO_REQUEST,
    };
    Ok(if payload.first() == Some(&request) { Kind::EchoRequest } else { Kind::Other })
}
