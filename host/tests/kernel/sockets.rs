use crate::fixture::{Wire, eventually, loopback_up};
use dpr_host::sock_diag::{InetSockets, SocketState};
use dpr_host::{MacAddress, Netlink};
use dpr_model::Protocol;
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

crate::tests![
    a_connection_is_found_by_its_four_numbers,
    a_socket_that_listens_is_told_from_a_connection,
    an_ipv4_connection_of_an_ipv6_socket_is_found,
    an_ipv6_connection_is_found,
    a_connection_that_is_over_is_in_time_wait,
    a_half_open_connection_is_found,
    nobody_there_is_none,
    listeners_of_a_port_are_listed_with_what_they_are_bound_to,
    established_connections_are_listed_by_their_local_port,
    a_connected_udp_socket_is_told_from_one_for_everybody,
];

fn listen(on: &str) -> TcpListener {
    loopback_up(&mut Netlink::open().unwrap());
    TcpListener::bind(on).unwrap()
}

/// Both ends of a new connection: the client's, the server's.
fn connect(listener: &TcpListener, to: &str) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(to).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

fn state(local: SocketAddr, remote: SocketAddr) -> Option<SocketState> {
    InetSockets::open(Protocol::Tcp).unwrap().state_of(local, remote).unwrap()
}

fn a_connection_is_found_by_its_four_numbers() {
    let listener = listen("127.0.0.1:80");
    let (client, server) = connect(&listener, "127.0.0.1:80");
    let (here, there) = (server.local_addr().unwrap(), client.local_addr().unwrap());

    assert_eq!(state(here, there), Some(SocketState::Established));
    assert_eq!(state(there, here), Some(SocketState::Established));
    drop(client);
    eventually(|| state(here, there) == Some(SocketState::CloseWait));
    assert!(SocketState::CloseWait.holds_connection());
}

fn a_socket_that_listens_is_told_from_a_connection() {
    let _listener = listen("127.0.0.1:80");

    let found = state("127.0.0.1:80".parse().unwrap(), "192.0.2.1:4000".parse().unwrap()).unwrap();

    assert_eq!(found, SocketState::Listen);
    assert!(!found.holds_connection());
}

fn an_ipv4_connection_of_an_ipv6_socket_is_found() {
    let listener = listen("[::]:80");
    let (client, server) = connect(&listener, "127.0.0.1:80");
    let there = client.local_addr().unwrap();

    assert!(server.local_addr().unwrap().is_ipv6());
    assert_eq!(state("127.0.0.1:80".parse().unwrap(), there), Some(SocketState::Established));
    assert_eq!(
        state(server.local_addr().unwrap(), server.peer_addr().unwrap()),
        Some(SocketState::Established)
    );
    let stranger = "192.0.2.1:4000".parse().unwrap();
    assert_eq!(state("127.0.0.1:80".parse().unwrap(), stranger), Some(SocketState::Listen));
}

fn an_ipv6_connection_is_found() {
    let listener = listen("[::1]:80");
    let (client, server) = connect(&listener, "[::1]:80");

    let found = state(server.local_addr().unwrap(), client.local_addr().unwrap());

    assert_eq!(found, Some(SocketState::Established));
}

fn a_connection_that_is_over_is_in_time_wait() {
    let listener = listen("127.0.0.1:80");
    let (client, server) = connect(&listener, "127.0.0.1:80");
    let (here, there) = (server.local_addr().unwrap(), client.local_addr().unwrap());

    drop(server);
    drop(client);

    eventually(|| state(here, there) == Some(SocketState::TimeWait));
    assert!(!SocketState::TimeWait.holds_connection());
}

