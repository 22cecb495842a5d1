//! Full NAT to peers: there, at the peer, and back.

use crate::scene::{Carrying, NAT_PORTS, Node, Scene, nat_of, packet, socket, too_big};
use dpr_model::{
    Delivery, DropReason, End, ForwardingMethod, HopBudget, Ingress, NodeId, PortRange, Protocol,
    ServiceReport, Sharing, Verdict,
};
use dpr_rewrite::Encapsulation;
use std::net::SocketAddr;
use std::time::Duration;

fn nat() -> Scene {
    Scene { method: ForwardingMethod::Nat, ..Scene::default() }
}

fn end(socket: SocketAddr) -> Option<End> {
    Some(End { address: socket.ip(), port: Some(socket.port()) })
}

/// Opens a connection that goes to B; returns the socket that stands for its client there.
fn open(node: &mut Node, port: u16, carrying: Carrying) -> SocketAddr {
    let Verdict::Nat(there) = node.client_sends(port, carrying) else { panic!("it is not translated") };
    assert_eq!(there.ends.destination, end(node.scene.service('b')));
    let source = there.ends.source.unwrap();
    assert!(PortRange::new(NAT_PORTS.0, NAT_PORTS.1).unwrap().contains(source.port.unwrap()));
    SocketAddr::new(source.address, source.port.unwrap())
}

#[test]
fn a_connection_and_its_replies_have_the_ends_that_each_side_knows() {
    for (ipv6_services, ipv6_nodes) in [(false, false), (true, false), (false, true), (true, true)] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut node = Scene { ipv6_services, ipv6_nodes, protocol, ..nat() }.begin();
            let (first, later) = match protocol {
                Protocol::Tcp => (Carrying::Syn, Carrying::Ack),
                Protocol::Udp => (Carrying::Datagram, Carrying::Datagram),
            };
            let stand_in = open(&mut node, 1000, first);
            // The node address, where it is of the flow's version.
            let own = node.scene.node('a');
            let of_own_version = ipv6_nodes == ipv6_services;
            assert_eq!(stand_in.ip(), if of_own_version { own } else { node.scene.service('a').ip() });
            assert_eq!(open(&mut node, 1000, later), stand_in);

            let back = nat_of(node.send(node.scene.service('b'), stand_in, later));
            assert_eq!(back.ends.source, end(node.scene.service('a')));
            assert_eq!(back.ends.destination, end(node.scene.client(1000)));
            assert_eq!(node.director.counters().nat_replies, 1);
        }
    }
}

#[test]
fn a_peer_that_has_only_what_all_share_is_reached_at_its_node_address() {
    let mut node = nat().begin();
    let shared = Sharing::Shared(Ingress::ArpOwner);
    let service = ServiceReport { sharing: shared, ..node.scene.report('c') };
    node.update.peers[0].services = [service].into();
    node.tell();

    let there = nat_of(node.client_sends(1000, Carrying::Syn));

    assert_eq!(there.ends.destination, end(SocketAddr::new(node.scene.node('b'), 80)));
}

#[test]
fn every_client_has_a_port_of_its_own() {
    let mut node = nat().begin();
    let ports: std::collections::BTreeSet<_> =
        (1000..1030).map(|port| open(&mut node, port, Carrying::Syn).port()).collect();
    assert_eq!(ports.len(), 30);
    assert_eq!(node.director.nat_ports_in_use(), 30);
}

#[test]
fn at_the_peer_a_translated_connection_stays_and_is_acknowledged_once() {
    for ipv6_services in [false, true] {
        let mut node = Scene { ipv6_services, ..nat() }.begin();
        // B's node address where it is of the service's version, and otherwise B's service address.
        let b = if ipv6_services { node.scene.service('b').ip() } else { node.scene.node('b') };
        let stand_in = SocketAddr::new(b, NAT_PORTS.0);
        for carrying in [Carrying::Syn, Carrying::Syn, Carrying::Ack] {
            // A is hot and B idle, but this was the last hop.
            assert!(matches!(node.send(stand_in, node.scene.service('a'), carrying), Verdict::Deliver(_)));
        }
        let [acknowledged] = node.director.acknowledgements().try_into().unwrap();
        assert_eq!((acknowledged.director, acknowledged.connections), (node.scene.id('b'), 1));
        // The same node as an ordinary client: its connections may go on, though not back to it.
        let client = SocketAddr::new(b, 40_000);
        assert!(!matches!(node.send(client, node.scene.service('a'), Carrying::Syn), Verdict::Deliver(_)));
    }
}

#[test]
fn a_translated_connection_that_went_on_before_the_peer_was_known_stays_where_it_is() {
    let mut node = nat().begin();
    node.update.peers.push(node.update.peers[1].clone());
    let unknown = socket("192.0.2.13:61000");
    let there = nat_of(node.send(unknown, node.scene.service('a'), Carrying::Syn));
    node.update.peers[2].candidate.node = NodeId::from_address(unknown.ip());
    node.update.peers[2].candidate.address = unknown.ip();
    node.tell();

    assert_eq!(nat_of(node.send(unknown, node.scene.service('a'), Carrying::Ack)), there);
    let other = socket("192.0.2.13:61001");
    assert!(matches!(node.send(other, node.scene.service('a'), Carrying::Syn), Verdict::Deliver(_)));
}

