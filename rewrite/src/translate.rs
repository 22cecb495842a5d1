//! Network address translation: other addresses and ports, in packets and in what ICMP errors quote.
//!
//! Full NAT gives a packet two new ends, half NAT one. The way back is the same edit with the ends that the packet had
//! before. Which ends those are is the caller's business; nothing is remembered here, and a packet keeps its IP version.

use crate::bytes::{Sum, array_at, replace, write_at};
use crate::edit::ChecksumState;
use crate::frame::{Kind, Packet};
use crate::network::{Network, Version};
use crate::quote::{self, Quote};
use crate::{ipv4, ipv6, protocol, tcp, udp};
use core::net::IpAddr;
use dpr_model::{DropReason, Protocol};
pub use dpr_model::{End, Translation};

/// Gives `packet` of `bytes` new ends.
///
/// An ICMP error goes where its packet's flow goes: what it quotes had been sent the other way, so the quoted source
/// becomes the new destination, and the quoted destination the new source (RFC 5508, section 4.2). A new source also
/// hides the router that found the error, whose address the receiver's network may not let pass. Of fragments only
/// addresses can change.
///
/// # Errors
/// `VersionMismatch` for an address of the other IP version; `Fragment` for a port in a fragment, or a first fragment
/// that ends before its checksum; `Malformed` for UDP over IPv6 without a checksum (RFC 8200, section 8.1), and for
/// what has no ports at all.
pub fn translate(
    bytes: &mut [u8],
    packet: &Packet,
    to: &Translation,
    checksum: ChecksumState,
) -> Result<(), DropReason> {
    match &packet.kind {
        Kind::Tcp(_) => translate_transport(bytes, packet, to, tcp_sum(packet, checksum)),
        Kind::Udp(header) if header.checksum == 0 && packet.ip.version() == Version::V6 => {
            Err(DropReason::Malformed)
        }
        Kind::Udp(_) => translate_transport(bytes, packet, to, udp_sum(packet, checksum)),
        Kind::IcmpError(quote) => translate_error(bytes, packet, quote, to),
        Kind::Fragment(_) => translate_fragment(bytes, packet, to),
        Kind::EchoRequest | Kind::Other => Err(DropReason::Malformed),
    }
}

/// Which of a packet's ends.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

impl Side {
    const fn opposite(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }

    /// Offset in an IPv4 header, bytes.
    const fn of_ipv4(self) -> usize {
        match self {
            Self::Source => ipv4::field::SOURCE,
            Self::Destination => ipv4::field::DESTINATION,
        }
    }

    /// Offset in an IPv6 header, bytes.
    const fn of_ipv6(self) -> usize {
        match self {
            Self::Source => ipv6::field::SOURCE,
            Self::Destination => ipv6::field::DESTINATION,
        }
    }

    /// Offset of the port in a TCP or UDP header, bytes.
    const fn of_port(self) -> usize {
        match self {
            Self::Source => 0,
            Self::Destination => 2,
        }
    }
}

fn ends(to: &Translation) -> impl Iterator<Item = (Side, End)> {
    let source = to.source.map(|end| (Side::Source, end));
    let destination = to.destination.map(|end| (Side::Destination, end));
    source.into_iter().chain(destination)
}

fn tcp_sum(packet: &Packet, state: ChecksumState) -> Sum {
    Sum { at: packet.transport_at() + tcp::field::CHECKSUM, state, optional: false }
}

fn udp_sum(packet: &Packet, state: ChecksumState) -> Sum {
    Sum { at: packet.transport_at() + udp::field::CHECKSUM, state, optional: true }
}

fn icmp_sum(packet: &Packet) -> Sum {
    Sum::complete(packet.transport_at() + quote::CHECKSUM)
}

fn translate_transport(
    bytes: &mut [u8],
    packet: &Packet,
    to: &Translation,
    sum: Sum,
) -> Result<(), DropReason> {
    for (side, end) in ends(to) {
        replace_address(bytes, packet, side, end.address, Some(sum))?;
        let Some(port) = end.port else { continue };
        let port_at = packet.transport_at() + side.of_port();
        // A partial checksum covers the pseudo header only: whoever completes it sees the new port.
        match sum.state {
            ChecksumState::Complete => replace(bytes, port_at, &port.to_be_bytes(), &[sum])?,
            ChecksumState::Partial => write_at(bytes, port_at, &port.to_be_bytes())?,
        }
    }
    Ok(())
}

