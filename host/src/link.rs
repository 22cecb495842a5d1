//! Network interfaces.

use crate::netlink::Netlink;
use crate::transport::{NetlinkError, absent_is_false};
use dpr_model::MacAddress;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Number of a link within its network namespace, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u32);

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}", self.0)
    }
}

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number within the namespace.
    pub index: LinkIndex,
    /// Name, at most 15 bytes.
    pub name: String,
    /// Hardware address; `None` for links that are not Ethernet-like.
    pub mac: Option<MacAddress>,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// The administrator wants it up.
    pub up: bool,
    /// It can carry packets now (operational state of RFC 2863): up, the cable in or the peer up, and
    /// the kernel done with its preparations, which can take a second after that.
    pub running: bool,
    /// The loopback link.
    pub loopback: bool,
    /// Driver kind such as `veth` or `bridge`; `None` for hardware.
    pub kind: Option<String>,
    /// The bridge or bond that it is a port of.
    pub master: Option<LinkIndex>,
    /// The link below a VLAN, or the other end of a veth pair; an index of that link's namespace.
    pub lower: Option<LinkIndex>,
}

/// One end of a veth pair to be created.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// Name, at most 15 bytes.
    pub name: &'a str,
    /// Hardware address; `None` lets the kernel draw one.
    pub mac: Option<MacAddress>,
    /// Namespace that it is created in; `None` for the socket's.
    pub namespace: Option<BorrowedFd<'a>>,
}

impl<'a> VethEnd<'a> {
    /// An end in the socket's namespace with an address drawn by the kernel.
    pub fn named(name: &'a str) -> Self {
        Self { name, mac: None, namespace: None }
    }
}

/// How a bridge is to behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeOptions {
    /// Forward multicast only to ports that asked for it. Without a querier on the network a
    /// snooping bridge stops forwarding groups after some minutes.
    pub multicast_snooping: bool,
}

impl Default for BridgeOptions {
    /// The kernel's default.
    fn default() -> Self {
        Self { multicast_snooping: true }
    }
}

