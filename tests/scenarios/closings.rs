//! Connections end in every way there is, and what directors know of them is right a second later; what is only idle stays.

use dpr_host::sock_diag::InetSockets;
use dpr_lab::{IpVersion, Machine, NodePlan, OwnershipPlan, Server, wait_until};
use dpr_model::{Metric, NodeId, Protocol};
use dpr_tests::owners::{agree, everybody};
use dpr_tests::punctuality::Punctuality;
use dpr_tests::stage::{PATIENCE, Stage, assert_carried_by};
use dpr_tests::variant::Variant;
use socket2::SockRef;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PORT: u16 = 7100;
const NODES: u8 = 4;
/// Of the client that goes on, and of the one that vanishes.
const CONNECTIONS: [usize; 2] = [1600, 400];
/// A load is told in permille of this: so many that one connection in a hundred shows.
const CAPACITY: u32 = 4000;
/// How long it is quiet before figures are to be right,
const QUIET: Duration = Duration::from_secs(1);
/// and how much longer on a machine that is busy with something else.
const SLACK: Duration = Duration::from_secs(3);

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    ClosedByClient,
    ClosedByServer,
    /// The client does not notice.
    ClosedByServerAlone,
    ResetByClient,
    ResetByServer,
}

const FATES: [Fate; 6] = [
    Fate::Stays,
    Fate::ClosedByClient,
    Fate::ClosedByServer,
    Fate::ClosedByServerAlone,
    Fate::ResetByClient,
    Fate::ResetByServer,
];

/// Of those whose client has vanished: it neither says nor hears anything.
const FATES_WITHOUT_CLIENT: [Fate; 2] = [Fate::Stays, Fate::ResetByServer];

pub(crate) fn are_known(variant: Variant) {
    let stage = start(variant, NodePlan::default());
    let (director, service) = (&stage.nodes[0], stage.nodes[0].service());
    let servers = serve(&stage, variant);
    stage.set_loads(&[900, 100, 100, 100]);
    let streams: Vec<Vec<TcpStream>> =
        stage.clients.iter().zip(CONNECTIONS).map(|(client, many)| open(client, service, many)).collect();
    let total: usize = CONNECTIONS.iter().sum();
    wait_until("all connections to be known", PATIENCE, || are_all_known(&stage, total)).unwrap();
    let before = seen_at(&stage);
    assert!(before.values().all(|open| *open > total / 10), "{before:?}");

    stage.clients[1].cut().unwrap();
    let punctuality = Punctuality::watch();
    let mut streams = streams.into_iter();
    let with_client = meet(streams.next().unwrap(), &FATES, &servers);
    let without = meet(streams.next().unwrap(), &FATES_WITHOUT_CLIENT, &servers);
    std::thread::sleep(QUIET);
    let mut is_right = figures_are_right(&stage);
    let (late, slack) = punctuality.finish(SLACK);
    let until = Instant::now() + slack;
    while is_right.is_err() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        is_right = figures_are_right(&stage);
    }
    is_right.unwrap_or_else(|wrong| panic!("{wrong}; the machine was late by {late:?}"));

    let open = CONNECTIONS[0].div_ceil(FATES.len()) + CONNECTIONS[1] / FATES_WITHOUT_CLIENT.len();
    assert_eq!(sockets_of_all(&stage), open, "those that were to stay");
    assert_carried_by(variant, &director.status().unwrap());
    drop((with_client, without));
}

/// Its time-out is over long before anybody says something.
pub(crate) fn only_idle(variant: Variant) {
    const TIMEOUT_S: u32 = 4;
    let stage = start(variant, NodePlan { established_timeout_s: Some(TIMEOUT_S), ..NodePlan::default() });
    let service = stage.nodes[0].service();
    let servers = serve(&stage, variant);
    stage.set_loads(&[900, 100, 100, 100]);
    let mut streams = open(&stage.clients[0], service, 60);

    std::thread::sleep(Duration::from_secs(3 * u64::from(TIMEOUT_S)));

    assert_eq!(seen_at(&stage), sockets_at(&stage), "the director, the servers");
    for stream in &mut streams {
        stream.write_all(b"?").unwrap();
        let mut there = server_end(&servers, stream).unwrap();
        let mut heard = [0];
        there.set_read_timeout(Some(PATIENCE)).unwrap();
        there.read_exact(&mut heard).unwrap();
        assert_eq!(heard, *b"?");
    }
}

fn start(variant: Variant, plan: NodePlan) -> Stage {
    let ownership = variant.ingress.map(|_| OwnershipPlan::majority_of(3));
    let plan = NodePlan { service_port: PORT, server: Server::Other, capacity: CAPACITY, ownership, ..plan };
    let stage = Stage::start(NODES, 2, variant.plan(plan));
    if variant.ingress.is_some() {
        agree(&stage, &everybody(&stage), PATIENCE);
    }
    stage
}

/// A server that takes connections and does nothing by itself.
struct Idler {
    stop: Arc<AtomicBool>,
    stream_by_client: Arc<Mutex<BTreeMap<SocketAddr, TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Idler {
    fn start(machine: &Machine, variant: Variant) -> Self {
        let any = match variant.service {
            IpVersion::V4 => IpAddr::from([0; 4]),
            IpVersion::V6 => IpAddr::from([0; 16]),
        };
        let listener = machine.exec(|| TcpListener::bind((any, PORT))).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stream_by_client: Arc<Mutex<BTreeMap<SocketAddr, TcpStream>>> = Arc::default();
        let (stopped, streams) = (Arc::clone(&stop), Arc::clone(&stream_by_client));
        let accept = move || {
            while !stopped.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((stream, client)) => drop(streams.lock().unwrap().insert(client, stream)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        Self { stop, stream_by_client, thread: Some(std::thread::spawn(accept)) }
    }

    /// The server's end of a client's connection.
    fn take(&self, client: SocketAddr) -> Option<TcpStream> {
        self.stream_by_client.lock().unwrap().remove(&client)
    }
}

impl Drop for Idler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()));
    }
}

