//! Frames out, many per system call.

use super::{BATCH, PacketSocket, SOCKET_BUFFER, address_of};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::null_mut;

/// One frame to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    /// What the device has to do ([`super::Offload::to_bytes`]), and the frame from the Ethernet header on: in one piece, as
    /// the kernel takes longer for two.
    pub(crate) bytes: &'a [u8],
    /// Index of the device.
    pub(crate) link: u32,
}

/// Packet sockets that only send: most frames by one device, and any others by theirs.
#[derive(Debug)]
pub(crate) struct Sender {
    /// Bound to the device: the kernel need not look it up for each frame.
    bound: PacketSocket,
    link: u32,
    /// Told with each frame by which device it leaves.
    any: PacketSocket,
}

impl Sender {
    /// Opens them; `link` is the index of the device that most frames leave by.
    pub(crate) fn open(link: u32) -> io::Result<Self> {
        let bound = open()?;
        bound.bind_to_send(link)?;
        Ok(Self { bound, link, any: open()? })
    }

    /// Sends as many frames as their devices take; returns how many, and why it was not all of them.
    pub(crate) fn send(&self, frames: &[Outgoing<'_>]) -> (usize, Option<io::Error>) {
        let mut done = 0;
        let together = frames.chunk_by(|one, next| one.link == next.link);
        for chunk in together.flat_map(|frames| frames.chunks(BATCH)) {
            match self.send_chunk(chunk) {
                Ok(count) if count == chunk.len() => done += count,
                Ok(count) => return (done + count, None),
                Err(error) => return (done, Some(error)),
            }
        }
        (done, None)
    }

    /// Writable when there is room for a frame to the device `link`.
    pub(crate) fn towards(&self, link: u32) -> BorrowedFd<'_> {
        if link == self.link { self.bound.as_fd() } else { self.any.as_fd() }
    }

    /// Sends frames to one device.
    fn send_chunk(&self, frames: &[Outgoing<'_>]) -> io::Result<usize> {
        let link = frames.first().map_or(self.link, |outgoing| outgoing.link);
        let mut address = address_of(link);
        let name = (link != self.link).then_some(&mut address);
        let name: *mut libc::sockaddr_ll = name.map_or(null_mut(), std::ptr::from_mut);
        let mut pieces: Vec<libc::iovec> = frames
            .iter()
            .map(|Outgoing { bytes, .. }| libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> =
            pieces.iter_mut().map(|piece| message_of(piece, name)).collect();
        // SAFETY: every message points to a piece, and to no address or the one above, which live until the end of this
        // function; the kernel only reads from the frames and the address.
        let count = unsafe {
            libc::sendmmsg(
                self.towards(link).as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as u32,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

fn open() -> io::Result<PacketSocket> {
    let socket = PacketSocket::open()?;
    socket.set_option(libc::SOL_SOCKET, libc::SO_SNDBUF, &SOCKET_BUFFER)?;
    // Beyond the limit only with privileges of the initial namespace.
    let _ = socket.set_option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SOCKET_BUFFER);
    Ok(socket)
}

/// A frame, and to which device; `name` is null for the one that its socket is bound to.
fn message_of(piece: &mut libc::iovec, name: *mut libc::sockaddr_ll) -> libc::mmsghdr {
    // SAFETY: mmsghdr is plain data for which all zeroes (no name, no pieces, no control data) are a valid value.
    let mut message: libc::mmsghdr = unsafe { zeroed() };
    message.msg_hdr.msg_iov = std::ptr::from_mut(piece);
    message.msg_hdr.msg_iovlen = 1;
    if !name.is_null() {
        message.msg_hdr.msg_name = name.cast();
        message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
    }
    message
}
