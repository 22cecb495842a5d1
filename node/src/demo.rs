//! `dpr demo`: a whole cluster in namespaces on this machine, with real daemons, skewed clients and a node that dies.
//!
//! All clients share a resolver that goes on naming node 1, the worst skew of round-robin DNS: node 1 keeps what it can
//! and hands the rest to lighter nodes. With `--skew none` each client asks the cluster's own DNS instead. Later a node
//! is cut off and killed. What is shown was measured at the clients and
//! told by the daemons themselves. It refuses to touch the host's own network, and to leave anything behind.

mod interrupt;
mod keep;
mod summary;
mod view;

use crate::cli::{DemoArgs, Skew};
use anyhow::Context as _;
use dpr_lab::http_load::{HttpLoad, Kill, LoadPlan, Tally, Targets};
use dpr_lab::resolver::StubResolver;
use dpr_lab::{Cluster, ClusterPlan, DnsPlan, IpVersion, NodePlan, Plane};
use dpr_model::status::Status;
use dpr_model::{ForwardingMethod, LoadPermille, Metric};
use dpr_xdp::Sizes;
use interrupt::Interrupt;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use summary::Summary;
use view::View;

/// The program itself, also where its file was replaced meanwhile.
const OWN_BINARY: &str = "/proc/self/exe";
/// Concurrent connections that fill a node. Small, so that few clients make much load.
const NODE_CAPACITY: u32 = 20;
/// Load index below which node 1 keeps its connections.
const MAXLOAD: LoadPermille = LoadPermille(700);
/// Connections that clients hold at a time, for each node of the cluster; 600 permille of all capacity.
const CONNECTIONS_PER_NODE: u16 = 12;
/// Client machines; they share the connections.
const CLIENTS: u8 = 2;
/// Node 2 dies: node 1 has to live, as all clients may know only it.
const VICTIM: usize = 1;
/// Share of the duration after which it dies.
const KILL_AT: f64 = 0.6;
/// Longer than the first retransmission of a SYN (RFC 6298: 1 s), so that one lost SYN is no failure.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);
/// A client tries the next address of an answer when one has not accepted its connection for so long.
const ADDRESS_PATIENCE: Duration = Duration::from_millis(1500);
/// How long it may take until DNS names all nodes; a report interval or two is usual.
const NAMED_LIMIT: Duration = Duration::from_secs(10);
/// Port of the domain name system (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;
/// How often the demo looks after things.
const TICK: Duration = Duration::from_millis(10);
/// Exit code after Ctrl-C: 128 + SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

