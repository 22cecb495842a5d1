//! A frame parsed once: where its headers are and what they say.

use crate::arp::ArpRequest;
use crate::ethernet::{EthernetHeader, Tags, ethertype};
use crate::icmp::Quote;
use crate::ipv4::{Ipv4Header, protocol};
use crate::tcp::TcpHeader;
use crate::{icmp, tunnel};
use core::net::Ipv4Addr;
use dpr_model::{DropReason, HopBudget};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Somebody asks for the MAC address of an IPv4 address.
    Arp(ArpRequest),
    /// An IPv4 packet, perhaps through one of our tunnels.
    Ipv4(Frame),
    /// Nothing that `dpr` deals with.
    Other,
}

/// An IPv4 frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// VLAN tags.
    pub tags: Tags,
    /// The tunnel that the packet came through, if it did.
    pub outer: Option<Outer>,
    /// The packet that somebody sent to or from a service.
    pub packet: Packet,
}

/// The outer header of a tunnel of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Node that forwarded the packet.
    pub source: Ipv4Addr,
    /// Node that it was forwarded to.
    pub destination: Ipv4Addr,
    /// DSCP and ECN.
    pub tos: u8,
    /// Hops left.
    pub hops: HopBudget,
    /// Length with options, bytes.
    pub len: u8,
}

/// A packet within a frame. Every offset in it was checked against the frame's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where its IPv4 header begins, from the start of the frame.
    pub at: usize,
    /// Its IPv4 header.
    pub ip: Ipv4Header,
    /// What it carries.
    pub kind: Kind,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP segment.
    Tcp(TcpHeader),
    /// An ICMP error about a TCP segment that the receiver of the error had sent.
    IcmpError(Quote),
    /// A fragment; the first one as well, since the others have no ports.
    Fragment,
    /// Something else.
    Other,
}

impl Packet {
    /// Where the payload of the IPv4 packet begins, from the start of the frame.
    pub fn transport_at(&self) -> usize {
        self.at + self.ip.header_len
    }

    /// Where the packet ends, from the start of the frame; the frame may go on with padding.
    pub fn end(&self) -> usize {
        self.at + self.ip.total_len
    }
}

/// Parses an Ethernet frame.
///
/// # Errors
/// Why the frame has to be dropped. Tunnels that are not ours are not an error but [`Kind::Other`].
pub fn parse(frame: &[u8]) -> Result<Parsed, DropReason> {
    let ethernet = EthernetHeader::parse(frame)?;
    match ethernet.ethertype {
        ethertype::IPV4 => frame_of(frame, ethernet.header_len(), ethernet.tags).map(Parsed::Ipv4),
        ethertype::ARP => Ok(ArpRequest::parse(frame, &ethernet).map_or(Parsed::Other, Parsed::Arp)),
        _ => Ok(Parsed::Other),
    }
}

/// Parses the IPv4 packet that begins at `at` in `frame`, and the one inside of it if it is a tunnel of ours.
///
/// # Errors
/// Why the frame has to be dropped.
pub fn parse_ipv4(frame: &[u8], at: usize) -> Result<Frame, DropReason> {
    frame_of(frame, at, Tags::default())
}

fn frame_of(frame: &[u8], at: usize, tags: Tags) -> Result<Frame, DropReason> {
    let ip = header_at(frame, at)?;
    let hops = match ip.protocol {
        protocol::IPIP => tunnel::hops_of(&ip),
        _ => None,
    };
    let Some(hops) = hops else {
        return Ok(Frame { tags, outer: None, packet: packet_of(frame, at, ip)? });
    };
    let inner_at = at + ip.header_len;
    let inner_frame = frame.get(..at + ip.total_len).ok_or(DropReason::Truncated)?;
    let inner = header_at(inner_frame, inner_at)?;
    let outer = Outer {
        source: ip.source,
        destination: ip.destination,
        tos: ip.tos,
        hops,
        len: ip.header_len as u8, // At most 60: fifteen words.
    };
    Ok(Frame { tags, outer: Some(outer), packet: packet_of(inner_frame, inner_at, inner)? })
}

fn header_at(frame: &[u8], at: usize) -> Result<Ipv4Header, DropReason> {
    Ipv4Header::parse(frame.get(at..).ok_or(DropReason::Truncated)?)
}

fn packet_of(frame: &[u8], at: usize, ip: Ipv4Header) -> Result<Packet, DropReason> {
    let payload = frame.get(at + ip.header_len..at + ip.total_len).ok_or(DropReason::Truncated)?;
    let kind = if ip.is_fragment() {
        Kind::Fragment
    } else {
        match ip.protocol {
            protocol::TCP => Kind::Tcp(TcpHeader::parse(payload)?),
            protocol::ICMP => match icmp::quote_of(payload, at + ip.header_len)? {
                Some(quote) => Kind::IcmpError(quote),
                None => Kind::Other,
            },
            _ => Kind::Other,
        }
    };
    Ok(Packet { at, ip, kind })
}
