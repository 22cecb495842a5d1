//! The IPv6 header and the extension headers in front of the transport (RFC 8200).
//!
//! Extension headers are stepped over, not obeyed. A chain that is longer, or made of other headers, than a packet for
//! a service has is no error: the packet is one that `dpr` does not deal with.

use crate::protocol;
use core::net::Ipv6Addr;
use dpr_model::DropReason;

/// Length of the fixed header, bytes.
pub const HEADER_LEN: usize = 40;
/// Every link carries packets of this length (RFC 8200, section 5), bytes.
pub const MTU_MIN: u16 = 1280;

/// Extension headers that are stepped over. RFC 8200, section 4.1 lets a packet have hop-by-hop options, routing and
/// fragment header once each, and destination options twice.
const EXTENSIONS_MAX: usize = 5;
/// Unit of an extension header's length field, and length of a fragment header, bytes.
const EXTENSION_UNIT: usize = 8;

/// Offset in the third and fourth byte of a fragment header, bytes.
const FRAGMENT_OFFSET_MASK: u16 = 0xfff8;
/// "More fragments" in the same bytes.
const MORE_FRAGMENTS: u16 = 1;

/// Offsets of fields from the start of the header, bytes.
pub mod field {
    /// Length of what follows the fixed header.
    pub const PAYLOAD_LENGTH: usize = 4;
    /// Hop limit.
    pub const HOP_LIMIT: usize = 7;
    /// Source address.
    pub const SOURCE: usize = 8;
    /// Destination address.
    pub const DESTINATION: usize = 24;
}

/// Which bits of a flow label there are (RFC 6437): the lower twenty.
pub const FLOW_LABEL_MASK: u32 = 0x000f_ffff;

/// A header whose lengths hold, with the extension headers behind it. Fields are as on the wire, since headers are handed
/// around: a byte more, and frames are copied by a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Header {
    /// Version, traffic class and flow label.
    first_word: [u8; 4],
    /// Length of the extension headers that were stepped over, in units of [`EXTENSION_UNIT`].
    extension_units: u8,
    /// Length of what follows the fixed header, bytes.
    payload_len: [u8; 2],
    /// Hop limit.
    pub hop_limit: u8,
    /// What begins behind [`Self::header_len`]: a transport, or an extension header that is not stepped over.
    pub protocol: u8,
    /// Offset and "more fragments" as in a fragment header, other bits zero.
    fragment: [u8; 2],
    /// Who sent it.
    pub source: Ipv6Addr,
    /// To whom.
    pub destination: Ipv6Addr,
}

/// What a fragment header says (RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Where the fragment belongs in the original packet, bytes.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
}

