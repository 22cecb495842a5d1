//! ICMPv6 (RFC 4443): which messages are errors, and writing "packet too big".

use crate::ipv6::{self, Fields, Ipv6Header, MTU_MIN};
use crate::network::HOP_LIMIT;
use crate::quote::{CHECKSUM, HEADER_LEN};
use crate::{checksum, protocol};
use core::net::{IpAddr, Ipv6Addr};
use dpr_model::DropReason;

const DESTINATION_UNREACHABLE: u8 = 1;
const PACKET_TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;
/// "Are you there?"
pub(crate) const ECHO_REQUEST: u8 = 128;
/// Answer to an echo request.
pub(crate) const ECHO_REPLY: u8 = 129;

/// An ICMPv6 error fits every link (RFC 4443, section 2.4 c), bytes.
const ERROR_LEN_MAX: usize = MTU_MIN as usize;
/// Longest packet that [`packet_too_big`] writes, bytes.
pub const PACKET_TOO_BIG_LEN_MAX: usize = ERROR_LEN_MAX;

/// True for messages that quote a packet.
pub(crate) fn is_error(message: u8) -> bool {
    matches!(message, DESTINATION_UNREACHABLE | PACKET_TOO_BIG | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// Writes "packet too big" with the next hop's MTU (RFC 4443, section 3.2) into `out`: an IPv6 packet about `original`,
/// an IPv6 packet whose header was checked. Returns its length.
///
/// # Errors
/// `Truncated` when `out` is shorter than [`PACKET_TOO_BIG_LEN_MAX`] or `original` holds no header; `TooBig` for an MTU
/// below 1280, which no sender would heed (RFC 8201, section 4).
pub fn packet_too_big(
    original: &[u8],
    mtu: u16,
    source: Ipv6Addr,
    out: &mut [u8],
) -> Result<usize, DropReason> {
    if mtu < MTU_MIN {
        return Err(DropReason::TooBig);
    }
    let about = Ipv6Header::parse_quoted(original)?;
    let quoted_len = original.len().min(about.total_len()).min(ERROR_LEN_MAX - ipv6::HEADER_LEN - HEADER_LEN);
    let payload_len = (HEADER_LEN + quoted_len) as u16; // Less than ERROR_LEN_MAX.
    let total_len = ipv6::HEADER_LEN + HEADER_LEN + quoted_len;
    let out = out.get_mut(..total_len).ok_or(DropReason::Truncated)?;
    let (ip, message) = out.split_at_mut(ipv6::HEADER_LEN);
    ip.copy_from_slice(&ipv6::header(&Fields {
        traffic_class: 0xc0, // Internetwork control, as for IPv4 (RFC 1812, section 4.3.2.5).
        flow_label: 0,
        payload_len,
        protocol: protocol::ICMPV6,
        hop_limit: HOP_LIMIT,
        source,
        destination: about.source,
    }));
    let (header, quoted) = message.split_at_mut(HEADER_LEN);
    quoted.copy_from_slice(original.get(..quoted_len).ok_or(DropReason::Truncated)?);
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    header.copy_from_slice(&[PACKET_TOO_BIG, 0, 0, 0, 0, 0, mtu_high, mtu_low]);
    write_checksum(message, source, about.source, payload_len);
    Ok(total_len)
}

/// Computes the checksum of a whole message of `len` bytes whose checksum field is zero.
pub(crate) fn write_checksum(message: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr, len: u16) {
    let pseudo = checksum::pseudo_header(IpAddr::V6(source), IpAddr::V6(destination), protocol::ICMPV6, len);
    let sum = !checksum::fold(pseudo + checksum::sum_of(message));
    if let Some(place) = message.get_mut(CHECKSUM..CHECKSUM + 2) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}
