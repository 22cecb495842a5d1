//! Frames that are judged and sent together, each where it was received.

use super::ring::{BYTES_AT, SLOT_LEN, Slot};
use super::stripped::Tag;
use super::{BATCH, Offload, stripped};
use dpr_rewrite::ethernet::TAG_LEN;
use dpr_rewrite::tunnel;

/// Free bytes in front of a received frame: for an outer header, VLAN tags that the frame did not have, and what the device has
/// to do.
pub(crate) const HEADROOM: usize = 80;
const _: () = assert!(HEADROOM >= tunnel::OVERHEAD_MAX + 2 * TAG_LEN + Offload::LEN);

/// Longest frame, bytes: an IP packet of 65,535 bytes, Ethernet and two VLAN headers.
const FRAME_LEN_MAX: usize = 65_535 + 22;
/// Where a frame of the queue begins in its buffer: its outer tag may have to be put back.
pub(super) const QUEUED_AT: usize = HEADROOM + TAG_LEN;
/// Where a frame begins in a slot of a ring without a reserve (`tpacket_rcv` in net/packet/af_packet.c).
const UNRESERVED_AT: usize = (BYTES_AT + 16).next_multiple_of(libc::TPACKET_ALIGNMENT) + Offload::LEN
    - dpr_rewrite::ethernet::HEADER_LEN;
/// Free bytes that slots need beyond that, and two more, so that IP headers lie on a multiple of four.
pub(super) const RESERVE: usize = BYTES_AT + QUEUED_AT - UNRESERVED_AT + 2;
const _: () = assert!((UNRESERVED_AT + RESERVE + dpr_rewrite::ethernet::HEADER_LEN).is_multiple_of(4));
/// A full frame of an ordinary Ethernet with two tags fits into a slot.
const _: () = assert!(UNRESERVED_AT + RESERVE + 1500 + 22 <= SLOT_LEN);

/// Memory that a frame lies in.
#[derive(Debug)]
pub(super) enum Memory {
    /// Given back to the kernel with the batch.
    Slot(Slot),
    /// Of our own, for frames that are too long for a slot.
    Own(Box<[u8]>),
}

impl Memory {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Slot(slot) => slot.bytes(),
            Self::Own(bytes) => bytes,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Slot(slot) => slot.bytes_mut(),
            Self::Own(bytes) => bytes,
        }
    }
}

/// A frame as it came.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) memory: Memory,
    /// Where in the memory it begins, and how long it is, bytes.
    pub(super) at: usize,
    pub(super) len: usize,
    /// The outer tag, which the kernel took off.
    pub(super) tag: Option<Tag>,
    pub(super) offload: Offload,
}

/// A received frame in its buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// Which buffer of the batch.
    pub(crate) buffer: usize,
    /// Length of the frame, bytes; it begins at [`HEADROOM`] and has all of its VLAN tags.
    pub(crate) len: usize,
    /// What offloads left undone, as of a frame without tags.
    pub(crate) offload: Offload,
}

/// The buffers of one batch.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    buffers: Vec<Buffer>,
    /// Buffers for long frames that none is in.
    spare: Vec<Box<[u8]>>,
}

#[derive(Debug)]
struct Buffer {
    memory: Memory,
    /// Where in the memory the buffer begins: [`HEADROOM`] in front of the frame.
    start: usize,
}

impl Batch {
    /// A whole buffer, headroom included, to read.
    pub(crate) fn bytes(&self, nth: usize) -> &[u8] {
        let Buffer { memory, start } = &self.buffers[nth];
        &memory.bytes()[*start..]
    }

    /// A whole buffer, headroom included.
    pub(crate) fn buffer(&mut self, nth: usize) -> &mut [u8] {
        let Buffer { memory, start } = &mut self.buffers[nth];
        &mut memory.bytes_mut()[*start..]
    }

