//! ICMP errors (RFC 792): reading what they quote, and writing "fragmentation needed" (RFC 1191).

use crate::checksum;
use crate::ipv4::{self, Fields, Ipv4Header, protocol};
use core::net::Ipv4Addr;
use dpr_model::DropReason;

/// Length of the ICMP header in front of the quoted packet, bytes.
pub const HEADER_LEN: usize = 8;
/// Offset of the checksum from the start of the ICMP header, bytes.
pub const CHECKSUM: usize = 2;

const DESTINATION_UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const CODE_FRAGMENTATION_NEEDED: u8 = 4;

/// An ICMP error is no longer than this (RFC 1812, section 4.3.2.3), bytes.
const ERROR_LEN_MAX: usize = 576;
/// Longest packet that [`fragmentation_needed`] writes, bytes.
pub const FRAGMENTATION_NEEDED_LEN_MAX: usize = ERROR_LEN_MAX;
/// Time to live of errors that a node sends (RFC 1700).
const ERROR_TTL: u8 = 64;

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Where its IPv4 header begins, from the start of the frame.
    pub at: usize,
    /// Its IPv4 header; the packet itself is usually cut off.
    pub ip: Ipv4Header,
    /// Port of whoever sent the quoted packet.
    pub source_port: u16,
    /// Port of whoever it was for.
    pub destination_port: u16,
}

/// What the ICMP message in `payload` quotes, if it is an error about a TCP segment; `payload_at` is where
/// the message begins in its frame.
///
/// # Errors
/// `Truncated` or `Malformed` for an error whose quotation lies.
pub fn quote_of(payload: &[u8], payload_at: usize) -> Result<Option<Quote>, DropReason> {
    let header: &[u8; HEADER_LEN] = payload.first_chunk().ok_or(DropReason::Truncated)?;
    if !matches!(header[0], DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM) {
        return Ok(None);
    }
    let quoted = payload.get(HEADER_LEN..).ok_or(DropReason::Truncated)?;
    let ip = Ipv4Header::parse_quoted(quoted)?;
    if ip.protocol != protocol::TCP || ip.is_fragment() {
        return Ok(None);
    }
    // RFC 792 guarantees eight bytes of the segment: ports and sequence number.
    let transport: &[u8; 4] =
        quoted.get(ip.header_len..).and_then(|bytes| bytes.first_chunk()).ok_or(DropReason::Truncated)?;
    Ok(Some(Quote {
        at: payload_at + HEADER_LEN,
        ip,
        source_port: u16::from_be_bytes([transport[0], transport[1]]),
        destination_port: u16::from_be_bytes([transport[2], transport[3]]),
    }))
}

/// Writes "fragmentation needed and DF set" with the next hop's MTU (RFC 1191, section 4) into `out`: an IPv4
/// packet about `original`, an IPv4 packet whose header was checked. Returns its length.
///
/// # Errors
/// `Truncated` when `out` is shorter than [`FRAGMENTATION_NEEDED_LEN_MAX`] or `original` holds no header.
pub fn fragmentation_needed(
    original: &[u8],
    mtu: u16,
    source: Ipv4Addr,
    out: &mut [u8],
) -> Result<usize, DropReason> {
    let about = Ipv4Header::parse_quoted(original)?;
    let quoted_len = original.len().min(about.total_len).min(ERROR_LEN_MAX - ipv4::HEADER_LEN - HEADER_LEN);
    let total_len = ipv4::HEADER_LEN + HEADER_LEN + quoted_len;
    let out = out.get_mut(..total_len).ok_or(DropReason::Truncated)?;
    let (ip, message) = out.split_at_mut(ipv4::HEADER_LEN);
    ip.copy_from_slice(&ipv4::header(&Fields {
        tos: 0xc0,                   // Internetwork control (RFC 1812, section 4.3.2.5).
        total_len: total_len as u16, // At most ERROR_LEN_MAX.
        id: 0,
        ttl: ERROR_TTL,
        protocol: protocol::ICMP,
        source,
        destination: about.source,
    }));
    let (header, quoted) = message.split_at_mut(HEADER_LEN);
    quoted.copy_from_slice(original.get(..quoted_len).ok_or(DropReason::Truncated)?);
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    header.copy_from_slice(&[
        DESTINATION_UNREACHABLE,
        CODE_FRAGMENTATION_NEEDED,
        0,
        0,
        0,
        0,
        mtu_high,
        mtu_low,
    ]);
    let sum = !checksum::fold(checksum::sum_of(message));
    message[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(total_len)
}
