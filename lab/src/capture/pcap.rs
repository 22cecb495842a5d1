//! The pcap file format (draft-ietf-opsawg-pcap), nanosecond variant.

use super::{Frame, SNAP_LEN};
use std::time::UNIX_EPOCH;

/// Magic number of files with nanosecond timestamps.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
/// LINKTYPE_ETHERNET.
const LINK_TYPE_ETHERNET: u32 = 1;

/// The whole file.
pub(super) fn file(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC_NANOSECONDS.to_le_bytes());
    bytes.extend_from_slice(&2u16.to_le_bytes());
    bytes.extend_from_slice(&4u16.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&(SNAP_LEN as u32).to_le_bytes());
    bytes.extend_from_slice(&LINK_TYPE_ETHERNET.to_le_bytes());
    for frame in frames {
        let at = frame.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Seconds are 32 bits in this format; they wrap in 2106.
        bytes.extend_from_slice(&(at.as_secs() as u32).to_le_bytes());
        bytes.extend_from_slice(&at.subsec_nanos().to_le_bytes());
        bytes.extend_from_slice(&(frame.bytes.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&frame.length.to_le_bytes());
        bytes.extend_from_slice(&frame.bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_file_is_a_header_and_one_record_per_frame() {
        let at = UNIX_EPOCH + Duration::new(0x0102_0304, 5);
        let frame = Frame { at, outgoing: true, bytes: vec![0xaa, 0xbb], length: 1500 };
        let bytes = file(&[frame]);
        assert_eq!(&bytes[..8], &[0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0]);
        assert_eq!(&bytes[20..24], &[1, 0, 0, 0]);
        assert_eq!(&bytes[24..32], &[4, 3, 2, 1, 5, 0, 0, 0]);
        assert_eq!(&bytes[32..], &[2, 0, 0, 0, 0xdc, 5, 0, 0, 0xaa, 0xbb]);
    }
}
