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
pub(crate) const FRAGMENT_MASK: u16 = 0x3fff;
/// "More fragments" in the fragment field.
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
/// Fragment offset in the fragment field, in units of [`FRAGMENT_UNIT`].
pub(crate) const FRAGMENT_OFFSET_MASK: u16 = 0x1fff;
/// Unit of the fragment offset, bytes.
pub(crate) const FRAGMENT_UNIT: usize = 8;

/// A header whose lengths and checksum hold, without its options. It stays as it was on the wire: to keep a header takes two
/// moves, and most of what it says is never asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header([u8; HEADER_LEN]);

impl Ipv4Header {
    /// Checks the header at the start of `bytes`, which hold a whole packet and perhaps padding behind it.
    ///
    /// # Errors
    /// `Truncated`, `Malformed` or `BadHeaderChecksum`.
    #[inline(always)]
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let header = Self::parse_quoted(bytes)?;
        if header.total_len() > bytes.len() {
            return Err(DropReason::Truncated);
        }
        let sum = match header.header_len() {
            HEADER_LEN => checksum::sum_of_array(&header.0),
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
        let header = Self(*bytes.first_chunk().ok_or(DropReason::Truncated)?);
        if header.0[0] >> 4 != 4 {
            return Err(DropReason::Malformed);
        }
        if header.header_len() < HEADER_LEN || header.total_len() < header.header_len() {
            return Err(DropReason::Malformed);
        }
        Ok(header)
    }

    /// A header that somebody else has checked.
    #[inline(always)]
    pub(crate) fn from_checked(bytes: &[u8; HEADER_LEN]) -> Self {
        Self(*bytes)
    }

    /// Length with options, bytes (20 to 60).
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0[0] & 0x0f) * 4
    }

    /// Length of the whole packet, bytes.
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(self.word(field::TOTAL_LENGTH))
    }

    /// Differentiated services code point and ECN.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.0[field::TOS]
    }

    /// Identification.
    #[inline]
    pub fn id(&self) -> u16 {
        self.word(field::ID)
    }

    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.0[field::TTL]
    }

    /// Protocol of the payload.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.0[field::PROTOCOL]
    }

    /// Who sent it.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        self.address(field::SOURCE)
    }

    /// To whom.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        self.address(field::DESTINATION)
    }

    /// True for any fragment, the first one included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragment_field() & FRAGMENT_MASK != 0
    }

    /// Where a fragment belongs in its packet, bytes; 0 for a packet that is whole.
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.fragment_field() & FRAGMENT_OFFSET_MASK) * FRAGMENT_UNIT
    }

    /// True when routers must not fragment the packet.
    pub fn dont_fragment(&self) -> bool {
        self.fragment_field() & DONT_FRAGMENT != 0
    }

    /// Flags and fragment offset.
    #[inline]
    pub(crate) fn fragment_field(&self) -> u16 {
        self.word(field::FRAGMENT)
    }

    #[inline]
    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    #[inline]
    fn address(&self, at: usize) -> Ipv4Addr {
        Ipv4Addr::new(self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3])
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
/// The checksum is summed up out of the words while they are in registers, in the machine's own order.
#[inline]
pub fn header(fields: &Fields) -> [u8; HEADER_LEN] {
    let [total_high, total_low] = fields.total_len.to_be_bytes();
    let [id_high, id_low] = fields.id.to_be_bytes();
    let [dont_fragment, _] = DONT_FRAGMENT.to_be_bytes();
    let mut words = [
        [0x45, fields.tos, total_high, total_low],
        [id_high, id_low, dont_fragment, 0],
        [fields.ttl, fields.protocol, 0, 0],
        fields.source.octets(),
        fields.destination.octets(),
    ];
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let [sum_first, sum_second] = (!checksum::fold_words(sum)).to_ne_bytes();
    words[2] = [fields.ttl, fields.protocol, sum_first, sum_second];
    let mut bytes = [0; HEADER_LEN];
    bytes.as_chunks_mut().0.copy_from_slice(&words);
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
        assert_eq!(parsed.tos(), FIELDS.tos);
        assert_eq!(parsed.id(), FIELDS.id);
        assert_eq!(parsed.destination(), FIELDS.destination);
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
