//! How a lab's node is configured.

use crate::error::LabError;
use crate::ip_version::IpVersion;
use crate::lab::{Lab, MTU_ETHERNET, NODE_NUMBER_BASE};
use dpr_model::{LoadPermille, Metric, Protocol};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Connections that a node can forward at once: the lab's machines are many, and all share one machine's memory.
const CONNTRACK_CAPACITY: u32 = 131_072;

/// What is the same on all nodes of a cluster.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// IP version of the node address.
    pub node_version: IpVersion,
    /// IP version of the service address.
    pub service_version: IpVersion,
    /// Forwarding method as the configuration names it; `None` leaves the daemon's default.
    pub method: Option<String>,
    /// With the method `nat`: only the server's end is translated.
    pub half_nat: bool,
    /// Servers without `dpr` behind the service of every node.
    pub servers: Vec<SocketAddr>,
    /// The service address is one that the node's host does not hold; otherwise it is the node address, if it is of that
    /// version.
    pub separate_service_address: bool,
    /// All nodes share one service address, whose packets come in as the configuration names it.
    pub shared: Option<&'static str>,
    /// The MAC address that all nodes have for it, where it comes in by one; `None` leaves the daemon's default.
    pub shared_mac: Option<&'static str>,
    /// How packets reach the server's socket, as the configuration names it; `None` leaves the daemon's default.
    pub delivery: Option<&'static str>,
    /// Which data plane the daemons are to use.
    pub plane: Plane,
    /// Transport protocol of the service; the lab starts no servers for UDP.
    pub protocol: Protocol,
    /// Port of the one service.
    pub service_port: u16,
    /// Further ports and ranges of the service, as the configuration names them.
    pub ports: Vec<&'static str>,
    /// Clients of the service stay with their real server.
    pub persistence: bool,
    /// Seconds for which a silent connection is remembered; `None` leaves the daemon's default.
    pub established_timeout_s: Option<u32>,
    /// Concurrent connections that fill a node.
    pub capacity: u32,
    /// Load index below which a node keeps its connections; 0 balances every connection.
    pub maxload: LoadPermille,
    /// Name of the policy; `None` leaves the daemon's default.
    pub policy: Option<String>,
    /// Metrics of the load index and their weights.
    ///
    /// By default what belongs to one node alone: processor time and memory are those of all machines together.
    pub metrics: BTreeMap<&'static str, u16>,
    /// Milliseconds between load reports.
    pub gossip_interval_ms: u32,
    /// What answers on the service port.
    pub server: Server,
    /// File with the keys of load reports; `None` leaves them unauthenticated.
    pub key_file: Option<PathBuf>,
    /// MTU of the nodes' interfaces, bytes.
    pub mtu: u32,
    /// VLANs that clients come from, as the configuration names them.
    pub vlans: Vec<&'static str>,
    /// What the daemons log (`error` to `trace`).
    pub log_level: String,
    /// What they serve by DNS; `None` for nothing.
    pub dns: Option<DnsPlan>,
    /// How they agree on owners; `None` for not at all.
    pub ownership: Option<OwnershipPlan>,
}

/// How all nodes agree on owners.
#[derive(Clone, Copy, Debug)]
pub struct OwnershipPlan {
    /// The first so many nodes found the cluster.
    pub voters: u8,
    /// What it takes to own what others could own, as the configuration names it.
    pub quorum: &'static str,
    /// Whether nodes that return get their addresses back by themselves, as the configuration names it.
    pub give_back: &'static str,
    /// They judge by the first client machine whether clients reach them.
    pub ping: bool,
    /// The first client machine is the witness of two voters; `quorum` counts for nothing then.
    pub witness: bool,
}

impl OwnershipPlan {
    /// A majority of the first so many nodes; addresses return by themselves.
    pub fn majority_of(voters: u8) -> Self {
        Self { voters, quorum: "majority", give_back: "auto", ping: false, witness: false }
    }

