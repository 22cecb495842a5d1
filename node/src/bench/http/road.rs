//! The ways from clients to the web server.
//!
//! ```text
//! clients ── switch ── server                 straight
//! clients ── switch ─┬ balancer               by nftables, HAProxy or nginx
//!                    └ server
//! clients ── switch ─┬ machine                by a hop that decides nothing (replies go straight)
//!                    └ server
//! clients ── switch ─┬ node 1, loaded         by a director
//!                    └ node 2, with server    (replies go straight)
//! ```
//!
//! Every way has machines and a server of its own. All servers are threads of this process, whatever the way, so that
//! none profits from its server's neighbourhood.

use super::super::rivals::{self, Proxy, Replies};
use super::load::Load;
use crate::http::{self, Deliveries, Directory, Figures, FileCache, Site};
use anyhow::Context as _;
use dpr_host::{AddressOptions, IpPrefix, Netlink, Sysctl};
use dpr_lab::{Cluster, ClusterPlan, Lab, Machine, NodePlan, Plane, Process, Server};
use dpr_model::{LoadPermille, NodeId};
use dpr_xdp::Relay;
use serde::{Serialize, Serializer};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The program itself, also where its file was replaced meanwhile.
const OWN_BINARY: &str = "/proc/self/exe";
/// Where servers and balancers listen.
const PORT: u16 = 80;
/// More than clients can open: a server is never what is full.
const SERVER_CONNECTIONS_MAX: usize = 20_000;
/// Concurrent connections that fill a node; far more than clients open, so that node 2 is always the lighter one.
const NODE_CAPACITY: u32 = 100_000;
/// How long a proxy may take until it listens.
const PROXY_LIMIT: Duration = Duration::from_secs(5);

/// What stands between clients and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing.
    Direct,
    /// A program that sends on to the server's MAC address: what no director can do without.
    Hop,
    /// A director with this data plane.
    Dpr(Plane),
    /// The kernel's connection tracking and NAT in both directions.
    Nftables,
    /// A program that takes connections and makes others.
    Proxy(Proxy),
}

impl Way {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Hop => "a hop, by its program",
            Self::Dpr(Plane::Xdp | Plane::XdpNative) => "dpr, kernel's programs",
            Self::Dpr(Plane::Userspace) => "dpr, user space",
            Self::Nftables => "nftables DNAT",
            Self::Proxy(Proxy::Haproxy) => "HAProxy, tcp",
            Self::Proxy(Proxy::Nginx) => "nginx, stream",
        }
    }
}

impl Serialize for Way {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

/// One way, ready for clients; dropping it removes it.
#[derive(Debug)]
pub(super) struct Road {
    way: Way,
    client: Machine,
    target: SocketAddr,
    processes: Vec<u32>,
    _between: Between,
    _server: http::Running,
    /// Has the server's files.
    _lab: Lab,
}

/// What is kept for as long as the road is.
#[derive(Debug)]
#[expect(dead_code, reason = "held for what dropping it removes")]
enum Between {
    Nothing(Machine),
    Hop(Machine, Machine, Relay),
    Balancer(Machine, Machine, Option<Process>),
    Daemons(Cluster),
}

impl Road {
    /// Builds machines and server, and starts what stands between.
    pub(super) fn build(way: Way) -> anyhow::Result<Self> {
        match way {
            Way::Direct => {
                let lab = Lab::new()?;
                let (client, machine) = (lab.client(1)?, lab.client(2)?);
                let server = serve(&lab, &machine)?;
                let target = SocketAddr::new(machine.address(), PORT);
                Self::ready(way, client, target, Vec::new(), Between::Nothing(machine), (server, lab))
            }
            Way::Hop => Self::by_a_hop(way),
            Way::Nftables | Way::Proxy(_) => Self::by_a_balancer(way),
            Way::Dpr(plane) => Self::by_a_director(way, plane),
        }
    }

    /// Server and hop have the same address; neighbours are told, so that nobody asks for it.
    fn by_a_hop(way: Way) -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let (client, hop, machine) = (lab.client(1)?, lab.client(2)?, lab.client(3)?);
        let target = SocketAddr::new(hop.address(), PORT);
        machine.exec(|| {
            let mut netlink = Netlink::open()?;
            let loopback = netlink.link_by_name("lo")?.context("a namespace has a loopback interface")?;
            let alone = IpPrefix::new(target.ip(), 32)?;
            netlink.add_address(loopback.index, alone, AddressOptions::default())?;
            know(&mut netlink, &client)
        })??;
        client.exec(|| know(&mut Netlink::open()?, &hop))??;
        let relay = hop.exec(|| Relay::put(dpr_lab::INTERFACE, machine.mac()))??;
        let server = serve(&lab, &machine)?;
        Self::ready(way, client, target, Vec::new(), Between::Hop(hop, machine, relay), (server, lab))
    }

