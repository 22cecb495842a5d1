//! ICMP (RFC 792): which messages are errors, and writing "fragmentation needed" (RFC 1191).

use crate::ipv4::{self, Fields, Ipv4Header};
use crate::network::HOP_LIMIT;
use crate::quote::{CHECKSUM, HEADER_LEN};
use crate::{checksum, protocol};
use core::net::Ipv4Addr;
use dpr_model::DropReason;

/// Answer to an echo request.
pub(crate) const ECHO_REPLY: u8 = 0;
const DESTINATION_UNREACHABLE: u8 = 3;
/// "Are you there?"
pub(crate) const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const CODE_FRAGMENTATION_NEEDED: u8 = 4;

/// An ICMP error is no longer than this (RFC 1812, section 4.3.2.3), bytes.
const ERROR_LEN_MAX: usize = 576;
/// Longest packet that [`fragmentation_needed`] writes, bytes.
pub const FRAGMENTATION_NEEDED_LEN_MAX: usize = ERROR_LEN_MAX;

/// True for messages that quote a packet.
pub(crate) fn is_error(message: u8) -> bool {
    matches!(message, DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
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
    let quoted_len = original.len().min(about.total_len()).min(ERROR_LEN_MAX - ipv4::HEADER_LEN - HEADER_LEN);
    let total_len = ipv4::HEADER_LEN + HEADER_LEN + quoted_len;
    let out = out.get_mut(..total_len).ok_or(DropReason::Truncated)?;
    let (ip, message) = out.split_at_mut(ipv4::HEADER_LEN);
    ip.copy_from_slice(&ipv4::header(&Fields {
        tos: 0xc0,                   // Internetwork control (RFC 1812, section 4.3.2.5).
        total_len: total_len as u16, // At most ERROR_LEN_MAX.
        id: 0,
        ttl: HOP_LIMIT,
        protocol: protocol::ICMP,
        source,
        destination: about.source(),
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