    /// Two voters, and the first client machine as their witness.
    pub fn with_witness() -> Self {
        Self { witness: true, ..Self::majority_of(2) }
    }

    fn table(self, version: IpVersion) -> OwnershipTable {
        let address = |number: u8| version.address_of(NODE_NUMBER_BASE + number);
        let client = Lab::client_address(1, version);
        OwnershipTable {
            voters: (1..=self.voters).map(address).collect(),
            quorum: if self.witness { format!("witness:{client}") } else { self.quorum.to_owned() },
            give_back: self.give_back,
            ping: if self.ping { vec![client] } else { Vec::new() },
        }
    }
}

/// A data plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plane {
    /// Packet sockets.
    #[default]
    Userspace,
    /// Programs of the kernel in front of them; only root may load some.
    Xdp,
    /// Such programs in the driver of the machine's interface, not behind it.
    XdpNative,
}

impl Plane {
    /// As the configuration names it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Userspace => "userspace",
            Self::Xdp | Self::XdpNative => "xdp",
        }
    }

    /// Whether there are programs of the kernel.
    pub fn has_programs(self) -> bool {
        self != Self::Userspace
    }

    /// Where they run, as the configuration names it; `None` for what is usual.
    fn mode(self) -> Option<&'static str> {
        (self == Self::XdpNative).then_some("native")
    }
}

/// What all nodes serve by DNS, on port 53 of their addresses.
#[derive(Clone, Debug)]
pub struct DnsPlan {
    /// Name of the zone; it and `www` below it name the service.
    pub zone: String,
    /// Name servers: the first so many nodes.
    pub name_servers: u8,
    /// TTL of ordinary answers, seconds.
    pub ttl_s: u32,
    /// TTL of answers that name a hot node, seconds.
    pub ttl_hot_s: u32,
    /// UDP answers per second and client network; 0 for any number.
    pub rate_limit: u32,
    /// Whether addresses of dead nodes are named still.
    pub keep_dead: bool,
    /// Networks of service addresses that are near networks of clients, by the latter.
    pub near: BTreeMap<String, String>,
}

impl Default for DnsPlan {
    fn default() -> Self {
        Self {
            zone: "cluster.test".to_owned(),
            name_servers: 2,
            ttl_s: 1,
            ttl_hot_s: 1,
            rate_limit: 0,
            keep_dead: false,
            near: BTreeMap::new(),
        }
    }
}

impl DnsPlan {
    /// Name of the service.
    pub fn service_name(&self) -> String {
        format!("www.{}", self.zone)
    }

    /// With name servers at node addresses of this version.
    fn table(&self, version: IpVersion) -> DnsTable<'_> {
        let server = |number: u8| (format!("ns{number}"), [version.address_of(NODE_NUMBER_BASE + number)]);
        DnsTable {
            zone: &self.zone,
            ns: (1..=self.name_servers).map(server).collect(),
            ttl_s: self.ttl_s,
            ttl_hot_s: self.ttl_hot_s,
            rate_limit: self.rate_limit,
            keep_dead: self.keep_dead,
            near: &self.near,
        }
    }
}

/// What answers on the service port of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// The daemon's own server, with its built-in page.
    BuiltIn,
    /// The daemon's own server, with the files of a directory.
    Files(PathBuf),
    /// A verifying server, which the lab starts beside the daemon.
    Paired,
    /// Something that whoever uses the lab starts.
    Other,
}

