//! A packet socket with a memory-mapped receive ring (TPACKET_V2, `Documentation/networking/packet_mmap.rst`).

use super::Frame;
use crate::packet_socket::PacketSocket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

/// Bytes kept of each frame, from its Ethernet header on.
pub const SNAP_LEN: usize = SLOT_LEN - DATA_OFFSET_MAX;

/// One ring slot: header, address, frame.
const SLOT_LEN: usize = 2048;
/// The kernel puts a frame's first byte no later than this into its slot (TPACKET2_HDRLEN, aligned).
const DATA_OFFSET_MAX: usize = 128;
const BLOCK_LEN: usize = 64 * 1024;
const BLOCKS: usize = 512;
const SLOTS: usize = BLOCKS * BLOCK_LEN / SLOT_LEN;

/// The ring, mapped; 32 MiB, 16,384 frames.
#[derive(Debug)]
pub(super) struct Ring {
    socket: PacketSocket,
    memory: *mut u8,
    next: usize,
    lost: u64,
}

// SAFETY: the mapping belongs to this value alone and is reached through `&mut self` only.
unsafe impl Send for Ring {}

impl Ring {
    /// Opens a ring on an interface of the calling thread's namespace.
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        // Unbound until the ring stands: no frame may wait in the socket's own queue.
        let socket = PacketSocket::new()?;
        socket.set_option(libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as libc::c_int))?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_LEN as u32,
            tp_block_nr: BLOCKS as u32,
            tp_frame_size: SLOT_LEN as u32,
            tp_frame_nr: SLOTS as u32,
        };
        socket.set_option(libc::PACKET_RX_RING, &request)?;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BLOCKS * BLOCK_LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ring = Self { socket, memory: memory.cast(), next: 0, lost: 0 };
        ring.socket.bind(interface, libc::ETH_P_ALL as u16)?;
        Ok(ring)
    }

    /// Waits until there is a frame, at most `limit`.
    pub(super) fn wait(&self, limit: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(limit).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands every waiting frame to `take` and gives its slot back.
    pub(super) fn drain(&mut self, take: &mut impl FnMut(Frame)) {
        loop {
            // SAFETY: `next` is below `SLOTS`, so the slot lies within the mapping.
            let slot = unsafe { self.memory.add(self.next * SLOT_LEN) };
            // SAFETY: the kernel aligns slots to 16 bytes and the status word is the first of the header; both sides
            // reach it atomically.
            let status = unsafe { AtomicU32::from_ptr(slot.cast()) };
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                return;
            }
            // SAFETY: the status word says that the slot is ours until it is given back below.
            take(unsafe { read_slot(slot) });
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = (self.next + 1) % SLOTS;
        }
    }

    /// Frames that found no free slot since the ring was opened.
    pub(super) fn lost(&mut self) -> io::Result<u64> {
        // Reading the kernel's figures sets them to zero.
        self.lost += u64::from(self.socket.take_drops()?);
        Ok(self.lost)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `open`, and nothing refers to it any more.
        unsafe { libc::munmap(self.memory.cast(), BLOCKS * BLOCK_LEN) };
    }
}

/// # Safety
///
/// `slot` has to be a slot of the ring that belongs to user space now.
unsafe fn read_slot(slot: *const u8) -> Frame {
    // SAFETY: the kernel wrote a header at the slot's beginning, aligned to 16 bytes.
    let header = unsafe { slot.cast::<libc::tpacket2_hdr>().read() };
    // SAFETY: the link-layer address follows the header, aligned to TPACKET_ALIGNMENT (16 bytes).
    let address = unsafe {
        let offset = size_of::<libc::tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);
        slot.add(offset).cast::<libc::sockaddr_ll>().read()
    };
    let start = usize::from(header.tp_mac).min(SLOT_LEN);
    let length = (header.tp_snaplen as usize).min(SLOT_LEN - start).min(SNAP_LEN);
    // SAFETY: start and length were cut to the slot.
    let bytes = unsafe { std::slice::from_raw_parts(slot.add(start), length) }.to_vec();
    Frame {
        at: UNIX_EPOCH + Duration::new(header.tp_sec.into(), header.tp_nsec),
        // What leaves the switch's port goes to the machine.
        outgoing: address.sll_pkttype != libc::PACKET_OUTGOING,
        bytes,
        length: header.tp_len,
    }
}
