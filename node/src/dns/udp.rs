//! DNS by UDP: one thread, one socket of several with the same address, among which the kernel spreads clients.

use super::datagrams::Batch;
use super::{Desk, RECEIVE_BUFFER, now};
use dpr_rrdns::{Client, Transport};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// How often a thread without queries looks whether it has to end.
const WAIT: Duration = Duration::from_millis(100);

/// Opens one of the sockets of an address.
///
/// # Errors
/// The address is not this host's, or the port is another program's or not permitted.
pub(super) fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_read_timeout(Some(WAIT))?;
    // More than net.core.rmem_max is not given; less is a smaller cushion, no error.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A thread and its socket.
pub(super) struct Worker {
    socket: Socket,
    desk: Desk,
    batch: Batch,
}

impl Worker {
    pub(super) fn new(socket: Socket, desk: Desk) -> Self {
        Self { socket, desk, batch: Batch::new() }
    }

    /// Answers until the server ends.
    pub(super) fn work(mut self) {
        while !self.desk.has_to_end() {
            match self.batch.receive(&self.socket) {
                Ok(()) => self.answer(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Such as an ICMP error about an earlier reply.
                Err(error) => tracing::debug!(%error, "receiving a DNS query"),
            }
        }
    }

    fn answer(&mut self) {
        // Now, and not before waiting: the wait may have been long.
        self.desk.renew();
        let now = now();
        for received in self.batch.received() {
            let client = Client { address: received.from.ip(), transport: Transport::Udp };
            let outcome = self.desk.responder.answer(received.query, client, now, received.reply);
            self.desk.counters.count(Transport::Udp, outcome);
        }
        if let Err(error) = self.batch.send(&self.socket) {
            tracing::debug!(%error, "sending a DNS reply");
        }
    }
}
