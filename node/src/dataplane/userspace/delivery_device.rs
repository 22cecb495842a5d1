//! The way to the local TCP stack: a veth pair, delivery addresses, and a policy route for the replies.
//!
//! ```text
//! data plane ─ dpr1 ═══ dpr0 ─ kernel: the delivery ranges are local, replies from them leave by dpr0
//! ```
//!
//! Everything made here is named, so that a daemon that was killed leaves nothing that the next one does not find.

use super::filter;
use super::packet_socket::{Accept, Receiver};
use crate::dataplane::traces;
use anyhow::{Context as _, bail};
use dpr_director::DeliveryRanges;
use dpr_host::{
    IpPrefix, Ipv6Setting, Link, LinkIndex, Netlink, PolicyRule, Route, RouteKind, RouteTable, Scope, Sysctl,
    VethEnd,
};
use dpr_model::MacAddress;
use dpr_rewrite::Version;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kernel's end.
const KERNEL_END: &str = traces::LINK;
/// The data plane's end.
const OUR_END: &str = traces::OTHER_END;
/// Routing table of replies; free in every distribution we know.
const TABLE: RouteTable = RouteTable(7777);
/// Replies go to this address for the kernel, which so needs one neighbour entry and not one per client. It is in the
/// part of 169.254.0.0/16 that nobody may use (RFC 3927, section 2.1), and no packet ever carries it.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 255, 254);
/// The same for IPv6: link-local, so of no meaning outside of the pair.
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// What becomes of replies from delivery addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepliesBy {
    /// They come out of the pair, to be translated here.
    Pair,
    /// They leave by the host's routes, and the kernel's programs translate them.
    Programs,
}

/// The pair, for as long as this lives.
pub(crate) struct DeliveryDevice {
    netlink: Netlink,
    rules: Vec<PolicyRule>,
    /// Local ranges whose routes do not go with the pair, and whose replies do not come out of it.
    routes: Vec<Route>,
    kernel_end: LinkIndex,
    /// The data plane's end: what is sent there arrives in the local TCP stack.
    pub(crate) link: LinkIndex,
    /// MAC address of the kernel's end.
    pub(crate) kernel_mac: MacAddress,
    /// MAC address of the data plane's end.
    pub(crate) mac: MacAddress,
}

impl DeliveryDevice {
    /// Makes the pair, after removing what an earlier daemon may have left. `mtu` is that of the service interface,
    /// so that the local TCP stack does not make larger packets.
    pub(crate) fn create(ranges: DeliveryRanges, mtu: u32, replies_by: RepliesBy) -> anyhow::Result<Self> {
        let mut netlink = Netlink::open()?;
        let prefixes = prefixes_of(ranges)?;
        remove_pair(&mut netlink)?;
        if replies_by == RepliesBy::Pair {
            remove_lasting_routes(&mut netlink, &prefixes)?;
        }
        for prefix in &prefixes {
            refuse_overlap(&mut netlink, *prefix)?;
        }

        netlink.create_veth(VethEnd::named(KERNEL_END), VethEnd::named(OUR_END))?;
        let ends =
            end_of(&mut netlink, KERNEL_END).and_then(|kernel| Ok((kernel, end_of(&mut netlink, OUR_END)?)));
        let (kernel_end, our_end) = ends?;
        // From here on, dropping the device cleans up whatever was made.
        let mut device = Self {
            netlink,
            rules: Vec::new(),
            routes: Vec::new(),
            kernel_end: kernel_end.index,
            link: our_end.index,
            kernel_mac: kernel_end.mac.context("a veth end without a MAC address")?,
            mac: our_end.mac.context("a veth end without a MAC address")?,
        };
        for (name, link) in [(KERNEL_END, device.kernel_end), (OUR_END, device.link)] {
            settle(name, name == KERNEL_END)?;
            device.netlink.set_mtu(link, mtu)?;
            device.netlink.set_up(link)?;
        }
        for prefix in prefixes {
            device.deliver(prefix, replies_by)?;
        }
        Ok(device)
    }

