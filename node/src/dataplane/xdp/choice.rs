//! Whether the kernel's programs are tried at all: by what is asked for, what services need, and what the interface is like.
//!
//! Where only the attempt can tell, the attempt is made.

use super::interfaces::VETH;
use super::{KernelPath, remove_leftovers};
use crate::config::{DataplaneKind, ProgramMode, Service, Vlan};
use crate::dataplane::{Settings, random};
use anyhow::{Context as _, anyhow};
use dpr_host::{Link, Netlink};
use dpr_model::{DeliveryMode, ForwardingMethod, Sharing};
use std::fs;

/// Drivers of virtual machines, where packets of a neighbour on the same host may come with checksums that nobody has
/// computed yet: they were never on a wire. Only behind the driver; in the driver such offers are switched off with the
/// program (for example `virtnet_xdp_set` in `drivers/net/virtio_net.c`).
const OF_VIRTUAL_MACHINES: [&str; 6] =
    ["virtio_net", "vif", "xen_netfront", "hv_netvsc", "vmxnet3", "net_failover"];

/// The programs, if they are to be tried.
pub(in crate::dataplane) struct Choice {
    /// Loaded, and not attached yet.
    pub(in crate::dataplane) kernel: Option<KernelPath>,
    /// Where they cannot be used, packets go by user space: nobody has asked for them.
    pub(in crate::dataplane) may_do_without: bool,
    /// Why there are none, where there could be some.
    pub(in crate::dataplane) why_not: Option<String>,
}

/// Loads the programs if `kind` wants them, and removes what an earlier daemon left of them if not.
///
/// # Errors
/// `kind` demands them, and the kernel has no BPF or does not allow it; or leftovers cannot be removed.
pub(in crate::dataplane) fn choose(kind: DataplaneKind, settings: &Settings) -> anyhow::Result<Choice> {
    let may_do_without = kind == DataplaneKind::Auto;
    let tried = match kind {
        DataplaneKind::Userspace => Err(None),
        DataplaneKind::Auto => open_where_sensible(settings).map_err(Some),
        DataplaneKind::Xdp => Ok(beyond_vlans(&settings.vlans)
            .map_or_else(|| open(settings), |beyond| Err(anyhow!("{beyond}")))
            .context("the kernel's programs cannot be used, and `dataplane.kind` asks for them")?),
    };
    match tried {
        Ok(kernel) => Ok(Choice { kernel: Some(kernel), may_do_without, why_not: None }),
        Err(why_not) => {
            remove_leftovers(&settings.pin_directory)?;
            Ok(Choice { kernel: None, may_do_without, why_not })
        }
    }
}

/// What of the configuration the programs do not do; `None` if they do all of it. Other nodes may need more
/// (docs/decisions/0034).
pub(crate) fn beyond_the_programs(services: &[Service], vlans: &[Vlan]) -> Option<String> {
    if let Some(tags) = beyond_vlans(vlans) {
        return Some(tags);
    }
    let beyond = |service: &Service| match service.method {
        _ if service.sharing != Sharing::Home && service.delivery == DeliveryMode::Alias => {
            Some("hand on addresses that are aliases")
        }
        _ if service.sharing != Sharing::Home && translates(service) => {
            Some("translate for addresses that others may own")
        }
        _ => None,
    };
    let (Service { address, port, .. }, what) =
        services.iter().find_map(|service| Some((service, beyond(service)?)))?;
    Some(format!("they do not {what}, as the service at {address}, port {port}, needs"))
}

fn translates(service: &Service) -> bool {
    matches!(service.method, ForwardingMethod::Nat | ForwardingMethod::HalfNat) || !service.servers.is_empty()
}

fn beyond_vlans(vlans: &[Vlan]) -> Option<String> {
    vlans.first().map(|vlan| format!("they write no VLAN tags, as VLAN {vlan} needs"))
}

