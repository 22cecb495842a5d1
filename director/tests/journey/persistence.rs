//! Clients of a service with persistence stay with their real server, on all ports of the service.

use crate::scene::{Carrying, HOT, Node, Scene, kept, packet};
use crate::stage::Sockets;
use dpr_director::{Director, PersistenceSettings, PersistentService};
use dpr_model::{
    ForwardingMethod, HopBudget, LoadPermille, NodeState, PortGroup, PortRange, Protocol, ServiceSocket,
    Verdict,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Of a client.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(360);
const IDLE: u16 = 100;

fn further_ports() -> PortGroup {
    let mut ports = PortGroup::NONE;
    assert!(ports.add(PortRange::new(20, 20).unwrap()) && ports.add(PortRange::new(50_000, 50_009).unwrap()));
    ports
}

/// Node A, hot, whose service has further ports and keeps its clients; so has everybody's.
pub(crate) fn node(scene: Scene, prefix_len: u8) -> Node {
    let service = scene.service('a');
    let mut node = scene.begin();
    let mut settings = node.settings();
    for report in settings.services.iter_mut().chain(&mut node.update.this.services) {
        report.ports = further_ports();
    }
    for report in node.update.peers.iter_mut().flat_map(|peer| Arc::make_mut(&mut peer.services)) {
        report.ports = further_ports();
    }
    let rule = PersistentService {
        protocol: node.scene.protocol,
        service: ServiceSocket { address: service.ip(), port: service.port() },
        prefix_len,
        timeout: TIMEOUT,
    };
    settings.persistence = PersistenceSettings { services: vec![rule], clients_max: 64 };
    node.director = Director::new(settings);
    node.tell();
    node
}

pub(crate) fn load(node: &mut Node, b: u16, c: u16) {
    node.update.peers[0].candidate.load = LoadPermille(b);
    node.update.peers[1].candidate.load = LoadPermille(c);
    node.tell();
}

/// Who gets what goes to a port of A's service: 'a', 'b' or 'c'.
fn server(node: &mut Node, client: SocketAddr, port: u16, carrying: Carrying) -> char {
    let to = SocketAddr::new(node.scene.service('a').ip(), port);
    match node.send(client, to, carrying) {
        Verdict::Deliver(_) => 'a',
        Verdict::Forward(forward) => {
            assert_eq!(forward.hops, HopBudget::SPENT);
            ['b', 'c'].into_iter().find(|name| node.scene.node(*name) == forward.to).unwrap()
        }
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn a_client_s_next_connection_goes_to_the_same_node_whatever_the_loads() {
    for ipv6_services in [false, true] {
        let mut node = node(Scene { ipv6_services, ..Scene::default() }, 128);
        let client = |port| Scene { ipv6_services, ..Scene::default() }.client(port);
        assert_eq!(server(&mut node, client(1000), 80, Carrying::Syn), 'b');

        load(&mut node, HOT, IDLE);
        assert_eq!(server(&mut node, client(1001), 80, Carrying::Syn), 'b');
        assert_eq!(server(&mut node, client(1002), 50_009, Carrying::Syn), 'b', "a further port");
        node.update.this.load = LoadPermille(0);
        node.update.frozen = true;
        node.tell();
        assert_eq!(server(&mut node, client(1003), 80, Carrying::Syn), 'b', "before maxload and freeze");
    }
}

#[test]
fn another_service_of_the_same_port_keeps_no_clients() {
    let mut node = node(Scene::default(), 32);
    let mut settings = node.settings();
    let other = ServiceSocket { address: IpAddr::from([192, 0, 2, 200]), port: 80 };
    let rule =
        PersistentService { protocol: Protocol::Tcp, service: other, prefix_len: 32, timeout: TIMEOUT };
    settings.persistence = PersistenceSettings { services: vec![rule], clients_max: 64 };
    node.director = Director::new(settings);
    node.tell();
    let (client, next) = (node.scene.client(1000), node.scene.client(1001));
    assert_eq!(server(&mut node, client, 80, Carrying::Syn), 'b');

    load(&mut node, HOT, IDLE);
    assert_eq!(server(&mut node, next, 80, Carrying::Syn), 'c');
}

#[test]
fn a_client_is_forgotten_when_it_was_quiet_for_the_timeout() {
    let mut node = node(Scene::default(), 32);
    let client = node.scene.client(1000);
    assert_eq!(server(&mut node, client, 80, Carrying::Syn), 'b');
    node.wait(Duration::from_secs(59));
    assert_eq!(server(&mut node, client, 80, Carrying::Ack), 'b');
    load(&mut node, HOT, IDLE);
    node.wait(TIMEOUT - Duration::from_secs(1));
    let next = node.scene.client(1001);
    assert_eq!(server(&mut node, next, 80, Carrying::Syn), 'b');

    node.wait(TIMEOUT);
    let next = node.scene.client(1002);
    assert_eq!(server(&mut node, next, 80, Carrying::Syn), 'c');
    // The first connection is still open, on b: it goes on there, and does not take the client back.
    assert_eq!(server(&mut node, client, 80, Carrying::Ack), 'b');
    let next = node.scene.client(1003);
    assert_eq!(server(&mut node, next, 80, Carrying::Syn), 'c');
}

#[test]
fn an_open_connection_brings_back_a_forgotten_client() {
    let mut node = node(Scene::default(), 32);
    let (client, next) = (node.scene.client(1000), node.scene.client(1001));
    server(&mut node, client, 80, Carrying::Syn);
    assert_eq!(server(&mut node, client, 80, Carrying::Ack), 'b');
    load(&mut node, HOT, IDLE);

    node.wait(Duration::from_secs(800));
    assert_eq!(server(&mut node, client, 80, Carrying::Ack), 'b');

    assert_eq!(server(&mut node, next, 50_000, Carrying::Syn), 'b');
}

#[test]
fn a_client_that_this_node_keeps_stays_too() {
    let mut node = node(Scene { load: IDLE, ..Scene::default() }, 32);
    let (client, next) = (node.scene.client(1000), node.scene.client(1001));
    assert_eq!(node.client_sends(1000, Carrying::Syn), kept());
    assert_eq!(server(&mut node, client, 80, Carrying::Ack), 'a');
    node.update.this.load = LoadPermille(HOT);
    node.tell();

    node.wait(Duration::from_secs(300));
    assert_eq!(server(&mut node, client, 80, Carrying::Ack), 'a');
    node.wait(Duration::from_secs(300));
    assert_eq!(server(&mut node, next, 50_000, Carrying::Syn), 'a');
}

#[test]
fn a_node_that_is_dead_or_drains_or_whose_server_is_gone_loses_its_clients() {
    let ends: [fn(&mut Node); 3] = [
        |node| node.update.peers[0].alive = false,
        |node| node.update.peers[0].state = NodeState::Draining,
        |node| Arc::make_mut(&mut node.update.peers[0].services)[0].healthy = false,
    ];
    for end in ends {
        let mut node = node(Scene::default(), 32);
        let client = |port| Scene::default().client(port);
        assert_eq!(server(&mut node, client(1000), 80, Carrying::Syn), 'b');
        end(&mut node);
        node.tell();
        let given = server(&mut node, client(1001), 80, Carrying::Syn);
        assert_ne!(given, 'b');
        assert_eq!(server(&mut node, client(1002), 20, Carrying::Syn), given);
    }
}

#[test]
fn clients_of_one_network_are_one_client() {
    let mut node = node(Scene::default(), 24);
    let of = |last: u8, port| SocketAddr::new(IpAddr::from([198, 51, 100, last]), port);
    assert_eq!(server(&mut node, of(7, 1000), 80, Carrying::Syn), 'b');
    load(&mut node, HOT, IDLE);
    assert_eq!(server(&mut node, of(200, 1000), 80, Carrying::Syn), 'b');
    let stranger = SocketAddr::new(IpAddr::from([198, 51, 101, 7]), 1000);
    assert_eq!(server(&mut node, stranger, 80, Carrying::Syn), 'c');
}

#[test]
fn a_node_is_not_sent_to_itself_with_the_rest_of_its_network() {
    let mut node = node(Scene::default(), 8);
    let neighbour = SocketAddr::new(IpAddr::from([192, 0, 9, 9]), 1000);
    assert_eq!(server(&mut node, neighbour, 80, Carrying::Syn), 'b');
    let b = SocketAddr::new(node.scene.node('b'), 1000);
    assert_ne!(server(&mut node, b, 80, Carrying::Syn), 'b');
}

#[test]
fn the_answer_to_a_connection_of_the_real_server_s_own_reaches_it() {
    let mut node = node(Scene::default(), 32);
    let (control, data) = (node.scene.client(1000), node.scene.client(2000));
    assert_eq!(server(&mut node, control, 80, Carrying::Syn), 'b');
    load(&mut node, HOT, IDLE);

    assert_eq!(server(&mut node, data, 20, Carrying::SynAck), 'b');
    assert_eq!(server(&mut node, data, 20, Carrying::Ack), 'b');
    assert_eq!(server(&mut node, data, 20, Carrying::Fin), 'b');
    // Of somebody whom nobody knows it is the local stack's business, which resets it.
    let stranger = SocketAddr::new(IpAddr::from([198, 51, 101, 7]), 2000);
    assert_eq!(server(&mut node, stranger, 20, Carrying::SynAck), 'a');
    assert_eq!(server(&mut node, stranger, 20, Carrying::Ack), 'a');
}

#[test]
fn by_the_stateless_policy_a_service_s_ports_have_its_candidates() {
    let mut node = node(Scene::default(), 32);
    node.update.policy = dpr_director::PolicyKind::Stateless;
    node.tell();
    let client = node.scene.client(1000);
    let given = server(&mut node, client, 80, Carrying::Syn);
    assert_eq!(server(&mut node, client, 20, Carrying::Syn), given);
}

#[test]
fn datagrams_find_the_client_s_server_too() {
    let mut node = node(Scene { protocol: Protocol::Udp, ..Scene::default() }, 32);
    let (client, next) = (node.scene.client(1000), node.scene.client(1001));
    assert_eq!(server(&mut node, client, 80, Carrying::Datagram), 'b');
    load(&mut node, HOT, IDLE);
    assert_eq!(server(&mut node, next, 50_001, Carrying::Datagram), 'b');
}

#[test]
fn by_translation_further_ports_are_kept() {
    let mut node = node(Scene { method: ForwardingMethod::Nat, ..Scene::default() }, 32);
    let (client, to) = (node.scene.client(1000), SocketAddr::new(node.scene.service('a').ip(), 50_000));
    assert!(matches!(node.client_sends(1000, Carrying::Syn), Verdict::Nat(_)));
    assert!(matches!(node.send(client, to, Carrying::Syn), Verdict::Deliver(_)));
}

#[test]
fn clients_are_shown_among_connections_and_counted() {
    let mut node = node(Scene::default(), 24);
    node.client_sends(1000, Carrying::Syn);

    let status = node.director.clients_status().unwrap();
    assert_eq!((status.clients, status.capacity, status.displaced), (1, 64, 0));
    let connections: Vec<_> = node.director.connections(node.now).collect();
    let shown = &connections[0];
    assert_eq!(
        (shown.flow.client.to_string(), shown.state.as_str()),
        ("198.51.100.0:0".to_owned(), "client")
    );
    assert_eq!((shown.real_server, shown.expires_in_s), (node.scene.id('b'), 360));
    assert_eq!(connections.len(), 2);
}

#[test]
fn a_real_server_counts_a_connection_to_a_further_port_once() {
    let mut node = node(Scene::default(), 32);
    node.sockets = Sockets::default();
    let to = SocketAddr::new(node.scene.service('b').ip(), 50_000);
    let inner = packet(node.scene.client(1000), to, Carrying::Syn, &[]);
    let ends = (node.scene.node('b'), node.scene.node('a'));
    let tunnelled =
        crate::scene::in_a_tunnel(ends, dpr_rewrite::Encapsulation::Ipip, HopBudget::SPENT, &inner);
    for _ in 0..2 {
        assert!(matches!(node.receive(&tunnelled), Verdict::Deliver(_)));
    }
    assert_eq!(node.director.counters().connections_received, 1);
}