    /// Makes `prefix` local, and sends replies from it into the pair if they are to come that way.
    fn deliver(&mut self, prefix: IpPrefix, replies_by: RepliesBy) -> anyhow::Result<()> {
        let (everywhere, gateway) = match prefix.address() {
            IpAddr::V4(_) => (IpPrefix::ALL_IPV4, IpAddr::V4(GATEWAY_V4)),
            IpAddr::V6(_) => (IpPrefix::ALL_IPV6, IpAddr::V6(GATEWAY_V6)),
        };
        match replies_by {
            RepliesBy::Pair => self.netlink.add_route(&local(prefix, self.kernel_end))?,
            RepliesBy::Programs => {
                // Not by the pair, which a daemon that starts makes anew while connections go on; but nothing else takes
                // IPv6 where the host has turned it off.
                let loopback = loopback(&mut self.netlink)?;
                let link = if takes(&loopback, prefix)? { loopback.index } else { self.kernel_end };
                let route = local(prefix, link);
                self.netlink.replace_route(&route)?;
                self.routes.push(route);
            }
        }
        self.netlink.add_permanent_neighbour(self.kernel_end, gateway, self.mac)?;
        self.netlink.add_route(&Route {
            link: Some(self.kernel_end),
            onlink: true,
            ..Route::via(everywhere, gateway).in_table(TABLE)
        })?;
        match replies_by {
            RepliesBy::Pair => self.add_rule(prefix),
            RepliesBy::Programs => Ok(()),
        }
    }

    /// Has all replies come out of the pair from now on.
    pub(crate) fn take_replies(&mut self) -> anyhow::Result<()> {
        for prefix in self.routes.iter().map(|route| route.destination).collect::<Vec<_>>() {
            self.add_rule(prefix)?;
        }
        Ok(())
    }

    fn add_rule(&mut self, from: IpPrefix) -> anyhow::Result<()> {
        let rule = PolicyRule { from, table: TABLE, priority: traces::RULE_PRIORITY };
        self.netlink.add_rule(&rule)?;
        self.rules.push(rule);
        Ok(())
    }

    /// Sends replies from a service address that the host has itself into the pair, so that the kernel also takes what
    /// comes to it out of the pair for rightly sent (RFC 3704).
    pub(crate) fn take_replies_from(&mut self, address: IpAddr) -> anyhow::Result<()> {
        self.add_rule(IpPrefix::host(address))
    }

    /// A socket that sees what the local TCP stack sends to clients.
    pub(crate) fn replies(&self) -> anyhow::Result<Receiver> {
        Receiver::open(self.link.0, &filter::everything(), Accept::Any)
            .with_context(|| format!("opening a packet socket on {OUR_END}"))
    }

    /// Removes the pair and the rules; most routes go with the pair.
    pub(crate) fn remove(mut self) -> anyhow::Result<()> {
        self.try_remove()
    }

    fn try_remove(&mut self) -> anyhow::Result<()> {
        let rules = self.rules.iter().map(|rule| self.netlink.delete_rule(rule));
        let rules = rules.fold(Ok(true), Result::and);
        let routes = self.routes.iter().map(|route| self.netlink.delete_route(route));
        let routes = routes.fold(Ok(true), Result::and);
        let link = self.netlink.delete_link(self.kernel_end);
        rules?;
        routes?;
        link?;
        Ok(())
    }
}

impl Drop for DeliveryDevice {
    fn drop(&mut self) {
        // After `remove` there is nothing left, which is no error.
        if let Err(error) = self.try_remove() {
            tracing::warn!(%error, "the delivery device could not be removed");
        }
    }
}

/// The ranges of the IP versions that the kernel has.
fn prefixes_of(ranges: DeliveryRanges) -> anyhow::Result<Vec<IpPrefix>> {
    let has_v6 = Sysctl::ipv6("default", Ipv6Setting::DisableIpv6)?.read().is_ok();
    let versions = if has_v6 { &[Version::V4, Version::V6][..] } else { &[Version::V4] };
    let prefix = |version: &Version| {
        let range = ranges.of(*version);
        Ok(IpPrefix::new(range.network(), range.prefix_len())?)
    };
    versions.iter().map(prefix).collect()
}