/// Runs the demo.
///
/// Exits with 0 if no request failed but those that the kill excuses and the death was noticed, 1 otherwise, 130 after
/// Ctrl-C.
///
/// # Errors
///
/// The host forbids namespaces (the error says how to allow them), or the cluster does not come up.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    // Before anything starts a thread.
    dpr_lab::enter().context("the demo needs network namespaces of its own")?;
    let interrupt = Interrupt::watch()?;
    eprintln!("Building {} nodes and {CLIENTS} clients on a switch of their own …", args.nodes);
    let mut cluster = Cluster::start(&plan(args), Path::new(OWN_BINARY))?;
    if args.skew == Skew::None {
        wait_until_named(&cluster)?;
    }
    let plane = cluster.nodes[0].status()?.dataplane.kind;
    eprintln!("All nodes see each other (data plane: {plane}). {}", approach(args, &cluster));
    let Some(summary) = Show::new(&mut cluster, args)?.run(&interrupt)? else {
        eprintln!("Interrupted; everything is removed.");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    summary.print(args.json)?;
    if args.keep {
        keep::until_interrupted(&cluster, &interrupt);
    }
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until every name server names every node: at first a node does not know that its own server listens.
fn wait_until_named(cluster: &Cluster) -> anyhow::Result<()> {
    let names_all = |node: &dpr_lab::Node| {
        let status = node.status().map_err(|error| error.to_string())?;
        let named = status.dns.iter().flat_map(|dns| &dns.names).map(|name| name.addresses.len()).min();
        if named == Some(cluster.nodes.len()) { Ok(()) } else { Err(format!("{named:?} addresses")) }
    };
    for node in cluster.nodes.iter().take(DnsPlan::default().name_servers.into()) {
        dpr_lab::wait_until("every node to be named", NAMED_LIMIT, || names_all(node))?;
    }
    Ok(())
}

/// How clients find their node, in words.
fn approach(args: &DemoArgs, cluster: &Cluster) -> String {
    match args.skew {
        Skew::One => format!("Every client now connects to n1 ({}) only.", cluster.nodes[0].service()),
        Skew::None => {
            format!("Every client asks n1 and n2 for {} and connects.", DnsPlan::default().service_name())
        }
    }
}

/// Where clients connect to.
fn targets(args: &DemoArgs, cluster: &Cluster) -> anyhow::Result<Targets> {
    if args.skew == Skew::One {
        return Ok(Targets::Fixed(vec![cluster.nodes[0].service()]));
    }
    let dns = DnsPlan::default();
    let servers = cluster.nodes.iter().take(dns.name_servers.into());
    let servers = servers.map(|node| (node.address(), DNS_PORT).into()).collect();
    let service = cluster.nodes[0].service();
    let resolver = StubResolver::new(servers, &dns.service_name(), IpVersion::of(service.ip()))?;
    Ok(Targets::Named { resolver, port: service.port(), patience: ADDRESS_PATIENCE })
}

fn plan(args: &DemoArgs) -> ClusterPlan {
    let node = NodePlan {
        capacity: NODE_CAPACITY,
        maxload: MAXLOAD,
        // Requests are far shorter than connections; with a share in the index they would only halve it.
        metrics: BTreeMap::from([(Metric::Connections.label(), 1)]),
        dns: Some(DnsPlan::default()),
        method: Some(args.method.clone()),
        plane: plane(args),
        ..NodePlan::default()
    };
    let node = if args.ipv6 { node.in_version(IpVersion::V6) } else { node };
    ClusterPlan { nodes: args.nodes, clients: CLIENTS, node }
}

/// The kernel's programs where they do what is asked for, and this user may load some.
fn plane(args: &DemoArgs) -> Plane {
    // Small tables, nothing attached: gone when this returns.
    let programs_do = args.method != ForwardingMethod::Nat.label();
    if programs_do && dpr_xdp::load(Sizes { flows: 1, half_open: 1 }, None).is_ok() {
        Plane::Xdp
    } else {
        Plane::Userspace
    }
}

/// What is known of one node.
#[derive(Clone, Debug)]
struct NodeRecord {
    name: String,
    /// What it said last.
    status: Status,
    killed: bool,
}

/// The run from the first request to the last.
struct Show<'a> {
    cluster: &'a mut Cluster,
    loads: Vec<HttpLoad>,
    nodes: Vec<NodeRecord>,
    began: Instant,
    duration: Duration,
    tally: Tally,
    kill: Option<Death>,
    view: View,
}

/// The kill of a node and how node 1 took it.
#[derive(Clone, Debug)]
struct Death {
    kill: Kill,
    /// Connections that node 1 had given it when that was last looked at.
    sent: u64,
    /// When node 1 was first seen to have given it its last connection and to know that it is dead.
    noticed: Option<Instant>,
}

impl<'a> Show<'a> {
    fn new(cluster: &'a mut Cluster, args: &DemoArgs) -> anyhow::Result<Self> {
        let duration = Duration::from_secs(args.duration_s.into());
        let connections = CONNECTIONS_PER_NODE * u16::from(args.nodes);
        let plan = LoadPlan {
            targets: targets(args, cluster)?,
            concurrency: connections / u16::from(CLIENTS),
            requests_per_connection: 5,
            think: Duration::from_millis(60),
            rest: Duration::ZERO,
            duration,
            timeout: CLIENT_TIMEOUT,
        };
        let nodes = cluster
            .nodes
            .iter()
            .map(|node| {
                Ok(NodeRecord { name: node.name().to_owned(), status: node.status()?, killed: false })
            })
            .collect::<anyhow::Result<_>>()?;
        let began = Instant::now();
        let loads = cluster
            .clients
            .iter()
            .map(|client| HttpLoad::start(client, plan.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            cluster,
            loads,
            nodes,
            began,
            duration,
            tally: Tally::default(),
            kill: None,
            view: View::new(),
        })
    }

