//! Generic UDP encapsulation, variant 0 (draft-ietf-intarea-gue-09), with the hop budget as private data.
//!
//! Control messages, flags, extension fields and variant 1 (IP directly over UDP) are not used; a packet that has one of
//! them is not a tunnel of ours.

use crate::network::Version;
use crate::udp;
use dpr_model::HopBudget;

/// UDP port of receivers (IANA).
pub const PORT: u16 = 6080;
/// Length of the GUE header with its private data, bytes.
pub const HEADER_LEN: usize = 8;
/// Length of UDP and GUE header, bytes.
pub const OVERHEAD: usize = udp::HEADER_LEN + HEADER_LEN;

/// Variant 0, no control message, and one 32-bit word behind the first: the private data.
const FIRST_BYTE: u8 = 1;
/// First twelve bits of the private data; the next four are the hops left, the rest is zero and not looked at.
pub const PRIVATE_MAGIC: u16 = 0xd940;
/// Which bits of the private data are the magic.
pub const PRIVATE_MAGIC_MASK: u16 = 0xfff0;
/// Source ports are of the dynamic range (RFC 6335, section 6), as the draft recommends.
const SOURCE_PORT_MIN: u16 = 0xc000;

/// What the bytes behind a UDP header carry, and how far it may travel; `None` when they are not ours.
pub(crate) fn parse(bytes: &[u8]) -> Option<(Version, HopBudget)> {
    let header: &[u8; HEADER_LEN] = bytes.first_chunk()?;
    let private = u16::from_be_bytes([header[4], header[5]]);
    let without_flags = header[2..4] == [0, 0];
    if header[0] != FIRST_BYTE || !without_flags || private & PRIVATE_MAGIC_MASK != PRIVATE_MAGIC {
        return None;
    }
    let hops = HopBudget::from_wire((private & !PRIVATE_MAGIC_MASK) as u8);
    Some((Version::in_a_tunnel(header[1])?, hops))
}

/// The header in front of a packet of `version`.
pub(crate) fn header(version: Version, hops: HopBudget) -> [u8; HEADER_LEN] {
    let [high, low] = (PRIVATE_MAGIC | u16::from(hops.get())).to_be_bytes();
    [FIRST_BYTE, version.protocol_in_a_tunnel(), 0, 0, high, low, 0, 0]
}

/// The UDP source port for a flow's hash: fourteen bits of it.
pub(crate) fn source_port(flow_hash: u32) -> u16 {
    SOURCE_PORT_MIN | (flow_hash >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_understood() {
        for version in [Version::V4, Version::V6] {
            let bytes = header(version, HopBudget::SPENT);
            assert_eq!(parse(&bytes), Some((version, HopBudget::SPENT)));
            assert_eq!(parse(&bytes[..7]), None);
        }
        assert_eq!(header(Version::V4, HopBudget::SPENT), [1, 4, 0, 0, 0xd9, 0x40, 0, 0]);
    }

    #[test]
    fn other_variants_flags_and_lengths_are_not_ours() {
        let good = header(Version::V6, HopBudget::SPENT);
        for (at, value) in [(0, 0x41), (0, 0x21), (0, 0), (0, 2), (1, 6), (2, 0x80), (3, 1), (4, 0xd8)] {
            let mut bytes = good;
            bytes[at] = value;
            assert_eq!(parse(&bytes), None, "byte {at} is {value:#x}");
        }
        assert_eq!(parse(&[0x45, 0, 0, 20, 0, 0, 0, 0]), None);
    }
}
