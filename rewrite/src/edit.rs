//! Which bytes change for delivery, reply and forwarding, and changing them.

use crate::checksum::Checksum;
use crate::frame::{Frame, Kind, Packet};
use crate::ipv4::field;
use crate::{ecn, icmp, tcp};
use core::net::Ipv4Addr;
use dpr_model::DropReason;

/// What the checksum field of a transport header holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumState {
    /// A checksum.
    Complete,
    /// The sum of the pseudo header; the device that sends the frame adds the rest.
    Partial,
}

/// Makes a packet for a service one for the local TCP stack: out of its tunnel, and to the delivery address.
///
/// Returns where the packet begins now. An ICMP error is translated with what it quotes, so that the local
/// stack recognises its own segment.
///
/// # Errors
/// `EcnNotCapable` by RFC 6040, or the kind's reason when the packet is nothing that can be delivered.
pub fn deliver(
    bytes: &mut [u8],
    frame: &Frame,
    to: Ipv4Addr,
    checksum: ChecksumState,
) -> Result<usize, DropReason> {
    let packet = &frame.packet;
    if let Some(outer) = &frame.outer {
        let tos = ecn::after_decapsulation(packet.ip.tos, outer.tos)?;
        set_tos(bytes, packet, tos)?;
    }
    match packet.kind {
        Kind::Tcp(_) => replace_address(bytes, packet, field::DESTINATION, to, Some(checksum))?,
        Kind::IcmpError(quote) => {
            replace_address(bytes, packet, field::DESTINATION, to, None)?;
            replace_quoted_source(bytes, packet, &quote, to)?;
        }
        Kind::Fragment => return Err(DropReason::Fragment),
        Kind::Other => return Err(DropReason::Malformed),
    }
    Ok(packet.at)
}

/// Gives a reply of the local TCP stack the address that its client knows, and clamps the MSS of a SYN-ACK.
///
/// # Errors
/// `Malformed` when the packet is no TCP segment.
pub fn reply(
    bytes: &mut [u8],
    packet: &Packet,
    from: Ipv4Addr,
    mss_max: Option<u16>,
    checksum: ChecksumState,
) -> Result<(), DropReason> {
    let Kind::Tcp(header) = packet.kind else { return Err(DropReason::Malformed) };
    replace_address(bytes, packet, field::SOURCE, from, Some(checksum))?;
    if let Some(mss_max) = mss_max
        && header.has(tcp::flag::SYN)
    {
        let segment = bytes.get_mut(packet.transport_at()..packet.end()).ok_or(DropReason::Truncated)?;
        tcp::clamp_mss(segment, mss_max, checksum);
    }
    Ok(())
}

/// Takes a forwarder's one from the time to live (RFC 791, section 3.2; RFC 2003, section 3.1).
///
/// # Errors
/// `TtlExpired` when nothing would be left.
pub fn decrement_ttl(bytes: &mut [u8], packet: &Packet) -> Result<(), DropReason> {
    if packet.ip.ttl <= 1 {
        return Err(DropReason::TtlExpired);
    }
    let word_at = packet.at + field::TTL;
    replace_header_word(bytes, packet, word_at, [packet.ip.ttl - 1, packet.ip.protocol])
}

fn set_tos(bytes: &mut [u8], packet: &Packet, tos: u8) -> Result<(), DropReason> {
    if tos == packet.ip.tos {
        return Ok(());
    }
    let version_and_len = *bytes.get(packet.at).ok_or(DropReason::Truncated)?;
    replace_header_word(bytes, packet, packet.at, [version_and_len, tos])
}

/// Replaces the header word at `word_at` and edits the header's checksum.
fn replace_header_word(
    bytes: &mut [u8],
    packet: &Packet,
    word_at: usize,
    new: [u8; 2],
) -> Result<(), DropReason> {
    let old: [u8; 2] = array_at(bytes, word_at)?;
    write_at(bytes, word_at, &new)?;
    edit_checksum(bytes, packet.at + field::CHECKSUM, &old, &new, ChecksumState::Complete)
}

/// Replaces an address of the packet's IPv4 header, with the header's checksum and, for a segment, the transport's.
fn replace_address(
    bytes: &mut [u8],
    packet: &Packet,
    which: usize,
    new: Ipv4Addr,
    transport: Option<ChecksumState>,
) -> Result<(), DropReason> {
    let new = new.octets();
    let old: [u8; 4] = array_at(bytes, packet.at + which)?;
    write_at(bytes, packet.at + which, &new)?;
    edit_checksum(bytes, packet.at + field::CHECKSUM, &old, &new, ChecksumState::Complete)?;
    match transport {
        Some(state) => edit_checksum(bytes, packet.transport_at() + tcp::field::CHECKSUM, &old, &new, state),
        None => Ok(()),
    }
}

/// Replaces the source of a quoted packet; the ICMP checksum covers the quotation, its header checksum included.
fn replace_quoted_source(
    bytes: &mut [u8],
    packet: &Packet,
    quote: &icmp::Quote,
    new: Ipv4Addr,
) -> Result<(), DropReason> {
    let icmp_checksum_at = packet.transport_at() + icmp::CHECKSUM;
    let new = new.octets();
    let old: [u8; 4] = array_at(bytes, quote.at + field::SOURCE)?;
    let header_sum_at = quote.at + field::CHECKSUM;
    let old_header_sum: [u8; 2] = array_at(bytes, header_sum_at)?;

    write_at(bytes, quote.at + field::SOURCE, &new)?;
    edit_checksum(bytes, header_sum_at, &old, &new, ChecksumState::Complete)?;

    let new_header_sum: [u8; 2] = array_at(bytes, header_sum_at)?;
    edit_checksum(bytes, icmp_checksum_at, &old, &new, ChecksumState::Complete)?;
    edit_checksum(bytes, icmp_checksum_at, &old_header_sum, &new_header_sum, ChecksumState::Complete)
}

fn edit_checksum(
    bytes: &mut [u8],
    at: usize,
    old: &[u8],
    new: &[u8],
    state: ChecksumState,
) -> Result<(), DropReason> {
    let value = u16::from_be_bytes(array_at(bytes, at)?);
    let edited = match state {
        ChecksumState::Complete => Checksum::from_header(value).replace(old, new).finish(),
        ChecksumState::Partial => Checksum::from_partial(value).replace(old, new).finish_partial(),
    };
    write_at(bytes, at, &edited.to_be_bytes())
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], DropReason> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(DropReason::Truncated)
}

fn write_at(bytes: &mut [u8], at: usize, new: &[u8]) -> Result<(), DropReason> {
    bytes.get_mut(at..at + new.len()).ok_or(DropReason::Truncated)?.copy_from_slice(new);
    Ok(())
}
