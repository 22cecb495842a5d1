//! A ring of slots in memory that is shared with the kernel, for received frames (`TPACKET_V2`,
//! Documentation/networking/packet_mmap.rst).
//!
//! The kernel writes each frame into the next slot if that is its own, and hands it over by the slot's status word. A slot
//! that was taken out is its taker's alone, to be written to as well, until it is dropped; then it is the kernel's again.

use super::PacketSocket;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a slot: room for a full frame of an ordinary Ethernet, and for the largest outer headers in front of it.
pub(super) const SLOT_LEN: usize = 2048;
/// What the kernel allocates in one piece, bytes.
const BLOCK_LEN: usize = 64 * 1024;
const BLOCKS: usize = 128;
/// At 300,000 packets a second, 13 ms of them.
pub(super) const SLOTS: usize = BLOCKS * BLOCK_LEN / SLOT_LEN;
const RING_LEN: usize = BLOCKS * BLOCK_LEN;

/// The `sockaddr_ll` of the frame's sender, behind the aligned header.
const ADDRESS_AT: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);
const PACKET_TYPE_AT: usize = ADDRESS_AT + std::mem::offset_of!(libc::sockaddr_ll, sll_pkttype);
/// Behind what the kernel says beside the frame (`TPACKET2_HDRLEN`).
pub(super) const BYTES_AT: usize = ADDRESS_AT + size_of::<libc::sockaddr_ll>();

/// The slot is taken: neither for the kernel to write to nor to be taken again. In slots of this version of the ring the
/// kernel gives this bit no meaning.
const TAKEN: u32 = 1 << 16;

/// Options of packet sockets (linux/if_packet.h).
const PACKET_COPY_THRESH: libc::c_int = 7;
const PACKET_RESERVE: libc::c_int = 12;

/// The kernel's end of a ring is a socket's; this is the other one.
#[derive(Debug)]
pub(super) struct Ring {
    memory: Arc<Memory>,
    next: usize,
}

impl Ring {
    /// Gives `socket`, which must not be bound yet, a ring whose slots have `reserve` bytes more in front of their frames.
    pub(super) fn of(socket: &PacketSocket, reserve: libc::c_int) -> io::Result<Self> {
        let set = |name, value: libc::c_int| socket.set_option(libc::SOL_PACKET, name, &value);
        set(libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as libc::c_int)?;
        set(PACKET_RESERVE, reserve)?;
        // What does not fit into a slot comes by the socket's queue as well. The kernel asks only whether this is 0.
        set(PACKET_COPY_THRESH, 1)?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_LEN as u32,
            tp_block_nr: BLOCKS as u32,
            tp_frame_size: SLOT_LEN as u32,
            tp_frame_nr: SLOTS as u32,
        };
        socket.set_option(libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        Ok(Self::over(Memory::map(socket.0.as_raw_fd(), libc::MAP_SHARED)?))
    }

    fn over(memory: Memory) -> Self {
        Self { memory: Arc::new(memory), next: 0 }
    }

    /// Takes the next frame, if there is one.
    pub(super) fn take(&mut self) -> Option<Slot> {
        let status_word = self.memory.status(self.next);
        // Acquire: what the kernel wrote before it handed the slot over is seen behind this.
        let status = status_word.load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        status_word.store(TAKEN, Ordering::Relaxed);
        let slot = Slot { memory: self.memory.clone(), nth: self.next, status };
        self.next = (self.next + 1) % SLOTS;
        Some(slot)
    }
}

/// A slot that was taken out of the ring, with its frame.
#[derive(Debug)]
pub(super) struct Slot {
    memory: Arc<Memory>,
    /// Below `SLOTS`. No other slot has the same number, as the status word says that it is taken.
    nth: usize,
    /// What the kernel said when it handed the slot over.
    status: u32,
}

impl Slot {
    /// What the kernel says of the frame (`TP_STATUS_*`).
    pub(super) fn status(&self) -> u32 {
        self.status
    }

    /// What the kernel says beside the frame; `tp_status` is of no meaning.
    pub(super) fn header(&self) -> libc::tpacket2_hdr {
        // SAFETY: each slot begins with a header, aligned to 16 bytes, which the kernel reads only while the slot is taken.
        unsafe { self.memory.slot(self.nth).cast::<libc::tpacket2_hdr>().read() }
    }

