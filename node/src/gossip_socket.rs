//! The UDP socket for load reports: bound to the cluster interface, member of the configured groups.
//!
//! It moves bytes; what they mean, and whether they are authentic, is `load-gossip`'s business.

use anyhow::Context as _;
use rustix::net::sockopt;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::UdpSocket;

/// Bytes of the receive buffer: 4096 peers' reports of 1400 bytes, with the kernel's overhead.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Bytes of the largest UDP payload over IPv4; anything longer than a report is refused by its decoder.
pub(crate) const DATAGRAM_MAX: usize = 65_507;

/// Where reports come from and go to.
#[derive(Debug)]
pub(crate) struct GossipSocket {
    socket: UdpSocket,
    groups: Vec<SocketAddr>,
}

/// What the socket is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding<'a> {
    /// Name of the cluster interface.
    pub(crate) interface: &'a str,
    /// Its index.
    pub(crate) interface_index: u32,
    /// Node address: the socket is of its IP version, and with IPv4 multicast datagrams have it as their source. With
    /// IPv6 the kernel chooses among the interface's addresses (RFC 6724).
    pub(crate) address: IpAddr,
    /// UDP port of the cluster.
    pub(crate) port: u16,
}

impl GossipSocket {
    /// Opens the socket and joins the groups.
    ///
    /// # Errors
    /// The port is taken, the interface is gone, or a group cannot be joined. Must be called within a tokio runtime.
    pub(crate) fn open(binding: Binding<'_>, groups: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let socket = open(binding, &groups)?;
        let socket = UdpSocket::from_std(socket.into()).context("registering the gossip socket")?;
        Ok(Self { socket, groups })
    }

    /// The next datagram: its length and its sender.
    ///
    /// # Errors
    /// What the kernel says, such as an earlier datagram's ICMP error; the next call may succeed.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).await
    }

    /// A datagram that is there already, if there is one.
    pub(crate) fn try_receive(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        self.socket.try_recv_from(buffer).ok()
    }

    /// Sends to every group; never waits. Reports are repeated soon, so a full queue drops them.
    ///
    /// # Errors
    /// The first error of a group; the others are tried nevertheless.
    pub(crate) fn send_to_groups(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.groups.iter().map(|group| self.send_to(bytes, *group));
        sent.fold(Ok(()), io::Result::and)
    }

    /// Sends to one peer; never waits.
    ///
    /// # Errors
    /// What the kernel says: no route, no such interface.
    pub(crate) fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        // Not tokio's try_send_to: it refuses before the reactor saw the socket writable for the first time.
        let sent = socket2::SockRef::from(&self.socket).send_to(bytes, &SockAddr::from(to));
        match sent {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Opens the socket, joins the groups and closes it again: what `dpr check` wants to know. Port 0 disturbs nobody.
///
/// # Errors
/// Those of [`GossipSocket::open`].
pub(crate) fn probe(binding: Binding<'_>, groups: &[SocketAddr]) -> anyhow::Result<()> {
    open(binding, groups).map(drop)
}

fn open(binding: Binding<'_>, groups: &[SocketAddr]) -> anyhow::Result<Socket> {
    let socket = bind(binding).with_context(|| {
        format!("opening UDP port {} on interface {} for load reports", binding.port, binding.interface)
    })?;
    let index = binding.interface_index;
    for group in groups {
        let joined = match group.ip() {
            IpAddr::V4(group) => socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index)),
            IpAddr::V6(group) => socket.join_multicast_v6(&group, index),
        };
        joined.with_context(|| format!("joining multicast group {} on {}", group.ip(), binding.interface))?;
    }
    Ok(socket)
}

fn bind(binding: Binding<'_>) -> io::Result<Socket> {
    let domain = if binding.address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM.cloexec().nonblocking(), Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(binding.interface.as_bytes()))?;
    match binding.address {
        IpAddr::V4(address) => bind_v4(&socket, address, binding.port)?,
        IpAddr::V6(_) => bind_v6(&socket, binding.interface_index, binding.port)?,
    }
    // Beyond net.core.rmem_max only with CAP_NET_ADMIN; less is a smaller cushion, no error.
    if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    Ok(socket)
}

/// Only groups that this socket joined, not those of the whole host, ip(7); none behind a router.
fn bind_v4(socket: &Socket, address: Ipv4Addr, port: u16) -> io::Result<()> {
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.set_multicast_all_v4(false)?;
    socket.set_multicast_loop_v4(false)?;
    socket.set_multicast_ttl_v4(1)?;
    socket.set_multicast_if_v4(&address)
}

/// The same for IPv6, ipv6(7).
fn bind_v6(socket: &Socket, interface_index: u32, port: u16) -> io::Result<()> {
    socket.set_only_v6(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.set_multicast_all_v6(false)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_hops_v6(1)?;
    socket.set_multicast_if_v6(interface_index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(address: IpAddr) -> Binding<'static> {
        Binding { interface: "lo", interface_index: 1, address, port: 0 }
    }

    #[tokio::test]
    async fn a_datagram_arrives_with_its_sender_in_either_version() {
        for address in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            arrives(address).await;
        }
    }

    async fn arrives(address: IpAddr) {
        let (from, to) = (
            GossipSocket::open(loopback(address), vec![]).unwrap(),
            GossipSocket::open(loopback(address), vec![]).unwrap(),
        );
        let port = |socket: &GossipSocket| socket.socket.local_addr().unwrap().port();
        let mut buffer = [0; 64];

        from.send_to(b"report", (address, port(&to)).into()).unwrap();
        let (length, sender) = to.receive(&mut buffer).await.unwrap();

        assert_eq!(&buffer[..length], b"report");
        assert_eq!(sender, (address, port(&from)).into());
        assert_eq!(to.try_receive(&mut buffer), None);
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_is_an_error_with_its_name() {
        let error = GossipSocket::open(
            Binding { interface: "dpr-none", ..loopback(Ipv4Addr::LOCALHOST.into()) },
            vec![],
        )
        .unwrap_err();

        assert!(error.to_string().contains("dpr-none"), "{error}");
    }
}
