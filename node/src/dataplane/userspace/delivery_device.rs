//! The way to the local TCP stack: a veth pair, delivery addresses, and a policy route for the replies.
//!
//! ```text
//! data plane ─ dpr1 ═══ dpr0 ─ kernel: 169.254.64.0/20 is local, replies from it leave by dpr0
//! ```
//!
//! Everything made here is named, so that a daemon that was killed leaves nothing that the next one does not find.

use super::filter;
use super::packet_socket::{Accept, PacketSocket};
use crate::dataplane::traces;
use anyhow::{Context as _, bail};
use dpr_director::DeliveryRange;
use dpr_host::{
    IpPrefix, Ipv6Setting, Link, LinkIndex, Netlink, PolicyRule, Route, RouteKind, RouteTable, Scope, Sysctl,
    VethEnd,
};
use dpr_model::MacAddress;
use std::net::{IpAddr, Ipv4Addr};

/// The kernel's end.
const KERNEL_END: &str = traces::LINK;
/// The data plane's end.
const OUR_END: &str = "dpr1";
/// Routing table of replies; free in every distribution we know.
const TABLE: RouteTable = RouteTable(7777);
/// Replies go to this address for the kernel, which so needs one neighbour entry and not one per client. It is in the
/// part of 169.254.0.0/16 that nobody may use (RFC 3927, section 2.1), and no packet ever carries it.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 255, 254);

/// The pair, for as long as this lives.
pub(crate) struct DeliveryDevice {
    netlink: Netlink,
    rule: PolicyRule,
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
    pub(crate) fn create(range: DeliveryRange, mtu: u32) -> anyhow::Result<Self> {
        let mut netlink = Netlink::open()?;
        let prefix = IpPrefix::new(range.network(), range.prefix_len())?;
        let rule = PolicyRule { from: prefix, table: TABLE, priority: traces::RULE_PRIORITY };
        remove_leftovers(&mut netlink)?;
        refuse_overlap(&mut netlink, prefix)?;

        netlink.create_veth(VethEnd::named(KERNEL_END), VethEnd::named(OUR_END))?;
        let ends =
            end_of(&mut netlink, KERNEL_END).and_then(|kernel| Ok((kernel, end_of(&mut netlink, OUR_END)?)));
        let (kernel_end, our_end) = ends?;
        // From here on, dropping the device cleans up whatever was made.
        let mut device = Self {
            netlink,
            rule,
            kernel_end: kernel_end.index,
            link: our_end.index,
            kernel_mac: kernel_end.mac.context("a veth end without a MAC address")?,
            mac: our_end.mac.context("a veth end without a MAC address")?,
        };
        device.configure(prefix, mtu)?;
        Ok(device)
    }

    fn configure(&mut self, prefix: IpPrefix, mtu: u32) -> anyhow::Result<()> {
        for (name, link) in [(KERNEL_END, self.kernel_end), (OUR_END, self.link)] {
            // Nobody speaks IPv6 here; without this both ends would ask for routers. A kernel without IPv6 has none.
            let sysctl = Sysctl::ipv6(name, Ipv6Setting::DisableIpv6)?;
            if sysctl.read().is_ok() {
                sysctl.write("1")?;
            }
            self.netlink.set_mtu(link, mtu)?;
            self.netlink.set_up(link)?;
        }
        self.netlink.add_route(&Route {
            kind: RouteKind::Local,
            scope: Scope::Host,
            ..Route::on_link(prefix, self.kernel_end).in_table(RouteTable::LOCAL)
        })?;
        let gateway = IpAddr::V4(GATEWAY);
        self.netlink.add_permanent_neighbour(self.kernel_end, gateway, self.mac)?;
        let everywhere = IpPrefix::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)?;
        self.netlink.add_route(&Route {
            link: Some(self.kernel_end),
            onlink: true,
            ..Route::via(everywhere, gateway).in_table(TABLE)
        })?;
        self.netlink.add_rule(&self.rule)?;
        Ok(())
    }

    /// A socket that sees what the local TCP stack sends to clients.
    pub(crate) fn replies(&self) -> anyhow::Result<PacketSocket> {
        PacketSocket::receiver(self.link.0, &filter::everything(), Accept::Any)
            .with_context(|| format!("opening a packet socket on {OUR_END}"))
    }

    /// Removes the pair and the rule; routes go with the pair.
    pub(crate) fn remove(mut self) -> anyhow::Result<()> {
        self.try_remove()
    }

    fn try_remove(&mut self) -> anyhow::Result<()> {
        let rule = self.netlink.delete_rule(&self.rule);
        let link = self.netlink.delete_link(self.kernel_end);
        rule?;
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

/// Removes what a killed daemon left.
fn remove_leftovers(netlink: &mut Netlink) -> anyhow::Result<()> {
    for rule in netlink
        .rules()?
        .into_iter()
        .filter(|rule| rule.table == TABLE && rule.priority == traces::RULE_PRIORITY)
    {
        netlink.delete_rule(&rule)?;
        tracing::info!(%rule, "removed a rule that an earlier daemon left");
    }
    if let Some(link) = netlink.link_by_name(KERNEL_END)? {
        if link.kind.as_deref() != Some("veth") {
            bail!(
                "the host has a device {KERNEL_END} that is not dpr's; rename it: ip link set {KERNEL_END} name other0"
            );
        }
        netlink.delete_link(link.index)?;
        tracing::info!(link = KERNEL_END, "removed a device that an earlier daemon left");
    }
    Ok(())
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
             `service.delivery-address`, for example \"100.127.0.0/20\"",
            held.prefix
        );
    }
    Ok(())
}
