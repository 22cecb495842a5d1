//! The Ethernet II header.

use core::fmt;

/// Length of the header without tags, bytes.
pub const HEADER_LEN: usize = 14;

/// EtherType numbers (IANA).
pub mod ethertype {
    /// Internet Protocol version 4.
    pub const IPV4: u16 = 0x0800;
    /// Address Resolution Protocol.
    pub const ARP: u16 = 0x0806;
}

/// A 48-bit hardware address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// True for multicast and broadcast addresses.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The EtherType of a frame, if it has a whole header.
pub fn ethertype_of(frame: &[u8]) -> Option<u16> {
    let header: &[u8; HEADER_LEN] = frame.first_chunk()?;
    Some(u16::from_be_bytes([header[12], header[13]]))
}

/// Source address of a frame, if it has a whole header.
pub fn source_of(frame: &[u8]) -> Option<MacAddress> {
    let header: &[u8; HEADER_LEN] = frame.first_chunk()?;
    Some(MacAddress([header[6], header[7], header[8], header[9], header[10], header[11]]))
}

/// A header's bytes.
pub fn header(destination: MacAddress, source: MacAddress, ethertype: u16) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..6].copy_from_slice(&destination.0);
    bytes[6..12].copy_from_slice(&source.0);
    bytes[12..].copy_from_slice(&ethertype.to_be_bytes());
    bytes
}
