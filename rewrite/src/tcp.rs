//! The TCP header (RFC 9293, section 3.1) and its maximum segment size option.

use crate::checksum::Checksum;
use crate::edit::ChecksumState;
use crate::network::Version;
use dpr_model::DropReason;

/// Length of a header without options, bytes.
pub const HEADER_LEN: usize = 20;

/// Offsets of fields from the start of the header, bytes.
pub mod field {
    /// Sequence number.
    pub const SEQUENCE: usize = 4;
    /// Length of the header in words of four bytes, in the upper half.
    pub const DATA_OFFSET: usize = 12;
    /// Control bits.
    pub const FLAGS: usize = 13;
    /// Checksum.
    pub const CHECKSUM: usize = 16;
}

/// Control bits.
pub mod flag {
    /// Last data from the sender.
    pub const FIN: u8 = 0x01;
    /// First segment of a connection.
    pub const SYN: u8 = 0x02;
    /// The connection is void.
    pub const RST: u8 = 0x04;
    /// Hand the data to the application.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// Option kinds (RFC 9293, section 3.2).
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    pub(super) const MAXIMUM_SEGMENT_SIZE: u8 = 2;
    pub(super) const MAXIMUM_SEGMENT_SIZE_LEN: u8 = 4;
}

/// Bytes of a header in front of its checksum.
const KEPT_LEN: usize = field::CHECKSUM;

/// A header whose length holds, up to its checksum and as it was on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHeader([u8; KEPT_LEN]);

impl TcpHeader {
    /// Checks the header at the start of `bytes`, which are the payload of an IP packet.
    ///
    /// # Errors
    /// `Truncated` or `Malformed`.
    #[inline(always)]
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let header = Self::from_checked(bytes.first_chunk().ok_or(DropReason::Truncated)?);
        if header.header_len() < HEADER_LEN {
            return Err(DropReason::Malformed);
        }
        if header.header_len() > bytes.len() {
            return Err(DropReason::Truncated);
        }
        Ok(header)
    }

    /// A header whose length somebody else checks.
    #[inline(always)]
    pub(crate) fn from_checked(bytes: &[u8; HEADER_LEN]) -> Self {
        let (kept, _) = bytes.split_first_chunk().expect("a header is longer than what is kept of it");
        Self(*kept)
    }

    /// Port of the sender.
    #[inline]
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// Port of the receiver.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Sequence number; the initial one when SYN is set.
    #[inline]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// Control bits.
    #[inline]
    pub fn flags(&self) -> u8 {
        self.0[field::FLAGS]
    }

    /// Length with options, bytes (20 to 60).
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0[field::DATA_OFFSET] >> 4) * 4
    }

    /// True when `flag` is set.
    #[inline]
    pub fn has(&self, flag: u8) -> bool {
        self.flags() & flag != 0
    }
}

/// Largest segment whose packets, of version `version`, still fit `mtu` bytes after `overhead` bytes of outer headers are
/// added (RFC 6691).
pub fn mss_max(mtu: u16, overhead: usize, version: Version) -> u16 {
    let headers = overhead + version.header_len() + HEADER_LEN;
    // What is left of a u16 is one.
    usize::from(mtu).saturating_sub(headers) as u16
}

