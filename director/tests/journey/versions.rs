//! Either IP version in either, by either tunnel.

use crate::scene::{Carrying, Scene, address, in_a_tunnel, packet};
use dpr_model::{Delivery, DropReason, Encapsulation, ForwardingMethod, HopBudget, Verdict};
use std::sync::Arc;

#[test]
fn every_nesting_forwards_delivers_and_knows_its_overhead() {
    let methods =
        [(ForwardingMethod::Ipip, Encapsulation::Ipip), (ForwardingMethod::Gue, Encapsulation::Gue)];
    for (method, encapsulation) in methods {
        for (ipv6_services, ipv6_nodes) in [(false, false), (true, false), (false, true), (true, true)] {
            let scene = Scene { method, ipv6_services, ipv6_nodes, ..Scene::default() };
            let overhead =
                if ipv6_nodes { 40 } else { 20 } + if method == ForwardingMethod::Gue { 16 } else { 0 };
            let mut node = scene.begin();
            let verdict = node.client_sends(1000, Carrying::Syn);
            let Verdict::Forward(forward) = verdict else { panic!("{verdict:?}") };
            assert_eq!(forward.encapsulation, encapsulation);
            assert_eq!((forward.from, forward.to), (node.scene.node('a'), node.scene.node('b')));

            let headers = if ipv6_services { 40 } else { 20 } + 20;
            let large = |len: u16| vec![0; usize::from(len - headers)];
            let from_to = (node.scene.client(1000), node.scene.service('a'));
            let fits = packet(from_to.0, from_to.1, Carrying::Ack, &large(1500 - overhead));
            assert_eq!(node.receive(&fits), verdict);
            let too_big = packet(from_to.0, from_to.1, Carrying::Ack, &large(1501 - overhead));
            let same_version = ipv6_services == ipv6_nodes;
            let from = if same_version { node.scene.node('a') } else { node.scene.service('a').ip() };
            assert_eq!(node.receive(&too_big), Verdict::TooBig { mtu: 1500 - overhead, from });

            let arrived = node.tunnelled(('b', encapsulation, HopBudget::SPENT), 'b', Carrying::Syn);
            let to = Some(address(if ipv6_services { "fd64:7072:4000::2" } else { "169.254.64.2" }));
            assert_eq!(
                arrived,
                Verdict::Deliver(Delivery { to, decapsulate: u8::try_from(overhead).unwrap() })
            );

            let reply_from = if ipv6_services { "[fd64:7072:4000::2]:80" } else { "169.254.64.2:80" };
            let mut reply = packet(reply_from.parse().unwrap(), from_to.0, Carrying::Syn, &[]);
            let flags_at = reply.len() - 20 + 13;
            reply[flags_at] |= 0x10;
            let Verdict::Reply(reply) = node.reply(&reply) else { panic!() };
            assert_eq!(reply.from, node.scene.service('b').ip());
            assert_eq!(reply.mss_max, Some(1500 - overhead - headers));
        }
    }
}

#[test]
fn servers_of_one_ip_version_get_no_connections_of_the_other() {
    let mut node = Scene { ipv6_services: true, ..Scene::default() }.begin();
    for peer in &mut node.update.peers {
        for service in Arc::make_mut(&mut peer.services) {
            service.socket.address = address("203.0.113.77");
        }
    }
    node.tell();
    assert!(matches!(node.client_sends(1000, Carrying::Syn), Verdict::Deliver(_)));
}

#[test]
fn a_peer_whose_node_address_is_of_the_other_version_is_no_peer() {
    let mut node = Scene::default().begin();
    node.update.peers[0].candidate.address = address("2001:db8::11");
    node.update.peers[0].candidate.load = dpr_model::LoadPermille(0);
    node.tell();
    assert!(matches!(node.client_sends(1000, Carrying::Syn), Verdict::Deliver(_)));
    let syn = packet(node.scene.client(1), node.scene.service('b'), Carrying::Syn, &[]);
    let ends = (node.scene.node('b'), node.scene.node('a'));
    let tunnelled = in_a_tunnel(ends, Encapsulation::Ipip, HopBudget::SPENT, &syn);
    assert_eq!(node.receive(&tunnelled), Verdict::Drop(DropReason::TunnelFromStranger));
}

#[test]
fn a_narrow_way_to_a_peer_narrows_its_tunnel_only() {
    let mut node = Scene::default().begin();
    node.update.peers[0].mtu = Some(1400);
    node.tell();
    node.client_sends(1000, Carrying::Syn);
    let large = packet(node.scene.client(1000), node.scene.service('a'), Carrying::Ack, &[0; 1400]);
    assert_eq!(node.receive(&large), Verdict::TooBig { mtu: 1380, from: node.scene.node('a') });
}
