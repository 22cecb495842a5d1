//! Packet sockets: whole frames in and out, many per system call, with what the host's offloads left undone.
//!
//! Every frame comes with a virtio header (`PACKET_VNET_HDR`) that says whether its checksum is complete and whether
//! it is in truth several segments. All `unsafe` code of the data plane is in this file and those below it.

mod offload;
mod stripped;

use dpr_model::MacAddress;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use stripped::Control;

pub(crate) use offload::Offload;

/// Free bytes in front of a received frame, for an outer header.
pub(crate) const HEADROOM: usize = 64;
/// Longest frame: an IP packet of 65,535 bytes, Ethernet and two VLAN headers.
const FRAME_LEN_MAX: usize = 65_535 + 22;
/// `PACKET_MR_UNICAST` of linux/if_packet.h: one more MAC address for the card to accept.
const PACKET_MR_UNICAST: libc::c_int = 3;
/// Frames per system call. More gain little, and each needs a buffer of 64 KiB.
pub(crate) const BATCH: usize = 64;

/// Receive and send buffers that are asked for, bytes; the kernel cuts them to `rmem_max` without privileges.
const SOCKET_BUFFER: libc::c_int = 8 * 1024 * 1024;

/// Bytes that a waiting frame takes of the buffer at least: `SKB_TRUESIZE(0)` of linux/skbuff.h is more.
const WAITING_FRAME_MIN: usize = 512;
/// Batches in which everything comes that waits at any one moment: the kernel doubles what is asked for (socket(7)).
pub(crate) const WAITING_BATCHES_MAX: usize = 2 * SOCKET_BUFFER as usize / WAITING_FRAME_MIN / BATCH;

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

/// Buffers for one batch of frames, reused for ever.
pub(crate) struct Batch {
    buffers: Vec<Box<[u8]>>,
    offloads: Vec<Offload>,
    addresses: Vec<libc::sockaddr_ll>,
    controls: Vec<Control>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        // SAFETY: sockaddr_ll is plain data for which all zeroes are a valid value.
        let address: libc::sockaddr_ll = unsafe { zeroed() };
        Self {
            buffers: (0..BATCH).map(|_| vec![0; HEADROOM + FRAME_LEN_MAX].into_boxed_slice()).collect(),
            offloads: vec![Offload::default(); BATCH],
            addresses: vec![address; BATCH],
            controls: vec![Control::default(); BATCH],
        }
    }

    /// A whole buffer, headroom included, to read.
    pub(crate) fn bytes(&self, nth: usize) -> &[u8] {
        &self.buffers[nth]
    }

    /// A whole buffer, headroom included.
    pub(crate) fn buffer(&mut self, nth: usize) -> &mut [u8] {
        &mut self.buffers[nth]
    }
}

/// One frame to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    /// From the Ethernet header on.
    pub(crate) frame: &'a [u8],
    /// What the device has to do.
    pub(crate) offload: Offload,
    /// Index of the device.
    pub(crate) link: u32,
}

/// Whose frames a socket shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accept {
    /// Frames addressed to this host, and broadcasts and multicasts, by which neighbours are asked for.
    ForThisHost,
    /// Everything that comes in.
    Any,
}

/// An `AF_PACKET` socket.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    accept: Accept,
    /// MAC addresses of other hosts too, whose frames are taken as well.
    shared_macs: Vec<MacAddress>,
}

