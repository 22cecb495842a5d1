//! A machine behind two routers, with a narrow link between them that neither it nor the switch knows of.
//!
//! ```text
//! switch ─ eth0 near ═══ narrow link ═══ far ─── eth0 machine
//! ```

use crate::error::LabError;
use crate::ip_version::IpVersion;
use crate::ipv6_settings::quiet_ipv6;
use crate::machine::INTERFACE;
use dpr_host::{
    AddressOptions, IpPrefix, Ipv6Setting, NetNamespace, Netlink, NetlinkError, Route, Sysctl, VethEnd,
};
use std::net::IpAddr;
use std::os::fd::AsFd;

const DOING: &str = "put a machine behind routers";

/// Name of the link away from the switch.
const DOWN: &str = "down0";
/// Name of the link towards the switch.
const UP: &str = "up0";

/// Addresses in one IP version.
struct Plan {
    /// Of the near router on the narrow link, of the far one, and their network.
    narrow: [&'static str; 2],
    /// Of the far router on the machine's link, of the machine.
    wide: [&'static str; 2],
    /// All of them.
    everything: &'static str,
}

const V4: Plan = Plan {
    narrow: ["10.78.0.1/24", "10.78.0.2/24"],
    wide: ["10.78.1.1/24", "10.78.1.2/24"],
    everything: "10.78.0.0/16",
};
const V6: Plan = Plan {
    narrow: ["fd78::1/64", "fd78::2/64"],
    wide: ["fd78:0:0:1::1/64", "fd78:0:0:1::2/64"],
    everything: "fd78::/48",
};

fn plan(version: IpVersion) -> Plan {
    match version {
        IpVersion::V4 => V4,
        IpVersion::V6 => V6,
    }
}

fn prefix(text: &str) -> IpPrefix {
    text.parse().expect("the plans hold prefixes")
}

/// The network behind the routers.
pub(crate) fn network_of(version: IpVersion) -> IpPrefix {
    prefix(plan(version).everything)
}

/// What was put behind the routers.
pub(crate) struct Behind {
    /// The machine's new namespace.
    pub(crate) machine: NetNamespace,
    /// The far router.
    pub(crate) far: NetNamespace,
    /// The machine's new addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Makes `near`, which is on the switch, a router, and puts another one and a machine behind it. The link between the two
/// routers takes packets of at most `mtu` bytes.
pub(crate) fn put_behind(near: &NetNamespace, versions: &[IpVersion], mtu: u32) -> Result<Behind, LabError> {
    let far = NetNamespace::create().map_err(LabError::host(DOING))?;
    let machine = NetNamespace::create().map_err(LabError::host(DOING))?;
    for namespace in [&far, &machine] {
        namespace.enter(quiet_ipv6).map_err(LabError::host(DOING))??;
    }
    inside(near, || join(DOWN, UP, &far, mtu))?;
    inside(&far, || join(DOWN, INTERFACE, &machine, crate::lab::MTU_ETHERNET))?;
    for version in versions {
        let Plan { narrow, wide, everything } = plan(*version);
        let settle =
            |interface, address, routes: Vec<Route>| move || settle(interface, address, mtu, &routes);
        let [near_end, far_end] = narrow.map(prefix);
        let [gateway, end] = wide.map(prefix);
        let all = match version {
            IpVersion::V4 => IpPrefix::ALL_IPV4,
            IpVersion::V6 => IpPrefix::ALL_IPV6,
        };
        let inwards = Route::via(prefix(everything), far_end.address());
        inside(near, settle(DOWN, near_end, vec![inwards]))?;
        let outwards = Route::via(all, near_end.address());
        inside(&far, settle(UP, far_end, vec![outwards]))?;
        inside(&far, settle(DOWN, gateway, vec![]))?;
        let default = Route::via(all, gateway.address());
        inside(&machine, settle(INTERFACE, end, vec![default]))?;
    }
    for router in [near, &far] {
        inside(router, || forward(versions))?;
    }
    let addresses = versions.iter().map(|version| prefix(plan(*version).wide[1]).address()).collect();
    Ok(Behind { machine, far, addresses })
}

/// Does something to a namespace's network.
fn inside<E: std::error::Error + Send + Sync + 'static>(
    namespace: &NetNamespace,
    work: impl FnOnce() -> Result<(), E> + Send,
) -> Result<(), LabError> {
    namespace.enter(work).map_err(LabError::host(DOING))?.map_err(LabError::host(DOING))
}

/// A cable from this namespace to another.
fn join(name: &str, other_name: &str, other: &NetNamespace, mtu: u32) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    let peer = VethEnd { namespace: Some(other.as_fd()), ..VethEnd::named(other_name) };
    netlink.create_veth(VethEnd::named(name), peer)?;
    if let Some(link) = netlink.link_by_name(name)? {
        netlink.set_mtu(link.index, mtu)?;
    }
    Ok(())
}

fn settle(interface: &str, address: IpPrefix, narrow_mtu: u32, routes: &[Route]) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    let at_once = AddressOptions { skip_duplicate_detection: true, ..AddressOptions::default() };
    if let Some(link) = netlink.link_by_name(interface)? {
        if interface == UP {
            netlink.set_mtu(link.index, narrow_mtu)?;
        }
        netlink.add_address(link.index, address, at_once)?;
        netlink.set_up(link.index)?;
    }
    routes.iter().try_for_each(|route| netlink.replace_route(route))
}

fn forward(versions: &[IpVersion]) -> Result<(), dpr_host::SysctlError> {
    for version in versions {
        match version {
            IpVersion::V4 => Sysctl::ip_forward().write("1")?,
            IpVersion::V6 => Sysctl::ipv6("all", Ipv6Setting::Forwarding)?.write("1")?,
        }
    }
    Ok(())
}
