//! ARP, neighbour discovery and echo for addresses that the host does not hold.

use crate::scene::{Node, Scene, address, in_a_tunnel};
use dpr_model::{Encapsulation, HopBudget, Verdict};
use dpr_rewrite::checksum::{fold, pseudo_header, sum_of};
use etherparse::PacketBuilder;
use std::net::IpAddr;

fn node(ipv6_services: bool, answers: bool) -> Node {
    let scene = Scene { ipv6_services, ..Scene::default() };
    let answer_for = if answers { vec![scene.service('a').ip()] } else { vec![] };
    Scene { answer_for, ..scene }.begin()
}

fn echo(node: &Node, home: char) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    match (node.scene.client(1).ip(), node.scene.service(home).ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            ethernet.ipv4(from.octets(), to.octets(), 64).icmpv4_echo_request(1, 1).write(&mut frame, &[0; 8])
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            ethernet.ipv6(from.octets(), to.octets(), 64).icmpv6_echo_request(1, 1).write(&mut frame, &[0; 8])
        }
        _ => panic!("one version"),
    }
    .unwrap();
    frame
}

#[test]
fn the_owner_answers_echo_requests_unless_its_kernel_does() {
    for ipv6 in [false, true] {
        let mut owner = node(ipv6, true);
        assert_eq!(owner.receive(&echo(&owner, 'a')), Verdict::AnswerEcho);
        assert_eq!(owner.director.counters().echo_answered, 1);
        let mut held = node(ipv6, false);
        assert_eq!(held.receive(&echo(&held, 'a')), Verdict::Pass);
        // The kernel would not find the request in a tunnel.
        let ends = (held.scene.node('b'), held.scene.node('a'));
        let once = HopBudget::FRESH.after_a_hop().unwrap();
        for hops in [once, HopBudget::SPENT] {
            let tunnelled = in_a_tunnel(ends, Encapsulation::Ipip, hops, &echo(&held, 'a'));
            assert_eq!(held.receive(&tunnelled), Verdict::AnswerEcho);
        }
    }
}

#[test]
fn an_echo_request_that_came_astray_is_handed_to_the_owner() {
    let mut node = node(false, true);
    let Verdict::Forward(handed) = node.receive(&echo(&node, 'b')) else { panic!() };
    assert_eq!(handed.to, node.scene.node('b'));
}

#[test]
fn neighbours_are_answered_for_what_the_host_does_not_hold() {
    let solicitation = |target: IpAddr| {
        let IpAddr::V6(target) = target else { panic!("IPv6") };
        let source = address("2001:db8:7::7");
        let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 1, 2, 0, 0, 0, 0, 7, 0x86, 0xdd];
        frame.extend([0x60, 0, 0, 0, 0, 24, 58, 255]);
        let IpAddr::V6(from) = source else { panic!("IPv6") };
        frame.extend(from.octets());
        frame.extend(target.octets());
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target.octets());
        let sum = !fold(pseudo_header(source, target.into(), 58, 24) + sum_of(&message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        [frame, message].concat()
    };
    let mut node = node(true, true);
    let own = node.scene.service('a').ip();
    assert_eq!(node.receive(&solicitation(own)), Verdict::AnswerNeighbour);
    assert_eq!(node.receive(&solicitation(node.scene.service('b').ip())), Verdict::Pass);
    assert_eq!(node.director.counters().neighbours_answered, 1);
}

#[test]
fn arp_is_answered_for_what_the_host_does_not_hold() {
    let request = |target: IpAddr| {
        let IpAddr::V4(target) = target else { panic!("IPv4") };
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 7, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 192, 0, 2, 7]);
        frame.extend([0; 6]);
        frame.extend(target.octets());
        frame
    };
    let mut node = node(false, true);
    let own = node.scene.service('a').ip();
    assert_eq!(node.receive(&request(own)), Verdict::AnswerArp);
    assert_eq!(node.receive(&request(node.scene.service('b').ip())), Verdict::Pass);
}
