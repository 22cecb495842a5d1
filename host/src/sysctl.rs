//! Kernel settings under `/proc/sys`.
//!
//! Those under `net` belong to a network namespace: the one of the thread that opens them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// A name that cannot be an interface's and could lead elsewhere.
    #[error("{0:?} is no interface name")]
    InterfaceName(String),
    /// The setting could not be read.
    #[error("cannot read {name}: {source}")]
    Read {
        /// The setting, as `sysctl(8)` writes it.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The setting could not be written.
    #[error("cannot set {name} to {value:?}: {source}")]
    Write {
        /// The setting, as `sysctl(8)` writes it.
        name: String,
        /// The value.
        value: String,
        /// Why not.
        source: io::Error,
    },
}

/// A setting of IPv4 on one interface (`Documentation/networking/ip-sysctl.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4Setting {
    /// `accept_local`: take packets whose source is this host's own address.
    AcceptLocal,
    /// `arp_announce`: which source address ARP requests carry.
    ArpAnnounce,
    /// `arp_ignore`: for which of the host's addresses ARP requests are answered.
    ArpIgnore,
    /// `forwarding`: forward packets that come in here.
    Forwarding,
    /// `route_localnet`: let 127.0.0.0/8 leave and enter.
    RouteLocalnet,
    /// `rp_filter`: drop packets whose source would not be reached this way (RFC 3704);
    /// the greater value of `all` and the interface counts.
    RpFilter,
    /// `send_redirects`: tell senders of a better router.
    SendRedirects,
    /// `src_valid_mark`: let the firewall mark count when the source is checked.
    SrcValidMark,
}

impl Ipv4Setting {
    const fn name(self) -> &'static str {
        match self {
            Self::AcceptLocal => "accept_local",
            Self::ArpAnnounce => "arp_announce",
            Self::ArpIgnore => "arp_ignore",
            Self::Forwarding => "forwarding",
            Self::RouteLocalnet => "route_localnet",
            Self::RpFilter => "rp_filter",
            Self::SendRedirects => "send_redirects",
            Self::SrcValidMark => "src_valid_mark",
        }
    }
}

/// A setting of IPv6 on one interface (`Documentation/networking/ip-sysctl.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6Setting {
    /// `accept_dad`: whether addresses are checked for duplicates.
    AcceptDad,
    /// `accept_ra`: whether router advertisements are believed.
    AcceptRa,
    /// `addr_gen_mode`: how the link-local address is made.
    AddrGenMode,
    /// `disable_ipv6`: no IPv6 here.
    DisableIpv6,
    /// `forwarding`: behave as a router.
    Forwarding,
    /// `router_solicitations`: how often to ask for routers.
    RouterSolicitations,
}

impl Ipv6Setting {
    const fn name(self) -> &'static str {
        match self {
            Self::AcceptDad => "accept_dad",
            Self::AcceptRa => "accept_ra",
            Self::AddrGenMode => "addr_gen_mode",
            Self::DisableIpv6 => "disable_ipv6",
            Self::Forwarding => "forwarding",
            Self::RouterSolicitations => "router_solicitations",
        }
    }
}

/// One kernel setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Path below `/proc/sys`. Not the dotted name, as interface names may have dots.
    path: String,
}

impl Sysctl {
    /// `net.ipv4.ip_local_reserved_ports`: ports that the kernel never draws for connections.
    pub fn local_reserved_ports() -> Self {
        Self { path: "net/ipv4/ip_local_reserved_ports".to_owned() }
    }

    /// `net.ipv4.ip_local_port_range`: first and last port that the kernel draws for connections.
    pub fn local_port_range() -> Self {
        Self { path: "net/ipv4/ip_local_port_range".to_owned() }
    }

    /// `net.ipv4.ip_forward`: the whole namespace forwards IPv4. Writing it also writes
    /// `forwarding` of every interface.
    pub fn ip_forward() -> Self {
        Self { path: "net/ipv4/ip_forward".to_owned() }
    }

    /// `net.bridge.bridge-nf-call-iptables` and `…-ip6tables`: IP packets that a bridge passes on go through the packet filter.
    /// There where `br_netfilter` is.
    pub fn bridge_filters() -> [Self; 2] {
        ["iptables", "ip6tables"].map(|table| Self { path: format!("net/bridge/bridge-nf-call-{table}") })
    }