/// Replaces an address of the packet's IP header, with the checksums of that header and of the transport.
fn replace_address(
    bytes: &mut [u8],
    packet: &Packet,
    side: Side,
    new: IpAddr,
    transport: Option<Sum>,
) -> Result<(), DropReason> {
    let transport = transport.as_slice();
    match (&packet.ip, new) {
        (Network::V4(_), IpAddr::V4(new)) => {
            let at = packet.at + side.of_ipv4();
            let old: [u8; 4] = array_at(bytes, at)?;
            replace(bytes, at, &new.octets(), &[Sum::of_ipv4_header(packet.at)])?;
            transport.iter().try_for_each(|sum| sum.edit(bytes, &old, &new.octets()))
        }
        (Network::V6(_), IpAddr::V6(new)) => {
            replace(bytes, packet.at + side.of_ipv6(), &new.octets(), transport)
        }
        _ => Err(DropReason::VersionMismatch),
    }
}

fn translate_error(
    bytes: &mut [u8],
    packet: &Packet,
    quote: &Quote,
    to: &Translation,
) -> Result<(), DropReason> {
    // The checksum of ICMP covers no addresses, that of ICMPv6 does.
    let of_addresses = match packet.ip.version() {
        Version::V4 => None,
        Version::V6 => Some(icmp_sum(packet)),
    };
    for (side, end) in ends(to) {
        replace_address(bytes, packet, side, end.address, of_addresses)?;
        translate_quote(bytes, packet, quote, side.opposite(), end)?;
    }
    Ok(())
}

/// Replaces an end of a quoted packet. The ICMP checksum covers the quotation, with the checksums that are in it.
fn translate_quote(
    bytes: &mut [u8],
    packet: &Packet,
    quote: &Quote,
    side: Side,
    end: End,
) -> Result<(), DropReason> {
    let icmp = icmp_sum(packet);
    let transport = quoted_sum(quote);
    match (&packet.ip, end.address) {
        (Network::V4(_), IpAddr::V4(new)) => {
            let header = Sum::of_ipv4_header(quote.at());
            let at = quote.at() + side.of_ipv4();
            replace_quoted(bytes, at, &new.octets(), &[Some(header), transport], icmp)?;
        }
        (Network::V6(_), IpAddr::V6(new)) => {
            replace_quoted(bytes, quote.at() + side.of_ipv6(), &new.octets(), &[transport], icmp)?;
        }
        _ => return Err(DropReason::VersionMismatch),
    }
    match end.port {
        Some(port) => {
            let at = quote.transport_at() + side.of_port();
            replace_quoted(bytes, at, &port.to_be_bytes(), &[transport], icmp)
        }
        None => Ok(()),
    }
}

/// The quoted transport's checksum, if it is quoted.
fn quoted_sum(quote: &Quote) -> Option<Sum> {
    let optional = quote.protocol == Protocol::Udp;
    quote.checksum_at().map(|at| Sum { optional, ..Sum::complete(at) })
}

/// Replaces quoted bytes, the quoted checksums `own` that cover them, and the message's for both.
fn replace_quoted<const N: usize>(
    bytes: &mut [u8],
    at: usize,
    new: &[u8; N],
    own: &[Option<Sum>],
    icmp: Sum,
) -> Result<(), DropReason> {
    let old: [u8; N] = array_at(bytes, at)?;
    replace(bytes, at, new, &[icmp])?;
    for sum in own.iter().flatten() {
        let before: [u8; 2] = array_at(bytes, sum.at)?;
        sum.edit(bytes, &old, new)?;
        let after: [u8; 2] = array_at(bytes, sum.at)?;
        icmp.edit(bytes, &before, &after)?;
    }
    Ok(())
}

/// Addresses only. The checksum that covers them is in the first fragment, for all.
fn translate_fragment(bytes: &mut [u8], packet: &Packet, to: &Translation) -> Result<(), DropReason> {
    if ends(to).any(|(_, end)| end.port.is_some()) {
        return Err(DropReason::Fragment);
    }
    let sum = if packet.ip.fragment_offset() == 0 { sum_in_first_fragment(packet)? } else { None };
    ends(to).try_for_each(|(side, end)| replace_address(bytes, packet, side, end.address, sum))
}

fn sum_in_first_fragment(packet: &Packet) -> Result<Option<Sum>, DropReason> {
    let sum = match packet.ip.protocol() {
        protocol::TCP => tcp_sum(packet, ChecksumState::Complete),
        protocol::UDP => udp_sum(packet, ChecksumState::Complete),
        protocol::ICMPV6 => icmp_sum(packet),
        protocol::ICMP => return Ok(None),
        _ => return Err(DropReason::Fragment),
    };
    if sum.at + 2 > packet.end() { Err(DropReason::Fragment) } else { Ok(Some(sum)) }
}