    /// Runs to the end; `None` after Ctrl-C.
    fn run(mut self, interrupt: &Interrupt) -> anyhow::Result<Option<Summary>> {
        let mut next_view = self.began + Duration::from_secs(1);
        while !self.loads.iter().all(HttpLoad::is_finished) {
            if interrupt.came() {
                return Ok(None);
            }
            if self.kill.is_none() && self.began.elapsed() >= self.duration.mul_f64(KILL_AT) {
                self.kill_victim()?;
            }
            self.watch_death()?;
            let now = Instant::now();
            // After the end there are only requests that wait for their timeout.
            if now >= next_view && now < self.began + self.duration {
                next_view += Duration::from_secs(1);
                self.learn()?;
                self.count();
                self.view.draw(self.began.elapsed(), &self.nodes, &self.tally);
            }
            std::thread::sleep(TICK);
        }
        self.learn()?;
        self.count();
        let death = self.kill.context("the demo ended before a node was killed")?;
        Ok(Some(Summary::new(self.duration, &self.tally, &death, &self.nodes)))
    }

    fn kill_victim(&mut self) -> anyhow::Result<()> {
        self.learn()?;
        let kill = self.cluster.nodes[VICTIM].node_kill()?;
        self.nodes[VICTIM].killed = true;
        let sent = self.sent_to_victim()?.map_or(0, |(sent, _)| sent);
        self.view.say(&format!("{} dies: link cut, processes killed.", kill.node));
        self.kill = Some(Death { kill, sent, noticed: None });
        Ok(())
    }

    /// Looks whether node 1 has stopped to give connections to the dead node.
    fn watch_death(&mut self) -> anyhow::Result<()> {
        if self.kill.as_ref().is_none_or(|death| death.noticed.is_some()) {
            return Ok(());
        }
        let seen = self.sent_to_victim()?;
        let Some(death) = &mut self.kill else { return Ok(()) };
        let (sent, alive) = seen.unwrap_or((death.sent, false));
        // Two looks in a row: counters and liveness are not read at the same instant.
        if !alive && sent == death.sent {
            let now = Instant::now();
            death.noticed = Some(now);
            let took = now.duration_since(death.kill.at).as_millis();
            self.view
                .say(&format!("n1 gives {} nothing any more, {took} ms after its death.", death.kill.node));
        }
        death.sent = sent;
        Ok(())
    }

    /// Connections that node 1 gave the victim, and whether it takes it for alive; `None` if it has forgotten it.
    fn sent_to_victim(&self) -> anyhow::Result<Option<(u64, bool)>> {
        let victim = self.cluster.nodes[VICTIM].id();
        let status = self.cluster.nodes[0].status()?;
        let peer = status.peers.iter().find(|peer| peer.node.id == victim);
        Ok(peer.map(|peer| (peer.sent, peer.alive)))
    }

    /// Asks every living node how it is.
    fn learn(&mut self) -> anyhow::Result<()> {
        for (record, node) in self.nodes.iter_mut().zip(&self.cluster.nodes) {
            if !record.killed {
                record.status = node.status()?;
            }
        }
        Ok(())
    }

    /// Counts the requests that ended since the last count.
    ///
    /// What ended after the kill is counted after it, so that its excuse is known by then.
    fn count(&mut self) {
        let kill = self.kill.as_ref().map(|death| &death.kill);
        for record in self.loads.iter_mut().flat_map(HttpLoad::take) {
            self.tally.add(&record, kill.map_or(&[], std::slice::from_ref));
        }
    }
}
