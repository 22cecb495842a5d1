//! The Internet checksum (RFC 1071), edited in place of computed anew (RFC 1624).

use core::net::IpAddr;

/// An Internet checksum under edit.
///
/// ```
/// # use dpr_rewrite::checksum::Checksum;
/// let edited = Checksum::from_header(0x1234).replace(&[10, 0, 0, 1], &[10, 0, 0, 2]).finish();
/// # assert_eq!(edited, 0x1233);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// One's complement sum so far, not folded: 2^15 edits fit before it could overflow.
    sum: u32,
}

impl Checksum {
    /// Starts from the value in a header, which is the complement of a sum.
    #[inline]
    pub fn from_header(value: u16) -> Self {
        Self { sum: u32::from(!value) }
    }

    /// Starts from a partial checksum, which is the sum itself: what a checksumming device is given.
    #[inline]
    pub fn from_partial(value: u16) -> Self {
        Self { sum: u32::from(value) }
    }

    /// Replaces `old` by `new`, which lie at an even offset and have an even length (RFC 1624, equation 3).
    #[inline]
    #[must_use]
    pub fn replace<const N: usize>(self, old: &[u8; N], new: &[u8; N]) -> Self {
        Self { sum: self.sum + (0xffff - sum_of_array(old)) + sum_of_array(new) }
    }

    /// Replaces one 16-bit word.
    #[inline]
    #[must_use]
    pub fn replace_word(self, old: u16, new: u16) -> Self {
        Self { sum: self.sum + u32::from(!old) + u32::from(new) }
    }

    /// The value to store in a header.
    #[inline]
    pub fn finish(self) -> u16 {
        !fold(self.sum)
    }

    /// The value to store where a device completes the checksum.
    #[inline]
    pub fn finish_partial(self) -> u16 {
        fold(self.sum)
    }
}

/// One's complement sum of `bytes` as big-endian words; an odd last byte is padded with zero. At most 65,535, so that
/// tens of thousands of such sums can be added up.
///
/// It takes four bytes at a time in the machine's own order, since the sum's bytes only change places with those of the
/// words (RFC 1071, section 2).
pub fn sum_of(bytes: &[u8]) -> u32 {
    sum_of_inlined(bytes)
}

/// [`sum_of`] for a length that the compiler knows, and needs no loop for.
#[inline(always)]
pub(crate) fn sum_of_array<const N: usize>(bytes: &[u8; N]) -> u32 {
    sum_of_inlined(bytes)
}

#[inline(always)]
fn sum_of_inlined(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    // 2^32 words fit.
    let mut sum: u64 = 0;
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_ne_bytes(last));
    u32::from(u16::from_be(fold_words(sum)))
}

/// Folds a sum of 32-bit words into 16 bits.
#[inline]
pub(crate) fn fold_words(sum: u64) -> u16 {
    let halved = (sum & 0xffff_ffff) + (sum >> 32);
    let halved = (halved & 0xffff) + (halved >> 16);
    // At most 0xffff twice and a carry: 18 bits.
    fold(halved as u32)
}

/// Folds the carries of a sum back into 16 bits.
#[inline]
pub fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    // Two folds leave at most 16 bits of any 32-bit sum.
    twice as u16
}

/// Sum of the pseudo header of `length` bytes of transport (RFC 9293, section 3.1; RFC 8200, section 8.1), not folded.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: u16) -> u32 {
    sum_of_address(source) + sum_of_address(destination) + u32::from(protocol) + u32::from(length)
}

fn sum_of_address(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => sum_of(&address.octets()),
        IpAddr::V6(address) => sum_of(&address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1624_section_4() {
        // Header word 0x5555 becomes 0x3285; the checksum 0xDD2F becomes 0x0000, not 0xFFFF.
        assert_eq!(Checksum::from_header(0xdd2f).replace_word(0x5555, 0x3285).finish(), 0x0000);
    }

    #[test]
    fn an_odd_byte_is_padded_on_the_right() {
        assert_eq!(fold(sum_of(&[0x01, 0x02, 0x03])), 0x0102 + 0x0300);
    }

    proptest! {
        #[test]
        fn an_edited_checksum_verifies_like_a_computed_one(
            mut bytes in proptest::collection::vec(any::<u8>(), 40..200),
            new in any::<[u8; 4]>(),
            word in 1usize..18,
        ) {
            bytes[0] |= 1; // A sum of zero has two representations; real headers are never all zero.
            let before = !fold(sum_of(&bytes));
            let at = word * 2;
            let mut old = [0; 4];
            old.copy_from_slice(&bytes[at..at + 4]);
            bytes[at..at + 4].copy_from_slice(&new);
            let edited = Checksum::from_header(before).replace(&old, &new).finish();
            prop_assert_eq!(fold(sum_of(&bytes) + u32::from(edited)), 0xffff);
        }
    }
}
