//! Flows that another data plane carries on: which they are, and what is heard of them.

use crate::persistence;
use crate::scene::{Carrying, HOT, Node, Scene, nat_of};
use dpr_director::{CarriedFlow, Onward};
use dpr_model::{ClientSocket, FlowKey, ForwardingMethod, Protocol, ServiceSocket, Verdict, Weight};
use std::net::SocketAddr;
use std::time::Duration;

/// Longer than the table remembers a silent connection, in two steps.
const HALF_THE_PATIENCE: Duration = Duration::from_secs(10 * 60);

fn translating(protocol: Protocol) -> Node {
    Scene { method: ForwardingMethod::Nat, protocol, ..Scene::default() }.begin()
}

fn flow(node: &Node, port: u16) -> FlowKey {
    let (client, service) = (node.scene.client(port), node.scene.service('a'));
    FlowKey {
        protocol: node.scene.protocol,
        client: ClientSocket { address: client.ip(), port },
        service: ServiceSocket { address: service.ip(), port: service.port() },
    }
}

fn carried(node: &Node) -> Option<CarriedFlow> {
    node.director.carried(&flow(node, 1000))
}

/// Where it is translated to, and whom the server sees.
fn ends(carried: &CarriedFlow) -> (SocketAddr, Option<SocketAddr>) {
    match carried.onward {
        Onward::Translated { server, stand_in } => (server, stand_in),
        Onward::AsSent => panic!("{carried:?} is not translated"),
    }
}

/// Opens a connection to B, which is carried on.
fn establish(node: &mut Node) -> CarriedFlow {
    node.client_sends(1000, Carrying::Syn);
    node.client_sends(1000, Carrying::Ack);
    carried(node).expect("it is established")
}

#[test]
fn a_connection_is_carried_on_from_the_end_of_its_handshake_to_the_first_fin() {
    let mut node = translating(Protocol::Tcp);
    let there = nat_of(node.client_sends(1000, Carrying::Syn));
    assert_eq!(carried(&node), None);

    node.client_sends(1000, Carrying::Ack);
    let its = carried(&node).unwrap();
    let (server, stand_in) = ends(&its);
    assert_eq!((server, its.real_server), (node.scene.service('b'), node.scene.id('b')));
    let source = there.ends.source.unwrap();
    assert_eq!(stand_in.map(|end| (end.ip(), Some(end.port()))), Some((source.address, source.port)));

    node.client_sends(1000, Carrying::Fin);
    assert_eq!(carried(&node), None);
}

#[test]
fn a_reset_of_the_real_server_ends_it_too() {
    let mut node = translating(Protocol::Tcp);
    let stand_in = ends(&establish(&mut node)).1.unwrap();

    node.send(node.scene.service('b'), stand_in, Carrying::Rst);

    assert_eq!(carried(&node), None);
}

#[test]
fn datagrams_are_carried_on_while_their_server_lives() {
    let mut node = translating(Protocol::Udp);
    node.client_sends(1000, Carrying::Datagram);
    assert!(carried(&node).is_some());

    node.update.peers[0].alive = false;
    node.tell();

    assert_eq!(carried(&node), None);
}

#[test]
fn what_is_kept_is_not_carried_on() {
    let mut node = translating(Protocol::Tcp);
    node.update.this.load = dpr_model::LoadPermille(0);
    node.tell();
    assert!(matches!(node.client_sends(1000, Carrying::Syn), Verdict::Deliver(_)));
    node.client_sends(1000, Carrying::Ack);

    assert_eq!(carried(&node), None);
}

#[test]
fn what_is_heard_of_a_flow_keeps_it_and_its_port() {
    let mut node = translating(Protocol::Tcp);
    let its = establish(&mut node);
    node.wait(HALF_THE_PATIENCE);
    node.director.note_carried(&its, node.now);
    node.wait(HALF_THE_PATIENCE);

    assert_eq!(carried(&node), Some(its));
    let (server, stand_in) = ends(&its);
    let back = nat_of(node.send(server, stand_in.unwrap(), Carrying::Ack));
    assert_eq!(back.ends.destination.map(|end| end.port), Some(Some(1000)));

    node.wait(HALF_THE_PATIENCE);
    node.wait(HALF_THE_PATIENCE);
    assert_eq!(carried(&node), None, "nothing was heard");
}

#[test]
fn another_life_of_the_daemon_goes_on_with_flow_and_port() {
    let its = establish(&mut translating(Protocol::Tcp));
    let mut node = translating(Protocol::Tcp);

    assert!(node.director.adopt_carried(&its, node.now));

    assert_eq!(carried(&node), Some(its));
    let there = nat_of(node.client_sends(1000, Carrying::Ack));
    assert_eq!(there.ends.source.map(|end| end.port), Some(Some(ends(&its).1.unwrap().port())));
}

#[test]
fn what_is_sent_in_a_tunnel_is_carried_on_where_clients_stay_and_so_is_what_is_kept() {
    let mut plain = Scene::default().begin();
    plain.client_sends(1000, Carrying::Syn);
    plain.client_sends(1000, Carrying::Ack);
    assert_eq!(carried(&plain), None, "the other plane knows it");

    let mut node = persistence::node(Scene::default(), 32);
    let its = establish(&mut node);
    assert_eq!((its.onward, its.real_server), (Onward::AsSent, node.scene.id('b')));

    let mut idle = persistence::node(Scene { load: 0, ..Scene::default() }, 32);
    assert!(matches!(idle.client_sends(1000, Carrying::Syn), Verdict::Deliver(_)));
    let its = establish(&mut idle);
    assert_eq!((its.onward, its.real_server), (Onward::AsSent, idle.scene.id('a')));
}

#[test]
fn a_connection_that_is_carried_on_keeps_its_client() {
    let mut node = persistence::node(Scene::default(), 32);
    let its = establish(&mut node);
    persistence::load(&mut node, HOT, 0);
    for _ in 0..3 {
        node.wait(persistence::TIMEOUT / 2);
        node.director.note_carried(&its, node.now);
    }

    node.client_sends(1001, Carrying::Syn);
    node.client_sends(1001, Carrying::Ack);
    let next = node.director.carried(&flow(&node, 1001)).unwrap();
    assert_eq!(next.real_server, node.scene.id('b'));
}

#[test]
fn another_life_of_the_daemon_goes_on_with_the_client() {
    let its = establish(&mut persistence::node(Scene::default(), 32));
    let mut node = persistence::node(Scene::default(), 32);
    persistence::load(&mut node, HOT, 0);

    assert!(node.director.adopt_carried(&its, node.now));

    node.client_sends(1001, Carrying::Syn);
    node.client_sends(1001, Carrying::Ack);
    let next = node.director.carried(&flow(&node, 1001)).unwrap();
    assert_eq!(next.real_server, node.scene.id('b'));
}

#[test]
fn what_began_beside_a_server_without_dpr_is_carried_on_when_that_falls_ill() {
    let mut scene = Scene::default();
    scene.external = vec![scene.external("192.0.2.99:80")];
    scene.external[0].weight = Weight(0);
    let mut node = scene.begin();
    let its = establish(&mut node);
    assert_eq!((its.onward, its.real_server), (Onward::AsSent, node.scene.id('b')));

    node.update.external[0].healthy = false;
    node.tell();

    assert_eq!(carried(&node), Some(its));
    let view = node.director.view();
    assert!(
        view.services
            .iter()
            .any(|service| service.is_begun_above && service.service.owner.node == node.scene.id('a'))
    );
}
