//! Packet sockets: whole frames in and out, with what the host's offloads left undone.
//!
//! Every frame comes with a virtio header (`PACKET_VNET_HDR`) that says whether its checksum is complete and whether
//! it is in truth several segments. Received frames lie in a ring that is shared with the kernel, and are sent from there;
//! what is too long for a slot comes by the socket's queue. All `unsafe` code of the data plane is in this file and those
//! below it.

mod batch;
mod offload;
mod receiver;
mod ring;
mod sender;
mod stripped;

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub(crate) use batch::{Batch, HEADROOM, Received};
pub(crate) use offload::Offload;
pub(crate) use receiver::{Accept, Receiver};
pub(crate) use sender::{Outgoing, Sender};

/// Frames that are received, judged and sent together: as many as share a system call that sends.
pub(crate) const BATCH: usize = 64;
/// Batches in which everything comes that waits at any one moment: each frame has a slot.
pub(crate) const WAITING_BATCHES_MAX: usize = ring::SLOTS / BATCH;

/// Receive and send buffers that are asked for, bytes; the kernel cuts them to `rmem_max` without privileges.
const SOCKET_BUFFER: libc::c_int = 8 * 1024 * 1024;

/// An `AF_PACKET` socket.
#[derive(Debug)]
struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// A socket that receives nothing until it is bound, as its protocol is 0.
    fn open() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        socket.set_option(libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
        Ok(socket)
    }

    /// From now on sees what comes in on the device `link`.
    fn bind(&self, link: u32) -> io::Result<()> {
        self.bind_to(&address_of(link))
    }

    /// Sends by the device `link` what has no address, and receives nothing.
    fn bind_to_send(&self, link: u32) -> io::Result<()> {
        self.bind_to(&libc::sockaddr_ll { sll_protocol: 0, ..address_of(link) })
    }

    fn bind_to(&self, address: &libc::sockaddr_ll) -> io::Result<()> {
        // SAFETY: `address` is a sockaddr_ll of the length that is passed.
        let result = unsafe {
            libc::bind(
                self.0.as_raw_fd(),
                std::ptr::from_ref(address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Frames for which there was no room since the last call.
    fn take_lost(&self) -> io::Result<u64> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = size_of::<libc::tpacket_stats>() as u32;
        // SAFETY: `statistics` is of the length that is passed; the kernel writes no more than that.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                std::ptr::from_mut(&mut statistics).cast(),
                &mut len,
            )
        };
        if result == 0 { Ok(statistics.tp_drops.into()) } else { Err(io::Error::last_os_error()) }
    }

    fn set_option<T>(&self, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: `value` points to a T, whose size is passed; the kernel only reads it.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                level,
                name,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn address_of(link: u32) -> libc::sockaddr_ll {
    // SAFETY: sockaddr_ll is plain data for which all zeroes are a valid value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = link as i32;
    address
}
