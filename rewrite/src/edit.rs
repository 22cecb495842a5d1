//! Which bytes change for delivery, reply and forwarding, and changing them.

use crate::bytes::write_at;
use crate::checksum::Checksum;
use crate::frame::{Frame, Kind, Packet};
use crate::network::Network;
use crate::translate::{End, Translation, translate};
use crate::{ecn, ipv4, ipv6, tcp};
use core::net::IpAddr;
use dpr_model::DropReason;

/// Where the checksum of an IPv4 header is.
const SUM: usize = ipv4::field::CHECKSUM;

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
/// `EcnNotCapable` by RFC 6040, or the reason of [`translate`].
pub fn deliver(
    bytes: &mut [u8],
    frame: &Frame,
    to: IpAddr,
    checksum: ChecksumState,
) -> Result<usize, DropReason> {
    let at = decapsulate(bytes, frame)?;
    let destination = Some(End { address: to, port: None });
    translate(bytes, &frame.packet, &Translation { source: None, destination }, checksum)?;
    Ok(at)
}

/// Takes a packet out of its tunnel, if it is in one: congestion that the tunnel saw becomes the packet's.
///
/// Returns where the packet begins now.
///
/// # Errors
/// `EcnNotCapable` by RFC 6040.
pub fn decapsulate(bytes: &mut [u8], frame: &Frame) -> Result<usize, DropReason> {
    let packet = &frame.packet;
    if let Some(outer) = &frame.outer {
        let inner = packet.ip.traffic_class();
        let traffic_class = ecn::after_decapsulation(inner, outer.traffic_class)?;
        if traffic_class != inner {
            set_traffic_class(bytes, packet, traffic_class)?;
        }
    }
    Ok(packet.at)
}

/// Gives a reply of the local TCP stack the address that its client knows, and clamps the MSS of a SYN-ACK.
///
/// # Errors
/// The reason of [`translate`].
pub fn reply(
    bytes: &mut [u8],
    packet: &Packet,
    from: IpAddr,
    mss_max: Option<u16>,
    checksum: ChecksumState,
) -> Result<(), DropReason> {
    let source = Some(End { address: from, port: None });
    translate(bytes, packet, &Translation { source, destination: None }, checksum)?;
    if let (Kind::Tcp(header), Some(mss_max)) = (packet.kind, mss_max)
        && header.has(tcp::flag::SYN)
    {
        let segment = bytes.get_mut(packet.transport_at()..packet.end()).ok_or(DropReason::Truncated)?;
        tcp::clamp_mss(segment, mss_max, checksum);
    }
    Ok(())
}

/// Takes a forwarder's one from the time to live or hop limit (RFC 791, section 3.2; RFC 2003, section 3.1; RFC 2473,
/// section 3.1).
///
/// # Errors
/// `TtlExpired` when nothing would be left.
#[inline]
pub fn decrement_hop_limit(bytes: &mut [u8], packet: &Packet) -> Result<(), DropReason> {
    let left = |hop_limit: u8| if hop_limit > 1 { Ok(hop_limit - 1) } else { Err(DropReason::TtlExpired) };
    match &packet.ip {
        Network::V4(ip) => {
            let left = left(ip.ttl())?;
            let header = ipv4_header_mut(bytes, packet)?;
            header[ipv4::field::TTL] = left;
            let sum = u16::from_ne_bytes([header[SUM], header[SUM + 1]]);
            // RFC 1624, equation 3: the word of the time to live has lost this, whatever it was. In the machine's own order,
            // which sums do not mind (RFC 1071, section 2).
            let lost = u16::from_ne_bytes([1, 0]);
            let (edited, carry) = (!sum).overflowing_add(!lost);
            [header[SUM], header[SUM + 1]] = (!edited.wrapping_add(u16::from(carry))).to_ne_bytes();
            Ok(())
        }
        Network::V6(ip) => write_at(bytes, packet.at + ipv6::field::HOP_LIMIT, &[left(ip.hop_limit)?]),
    }
}

/// Leaves 1 of the time to live or hop limit: enough to be delivered by the next node, too little for it to send the packet
/// on, whatever it knows about it.
///
/// # Errors
/// `TtlExpired` when a forwarder had to drop the packet.
pub fn spend_hop_limit(bytes: &mut [u8], packet: &Packet) -> Result<(), DropReason> {
    if packet.ip.hop_limit() <= 1 {
        return Err(DropReason::TtlExpired);
    }
    match &packet.ip {
        Network::V4(ip) => replace_header_word::<{ ipv4::field::TTL }>(bytes, packet, [1, ip.protocol()]),
        Network::V6(_) => write_at(bytes, packet.at + ipv6::field::HOP_LIMIT, &[1]),
    }
}

fn set_traffic_class(bytes: &mut [u8], packet: &Packet, traffic_class: u8) -> Result<(), DropReason> {
    let start: &mut [u8; 2] =
        bytes.get_mut(packet.at..).and_then(|rest| rest.first_chunk_mut()).ok_or(DropReason::Truncated)?;
    match &packet.ip {
        Network::V4(_) => {
            let version_and_len = start[0];
            replace_header_word::<0>(bytes, packet, [version_and_len, traffic_class])
        }
        Network::V6(_) => {
            *start = [start[0] & 0xf0 | traffic_class >> 4, traffic_class << 4 | start[1] & 0x0f];
            Ok(())
        }
    }
}

/// Replaces the word at offset `AT` of an IPv4 header and edits the header's checksum.
fn replace_header_word<const AT: usize>(
    bytes: &mut [u8],
    packet: &Packet,
    new: [u8; 2],
) -> Result<(), DropReason> {
    let header = ipv4_header_mut(bytes, packet)?;
    let old = u16::from_be_bytes([header[AT], header[AT + 1]]);
    let sum = Checksum::from_header(u16::from_be_bytes([header[SUM], header[SUM + 1]]));
    [header[AT], header[AT + 1]] = new;
    [header[SUM], header[SUM + 1]] = sum.replace_word(old, u16::from_be_bytes(new)).finish().to_be_bytes();
    Ok(())
}

#[inline]
fn ipv4_header_mut<'a>(
    bytes: &'a mut [u8],
    packet: &Packet,
) -> Result<&'a mut [u8; ipv4::HEADER_LEN], DropReason> {
    bytes.get_mut(packet.at..).and_then(|rest| rest.first_chunk_mut()).ok_or(DropReason::Truncated)
}
