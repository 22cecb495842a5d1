//! What offloads left undone of a frame.

use dpr_rewrite::ChecksumState;

/// `struct virtio_net_hdr` (virtio 1.2, section 5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offload {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
/// Set when segments carry ECN's CWR (`VIRTIO_NET_HDR_GSO_ECN`).
const GSO_ECN: u8 = 0x80;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// One datagram's headers and the data of several (`VIRTIO_NET_HDR_GSO_UDP_L4`).
const GSO_UDP_L4: u8 = 5;

impl Offload {
    /// Bytes of the header.
    pub(crate) const LEN: usize = 10;

    /// Reads the header as packet sockets write it, in host byte order.
    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = bytes;
        let half = u16::from_ne_bytes;
        Self {
            flags,
            gso_type,
            hdr_len: half([h0, h1]),
            gso_size: half([g0, g1]),
            csum_start: half([s0, s1]),
            csum_offset: half([o0, o1]),
        }
    }

    /// The header as packet sockets want it in front of a frame.
    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// What the transport checksum field of the frame holds.
    pub(crate) fn checksum(&self) -> ChecksumState {
        if self.flags & NEEDS_CSUM != 0 { ChecksumState::Partial } else { ChecksumState::Complete }
    }

    /// Bytes of data per segment, when the frame is several.
    pub(crate) fn segment_len(&self) -> Option<usize> {
        let known = matches!(self.gso_type & !GSO_ECN, GSO_TCPV4 | GSO_TCPV6 | GSO_UDP_L4);
        let joined = known && self.gso_size > 0;
        joined.then_some(usize::from(self.gso_size))
    }

    /// True when the frame is one packet as it goes on a wire.
    pub(crate) fn is_finished(&self) -> bool {
        self.segment_len().is_none() && self.checksum() == ChecksumState::Complete
    }

    /// True for kinds of joined frames that nothing here can cut (UDP fragmentation offload, gone from Linux since 4.14).
    pub(crate) fn is_foreign(&self) -> bool {
        self.gso_type != GSO_NONE && self.segment_len().is_none()
    }

    /// The same frame after `removed` bytes in front of its packet were taken off.
    pub(crate) fn shifted(mut self, removed: u16) -> Self {
        self.hdr_len = self.hdr_len.saturating_sub(removed);
        if self.flags & NEEDS_CSUM != 0 {
            self.csum_start = self.csum_start.saturating_sub(removed);
        }
        self
    }

    /// The same frame with `added` bytes more in front of its packet.
    pub(crate) fn behind(mut self, added: u16) -> Self {
        if self.hdr_len != 0 {
            self.hdr_len = self.hdr_len.saturating_add(added);
        }
        if self.flags & NEEDS_CSUM != 0 {
            self.csum_start = self.csum_start.saturating_add(added);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_moves_with_the_headers_in_front_of_it() {
        let offload = Offload {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 86,
            gso_size: 1440,
            csum_start: 54,
            csum_offset: 16,
        };

        let inner = offload.shifted(20);
        let tagged = offload.behind(4);

        assert_eq!((inner.hdr_len, inner.csum_start, inner.csum_offset), (66, 34, 16));
        assert_eq!((tagged.hdr_len, tagged.csum_start, tagged.csum_offset), (90, 58, 16));
        assert_eq!(inner.segment_len(), Some(1440));
        assert_eq!(inner.checksum(), ChecksumState::Partial);
    }

    #[test]
    fn a_header_is_read_as_it_is_written_one_field_after_the_other() {
        let half = u16::to_ne_bytes;
        let bytes = [[1, 4], half(86), half(1440), half(54), half(16)].concat();

        let offload = Offload::from_bytes(bytes.clone().try_into().unwrap());

        assert_eq!((offload.checksum(), offload.segment_len()), (ChecksumState::Partial, Some(1440)));
        assert_eq!((offload.hdr_len, offload.csum_start, offload.csum_offset), (86, 54, 16));
        assert_eq!(offload.to_bytes()[..], bytes);
    }
}
