//! Routes to and from rtnetlink's messages (`struct rtmsg` and its attributes).

use crate::link::LinkIndex;
use crate::prefix::IpPrefix;
use crate::route::{ResolvedRoute, Route, RouteKind, RouteQuery, RouteTable, family_of};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteType, RouteVia,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The message that adds or deletes a route.
pub(crate) fn message_of(route: &Route) -> RouteMessage {
    let destination = route.destination.network();
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(destination.address());
    message.header.destination_prefix_length = destination.length();
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = u8::from(route.scope).into();
    message.header.kind = route.kind.into();
    message.header.flags.set(RouteFlags::Onlink, route.onlink);
    message.attributes.push(RouteAttribute::Table(route.table.0));
    message.attributes.push(RouteAttribute::Destination(destination.address().into()));
    message.attributes.extend(route.gateway.map(|gateway| gateway_attribute(destination, gateway)));
    message.attributes.extend(route.link.map(|link| RouteAttribute::Oif(link.0)));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

/// The message that adds a route by several routers, all of the same weight.
pub(crate) fn message_by_several(destination: IpPrefix, gateways: &[IpAddr]) -> RouteMessage {
    let next_hop = |gateway: &IpAddr| {
        let mut next_hop = RouteNextHop::default();
        next_hop.attributes.push(gateway_attribute(destination, *gateway));
        next_hop
    };
    let mut message = message_of(&Route { gateway: None, ..Route::via(destination, destination.address()) });
    message.attributes.push(RouteAttribute::MultiPath(gateways.iter().map(next_hop).collect()));
    message
}

/// A gateway of the other address family (RFC 8950) has an attribute of its own.
fn gateway_attribute(destination: IpPrefix, gateway: IpAddr) -> RouteAttribute {
    match gateway {
        IpAddr::V6(v6) if destination.address().is_ipv4() => RouteAttribute::Via(RouteVia::Inet6(v6)),
        other => RouteAttribute::Gateway(other.into()),
    }
}

/// The message that asks for a packet's way.
pub(crate) fn query_message(query: &RouteQuery) -> RouteMessage {
    let width = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(query.destination);
    message.header.destination_prefix_length = width(query.destination);
    message.attributes.push(RouteAttribute::Destination(query.destination.into()));
    if let Some(source) = query.source {
        message.header.source_prefix_length = width(source);
        message.attributes.push(RouteAttribute::Source(source.into()));
    }
    message.attributes.extend(query.mark.map(RouteAttribute::Mark));
    message.attributes.extend(query.input.map(|link| RouteAttribute::Iif(link.0)));
    message
}

impl Route {
    /// The entry that a message describes, once per next hop; none for other address families.
    pub(crate) fn from_message(message: &RouteMessage) -> Vec<Self> {
        let Some(common) = Self::without_next_hops(message) else { return Vec::new() };
        let next_hops = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::MultiPath(next_hops) => Some(next_hops),
            _ => None,
        });
        let Some(next_hops) = next_hops else { return vec![common] };
        next_hops
            .iter()
            .map(|hop| Self {
                link: Some(LinkIndex(hop.interface_index)),
                gateway: hop.attributes.iter().find_map(gateway_in),
                onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
                ..common
            })
            .collect()
    }

    fn without_next_hops(message: &RouteMessage) -> Option<Self> {
        let everything = match message.header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let mut destination = everything;
        let mut route = Self {
            destination: IpPrefix::new(everything, 0).ok()?,
            gateway: message.attributes.iter().find_map(gateway_in),
            link: None,
            table: RouteTable(u32::from(message.header.table)),
            scope: u8::from(message.header.scope).into(),
            onlink: message.header.flags.contains(RouteFlags::Onlink),
            metric: None,
            source: None,
            kind: message.header.kind.into(),
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Oif(link) => route.link = Some(LinkIndex(*link)),
                RouteAttribute::Table(table) => route.table = RouteTable(*table),
                RouteAttribute::Priority(metric) => route.metric = Some(*metric),
                RouteAttribute::PrefSource(source) => route.source = ip(source),
                _ => {}
            }
        }
        route.destination = IpPrefix::new(destination, message.header.destination_prefix_length).ok()?;
        Some(route)
    }
}

impl ResolvedRoute {
    pub(crate) fn from_message(message: &RouteMessage) -> Option<Self> {
        let mtu = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|metric| match metric {
                RouteMetric::Mtu(mtu) => Some(*mtu),
                _ => None,
            }),
            _ => None,
        });
        let route = Route::from_message(message).into_iter().next()?;
        Some(Self { link: route.link?, gateway: route.gateway, source: route.source, mtu, kind: route.kind })
    }
}

fn gateway_in(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(gateway) => ip(gateway),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

impl From<RouteType> for RouteKind {
    fn from(kind: RouteType) -> Self {
        match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::Local => Self::Local,
            RouteType::Broadcast => Self::Broadcast,
            RouteType::Multicast => Self::Multicast,
            RouteType::BlackHole => Self::Blackhole,
            RouteType::Unreachable => Self::Unreachable,
            other => Self::Other(other.into()),
        }
    }
}

impl From<RouteKind> for RouteType {
    fn from(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Unicast => Self::Unicast,
            RouteKind::Local => Self::Local,
            RouteKind::Broadcast => Self::Broadcast,
            RouteKind::Multicast => Self::Multicast,
            RouteKind::Blackhole => Self::BlackHole,
            RouteKind::Unreachable => Self::Unreachable,
            RouteKind::Other(number) => number.into(),
        }
    }
}
