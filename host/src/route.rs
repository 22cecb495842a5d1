//! Routes: what is in the tables, and where a packet would go.

use crate::link::LinkIndex;
use crate::netlink::Netlink;
use crate::prefix::IpPrefix;
use crate::route_message::{message_by_several, message_of, query_message};
use crate::transport::{NetlinkError, absent_is_false};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::fmt;
use std::net::IpAddr;

/// Number of a routing table, 1 to 2^32 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteTable(pub u32);

impl RouteTable {
    /// Where ordinary routes are (`RT_TABLE_MAIN`).
    pub const MAIN: Self = Self(254);

    /// Where the kernel keeps the host's own addresses (`RT_TABLE_LOCAL`).
    pub const LOCAL: Self = Self(255);
}

impl fmt::Display for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}", self.0)
    }
}

/// How far a route or an address reaches (`enum rt_scope_t`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere: routes with a gateway, ordinary addresses.
    #[default]
    Universe,
    /// The link: routes without a gateway.
    Link,
    /// This host.
    Host,
    /// A number of the administrator's.
    Other(u8),
}

impl From<u8> for Scope {
    fn from(number: u8) -> Self {
        match number {
            libc::RT_SCOPE_UNIVERSE => Self::Universe,
            libc::RT_SCOPE_LINK => Self::Link,
            libc::RT_SCOPE_HOST => Self::Host,
            other => Self::Other(other),
        }
    }
}

impl From<Scope> for u8 {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Universe => libc::RT_SCOPE_UNIVERSE,
            Scope::Link => libc::RT_SCOPE_LINK,
            Scope::Host => libc::RT_SCOPE_HOST,
            Scope::Other(number) => number,
        }
    }
}

/// What a route does with packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends them on.
    #[default]
    Unicast,
    /// Delivers them to this host.
    Local,
    /// Delivers them here and to everybody on the link.
    Broadcast,
    /// Sends them to a group.
    Multicast,
    /// Drops them silently.
    Blackhole,
    /// Drops them and tells the sender.
    Unreachable,
    /// Anything else, by the kernel's number (`RTN_*`).
    Other(u8),
}

/// One entry of a routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where the packets want to go.
    pub destination: IpPrefix,
    /// Router that takes them; `None` if they are sent to their destination itself.
    pub gateway: Option<IpAddr>,
    /// Link that they leave by.
    pub link: Option<LinkIndex>,
    /// Table that the entry is in.
    pub table: RouteTable,
    /// How far the route reaches.
    pub scope: Scope,
    /// The gateway is on the link although no route says so.
    pub onlink: bool,
    /// Of two routes to the same prefix, the one with the lower metric is taken.
    pub metric: Option<u32>,
    /// Source address of packets that have none yet.
    pub source: Option<IpAddr>,
    /// What it does with packets.
    pub kind: RouteKind,
}

impl Route {
    /// An ordinary route of the main table to whoever answers on `link`.
    pub fn on_link(destination: IpPrefix, link: LinkIndex) -> Self {
        Self {
            destination: destination.network(),
            gateway: None,
            link: Some(link),
            table: RouteTable::MAIN,
            scope: if destination.address().is_ipv4() { Scope::Link } else { Scope::Universe },
            onlink: false,
            metric: None,
            source: None,
            kind: RouteKind::Unicast,
        }
    }

    /// An ordinary route of the main table through a router.
    pub fn via(destination: IpPrefix, gateway: IpAddr) -> Self {
        Self {
            destination: destination.network(),
            gateway: Some(gateway),
            link: None,
            table: RouteTable::MAIN,
            scope: Scope::Universe,
            onlink: false,
            metric: None,
            source: None,
            kind: RouteKind::Unicast,
        }
    }

    /// The same route in another table.
    pub fn in_table(self, table: RouteTable) -> Self {
        Self { table, ..self }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route to {}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(link) = self.link {
            write!(f, " on {link}")?;
        }
        write!(f, " in {}", self.table)
    }
}

/// A packet whose way is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// Its destination.
    pub destination: IpAddr,
    /// Its source address; without `input`, one of this host's.
    pub source: Option<IpAddr>,
    /// Its firewall mark, which policy rules may look at.
    pub mark: Option<u32>,
    /// The link that it came in by, if this host forwards it; needs `source`.
    pub input: Option<LinkIndex>,
}

impl RouteQuery {
    /// A packet of this host's own, with nothing but a destination.
    pub fn to(destination: IpAddr) -> Self {
        Self { destination, source: None, mark: None, input: None }
    }
}

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedRoute {
    /// Link that it leaves by; the loopback link for this host's own addresses.
    pub link: LinkIndex,
    /// Router that takes it; `None` if its destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Source address that the kernel would give it.
    pub source: Option<IpAddr>,
    /// Path MTU that the kernel knows for it, bytes; `None` if it is the link's.
    pub mtu: Option<u32>,
    /// [`RouteKind::Local`] if the destination is this host.
    pub kind: RouteKind,
}

impl Netlink {
    /// Adds a route; fails if there is one to the same prefix with the same metric.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRoute(message_of(route));
        self.change(&format!("add {route}"), message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Adds a route in place of the one to the same prefix with the same metric, if there is one.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRoute(message_of(route));
        self.change(&format!("replace {route}"), message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Adds a route of the main table that spreads flows over several routers on links of this host, alike, in place of any
    /// to the same prefix.
    pub fn replace_route_by_several(
        &mut self,
        destination: IpPrefix,
        gateways: &[IpAddr],
    ) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRoute(message_by_several(destination, gateways));
        let operation = format!("replace route to {destination} by {} routers", gateways.len());
        self.change(&operation, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Deletes the route that agrees in all that `route` says. Says whether there was one.
    pub fn delete_route(&mut self, route: &Route) -> Result<bool, NetlinkError> {
        let message = RouteNetlinkMessage::DelRoute(message_of(route));
        absent_is_false(self.change(&format!("delete {route}"), message, 0))
    }

    /// Every route of a table, both address families. A route with several next hops is listed once
    /// for each.
    pub fn routes(&mut self, table: RouteTable) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = self.routes_of_family(table, AddressFamily::Inet)?;
        routes.extend(self.routes_of_family(table, AddressFamily::Inet6)?);
        Ok(routes)
    }

    fn routes_of_family(
        &mut self,
        table: RouteTable,
        family: AddressFamily,
    ) -> Result<Vec<Route>, NetlinkError> {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        query.attributes.push(RouteAttribute::Table(table.0));
        let query = RouteNetlinkMessage::GetRoute(query);
        let listed = self.dump(&format!("list routes of {table}"), &query, |message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(Route::from_message(&route)),
            _ => None,
        });
        match listed {
            // Kernels before 4.20 list every table.
            Ok(routes) => Ok(routes.into_iter().flatten().filter(|route| route.table == table).collect()),
            // A table exists while it has routes.
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            // The kernel has no IPv6.
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Where the kernel would send a packet; `None` if it has no route for it, or one that says so
    /// (unreachable, prohibit). A blackhole route is the error `EINVAL`.
    pub fn route_to(&mut self, query: &RouteQuery) -> Result<Option<ResolvedRoute>, NetlinkError> {
        let operation = format!("find route to {}", query.destination);
        match self.request(&operation, RouteNetlinkMessage::GetRoute(query_message(query)), 0) {
            Ok(answer) => Ok(answer.into_iter().find_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route) => ResolvedRoute::from_message(&route),
                _ => None,
            })),
            Err(error)
                if matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The kernel's number for an address's family.
pub(crate) fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
