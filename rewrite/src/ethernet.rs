//! The Ethernet II header with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use dpr_model::{DropReason, MacAddress};

/// Length of the header without tags, bytes.
pub const HEADER_LEN: usize = 14;
/// Length of one tag, bytes.
pub const TAG_LEN: usize = 4;
/// Tags that a header may have: a provider's and a customer's.
const TAGS_MAX: usize = 2;
/// Length of a header with as many tags as are understood, bytes.
pub const HEADER_LEN_MAX: usize = HEADER_LEN + TAGS_MAX * TAG_LEN;

/// EtherType numbers (IANA).
pub mod ethertype {
    /// Internet Protocol version 4.
    pub const IPV4: u16 = 0x0800;
    /// Address Resolution Protocol.
    pub const ARP: u16 = 0x0806;
    /// Internet Protocol version 6.
    pub const IPV6: u16 = 0x86dd;
    /// A customer's VLAN tag follows (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A provider's VLAN tag follows (802.1ad).
    pub const PROVIDER_VLAN: u16 = 0x88a8;
}

/// The bits of a tag's control field that say which VLAN it is; the others are priority and drop eligibility.
pub const VLAN_IDENTIFIER: u16 = 0x0fff;

/// A VLAN tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tag {
    /// EtherType that announces the tag: [`ethertype::VLAN`] or [`ethertype::PROVIDER_VLAN`]; zero where there is none.
    pub ethertype: u16,
    /// Priority, drop eligibility and VLAN identifier.
    pub control: u16,
}

impl Tag {
    /// Identifier of the VLAN, 0 to 4095; 0 for a tag that has only a priority.
    pub fn vlan(self) -> u16 {
        self.control & VLAN_IDENTIFIER
    }
}

/// The tags of a frame, outermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags([Tag; TAGS_MAX]);

impl Tags {
    /// One tag, or two.
    pub fn new(outer: Tag, inner: Option<Tag>) -> Self {
        Self([outer, inner.unwrap_or_default()])
    }

    /// The same VLANs, whatever priority the frame has.
    pub fn without_priorities(self) -> Self {
        Self(self.0.map(|tag| Tag { control: tag.vlan(), ..tag }))
    }

    /// The tags, outermost first.
    pub fn as_slice(&self) -> &[Tag] {
        match &self.0 {
            [Tag { ethertype: 0, .. }, _] => &[],
            [first, Tag { ethertype: 0, .. }] => core::slice::from_ref(first),
            both => both,
        }
    }

    /// True for a frame without tags.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0[0].ethertype == 0
    }

    /// Bytes that they take in a header.
    #[inline]
    pub fn len_in_header(&self) -> usize {
        self.as_slice().len() * TAG_LEN
    }
}

/// Tags and EtherType of a frame, and where what it carries begins: all of its header but the MAC addresses.
///
/// # Errors
/// `Truncated`.
#[inline]
pub(crate) fn tags_and_ethertype(frame: &[u8]) -> Result<(Tags, u16, usize), DropReason> {
    let mut ethertype = ethertype_of(frame).ok_or(DropReason::Truncated)?;
    let mut tags = Tags::default();
    let mut at = HEADER_LEN;
    for tag in &mut tags.0 {
        if !matches!(ethertype, ethertype::VLAN | ethertype::PROVIDER_VLAN) {
            break;
        }
        let rest = frame.get(at..).ok_or(DropReason::Truncated)?;
        let [control_high, control_low, high, low]: [u8; TAG_LEN] =
            *rest.first_chunk().ok_or(DropReason::Truncated)?;
        *tag = Tag { ethertype, control: u16::from_be_bytes([control_high, control_low]) };
        ethertype = u16::from_be_bytes([high, low]);
        at += TAG_LEN;
    }
    Ok((tags, ethertype, at))
}

/// What the header of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetHeader {
    /// For whom.
    pub destination: MacAddress,
    /// From whom.
    pub source: MacAddress,
    /// VLAN tags. A third one is not understood; the EtherType is then the one that announces it.
    pub tags: Tags,
    /// What the frame carries, behind the tags.
    pub ethertype: u16,
}