fn serve(stage: &Stage, variant: Variant) -> Vec<Idler> {
    let servers = stage.nodes.iter().map(|node| Idler::start(node.machine(), variant)).collect();
    wait_until("every server to be seen", PATIENCE, || {
        let statuses = stage.statuses();
        let up = statuses.iter().all(|status| status.services.iter().all(|service| service.healthy));
        if up { Ok(()) } else { Err(format!("{:?}", statuses[0].services)) }
    })
    .unwrap();
    servers
}

fn open(client: &Machine, service: SocketAddr, many: usize) -> Vec<TcpStream> {
    let connect = || (0..many).map(|_| TcpStream::connect_timeout(&service, PATIENCE)).collect();
    let opened: std::io::Result<Vec<TcpStream>> = client.exec(connect).unwrap();
    opened.unwrap()
}

fn server_end(servers: &[Idler], client: &TcpStream) -> Result<TcpStream, String> {
    let name = client.local_addr().unwrap();
    let there = || servers.iter().find_map(|server| server.take(name)).ok_or(format!("nobody has {name}"));
    wait_until("a server to have the connection", PATIENCE, there).map_err(|error| error.to_string())
}

/// Lets connections meet their fates in turn. Returns the ends that are still there.
fn meet(clients: Vec<TcpStream>, fates: &[Fate], servers: &[Idler]) -> Vec<TcpStream> {
    let mut left = Vec::new();
    let mut late = Vec::new();
    for (client, fate) in clients.into_iter().zip(fates.iter().cycle()) {
        let server = server_end(servers, &client).unwrap();
        let reset_by = |end: &TcpStream| SockRef::from(end).set_linger(Some(Duration::ZERO)).unwrap();
        match fate {
            Fate::Stays => left.extend([client, server]),
            Fate::ClosedByServerAlone => left.push(client),
            Fate::ClosedByClient => late.push(server),
            Fate::ClosedByServer => late.push(client),
            Fate::ResetByClient => {
                reset_by(&client);
                late.push(server);
            }
            Fate::ResetByServer => {
                reset_by(&server);
                late.push(client);
            }
        }
    }
    left
}

/// Connections that the director has, and that are neither half-open nor over, by real server.
fn seen_at(stage: &Stage) -> BTreeMap<NodeId, usize> {
    let service = stage.nodes[0].service();
    let mut seen: BTreeMap<NodeId, usize> = servers_of(stage).map(|(id, _)| (id, 0)).collect();
    for connection in stage.nodes[0].connections(100_000).unwrap() {
        let is_its = connection.flow.service.address == service.ip();
        if is_its && !["half-open", "closed"].contains(&connection.state.as_str()) {
            *seen.entry(connection.real_server).or_default() += 1;
        }
    }
    seen
}

/// Sockets of the servers' kernels.
fn sockets_at(stage: &Stage) -> BTreeMap<NodeId, usize> {
    servers_of(stage).map(|(id, machine)| (id, sockets_on(machine))).collect()
}

/// The same with the director's own: one that hears nothing for a moment keeps what comes.
fn sockets_of_all(stage: &Stage) -> usize {
    stage.nodes.iter().map(|node| sockets_on(node.machine())).sum()
}

fn sockets_on(machine: &Machine) -> usize {
    let count = || {
        let mut count = 0;
        InetSockets::open(Protocol::Tcp)?.for_each_established(&[PORT], |_| count += 1)?;
        Ok::<usize, dpr_host::NetlinkError>(count)
    };
    machine.exec(count).unwrap().unwrap()
}

fn servers_of(stage: &Stage) -> impl Iterator<Item = (NodeId, &Machine)> {
    stage.nodes[1..].iter().map(|node| (node.id(), node.machine()))
}

fn are_all_known(stage: &Stage, total: usize) -> Result<(), String> {
    let (seen, sockets, all) = (seen_at(stage), sockets_at(stage), sockets_of_all(stage));
    let say = || format!("the director lists {seen:?}, servers have {sockets:?}, all {all} of {total}");
    if seen == sockets && all == total { Ok(()) } else { Err(say()) }
}

/// What the director lists, and what it makes its load of, against the servers' sockets.
fn figures_are_right(stage: &Stage) -> Result<(), String> {
    let (seen, sockets) = (seen_at(stage), sockets_at(stage));
    let status = stage.nodes[0].status().map_err(|error| error.to_string())?;
    let metrics = &status.node.metrics;
    let load = metrics.iter().find(|sample| sample.metric == Metric::ForwardedOut).map(|sample| sample.load);
    let forwarded = load.map_or(0, |load| usize::from(load.0) * CAPACITY as usize / 1000);
    let is_close = |seen: usize, truth: usize| seen.abs_diff(truth) * 100 <= truth;
    let total: usize = sockets.values().sum();
    let is_right =
        sockets.iter().all(|(node, sockets)| is_close(seen[node], *sockets)) && is_close(forwarded, total);
    let say = || format!("the director lists {seen:?} and counts {forwarded}, servers have {sockets:?}");
    if is_right { Ok(()) } else { Err(say()) }
}
