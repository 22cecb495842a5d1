//! Answering echo requests (RFC 792; RFC 4443, section 4) for addresses that the host does not hold.

use crate::checksum::Checksum;
use crate::frame::{Kind, Packet};
use crate::network::{HOP_LIMIT, Network};
use crate::quote::CHECKSUM;
use crate::{icmp, icmpv6, ipv4, ipv6, protocol};
use dpr_model::DropReason;

/// The ECN field, which is zero in answers: there is no transport that would slow down (RFC 3168, section 5).
const ECN_MASK: u8 = 0b11;

/// Writes the answer to the echo request `packet` of `bytes` to the start of `out`: an IP packet without options and
/// extension headers, from the address that was asked. Returns its length, which is at most the request's.
///
/// The checksum is edited, so that a request which was damaged on its way gives an answer that shows it.
///
/// # Errors
/// `Malformed` when the packet is no echo request, `Truncated` when `out` is too short.
pub fn reply(bytes: &[u8], packet: &Packet, out: &mut [u8]) -> Result<usize, DropReason> {
    if packet.kind != Kind::EchoRequest {
        return Err(DropReason::Malformed);
    }
    let request = bytes.get(packet.transport_at()..packet.end()).ok_or(DropReason::Truncated)?;
    let header_len = packet.ip.version().header_len();
    let total_len = header_len + request.len();
    let out = out.get_mut(..total_len).ok_or(DropReason::Truncated)?;
    let (ip, message) = out.split_at_mut(header_len);
    message.copy_from_slice(request);
    let (old, new) = match &packet.ip {
        Network::V4(_) => (icmp::ECHO_REQUEST, icmp::ECHO_REPLY),
        Network::V6(_) => (icmpv6::ECHO_REQUEST, icmpv6::ECHO_REPLY),
    };
    write_ip(ip, &packet.ip, request.len());
    let head: &mut [u8; 4] = message.first_chunk_mut().ok_or(DropReason::Truncated)?;
    head[0] = new;
    // The pseudo header of ICMPv6 has the same sum with the addresses exchanged.
    let before = Checksum::from_header(u16::from_be_bytes([head[CHECKSUM], head[CHECKSUM + 1]]));
    let edited = before.replace(&[old, head[1]], &[new, head[1]]).finish();
    head[CHECKSUM..].copy_from_slice(&edited.to_be_bytes());
    Ok(total_len)
}

fn write_ip(out: &mut [u8], request: &Network, message_len: usize) {
    match request {
        Network::V4(ip) => out.copy_from_slice(&ipv4::header(&ipv4::Fields {
            tos: ip.tos() & !ECN_MASK,
            total_len: (ipv4::HEADER_LEN + message_len) as u16, // No longer than the request.
            id: 0,
            ttl: HOP_LIMIT,
            protocol: protocol::ICMP,
            source: ip.destination(),
            destination: ip.source(),
        })),
        Network::V6(ip) => out.copy_from_slice(&ipv6::header(&ipv6::Fields {
            traffic_class: ip.traffic_class() & !ECN_MASK,
            flow_label: 0,
            payload_len: message_len as u16, // No longer than the request.
            protocol: protocol::ICMPV6,
            hop_limit: HOP_LIMIT,
            source: ip.destination,
            destination: ip.source,
        })),
    }
}