    /// `net.core.rmem_max`: the greatest receive buffer that a socket may ask for, bytes.
    pub fn receive_buffer_max() -> Self {
        Self { path: "net/core/rmem_max".to_owned() }
    }

    /// A setting of IPv4 on an interface; `all` and `default` are interfaces too.
    pub fn ipv4(interface: &str, setting: Ipv4Setting) -> Result<Self, SysctlError> {
        Ok(Self { path: format!("net/ipv4/conf/{}/{}", checked(interface)?, setting.name()) })
    }

    /// A setting of IPv6 on an interface; `all` and `default` are interfaces too.
    pub fn ipv6(interface: &str, setting: Ipv6Setting) -> Result<Self, SysctlError> {
        Ok(Self { path: format!("net/ipv6/conf/{}/{}", checked(interface)?, setting.name()) })
    }

    /// The name as `sysctl(8)` takes it: dots between the parts, and slashes for dots in them.
    pub fn name(&self) -> String {
        let swapped = |c| match c {
            '/' => '.',
            '.' => '/',
            other => other,
        };
        self.path.chars().map(swapped).collect()
    }

    /// The value, without the newline.
    pub fn read(&self) -> Result<String, SysctlError> {
        match fs::read_to_string(self.file()) {
            Ok(value) => Ok(value.trim_end().to_owned()),
            Err(source) => Err(SysctlError::Read { name: self.name(), source }),
        }
    }

    /// Sets the value.
    pub fn write(&self, value: &str) -> Result<(), SysctlError> {
        OpenOptions::new()
            .write(true)
            .open(self.file())
            .and_then(|file| file.write_all_at(value.as_bytes(), 0))
            .map_err(|source| SysctlError::Write { name: self.name(), value: value.to_owned(), source })
    }

    /// Sets the value for as long as the guard lives.
    pub fn write_guarded(&self, value: &str) -> Result<SysctlGuard, SysctlError> {
        let previous = self.read()?;
        let failed = |source| SysctlError::Write { name: self.name(), value: value.to_owned(), source };
        // Kept open so that the value goes back to the namespace that it came from.
        let file = OpenOptions::new().write(true).open(self.file()).map_err(failed)?;
        file.write_all_at(value.as_bytes(), 0).map_err(failed)?;
        Ok(SysctlGuard { sysctl: self.clone(), previous, file: Some(file) })
    }

    fn file(&self) -> PathBuf {
        PathBuf::from("/proc/sys").join(&self.path)
    }
}

fn checked(interface: &str) -> Result<&str, SysctlError> {
    // The kernel's own rule (`dev_valid_name`), as far as paths are concerned.
    match interface {
        "" | "." | ".." => Err(SysctlError::InterfaceName(interface.to_owned())),
        name if name.contains(['/', '\0']) => Err(SysctlError::InterfaceName(name.to_owned())),
        name => Ok(name),
    }
}

/// Puts a setting's previous value back when it is dropped.
#[derive(Debug)]
pub struct SysctlGuard {
    sysctl: Sysctl,
    previous: String,
    /// `None` once the previous value is back.
    file: Option<File>,
}

impl SysctlGuard {
    /// The value that comes back.
    pub fn previous(&self) -> &str {
        &self.previous
    }

    /// Puts the previous value back now, and says if that fails.
    pub fn restore(mut self) -> Result<(), SysctlError> {
        self.put_back().map_err(|source| SysctlError::Write {
            name: self.sysctl.name(),
            value: self.previous.clone(),
            source,
        })
    }

    /// Leaves the setting as it is.
    pub fn keep(mut self) {
        self.file = None;
    }

    fn put_back(&mut self) -> io::Result<()> {
        // The kernel takes an empty list only as an empty line.
        let line = format!("{}\n", self.previous);
        self.file.take().map_or(Ok(()), |file| file.write_all_at(line.as_bytes(), 0))
    }
}

impl Drop for SysctlGuard {
    fn drop(&mut self) {
        // The interface may be gone, and the setting with it.
        let _ = self.put_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_named_as_sysctl_names_it() {
        let setting = Sysctl::ipv4("eth0.100", Ipv4Setting::RpFilter).unwrap();

        assert_eq!(setting.name(), "net.ipv4.conf.eth0/100.rp_filter");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for interface in ["", ".", "..", "../../kernel", "a/b", "a\0"] {
            assert!(matches!(
                Sysctl::ipv6(interface, Ipv6Setting::DisableIpv6),
                Err(SysctlError::InterfaceName(_))
            ));
        }
    }
}