fn a_half_open_connection_is_found() {
    let wire = Wire::new();
    let _listener = TcpListener::bind("10.0.0.1:80").unwrap();
    let (here, there) = ("10.0.0.1:80", "10.0.0.2:4000");
    let [here, there] = [here, there].map(|socket| socket.parse::<SocketAddr>().unwrap());
    // The SYN comes, and the answer goes to nobody.
    let nobody = MacAddress([2, 9, 9, 9, 9, 9]);
    Netlink::open().unwrap().add_permanent_neighbour(wire.near_link, there.ip(), nobody).unwrap();

    let client = wire.far.enter(|| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()).unwrap();
    client.bind(&there.into()).unwrap();
    client.set_nonblocking(true).unwrap();
    client.connect(&here.into()).unwrap_err();

    eventually(|| state(here, there) == Some(SocketState::SynReceived));
}

fn nobody_there_is_none() {
    let _listener = listen("[::1]:80");

    assert_eq!(state("127.0.0.1:80".parse().unwrap(), "127.0.0.1:4000".parse().unwrap()), None);
    assert_eq!(state("127.0.0.1:80".parse().unwrap(), "[::1]:4000".parse().unwrap()), None);
}

fn listeners_of_a_port_are_listed_with_what_they_are_bound_to() {
    let _v4 = listen("127.0.0.1:80");
    let _other = listen("0.0.0.0:81");
    let v6 = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    v6.set_only_v6(true).unwrap();
    v6.bind(&"[::]:80".parse::<SocketAddr>().unwrap().into()).unwrap();
    v6.listen(1).unwrap();
    let both = listen("[::]:82");

    let mut sockets = InetSockets::open(Protocol::Tcp).unwrap();
    let on_80 = sockets.listeners(80).unwrap();
    let on_82 = sockets.listeners(both.local_addr().unwrap().port()).unwrap();

    let bound: Vec<_> =
        on_80.iter().map(|listener| (listener.socket.to_string(), listener.v6_only)).collect();
    assert_eq!(bound, [("127.0.0.1:80".to_owned(), false), ("[::]:80".to_owned(), true)]);
    assert!(on_82.len() == 1 && on_82[0].accepts("10.0.0.1".parse().unwrap()));
    assert_eq!(sockets.listeners(83).unwrap(), []);
}

fn established_connections_are_listed_by_their_local_port() {
    let v4 = listen("0.0.0.0:80");
    let both = listen("[::]:81");
    let mut held = Vec::new();
    for to in ["127.0.0.1:80", "127.0.0.1:80", "127.0.0.2:80"] {
        held.push(connect(&v4, to));
    }
    for to in ["127.0.0.1:81", "[::1]:81"] {
        held.push(connect(&both, to));
    }
    let mut sockets = InetSockets::open(Protocol::Tcp).unwrap();
    let mut local_ends = |ports: &[u16]| {
        let mut ends = Vec::new();
        sockets.for_each_established(ports, |local| ends.push(local.to_string())).unwrap();
        ends.sort();
        ends
    };

    assert_eq!(local_ends(&[80]), ["127.0.0.1:80", "127.0.0.1:80", "127.0.0.2:80"]);
    assert_eq!(local_ends(&[81]), ["127.0.0.1:81", "[::1]:81"]);
    assert_eq!(local_ends(&[80, 81]).len(), 5);
    assert!(local_ends(&[]).is_empty());
}

fn a_connected_udp_socket_is_told_from_one_for_everybody() {
    loopback_up(&mut Netlink::open().unwrap());
    for address in ["127.0.0.1", "::1"] {
        let local: SocketAddr = SocketAddr::new(address.parse().unwrap(), 53);
        let remote = SocketAddr::new(local.ip(), 4000);
        let mut sockets = InetSockets::open(Protocol::Udp).unwrap();
        assert_eq!(sockets.state_of(local, remote).unwrap(), None);

        let server = UdpSocket::bind(local).unwrap();
        assert_eq!(sockets.state_of(local, remote).unwrap(), Some(SocketState::Closed));
        assert_eq!(
            sockets.listeners(53).unwrap().iter().map(|found| found.socket).collect::<Vec<_>>(),
            [local]
        );

        server.connect(remote).unwrap();
        assert_eq!(sockets.state_of(local, remote).unwrap(), Some(SocketState::Established));
        assert!(sockets.listeners(53).unwrap().is_empty());
    }
}