impl Default for NodePlan {
    fn default() -> Self {
        let metrics = [(Metric::Connections.label(), 1), (Metric::RequestsInFlight.label(), 1)];
        Self {
            node_version: IpVersion::V4,
            service_version: IpVersion::V4,
            method: None,
            half_nat: false,
            servers: Vec::new(),
            separate_service_address: false,
            shared: None,
            shared_mac: None,
            delivery: None,
            plane: Plane::default(),
            protocol: Protocol::Tcp,
            service_port: 80,
            ports: Vec::new(),
            persistence: false,
            established_timeout_s: None,
            capacity: 100,
            maxload: LoadPermille(700),
            policy: None,
            metrics: BTreeMap::from(metrics),
            gossip_interval_ms: 100,
            server: Server::BuiltIn,
            key_file: None,
            mtu: MTU_ETHERNET,
            vlans: Vec::new(),
            log_level: "info".to_owned(),
            dns: None,
            ownership: None,
        }
    }
}

impl NodePlan {
    /// A plan for a service that a paired server answers on `port`: connections alone make its load.
    pub fn paired(port: u16) -> Self {
        let metrics = BTreeMap::from([(Metric::Connections.label(), 1)]);
        Self { service_port: port, server: Server::Paired, metrics, ..Self::default() }
    }

    /// The same plan with all addresses of one IP version.
    pub fn in_version(self, version: IpVersion) -> Self {
        Self { node_version: version, service_version: version, ..self }
    }

    /// The configuration file of one node.
    pub(crate) fn file(
        &self,
        name: &str,
        addresses: Addresses,
        socket: &Path,
        pins: Option<&Path>,
    ) -> Result<String, LabError> {
        // A service address that is not named is the node address.
        let service_address = (addresses.service != addresses.node).then_some(addresses.service);
        let file = File {
            node: NodeTable { address: addresses.node, name, capacity: self.capacity, vlans: &self.vlans },
            service: [ServiceTable {
                address: service_address,
                port: self.service_port,
                ports: &self.ports,
                persistence: self.persistence,
                method: self.method.as_deref(),
                shared: self.shared.is_some(),
                ingress: self.shared,
                shared_mac: self.shared_mac,
                delivery: self.delivery,
                protocol: self.protocol,
                nat: self.half_nat.then_some("half"),
                server: self.servers.iter().map(|address| ServerTable { address: *address }).collect(),
            }],
            gossip: GossipTable { interval_ms: self.gossip_interval_ms, key_file: self.key_file.as_deref() },
            balance: BalanceTable {
                policy: self.policy.as_deref(),
                maxload: self.maxload,
                metrics: &self.metrics,
            },
            http: self.server.table(),
            dataplane: DataplaneTable {
                kind: self.plane.label(),
                mode: self.plane.mode(),
                pin_directory: pins,
            },
            conntrack: ConntrackTable {
                capacity: CONNTRACK_CAPACITY,
                established_timeout_s: self.established_timeout_s,
            },
            control: ControlTable { socket },
            log: LogTable { level: &self.log_level },
            dns: self.dns.as_ref().map(|plan| plan.table(self.node_version)),
            ownership: self.ownership.map(|plan| plan.table(self.node_version)),
        };
        toml::to_string(&file).map_err(|reason| LabError::Configuration { node: name.to_owned(), reason })
    }
}

/// Addresses of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) node: IpAddr,
    pub(crate) service: IpAddr,
}

impl Server {
    fn table(&self) -> HttpTable<'_> {
        match self {
            Self::BuiltIn => HttpTable { external: false, root: None },
            Self::Files(root) => HttpTable { external: false, root: Some(root) },
            Self::Paired | Self::Other => HttpTable { external: true, root: None },
        }
    }
}

#[derive(Serialize)]
struct File<'a> {
    node: NodeTable<'a>,
    service: [ServiceTable<'a>; 1],
    gossip: GossipTable<'a>,
    balance: BalanceTable<'a>,
    http: HttpTable<'a>,
    dataplane: DataplaneTable<'a>,
    conntrack: ConntrackTable,
    control: ControlTable<'a>,
    log: LogTable<'a>,
    dns: Option<DnsTable<'a>>,
    ownership: Option<OwnershipTable>,
}

#[derive(Serialize)]
struct NodeTable<'a> {
    address: IpAddr,
    name: &'a str,
    capacity: u32,
    vlans: &'a [&'static str],
}

