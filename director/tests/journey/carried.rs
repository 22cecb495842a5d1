//! Translated flows that another data plane carries on: which they are, and what is heard of them.

use crate::scene::{Carrying, Node, Scene, nat_of};
use dpr_director::TranslatedFlow;
use dpr_model::{ClientSocket, FlowKey, ForwardingMethod, Protocol, ServiceSocket, Verdict};
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

fn carried(node: &Node) -> Option<TranslatedFlow> {
    node.director.translated(&flow(node, 1000))
}

/// Opens a connection to B, which is carried on.
fn establish(node: &mut Node) -> TranslatedFlow {
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
    assert_eq!((its.server, its.real_server), (node.scene.service('b'), node.scene.id('b')));
    let source = there.ends.source.unwrap();
    assert_eq!(its.stand_in.map(|end| (end.ip(), Some(end.port()))), Some((source.address, source.port)));

    node.client_sends(1000, Carrying::Fin);
    assert_eq!(carried(&node), None);
}

#[test]
fn a_reset_of_the_real_server_ends_it_too() {
    let mut node = translating(Protocol::Tcp);
    let stand_in = establish(&mut node).stand_in.unwrap();

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
    let back = nat_of(node.send(its.server, its.stand_in.unwrap(), Carrying::Ack));
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
    assert_eq!(there.ends.source.map(|end| end.port), Some(Some(its.stand_in.unwrap().port())));
}
