//! The Ethernet switch of a lab: bridges in a namespace of their own, one port for each machine.

use crate::error::LabError;
use crate::ipv6_settings::disable_ipv6;
use crate::machine::INTERFACE;
use dpr_host::{BridgeOptions, LinkIndex, NetNamespace, Netlink, Offload, Offloads, Sysctl, VethEnd};
use dpr_model::MacAddress;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The switch; dropping it cuts every cable.
pub(crate) struct Switch {
    namespace: NetNamespace,
    /// Stays in the switch's namespace, whichever thread uses it.
    netlink: Mutex<Netlink>,
    trunk: LinkIndex,
}

/// The switch's end of a machine's cable.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    name: String,
    index: LinkIndex,
}

impl Port {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch").field("trunk", &self.trunk).finish_non_exhaustive()
    }
}

impl Switch {
    pub(crate) fn new() -> Result<Self, LabError> {
        let doing = "make the switch";
        let namespace = NetNamespace::create().map_err(LabError::host(doing))?;
        let open = || {
            disable_ipv6()?;
            filter_nothing()?;
            Netlink::open().map_err(LabError::host(doing))
        };
        let mut netlink = namespace.enter(open).map_err(LabError::host(doing))??;
        let trunk = create_bridge(&mut netlink, "trunk")?;
        Ok(Self { namespace, netlink: Mutex::new(netlink), trunk })
    }

    pub(crate) fn namespace(&self) -> &NetNamespace {
        &self.namespace
    }

    /// Lays a cable from a new port to `eth0` of a machine's namespace.
    pub(crate) fn attach(
        &self,
        number: u8,
        machine: BorrowedFd<'_>,
        mac: MacAddress,
        mtu: u32,
    ) -> Result<Port, LabError> {
        let name = format!("port{number}");
        let doing = format!("make {name} of the switch");
        let mut netlink = self.netlink();
        let end = VethEnd::named(&name);
        let peer = VethEnd { name: INTERFACE, mac: Some(mac), namespace: Some(machine) };
        netlink.create_veth(end, peer).map_err(LabError::host(&doing))?;
        let link = netlink
            .link_by_name(&name)
            .map_err(LabError::host(&doing))?
            .expect("the port was created a moment ago in a namespace that is the lab's own");
        netlink.set_mtu(link.index, mtu).map_err(LabError::host(&doing))?;
        netlink.set_master(link.index, Some(self.trunk)).map_err(LabError::host(&doing))?;
        netlink.set_up(link.index).map_err(LabError::host(&doing))?;
        Ok(Port { name, index: link.index })
    }

    /// Removes a port and with it the machine's interface.
    pub(crate) fn detach(&self, port: &Port) {
        // A port that is gone already is what is wanted; the namespace's end removes any other.
        let _ = self.netlink().delete_link(port.index);
    }

    pub(crate) fn set_up(&self, port: &Port, up: bool) -> Result<(), LabError> {
        let mut netlink = self.netlink();
        let result = if up { netlink.set_up(port.index) } else { netlink.set_down(port.index) };
        result.map_err(LabError::host(&format!("set {} {}", port.name, if up { "up" } else { "down" })))
    }

    pub(crate) fn set_mtu(&self, port: &Port, mtu: u32) -> Result<(), LabError> {
        let result = self.netlink().set_mtu(port.index, mtu);
        result.map_err(LabError::host(&format!("set the MTU of {}", port.name)))
    }

    /// Keeps frames of a port from other isolated ports, or no longer.
    pub(crate) fn set_isolated(&self, port: &Port, isolated: bool) -> Result<(), LabError> {
        let result = self.netlink().set_isolated(port.index, isolated);
        result.map_err(LabError::host(&format!("isolate {}", port.name)))
    }

    /// Turns coalescing of received packets on at a port.
    pub(crate) fn coalesce(&self, port: &Port) -> Result<(), LabError> {
        let doing = format!("turn GRO on at {}", port.name);
        self.namespace
            .enter(|| Offloads::set(&port.name, Offload::Gro, true))
            .map_err(LabError::host(&doing))?
            .map_err(LabError::host(&doing))
    }

    /// Moves ports to a bridge of their own that nothing joins to the others.
    pub(crate) fn separate(&self, island: usize, ports: &[&Port]) -> Result<(), LabError> {
        let name = format!("island{island}");
        let mut netlink = self.netlink();
        let known = netlink.link_by_name(&name).map_err(LabError::host("look for a bridge"))?;
        let bridge = match known {
            Some(link) => link.index,
            None => create_bridge(&mut netlink, &name)?,
        };
        join(&mut netlink, bridge, ports)
    }

    /// Moves ports back to the bridge where they began.
    pub(crate) fn reunite(&self, ports: &[&Port]) -> Result<(), LabError> {
        join(&mut self.netlink(), self.trunk, ports)
    }

    fn netlink(&self) -> MutexGuard<'_, Netlink> {
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn join(netlink: &mut Netlink, bridge: LinkIndex, ports: &[&Port]) -> Result<(), LabError> {
    for port in ports {
        netlink
            .set_master(port.index, Some(bridge))
            .map_err(LabError::host(&format!("move {} to another bridge", port.name)))?;
    }
    Ok(())
}

/// Lets frames pass as a switch does: where `br_netfilter` is, the host's packet filter looks at what is in them.
fn filter_nothing() -> Result<(), LabError> {
    for setting in Sysctl::bridge_filters() {
        if setting.read().is_ok() {
            setting.write("0").map_err(LabError::host("keep the packet filter off the switch"))?;
        }
    }
    Ok(())
}

fn create_bridge(netlink: &mut Netlink, name: &str) -> Result<LinkIndex, LabError> {
    let doing = format!("make bridge {name}");
    // Without a querier a snooping bridge would stop to forward the load reports' group.
    netlink
        .create_bridge(name, BridgeOptions { multicast_snooping: false })
        .map_err(LabError::host(&doing))?;
    let link = netlink
        .link_by_name(name)
        .map_err(LabError::host(&doing))?
        .expect("the bridge was created a moment ago in a namespace that is the lab's own");
    netlink.set_up(link.index).map_err(LabError::host(&doing))?;
    Ok(link.index)
}
