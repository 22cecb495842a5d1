//! The network state of a machine as text that can be compared: to prove that nothing is left behind.

use crate::error::LabError;
use crate::machine::Machine;
use dpr_host::nft::Nftables;
use dpr_host::{Netlink, RouteTable};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

/// Links, addresses, routes, rules, nftables tables and sysctls of a machine at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostState {
    lines: BTreeSet<String>,
}

impl HostState {
    /// Reads the state of `machine`.
    ///
    /// # Errors
    ///
    /// The kernel refuses to tell.
    pub fn of(machine: &Machine) -> Result<Self, LabError> {
        let doing = format!("read the network state of {}", machine.name());
        machine.exec(|| read(&doing))?
    }

    /// What `later` has and this has not (`+`), and the other way round (`-`); empty if nothing changed.
    pub fn changes(&self, later: &Self) -> Vec<String> {
        let gone = self.lines.difference(&later.lines).map(|line| format!("- {line}"));
        let new = later.lines.difference(&self.lines).map(|line| format!("+ {line}"));
        gone.chain(new).collect()
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn read(doing: &str) -> Result<HostState, LabError> {
    let mut lines = BTreeSet::new();
    let mut netlink = Netlink::open().map_err(LabError::host(doing))?;
    let links = netlink.links().map_err(LabError::host(doing))?;
    lines.extend(links.iter().map(|link| format!("link {link:?}")));
    let addresses = netlink.addresses().map_err(LabError::host(doing))?;
    lines.extend(addresses.iter().map(|address| format!("address {address:?}")));
    for table in route_tables() {
        let routes = netlink.routes(table).map_err(LabError::host(doing))?;
        lines.extend(routes.iter().map(|route| format!("{route} {route:?}")));
    }
    let rules = netlink.rules().map_err(LabError::host(doing))?;
    lines.extend(rules.iter().map(ToString::to_string));
    let mut nftables = Nftables::open().map_err(LabError::host(doing))?;
    let tables = nftables.tables().map_err(LabError::host(doing))?;
    lines.extend(tables.iter().map(|table| format!("nft table {table}")));
    read_sysctls(Path::new("/proc/sys/net"), &mut lines);
    Ok(HostState { lines })
}

/// Every IPv4 routing table of the calling thread's namespace that was ever used.
///
/// The kernel names them nowhere but in the headings of this file (`net/ipv4/fib_trie.c`).
fn route_tables() -> BTreeSet<RouteTable> {
    let text = fs::read_to_string("/proc/thread-self/net/fib_trie").unwrap_or_default();
    let numbered = text
        .lines()
        .filter_map(|line| line.strip_prefix("Id ")?.strip_suffix(':')?.parse().ok())
        .map(RouteTable);
    [RouteTable::MAIN, RouteTable::LOCAL].into_iter().chain(numbered).collect()
}

/// Adds every setting below `directory`. Those that cannot be read are write-only triggers or not this namespace's.
fn read_sysctls(directory: &Path, lines: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_sysctls(&path, lines);
        } else if let Ok(value) = fs::read_to_string(&path) {
            lines.insert(format!("sysctl {} = {}", path.display(), value.trim()));
        }
    }
}
