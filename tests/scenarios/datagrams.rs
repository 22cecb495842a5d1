//! UDP services: datagrams of one flow go to one server, large ones in fragments.

use dpr_lab::{IpVersion, Machine, NodePlan, Server, wait_until};
use dpr_model::Protocol;
use dpr_tests::stage::{PATIENCE, Stage};
use dpr_tests::variant::Variant;
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const PORT: u16 = 5353;
const FLOWS: usize = 10;
const ROUNDS: usize = 5;
/// Fits no packet.
const LARGE: usize = 4000;

pub(crate) fn forwarded(variant: Variant) {
    let node = NodePlan {
        protocol: Protocol::Udp,
        service_port: PORT,
        server: Server::Other,
        ..NodePlan::default()
    };
    let stage = Stage::start(2, 1, variant.plan(node));
    let service = stage.nodes[0].service();
    let servers: Vec<EchoServer> = stage
        .nodes
        .iter()
        .map(|node| EchoServer::start(node.machine(), node.name(), &deliveries(&stage, node)))
        .collect();
    wait_until("every server to be seen", PATIENCE, || {
        let statuses = stage.statuses();
        let up = statuses.iter().all(|status| status.services.iter().all(|service| service.healthy));
        if up { Ok(()) } else { Err(format!("{:?}", statuses[0].services)) }
    })
    .unwrap();
    stage.set_loads(&[900, 100]);

    let client = |_| stage.clients[0].exec(|| UdpSocket::bind((unspecified(variant), 0))).unwrap().unwrap();
    let flows: Vec<UdpSocket> = (0..FLOWS).map(client).collect();
    for flow in &flows {
        flow.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        flow.connect(service).unwrap();
    }
    for round in 0..ROUNDS {
        for (number, flow) in flows.iter().enumerate() {
            assert_eq!(ask(flow, format!("{number} {round}").as_bytes()).unwrap(), "n2", "flow {number}");
        }
    }
    // One datagram in several packets, of which only the first has ports.
    if !variant.hides_clients() {
        let large = || ask(&flows[0], &vec![b'x'; LARGE]).map_err(|error| error.to_string());
        // Routers fragment IPv4. For IPv6 the client has to be told what fits, and to send again.
        let served = match variant.service {
            IpVersion::V4 => large().unwrap(),
            IpVersion::V6 => wait_until("a large datagram to be answered", PATIENCE, large).unwrap(),
        };
        assert_eq!(served, "n2");
    }
    drop(servers);
}

/// Fragments for a program of the host's own, at the address of a service of the same protocol: no packet filter can tell
/// them apart, so the data plane has to give them back.
pub(crate) fn for_others(variant: Variant) {
    let node = NodePlan {
        protocol: Protocol::Udp,
        service_port: PORT,
        server: Server::Other,
        ..NodePlan::default()
    };
    let stage = Stage::start(1, 1, variant.plan(node));
    let other = SocketAddr::new(stage.nodes[0].service().ip(), PORT + 1);
    let server = EchoServer::at(stage.nodes[0].machine(), "other", &[other]);

    let flow = stage.clients[0].exec(|| UdpSocket::bind((unspecified(variant), 0))).unwrap().unwrap();
    flow.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    flow.connect(other).unwrap();
    let answers = || ask(&flow, b"whole").map_err(|error| error.to_string());
    assert_eq!(wait_until("the program to answer", PATIENCE, answers).unwrap(), "other");
    assert_eq!(ask(&flow, &vec![b'x'; LARGE]).unwrap(), "other");
    drop(server);
}

/// Sends a datagram and says who answered it with the same bytes.
fn ask(flow: &UdpSocket, payload: &[u8]) -> std::io::Result<String> {
    flow.send(payload)?;
    let mut buffer = vec![0; LARGE + 64];
    let length = flow.recv(&mut buffer)?;
    let answer = &buffer[..length];
    let name_len = answer.len() - payload.len();
    assert_eq!(&answer[name_len..], payload);
    Ok(String::from_utf8(answer[..name_len].to_vec()).unwrap())
}

/// Where datagrams for all services come to on a node.
fn deliveries(stage: &Stage, node: &dpr_lab::Node) -> Vec<IpAddr> {
    let all = || {
        let status = node.status().map_err(|error| error.to_string())?;
        let known: Vec<IpAddr> = status.services.iter().map(|service| service.delivery).collect();
        let complete =
            known.len() == stage.nodes.len() && known.iter().all(|address| !address.is_unspecified());
        // With translation between nodes datagrams come to the node address and are then delivered as its own.
        if complete { Ok(known) } else { Err(format!("{known:?}")) }
    };
    wait_until("all delivery addresses", PATIENCE, all).unwrap()
}

fn unspecified(variant: Variant) -> IpAddr {
    match variant.service {
        IpVersion::V4 => IpVersion::V4.unspecified(),
        IpVersion::V6 => IpVersion::V6.unspecified(),
    }
}

/// Answers every datagram with its own name in front, from the address that was asked: one socket for each.
struct EchoServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl EchoServer {
    fn start(machine: &Machine, name: &str, addresses: &[IpAddr]) -> Self {
        let sockets: Vec<SocketAddr> =
            addresses.iter().map(|address| SocketAddr::new(*address, PORT)).collect();
        Self::at(machine, name, &sockets)
    }

    fn at(machine: &Machine, name: &str, sockets: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let serve = |socket: &SocketAddr| {
            let (socket, name, stop) = (*socket, name.to_owned(), Arc::clone(&stop));
            machine.thread("echo", move || echo(socket, &name, &stop)).unwrap()
        };
        Self { threads: sockets.iter().map(serve).collect(), stop }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Delivery addresses are routes and no addresses of an interface, which IPv6 has to be told to bear with.
fn bind(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn echo(address: SocketAddr, name: &str, stop: &AtomicBool) {
    let socket = bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let answer = [name.as_bytes(), &buffer[..length]].concat();
        // A client that is gone is no concern of the server's.
        let _ = socket.send_to(&answer, from);
    }
}
