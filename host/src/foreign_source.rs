//! Datagrams whose source is none of the host's addresses, sent and heard: whether the network lets them through.
//!
//! They are sent with a source that no host has, out of the ranges for measurements. They are heard by a packet socket, before
//! the kernel judges sources: a receiver's own `rp_filter` (ip-sysctl) says nothing about the network.

use crate::echo_socket::set_option;
use crate::link::LinkIndex;
use libc::sock_filter;
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Of 198.18.0.0/15, which is for measurements between networks (RFC 2544, appendix C.2.2).
const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Of 2001:2::/48, the same for IPv6 (RFC 5180, section 8).
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1);

/// Length of a UDP header, bytes.
const UDP_HEADER_LEN: usize = 8;
/// Length of an IPv6 header, bytes.
const IPV6_HEADER_LEN: usize = 40;
/// Offset of the source address in IPv4 and IPv6 headers.
const SOURCE_AT: (u32, u32) = (12, 8);

/// The address that datagrams of one IP version are sent from.
pub fn foreign_source(is_v6: bool) -> IpAddr {
    if is_v6 { SOURCE_V6.into() } else { SOURCE_V4.into() }
}

/// Sends datagrams from an address that the host does not have.
#[derive(Debug)]
pub struct ForeignSender(Socket);

impl ForeignSender {
    /// A socket that sends out of `interface` and never blocks. Needs `CAP_NET_ADMIN` or `CAP_NET_RAW`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open(interface: &str, is_v6: bool) -> io::Result<Self> {
        let domain = if is_v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM.cloexec().nonblocking(), Some(Protocol::UDP))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        match is_v6 {
            false => set_option(&socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1)?,
            true => set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1)?,
        }
        socket.bind(&SocketAddr::new(foreign_source(is_v6), 0).into())?;
        Ok(Self(socket))
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// What the kernel says, such as that there is no route.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.0.send_to(bytes, &to.into()).map(drop)
    }
}

/// Hears what [`ForeignSender`]s of other hosts send.
#[derive(Debug)]
pub struct ForeignListener {
    socket: Socket,
    is_v6: bool,
}

impl ForeignListener {
    /// A socket that does not block, for datagrams to `port` that come in on `link`. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open(link: LinkIndex, is_v6: bool, port: u16) -> io::Result<Self> {
        // Without a protocol it hears nothing until it is bound, with the filter in its place.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.cloexec().nonblocking(), None)?;
        let program = filter(is_v6, port);
        let step = |step: &sock_filter| SockFilter::new(step.code, step.jt, step.jf, step.k);
        socket.attach_filter(&program.iter().map(step).collect::<Vec<_>>())?;
        bind(&socket, link, if is_v6 { libc::ETH_P_IPV6 } else { libc::ETH_P_IP })?;
        Ok(Self { socket, is_v6 })
    }

    /// The next datagram's data, if it is one; what does not fit into `buffer` is cut off. Who sent it, only its data can say.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; what the kernel says.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        let (length, _) = rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty())?;
        Ok(buffer.get(..length).and_then(|packet| data_of(packet, self.is_v6)))
    }
}

impl AsFd for ForeignListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for ForeignListener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn bind(socket: &Socket, link: LinkIndex, protocol: libc::c_int) -> io::Result<()> {
    let index = libc::c_int::try_from(link.0).map_err(|_| io::ErrorKind::InvalidInput)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (protocol as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: pointer and length describe `address`, which outlives the call.
    let result = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Classic BPF for whole UDP datagrams to `port` from the address that everybody measures with. Offsets are from the IP
/// header: the socket is not shown what is in front of it.
fn filter(is_v6: bool, port: u16) -> Vec<sock_filter> {
    let port = u32::from(port);
    let udp = libc::IPPROTO_UDP as u32;
    let mut program = Vec::new();
    match is_v6 {
        false => {
            program.extend([load(LOAD_BYTE, 9), unless(udp, 8)]);
            program.extend([load(LOAD_WORD, SOURCE_AT.0), unless(SOURCE_V4.to_bits(), 6)]);
            // A fragment, the first one too.
            program.extend([load(LOAD_HALF, 6), sock_filter { code: JUMP_ANY_BIT, jt: 4, jf: 0, k: 0x3fff }]);
            program.extend([load(LOAD_HEADER_LEN, 0), load(LOAD_HALF_BEHIND, 2), unless(port, 1)]);
        }
        true => {
            program.extend([load(LOAD_BYTE, 6), unless(udp, 11)]);
            for (word, bytes) in SOURCE_V6.octets().chunks(4).enumerate() {
                let (word, value) =
                    (word as u32, bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)));
                program.extend([load(LOAD_WORD, SOURCE_AT.1 + 4 * word), unless(value, 9 - 2 * word as u8)]);
            }
            program.extend([load(LOAD_HALF, IPV6_HEADER_LEN as u32 + 2), unless(port, 1)]);
        }
    }
    // As long as any packet may be.
    program.extend([load(RETURN, 0xffff), load(RETURN, 0)]);
    program
}

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
/// Half word behind an IPv4 header, whose length [`LOAD_HEADER_LEN`] has found out.
const LOAD_HALF_BEHIND: u16 = 0x48;
const LOAD_HEADER_LEN: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

fn load(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Skips so many instructions unless what was loaded is `value`.
fn unless(value: u32, skip: u8) -> sock_filter {
    sock_filter { code: JUMP_EQUAL, jt: 0, jf: skip, k: value }
}

/// The data of a UDP datagram in an IP packet without extension headers.
fn data_of(packet: &[u8], is_v6: bool) -> Option<&[u8]> {
    let header_len = if is_v6 { IPV6_HEADER_LEN } else { usize::from(packet.first()? & 0x0f) * 4 };
    let udp = packet.get(header_len..)?;
    let length = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]));
    udp.get(UDP_HEADER_LEN..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_what_the_lengths_say_and_nothing_of_what_is_too_short() {
        let mut packet = vec![0x46; 1];
        packet.resize(24, 0);
        packet.extend([0, 1, 0, 2, 0, 11, 0, 0, 7, 8, 9, 0xff]);
        assert_eq!(data_of(&packet, false), Some(&[7, 8, 9][..]));
        for cut in 0..35 {
            assert_eq!(data_of(&packet[..cut], false), None, "{cut}");
        }
        let mut packet = vec![0x60; 40];
        packet.extend([0, 1, 0, 2, 0, 9, 0, 0, 7]);
        assert_eq!(data_of(&packet, true), Some(&[7][..]));
        packet[45] = 3;
        assert_eq!(data_of(&packet, true), None, "a length that its own header does not fit");
    }

    #[test]
    fn every_jump_of_the_filter_that_refuses_ends_at_the_same_place() {
        for is_v6 in [false, true] {
            let program = filter(is_v6, 7946);
            let refusal = program.len() - 1;
            for (at, step) in program.iter().enumerate() {
                let skip = match step.code {
                    JUMP_EQUAL => step.jf,
                    JUMP_ANY_BIT => step.jt,
                    _ => continue,
                };
                assert_eq!(at + 1 + usize::from(skip), refusal, "instruction {at}");
            }
        }
    }
}