    /// To whom the frame was (`PACKET_HOST` and others).
    pub(super) fn packet_type(&self) -> u8 {
        // SAFETY: the address is within the slot, and nobody writes to it while the slot is taken.
        unsafe { self.memory.slot(self.nth).add(PACKET_TYPE_AT).read() }
    }

    /// The slot from [`BYTES_AT`] on.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: these bytes are within the slot, the kernel touches none of them while it is taken, and whoever writes to
        // them needs this value mutably.
        unsafe { std::slice::from_raw_parts(self.memory.slot(self.nth).add(BYTES_AT), SLOT_LEN - BYTES_AT) }
    }

    /// The slot from [`BYTES_AT`] on.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; no other value has this slot.
        unsafe {
            std::slice::from_raw_parts_mut(self.memory.slot(self.nth).add(BYTES_AT), SLOT_LEN - BYTES_AT)
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Release: whatever was read from the slot or written to it was so before the kernel may write to it.
        self.memory.status(self.nth).store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

/// The mapping, for as long as the ring or a slot of it is there.
#[derive(Debug)]
struct Memory(NonNull<u8>);

// SAFETY: the mapping belongs to the process and not to a thread. Each slot is reached by one `Slot` at most, which may move
// between threads; all that is shared are status words, and these are atomic.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn map(fd: RawFd, flags: libc::c_int) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), RING_LEN, access, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(base.cast()).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Where a slot begins; `nth` has to be below `SLOTS`.
    fn slot(&self, nth: usize) -> *mut u8 {
        debug_assert!(nth < SLOTS);
        // SAFETY: blocks are whole multiples of slots and follow each other without gaps, so this is within the mapping.
        unsafe { self.0.as_ptr().add(nth * SLOT_LEN) }
    }

    fn status(&self, nth: usize) -> &AtomicU32 {
        // SAFETY: the status word is the first of a slot, which is aligned to 16 bytes; both sides reach it atomically.
        unsafe { AtomicU32::from_ptr(self.slot(nth).cast()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `map`, and no slot of it is left, as each holds this value.
        unsafe { libc::munmap(self.0.as_ptr().cast(), RING_LEN) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring whose other end is the test's.
    fn ring() -> Ring {
        Ring::over(Memory::map(-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).unwrap())
    }

    fn hand_over(ring: &Ring, nth: usize, packet_type: u8) {
        // SAFETY: the slot is not taken, so it is this end's.
        unsafe { ring.memory.slot(nth).add(PACKET_TYPE_AT).write(packet_type) };
        ring.memory.status(nth).store(libc::TP_STATUS_USER | libc::TP_STATUS_COPY, Ordering::Release);
    }

    #[test]
    fn a_slot_is_taken_once_and_given_back_when_it_is_dropped() {
        let mut ring = ring();
        assert!(ring.take().is_none());
        hand_over(&ring, 0, libc::PACKET_OTHERHOST);

        let mut slot = ring.take().unwrap();
        assert!(slot.status() & libc::TP_STATUS_COPY != 0);
        assert_eq!(slot.packet_type(), libc::PACKET_OTHERHOST);
        slot.bytes_mut()[SLOT_LEN - BYTES_AT - 1] = 7;
        assert_eq!(slot.bytes().last(), Some(&7));
        assert_ne!(ring.memory.status(0).load(Ordering::Acquire), libc::TP_STATUS_KERNEL);

        drop(slot);
        assert_eq!(ring.memory.status(0).load(Ordering::Acquire), libc::TP_STATUS_KERNEL);
    }

    #[test]
    fn all_the_way_round_a_slot_that_is_still_taken_is_not_taken_again() {
        let mut ring = ring();
        hand_over(&ring, 0, 0);
        let held = ring.take().unwrap();
        for nth in 1..SLOTS {
            hand_over(&ring, nth, 0);
            assert!(ring.take().is_some());
        }
        assert!(ring.take().is_none());

        drop(held);
        hand_over(&ring, 0, 0);
        assert!(ring.take().is_some());
    }

    #[test]
    fn slots_outlive_their_ring() {
        let mut ring = ring();
        hand_over(&ring, 0, 0);
        let mut slot = ring.take().unwrap();
        drop(ring);
        slot.bytes_mut().fill(1);
    }
}