impl Netlink {
    /// Every link of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut query = LinkMessage::default();
        query.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.dump("list links", &RouteNetlinkMessage::GetLink(query), |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(Link::from_message(&link)),
            _ => None,
        })
    }

    /// The link with this name, or `None`.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut query = LinkMessage::default();
        query.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(&format!("get link {name}"), query)
    }

    /// The link with this index, or `None`.
    pub fn link_by_index(&mut self, index: LinkIndex) -> Result<Option<Link>, NetlinkError> {
        self.one_link(&format!("get {index}"), addressed(index))
    }

    /// The link that holds this address, or `None`.
    pub fn link_by_address(&mut self, address: IpAddr) -> Result<Option<Link>, NetlinkError> {
        let holder = self.addresses()?.into_iter().find(|held| held.prefix.address() == address);
        holder.map_or(Ok(None), |held| self.link_by_index(held.link))
    }

    fn one_link(&mut self, operation: &str, query: LinkMessage) -> Result<Option<Link>, NetlinkError> {
        match self.request(operation, RouteNetlinkMessage::GetLink(query), 0) {
            Ok(answer) => Ok(answer.into_iter().find_map(|message| match message {
                RouteNetlinkMessage::NewLink(link) => Some(Link::from_message(&link)),
                _ => None,
            })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a pair of Ethernet links joined by a virtual cable; both are down.
    pub fn create_veth(&mut self, end: VethEnd<'_>, peer: VethEnd<'_>) -> Result<(), NetlinkError> {
        let mut peer_message = LinkMessage::default();
        peer_message.attributes = veth_attributes(&peer);
        let mut message = LinkMessage::default();
        message.attributes = veth_attributes(&end);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer_message))),
        ]));
        let operation = format!("create veth pair {} and {}", end.name, peer.name);
        self.change(&operation, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Creates an Ethernet bridge without spanning tree; it is down.
    pub fn create_bridge(&mut self, name: &str, options: BridgeOptions) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(
                    options.multicast_snooping,
                )])),
            ]),
        ];
        let operation = format!("create bridge {name}");
        self.change(&operation, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Brings a link up.
    pub fn set_up(&mut self, index: LinkIndex) -> Result<(), NetlinkError> {
        self.set_flags(&format!("set {index} up"), index, LinkFlags::Up)
    }

    /// Takes a link down. The kernel then forgets the routes through it.
    pub fn set_down(&mut self, index: LinkIndex) -> Result<(), NetlinkError> {
        self.set_flags(&format!("set {index} down"), index, LinkFlags::empty())
    }

    fn set_flags(&mut self, operation: &str, index: LinkIndex, up: LinkFlags) -> Result<(), NetlinkError> {
        let mut message = addressed(index);
        message.header.flags = up;
        message.header.change_mask = LinkFlags::Up;
        self.change(operation, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets the largest IP packet that a link carries, bytes.
    pub fn set_mtu(&mut self, index: LinkIndex, mtu: u32) -> Result<(), NetlinkError> {
        self.set_link(&format!("set mtu of {index} to {mtu}"), index, LinkAttribute::Mtu(mtu))
    }

    /// Sets the hardware address. Some drivers accept it only while the link is down.
    pub fn set_mac(&mut self, index: LinkIndex, mac: MacAddress) -> Result<(), NetlinkError> {
        self.set_link(
            &format!("set address of {index} to {mac}"),
            index,
            LinkAttribute::Address(mac.0.to_vec()),
        )
    }

    /// Makes a link a port of a bridge or bond; `None` takes it out.
    pub fn set_master(&mut self, index: LinkIndex, master: Option<LinkIndex>) -> Result<(), NetlinkError> {
        let number = master.map_or(0, |master| master.0);
        self.set_link(&format!("set master of {index} to {number}"), index, LinkAttribute::Controller(number))
    }

    /// Keeps a bridge's port from exchanging frames with others that are isolated, or no longer. It has to be a bridge's port.
    pub fn set_isolated(&mut self, port: LinkIndex, isolated: bool) -> Result<(), NetlinkError> {
        let mut message = addressed(port);
        let data = InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(isolated)]);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(data),
        ]));
        let operation = format!("set isolation of {port} to {isolated}");
        self.change(&operation, RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Moves a link to another namespace. It arrives down, without addresses, and may have another index.
    pub fn move_to_namespace(
        &mut self,
        index: LinkIndex,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        let attribute = LinkAttribute::NetNsFd(namespace.as_raw_fd());
        self.set_link(&format!("move {index} to another namespace"), index, attribute)
    }

    fn set_link(
        &mut self,
        operation: &str,
        index: LinkIndex,
        attribute: LinkAttribute,
    ) -> Result<(), NetlinkError> {
        let mut message = addressed(index);
        message.attributes.push(attribute);
        self.change(operation, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Deletes a virtual link, and its peer if it is a veth. Says whether there was one.
    pub fn delete_link(&mut self, index: LinkIndex) -> Result<bool, NetlinkError> {
        let message = RouteNetlinkMessage::DelLink(addressed(index));
        absent_is_false(self.change(&format!("delete {index}"), message, 0))
    }
}

fn addressed(index: LinkIndex) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.0;
    message
}

fn veth_attributes(end: &VethEnd<'_>) -> Vec<LinkAttribute> {
    let mut attributes = vec![LinkAttribute::IfName(end.name.to_owned())];
    attributes.extend(end.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.extend(end.namespace.map(|namespace| LinkAttribute::NetNsFd(namespace.as_raw_fd())));
    attributes
}

impl Link {
    pub(crate) fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: LinkIndex(message.header.index),
            name: String::new(),
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            loopback: flags.contains(LinkFlags::Loopback),
            kind: None,
            master: None,
            lower: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(MacAddress),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(master) => link.master = Some(LinkIndex(*master)),
                LinkAttribute::Link(lower) => link.lower = Some(LinkIndex(*lower)),
                LinkAttribute::LinkInfo(infos) => link.kind = infos.iter().find_map(kind_of),
                _ => {}
            }
        }
        link
    }
}

fn kind_of(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}
