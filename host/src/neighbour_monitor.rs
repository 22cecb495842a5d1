//! Changes of neighbours, routes, links and addresses, as the kernel tells them.
//!
//! The kernel drops notifications when nobody reads them in time, and says so: then
//! [`Event::Lost`] comes, and the reader lists everything again. A monitor never blocks.

use crate::address::InterfaceAddress;
use crate::link::{Link, LinkIndex};
use crate::neighbour::Neighbour;
use crate::netlink::parse;
use crate::route::Route;
use crate::transport::{NetlinkError, aligned};
use netlink_packet_core::NetlinkBuffer;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Multicast groups of rtnetlink that are listened to (`linux/rtnetlink.h`).
const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// Room for some thousand notifications, bytes; the kernel grants less where `rmem_max` is lower.
const RECEIVE_BUFFER_LEN: usize = 1 << 20;

/// Larger than any notification: the kernel allocates them with `NLMSG_GOODSIZE`.
const DATAGRAM_LEN_MAX: usize = 32 * 1024;

const OPERATION: &str = "watch the network configuration";

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A neighbour is new or changed its state or hardware address.
    Neighbour(Neighbour),
    /// The kernel forgot a neighbour.
    NeighbourGone(Neighbour),
    /// A route is new or changed.
    Route(Route),
    /// A route is gone. Routes that go with their link or address are not always told one by one.
    RouteGone(Route),
    /// A link is new, changed, or went up or down.
    Link(Link),
    /// A link was deleted or moved to another namespace.
    LinkGone(LinkIndex),
    /// A link got an address, or the address changed.
    Address(InterfaceAddress),
    /// A link lost an address.
    AddressGone(InterfaceAddress),
    /// Events were lost: nothing that earlier ones said can be relied on. List everything again.
    Lost,
}

/// A non-blocking socket that hears of changes in the namespace in which it was opened.
///
/// Readable as a descriptor when there is something to hear; level-triggered.
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
    pending: VecDeque<Event>,
}

impl Monitor {
    /// Starts to listen. What happens from now on is heard, so list everything after this.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::try_open().map_err(|error| NetlinkError::socket(OPERATION, error))
    }

    fn try_open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER_LEN as libc::c_int)?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM_LEN_MAX), pending: VecDeque::new() })
    }

    /// The next event; `None` when there is none at the moment.
    pub fn poll_event(&mut self) -> Result<Option<Event>, NetlinkError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, libc::MSG_TRUNC) {
                Ok((length, sender)) => self.queue_events(length, &sender),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Some(Event::Lost)),
                Err(error) => return Err(NetlinkError::socket(OPERATION, error)),
            }
        }
    }

    fn queue_events(&mut self, length: usize, sender: &SocketAddr) {
        // Processes may write to each other; only the kernel's port number is zero.
        if sender.port_number() != 0 {
            return;
        }
        if length > self.buffer.len() {
            self.pending.push_back(Event::Lost);
            return;
        }
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            let Ok(message) = NetlinkBuffer::new_checked(rest) else {
                self.pending.push_back(Event::Lost);
                return;
            };
            match parse(OPERATION, message.message_type(), message.payload()) {
                Ok(change) => self.pending.extend(events_of(&change)),
                // One that cannot be read may have been any.
                Err(_) => self.pending.push_back(Event::Lost),
            }
            rest = rest.get(aligned(message.length() as usize)..).unwrap_or_default();
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn events_of(message: &RouteNetlinkMessage) -> Vec<Event> {
    match message {
        RouteNetlinkMessage::NewNeighbour(neighbour) => {
            Neighbour::from_message(neighbour).map(Event::Neighbour).into_iter().collect()
        }
        RouteNetlinkMessage::DelNeighbour(neighbour) => {
            Neighbour::from_message(neighbour).map(Event::NeighbourGone).into_iter().collect()
        }
        RouteNetlinkMessage::NewRoute(route) => {
            Route::from_message(route).into_iter().map(Event::Route).collect()
        }
        RouteNetlinkMessage::DelRoute(route) => {
            Route::from_message(route).into_iter().map(Event::RouteGone).collect()
        }
        RouteNetlinkMessage::NewAddress(address) => {
            InterfaceAddress::from_message(address).map(Event::Address).into_iter().collect()
        }
        RouteNetlinkMessage::DelAddress(address) => {
            InterfaceAddress::from_message(address).map(Event::AddressGone).into_iter().collect()
        }
        // A bridge tells about its ports in the same group: a port that leaves it is not gone.
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)
            if link.header.interface_family != AddressFamily::Unspec =>
        {
            Vec::new()
        }
        RouteNetlinkMessage::NewLink(link) => vec![Event::Link(Link::from_message(link))],
        RouteNetlinkMessage::DelLink(link) => vec![Event::LinkGone(LinkIndex(link.header.index))],
        _ => Vec::new(),
    }
}