/// Why a program behind the driver of `link` may be shown packets without checksums, which it could not send on; `None` where
/// every packet was on a wire.
pub(crate) fn unfinished_checksums(link: &Link) -> Option<String> {
    if link.kind.as_deref() == Some(VETH) {
        return Some("an end of a veth pair, where packets of this host come without checksums".to_owned());
    }
    let driver = fs::read_link(format!("/sys/class/net/{}/device/driver", link.name)).ok();
    let driver = driver.as_ref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy());
    match driver {
        None => {
            Some("not a device of its own, so packets of this host may come without checksums".to_owned())
        }
        Some(driver) if OF_VIRTUAL_MACHINES.contains(&driver.as_ref()) => Some(format!(
            "a device of a virtual machine ({driver}), where packets of its host come without checksums"
        )),
        Some(_) => None,
    }
}

fn open(settings: &Settings) -> anyhow::Result<KernelPath> {
    KernelPath::open(settings, random() as u32)
}

/// The programs, where nothing speaks against them that is known before they are attached; in words, what does.
fn open_where_sensible(settings: &Settings) -> Result<KernelPath, String> {
    if let Some(beyond) = beyond_the_programs(&settings.services, &settings.vlans) {
        return Err(format!("the kernel's programs are not used: {beyond}"));
    }
    let link = Netlink::open().and_then(|mut netlink| netlink.link_by_name(&settings.interface));
    // On these they do not run in the driver unless the configuration says so.
    if let Ok(Some(link)) = link
        && settings.program_mode != ProgramMode::Native
        && link.kind.as_deref() == Some(VETH)
        && let Some(unfinished) = unfinished_checksums(&link)
    {
        return Err(format!("the kernel's programs are not used: {} is {unfinished}", link.name));
    }
    open(settings).map_err(|error| format!("the kernel's programs cannot be used: {error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Defaults};
    use std::path::Path;

    const AGREED: &str = "\n[ownership]\nvoters = [\"192.0.2.1\"]\n";

    fn services(of_service: &str) -> Vec<Service> {
        let text = format!("[node]\naddress = \"192.0.2.1\"\n[[service]]\nport = 80\n{of_service}\n");
        let defaults = Defaults { host_name: "web1".to_owned(), processors: 4 };
        Config::parse(Path::new("/etc/dpr/dpr.toml"), &text, &defaults).unwrap().services
    }

    #[test]
    fn what_the_programs_do_not_do_is_named_with_the_service_that_needs_it() {
        let of = |text: &str| beyond_the_programs(&services(text), &[]);
        assert_eq!(of("method = \"gue\""), None);
        assert_eq!(of(AGREED), None, "others may take the address over");
        assert_eq!(of(&format!("persistence = true\nports = [\"20\", \"1024-65535\"]{AGREED}")), None);
        let shared = |ingress: &str| {
            of(&format!("address = \"192.0.2.9\"\nshared = true\ningress = \"{ingress}\"{AGREED}"))
        };
        assert_eq!(["arp-owner", "routed", "shared-mac"].map(shared), [None, None, None]);
        assert_eq!(
            of(&format!("address = \"192.0.2.9\"\ndelivery = \"alias\"{AGREED}")).unwrap(),
            "they do not hand on addresses that are aliases, as the service at 192.0.2.9, port 80, needs"
        );
        assert_eq!(of("method = \"nat\""), None);
        assert_eq!(
            of(&format!("method = \"nat\"{AGREED}")).unwrap(),
            "they do not translate for addresses that others may own, as the service at 192.0.2.1, port 80, needs"
        );
    }

    #[test]
    fn only_a_device_of_its_own_has_all_checksums() {
        let link = |name: &str, kind: Option<&str>| Link {
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            ..Netlink::open().unwrap().link_by_name("lo").unwrap().unwrap()
        };
        assert!(unfinished_checksums(&link("eth0", Some("veth"))).unwrap().contains("veth"));
        assert!(unfinished_checksums(&link("no-such-device", Some("bridge"))).is_some());
    }
}
