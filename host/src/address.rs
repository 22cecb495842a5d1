//! IP addresses of links.

use crate::link::LinkIndex;
use crate::netlink::Netlink;
use crate::prefix::IpPrefix;
use crate::route::{Scope, family_of};
use crate::transport::{NetlinkError, absent_is_false};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

/// An address that a link holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The holder.
    pub link: LinkIndex,
    /// Address and the length of its network.
    pub prefix: IpPrefix,
    /// How far the address means something.
    pub scope: Scope,
    /// IPv6: duplicate address detection (RFC 4862 section 5.4) is not over, or failed; nothing
    /// can be bound to it.
    pub tentative: bool,
}

/// How an address is to be added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressOptions {
    /// How far the address means something. The kernel chooses an address of host scope as the
    /// source of nothing that leaves the host.
    pub scope: Scope,
    /// IPv6: usable at once, without duplicate address detection.
    pub skip_duplicate_detection: bool,
    /// No route to the address's network comes with it.
    pub without_network_route: bool,
}

impl Netlink {
    /// Every address of every link.
    pub fn addresses(&mut self) -> Result<Vec<InterfaceAddress>, NetlinkError> {
        let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump("list addresses", &query, |message| match message {
            RouteNetlinkMessage::NewAddress(address) => InterfaceAddress::from_message(&address),
            _ => None,
        })
    }

    /// Every address of one link.
    pub fn addresses_of(&mut self, link: LinkIndex) -> Result<Vec<InterfaceAddress>, NetlinkError> {
        Ok(self.addresses()?.into_iter().filter(|address| address.link == link).collect())
    }

    /// Gives a link an address; one that it has already stays.
    pub fn add_address(
        &mut self,
        link: LinkIndex,
        prefix: IpPrefix,
        options: AddressOptions,
    ) -> Result<(), NetlinkError> {
        let mut message = message_for(link, prefix);
        message.header.scope = u8::from(options.scope).into();
        let mut flags = AddressFlags::empty();
        flags.set(AddressFlags::Nodad, options.skip_duplicate_detection);
        flags.set(AddressFlags::Noprefixroute, options.without_network_route);
        message.attributes.push(AddressAttribute::Flags(flags));
        let operation = format!("add address {prefix} to {link}");
        self.change(&operation, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes an address from a link. Says whether it was there.
    ///
    /// With the first IPv4 address of a network go the others of that network on the same link,
    /// unless `net.ipv4.conf.*.promote_secondaries` is set.
    pub fn delete_address(&mut self, link: LinkIndex, prefix: IpPrefix) -> Result<bool, NetlinkError> {
        let message = RouteNetlinkMessage::DelAddress(message_for(link, prefix));
        absent_is_false(self.change(&format!("delete address {prefix} from {link}"), message, 0))
    }
}

fn message_for(link: LinkIndex, prefix: IpPrefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(prefix.address());
    message.header.prefix_len = prefix.length();
    message.header.index = link.0;
    message.attributes =
        vec![AddressAttribute::Local(prefix.address()), AddressAttribute::Address(prefix.address())];
    message
}

impl InterfaceAddress {
    /// `None` if the message names no address that this host holds (multicast, anycast).
    pub(crate) fn from_message(message: &AddressMessage) -> Option<Self> {
        let mut local = None;
        let mut address = None;
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        for attribute in &message.attributes {
            match attribute {
                // On a point-to-point link IFA_ADDRESS is the other end's.
                AddressAttribute::Local(held) => local = Some(*held),
                AddressAttribute::Address(held) => address = Some(*held),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        let prefix = IpPrefix::new(local.or(address)?, message.header.prefix_len).ok()?;
        Some(Self {
            link: LinkIndex(message.header.index),
            prefix,
            scope: u8::from(message.header.scope).into(),
            tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
        })
    }
}
