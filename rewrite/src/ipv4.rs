//! The IPv4 header (RFC 791).

use crate::checksum;
use core::net::Ipv4Addr;
use dpr_model::DropReason;

/// Length of a header without options, bytes.
pub const HEADER_LEN: usize = 20;

/// Offsets of fields from the start of the header, bytes.
pub mod field {
    /// Differentiated services code point and ECN.
    pub const TOS: usize = 1;
    /// Total length.
    pub const TOTAL_LENGTH: usize = 2;
    /// Identification.
    pub const ID: usize = 4;
    /// Flags and fragment offset.
    pub const FRAGMENT: usize = 6;
    /// Time to live.
    pub const TTL: usize = 8;
    /// Protocol.
    pub const PROTOCOL: usize = 9;
    /// Header checksum.
    pub const CHECKSUM: usize = 10;
    /// Source address.
    pub const SOURCE: usize = 12;
    /// Destination address.
    pub const DESTINATION: usize = 16;
}

/// "Don't fragment" in the fragment field.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// More-fragments flag and fragment offset: any of them set means "a fragment".
const FRAGMENT_MASK: u16 = 0x3fff;
/// "More fragments" in the fragment field.
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
/// Fragment offset in the fragment field, in units of [`FRAGMENT_UNIT`].
pub(crate) const FRAGMENT_OFFSET_MASK: u16 = 0x1fff;
/// Unit of the fragment offset, bytes.
pub(crate) const FRAGMENT_UNIT: usize = 8;

/// A header whose lengths and checksum hold. Fields are as wide as on the wire, since headers are handed around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Length with options, bytes (20 to 60).
    pub header_len: u8,
    /// Length of the whole packet, bytes.
    pub total_len: u16,
    /// Differentiated services code point and ECN.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Who sent it.
    pub source: Ipv4Addr,
    /// To whom.
    pub destination: Ipv4Addr,
}

impl Ipv4Header {
    /// Checks the header at the start of `bytes`, which hold a whole packet and perhaps padding behind it.
    ///
    /// # Errors
    /// `Truncated`, `Malformed` or `BadHeaderChecksum`.
    #[inline(always)]
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let header = Self::parse_quoted(bytes)?;
        if usize::from(header.total_len) > bytes.len() {
            return Err(DropReason::Truncated);
        }
        let sum = match usize::from(header.header_len) {
            HEADER_LEN => {
                checksum::sum_of_array(bytes.first_chunk::<HEADER_LEN>().ok_or(DropReason::Truncated)?)
            }
            len => checksum::sum_of(bytes.get(..len).ok_or(DropReason::Truncated)?),
        };
        if sum != 0xffff {
            return Err(DropReason::BadHeaderChecksum);
        }
        Ok(header)
    }

    /// Checks a header quoted in an ICMP error: the packet behind it may be cut off, and its checksum
    /// need not hold (RFC 1812, section 4.3.2.3 lets routers quote the header as they forwarded it).
    ///
    /// # Errors
    /// `Truncated` or `Malformed`.
    #[inline(always)]
    pub fn parse_quoted(bytes: &[u8]) -> Result<Self, DropReason> {
        let fixed: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(DropReason::Truncated)?;
        if fixed[0] >> 4 != 4 {
            return Err(DropReason::Malformed);
        }
        let header_len = (fixed[0] & 0x0f) * 4;
        let total_len = u16::from_be_bytes([fixed[2], fixed[3]]);
        if usize::from(header_len) < HEADER_LEN || total_len < u16::from(header_len) {
            return Err(DropReason::Malformed);
        }
        Ok(Self {
            header_len,
            total_len,
            tos: fixed[field::TOS],
            id: u16::from_be_bytes([fixed[4], fixed[5]]),
            fragment: u16::from_be_bytes([fixed[6], fixed[7]]),
            ttl: fixed[field::TTL],
            protocol: fixed[field::PROTOCOL],
            source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
            destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
        })
    }

    /// True for any fragment, the first one included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragment & FRAGMENT_MASK != 0
    }

    /// Where a fragment belongs in its packet, bytes; 0 for a packet that is whole.
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.fragment & FRAGMENT_OFFSET_MASK) * FRAGMENT_UNIT
    }

    /// True when routers must not fragment the packet.
    pub fn dont_fragment(&self) -> bool {
        self.fragment & DONT_FRAGMENT != 0
    }
}

/// What a header without options says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Differentiated services code point and ECN.
    pub tos: u8,
    /// Length of the whole packet, bytes.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
}

/// A header without options, "don't fragment" set, checksum computed.
///
/// The checksum is summed up out of the words while they are in registers.
#[inline]
pub fn header(fields: &Fields) -> [u8; HEADER_LEN] {
    let pair = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
    let [first, second, mut third, source, destination] = [
        pair(u16::from_be_bytes([0x45, fields.tos]), fields.total_len),
        pair(fields.id, DONT_FRAGMENT),
        pair(u16::from_be_bytes([fields.ttl, fields.protocol]), 0),
        u32::from(fields.source),
        u32::from(fields.destination),
    ];
    let sum: u64 = [first, second, third, source, destination].into_iter().map(u64::from).sum();
    third |= u32::from(!checksum::fold_words(sum));
    let mut bytes = [0; HEADER_LEN];
    let (places, _) = bytes.as_chunks_mut::<4>();
    for (place, word) in places.iter_mut().zip([first, second, third, source, destination]) {
        *place = word.to_be_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol;

    const FIELDS: Fields = Fields {
        tos: 0xb8,
        total_len: 20,
        id: 0xd940,
        ttl: 64,
        protocol: protocol::IPV4,
        source: Ipv4Addr::new(10, 0, 0, 1),
        destination: Ipv4Addr::new(10, 0, 0, 2),
    };

    #[test]
    fn a_written_header_parses_to_what_was_written() {
        let parsed = Ipv4Header::parse(&header(&FIELDS)).unwrap();
        assert_eq!(parsed.tos, FIELDS.tos);
        assert_eq!(parsed.id, FIELDS.id);
        assert_eq!(parsed.destination, FIELDS.destination);
        assert!(parsed.dont_fragment() && !parsed.is_fragment());
    }

    #[test]
    fn every_broken_header_has_its_reason() {
        let good = header(&FIELDS);
        assert_eq!(Ipv4Header::parse(&good[..19]), Err(DropReason::Truncated));

        let mut version_6 = good;
        version_6[0] = 0x65;
        assert_eq!(Ipv4Header::parse(&version_6), Err(DropReason::Malformed));

        let mut short_header = good;
        short_header[0] = 0x44;
        assert_eq!(Ipv4Header::parse(&short_header), Err(DropReason::Malformed));

        let mut lying_length = good;
        lying_length[3] = 21;
        assert_eq!(Ipv4Header::parse(&lying_length), Err(DropReason::Truncated));

        let mut flipped = good;
        flipped[15] ^= 1;
        assert_eq!(Ipv4Header::parse(&flipped), Err(DropReason::BadHeaderChecksum));
    }
}