impl Ipv6Header {
    /// Checks the header at the start of `bytes`, which hold a whole packet and perhaps padding behind it.
    ///
    /// # Errors
    /// `Truncated` or `Malformed`.
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let header = Self::parse_quoted(bytes)?;
        if header.total_len() > bytes.len() {
            return Err(DropReason::Truncated);
        }
        Ok(header)
    }

    /// Length with the extension headers that were stepped over, bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + usize::from(self.extension_units) * EXTENSION_UNIT
    }

    /// Which part of a packet this is; `None` for a whole one, which RFC 6946 calls atomic if it has a fragment header.
    #[inline]
    pub fn fragment(&self) -> Option<FragmentHeader> {
        let field = u16::from_be_bytes(self.fragment);
        let fragment =
            FragmentHeader { offset: field & FRAGMENT_OFFSET_MASK, more: field & MORE_FRAGMENTS != 0 };
        (field != 0).then_some(fragment)
    }

    /// Length of the whole packet, bytes.
    #[inline]
    pub fn total_len(&self) -> usize {
        HEADER_LEN + usize::from(u16::from_be_bytes(self.payload_len))
    }

    /// Differentiated services code point and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        self.first_word[0] << 4 | self.first_word[1] >> 4
    }

    /// Flow label, twenty bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        u32::from_be_bytes(self.first_word) & FLOW_LABEL_MASK
    }

    /// Checks a header quoted in an ICMPv6 error: the packet behind it may be cut off.
    ///
    /// # Errors
    /// `Truncated` or `Malformed`.
    pub fn parse_quoted(bytes: &[u8]) -> Result<Self, DropReason> {
        let fixed: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(DropReason::Truncated)?;
        if fixed[0] >> 4 != 6 {
            return Err(DropReason::Malformed);
        }
        let header = Self {
            first_word: [fixed[0], fixed[1], fixed[2], fixed[3]],
            extension_units: 0,
            payload_len: [fixed[4], fixed[5]],
            hop_limit: fixed[field::HOP_LIMIT],
            protocol: fixed[6],
            fragment: [0, 0],
            source: address_at(fixed, field::SOURCE),
            destination: address_at(fixed, field::DESTINATION),
        };
        if !is_extension(header.protocol) {
            return Ok(header);
        }
        header.behind_extensions(bytes.get(..header.total_len()).unwrap_or(bytes))
    }

    /// Steps over extension headers, up to the transport or to the first header that is somebody else's business.
    fn behind_extensions(mut self, packet: &[u8]) -> Result<Self, DropReason> {
        for _ in 0..EXTENSIONS_MAX {
            if !is_extension(self.protocol) {
                break;
            }
            let rest = packet.get(self.header_len()..).ok_or(DropReason::Truncated)?;
            let start: &[u8; EXTENSION_UNIT] = rest.first_chunk().ok_or(DropReason::Truncated)?;
            let units = match self.protocol {
                protocol::FRAGMENT => 1,
                // There are segments left: the destination is not the last one (RFC 8200, section 4.4).
                protocol::ROUTING if start[3] != 0 => break,
                _ => usize::from(start[1]) + 1,
            };
            if units * EXTENSION_UNIT > rest.len() {
                return Err(DropReason::Truncated);
            }
            // More than two kilobytes of them are in no packet for a service.
            let Ok(units) = u8::try_from(usize::from(self.extension_units) + units) else { break };
            let is_fragment_header = self.protocol == protocol::FRAGMENT;
            self.extension_units = units;
            self.protocol = start[0];
            if is_fragment_header {
                // Zero in an atomic fragment, which is treated as the whole packet that it is (RFC 6946, section 4).
                let field = u16::from_be_bytes([start[2], start[3]]);
                self.fragment = (field & (FRAGMENT_OFFSET_MASK | MORE_FRAGMENTS)).to_be_bytes();
            }
            if self.fragment != [0, 0] {
                break;
            }
        }
        Ok(self)
    }
}

/// True for extension headers that are stepped over.
fn is_extension(number: u8) -> bool {
    matches!(
        number,
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT | protocol::DESTINATION_OPTIONS
    )
}

fn address_at(fixed: &[u8; HEADER_LEN], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&fixed[at..at + 16]);
    Ipv6Addr::from(octets)
}

/// What a header without extension headers says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Differentiated services code point and ECN.
    pub traffic_class: u8,
    /// Flow label; its lower twenty bits are used.
    pub flow_label: u32,
    /// Length of what follows the header, bytes.
    pub payload_len: u16,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Sender.
    pub source: Ipv6Addr,
    /// Receiver.
    pub destination: Ipv6Addr,
}

