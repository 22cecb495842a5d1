//! Packets that do not fit, and errors about replies.

use crate::stage::*;

#[test]
fn a_packet_too_big_for_the_tunnel_is_answered_and_one_that_offloads_joined_is_not() {
    let mut node = NodeA::with_loads(HOT, IDLE, HOT);
    node.segment(1000, A, Tcp::Syn(1));
    node.segment(1000, A, Tcp::Ack);
    let large = frame(CLIENT, 1000, A, Tcp::Ack, 1460);
    assert_eq!(node.receive(&large), Verdict::TooBig { mtu: 1480, from: IpAddr::V4(A) });
    assert_eq!(node.receive_large(&large, Some(1480)), forwarded_to(B));
    let fits = frame(CLIENT, 1000, A, Tcp::Ack, 1440);
    assert_eq!(node.receive(&fits), forwarded_to(B));
}

#[test]
fn no_more_than_a_hundred_errors_leave_in_a_burst() {
    let mut node = NodeA::with_loads(HOT, IDLE, HOT);
    node.segment(1000, A, Tcp::Syn(1));
    let large = frame(CLIENT, 1000, A, Tcp::Ack, 1460);
    let answered = (0..1000).filter(|_| matches!(node.receive(&large), Verdict::TooBig { .. })).count();
    assert_eq!(answered, 100);
    assert_eq!(node.director.counters().drops["too-big"], 900);
}

#[test]
fn an_icmp_error_goes_as_the_flow_it_is_about() {
    let mut node = NodeA::with_loads(HOT, IDLE, HOT);
    node.segment(1000, A, Tcp::Syn(1));
    let reply =
        PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(A.octets(), CLIENT.octets(), 64).tcp(80, 1000, 1, 1);
    let mut sent = Vec::new();
    reply.write(&mut sent, &[0; 100]).unwrap();
    let mut error = [0; dpr_rewrite::icmp::FRAGMENTATION_NEEDED_LEN_MAX];
    let router = Ipv4Addr::new(203, 0, 113, 1);
    let len = dpr_rewrite::icmp::fragmentation_needed(&sent[14..], 1400, router, &mut error).unwrap();
    let mut bytes = sent[..14].to_vec();
    bytes.extend_from_slice(&error[..len]);

    assert_eq!(node.receive(&bytes), forwarded_to(B));
    node.segment(1000, A, Tcp::Fin);
    node.wait(Duration::from_secs(121));
    node.tell();
    assert_eq!(node.receive(&bytes), here());
}