#[derive(Serialize)]
struct ServiceTable<'a> {
    address: Option<IpAddr>,
    port: u16,
    ports: &'a [&'static str],
    persistence: bool,
    method: Option<&'a str>,
    shared: bool,
    ingress: Option<&'static str>,
    #[serde(rename = "shared-mac")]
    shared_mac: Option<&'static str>,
    delivery: Option<&'static str>,
    protocol: Protocol,
    nat: Option<&'static str>,
    server: Vec<ServerTable>,
}

#[derive(Serialize)]
struct ServerTable {
    address: SocketAddr,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct GossipTable<'a> {
    interval_ms: u32,
    key_file: Option<&'a Path>,
}

#[derive(Serialize)]
struct BalanceTable<'a> {
    policy: Option<&'a str>,
    maxload: LoadPermille,
    metrics: &'a BTreeMap<&'static str, u16>,
}

#[derive(Serialize)]
struct HttpTable<'a> {
    external: bool,
    root: Option<&'a Path>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DataplaneTable<'a> {
    kind: &'static str,
    mode: Option<&'static str>,
    pin_directory: Option<&'a Path>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ConntrackTable {
    capacity: u32,
    established_timeout_s: Option<u32>,
}

#[derive(Serialize)]
struct ControlTable<'a> {
    socket: &'a Path,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DnsTable<'a> {
    zone: &'a str,
    ns: BTreeMap<String, [IpAddr; 1]>,
    ttl_s: u32,
    ttl_hot_s: u32,
    rate_limit: u32,
    keep_dead: bool,
    near: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct OwnershipTable {
    voters: Vec<IpAddr>,
    quorum: String,
    give_back: &'static str,
    ping: Vec<IpAddr>,
}

#[derive(Serialize)]
struct LogTable<'a> {
    level: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let address = IpAddr::from([10, 77, 0, 11]);
        Addresses { node: address, service: address }
    }

    #[test]
    fn a_plan_becomes_a_file_that_toml_reads() {
        let plan = NodePlan { policy: Some("lightest".to_owned()), ..NodePlan::paired(7000) };
        let text = plan.file("n1", addresses(), Path::new("/tmp/x/control.sock"), None).unwrap();
        let file: toml::Table = text.parse().unwrap();
        assert_eq!(file["node"]["address"].as_str(), Some("10.77.0.11"));
        assert_eq!(file["service"][0]["port"].as_integer(), Some(7000));
        assert_eq!(file["gossip"]["interval-ms"].as_integer(), Some(100));
        assert_eq!(file["balance"]["policy"].as_str(), Some("lightest"));
        assert_eq!(file["balance"]["metrics"]["connections"].as_integer(), Some(1));
        assert_eq!(file["http"]["external"].as_bool(), Some(true));
    }

    #[test]
    fn all_nodes_are_told_the_same_voters() {
        let ownership = Some(OwnershipPlan::majority_of(2));
        let plan = NodePlan { ownership, ..NodePlan::default() };
        let text = plan.file("n1", addresses(), Path::new("/tmp/x/control.sock"), None).unwrap();
        let file: toml::Table = text.parse().unwrap();
        let voters = file["ownership"]["voters"].as_array().unwrap();
        assert_eq!(
            voters.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>(),
            ["10.77.0.11", "10.77.0.12"]
        );
    }

    #[test]
    fn a_directory_of_files_is_the_root_of_the_daemons_own_server() {
        let plan = NodePlan { server: Server::Files("/srv/www".into()), ..NodePlan::default() };
        let text = plan.file("n1", addresses(), Path::new("/tmp/x/control.sock"), None).unwrap();
        let file: toml::Table = text.parse().unwrap();
        assert_eq!(file["http"]["root"].as_str(), Some("/srv/www"));
        assert_eq!(file["http"]["external"].as_bool(), Some(false));
    }
}