    /// Gives all buffers back; what is still wanted of their frames was sent or copied.
    pub(crate) fn clear(&mut self) {
        for buffer in self.buffers.drain(..) {
            self.spare.extend(match buffer.memory {
                Memory::Own(bytes) => Some(bytes),
                Memory::Slot(_) => None,
            });
        }
    }

    /// A buffer for a long frame, which begins at [`QUEUED_AT`]. There are as many as a batch had such frames.
    pub(super) fn take_spare(&mut self) -> Box<[u8]> {
        self.spare.pop().unwrap_or_else(|| vec![0; QUEUED_AT + FRAME_LEN_MAX].into_boxed_slice())
    }

    /// Takes a frame in, with its tag back in its place; `None` for what is no whole one, or does not lie as it should.
    pub(super) fn push(&mut self, arrived: Arrived) -> Option<Received> {
        debug_assert!(self.buffers.len() < BATCH);
        let Arrived { mut memory, at, len, tag, offload } = arrived;
        let end = at.checked_add(len).filter(|end| *end <= memory.bytes().len())?;
        let (at, offload) = match tag {
            Some(tag) => {
                let at = at.checked_sub(TAG_LEN)?;
                (at, stripped::put_back(tag, &mut memory.bytes_mut()[at..end], offload)?)
            }
            None => (at, offload),
        };
        let start = at.checked_sub(HEADROOM)?;
        let received = Received { buffer: self.buffers.len(), len: end - at, offload };
        self.buffers.push(Buffer { memory, start });
        Some(received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_rewrite::ethernet::ethertype;

    const FRAME: [u8; 15] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45];

    fn arrived(at: usize, len: usize, tag: Option<Tag>) -> Arrived {
        let mut memory = vec![0; QUEUED_AT + FRAME.len()].into_boxed_slice();
        memory[QUEUED_AT..].copy_from_slice(&FRAME);
        Arrived { memory: Memory::Own(memory), at, len, tag, offload: Offload::default() }
    }

    #[test]
    fn a_frame_begins_behind_the_headroom_with_its_tag_and_without() {
        let mut batch = Batch::default();
        let plain = batch.push(arrived(QUEUED_AT, FRAME.len(), None)).unwrap();
        let tag = Tag { ethertype: ethertype::VLAN, control: 7 };
        let tagged = batch.push(arrived(QUEUED_AT, FRAME.len(), Some(tag))).unwrap();

        assert_eq!(batch.bytes(plain.buffer)[HEADROOM..HEADROOM + plain.len], FRAME);
        let frame = &batch.bytes(tagged.buffer)[HEADROOM..HEADROOM + tagged.len];
        assert_eq!(frame, [&FRAME[..12], &[0x81, 0x00, 0, 7], &FRAME[12..]].concat());
        assert_eq!(batch.buffer(tagged.buffer).len(), HEADROOM + tagged.len);
    }

    #[test]
    fn what_does_not_lie_as_it_should_is_no_frame() {
        let mut batch = Batch::default();
        let tag = Some(Tag { ethertype: ethertype::VLAN, control: 7 });

        assert!(batch.push(arrived(QUEUED_AT, FRAME.len() + 1, None)).is_none());
        assert!(batch.push(arrived(usize::MAX, 1, None)).is_none());
        assert!(batch.push(arrived(HEADROOM - 1, 14, None)).is_none());
        assert!(batch.push(arrived(HEADROOM, 14, tag)).is_none());
        assert!(batch.push(arrived(QUEUED_AT, 13, tag)).is_none());
        assert!(batch.buffers.is_empty());
    }

    #[test]
    fn buffers_of_long_frames_are_used_again() {
        let mut batch = Batch::default();
        let buffer = batch.take_spare();
        let address = buffer.as_ptr();
        let memory = Memory::Own(buffer);
        batch.push(Arrived { memory, at: QUEUED_AT, len: 64, tag: None, offload: Offload::default() });
        batch.clear();

        assert!(batch.buffers.is_empty());
        let again = batch.take_spare();
        assert_eq!(again.as_ptr(), address);
    }
}
