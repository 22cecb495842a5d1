//! Whether a packet is whole and its checksums hold, by the shortest code that can tell.

use dpr_rewrite::Packet;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// What is wrong with the lengths or the header of an IP packet that should fill `bytes`.
pub(crate) fn fault_of_header(bytes: &[u8]) -> Option<&'static str> {
    let is_of_length = |at: usize, header_len: usize| {
        let field = bytes.get(at..at + 2).map(|field| usize::from(field[0]) << 8 | usize::from(field[1]));
        field.map(|len| len + header_len) == Some(bytes.len())
    };
    match bytes.first()? >> 4 {
        4 => {
            let header_len = usize::from(bytes[0] & 0x0f) * 4;
            let header = bytes.get(..header_len).filter(|header| header.len() >= 20);
            match header {
                None => Some("an IPv4 header that is cut off"),
                Some(header) if sum(0, header) != 0xffff => Some("an IPv4 header with a wrong checksum"),
                Some(_) if !is_of_length(2, 0) => Some("an IPv4 packet of another length than it says"),
                Some(_) => None,
            }
        }
        6 if bytes.len() < 40 => Some("an IPv6 header that is cut off"),
        6 if !is_of_length(4, 40) => Some("an IPv6 packet of another length than it says"),
        6 => None,
        _ => Some("a packet of no IP version"),
    }
}

/// Whether the checksum of a transport holds that begins at `packet.transport_at()`; `None` where there is none, or
/// only a part of what it covers. The addresses are those that stand in `bytes` now.
pub(crate) fn transport_holds(bytes: &[u8], packet: &Packet) -> Option<bool> {
    let header = &bytes[packet.at..packet.transport_at()];
    let payload = &bytes[packet.transport_at()..packet.end()];
    let is_v6 = header[0] >> 4 == 6;
    let addresses = if is_v6 { &header[8..40] } else { &header[12..20] };
    let protocol = packet.ip.protocol();
    let covered = match (protocol, is_v6) {
        _ if packet.ip.is_fragment() => return None,
        (UDP, _) => {
            let len = usize::from(u16::from_be_bytes([*payload.get(4)?, *payload.get(5)?]));
            if payload.get(6..8)? == [0, 0] {
                return None;
            }
            payload.get(..len)?
        }
        (TCP, _) | (ICMP, false) | (ICMPV6, true) => payload,
        _ => return None,
    };
    let pseudo = match protocol {
        ICMP => 0,
        _ => addresses.chunks(2).map(word).sum::<u32>() + u32::from(protocol) + covered.len() as u32,
    };
    Some(sum(pseudo, covered) == 0xffff)
}

/// The one's complement sum of RFC 1071.
fn sum(start: u32, bytes: &[u8]) -> u32 {
    let mut sum = bytes.chunks(2).map(word).fold(start, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn word(bytes: &[u8]) -> u32 {
    u32::from(bytes[0]) << 8 | u32::from(*bytes.get(1).unwrap_or(&0))
}
