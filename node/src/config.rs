//! The configuration file: TOML in, a valid [`Config`] or every mistake with its place out.
//!
//! A `Config` that exists is valid in itself; whether the host can follow it is `dpr check`'s business. Reading does
//! not touch anything but the file. Keys are defined once, in `config/keys.rs`.

mod choice;
mod dns;
mod dns_value;
mod document;
mod finding;
mod keys;
mod network;
mod ownership;
mod resolve;
#[cfg(any(test, fuzzing))]
pub(crate) mod rules;
mod schema;
mod servers;
mod services;
mod suggestion;
#[cfg(test)]
mod tests;
mod value;
mod vlans;

pub(crate) use choice::{DataplaneKind, Policy, ProgramMode};
pub(crate) use dns::Dns;
pub(crate) use document::markdown;
pub(crate) use finding::ConfigError;
pub(crate) use ownership::Ownership;
pub(crate) use schema::TakesEffect;
pub(crate) use vlans::Vlan;

use dpr_conntrack::Timeouts;
use dpr_director::DeliveryRanges;
use dpr_model::{
    Capacity, DeliveryMode, ForwardingMethod, LoadPermille, MacAddress, Metric, NodeId, PartitionBy,
    PortGroup, PortRange, Protocol, ServiceReport, ServiceSocket, Sharing, Weight,
};
use finding::Mistakes;
use keys::Keys;
use schema::Change;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeTable;

/// Everything that an operator can say, with defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Who this node is.
    pub(crate) node: Node,
    /// Services that this node is home to; at least one, no two with the same socket.
    pub(crate) services: Vec<Service>,
    /// Prefixes from which delivery addresses are taken.
    pub(crate) delivery_ranges: DeliveryRanges,
    /// Ports of translated connections; `None` where no service translates.
    pub(crate) nat_ports: Option<PortRange>,
    /// How nodes find each other.
    pub(crate) gossip: Gossip,
    /// How a new connection finds its real server.
    pub(crate) balance: Balance,
    /// The connection-forwarding table.
    pub(crate) conntrack: Conntrack,
    /// What serves the services.
    pub(crate) server: Server,
    /// The DNS server, if there is one.
    pub(crate) dns: Option<Dns>,
    /// How nodes agree on owners, if they do.
    pub(crate) ownership: Option<Ownership>,
    /// Which data plane runs.
    pub(crate) dataplane: DataplaneKind,
    /// Where the program for incoming packets runs.
    pub(crate) program_mode: ProgramMode,
    /// Where the kernel's programs and maps are kept.
    pub(crate) pin_directory: PathBuf,
    /// The control socket.
    pub(crate) control_socket: PathBuf,
    /// Directives of the log filter.
    pub(crate) log_filter: String,
    keys: Keys,
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Node address.
    pub(crate) address: IpAddr,
    /// Identity.
    pub(crate) id: NodeId,
    /// Name for people.
    pub(crate) name: String,
    /// The operator's preference.
    pub(crate) weight: Weight,
    /// Concurrent connections that fill it.
    pub(crate) capacity: Capacity,
    /// Interface that carries the node address, if it was named.
    pub(crate) interface: Option<String>,
    /// VLANs on it that clients come from.
    pub(crate) vlans: Vec<Vlan>,
}

/// A service that this node is home to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Where clients connect to.
    pub(crate) address: IpAddr,
    /// Port.
    pub(crate) port: u16,
    /// Ports that belong to it beside that one.
    pub(crate) ports: PortGroup,
    /// Transport protocol.
    pub(crate) protocol: Protocol,
    /// How a director hands packets to a real server.
    pub(crate) method: ForwardingMethod,
    /// How they reach the server's socket there.
    pub(crate) delivery: DeliveryMode,
    /// How its clients stay with their node, if they do.
    pub(crate) persistence: Option<Persistence>,
    /// Who may own its slots; all services of one address say the same.
    pub(crate) sharing: Sharing,
    /// What of a connection decides about its slot.
    pub(crate) partition_by: PartitionBy,
    /// MAC address that all nodes have for it; for the ingress `shared-mac` only.
    pub(crate) shared_mac: Option<MacAddress>,
    /// Servers without `dpr` behind it, no two with the same socket.
    pub(crate) servers: Vec<ServerWithoutDpr>,
}

/// How clients of a service stay with their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Persistence {
    /// Bits of clients' addresses that say who is one client.
    pub(crate) prefix_len: u8,
    /// After a client's last packet.
    pub(crate) timeout: Duration,
}

impl Service {
    /// The socket that it is named by.
    pub(crate) fn socket(&self) -> ServiceSocket {
        ServiceSocket { address: self.address, port: self.port }
    }