/// Lowers the maximum segment size that a SYN announces to `mss_max`, if it announces more; `tcp` begins at the
/// TCP header and is changed in place. A SYN without the option means 536 bytes over IPv4 and 1220 over IPv6 (RFC 9293,
/// section 3.7.1), which fit.
pub fn clamp_mss(tcp: &mut [u8], mss_max: u16, checksum: ChecksumState) {
    let Some(at) = mss_offset(tcp) else { return };
    let Some(value) = tcp.get(at..at + 2).and_then(|bytes| bytes.first_chunk::<2>()).copied() else { return };
    if u16::from_be_bytes(value) <= mss_max {
        return;
    }
    let new = mss_max.to_be_bytes();
    if let Some(place) = tcp.get_mut(at..at + 2) {
        place.copy_from_slice(&new);
    }
    // A partial checksum covers the pseudo header only: whoever completes it sees the new option.
    if checksum == ChecksumState::Partial {
        return;
    }
    let Some(place) = tcp.get_mut(field::CHECKSUM..field::CHECKSUM + 2) else { return };
    let before = Checksum::from_header(u16::from_be_bytes([place[0], place[1]]));
    let edited = if at % 2 == 0 {
        before.replace(&value, &new)
    } else {
        // The value straddles two words: swapping both sides' bytes keeps the sum right (RFC 1071, section 2).
        before.replace(&[value[1], value[0]], &[new[1], new[0]])
    };
    place.copy_from_slice(&edited.finish().to_be_bytes());
}

/// Where the value of the maximum segment size option begins, from the start of the header.
fn mss_offset(tcp: &[u8]) -> Option<usize> {
    let header_len = usize::from(tcp.get(field::DATA_OFFSET)? >> 4) * 4;
    let mut at = HEADER_LEN;
    while at < header_len {
        match *tcp.get(at)? {
            option::END => return None,
            option::NO_OPERATION => at += 1,
            option::MAXIMUM_SEGMENT_SIZE if *tcp.get(at + 1)? == option::MAXIMUM_SEGMENT_SIZE_LEN => {
                return (at + 4 <= header_len).then_some(at + 2);
            }
            _ => {
                let len = usize::from(*tcp.get(at + 1)?);
                // A length below two would never get past the option.
                if len < 2 {
                    return None;
                }
                at += len;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::{fold, sum_of};

    /// A SYN with the given options; its checksum covers the header alone.
    fn syn(options: &[u8]) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[12] = 7 << 4;
        bytes[13] = flag::SYN;
        bytes[20..20 + options.len()].copy_from_slice(options);
        let sum = !fold(sum_of(&bytes));
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    #[test]
    fn a_large_mss_is_lowered_and_the_checksum_still_verifies() {
        for options in [&[2, 4, 0x05, 0xb4][..], &[1, 2, 4, 0x05, 0xb4][..]] {
            let mut bytes = syn(options);
            clamp_mss(&mut bytes, 1440, ChecksumState::Complete);
            let at = 20 + options.len() - 2;
            assert_eq!(bytes[at..at + 2], 1440u16.to_be_bytes());
            assert_eq!(fold(sum_of(&bytes)), 0xffff);
        }
    }

    #[test]
    fn the_largest_segment_leaves_room_for_every_header() {
        assert_eq!(mss_max(1500, 20, Version::V4), 1440);
        assert_eq!(mss_max(1500, 56, Version::V6), 1384);
        assert_eq!(mss_max(50, 20, Version::V4), 0);
    }

    #[test]
    fn a_small_mss_stays() {
        let mut bytes = syn(&[2, 4, 0x02, 0x18]);
        let before = bytes;
        clamp_mss(&mut bytes, 1440, ChecksumState::Complete);
        assert_eq!(bytes, before);
    }

    #[test]
    fn broken_options_are_left_alone() {
        for options in [
            &[3, 0][..],
            &[3, 1][..],
            &[2, 9, 1, 1][..],
            &[0, 2, 4, 0xff, 0xff][..],
            &[8, 7, 1, 1, 1, 1, 2, 4][..],
        ] {
            let mut bytes = syn(options);
            let before = bytes;
            clamp_mss(&mut bytes, 1000, ChecksumState::Complete);
            assert_eq!(bytes, before);
        }
    }

    #[test]
    fn a_header_longer_than_its_packet_is_truncated() {
        let bytes = syn(&[]);
        assert_eq!(TcpHeader::parse(&bytes[..24]), Err(DropReason::Truncated));
        assert_eq!(TcpHeader::parse(&[0; 20]), Err(DropReason::Malformed));
    }
}
