//! Kernel settings that are other than usual while the data plane runs, and as before afterwards.

use crate::dataplane::Settings;
use anyhow::{Context as _, bail};
use dpr_host::{AddressOptions, IpPrefix, Ipv4Setting, LinkIndex, Netlink, Scope, Sysctl, SysctlGuard};
use dpr_model::PortRange;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Answer ARP only for addresses of the interface that the question came in by.
const ARP_IGNORE: &str = "1";
/// Ask from an address of the interface that the question goes out by.
const ARP_ANNOUNCE: &str = "2";

/// What was changed.
pub(crate) struct HostSettings {
    netlink: Netlink,
    guards: Vec<SysctlGuard>,
    /// Those that are the interface's, and go with it.
    guards_of_interface: Vec<SysctlGuard>,
    interface: String,
    /// Service addresses on the loopback interface that were not there before.
    aliases: Vec<(LinkIndex, IpPrefix)>,
    /// Addresses that were asked for.
    known: BTreeSet<IpAddr>,
}

impl HostSettings {
    /// Reserves the ports of translated connections.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn change(settings: &Settings) -> anyhow::Result<Self> {
        let mut host = Self {
            netlink: Netlink::open()?,
            guards: Vec::new(),
            guards_of_interface: Vec::new(),
            interface: settings.interface.clone(),
            aliases: Vec::new(),
            known: BTreeSet::new(),
        };
        if let Some(ports) = settings.nat_ports {
            host.reserve(ports)?;
        }
        Ok(host)
    }

    /// Puts a service address with alias delivery on the loopback interface without telling the network, as LVS has its
    /// real servers do it. Says whether that is news; one that cannot be held is tried once.
    ///
    /// # Errors
    /// The kernel refuses, or the address is on another interface.
    pub(crate) fn hold(&mut self, address: IpAddr) -> anyhow::Result<bool> {
        if !self.known.insert(address) {
            return Ok(false);
        }
        if self.guards_of_interface.is_empty() {
            self.guard_interface()?;
        }
        self.add_alias(address)?;
        Ok(true)
    }

    /// Changes the settings of an interface that was made anew; those of the one before are gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn rejoin(&mut self) -> anyhow::Result<()> {
        if self.guards_of_interface.is_empty() {
            return Ok(());
        }
        self.guards_of_interface.drain(..).for_each(SysctlGuard::keep);
        self.guard_interface()
    }

    /// Puts everything back.
    ///
    /// # Errors
    /// The kernel refuses; what it allows is put back nevertheless.
    pub(crate) fn restore(mut self) -> anyhow::Result<()> {
        let mut result = self.remove_aliases();
        let guards = std::mem::take(&mut self.guards).into_iter();
        for guard in guards.chain(std::mem::take(&mut self.guards_of_interface)) {
            result = result.and(guard.restore().map_err(anyhow::Error::from));
        }
        result
    }

    fn reserve(&mut self, ports: PortRange) -> anyhow::Result<()> {
        let sysctl = Sysctl::local_reserved_ports();
        let before = sysctl.read()?;
        let wanted = format!("{}-{}", ports.first(), ports.last());
        let together = if before.is_empty() { wanted } else { format!("{before},{wanted}") };
        self.guard(&sysctl, &together).context("reserving the ports of nat.ports")
    }

    fn guard_interface(&mut self) -> anyhow::Result<()> {
        for (setting, value) in
            [(Ipv4Setting::ArpIgnore, ARP_IGNORE), (Ipv4Setting::ArpAnnounce, ARP_ANNOUNCE)]
        {
            let guard = Sysctl::ipv4(&self.interface, setting)?.write_guarded(value)?;
            self.guards_of_interface.push(guard);
        }
        Ok(())
    }

    fn guard(&mut self, sysctl: &Sysctl, value: &str) -> anyhow::Result<()> {
        self.guards.push(sysctl.write_guarded(value)?);
        Ok(())
    }

    fn add_alias(&mut self, address: IpAddr) -> anyhow::Result<()> {
        let holders = self.netlink.addresses()?;
        let holder = holders.iter().find(|held| held.prefix.address() == address);
        let loopback = self.netlink.links()?.into_iter().find(|link| link.loopback);
        let loopback = loopback.context("there is no loopback interface")?.index;
        match holder {
            Some(held) if held.link == loopback => return Ok(()),
            Some(_) => bail!(
                "the host holds {address} on an interface where the network finds it; with `delivery = \"alias\"` it \
                 belongs on the loopback interface of every node: ip address del {address}"
            ),
            None => {}
        }
        let prefix = IpPrefix::host(address);
        let options = AddressOptions {
            scope: Scope::Host,
            skip_duplicate_detection: true,
            ..AddressOptions::default()
        };
        self.netlink.set_up(loopback)?;
        self.netlink.add_address(loopback, prefix, options)?;
        self.aliases.push((loopback, prefix));
        Ok(())
    }

    fn remove_aliases(&mut self) -> anyhow::Result<()> {
        let netlink = &mut self.netlink;
        let removed = std::mem::take(&mut self.aliases)
            .into_iter()
            .map(|(link, prefix)| netlink.delete_address(link, prefix).map(drop));
        Ok(removed.fold(Ok(()), Result::and)?)
    }
}

impl Drop for HostSettings {
    fn drop(&mut self) {
        // After `restore` there is nothing left, which is no error.
        if let Err(error) = self.remove_aliases() {
            tracing::warn!(%error, "a service address could not be taken from the loopback interface");
        }
    }
}