    fn by_a_balancer(way: Way) -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let (client, balancer, machine) = (lab.client(1)?, lab.client(2)?, lab.client(3)?);
        let server = serve(&lab, &machine)?;
        let (from, to) = (ipv4(&balancer)?, ipv4(&machine)?);
        draw_from_many_ports(&balancer)?;
        let process = match way {
            Way::Proxy(proxy) => Some(start(proxy, &balancer, SocketAddrV4::new(to, PORT), lab.directory())?),
            _ => {
                rivals::translate(balancer.namespace(), (from, PORT), (to, PORT), Replies::ComeBack)?;
                None
            }
        };
        let processes = process.iter().map(Process::id).collect();
        let between = Between::Balancer(balancer, machine, process);
        Self::ready(way, client, SocketAddr::new(from.into(), PORT), processes, between, (server, lab))
    }

    fn by_a_director(way: Way, plane: Plane) -> anyhow::Result<Self> {
        let node = NodePlan { plane, capacity: NODE_CAPACITY, server: Server::Other, ..NodePlan::default() };
        let plan = ClusterPlan { nodes: 2, clients: 1, node };
        let mut cluster = Cluster::build(&plan, Path::new(OWN_BINARY))?;
        let machine = cluster.nodes[1].machine();
        // What it sends goes to clients, which are alike whatever the way.
        machine.leave_checksums()?;
        let server = serve(&cluster.lab, machine)?;
        cluster.start_daemons()?;
        cluster.nodes[0].override_load(Some(LoadPermille(1000)))?;
        let client = cluster.clients.pop().context("the cluster has a client")?;
        let target = cluster.nodes[0].service();
        let processes = cluster.nodes.iter().filter_map(dpr_lab::Node::daemon_id).collect();
        let lab = cluster.lab.clone();
        Self::ready(way, client, target, processes, Between::Daemons(cluster), (server, lab))
    }

    fn ready(
        way: Way,
        client: Machine,
        target: SocketAddr,
        processes: Vec<u32>,
        between: Between,
        (server, lab): (http::Running, Lab),
    ) -> anyhow::Result<Self> {
        // As a network card's driver would: the programs want it of clients, and all clients shall cost the same.
        client.finish_checksums()?;
        draw_from_many_ports(&client)?;
        Ok(Self { way, client, target, processes, _between: between, _server: server, _lab: lab })
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// Where clients are.
    pub(super) fn client(&self) -> &Machine {
        &self.client
    }

    /// What clients connect to.
    pub(super) fn target(&self) -> SocketAddr {
        self.target
    }

    /// Processes between clients and server.
    pub(super) fn processes(&self) -> &[u32] {
        &self.processes
    }
}

/// Tells the thread's machine where another one is.
fn know(netlink: &mut Netlink, other: &Machine) -> anyhow::Result<()> {
    let link = netlink.link_by_name(dpr_lab::INTERFACE)?.context("a machine has an interface")?;
    Ok(netlink.add_permanent_neighbour(link.index, other.address(), other.mac())?)
}

/// Starts the built-in server on a machine.
fn serve(lab: &Lab, machine: &Machine) -> anyhow::Result<http::Running> {
    for load in Load::ALL {
        let file = lab.directory().join(load.file());
        fs::write(&file, vec![b'a'; load.length()]).with_context(|| file.display().to_string())?;
    }
    let site = Site {
        node: NodeId::from_address(machine.address()),
        name: machine.name().to_owned(),
        files: Some(FileCache::new(Arc::new(Directory::open(lab.directory())?))),
        deliveries: watch::channel(Arc::new(Deliveries::default())).1,
        figures: Arc::new(Figures::default()),
    };
    let listener = machine.exec(|| http::listen(PORT))??;
    http::Running::start(vec![listener], &Arc::new(site), SERVER_CONNECTIONS_MAX)
}

fn start(proxy: Proxy, machine: &Machine, server: SocketAddrV4, directory: &Path) -> anyhow::Result<Process> {
    let process = machine.spawn(proxy.command(directory, server)?)?;
    let own = SocketAddr::new(machine.address(), PORT);
    dpr_lab::wait_until(&format!("{} to listen", proxy.program()), PROXY_LIMIT, || {
        machine
            .exec(|| TcpStream::connect(own))
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    })?;
    Ok(process)
}

/// Thousands of connections a second leave thousands of ports waiting (RFC 9293 section 3.6.1).
fn draw_from_many_ports(machine: &Machine) -> anyhow::Result<()> {
    Ok(machine.exec(|| Sysctl::local_port_range().write("1024 65535"))??)
}

fn ipv4(machine: &Machine) -> anyhow::Result<Ipv4Addr> {
    machine.ipv4().context("the lab speaks IPv4")
}
