//! The ways a packet can go from a source to a sink: straight, or through a director of one kind or another.
//!
//! ```text
//! source ═══ director ═══ sink      10.78.1.0/24 on the left, 10.78.2.0/24 on the right
//! source ═════════════════ sink     the wire alone
//! ```
//!
//! Every machine is a network namespace of its own and every `═══` a veth pair, so lanes share nothing but the kernel.

use super::director::{self, Running};
use anyhow::Context as _;
use dpr_host::nft::{IngressChain, Lifetime, Match, Nftables, Rule, Table, Verdict};
use dpr_host::{
    AddressOptions, IpPrefix, Ipv4Setting, Ipv6Setting, LinkIndex, NetNamespace, Netlink, Sysctl, VethEnd,
};
use dpr_model::MacAddress;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;

/// What forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Way {
    /// Nothing: source and sink share a cable.
    Wire,
    /// The user-space data plane, by `ipip`.
    Userspace,
    /// The kernel's programs, by `ipip`, behind the driver.
    Programs,
    /// The kernel's IPv4 forwarding.
    KernelRouting,
    /// The kernel's connection tracking and destination NAT (nftables).
    NftablesDnat,
}

impl Way {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Userspace => "user-space plane",
            Self::Programs => "kernel's programs",
            Self::KernelRouting => "kernel routing",
            Self::NftablesDnat => "nftables DNAT",
        }
    }

    /// Whether the director has to see the connection begin. Connection tracking takes up what it finds.
    pub(super) fn needs_a_handshake(self) -> bool {
        matches!(self, Self::Userspace | Self::Programs)
    }

    /// Where the source's packets are addressed to.
    fn destination(self) -> Ipv4Addr {
        match self {
            Self::Wire | Self::KernelRouting => SINK,
            Self::Userspace | Self::Programs | Self::NftablesDnat => DIRECTOR,
        }
    }
}

/// The source's address.
pub(super) const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 78, 1, 1);
/// The director's address on the source's side: node address and service address.
pub(super) const DIRECTOR: Ipv4Addr = Ipv4Addr::new(10, 78, 1, 2);
const DIRECTOR_ON_SINKS_SIDE: Ipv4Addr = Ipv4Addr::new(10, 78, 2, 1);
/// The sink's address: the real server.
pub(super) const SINK: Ipv4Addr = Ipv4Addr::new(10, 78, 2, 2);
const PREFIX_LEN: u8 = 24;

/// The source's interface.
const SOURCE_LINK: &str = "out";
/// Interfaces on the director.
pub(super) const INGRESS_LINK: &str = "in";
const EGRESS_LINK: &str = "out";
/// The sink's interface.
const SINK_LINK: &str = "in";

const ETHERTYPE_IPV4: u16 = 0x0800;

/// One way, ready for packets; dropping it removes it.
pub(super) struct Lane {
    pub(super) way: Way,
    source: NetNamespace,
    sink: NetNamespace,
    /// Holds the sink's packet filter.
    _filter: Nftables,
    director: Option<Running>,
    /// Where the source's frames go.
    pub(super) route: Destination,
    /// The source's interface, in its namespace.
    pub(super) link: LinkIndex,
}

/// What the source writes into its frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destination {
    pub(super) mac: MacAddress,
    pub(super) address: Ipv4Addr,
}

impl Lane {
    /// Builds the machines, joins them, and starts the director.
    pub(super) fn build(way: Way) -> anyhow::Result<Self> {
        let (source, sink) = (machine()?, machine()?);
        let (link, mac, director) = if way == Way::Wire {
            let [source_end, sink_end] = join((&source, SOURCE_LINK), (&sink, SINK_LINK))?;
            (source_end.link, sink_end.mac, None)
        } else {
            let between = machine()?;
            let [source_end, ingress] = join((&source, SOURCE_LINK), (&between, INGRESS_LINK))?;
            let [egress, sink_end] = join((&between, EGRESS_LINK), (&sink, SINK_LINK))?;
            let addresses = [(ingress.link, DIRECTOR), (egress.link, DIRECTOR_ON_SINKS_SIDE)];
            between.enter(|| configure(&addresses))??;
            between.enter(|| know(egress.link, SINK, sink_end.mac))??;
            (source_end.link, ingress.mac, Some(director::start(way, between)?))
        };
        let filter = sink.enter(swallow)??;
        let route = Destination { mac, address: way.destination() };
        Ok(Self { way, source, sink, _filter: filter, director, route, link })
    }

