//! Echo requests (RFC 792; RFC 4443, section 4) of a chosen size that nobody may fragment: what fits on the way to a host.

use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const ICMP_ECHO_REQUEST: u8 = 8;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMPV6_ECHO_REQUEST: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;

/// Length of an echo message without data, bytes.
const ECHO_HEADER_LEN: usize = 8;
/// Longest IP packet, bytes.
const PACKET_LEN_MAX: usize = 65_535;

/// Which question an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EchoToken {
    /// Identifier of the asker; best drawn at random, so that nobody answers who was not asked.
    pub identifier: u16,
    /// Number of the question.
    pub sequence: u16,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoReply {
    /// Who answered.
    pub from: IpAddr,
    /// To what.
    pub token: EchoToken,
    /// Length of the request's IP packet, bytes, by what came back of it.
    pub packet_len: usize,
}

/// A raw ICMP socket of one IP version.
#[derive(Debug)]
pub struct EchoSocket {
    socket: Socket,
    is_v6: bool,
    buffer: Box<[u8]>,
}

impl EchoSocket {
    /// A socket that does not block. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open(is_v6: bool) -> io::Result<Self> {
        let (domain, protocol) = match is_v6 {
            false => (Domain::IPV4, Protocol::ICMPV4),
            true => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW.cloexec().nonblocking(), Some(protocol))?;
        // "Don't fragment" on everything, and what the kernel believes of the path is not asked: ip(7), ipv6(7).
        match is_v6 {
            false => set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?,
            true => {
                let probe = libc::IPV6_PMTUDISC_PROBE;
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, probe)?;
            }
        }
        Ok(Self { socket, is_v6, buffer: vec![0; PACKET_LEN_MAX].into_boxed_slice() })
    }

    /// Asks `to` with an IP packet of `packet_len` bytes.
    ///
    /// # Errors
    /// What the kernel says: `EMSGSIZE` if the packet does not fit its own link. An address of the other IP version.
    pub fn ask(&self, to: IpAddr, token: EchoToken, packet_len: usize) -> io::Result<()> {
        let request = if self.is_v6 { ICMPV6_ECHO_REQUEST } else { ICMP_ECHO_REQUEST };
        let message_len = packet_len.saturating_sub(self.ip_header_len()).max(ECHO_HEADER_LEN);
        let mut message = vec![0; message_len];
        message[0] = request;
        message[4..6].copy_from_slice(&token.identifier.to_be_bytes());
        message[6..8].copy_from_slice(&token.sequence.to_be_bytes());
        if !self.is_v6 {
            // The kernel writes that of ICMPv6, which covers addresses.
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        self.socket.send_to(&message, &SocketAddr::new(to, 0).into()).map(drop)
    }

    /// The next answer that has come, if there is one; other messages are skipped.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive(&mut self) -> io::Result<Option<EchoReply>> {
        loop {
            let (length, from) = match self.receive_one() {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            let reply = self.buffer.get(..length).and_then(|bytes| self.parse(bytes, from));
            if reply.is_some() {
                return Ok(reply);
            }
        }
    }

    fn receive_one(&mut self) -> io::Result<(usize, IpAddr)> {
        // The sender's address comes with a call that wants uninitialised memory; IPv4 has it in the packet as well.
        if !self.is_v6 {
            let length = (&self.socket).read(&mut self.buffer)?;
            let octets: [u8; 4] = self.buffer[12..16].try_into().unwrap_or_default();
            return Ok((length, IpAddr::from(octets)));
        }
        let (length, _, from) =
            rustix::net::recvfrom(&self.socket, &mut *self.buffer, rustix::net::RecvFlags::empty())?;
        let from = from.and_then(|from| rustix::net::SocketAddrV6::try_from(from).ok());
        Ok((length, from.map_or(IpAddr::from([0; 4]), |from| IpAddr::V6(*from.ip()))))
    }

    fn parse(&self, bytes: &[u8], from: IpAddr) -> Option<EchoReply> {
        let (header_len, reply) = match self.is_v6 {
            // A raw IPv4 socket shows the IP header, an IPv6 one does not.
            false => (usize::from(bytes.first()? & 0x0f) * 4, ICMP_ECHO_REPLY),
            true => (0, ICMPV6_ECHO_REPLY),
        };
        let message = bytes.get(header_len..)?;
        let &[kind, 0, _, _, id_high, id_low, high, low, ..] = message else { return None };
        (kind == reply).then(|| EchoReply {
            from,
            token: EchoToken {
                identifier: u16::from_be_bytes([id_high, id_low]),
                sequence: u16::from_be_bytes([high, low]),
            },
            packet_len: self.ip_header_len() + message.len(),
        })
    }

    fn ip_header_len(&self) -> usize {
        if self.is_v6 { 40 } else { 20 }
    }
}

impl AsFd for EchoSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(crate) fn set_option(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
