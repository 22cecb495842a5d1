//! Direct routing, and alias delivery.

use crate::scene::{Carrying, Scene, packet, socket, too_big};
use dpr_model::{Delivery, DeliveryMode, DropReason, ForwardingMethod, HopBudget, Protocol, Verdict};
use dpr_rewrite::{Encapsulation, parse_ip};
use std::net::SocketAddr;

fn direct() -> Scene {
    Scene { method: ForwardingMethod::Dr, ..Scene::default() }
}

/// The frame with a hop limit of one, as direct routing leaves it.
fn spent(mut frame: Vec<u8>) -> Vec<u8> {
    let facts = parse_ip(&frame, 14).unwrap().packet;
    dpr_rewrite::edit::spend_hop_limit(&mut frame, &facts).unwrap();
    frame
}

#[test]
fn direct_routing_names_the_node_whose_mac_address_the_packet_gets() {
    for ipv6_services in [false, true] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut node = Scene { ipv6_services, protocol, ..direct() }.begin();
            let (first, later) = match protocol {
                Protocol::Tcp => (Carrying::Syn, Carrying::Ack),
                Protocol::Udp => (Carrying::Datagram, Carrying::Datagram),
            };
            let to = node.scene.node('b');
            assert_eq!(node.client_sends(1000, first), Verdict::Direct { to });
            assert_eq!(node.client_sends(1000, later), Verdict::Direct { to });
            assert_eq!(node.director.counters().packets_forwarded, 2);
        }
    }
}

#[test]
fn what_arrives_untunnelled_for_another_home_is_the_last_hop_and_stays() {
    let mut node = direct().begin();
    let syn = spent(packet(node.scene.client(1000), node.scene.service('b'), Carrying::Syn, &[]));
    for _ in 0..3 {
        let Verdict::Deliver(delivery) = node.receive(&syn) else { panic!() };
        assert_eq!(delivery.decapsulate, 0);
    }
    let [acknowledged] = node.director.acknowledgements().try_into().unwrap();
    assert_eq!((acknowledged.director, acknowledged.connections), (node.scene.id('b'), 1));

    let reply = packet(node.scene.service('b'), node.scene.client(1000), Carrying::Ack, &[]);
    assert!(matches!(node.receive(&too_big(&reply, "203.0.113.99")), Verdict::Deliver(_)));
}

#[test]
fn what_was_handed_to_its_owner_goes_on_in_a_tunnel_so_that_nobody_hands_it_back_anew() {
    let mut node = direct().begin();
    let once = HopBudget::FRESH.after_a_hop().unwrap();
    let verdict = node.tunnelled(('c', Encapsulation::Ipip, once), 'a', Carrying::Syn);
    let Verdict::Forward(forward) = verdict else { panic!("{verdict:?}") };
    assert_eq!((forward.to, forward.hops, forward.decapsulate), (node.scene.node('b'), HopBudget::SPENT, 20));
}

#[test]
fn two_nodes_that_both_take_themselves_for_the_owner_do_not_throw_a_packet_to_and_fro() {
    let mut node = direct().begin();
    let syn = spent(packet(node.scene.client(1000), node.scene.service('a'), Carrying::Syn, &[]));
    assert!(matches!(node.receive(&syn), Verdict::Deliver(_)));
    assert_eq!(node.director.counters().loops_stopped, 1);
    assert_eq!(node.director.conntrack_status().entries, 0);
}

#[test]
fn alias_delivery_changes_no_address_and_asks_for_the_services_own_socket() {
    let mut node = Scene { delivery: DeliveryMode::Alias, load: 0, ..Scene::default() }.begin();
    let as_it_is = Verdict::Deliver(Delivery { to: None, decapsulate: 0 });
    assert_eq!(node.client_sends(1000, Carrying::Syn), as_it_is);
    let verdict = node.tunnelled(('b', Encapsulation::Ipip, HopBudget::SPENT), 'b', Carrying::Syn);
    assert_eq!(verdict, Verdict::Deliver(Delivery { to: None, decapsulate: 20 }));
    let own = node.director.delivery_addresses()[0];
    assert_eq!((own.mode, own.delivery), (DeliveryMode::Alias, own.service));
}

#[test]
fn a_method_that_only_external_servers_have_never_sends_to_peers() {
    let mut node = Scene { method: ForwardingMethod::HalfNat, ..Scene::default() }.begin();
    assert_eq!(node.client_sends(1000, Carrying::Syn), crate::scene::kept());
}

#[test]
fn a_packet_without_hops_left_is_not_sent_on_by_direct_routing() {
    let mut node = direct().begin();
    let from: SocketAddr = node.scene.client(1000);
    node.send(from, node.scene.service('a'), Carrying::Syn);
    // Its hop limit reaches one only by direct routing or by a client's own doing: it ends here.
    let ack = spent(packet(from, node.scene.service('a'), Carrying::Ack, &[]));
    assert!(matches!(node.receive(&ack), Verdict::Deliver(_)));
    let stranger = spent(packet(from, socket("192.0.2.77:80"), Carrying::Ack, &[]));
    assert_eq!(node.receive(&stranger), Verdict::Pass);
    assert_ne!(node.client_sends(1000, Carrying::Ack), Verdict::Drop(DropReason::TtlExpired));
}
