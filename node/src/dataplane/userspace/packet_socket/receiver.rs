//! Frames in: out of the ring, and out of the socket's queue where they are too long for a slot.

use super::batch::{Arrived, Batch, Memory, QUEUED_AT, RESERVE, Received};
use super::ring::{BYTES_AT, Ring, Slot};
use super::{BATCH, Offload, PacketSocket, SOCKET_BUFFER, stripped};
use dpr_model::MacAddress;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// `PACKET_MR_UNICAST` of linux/if_packet.h: one more MAC address for the card to accept.
const PACKET_MR_UNICAST: libc::c_int = 3;

/// Whose frames a socket shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accept {
    /// Frames addressed to this host, and broadcasts and multicasts, by which neighbours are asked for.
    ForThisHost,
    /// Everything that comes in.
    Any,
}

/// A packet socket that only receives.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: PacketSocket,
    ring: Ring,
    accept: Accept,
    /// MAC addresses of other hosts too, whose frames are taken as well.
    shared_macs: Vec<MacAddress>,
}

impl Receiver {
    /// A socket that sees what comes in on the device `link` and passes `filter`. It sees nothing before the filter
    /// is in place, so that the first frames are right as well.
    pub(crate) fn open(link: u32, filter: &[libc::sock_filter], accept: Accept) -> io::Result<Self> {
        let socket = PacketSocket::open()?;
        socket.set_option(libc::SOL_SOCKET, libc::SO_RCVBUF, &SOCKET_BUFFER)?;
        // Beyond the limit only with privileges of the initial namespace.
        let _ = socket.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &SOCKET_BUFFER);
        socket.set_option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)?;
        let ring = Ring::of(&socket, RESERVE as libc::c_int)?;
        let receiver = Self { socket, ring, accept, shared_macs: Vec::new() };
        receiver.attach(filter)?;
        receiver.socket.bind(link)?;
        Ok(receiver)
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
            self.socket.set_option(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)?;
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
        self.socket.set_option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// Receives what is there, up to a batch; never blocks. `batch` and `received` are overwritten. False when nothing was
    /// there; what came and is not for this host was there.
    ///
    /// # Errors
    /// The device went down (`ENETDOWN`), or the socket cannot be read.
    pub(crate) fn receive(&mut self, batch: &mut Batch, received: &mut Vec<Received>) -> io::Result<bool> {
        batch.clear();
        received.clear();
        for nth in 0..BATCH {
            let Some(slot) = self.ring.take() else {
                if nth == 0 {
                    // Otherwise the socket stays readable for its error.
                    sockopt::socket_error(&self.socket)??;
                }
                return Ok(nth > 0);
            };
            let arrived = self.arrived(slot, batch)?;
            received.extend(arrived.and_then(|arrived| batch.push(arrived)));
        }
        Ok(true)
    }

    /// How many frames came in while all slots were full, since the last call.
    pub(crate) fn take_lost(&self) -> io::Result<u64> {
        self.socket.take_lost()
    }

    /// The frame of a slot, wherever it is; `None` if it is not for this host, or not whole.
    fn arrived(&self, slot: Slot, batch: &mut Batch) -> io::Result<Option<Arrived>> {
        let (header, status) = (slot.header(), slot.status());
        let at = usize::from(header.tp_mac).checked_sub(BYTES_AT);
        let (Some(at), len) = (at, header.tp_len as usize) else { return Ok(None) };
        let bytes = slot.bytes();
        let is_ours = bytes.get(at..at + 6).is_some_and(|to| self.accepts(slot.packet_type(), to));
        let tag = stripped::tag_of(status, &header);
        if status & libc::TP_STATUS_COPY != 0 {
            // Taken out in any case: each such slot has one frame in the queue.
            let mut buffer = batch.take_spare();
            let offload = self.receive_queued(&mut buffer, len)?;
            let memory = Memory::Own(buffer);
            let whole = offload.map(|offload| Arrived { memory, at: QUEUED_AT, len, tag, offload });
            return Ok(whole.filter(|_| is_ours));
        }
        let offload = at.checked_sub(Offload::LEN).and_then(|start| bytes[start..].first_chunk());
        let offload = offload.copied().map(Offload::from_bytes);
        let is_whole = header.tp_snaplen == header.tp_len;
        let whole = offload.filter(|_| is_ours && is_whole);
        Ok(whole.map(|offload| Arrived { memory: Memory::Slot(slot), at, len, tag, offload }))
    }

    /// The next frame of the queue, to [`QUEUED_AT`]; `None` if it is not one of `len` bytes.
    fn receive_queued(&self, buffer: &mut [u8], len: usize) -> io::Result<Option<Offload>> {
        let room = &mut buffer[QUEUED_AT - Offload::LEN..];
        let receive = |room: &mut [u8]| recv(&self.socket, room, RecvFlags::DONTWAIT | RecvFlags::TRUNC);
        let result = match receive(room) {
            // The socket's error is told once, and before what is in its queue.
            Err(error) if error != Errno::AGAIN => receive(room),
            result => result,
        };
        match result {
            Ok((_, whole_len)) if whole_len == Offload::LEN + len && whole_len <= room.len() => {
                Ok(room.first_chunk().copied().map(Offload::from_bytes))
            }
            Ok(_) | Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
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
}

impl AsFd for Receiver {
    /// Readable when there is something to receive.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
