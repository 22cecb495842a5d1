//! Where frames to peers and to the routers go next, found out before the programs need it.

use crate::dataplane::userspace::next_hops::{Neighbourhood, NextHops, Resolution};
use dpr_director::View;
use dpr_host::{LinkIndex, Netlink, RouteTable};
use dpr_model::{MacAddress, Timestamp};
use dpr_xdp::abi::Hop;
use dpr_xdp::{Neighbour, NextHop};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How often the default route is read.
const READ_ROUTES_AFTER: Duration = Duration::from_secs(1);

/// Next hops, as of the last look.
pub(super) struct Ways {
    next_hops: NextHops,
    netlink: Netlink,
    by_peer: BTreeMap<IpAddr, NextHop>,
    /// Of the default routes of IPv4 and of IPv6.
    gateways: [Option<IpAddr>; 2],
    routers: [Option<MacAddress>; 2],
    routes_read: Timestamp,
}

impl Ways {
    pub(super) fn open() -> anyhow::Result<Self> {
        Ok(Self {
            next_hops: NextHops::open()?,
            netlink: Netlink::open()?,
            by_peer: BTreeMap::new(),
            gateways: [None; 2],
            routers: [None; 2],
            routes_read: Timestamp::default(),
        })
    }

    /// Looks up the ways to all peers, and to the routers of the interface `service`; the kernel is made to ask for
    /// neighbours that it does not know.
    pub(super) fn follow(
        &mut self,
        view: &View<'_>,
        service: LinkIndex,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        self.next_hops.handle_events()?;
        self.by_peer.clear();
        for peer in view.peers.iter().filter(|peer| !peer.has_left) {
            if let Some(next_hop) = self.resolve(peer.address, now) {
                self.by_peer.insert(peer.address, next_hop);
            }
        }
        if self.routes_read == Timestamp::default() || now.since(self.routes_read) >= READ_ROUTES_AFTER {
            self.routes_read = now;
            self.gateways = self.default_gateways(service)?;
        }
        // Of IPv6 they have addresses of the link, to which no route leads.
        self.routers = self
            .gateways
            .map(|gateway| self.next_hops.mac_of(Neighbourhood { link: service, address: gateway? }, now));
        Ok(())
    }

    /// Where packets to a peer go next, if that is known.
    pub(super) fn to(&self, peer: IpAddr) -> Option<NextHop> {
        self.by_peer.get(&peer).copied()
    }

    /// MAC addresses of the routers for IPv4 and IPv6, if there are any and they are known.
    pub(super) fn routers(&self) -> [Option<MacAddress>; 2] {
        self.routers
    }

    /// The neighbour by which an address is reached, if that is on the link. `mtu` is the largest IP packet there, bytes.
    pub(super) fn neighbour_of(
        &mut self,
        to: IpAddr,
        (link, mtu): (LinkIndex, u16),
        now: Timestamp,
    ) -> Option<Neighbour> {
        let next = self.next_hops.neighbour_towards(to).filter(|next| next.link == link)?;
        Some(Neighbour { address: next.address, hop: self.hop_to(next.address, (link, mtu), now) })
    }

    /// Where a neighbour on the link is.
    pub(super) fn hop_to(&mut self, address: IpAddr, (link, mtu): (LinkIndex, u16), now: Timestamp) -> Hop {
        let neighbourhood = Neighbourhood { link, address };
        let mut mac = self.next_hops.mac_of(neighbourhood, now);
        // It may have answered since the last update.
        if mac.is_none() && self.next_hops.handle_events().is_ok_and(|found| found) {
            mac = self.next_hops.mac_of(neighbourhood, now);
        }
        mac.map_or(Hop::default(), |mac| Hop { mac: mac.0, mtu })
    }

    /// A count that is another one when routes may have become others.
    pub(super) fn routes_changed(&self) -> u64 {
        self.next_hops.routes_changed()
    }

    fn resolve(&mut self, to: IpAddr, now: Timestamp) -> Option<NextHop> {
        match self.next_hops.resolve(to, now) {
            Resolution::Known(next) => {
                Some(NextHop { link: next.link.0, source: next.source, destination: next.destination })
            }
            Resolution::Pending(_) | Resolution::Never(_) => None,
        }
    }

    fn default_gateways(&mut self, service: LinkIndex) -> anyhow::Result<[Option<IpAddr>; 2]> {
        let routes = self.netlink.routes(RouteTable::MAIN)?;
        Ok([false, true].map(|is_ipv6| {
            let default = routes.iter().filter(|route| {
                route.destination.length() == 0
                    && route.link == Some(service)
                    && route.destination.address().is_ipv6() == is_ipv6
            });
            default.min_by_key(|route| route.metric).and_then(|route| route.gateway)
        }))
    }
}
