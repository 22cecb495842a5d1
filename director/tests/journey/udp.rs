//! UDP services.

use crate::scene::{Carrying, Scene, kept, packet};
use dpr_model::{HopBudget, Protocol, Verdict};
use dpr_rewrite::Encapsulation;
use std::time::Duration;

fn udp() -> Scene {
    Scene { protocol: Protocol::Udp, ..Scene::default() }
}

#[test]
fn datagrams_follow_the_first_one_for_five_minutes() {
    let mut node = udp().begin();
    let first = node.client_sends(1000, Carrying::Datagram);
    assert!(matches!(first, Verdict::Forward(_)));
    node.update.this.load = dpr_model::LoadPermille(0);
    node.wait(Duration::from_secs(299));
    assert_eq!(node.client_sends(1000, Carrying::Datagram), first);
    node.wait(Duration::from_secs(299));
    assert_eq!(node.client_sends(1000, Carrying::Datagram), first);
    node.wait(Duration::from_secs(301));
    assert_eq!(node.client_sends(1000, Carrying::Datagram), kept());
}

#[test]
fn a_kept_flow_keeps_its_entry_as_no_socket_tells_it() {
    let mut node = Scene { load: 0, ..udp() }.begin();
    assert_eq!(node.client_sends(1000, Carrying::Datagram), kept());
    node.update.this.load = dpr_model::LoadPermille(900);
    node.tell();
    assert_eq!(node.client_sends(1000, Carrying::Datagram), kept());
    assert_eq!(node.director.conntrack_status().entries, 1);
}

#[test]
fn a_connected_socket_has_its_flow() {
    let mut node = udp().begin();
    node.sockets.0.push(1000);
    assert_eq!(node.client_sends(1000, Carrying::Datagram), kept());
    assert_ne!(node.client_sends(1001, Carrying::Datagram), kept());
}

#[test]
fn a_flow_of_a_dead_server_goes_elsewhere() {
    let mut node = udp().begin();
    let Verdict::Forward(first) = node.client_sends(1000, Carrying::Datagram) else { panic!() };
    node.update.peers[0].alive = false;
    node.tell();
    let second = node.client_sends(1000, Carrying::Datagram);
    assert!(!matches!(second, Verdict::Forward(second) if second.to == first.to), "{second:?}");
}

#[test]
fn a_forwarded_flow_is_acknowledged_once() {
    let mut node = udp().begin();
    for _ in 0..5 {
        node.tunnelled(('b', Encapsulation::Ipip, HopBudget::SPENT), 'b', Carrying::Datagram);
    }
    assert_eq!(node.director.acknowledgements()[0].connections, 1);
}

#[test]
fn protocols_with_the_same_port_are_different_services() {
    let mut node = udp().begin();
    assert_eq!(node.client_sends(1000, Carrying::Syn), Verdict::Pass);
    let mut unsummed = packet(node.scene.client(1000), node.scene.service('a'), Carrying::Datagram, b"x");
    unsummed[40..42].copy_from_slice(&[0, 0]);
    assert!(matches!(node.receive(&unsummed), Verdict::Forward(_)));
}
