//! Neighbours: which hardware address answers for an IP address (ARP, RFC 826; ND, RFC 4861).

use crate::link::LinkIndex;
use crate::netlink::Netlink;
use crate::route::family_of;
use crate::transport::{NetlinkError, absent_is_false};
use dpr_model::MacAddress;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as WireState,
};
use std::net::IpAddr;

/// What the kernel thinks of a neighbour (`NUD_*`, after RFC 4861 section 7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Nothing is known and nothing was asked.
    None,
    /// Asked, not yet answered.
    Incomplete,
    /// Heard from lately.
    Reachable,
    /// The address was right once; it is used, and checked at the next use.
    Stale,
    /// In use while the kernel waits for a sign of life.
    Delay,
    /// In use while the kernel asks again.
    Probe,
    /// Did not answer.
    Failed,
    /// Needs no resolution, as on loopback.
    NoArp,
    /// Put in by an administrator.
    Permanent,
    /// A number that this program does not know.
    Other(u16),
}

impl NeighbourState {
    /// Whether packets can be sent to the hardware address (the kernel's `NUD_VALID`).
    pub fn is_usable(self) -> bool {
        match self {
            Self::Reachable | Self::Stale | Self::Delay | Self::Probe | Self::NoArp | Self::Permanent => true,
            Self::None | Self::Incomplete | Self::Failed | Self::Other(_) => false,
        }
    }

    /// Whether the hardware address is certain: nobody has to ask for it, now or later.
    pub fn is_fixed(self) -> bool {
        matches!(self, Self::NoArp | Self::Permanent)
    }
}

/// A neighbour on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The link.
    pub link: LinkIndex,
    /// Its IP address.
    pub address: IpAddr,
    /// Its hardware address, if one is known.
    pub mac: Option<MacAddress>,
    /// What the kernel thinks of it.
    pub state: NeighbourState,
}

impl Netlink {
    /// Every neighbour of every link, both address families.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, NetlinkError> {
        let query = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        self.dump("list neighbours", &query, |message| match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => Neighbour::from_message(&neighbour),
            _ => None,
        })
    }

    /// One neighbour; `None` if the kernel knows nothing of it. (Linux 5.0 or later.)
    pub fn neighbour(&mut self, link: LinkIndex, address: IpAddr) -> Result<Option<Neighbour>, NetlinkError> {
        let query = RouteNetlinkMessage::GetNeighbour(message_for(link, address));
        match self.request(&format!("get neighbour {address} on {link}"), query, 0) {
            Ok(answer) => Ok(answer.into_iter().find_map(|message| match message {
                RouteNetlinkMessage::NewNeighbour(neighbour) => Neighbour::from_message(&neighbour),
                _ => None,
            })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells the kernel a neighbour's hardware address for good.
    pub fn add_permanent_neighbour(
        &mut self,
        link: LinkIndex,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), NetlinkError> {
        let mut message = message_for(link, address);
        message.header.state = WireState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let operation = format!("set neighbour {address} on {link} to {mac}");
        self.change(&operation, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Forgets a neighbour. Says whether it was known.
    pub fn delete_neighbour(&mut self, link: LinkIndex, address: IpAddr) -> Result<bool, NetlinkError> {
        let message = RouteNetlinkMessage::DelNeighbour(message_for(link, address));
        absent_is_false(self.change(&format!("delete neighbour {address} on {link}"), message, 0))
    }

    /// Makes the kernel behave as if it had a packet for the neighbour: it asks for an unknown
    /// hardware address and checks a stale one. Returns at once; the answer shows in the table and
    /// as an [`Event`](crate::Event). A permanent neighbour becomes an ordinary one by this.
    pub fn probe(&mut self, link: LinkIndex, address: IpAddr) -> Result<(), NetlinkError> {
        let mut message = message_for(link, address);
        message.header.flags = NeighbourFlags::Use;
        let operation = format!("probe neighbour {address} on {link}");
        self.change(&operation, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }
}

fn message_for(link: LinkIndex, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(address);
    message.header.ifindex = link.0;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    message
}

impl Neighbour {
    /// `None` for bridge forwarding entries and address families other than IP.
    pub(crate) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let mut address = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some((*v4).into()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some((*v6).into()),
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok().map(MacAddress);
                }
                _ => {}
            }
        }
        let link = LinkIndex(message.header.ifindex);
        Some(Self { link, address: address?, mac, state: message.header.state.into() })
    }
}

impl From<WireState> for NeighbourState {
    fn from(state: WireState) -> Self {
        match state {
            WireState::None => Self::None,
            WireState::Incomplete => Self::Incomplete,
            WireState::Reachable => Self::Reachable,
            WireState::Stale => Self::Stale,
            WireState::Delay => Self::Delay,
            WireState::Probe => Self::Probe,
            WireState::Failed => Self::Failed,
            WireState::Noarp => Self::NoArp,
            WireState::Permanent => Self::Permanent,
            other => Self::Other(other.into()),
        }
    }
}
