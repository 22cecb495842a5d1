//! Whether the kernel takes the programs of `dataplane.kind`, and keeps them over a crash.

use super::finding::Finding;
use crate::cluster_link::cluster_link;
use crate::config::{Config, DataplaneKind, ProgramMode};
use crate::dataplane::xdp::{VETH, beyond_the_programs, of_this_namespace, unfinished_checksums};
use dpr_xdp::{Pins, Sizes, XdpError, has_tcx};

/// What is asked only where the programs are wanted.
pub(super) fn check(config: &Config, is_running: bool) -> Vec<Finding> {
    let obstacle = obstacle(config);
    match (config.dataplane, obstacle) {
        (DataplaneKind::Userspace, _) => vec![],
        (DataplaneKind::Auto, Some(obstacle)) => {
            let fact = format!("packets go by user space, not by the kernel's programs: {obstacle}");
            vec![Finding::info("programs", fact)]
        }
        (DataplaneKind::Xdp, Some(obstacle)) => {
            let mend = "dataplane.kind = \"auto\", which uses the programs where they can be used";
            vec![Finding::error(
                "programs",
                format!("the kernel's programs cannot be used: {obstacle}"),
                mend,
            )]
        }
        (DataplaneKind::Auto | DataplaneKind::Xdp, None) => usable(config, is_running),
    }
}

/// Why the programs cannot be used, as far as that can be known without using them.
fn obstacle(config: &Config) -> Option<String> {
    if config.dataplane == DataplaneKind::Userspace {
        return None;
    }
    if let Some(beyond) = beyond_the_programs(&config.services, &config.node.vlans) {
        return Some(beyond);
    }
    // Small tables, nothing attached: gone when this returns.
    if let Err(error) = dpr_xdp::load(Sizes { flows: 1, half_open: 1 }, None) {
        return Some(format!(
            "the kernel does not take them ({error}); they need root and Linux 5.17 or later with BPF (CAP_BPF, CAP_NET_ADMIN)"
        ));
    }
    let link = cluster_link(config).ok()?;
    let is_cable = link.kind.as_deref() == Some(VETH);
    let is_left_alone =
        is_cable && config.dataplane == DataplaneKind::Auto && config.program_mode != ProgramMode::Native;
    let unfinished = unfinished_checksums(&link).filter(|_| is_left_alone);
    unfinished.map(|unfinished| format!("{} is {unfinished}", link.name))
}

fn usable(config: &Config, is_running: bool) -> Vec<Finding> {
    let mut findings = vec![mode(config)];
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

fn mode(config: &Config) -> Finding {
    let behind = cluster_link(config).ok().and_then(|link| {
        let is_cable = link.kind.as_deref() == Some(VETH);
        unfinished_checksums(&link).map(|unfinished| (is_cable, link.name, unfinished))
    });
    let fact = match (config.dataplane, behind) {
        _ if config.program_mode == ProgramMode::Native => {
            "the kernel takes them; they run in the interface's driver or not at all".to_owned()
        }
        _ if config.program_mode == ProgramMode::Generic => {
            "the kernel takes them; they run behind the interface's driver".to_owned()
        }
        (_, Some((true, ..))) => {
            "the kernel takes them; they run behind the driver, as the interface is one end of a veth pair"
                .to_owned()
        }
        (DataplaneKind::Auto, Some((false, link, unfinished))) => format!(
            "the kernel takes them, and they are used if the driver does, too; not behind it, as {link} is {unfinished}"
        ),
        _ => "the kernel takes them; `dpr status` shows whether the interface's driver does, too".to_owned(),
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