impl PacketSocket {
    /// A socket that sees what comes in on the device `link` and passes `filter`. It sees nothing before the filter
    /// is in place, so that the first frames are right as well.
    pub(crate) fn receiver(link: u32, filter: &[libc::sock_filter], accept: Accept) -> io::Result<Self> {
        let socket = Self { fd: open(0)?, accept, shared_macs: Vec::new() };
        socket.set_option(libc::SOL_SOCKET, libc::SO_RCVBUF, &SOCKET_BUFFER)?;
        // Beyond the limit only with privileges of the initial namespace.
        let _ = socket.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &SOCKET_BUFFER);
        socket.set_option(libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
        socket.set_option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)?;
        socket.set_option(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1)?;
        socket.attach(filter)?;
        socket.bind(link)?;
        Ok(socket)
    }

    /// A socket that only sends, on any device.
    pub(crate) fn sender() -> io::Result<Self> {
        let socket = Self { fd: open(0)?, accept: Accept::Any, shared_macs: Vec::new() };
        socket.set_option(libc::SOL_SOCKET, libc::SO_SNDBUF, &SOCKET_BUFFER)?;
        let _ = socket.set_option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SOCKET_BUFFER);
        socket.set_option(libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
        Ok(socket)
    }

    /// Takes also what is sent to `macs`, and has the card let it through.
    ///
    /// # Errors
    /// The device refuses.
    pub(crate) fn take_also(
        &mut self,
        link: u32,
        macs: impl IntoIterator<Item = MacAddress>,
    ) -> io::Result<()> {
        for mac in macs {
            let kind = if mac.is_group() { libc::PACKET_MR_MULTICAST } else { PACKET_MR_UNICAST };
            let mut address = [0; 8];
            address[..6].copy_from_slice(&mac.0);
            let request = libc::packet_mreq {
                mr_ifindex: link as i32,
                mr_type: kind as u16,
                mr_alen: 6,
                mr_address: address,
            };
            self.set_option(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)?;
            self.shared_macs.push(mac);
        }
        Ok(())
    }

    /// Replaces the filter; no frame is seen by none of the two.
    pub(crate) fn attach(&self, filter: &[libc::sock_filter]) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
            // The kernel copies the program and does not write to it.
            filter: filter.as_ptr().cast_mut(),
        };
        self.set_option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// Receives what is there, up to a batch; never blocks. `received` is overwritten.
    pub(crate) fn receive(&self, batch: &mut Batch, received: &mut Vec<Received>) -> io::Result<()> {
        received.clear();
        let mut pieces: Vec<[libc::iovec; 2]> = batch
            .buffers
            .iter_mut()
            .zip(&mut batch.offloads)
            .map(|(buffer, offload)| [iovec_of(offload), iovec_of_bytes(&mut buffer[HEADROOM..])])
            .collect();
        let mut messages: Vec<libc::mmsghdr> = pieces
            .iter_mut()
            .zip(&mut batch.addresses)
            .zip(&mut batch.controls)
            .map(|((pieces, address), control)| control.ask(message_of(pieces, address)))
            .collect();
        // SAFETY: every message points to an address, to two pieces and to room for control data, each to memory that
        // `batch` owns and lends mutably for the length of the call.
        let count = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
        for (nth, message) in messages.iter().take(count).enumerate() {
            let truncated = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            let len = (message.msg_len as usize).saturating_sub(size_of::<Offload>());
            let frame = &mut batch.buffers[nth][HEADROOM..];
            if truncated || !self.accepts(batch.addresses[nth].sll_pkttype, &frame[..6]) {
                continue;
            }
            let whole = match stripped::tag_of(&message.msg_hdr) {
                Some(tag) => stripped::put_back(tag, frame, len, batch.offloads[nth]),
                None => Some((len, batch.offloads[nth])),
            };
            received.extend(whole.map(|(len, offload)| Received { buffer: nth, len, offload }));
        }
        Ok(())
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
        let mut offloads: Vec<Offload> = frames.iter().map(|outgoing| outgoing.offload).collect();
        let mut addresses: Vec<libc::sockaddr_ll> =
            frames.iter().map(|outgoing| address_of(outgoing.link)).collect();
        let mut pieces: Vec<[libc::iovec; 2]> = frames
            .iter()
            .zip(&mut offloads)
            .map(|(outgoing, offload)| {
                let frame = outgoing.frame;
                [
                    iovec_of(offload),
                    libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() },
                ]
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = pieces
            .iter_mut()
            .zip(&mut addresses)
            .map(|(pieces, address)| message_of(pieces, address))
            .collect();
        // SAFETY: every message points to an address and to two pieces that live until the end of this function; the
        // kernel only reads from the frames.
        let count = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as u32,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn accepts(&self, packet_type: u8, destination: &[u8]) -> bool {
        match self.accept {
            Accept::Any => packet_type != libc::PACKET_OUTGOING,
            Accept::ForThisHost => {
                matches!(packet_type, libc::PACKET_HOST | libc::PACKET_BROADCAST | libc::PACKET_MULTICAST)
                    || self.shared_macs.iter().any(|mac| mac.0 == destination)
            }
        }
    }

    fn bind(&self, link: u32) -> io::Result<()> {
        let address = address_of(link);
        // SAFETY: `address` is a sockaddr_ll of the length that is passed.
        let result = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn set_option<T>(&self, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: `value` points to a T, whose size is passed; the kernel only reads it.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
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
        self.fd.as_fd()
    }
}

/// Opened with protocol 0, a packet socket receives nothing until it is bound.
fn open(protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address_of(link: u32) -> libc::sockaddr_ll {
    // SAFETY: sockaddr_ll is plain data for which all zeroes are a valid value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = link as i32;
    address
}

fn iovec_of(offload: &mut Offload) -> libc::iovec {
    libc::iovec { iov_base: std::ptr::from_mut(offload).cast(), iov_len: size_of::<Offload>() }
}

fn iovec_of_bytes(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn message_of(pieces: &mut [libc::iovec; 2], address: &mut libc::sockaddr_ll) -> libc::mmsghdr {
    // SAFETY: mmsghdr is plain data for which all zeroes (no name, no pieces, no control data) are a valid value.
    let mut message: libc::mmsghdr = unsafe { zeroed() };
    message.msg_hdr.msg_iov = pieces.as_mut_ptr();
    message.msg_hdr.msg_iovlen = pieces.len();
    message.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
    message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
    message
}
