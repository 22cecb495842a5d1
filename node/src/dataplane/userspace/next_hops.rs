//! From an IP address to a device and a MAC address, by asking the kernel as seldom as possible.
//!
//! The kernel's routing and neighbour tables decide; this is a cache that hears of their changes. Where the kernel
//! does not know a neighbour yet, it is made to ask, and the packet waits.

use dpr_host::{Event, LinkIndex, Monitor, Neighbour, Netlink, NetlinkError, RouteKind, RouteQuery};
use dpr_model::{DropReason, MacAddress, Timestamp};
use dpr_rewrite::ethernet::Tags;
use hashbrown::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Destinations that are remembered; then all are forgotten and asked for again.
const ROUTES_MAX: usize = 65_536;
/// Neighbours that are remembered.
const NEIGHBOURS_MAX: usize = 16_384;
/// The kernel does not see that we use its neighbours. It is told so this often, and then checks the stale ones
/// (RFC 4861, section 7.3.3; `delay_first_probe_time` and three probes follow).
pub(super) const REVALIDATE_AFTER: Duration = Duration::from_secs(10);
/// How often the kernel is asked to resolve an unknown neighbour (`retrans_time_ms` of Linux is a second).
pub(super) const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextHop {
    /// Device.
    pub(crate) link: LinkIndex,
    /// MAC address of the device.
    pub(crate) source: MacAddress,
    /// MAC address of the next hop.
    pub(crate) destination: MacAddress,
    /// VLAN tags to write into the frame.
    pub(crate) tags: Tags,
}

/// Answer to "where does this packet go?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// There.
    Known(NextHop),
    /// To this neighbour, whose MAC address the kernel is finding out.
    Pending(Neighbourhood),
    /// Nowhere.
    Never(DropReason),
}

/// A neighbour's IP address on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Neighbourhood {
    pub(crate) link: LinkIndex,
    pub(crate) address: IpAddr,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    mac: Option<MacAddress>,
    /// An administrator put it in: asking the kernel to look after it would make it one that has to answer.
    fixed: bool,
    told_kernel: Timestamp,
}

impl Remembered {
    const UNKNOWN: Self = Self { mac: None, fixed: false, told_kernel: Timestamp::from_millis(0) };
}

/// The cache.
pub(crate) struct NextHops {
    netlink: Netlink,
    monitor: Monitor,
    mac_by_link: HashMap<LinkIndex, MacAddress>,
    next_by_destination: HashMap<IpAddr, Option<Neighbourhood>>,
    neighbours: HashMap<Neighbourhood, Remembered>,
    /// How often routes may have become others.
    routes_changed: u64,
}

