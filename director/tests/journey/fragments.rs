//! Fragments, and packets that become fragments.

use crate::scene::{Carrying, Node, Scene, in_a_tunnel, packet};
use dpr_model::{Delivery, DropReason, Encapsulation, ForwardingMethod, HopBudget, Protocol, Verdict};
use dpr_rewrite::fragment::Fragments;
use dpr_rewrite::parse_ip;
use std::time::Duration;

/// An IPv4 frame that may be fragmented, with this identification.
fn fragmentable(mut frame: Vec<u8>, id: u16) -> Vec<u8> {
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame[20..22].copy_from_slice(&[0, 0]);
    frame[24..26].copy_from_slice(&[0, 0]);
    let sum = !dpr_rewrite::checksum::fold(dpr_rewrite::checksum::sum_of(&frame[14..34]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn fragments_of(frame: &[u8]) -> Vec<Vec<u8>> {
    let facts = parse_ip(frame, 14).unwrap().packet;
    let mut fragments = Fragments::new(frame, &facts, 600).unwrap();
    let mut out = [0; 600];
    let mut frames = Vec::new();
    while let Some(len) = fragments.next_into(&mut out) {
        frames.push([&frame[..14], &out[..len.unwrap()]].concat());
    }
    frames
}

fn large_datagram(node: &Node, port: u16, id: u16) -> Vec<u8> {
    let data = [0; 1400];
    let datagram = packet(node.scene.client(port), node.scene.service('a'), Carrying::Datagram, &data);
    fragmentable(datagram, id)
}

fn udp(method: ForwardingMethod) -> Node {
    Scene { protocol: Protocol::Udp, method, ..Scene::default() }.begin()
}

#[test]
fn every_fragment_goes_where_its_flow_goes() {
    for method in [ForwardingMethod::Ipip, ForwardingMethod::Gue, ForwardingMethod::Dr] {
        let mut node = udp(method);
        let placed = node.client_sends(1000, Carrying::Datagram);
        assert!(!matches!(placed, Verdict::Deliver(_)));
        for frame in fragments_of(&large_datagram(&node, 1000, 7)) {
            assert_eq!(node.receive(&frame), placed, "{method:?}");
        }
    }
}

#[test]
fn a_fragmented_datagram_may_be_the_first_of_its_flow() {
    let mut node = udp(ForwardingMethod::Ipip);
    let verdicts: Vec<_> =
        fragments_of(&large_datagram(&node, 1000, 7)).iter().map(|frame| node.receive(frame)).collect();
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Forward(_)) && *verdict == verdicts[0]));
    assert_eq!(node.client_sends(1000, Carrying::Datagram), verdicts[0]);
}

#[test]
fn a_fragment_that_overtakes_its_first_or_comes_half_a_minute_late_is_dropped() {
    let mut node = udp(ForwardingMethod::Ipip);
    let frames = fragments_of(&large_datagram(&node, 1000, 7));
    let unknown = Verdict::Drop(DropReason::Fragment);
    assert_eq!(node.receive(&frames[1]), unknown);
    node.receive(&frames[0]);
    assert_ne!(node.receive(&frames[1]), unknown);
    node.wait(Duration::from_secs(31));
    assert_eq!(node.receive(&frames[2]), unknown);
}

#[test]
fn no_connection_begins_in_fragments_but_one_goes_on_in_them() {
    let mut node = Scene::default().begin();
    let segment = |node: &Node, carrying| {
        packet(node.scene.client(1000), node.scene.service('a'), carrying, &[0; 1000])
    };
    let opening = fragments_of(&fragmentable(segment(&node, Carrying::Syn), 1));
    assert!(opening.iter().all(|frame| matches!(node.receive(frame), Verdict::Deliver(_))));
    assert_eq!(node.director.conntrack_status().entries, 0);
    let placed = node.client_sends(1000, Carrying::Syn);
    let later = fragments_of(&fragmentable(segment(&node, Carrying::Ack), 2));
    assert!(later.iter().all(|frame| node.receive(frame) == placed));
}

#[test]
fn fragments_for_another_owner_are_handed_to_it_and_there_delivered_by_their_address() {
    let mut node = Scene { protocol: Protocol::Udp, ..Scene::default() }.begin();
    let datagram = packet(node.scene.client(1), node.scene.service('b'), Carrying::Datagram, &[0; 1400]);
    for frame in fragments_of(&fragmentable(datagram, 9)) {
        let Verdict::Forward(handed) = node.receive(&frame) else { panic!() };
        assert_eq!((handed.to, handed.hops.get()), (node.scene.node('b'), 1));
        let ends = (node.scene.node('b'), node.scene.node('a'));
        let tunnelled = in_a_tunnel(ends, Encapsulation::Ipip, HopBudget::SPENT, &frame);
        let to = Some("169.254.64.2".parse().unwrap());
        assert_eq!(node.receive(&tunnelled), Verdict::Deliver(Delivery { to, decapsulate: 20 }));
    }
}

#[test]
fn translation_takes_no_fragments_unless_no_port_changes() {
    let mut node = udp(ForwardingMethod::Nat);
    node.client_sends(1000, Carrying::Datagram);
    for frame in fragments_of(&large_datagram(&node, 1000, 7)) {
        assert_eq!(node.receive(&frame), Verdict::Drop(DropReason::Fragment));
    }
    for (server, fits) in [("10.9.9.9:80", true), ("10.9.9.9:81", false)] {
        let mut scene =
            Scene { protocol: Protocol::Udp, method: ForwardingMethod::HalfNat, ..Scene::default() };
        scene.external = vec![scene.external(server)];
        let mut node = scene.begin();
        for frame in fragments_of(&large_datagram(&node, 1000, 7)) {
            assert_eq!(matches!(node.receive(&frame), Verdict::Nat(_)), fits);
        }
    }
}

#[test]
fn what_may_be_fragmented_is_cut_before_it_goes_into_a_tunnel() {
    let mut node = udp(ForwardingMethod::Gue);
    let datagram = packet(node.scene.client(1000), node.scene.service('a'), Carrying::Datagram, &[0; 1472]);
    let Verdict::Forward(cut) = node.receive(&fragmentable(datagram, 1)) else { panic!() };
    assert_eq!(cut.fragment, Some(1464));
    let Verdict::Forward(whole) = node.client_sends(1000, Carrying::Datagram) else { panic!() };
    assert_eq!(whole.fragment, None);
}

#[test]
fn replies_in_fragments_get_the_services_address() {
    let mut node = udp(ForwardingMethod::Ipip);
    let from = "169.254.64.1:80".parse().unwrap();
    let reply = packet(from, node.scene.client(1000), Carrying::Datagram, &[0; 1400]);
    for frame in fragments_of(&fragmentable(reply, 3)) {
        let Verdict::Reply(reply) = node.reply(&frame) else { panic!() };
        assert_eq!((reply.from, reply.mss_max), (node.scene.service('a').ip(), None));
    }
}

#[test]
fn fragments_for_no_service_are_not_ours() {
    let mut node = udp(ForwardingMethod::Ipip);
    let to = std::net::SocketAddr::new(node.scene.service('a').ip(), 2049);
    let datagram = packet(node.scene.client(1000), to, Carrying::Datagram, &[0; 1400]);
    for frame in fragments_of(&fragmentable(datagram, 4)) {
        assert_eq!(node.receive(&frame), Verdict::Pass);
    }
}
