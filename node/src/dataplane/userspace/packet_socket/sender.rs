//! Frames out, many per system call.

use super::{BATCH, PacketSocket, SOCKET_BUFFER, address_of};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// One frame to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    /// What the device has to do ([`super::Offload::to_bytes`]), and the frame from the Ethernet header on: in one piece, as
    /// the kernel takes longer for two.
    pub(crate) bytes: &'a [u8],
    /// Index of the device.
    pub(crate) link: u32,
}

/// A packet socket that only sends, on any device.
#[derive(Debug)]
pub(crate) struct Sender(PacketSocket);

impl Sender {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = PacketSocket::open()?;
        socket.set_option(libc::SOL_SOCKET, libc::SO_SNDBUF, &SOCKET_BUFFER)?;
        // Beyond the limit only with privileges of the initial namespace.
        let _ = socket.set_option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SOCKET_BUFFER);
        Ok(Self(socket))
    }

    /// Sends as many frames as the device takes; returns how many, and why it was not all of them.
    pub(crate) fn send(&self, frames: &[Outgoing<'_>]) -> (usize, Option<io::Error>) {
        let mut done = 0;
        for chunk in frames.chunks(BATCH) {
            match self.send_chunk(chunk) {
                Ok(count) if count == chunk.len() => done += count,
                Ok(count) => return (done + count, None),
                Err(error) => return (done, Some(error)),
            }
        }
        (done, None)
    }

    fn send_chunk(&self, frames: &[Outgoing<'_>]) -> io::Result<usize> {
        let mut addresses: Vec<libc::sockaddr_ll> =
            frames.iter().map(|outgoing| address_of(outgoing.link)).collect();
        let mut pieces: Vec<libc::iovec> = frames
            .iter()
            .map(|Outgoing { bytes, .. }| libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = pieces
            .iter_mut()
            .zip(&mut addresses)
            .map(|(piece, address)| message_of(piece, address))
            .collect();
        // SAFETY: every message points to an address and to a piece that live until the end of this function; the
        // kernel only reads from the frames.
        let count = unsafe {
            libc::sendmmsg(
                self.0.0.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as u32,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

impl AsFd for Sender {
    /// Writable when there is room for a frame.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn message_of(piece: &mut libc::iovec, address: &mut libc::sockaddr_ll) -> libc::mmsghdr {
    // SAFETY: mmsghdr is plain data for which all zeroes (no name, no pieces, no control data) are a valid value.
    let mut message: libc::mmsghdr = unsafe { zeroed() };
    message.msg_hdr.msg_iov = std::ptr::from_mut(piece);
    message.msg_hdr.msg_iovlen = 1;
    message.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
    message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
    message
}
