//! Servers without `dpr`, by full and by half NAT.

use crate::scene::{Carrying, Scene, kept, nat_of, packet, socket, too_big};
use dpr_model::{Capacity, End, ForwardingMethod, LoadPermille, NodeId, Verdict, Weight};
use std::net::SocketAddr;

const SERVER: &str = "10.9.9.9:8080";

fn with_server(method: ForwardingMethod) -> Scene {
    let mut scene = Scene { method, ..Scene::default() };
    scene.external = vec![scene.external(SERVER)];
    scene
}

fn end(socket: SocketAddr) -> Option<End> {
    Some(End { address: socket.ip(), port: Some(socket.port()) })
}

#[test]
fn a_server_without_dpr_gets_its_share_by_nat_whatever_method_peers_have() {
    for method in [ForwardingMethod::Ipip, ForwardingMethod::Nat, ForwardingMethod::Dr] {
        let mut node = with_server(method).begin();
        node.update.peers[0].candidate.load = LoadPermille(0);
        node.tell();
        let verdicts: Vec<_> = (1000..1040).map(|port| node.client_sends(port, Carrying::Syn)).collect();
        let is_external = |verdict: &&Verdict| matches!(verdict, Verdict::Nat(nat) if nat.ends.destination == end(socket(SERVER)));
        let external = verdicts.iter().filter(is_external).count();
        assert!((5..40).contains(&external), "{external} by {method:?}");
    }
}

#[test]
fn its_load_is_what_the_director_has_open_there() {
    let mut scene = with_server(ForwardingMethod::Nat);
    scene.external[0].capacity = Capacity::new(10);
    let mut node = scene.begin();
    node.update.peers.clear();
    node.tell();
    for port in 1000..1009 {
        assert!(matches!(node.client_sends(port, Carrying::Syn), Verdict::Nat(_)));
        node.client_sends(port, Carrying::Ack);
    }
    // As loaded as A, by A's own count.
    node.tell();
    assert_eq!(node.client_sends(1010, Carrying::Syn), kept());
    assert_eq!(node.director.forwarded_out(), 9);
}

#[test]
fn an_unhealthy_or_weightless_one_gets_nothing_new_and_keeps_what_it_has() {
    let mut node = with_server(ForwardingMethod::Nat).begin();
    node.update.peers.clear();
    node.tell();
    let there = node.client_sends(1000, Carrying::Syn);
    assert!(matches!(there, Verdict::Nat(_)));
    node.client_sends(1000, Carrying::Ack);
    node.update.external[0].healthy = false;
    node.tell();
    assert_eq!(node.client_sends(1000, Carrying::Ack), there);
    assert_eq!(node.client_sends(1001, Carrying::Syn), kept());
    node.update.external[0] = node.scene.external(SERVER);
    node.update.external[0].weight = Weight(0);
    node.tell();
    assert_eq!(node.client_sends(1002, Carrying::Syn), kept());
}

#[test]
fn one_that_is_no_longer_configured_takes_its_connections_with_it() {
    let mut node = with_server(ForwardingMethod::Nat).begin();
    node.update.peers.clear();
    node.tell();
    node.client_sends(1000, Carrying::Syn);
    node.client_sends(1000, Carrying::Ack);
    node.update.external.clear();
    node.tell();
    // The local stack resets it.
    assert_eq!(node.client_sends(1000, Carrying::Ack), kept());
}

#[test]
fn half_nat_keeps_the_client_and_knows_replies_by_the_servers_socket() {
    let mut node = with_server(ForwardingMethod::HalfNat).begin();
    let client = node.scene.client(1000);
    let there = nat_of(node.client_sends(1000, Carrying::Syn));
    assert_eq!((there.ends.source, there.ends.destination), (None, end(socket(SERVER))));

    let back = nat_of(node.send(socket(SERVER), client, Carrying::Ack));
    assert_eq!((back.ends.source, back.ends.destination), (end(node.scene.service('a')), None));
    // The server's own connections to somebody else are routed as they are.
    assert_eq!(node.send(socket(SERVER), node.scene.client(2000), Carrying::Ack), Verdict::Pass);
    assert_eq!(node.send(socket("10.9.9.9:22"), client, Carrying::Ack), Verdict::Pass);
}

#[test]
fn errors_about_half_translated_packets_name_the_service() {
    let mut node = with_server(ForwardingMethod::HalfNat).begin();
    let client = node.scene.client(1000);
    node.client_sends(1000, Carrying::Syn);
    let about_request = too_big(&packet(client, socket(SERVER), Carrying::Ack, &[0; 100]), "10.9.9.1");
    let back = nat_of(node.receive(&about_request));
    assert_eq!((back.ends.source, back.ends.destination), (end(node.scene.service('a')), None));
}

#[test]
fn its_id_is_no_nodes() {
    let id = NodeId::of_external(socket(SERVER));
    assert!(id.is_external());
    let node = with_server(ForwardingMethod::Nat).begin();
    assert_eq!(node.scene.external[0].id(), id);
}
