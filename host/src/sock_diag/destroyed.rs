//! TCP sockets that are no more, as the kernel tells it (`SKNLGRP_INET_TCP_DESTROY` of `linux/sock_diag.h`).
//!
//! A socket is told of when the kernel frees it: when the connection is over, or when nothing is left of it but the wait for
//! stragglers. Half-open ones are not told of.

use super::{Answer, SOCK_DIAG_BY_FAMILY, canonical};
use crate::transport::{NetlinkError, aligned};
use netlink_packet_core::NetlinkBuffer;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use std::io;
use std::net::SocketAddr;

/// `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY`.
const GROUPS: [u32; 2] = [1, 3];

/// Room for some ten thousand notifications, of about 400 bytes and as much for the kernel to keep each; less where
/// `rmem_max` is lower and nobody may exceed it.
const RECEIVE_BUFFER_LEN: usize = 8 << 20;

/// Larger than any notification.
const DATAGRAM_LEN_MAX: usize = 4096;

const OPERATION: &str = "hear of TCP sockets that end";

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// There is no more to hear at the moment.
    All,
    /// There may be more.
    Some,
    /// The kernel had no room for others that came meanwhile; there may be more.
    SomeLost,
}

/// A non-blocking socket that hears of the ends of TCP sockets in the namespace in which it was opened.
pub struct DestroyedSockets {
    socket: Socket,
    buffer: Vec<u8>,
}

impl DestroyedSockets {
    /// Starts to listen. Needs no privilege.
    ///
    /// # Errors
    /// The kernel cannot tell (`CONFIG_INET_DIAG`).
    pub fn open() -> Result<Self, NetlinkError> {
        Self::try_open().map_err(|error| NetlinkError::socket(OPERATION, error))
    }

    fn try_open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        if set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_LEN).is_err() {
            socket.set_rx_buf_sz(RECEIVE_BUFFER_LEN as libc::c_int)?;
        }
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM_LEN_MAX) })
    }

    /// Hands the local and the remote end of sockets that have ended to `on_end`, of at most `max` of them; those of IPv4
    /// connections of IPv6 sockets with their IPv4 addresses.
    ///
    /// # Errors
    /// The socket cannot be read, or the kernel speaks in another way than expected.
    pub fn hear(
        &mut self,
        max: usize,
        mut on_end: impl FnMut(SocketAddr, SocketAddr),
    ) -> Result<Heard, NetlinkError> {
        for _ in 0..max {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, 0) {
                // Processes may write to each other; only the kernel's port number is zero.
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok(_) => read(&self.buffer, &mut on_end)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::All),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Heard::SomeLost),
                Err(error) => return Err(NetlinkError::socket(OPERATION, error)),
            }
        }
        Ok(Heard::Some)
    }
}

fn read(datagram: &[u8], on_end: &mut impl FnMut(SocketAddr, SocketAddr)) -> Result<(), NetlinkError> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest)
            .map_err(|error| NetlinkError::malformed(OPERATION, error.to_string()))?;
        if message.message_type() == SOCK_DIAG_BY_FAMILY {
            let ended = Answer::parse(OPERATION, message.payload())?;
            on_end(canonical(ended.local), canonical(ended.remote));
        }
        rest = rest.get(aligned(message.length() as usize)..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    #[test]
    fn a_socket_is_told_of_when_its_connection_has_ended_and_not_before() {
        let mut destroyed = DestroyedSockets::open().unwrap();
        let listener = TcpListener::bind("[::]:0").unwrap();
        let target = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let client = TcpStream::connect(target).unwrap();
        let server = listener.accept().unwrap().0;
        let ends = (client.local_addr().unwrap(), target);
        assert!(!is_told(&mut destroyed, ends, Duration::from_millis(100)));

        drop(client);
        drop(server);

        assert!(is_told(&mut destroyed, ends, Duration::from_secs(10)));
    }

    fn is_told(destroyed: &mut DestroyedSockets, ends: (SocketAddr, SocketAddr), within: Duration) -> bool {
        let until = Instant::now() + within;
        let mut is_told = false;
        while !is_told && Instant::now() < until {
            destroyed.hear(64, |local, remote| is_told |= (local, remote) == ends).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        is_told
    }
}