/// Keeps an end of the pair from asking for routers and telling of groups. The kernel's end takes IPv6 packets, also
/// where other interfaces do not.
fn settle(name: &str, takes_ipv6: bool) -> anyhow::Result<()> {
    let disable = Sysctl::ipv6(name, Ipv6Setting::DisableIpv6)?;
    if disable.read().is_err() {
        // A kernel without IPv6.
        return Ok(());
    }
    if !takes_ipv6 {
        return Ok(disable.write("1")?);
    }
    for setting in [Ipv6Setting::AcceptRa, Ipv6Setting::AcceptDad, Ipv6Setting::RouterSolicitations] {
        Sysctl::ipv6(name, setting)?.write("0")?;
    }
    Sysctl::ipv6(name, Ipv6Setting::AddrGenMode)?.write(ADDR_GEN_MODE_NONE)?;
    Ok(disable.write("0")?)
}

/// `IN6_ADDR_GEN_MODE_NONE` of linux/if_link.h: no address of the link's own.
const ADDR_GEN_MODE_NONE: &str = "1";

/// Removes what a killed daemon left. Says whether there was anything.
pub(super) fn remove_leftovers(netlink: &mut Netlink, ranges: DeliveryRanges) -> anyhow::Result<bool> {
    let of_pair = remove_pair(netlink)?;
    Ok(remove_lasting_routes(netlink, &prefixes_of(ranges)?)? || of_pair)
}

/// Removes the pair and its rules. Says whether there was anything.
fn remove_pair(netlink: &mut Netlink) -> anyhow::Result<bool> {
    let mut removed = false;
    for rule in netlink
        .rules()?
        .into_iter()
        .filter(|rule| rule.table == TABLE && rule.priority == traces::RULE_PRIORITY)
    {
        netlink.delete_rule(&rule)?;
        removed = true;
        tracing::info!(%rule, "removed a rule that an earlier daemon left");
    }
    if let Some(link) = netlink.link_by_name(KERNEL_END)? {
        if link.kind.as_deref() != Some("veth") {
            bail!(
                "the host has a device {KERNEL_END} that is not dpr's; rename it: ip link set {KERNEL_END} name other0"
            );
        }
        netlink.delete_link(link.index)?;
        removed = true;
        tracing::info!(link = KERNEL_END, "removed a device that an earlier daemon left");
    }
    Ok(removed)
}

/// Removes what keeps delivery addresses local without the pair, which a killed daemon left. Says whether there was any.
fn remove_lasting_routes(netlink: &mut Netlink, prefixes: &[IpPrefix]) -> anyhow::Result<bool> {
    let loopback = loopback(netlink)?.index;
    let mut removed = false;
    for prefix in prefixes {
        if netlink.delete_route(&local(*prefix, loopback))? {
            removed = true;
            tracing::info!(%prefix, "removed a route that an earlier daemon left");
        }
    }
    Ok(removed)
}

fn local(prefix: IpPrefix, link: LinkIndex) -> Route {
    Route {
        kind: RouteKind::Local,
        scope: Scope::Host,
        ..Route::on_link(prefix, link).in_table(RouteTable::LOCAL)
    }
}

fn loopback(netlink: &mut Netlink) -> anyhow::Result<Link> {
    let link = netlink.links()?.into_iter().find(|link| link.loopback);
    link.context("there is no loopback interface")
}

/// Whether routes of the prefix's version may lead to a link.
fn takes(link: &Link, prefix: IpPrefix) -> anyhow::Result<bool> {
    let is_on = || Ok(Sysctl::ipv6(&link.name, Ipv6Setting::DisableIpv6)?.read()?.trim_end() == "0");
    if prefix.address().is_ipv6() { is_on() } else { Ok(true) }
}

fn end_of(netlink: &mut Netlink, name: &str) -> anyhow::Result<Link> {
    netlink.link_by_name(name)?.with_context(|| format!("{name} vanished while it was set up"))
}

/// Delivery addresses must not hide addresses that the host uses.
fn refuse_overlap(netlink: &mut Netlink, range: IpPrefix) -> anyhow::Result<()> {
    let overlapping = netlink.addresses()?.into_iter().find(|held| range.contains(held.prefix.address()));
    if let Some(held) = overlapping {
        bail!(
            "the host holds {}, which is in the range of delivery addresses {range}; choose another \
             `service.delivery-address`, for example \"100.127.0.0/20\", or `service.delivery-address-v6`",
            held.prefix
        );
    }
    Ok(())
}