impl EthernetHeader {
    /// Reads the header of a frame.
    ///
    /// # Errors
    /// `Truncated`.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, DropReason> {
        let header: &[u8; HEADER_LEN] = frame.first_chunk().ok_or(DropReason::Truncated)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *header;
        let (tags, ethertype, _) = tags_and_ethertype(frame)?;
        Ok(Self {
            destination: MacAddress([d0, d1, d2, d3, d4, d5]),
            source: MacAddress([s0, s1, s2, s3, s4, s5]),
            tags,
            ethertype,
        })
    }

    /// Length with tags, bytes.
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.tags.len_in_header()
    }

    /// Writes the header to the start of `out`; returns its length.
    ///
    /// # Errors
    /// `Truncated` when `out` is shorter than that.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, DropReason> {
        let len = self.header_len();
        let out = out.get_mut(..len).ok_or(DropReason::Truncated)?;
        let (addresses, rest) = out.split_at_mut(HEADER_LEN - 2);
        addresses[..6].copy_from_slice(&self.destination.0);
        addresses[6..].copy_from_slice(&self.source.0);
        let (tags, ethertype) = rest.split_at_mut(self.tags.len_in_header());
        for (place, tag) in tags.chunks_exact_mut(TAG_LEN).zip(self.tags.as_slice()) {
            place[..2].copy_from_slice(&tag.ethertype.to_be_bytes());
            place[2..].copy_from_slice(&tag.control.to_be_bytes());
        }
        ethertype.copy_from_slice(&self.ethertype.to_be_bytes());
        Ok(len)
    }
}

/// The EtherType of a frame without tags, if it has a whole header.
#[inline]
pub fn ethertype_of(frame: &[u8]) -> Option<u16> {
    let header: &[u8; HEADER_LEN] = frame.first_chunk()?;
    Some(u16::from_be_bytes([header[12], header[13]]))
}

/// Replaces the source address of a frame.
///
/// # Errors
/// `Truncated` when the frame has no whole header.
pub fn set_source(frame: &mut [u8], source: MacAddress) -> Result<(), DropReason> {
    let header: &mut [u8; HEADER_LEN] = frame.first_chunk_mut().ok_or(DropReason::Truncated)?;
    header[6..12].copy_from_slice(&source.0);
    Ok(())
}

/// The bytes of a header without tags.
#[inline]
pub fn header(destination: MacAddress, source: MacAddress, ethertype: u16) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..6].copy_from_slice(&destination.0);
    bytes[6..12].copy_from_slice(&source.0);
    bytes[12..].copy_from_slice(&ethertype.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTAGGED: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    const TAGGED: [u8; 22] =
        [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xa8, 0x20, 7, 0x81, 0x00, 0, 42, 0x86, 0xdd];

    #[test]
    fn a_header_is_written_as_it_was_read() {
        for bytes in [&UNTAGGED[..], &TAGGED[..]] {
            let header = EthernetHeader::parse(bytes).unwrap();
            let mut out = [0; HEADER_LEN_MAX];
            let len = header.write(&mut out).unwrap();
            assert_eq!(&out[..len], bytes);
            assert_eq!(header.write(&mut out[..len - 1]), Err(DropReason::Truncated));
        }
        assert_eq!(header(MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2]), 0x0800), UNTAGGED);
    }

    #[test]
    fn two_tags_are_understood_and_a_third_one_is_not() {
        let header = EthernetHeader::parse(&TAGGED).unwrap();
        assert_eq!(header.ethertype, ethertype::IPV6);
        let expected = [
            Tag { ethertype: ethertype::PROVIDER_VLAN, control: 0x2007 },
            Tag { ethertype: ethertype::VLAN, control: 42 },
        ];
        assert_eq!(header.tags.as_slice(), expected);

        let mut third = TAGGED;
        third[20..].copy_from_slice(&[0x81, 0x00]);
        assert_eq!(EthernetHeader::parse(&third).unwrap().ethertype, ethertype::VLAN);
    }

    #[test]
    fn the_vlans_of_a_frame_are_the_same_whatever_its_priority() {
        let of_frame = EthernetHeader::parse(&TAGGED).unwrap().tags;
        let provider = Tag { ethertype: ethertype::PROVIDER_VLAN, control: 7 };
        let customer = Tag { ethertype: ethertype::VLAN, control: 42 };
        assert_eq!(of_frame.without_priorities(), Tags::new(provider, Some(customer)));
        assert!(of_frame.as_slice().iter().map(|tag| tag.vlan()).eq([7, 42]));
        assert_eq!(Tags::new(customer, None).as_slice(), [customer]);
    }

    #[test]
    fn a_header_that_ends_within_a_tag_is_truncated() {
        for len in 0..TAGGED.len() {
            assert_eq!(EthernetHeader::parse(&TAGGED[..len]), Err(DropReason::Truncated));
        }
    }
}