    /// Runs `work` where the source is.
    pub(super) fn at_source<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        Ok(self.source.enter(work)?)
    }

    /// Packets that have reached the sink since it was built.
    pub(super) fn received(&self) -> anyhow::Result<u64> {
        self.sink.enter(|| {
            let table = std::fs::read_to_string(INTERFACES).context(INTERFACES)?;
            packets_received(&table, SINK_LINK).with_context(|| format!("{INTERFACES} has no {SINK_LINK}"))
        })?
    }

    /// Ends the director in good order.
    pub(super) fn end(self) -> anyhow::Result<()> {
        self.director.map_or(Ok(()), Running::stop)
    }
}

/// Counters of the interfaces of the thread's namespace (`proc(5)`).
const INTERFACES: &str = "/proc/thread-self/net/dev";

/// The second figure behind an interface's name.
fn packets_received(table: &str, interface: &str) -> Option<u64> {
    let figures =
        table.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    figures.split_whitespace().nth(1)?.parse().ok()
}

/// A namespace in which nobody speaks unasked.
pub(super) fn machine() -> anyhow::Result<NetNamespace> {
    let namespace = NetNamespace::create()?;
    namespace.enter(|| -> anyhow::Result<()> {
        for interface in ["all", "default"] {
            let ipv6 = Sysctl::ipv6(interface, Ipv6Setting::DisableIpv6)?;
            // A kernel without IPv6 has nothing to turn off.
            if ipv6.read().is_ok() {
                ipv6.write("1")?;
            }
            Sysctl::ipv4(interface, Ipv4Setting::RpFilter)?.write("0")?;
        }
        Ok(())
    })??;
    Ok(namespace)
}

/// An end of a cable.
pub(super) struct CableEnd {
    pub(super) link: LinkIndex,
    pub(super) mac: MacAddress,
}

/// Joins two machines by a cable; answers its ends.
pub(super) fn join(near: (&NetNamespace, &str), far: (&NetNamespace, &str)) -> anyhow::Result<[CableEnd; 2]> {
    let near_end = near.0.enter(|| -> anyhow::Result<CableEnd> {
        let mut netlink = Netlink::open()?;
        let peer = VethEnd { namespace: Some(far.0.as_fd()), ..VethEnd::named(far.1) };
        netlink.create_veth(VethEnd::named(near.1), peer)?;
        bring_up(&mut netlink, near.1)
    })??;
    let far_end = far.0.enter(|| bring_up(&mut Netlink::open()?, far.1))??;
    Ok([near_end, far_end])
}

fn bring_up(netlink: &mut Netlink, name: &str) -> anyhow::Result<CableEnd> {
    let link = netlink.link_by_name(name)?.context("a new cable's end is missing")?;
    netlink.set_up(link.index)?;
    Ok(CableEnd { link: link.index, mac: link.mac.context("a veth end without a MAC address")? })
}

fn configure(addresses: &[(LinkIndex, Ipv4Addr)]) -> anyhow::Result<()> {
    let mut netlink = Netlink::open()?;
    for (link, address) in addresses {
        let prefix = IpPrefix::new((*address).into(), PREFIX_LEN)?;
        netlink.add_address(*link, prefix, AddressOptions::default())?;
    }
    Ok(())
}

/// Nobody has to ask for the neighbour.
fn know(link: LinkIndex, address: Ipv4Addr, mac: MacAddress) -> anyhow::Result<()> {
    Ok(Netlink::open()?.add_permanent_neighbour(link, address.into(), mac)?)
}

/// Drops IPv4 packets as early as the kernel can, so that a sink costs next to nothing and the same on every lane.
fn swallow() -> anyhow::Result<Nftables> {
    let rule = Rule { matches: vec![Match::untagged_ethertype(ETHERTYPE_IPV4)], verdict: Verdict::Drop };
    let chain = IngressChain { interface: SINK_LINK.to_owned(), priority: 0, rules: vec![rule] };
    let table = Table { name: "sink".to_owned(), lifetime: Lifetime::Socket, chains: vec![chain] };
    let mut nftables = Nftables::open()?;
    nftables.replace_table(&table)?;
    Ok(nftables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_the_second_figure_of_an_interface() {
        let table =
            "Inter-|   Receive\n face |bytes    packets errs\n    in:  5600     100    0\n  inner: 1 2 3\n";

        assert_eq!(packets_received(table, "in"), Some(100));
        assert_eq!(packets_received(table, "inner"), Some(2));
        assert_eq!(packets_received(table, "out"), None);
    }
}