/// A header without extension headers.
pub fn header(fields: &Fields) -> [u8; HEADER_LEN] {
    let first_word = 6 << 28 | u32::from(fields.traffic_class) << 20 | fields.flow_label & FLOW_LABEL_MASK;
    let mut bytes = [0; HEADER_LEN];
    bytes[..4].copy_from_slice(&first_word.to_be_bytes());
    bytes[4..6].copy_from_slice(&fields.payload_len.to_be_bytes());
    bytes[6] = fields.protocol;
    bytes[field::HOP_LIMIT] = fields.hop_limit;
    bytes[8..24].copy_from_slice(&fields.source.octets());
    bytes[24..40].copy_from_slice(&fields.destination.octets());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Fields = Fields {
        traffic_class: 0xb9,
        flow_label: 0x1_2345,
        payload_len: 24,
        protocol: protocol::TCP,
        hop_limit: 64,
        source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    };

    /// A packet of 64 bytes whose header chain is `extensions`, each (own number, second to fourth byte).
    fn with_extensions(extensions: &[(u8, [u8; 3])]) -> [u8; 64] {
        let mut packet = [0; 64];
        packet[..40].copy_from_slice(&header(&FIELDS));
        let mut link = 6;
        for (nth, (number, bytes)) in extensions.iter().enumerate() {
            let at = HEADER_LEN + nth * 8;
            packet[link] = *number;
            packet[at + 1..at + 4].copy_from_slice(bytes);
            link = at;
        }
        packet[link] = protocol::TCP;
        packet
    }

    #[test]
    fn a_written_header_parses_to_what_was_written() {
        let parsed = Ipv6Header::parse(&with_extensions(&[])).unwrap();
        assert_eq!((parsed.traffic_class(), parsed.flow_label()), (FIELDS.traffic_class, FIELDS.flow_label));
        assert_eq!((parsed.header_len(), parsed.total_len(), parsed.hop_limit), (40, 64, 64));
        assert_eq!((parsed.source, parsed.destination), (FIELDS.source, FIELDS.destination));
    }

    #[test]
    fn the_transport_is_found_behind_extension_headers() {
        let packet = with_extensions(&[
            (protocol::HOP_BY_HOP, [0; 3]),
            (protocol::ROUTING, [0, 2, 0]),
            (protocol::DESTINATION_OPTIONS, [0; 3]),
        ]);
        let parsed = Ipv6Header::parse(&packet).unwrap();
        assert_eq!((parsed.header_len(), parsed.protocol, parsed.fragment()), (64, protocol::TCP, None));
    }

    #[test]
    fn only_real_fragments_are_fragments() {
        let parse = |field: u16| {
            let [high, low] = field.to_be_bytes();
            Ipv6Header::parse(&with_extensions(&[(protocol::FRAGMENT, [0, high, low])])).unwrap()
        };
        assert_eq!(parse(0).fragment(), None);
        assert_eq!(parse(1).fragment(), Some(FragmentHeader { offset: 0, more: true }));
        assert_eq!(parse(1480).fragment(), Some(FragmentHeader { offset: 1480, more: false }));
    }

    #[test]
    fn nothing_is_looked_for_behind_a_fragment_header() {
        let packet =
            with_extensions(&[(protocol::FRAGMENT, [0, 0, 1]), (protocol::DESTINATION_OPTIONS, [200, 0, 0])]);
        let parsed = Ipv6Header::parse(&packet).unwrap();
        assert_eq!((parsed.header_len(), parsed.protocol), (48, protocol::DESTINATION_OPTIONS));
    }

    #[test]
    fn a_source_route_that_goes_on_and_a_chain_without_end_are_not_looked_behind() {
        let routed = Ipv6Header::parse(&with_extensions(&[(protocol::ROUTING, [0, 0, 1])])).unwrap();
        assert_eq!((routed.header_len(), routed.protocol), (40, protocol::ROUTING));

        let mut long = [0; 40 + 8 * 8];
        long[..40].copy_from_slice(&header(&Fields { payload_len: 64, protocol: 60, ..FIELDS }));
        for at in (40..104).step_by(8) {
            long[at] = protocol::DESTINATION_OPTIONS;
        }
        let parsed = Ipv6Header::parse(&long).unwrap();
        assert_eq!((parsed.header_len(), parsed.protocol), (80, protocol::DESTINATION_OPTIONS));
    }

    #[test]
    fn every_broken_header_has_its_reason() {
        let good = with_extensions(&[]);
        assert_eq!(Ipv6Header::parse(&good[..39]), Err(DropReason::Truncated));
        assert_eq!(Ipv6Header::parse(&good[..63]), Err(DropReason::Truncated));
        let mut version_4 = good;
        version_4[0] = 0x45;
        assert_eq!(Ipv6Header::parse(&version_4), Err(DropReason::Malformed));
        let past_the_end = with_extensions(&[(protocol::DESTINATION_OPTIONS, [3, 0, 0])]);
        assert_eq!(Ipv6Header::parse(&past_the_end), Err(DropReason::Truncated));
    }
}
