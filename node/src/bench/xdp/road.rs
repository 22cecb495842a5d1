//! A director at the end of a cable, which sends back what comes in: everything forwarded leaves by the interface that it came
//! in on, as on servers with one.
//!
//! ```text
//! source, sink ═══ director      10.78.0.0/24
//! ```
//!
//! Source and sink are programs in the driver. All of it happens on one processor, packet by packet, so the time that one takes is
//! the sum of what all do.

use super::case::known_flows;
use super::path::{NODE, Path, SERVICE_PORT};
use crate::bench::lane::{self, CableEnd};
use crate::bench::rivals::{self, Replies};
use dpr_host::{AddressOptions, IpPrefix, Ipv4Setting, NetNamespace, Netlink, Sysctl};
use dpr_model::{ForwardingMethod, MacAddress};
use dpr_rewrite::Version;
use dpr_xdp::{End, Mode, NextHop, Sizes, Traffic, Walk, Wanted};
use serde::Serialize;
use std::net::Ipv4Addr;

/// Whom connections are forwarded to: at the source's end.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
const PREFIX_LEN: u8 = 24;
const SOURCE_LINK: &str = "out";
const DIRECTOR_LINK: &str = "in";
/// Connections that packets are of, by turns; connection tracking and processors' caches hold them.
pub(super) const FLOWS: u32 = 1 << 10;
/// Connections that there is room for; the default of `conntrack.capacity`.
const TABLE: u32 = 1 << 20;

/// What forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Way {
    /// Nothing: the sink is at the cable's far end.
    Nobody,
    /// A program that sends back what it gets.
    Empty,
    /// The packet path, by `ipip`.
    Programs,
    /// The kernel's IPv4 forwarding.
    KernelRouting,
    /// The kernel's connection tracking and destination NAT (nftables).
    NftablesDnat,
}

impl Way {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Nobody => "source and sink",
            Self::Empty => "empty program (XDP_TX)",
            Self::Programs => "known flow, ipip",
            Self::KernelRouting => "kernel routing",
            Self::NftablesDnat => "nftables DNAT",
        }
    }

    fn destination(self) -> Ipv4Addr {
        match self {
            Self::KernelRouting => SERVER,
            Self::Nobody | Self::Empty | Self::Programs | Self::NftablesDnat => NODE,
        }
    }
}

/// One way, ready for packets; dropping it removes it.
pub(super) struct Road {
    pub(super) way: Way,
    traffic: Traffic,
    walk: Walk,
    link: u32,
    source: NetNamespace,
    _path: Option<Path>,
    _director: NetNamespace,
}

impl Road {
    /// Builds both ends and what forwards.
    pub(super) fn build(way: Way) -> anyhow::Result<Self> {
        let (source, director) = (lane::machine()?, lane::machine()?);
        let [near, far] = lane::join((&source, SOURCE_LINK), (&director, DIRECTOR_LINK))?;
        let mut traffic = Traffic::load()?;
        source.enter(|| traffic.put(End::Swallow, SOURCE_LINK))??;
        let known = known_flows(Version::V4, ForwardingMethod::Ipip, FLOWS);
        let walk = Walk { mac: far.mac, service: way.destination().into(), ..known };
        let mut path = None;
        match way {
            Way::Nobody => director.enter(|| traffic.put(End::Swallow, DIRECTOR_LINK))??,
            Way::Empty => director.enter(|| traffic.put(End::Bounce, DIRECTOR_LINK))??,
            Way::Programs => path = Some(director.enter(|| with_programs(&far, near.mac, &walk))??),
            Way::KernelRouting | Way::NftablesDnat => {
                director.enter(|| traffic.put(End::Pass, DIRECTOR_LINK))??;
                director.enter(|| with_routing(&far, near.mac))??;
            }
        }
        if way == Way::NftablesDnat {
            let (from, to) = ((NODE, SERVICE_PORT), (SERVER, SERVICE_PORT));
            rivals::translate(&director, from, to, Replies::OfTheirOwn)?;
        }
        Ok(Self { way, traffic, walk, link: near.link.0, source, _path: path, _director: director })
    }

    /// Sends packets of all flows, as fast as it can.
    pub(super) fn send(&mut self, packets: u32) -> anyhow::Result<()> {
        let Self { traffic, walk, link, source, .. } = self;
        Ok(source.enter(|| traffic.send(*link, walk, packets))??)
    }

    /// Packets that reached the sink so far.
    pub(super) fn received(&self) -> anyhow::Result<u64> {
        Ok(self.traffic.swallowed()?)
    }
}

/// The packet path in the driver, with connections for all flows.
fn with_programs(own: &CableEnd, server: MacAddress, walk: &Walk) -> anyhow::Result<Path> {
    let hop = NextHop { link: own.link.0, source: own.mac, destination: server };
    let mut path = Path::prepare(Version::V4, Sizes { flows: TABLE, half_open: FLOWS }, hop)?;
    path.fill(walk)?;
    path.programs.attach(DIRECTOR_LINK, Wanted::Only(Mode::Native))?;
    Ok(path)
}

/// Routes to where packets came from, without a word to anybody.
fn with_routing(own: &CableEnd, server: MacAddress) -> anyhow::Result<()> {
    for interface in ["all", DIRECTOR_LINK] {
        Sysctl::ipv4(interface, Ipv4Setting::SendRedirects)?.write("0")?;
    }
    Sysctl::ip_forward().write("1")?;
    let mut netlink = Netlink::open()?;
    netlink.add_address(own.link, IpPrefix::new(NODE.into(), PREFIX_LEN)?, AddressOptions::default())?;
    Ok(netlink.add_permanent_neighbour(own.link, SERVER.into(), server)?)
}
