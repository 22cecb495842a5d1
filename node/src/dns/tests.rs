//! Sockets on the loopback interface: what `rrdns` answers gets there, whole, by both ways, and within bounds.

use super::*;
use crate::config::{Config, Defaults};
use dpr_rrdns::stub::{self, RecordType};
use dpr_rrdns::{ServiceAddress, parse_name};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// Below those that kernels draw for connections.
const PORT: u16 = 10_053;

struct Bench {
    server: Server,
    table: watch::Sender<Arc<AddressTable>>,
    address: SocketAddr,
}

impl Bench {
    fn start() -> Self {
        let free = SocketAddr::new(own_address(), PORT);
        let text = format!(
            "[node]\naddress = \"192.0.2.11\"\n[[service]]\n[dns]\nzone = \"example.org\"\nlisten = [\"{free}\"]\n\
             ns = {{ ns1 = [\"192.0.2.11\"] }}\nrecords = [\"@ MX 10 mail\"]\n"
        );
        let defaults = Defaults { host_name: "a".to_owned(), processors: 1 };
        let dns = Config::parse(Path::new("a.toml"), &text, &defaults).unwrap().dns.unwrap();
        let (table, seen) = watch::channel(Arc::new(table(1)));
        Self { server: Server::start(&dns, &seen).unwrap(), table, address: free }
    }

    fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// A loopback address for each server of each process: on one that tests share, any port may be taken for a moment.
fn own_address() -> IpAddr {
    static SERVERS: AtomicU8 = AtomicU8::new(1);
    let [.., second, third] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, second | 0x80, third, SERVERS.fetch_add(1, Ordering::Relaxed)).into()
}

fn table(last: u8) -> AddressTable {
    let address = Ipv4Addr::new(192, 0, 2, last).into();
    AddressTable::new([(80, ServiceAddress { address, weight: 1, hot: false })])
}

fn question(id: u16, rtype: RecordType) -> Vec<u8> {
    stub::question(id, &parse_name("www.example.org", None).unwrap(), rtype)
}

fn ask(socket: &UdpSocket, question: &[u8]) -> stub::Reply {
    let mut buffer = [0; 4096];
    socket.send(question).unwrap();
    let length = socket.recv(&mut buffer).unwrap();
    assert!(stub::is_reply_to(&buffer[..length], question));
    stub::read(&buffer[..length]).unwrap()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    framed.extend(message);
    framed
}

fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

#[test]
fn a_change_of_addresses_is_in_the_next_answers() {
    let bench = Bench::start();
    let socket = bench.udp();
    let asked = question(7, RecordType::A);
    assert_eq!(ask(&socket, &asked).addresses, [([192, 0, 2, 1].into(), 60)]);

    bench.table.send_replace(Arc::new(table(2)));

    assert_eq!(ask(&socket, &asked).addresses, [([192, 0, 2, 2].into(), 60)]);
}

#[test]
fn many_queries_in_one_burst_are_all_answered() {
    let bench = Bench::start();
    let socket = bench.udp();
    for id in 0..100 {
        socket.send(&question(id, RecordType::A)).unwrap();
    }

    let mut ids: Vec<u16> = (0..100)
        .map(|_| {
            let mut buffer = [0; 512];
            socket.recv(&mut buffer).unwrap();
            u16::from_be_bytes([buffer[0], buffer[1]])
        })
        .collect();

    ids.sort_unstable();
    assert!(ids.iter().copied().eq(0..100));
    let status = bench.server.status(&table(1), &[]);
    assert_eq!((status.queries_udp, status.outcomes["answered"]), (100, 100));
}

#[test]
fn queries_on_one_connection_are_answered_in_their_order() {
    let bench = Bench::start();
    let mut stream = bench.tcp();
    let questions: Vec<Vec<u8>> = (0..50).map(|id| question(id, RecordType::AAAA)).collect();
    stream.write_all(&questions.iter().flat_map(|question| framed(question)).collect::<Vec<u8>>()).unwrap();

    for asked in &questions {
        assert!(stub::is_reply_to(&read_framed(&mut stream), asked));
    }
    assert_eq!(bench.server.status(&table(1), &[]).queries_tcp, 50);
}

#[test]
fn what_is_too_long_for_udp_comes_by_tcp() {
    let bench = Bench::start();
    let asked = stub::question(7, &parse_name("example.org", None).unwrap(), RecordType::MX);

    assert!(ask(&bench.udp(), &asked).truncated);
    let mut stream = bench.tcp();
    stream.write_all(&framed(&asked)).unwrap();
    assert!(read_framed(&mut stream).len() > asked.len() * 3 / 2);
}

#[test]
fn a_connection_with_something_else_than_queries_is_closed() {
    let bench = Bench::start();
    let nonsense: [&[u8]; 3] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0, 0], &[0, 12, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]];
    for bytes in nonsense {
        let mut stream = bench.tcp();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // Closed with bytes unread, it may also be reset.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{bytes:?}");
    }
}

#[test]
fn a_crowd_of_idle_connections_keeps_nobody_out() {
    // Both ends of every connection are this process's.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let bench = Bench::start();
    // More than are served at once, most of which come when half of the places are taken.
    let _crowd: Vec<TcpStream> = (0..tcp::CONNECTIONS_MAX + 50).map(|_| bench.tcp()).collect();

    let asked = question(7, RecordType::A);
    let mut stream = bench.tcp();
    stream.write_all(&framed(&asked)).unwrap();

    assert!(stub::is_reply_to(&read_framed(&mut stream), &asked));
}

#[test]
fn half_a_query_is_not_waited_for() {
    let bench = Bench::start();
    let mut stream = bench.tcp();
    stream.write_all(&framed(&question(7, RecordType::A))[..9]).unwrap();

    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0, "it is closed within {PATIENCE:?}");
}

#[test]
fn a_query_that_is_too_long_ends_the_connection() {
    let bench = Bench::start();
    let mut stream = bench.tcp();
    stream.write_all(&5000_u16.to_be_bytes()).unwrap();

    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
}

#[test]
fn a_server_that_ends_gives_its_port_back() {
    let Bench { server, address, .. } = Bench::start();
    UdpSocket::bind(address).unwrap_err();

    drop(server);

    UdpSocket::bind(address).unwrap();
}
