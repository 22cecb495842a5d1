//! The outer VLAN tag of a received frame: the kernel takes it off, and tells of it beside the frame (`PACKET_AUXDATA`,
//! packet(7)).

use super::Offload;
use dpr_rewrite::ethernet::{HEADER_LEN, TAG_LEN, Tag, ethertype, ethertype_of};
use std::mem::{size_of, size_of_val};

/// The tag was there (linux/if_packet.h).
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
/// The EtherType that announces it is told, too.
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
/// Both MAC addresses: what stands in front of a tag, bytes.
const TAG_AT: usize = HEADER_LEN - 2;

/// Room for what the kernel says beside one frame: a `cmsghdr` and a `tpacket_auxdata`, aligned as those want it.
#[derive(Clone, Copy, Default)]
pub(super) struct Control([u64; 5]);

const _: () =
    assert!(size_of::<Control>() >= size_of::<libc::cmsghdr>() + size_of::<libc::tpacket_auxdata>());

impl Control {
    /// Has the kernel write here what it says beside the frame of `message`.
    pub(super) fn ask(&mut self, mut message: libc::mmsghdr) -> libc::mmsghdr {
        message.msg_hdr.msg_control = self.0.as_mut_ptr().cast();
        message.msg_hdr.msg_controllen = size_of_val(&self.0);
        message
    }
}

/// The tag that was taken off the frame of a message that the kernel has filled in.
pub(super) fn tag_of(message: &libc::msghdr) -> Option<Tag> {
    // SAFETY: pointer and length of the control data are those of a `Control`, as far as the kernel has filled it.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref()? };
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: a message of this type is one `tpacket_auxdata`, which any bytes are a valid value of.
    let said = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
    if said.tp_status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let knows_ethertype = said.tp_status & TP_STATUS_VLAN_TPID_VALID != 0;
    let ethertype = if knows_ethertype { said.tp_vlan_tpid } else { ethertype::VLAN };
    Some(Tag { ethertype, control: said.tp_vlan_tci })
}

/// Puts the tag back in its place; `frame` is a buffer with `len` bytes of a frame and room behind them. Returns the length
/// with the tag, and the offload as of a frame without any tags; `None` for a frame that is no whole one, or too long.
pub(super) fn put_back(tag: Tag, frame: &mut [u8], len: usize, offload: Offload) -> Option<(usize, Offload)> {
    let ethertype = ethertype_of(frame.get(..len)?)?;
    let has_inner = matches!(ethertype, ethertype::VLAN | ethertype::PROVIDER_VLAN);
    if len + TAG_LEN > frame.len() {
        return None;
    }
    frame.copy_within(TAG_AT..len, TAG_AT + TAG_LEN);
    frame[TAG_AT..TAG_AT + 2].copy_from_slice(&tag.ethertype.to_be_bytes());
    frame[TAG_AT + 2..TAG_AT + TAG_LEN].copy_from_slice(&tag.control.to_be_bytes());
    Some((len + TAG_LEN, if has_inner { offload.shifted(TAG_LEN as u16) } else { offload }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_rewrite::ethernet::EthernetHeader;

    #[test]
    fn a_tag_is_put_back_in_front_of_one_that_is_still_there() {
        let with_inner = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0x00, 0, 42, 0x08, 0x00, 0x45];
        let mut frame = [0; 32];
        frame[..with_inner.len()].copy_from_slice(&with_inner);
        let outer = Tag { ethertype: ethertype::PROVIDER_VLAN, control: 7 };

        let (len, _) = put_back(outer, &mut frame, with_inner.len(), Offload::default()).unwrap();

        let header = EthernetHeader::parse(&frame[..len]).unwrap();
        assert_eq!((len, header.header_len(), frame[22]), (23, 22, 0x45));
        let inner = Tag { ethertype: ethertype::VLAN, control: 42 };
        assert_eq!(header.tags.as_slice(), [outer, inner]);
        assert_eq!(put_back(outer, &mut frame, 13, Offload::default()), None);
        assert_eq!(put_back(outer, &mut frame, 29, Offload::default()), None);
    }
}