impl NextHops {
    /// Starts to listen, then reads what there is.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let monitor = Monitor::open()?;
        let mut next_hops = Self {
            netlink: Netlink::open()?,
            monitor,
            mac_by_link: HashMap::new(),
            next_by_destination: HashMap::new(),
            neighbours: HashMap::new(),
            routes_changed: 0,
        };
        next_hops.read_everything()?;
        Ok(next_hops)
    }

    /// Where packets to `destination` go.
    pub(crate) fn resolve(&mut self, destination: IpAddr, now: Timestamp) -> Resolution {
        let Some(neighbourhood) = self.neighbour_towards(destination) else {
            return Resolution::Never(DropReason::NoRoute);
        };
        let link = neighbourhood.link;
        let Some(source) = self.mac_by_link.get(&link).copied() else {
            return Resolution::Never(DropReason::NoRoute);
        };
        match self.mac_of(neighbourhood, now) {
            Some(destination) => {
                Resolution::Known(NextHop { link, source, destination, tags: Tags::default() })
            }
            None => Resolution::Pending(neighbourhood),
        }
    }

    /// The neighbour that the kernel's routes lead to `destination` by.
    pub(crate) fn neighbour_towards(&mut self, destination: IpAddr) -> Option<Neighbourhood> {
        if let Some(next) = self.next_by_destination.get(&destination) {
            return *next;
        }
        match self.ask_for_route(destination) {
            Ok(next) => {
                if self.next_by_destination.len() >= ROUTES_MAX {
                    self.next_by_destination.clear();
                }
                self.next_by_destination.insert(destination, next);
                next
            }
            Err(error) => {
                tracing::debug!(%destination, %error, "no answer about a route");
                None
            }
        }
    }

    /// Hears what changed. Returns true when neighbours became known that packets may wait for.
    pub(crate) fn handle_events(&mut self) -> Result<bool, NetlinkError> {
        let mut neighbours_found = false;
        while let Some(event) = self.monitor.poll_event()? {
            match event {
                Event::Neighbour(neighbour) => neighbours_found |= self.learn(&neighbour),
                Event::NeighbourGone(neighbour) => {
                    self.neighbours.remove(&neighbourhood_of(&neighbour));
                }
                Event::Route(_) | Event::RouteGone(_) | Event::Address(_) | Event::AddressGone(_) => {
                    self.next_by_destination.clear();
                    self.routes_changed += 1;
                }
                Event::Link(_) | Event::LinkGone(_) | Event::Lost => {
                    self.read_everything()?;
                    neighbours_found = true;
                }
            }
        }
        Ok(neighbours_found)
    }

    /// A count that is another one when routes may have become others.
    pub(crate) fn routes_changed(&self) -> u64 {
        self.routes_changed
    }

    fn read_everything(&mut self) -> Result<(), NetlinkError> {
        self.next_by_destination.clear();
        self.routes_changed += 1;
        self.neighbours.clear();
        self.mac_by_link =
            self.netlink.links()?.iter().filter_map(|link| Some((link.index, link.mac?))).collect();
        for neighbour in self.netlink.neighbours()? {
            self.learn(&neighbour);
        }
        Ok(())
    }

    /// Takes over what the kernel says of a neighbour; true if its MAC address can be used.
    fn learn(&mut self, neighbour: &Neighbour) -> bool {
        let mac = neighbour.mac.filter(|_| neighbour.state.is_usable());
        if self.neighbours.len() >= NEIGHBOURS_MAX {
            self.neighbours.clear();
        }
        let key = neighbourhood_of(neighbour);
        let remembered = self.neighbours.entry(key).or_insert(Remembered::UNKNOWN);
        remembered.mac = mac;
        remembered.fixed = neighbour.state.is_fixed();
        mac.is_some()
    }

    pub(crate) fn mac_of(&mut self, neighbourhood: Neighbourhood, now: Timestamp) -> Option<MacAddress> {
        if self.neighbours.len() >= NEIGHBOURS_MAX && !self.neighbours.contains_key(&neighbourhood) {
            self.neighbours.clear();
        }
        let remembered = self.neighbours.entry(neighbourhood).or_insert(Remembered::UNKNOWN);
        if remembered.fixed {
            return remembered.mac;
        }
        let patience = if remembered.mac.is_some() { REVALIDATE_AFTER } else { ASK_AGAIN_AFTER };
        if remembered.told_kernel == Timestamp::default() || now.since(remembered.told_kernel) >= patience {
            remembered.told_kernel = now;
            let Neighbourhood { link, address } = neighbourhood;
            if let Err(error) = self.netlink.probe(link, address) {
                tracing::debug!(%link, %address, %error, "the kernel does not look for a neighbour");
            }
        }
        remembered.mac
    }

    fn ask_for_route(&mut self, destination: IpAddr) -> Result<Option<Neighbourhood>, NetlinkError> {
        let route = self.netlink.route_to(&RouteQuery::to(destination))?;
        Ok(route
            .filter(|route| route.kind == RouteKind::Unicast)
            .map(|route| Neighbourhood { link: route.link, address: route.gateway.unwrap_or(destination) }))
    }
}

impl AsFd for NextHops {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

fn neighbourhood_of(neighbour: &Neighbour) -> Neighbourhood {
    Neighbourhood { link: neighbour.link, address: neighbour.address }
}
