//! The Ethernet II header.

use dpr_model::MacAddress;

/// Length of the header without tags, bytes.
pub const HEADER_LEN: usize = 14;

/// EtherType numbers (IANA).
pub mod ethertype {
    /// Internet Protocol version 4.
    pub const IPV4: u16 = 0x0800;
    /// Address Resolution Protocol.
    pub const ARP: u16 = 0x0806;
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