#[test]
fn a_port_without_a_flow_or_of_another_server_is_refused() {
    let mut node = nat().begin();
    let stand_in = open(&mut node, 1000, Carrying::Syn);
    let unknown = Verdict::Drop(DropReason::UnknownNatPort);
    let (server, service) = (node.scene.service('b'), node.scene.service('a'));
    let mut from = |server, to| node.send(server, to, Carrying::Ack);
    assert_eq!(from(socket("203.0.113.12:80"), stand_in), unknown);
    assert_eq!(from(socket("203.0.113.11:81"), stand_in), unknown);
    let next = SocketAddr::new(stand_in.ip(), stand_in.port() ^ 1);
    assert_eq!(from(server, next), unknown);
    // From the right server to the right port, but not where its packets came from.
    assert_eq!(from(server, SocketAddr::new(service.ip(), stand_in.port())), unknown);
    let elsewhere = SocketAddr::new("192.0.2.200".parse().unwrap(), stand_in.port());
    assert_eq!(from(server, elsewhere), Verdict::Pass);
}

#[test]
fn without_a_free_port_a_connection_stays_at_home() {
    let mut node = nat().begin();
    node.director = {
        let settings = dpr_director::Settings {
            node: node.scene.id('a'),
            address: node.scene.node('a'),
            delivery_ranges: dpr_director::DeliveryRanges::default(),
            services: vec![node.scene.report('a')],
            answer_for: vec![],
            mtu: 1500,
            nat_ports: PortRange::new(61_000, 61_001),
            conntrack: dpr_conntrack::Config { capacity: 64, ..dpr_conntrack::Config::with_seed([1, 2]) },
            persistence: dpr_director::PersistenceSettings::default(),
            seed: 7,
        };
        dpr_director::Director::new(settings)
    };
    node.tell();
    let translated = (1000..1010)
        .filter(|port| matches!(node.client_sends(*port, Carrying::Syn), Verdict::Nat(_)))
        .count();
    assert_eq!((translated, node.director.counters().nat_refused), (2, 8));
    assert!(matches!(node.client_sends(1009, Carrying::Ack), Verdict::Deliver(_)));
}

#[test]
fn a_port_is_free_again_a_minute_after_its_connection() {
    let mut node = nat().begin();
    let stand_in = open(&mut node, 1000, Carrying::Syn);
    node.client_sends(1000, Carrying::Ack);
    node.client_sends(1000, Carrying::Fin);
    node.wait(Duration::from_secs(121));
    assert_eq!(node.director.nat_ports_in_use(), 1);
    let late = node.send(node.scene.service('b'), stand_in, Carrying::Fin);
    assert_eq!(late, Verdict::Drop(DropReason::UnknownNatPort));
    node.wait(Duration::from_secs(61));
    assert_eq!(node.director.nat_ports_in_use(), 0);
}

#[test]
fn a_servers_reset_ends_the_connection_soon_and_still_reaches_the_client() {
    let mut node = nat().begin();
    let stand_in = open(&mut node, 1000, Carrying::Syn);
    node.client_sends(1000, Carrying::Ack);
    let server = node.scene.service('b');
    assert!(matches!(node.send(server, stand_in, Carrying::Rst), Verdict::NatReply(_)));
    node.wait(Duration::from_secs(11));
    assert_eq!(node.send(server, stand_in, Carrying::Ack), Verdict::Drop(DropReason::UnknownNatPort));
}

#[test]
fn answers_keep_a_udp_flow() {
    let mut node = Scene { protocol: Protocol::Udp, ..nat() }.begin();
    let stand_in = open(&mut node, 1000, Carrying::Datagram);
    for _ in 0..5 {
        node.wait(Duration::from_secs(200));
        let answer = node.send(node.scene.service('b'), stand_in, Carrying::Datagram);
        assert!(matches!(answer, Verdict::NatReply(_)));
    }
    node.wait(Duration::from_secs(301));
    let late = node.send(node.scene.service('b'), stand_in, Carrying::Datagram);
    assert_eq!(late, Verdict::Drop(DropReason::UnknownNatPort));
}

#[test]
fn errors_go_as_the_flow_they_are_about_in_both_directions() {
    for ipv6 in [false, true] {
        let router = if ipv6 { "2001:db8:99::1" } else { "203.0.113.99" };
        let mut node = Scene { ipv6_services: ipv6, ipv6_nodes: ipv6, ..nat() }.begin();
        let stand_in = open(&mut node, 1000, Carrying::Syn);
        let (client, service, server) =
            (node.scene.client(1000), node.scene.service('a'), node.scene.service('b'));
        // A router before the client, about a reply that A had translated.
        let about_reply = too_big(&packet(service, client, Carrying::Ack, &[0; 100]), router);
        let there = nat_of(node.receive(&about_reply));
        assert_eq!((there.ends.source, there.ends.destination), (end(stand_in), end(server)));
        // A router before the server, about a request that A had translated.
        let about_request = too_big(&packet(stand_in, server, Carrying::Ack, &[0; 100]), router);
        let back = nat_of(node.receive(&about_request));
        assert_eq!((back.ends.source, back.ends.destination), (end(service), end(client)));
    }
}

#[test]
fn what_comes_through_a_tunnel_leaves_it_before_it_is_translated() {
    let mut node = nat().begin();
    let once = HopBudget::FRESH.after_a_hop().unwrap();
    let there = nat_of(node.tunnelled(('c', Encapsulation::Gue, once), 'a', Carrying::Syn));
    assert_eq!(there.decapsulate, 36);
    // Spent, it stays.
    let spent = node.tunnelled(('c', Encapsulation::Ipip, HopBudget::SPENT), 'a', Carrying::Ack);
    let to = Some("169.254.64.1".parse().unwrap());
    assert_eq!(spent, Verdict::Deliver(Delivery { to, decapsulate: 20 }));
}