    /// As load reports tell of it, taken for healthy.
    pub(crate) fn report(&self) -> ServiceReport {
        ServiceReport {
            method: self.method,
            delivery: self.delivery,
            ports: self.ports,
            sharing: self.sharing,
            partition_by: self.partition_by,
            ..ServiceReport::new(self.protocol, self.socket())
        }
    }
}

/// A server without `dpr` behind a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerWithoutDpr {
    /// Where it listens.
    pub(crate) socket: SocketAddr,
    /// The operator's preference.
    pub(crate) weight: Weight,
    /// Concurrent connections that fill it; `None` for the node's own capacity.
    pub(crate) capacity: Option<Capacity>,
}

/// How nodes find each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gossip {
    /// Multicast groups of the node address's IP version; empty where multicast is switched off.
    pub(crate) groups: Vec<SocketAddr>,
    /// UDP port of the groups, which this node listens on.
    pub(crate) port: u16,
    /// Peers by unicast, without this node itself.
    pub(crate) peers: Vec<SocketAddr>,
    /// Time between reports.
    pub(crate) interval: Duration,
    /// Keys that authenticate reports.
    pub(crate) key_file: Option<PathBuf>,
}

/// How a new connection finds its real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Balance {
    /// How a director above `maxload` chooses.
    pub(crate) policy: Policy,
    /// Below this load index a node keeps its own connections; 0 switches the rule off.
    pub(crate) maxload: LoadPermille,
    /// Weight of each metric in the load index; `None` leaves the choice to the load sampler.
    pub(crate) metrics: Option<BTreeMap<Metric, u16>>,
}

/// Bounds and timeouts of the connection-forwarding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conntrack {
    /// Entries.
    pub(crate) capacity: usize,
    /// Half-open entries, at most `capacity`.
    pub(crate) half_open_capacity: usize,
    /// Until entries are forgotten.
    pub(crate) timeouts: Timeouts,
    /// Clients of services with persistence.
    pub(crate) clients: usize,
}

/// What serves the services on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The built-in server, with a page of its own.
    Page,
    /// The built-in server, with the files of a directory.
    Files(PathBuf),
    /// Something else that listens on the service ports.
    External,
}

/// What defaults are made of.
#[derive(Clone, Debug)]
pub(crate) struct Defaults {
    /// The host's name.
    pub(crate) host_name: String,
    /// Processors that the process may use.
    pub(crate) processors: u32,
}

impl Defaults {
    /// Those of this host.
    pub(crate) fn of_this_host() -> Self {
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { host_name, processors: u32::try_from(processors).unwrap_or(u32::MAX) }
    }
}

/// No configuration is larger than this, in bytes.
const FILE_MAX: u64 = 1 << 20;

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, is no text, or has mistakes; all mistakes that could be found.
    pub(crate) fn load(file: &Path, defaults: &Defaults) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
        let mut text = String::new();
        let opened = std::fs::File::open(file).map_err(unreadable)?;
        opened.take(FILE_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_MAX {
            return Err(ConfigError::TooLarge { file: file.to_owned(), max: FILE_MAX });
        }
        Self::parse(file, &text, defaults)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`] with every mistake that could be found.
    pub(crate) fn parse(file: &Path, text: &str, defaults: &Defaults) -> Result<Self, ConfigError> {
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut findings: Vec<_> = errors.iter().map(finding_of_syntax).collect();
        if findings.is_empty() {
            let keys = Keys::read(&document, &mut findings);
            let directory = file.parent().unwrap_or(Path::new("."));
            if let Some(config) = resolve::resolve(keys, directory, defaults, &mut findings)
                && findings.is_empty()
            {
                return Ok(config);
            }
        }
        findings.sort_by_key(|finding| finding.at.start);
        Err(ConfigError::Wrong(Mistakes { file: file.to_owned(), text: text.to_owned(), findings }))
    }

    /// Ports of the services of a protocol, each once.
    pub(crate) fn service_ports(&self, protocol: Protocol) -> Vec<u16> {
        let of_protocol = self.services.iter().filter(|service| service.protocol == protocol);
        of_protocol.map(|service| service.port).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The keys whose values differ in `new`, and when they take effect.
    pub(crate) fn changes(&self, new: &Self) -> Vec<Change> {
        self.keys.changes(&new.keys)
    }
}

fn finding_of_syntax(error: &toml::de::Error) -> finding::Finding {
    let at = error.span().unwrap_or(0..0);
    finding::Finding::new(at, error.message(), "see https://toml.io for the syntax; strings need quotes")
}
