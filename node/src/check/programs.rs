//! Whether the kernel takes the programs of `dataplane.kind = "xdp"`, and keeps them over a crash.

use super::finding::Finding;
use crate::app::cluster_link;
use crate::config::{Config, DataplaneKind, Service};
use crate::dataplane::xdp::{VETH, of_this_namespace};
use dpr_model::ForwardingMethod;
use dpr_xdp::{Pins, Sizes, XdpError, has_tcx};

/// What is asked only where the programs are wanted.
pub(super) fn check(config: &Config, is_running: bool) -> Vec<Finding> {
    if config.dataplane != DataplaneKind::Xdp {
        return vec![];
    }
    // Small tables, nothing attached: gone when this returns.
    let sizes = Sizes { flows: 1, half_open: 1 };
    if let Err(error) = dpr_xdp::load(sizes, None) {
        let problem = format!("the kernel does not take the programs of `dataplane.kind = \"xdp\"`: {error}");
        let mend = "run as root on Linux 5.17 or later with BPF (CAP_BPF, CAP_NET_ADMIN), \
                    or: dataplane.kind = \"userspace\"";
        return vec![Finding::error("programs", problem, mend)];
    }
    let mut findings = vec![mode(config)];
    findings.extend(beyond_the_programs(config));
    if !has_tcx() {
        findings.push(Finding::warning(
            "programs",
            "this kernel has no tcx, so the programs do not outlive a killed daemon: its forwarded connections break",
            "use Linux 6.6 or later",
        ));
    }
    if !is_running {
        findings.extend(pins(config));
    }
    findings
}

/// What `dpr run` refuses: docs/decisions/0034.
fn beyond_the_programs(config: &Config) -> Option<Finding> {
    let beyond = |service: &Service| match service.method {
        _ if service.persistence.is_some() => Some("keep clients on one node"),
        ForwardingMethod::Nat | ForwardingMethod::HalfNat => Some("translate"),
        ForwardingMethod::Ipip | ForwardingMethod::Gue | ForwardingMethod::Dr => None,
    };
    let problem = if config.node.address.is_ipv6() {
        format!("they know no tunnels to {}, which is IPv6", config.node.address)
    } else {
        let found = config.services.iter().find_map(|service| Some((service, beyond(service)?)));
        let (Service { address, port, .. }, what) = found?;
        format!("they do not {what}, as the service at {address}, port {port}, needs")
    };
    Some(Finding::error("programs", problem, "dataplane.kind = \"userspace\""))
}

fn mode(config: &Config) -> Finding {
    let fact = match cluster_link(config) {
        Ok(link) if link.kind.as_deref() == Some(VETH) => {
            "the kernel takes them; they run behind the driver, as the interface is one end of a veth pair"
        }
        _ => "the kernel takes them; `dpr status` shows whether the interface's driver does, too",
    };
    Finding::info("programs", fact)
}

fn pins(config: &Config) -> Option<Finding> {
    let directory = of_this_namespace(&config.pin_directory).ok()?;
    let error = Pins::check(&directory).err()?;
    let mend = match error {
        XdpError::NoBpfFileSystem(_) => "mount -t bpf bpf /sys/fs/bpf",
        _ => "choose another dataplane.pin-directory",
    };
    let problem =
        format!("{error}: the programs end with a killed daemon, and so do its forwarded connections");
    Some(Finding::warning("programs", problem, mend))
}
