//! The UDP header (RFC 768).

use dpr_model::DropReason;

/// Length of the header, bytes.
pub const HEADER_LEN: usize = 8;

/// Offsets of fields from the start of the header, bytes.
pub mod field {
    /// Length of header and data.
    pub const LENGTH: usize = 4;
    /// Checksum.
    pub const CHECKSUM: usize = 6;
}

/// What the journey asks of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpHeader {
    /// Port of the sender.
    pub source_port: u16,
    /// Port of the receiver.
    pub destination_port: u16,
    /// Length of header and data, bytes; the IP packet may be longer (RFC 9868).
    pub len: u16,
    /// Checksum. Zero says that there is none: allowed over IPv4, and over IPv6 only in tunnels (RFC 8200, section 8.1).
    pub checksum: u16,
}

impl UdpHeader {
    /// Checks the header at the start of `bytes`, which are the payload of an IP packet.
    ///
    /// # Errors
    /// `Truncated` or `Malformed`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let fixed: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(DropReason::Truncated)?;
        let len = u16::from_be_bytes([fixed[4], fixed[5]]);
        if usize::from(len) < HEADER_LEN {
            return Err(DropReason::Malformed);
        }
        if usize::from(len) > bytes.len() {
            return Err(DropReason::Truncated);
        }
        Ok(Self {
            source_port: u16::from_be_bytes([fixed[0], fixed[1]]),
            destination_port: u16::from_be_bytes([fixed[2], fixed[3]]),
            len,
            checksum: u16::from_be_bytes([fixed[6], fixed[7]]),
        })
    }
}

/// A checksum as it goes into the header: a sum of zero is sent as its other representation, since zero says "none".
pub fn checksum_to_send(computed: u16) -> u16 {
    if computed == 0 { 0xffff } else { computed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_may_be_shorter_than_its_packet_but_not_longer() {
        let bytes = [0x30, 0x39, 0, 53, 0, 9, 0xab, 0xcd, 1, 2];
        let header = UdpHeader::parse(&bytes).unwrap();
        assert_eq!((header.source_port, header.destination_port, header.len), (12345, 53, 9));
        assert_eq!(header.checksum, 0xabcd);
        assert_eq!(UdpHeader::parse(&bytes[..8]), Err(DropReason::Truncated));
        assert_eq!(UdpHeader::parse(&bytes[..7]), Err(DropReason::Truncated));
        assert_eq!(UdpHeader::parse(&[0, 1, 0, 2, 0, 7, 0, 0]), Err(DropReason::Malformed));
    }
}
