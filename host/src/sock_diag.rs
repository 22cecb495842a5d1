//! Looking up the host's TCP and UDP sockets (`NETLINK_SOCK_DIAG`, `linux/inet_diag.h`).
//!
//! The messages are fixed structures, written and read here by hand: a look-up happens for packets
//! of unknown connections, and nothing is allocated for it.

mod destroyed;

use crate::link::LinkIndex;
use crate::transport::{End, NetlinkError, Requests, Transport};
use dpr_model::Protocol;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NlasIterator};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

pub use destroyed::{DestroyedSockets, Heard};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// `INET_DIAG_NOCOOKIE`: the socket with these addresses, whichever it is.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// `INET_DIAG_SKV6ONLY`: attribute with the `IPV6_V6ONLY` option of a listening socket.
const INET_DIAG_SKV6ONLY: u16 = 11;

/// Lengths of `struct nlmsghdr`, `struct inet_diag_req_v2` and `struct inet_diag_msg`, bytes.
const HEADER_LEN: usize = 16;
const REQUEST_LEN: usize = 56;
const ANSWER_LEN: usize = 72;

const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;

/// Numbers of states in the kernel (`net/tcp_states.h`).
const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;

/// `idiag_timer` of what the kernel keeps of a connection whose socket is gone (`inet_twsk_diag_fill` in `net/ipv4/inet_diag.c`):
/// it says in which state that was, TIME-WAIT or FIN-WAIT-2.
const TIMER_OF_TIME_WAIT: u8 = 3;

/// State of a TCP socket (RFC 9293 section 3.3.2). UDP sockets are established when connected, and closed otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// ESTABLISHED.
    Established,
    /// SYN-SENT.
    SynSent,
    /// SYN-RECEIVED.
    SynReceived,
    /// FIN-WAIT-1.
    FinWait1,
    /// FIN-WAIT-2.
    FinWait2,
    /// TIME-WAIT, or FIN-WAIT-2 after the socket was closed: only stragglers are waited for.
    TimeWait,
    /// CLOSED, but still there.
    Closed,
    /// CLOSE-WAIT.
    CloseWait,
    /// LAST-ACK.
    LastAck,
    /// LISTEN.
    Listen,
    /// CLOSING.
    Closing,
    /// A number that this program does not know.
    Other(u8),
}

impl SocketState {
    /// Whether the socket is one end of a connection that is not over: not listening, closed or
    /// only waiting for stragglers.
    pub fn holds_connection(self) -> bool {
        !matches!(self, Self::Listen | Self::TimeWait | Self::Closed)
    }

    fn from_number(number: u8) -> Self {
        match number {
            TCP_ESTABLISHED => Self::Established,
            2 => Self::SynSent,
            // 12 is TCP_NEW_SYN_RECV, how the kernel keeps half-open connections.
            3 | 12 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            TCP_CLOSE => Self::Closed,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            TCP_LISTEN => Self::Listen,
            11 => Self::Closing,
            other => Self::Other(other),
        }
    }
}

/// A socket that accepts connections, or datagrams of anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What it is bound to; an unspecified address means any.
    pub socket: SocketAddr,
    /// Bound to `::` and nevertheless not for IPv4.
    pub v6_only: bool,
    /// The only link it listens on (`SO_BINDTODEVICE`), if it is bound to one.
    pub link: Option<LinkIndex>,
}

