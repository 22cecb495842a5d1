//! The outer VLAN tag of a received frame: the kernel takes it off, and tells of it beside the frame (`tpacket2_hdr`,
//! packet(7)).

use super::Offload;
use dpr_rewrite::ethernet::{HEADER_LEN, TAG_LEN, ethertype, ethertype_of};

pub(super) use dpr_rewrite::ethernet::Tag;

/// The tag was there (linux/if_packet.h).
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
/// The EtherType that announces it is told, too.
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
/// Both MAC addresses: what stands in front of a tag, bytes.
const TAG_AT: usize = HEADER_LEN - 2;

/// The tag that was taken off the frame of a slot.
pub(super) fn tag_of(status: u32, said: &libc::tpacket2_hdr) -> Option<Tag> {
    if status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let knows_ethertype = status & TP_STATUS_VLAN_TPID_VALID != 0;
    let ethertype = if knows_ethertype { said.tp_vlan_tpid } else { ethertype::VLAN };
    Some(Tag { ethertype, control: said.tp_vlan_tci })
}

/// Puts the tag back in its place; `frame` has the tag's length of room, and then the frame, which begins with that room
/// afterwards. Returns the offload as of a frame without any tags; `None` for a frame that is no whole one.
pub(super) fn put_back(tag: Tag, frame: &mut [u8], offload: Offload) -> Option<Offload> {
    let ethertype = ethertype_of(frame.get(TAG_LEN..)?)?;
    let has_inner = matches!(ethertype, ethertype::VLAN | ethertype::PROVIDER_VLAN);
    frame.copy_within(TAG_LEN..TAG_LEN + TAG_AT, 0);
    frame[TAG_AT..TAG_AT + 2].copy_from_slice(&tag.ethertype.to_be_bytes());
    frame[TAG_AT + 2..TAG_AT + TAG_LEN].copy_from_slice(&tag.control.to_be_bytes());
    Some(if has_inner { offload.shifted(TAG_LEN as u16) } else { offload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_rewrite::ethernet::EthernetHeader;

    #[test]
    fn a_tag_is_put_back_in_front_of_one_that_is_still_there() {
        let with_inner = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0x00, 0, 42, 0x08, 0x00, 0x45];
        let mut frame = [0; TAG_LEN + 19];
        frame[TAG_LEN..].copy_from_slice(&with_inner);
        let outer = Tag { ethertype: ethertype::PROVIDER_VLAN, control: 7 };

        assert_eq!(put_back(outer, &mut frame, Offload::default()), Some(Offload::default()));

        let header = EthernetHeader::parse(&frame).unwrap();
        assert_eq!((header.header_len(), frame[22]), (22, 0x45));
        let inner = Tag { ethertype: ethertype::VLAN, control: 42 };
        assert_eq!(header.tags.as_slice(), [outer, inner]);
        assert_eq!((&frame[..6], &frame[6..12]), (&with_inner[..6], &with_inner[6..12]));
        assert_eq!(put_back(outer, &mut frame[..TAG_LEN + 13], Offload::default()), None);
    }
}