impl Listener {
    /// Whether connections to `address` reach it, as far as addresses go.
    pub fn accepts(&self, address: IpAddr) -> bool {
        match (self.socket.ip(), address.to_canonical()) {
            (IpAddr::V4(bound), IpAddr::V4(wanted)) => bound.is_unspecified() || bound == wanted,
            (IpAddr::V6(bound), IpAddr::V6(wanted)) => bound.is_unspecified() || bound == wanted,
            (IpAddr::V6(bound), IpAddr::V4(wanted)) => {
                bound.is_unspecified() && !self.v6_only || bound.to_ipv4_mapped() == Some(wanted)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

/// A socket for questions about the sockets of one protocol in the network namespace in which it was opened.
pub struct InetSockets {
    transport: Transport,
    protocol: Protocol,
}

impl InetSockets {
    /// A close-on-exec `NETLINK_SOCK_DIAG` socket. Needs no privilege. Fails if the kernel cannot
    /// answer (`CONFIG_INET_DIAG`, modules `tcp_diag` and `udp_diag`), as it could not be told from "no socket".
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let operation = match protocol {
            Protocol::Tcp => "ask the kernel for its TCP sockets (module tcp_diag)",
            Protocol::Udp => "ask the kernel for its UDP sockets (module udp_diag)",
        };
        let mut sockets = Self { transport: Transport::open(NETLINK_SOCK_DIAG, operation)?, protocol };
        sockets.dump(operation, AF_INET, 0, 0, |_| ())?;
        Ok(sockets)
    }

    /// State of the socket with this local and remote end; of the one that listens there if there is
    /// no such connection; `None` if there is neither, or the two are of different address families.
    ///
    /// IPv4 connections of an IPv6 socket are found by their IPv4 addresses. InetSockets bound to a link
    /// (`SO_BINDTODEVICE`) are not found. One request and one answer, about 2 µs.
    pub fn state_of(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<SocketState>, NetlinkError> {
        const OPERATION: &str = "look up a socket";
        let (local, remote) = (canonical(local), canonical(remote));
        if local.is_ipv4() != remote.is_ipv4() {
            return Ok(None);
        }
        let sequence = self.transport.reserve_sequences(1);
        let request = exact_request(self.protocol, local, remote, sequence);
        let mut state = None;
        let requests = Requests::one(OPERATION, &request, sequence, End::FirstMessage);
        let answer = self.transport.converse(requests, |_, payload| {
            state = Some(Answer::parse(OPERATION, payload)?.state);
            Ok(())
        });
        match answer {
            Ok(_) => Ok(state),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every socket that takes connections on a port; for UDP, every one that is not connected.
    pub fn listeners(&mut self, port: u16) -> Result<Vec<Listener>, NetlinkError> {
        self.listeners_within(port..=port)
    }

    /// The same for a range of ports.
    pub fn listeners_within(&mut self, ports: RangeInclusive<u16>) -> Result<Vec<Listener>, NetlinkError> {
        // With one port the kernel can choose by it.
        let port = if ports.start() == ports.end() { *ports.start() } else { 0 };
        let state = match self.protocol {
            Protocol::Tcp => TCP_LISTEN,
            Protocol::Udp => TCP_CLOSE,
        };
        let mut listeners = Vec::new();
        for family in [AF_INET, AF_INET6] {
            self.dump_if_known("list listening sockets", family, state, port, |answer| {
                let listens =
                    ports.contains(&answer.local.port()) && answer.state == SocketState::from_number(state);
                listeners.extend(listens.then_some(Listener {
                    socket: answer.local,
                    v6_only: answer.v6_only,
                    link: answer.link,
                }));
            })?;
        }
        Ok(listeners)
    }

    /// Calls `on_connection` with the local end of every established connection that has it at one of `ports`; for IPv4
    /// connections of IPv6 sockets with their IPv4 address.
    ///
    /// The kernel goes through its whole table of connections for it: to be asked now and then, not
    /// for packets.
    pub fn for_each_established(
        &mut self,
        ports: &[u16],
        mut on_connection: impl FnMut(SocketAddr),
    ) -> Result<(), NetlinkError> {
        // With one port the kernel can choose by it.
        let port = if let [port] = ports { *port } else { 0 };
        let families: &[u8] = if ports.is_empty() { &[] } else { &[AF_INET, AF_INET6] };
        for family in families {
            self.dump_if_known("list connections", *family, TCP_ESTABLISHED, port, |answer| {
                if ports.contains(&answer.local.port()) {
                    on_connection(canonical(answer.local));
                }
            })?;
        }
        Ok(())
    }

    fn dump_if_known(
        &mut self,
        operation: &str,
        family: u8,
        state: u8,
        port: u16,
        on_socket: impl FnMut(&Answer),
    ) -> Result<(), NetlinkError> {
        match self.dump(operation, family, 1 << state, port, on_socket) {
            // The kernel has no IPv6.
            Err(error) if family == AF_INET6 && error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// Goes through the sockets in any of `states`, a bit for each, with local port `port` if not 0.
    ///
    /// The list of a busy host never stands still; what the kernel calls inconsistent is taken.
    fn dump(
        &mut self,
        operation: &str,
        family: u8,
        states: u32,
        port: u16,
        mut on_socket: impl FnMut(&Answer),
    ) -> Result<(), NetlinkError> {
        let sequence = self.transport.reserve_sequences(1);
        let mut request = blank_request(self.protocol, family, states, NLM_F_REQUEST | NLM_F_DUMP, sequence);
        request[HEADER_LEN + 8..][..2].copy_from_slice(&port.to_be_bytes());
        self.transport
            .converse(Requests::one(operation, &request, sequence, End::Dump), |_, payload| {
                on_socket(&Answer::parse(operation, payload)?);
                Ok(())
            })
            .map(drop)
    }
}

/// An IPv4 end written as an IPv6 one becomes what it is.
fn canonical(socket: SocketAddr) -> SocketAddr {
    SocketAddr::new(socket.ip().to_canonical(), socket.port())
}

/// A request without addresses. Its layout: family, protocol, extensions, padding, states, then
/// `struct inet_diag_sockid`: ports, addresses of 16 bytes each, interface, cookie.
fn blank_request(
    protocol: Protocol,
    family: u8,
    states: u32,
    flags: u16,
    sequence: u32,
) -> [u8; HEADER_LEN + REQUEST_LEN] {
    const LEN: usize = HEADER_LEN + REQUEST_LEN;
    let mut bytes = [0; LEN];
    bytes[0..4].copy_from_slice(&(LEN as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    let request = &mut bytes[HEADER_LEN..];
    request[0] = family;
    request[1] = protocol.number();
    request[4..8].copy_from_slice(&states.to_ne_bytes());
    request[48..56].copy_from_slice(&NO_COOKIE);
    bytes
}

fn exact_request(
    protocol: Protocol,
    local: SocketAddr,
    remote: SocketAddr,
    sequence: u32,
) -> [u8; HEADER_LEN + REQUEST_LEN] {
    // For UDP the kernel takes the ends as those of a packet that came in (`udp_dump_one` of net/ipv4/udp_diag.c).
    let (local, remote) = match protocol {
        Protocol::Tcp => (local, remote),
        Protocol::Udp => (remote, local),
    };
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut bytes = blank_request(protocol, family, u32::MAX, NLM_F_REQUEST, sequence);
    let request = &mut bytes[HEADER_LEN..];
    request[8..10].copy_from_slice(&local.port().to_be_bytes());
    request[10..12].copy_from_slice(&remote.port().to_be_bytes());
    put_address(&mut request[12..28], local.ip());
    put_address(&mut request[28..44], remote.ip());
    bytes
}

fn put_address(bytes: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes.copy_from_slice(&v6.octets()),
    }
}

/// A socket as the kernel describes it.
struct Answer {
    state: SocketState,
    local: SocketAddr,
    remote: SocketAddr,
    link: Option<LinkIndex>,
    v6_only: bool,
}

impl Answer {
    /// Layout of `struct inet_diag_msg`: family, state, timer, retransmissions, then
    /// `struct inet_diag_sockid` as in the request, then 20 bytes that nobody here needs.
    fn parse(operation: &str, payload: &[u8]) -> Result<Self, NetlinkError> {
        let Some((fixed, attributes)) = payload.split_first_chunk::<ANSWER_LEN>() else {
            let detail = format!("{} bytes where {ANSWER_LEN} were expected", payload.len());
            return Err(NetlinkError::malformed(operation, detail));
        };
        let [family, number, timer, _, ..] = *fixed;
        let end = |port_at: usize, address_at: usize| {
            let port = u16::from_be_bytes([fixed[port_at], fixed[port_at + 1]]);
            let mut address = [0; 16];
            address.copy_from_slice(&fixed[address_at..address_at + 16]);
            match (family, address) {
                (AF_INET, [a, b, c, d, ..]) => Ok(SocketAddr::new([a, b, c, d].into(), port)),
                (AF_INET6, all) => Ok(SocketAddr::new(Ipv6Addr::from(all).into(), port)),
                (other, _) => Err(NetlinkError::malformed(operation, format!("address family {other}"))),
            }
        };
        let state = match timer {
            TIMER_OF_TIME_WAIT => SocketState::TimeWait,
            _ => SocketState::from_number(number),
        };
        let mut link = [0; 4];
        link.copy_from_slice(&fixed[40..44]);
        let link = u32::from_ne_bytes(link);
        Ok(Self {
            state,
            local: end(4, 8)?,
            remote: end(6, 24)?,
            link: (link != 0).then_some(LinkIndex(link)),
            v6_only: NlasIterator::new(attributes)
                .map_while(Result::ok)
                .any(|attribute| attribute.kind() == INET_DIAG_SKV6ONLY && attribute.value() == [1]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_bytes_of_inet_diag_req_v2() {
        let request =
            exact_request(Protocol::Tcp, "10.0.0.1:80".parse().unwrap(), "10.0.0.2:4000".parse().unwrap(), 7);

        assert_eq!(request[..16], [72, 0, 0, 0, 20, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(request[16..24], [2, 6, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(request[24..28], [0, 80, 0x0f, 0xa0]);
        assert_eq!(request[28..32], [10, 0, 0, 1]);
        assert_eq!(request[44..48], [10, 0, 0, 2]);
        assert_eq!(request[60..72], [0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn an_answer_that_is_too_short_or_of_no_known_family_is_an_error() {
        assert!(Answer::parse("test", &[0; ANSWER_LEN - 1]).is_err());
        assert!(Answer::parse("test", &[0; ANSWER_LEN]).is_err());
    }

    #[test]
    fn what_is_kept_of_a_socket_that_is_gone_only_waits_for_stragglers() {
        let mut bytes = [0; ANSWER_LEN];
        bytes[..8].copy_from_slice(&[AF_INET, 5, 0, 0, 0, 80, 0x0f, 0xa0]);
        bytes[8..12].copy_from_slice(&[10, 0, 0, 1]);
        bytes[24..28].copy_from_slice(&[10, 0, 0, 2]);
        let with_socket = Answer::parse("test", &bytes).unwrap();
        bytes[2] = TIMER_OF_TIME_WAIT;
        let without = Answer::parse("test", &bytes).unwrap();

        assert_eq!((with_socket.state, without.state), (SocketState::FinWait2, SocketState::TimeWait));
        assert_eq!(without.local, "10.0.0.1:80".parse().unwrap());
        assert_eq!(without.remote, "10.0.0.2:4000".parse().unwrap());
    }

    #[test]
    fn a_listener_on_the_unspecified_ipv6_address_takes_ipv4_unless_told_otherwise() {
        let on = |socket: &str, v6_only| Listener { socket: socket.parse().unwrap(), v6_only, link: None };
        let v4 = "10.0.0.1".parse().unwrap();
        let v6 = "fd00::1".parse().unwrap();

        assert!(on("[::]:80", false).accepts(v4) && on("[::]:80", false).accepts(v6));
        assert!(!on("[::]:80", true).accepts(v4) && on("[::]:80", true).accepts(v6));
        assert!(on("0.0.0.0:80", false).accepts(v4) && !on("0.0.0.0:80", false).accepts(v6));
        assert!(on("10.0.0.1:80", false).accepts(v4) && !on("10.0.0.2:80", false).accepts(v4));
        assert!(on("[::ffff:10.0.0.1]:80", false).accepts(v4));
    }
}
