use super::*;
use std::net::{IpAddr, Ipv4Addr};

const NOW: Timestamp = Timestamp::from_millis(1000);
const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 4000);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80);

fn connected() -> (Socket, Socket) {
    let (mut client, syn) = Socket::connect(CLIENT, SERVER, 100, NOW);
    let (mut server, syn_ack) = Socket::accept(&syn, 9000, NOW);
    let ack = client.handle(&syn_ack, NOW);
    assert!(ack.connected && server.handle(&ack.reply.unwrap(), NOW).connected);
    (client, server)
}

#[test]
fn data_arrives_once_however_often_it_is_sent() {
    let (mut client, mut server) = connected();
    let request = client.send(vec![1, 2, 3], false, NOW);

    assert_eq!(server.handle(&request, NOW).data, Some(vec![1, 2, 3]));
    let again = server.handle(&request, NOW);

    assert_eq!(again.data, None);
    assert!(!client.handle(&again.reply.unwrap(), NOW).connected && !client.is_waiting());
}

#[test]
fn whoever_closes_first_waits() {
    let (mut client, mut server) = connected();

    let fin = client.send(Vec::new(), true, NOW);
    let fin_ack = server.handle(&fin, NOW).reply.unwrap();
    let last = client.handle(&fin_ack, NOW).reply.unwrap();

    assert_eq!(server.handle(&last, NOW).end, Some(End::Closed));
    assert_eq!(client.state, State::TimeWait);
    assert_eq!(client.handle_timeout(NOW + TIME_WAIT).end, Some(End::Closed));
}

#[test]
fn only_the_exact_sequence_number_resets() {
    let (client, mut server) = connected();
    let near = client.reset_for(client.next_out.wrapping_add(1));

    assert_eq!(server.handle(&near, NOW).reply.unwrap().flags, flag::ACK);
    assert_eq!(server.handle(&client.reset_for(client.next_out), NOW).end, Some(End::Reset));
}

#[test]
fn the_ack_of_another_handshake_is_answered_with_a_reset() {
    let (mut client, syn) = Socket::connect(CLIENT, SERVER, 100, NOW);
    let (_, syn_ack_of_one) = Socket::accept(&syn, 9000, NOW);
    let (mut other, _) = Socket::accept(&syn, 70_000, NOW);
    let ack = client.handle(&syn_ack_of_one, NOW).reply.unwrap();

    let reset = other.handle(&ack, NOW).reply.unwrap();

    assert_eq!(reset.flags, flag::RST);
    assert_eq!(client.handle(&reset, NOW).end, Some(End::Reset));
}

#[test]
fn a_segment_without_an_answer_is_retransmitted_with_doubling_timeouts_and_then_given_up() {
    let (mut client, syn) = Socket::connect(CLIENT, SERVER, 100, NOW);
    let mut waited = Vec::new();
    let end = loop {
        let due = client.poll_timeout();
        let reaction = client.handle_timeout(due);
        waited.push(due.since(NOW).as_secs());
        match reaction.end {
            Some(end) => break end,
            None => assert_eq!(reaction.reply, Some(syn.clone())),
        }
    };

    // As of RFC 6298: 1 s, then 2, 4 and so on after the one before.
    assert_eq!(waited, [1, 3, 7, 15, 31, 63, 127]);
    assert_eq!(end, End::TimedOut);
}

#[test]
fn a_newer_syn_takes_the_place_of_time_wait() {
    let (mut client, mut server) = connected();
    let fin = server.send(Vec::new(), true, NOW);
    let fin_ack = client.handle(&fin, NOW).reply.unwrap();
    server.handle(&fin_ack, NOW);
    assert_eq!(server.state, State::TimeWait);

    let (_, newer) = Socket::connect(CLIENT, SERVER, 5000, NOW);
    let (_, older) = Socket::connect(CLIENT, SERVER, 50, NOW);

    assert!(server.gives_way_to(&newer) && !server.gives_way_to(&older));
}

#[test]
fn a_client_that_uses_its_port_again_resets_what_waits() {
    let (mut client, mut server) = connected();
    let fin = server.send(Vec::new(), true, NOW);
    let fin_ack = client.handle(&fin, NOW).reply.unwrap();
    server.handle(&fin_ack, NOW);

    let (mut again, older) = Socket::connect(CLIENT, SERVER, 50, NOW);
    let challenge = server.handle(&older, NOW).reply.unwrap();
    let reset = again.handle(&challenge, NOW).reply.unwrap();

    assert_eq!(server.handle(&reset, NOW).end, Some(End::Reset));
}

#[test]
fn a_segment_that_was_cut_may_have_arrived_whole() {
    let (mut client, mut server) = connected();
    let whole = client.send(vec![7; 1400], false, NOW);
    let cut = client.handle_too_big(1000).unwrap();
    assert_eq!(cut.data.len(), 1000);

    let ack_of_whole = server.handle(&whole, NOW).reply.unwrap();
    let ack_of_cut = server.handle(&cut, NOW).reply.unwrap();

    assert_eq!(ack_of_whole, ack_of_cut);
    client.handle(&ack_of_whole, NOW);
    assert!(!client.is_waiting());
    assert_eq!(server.handle(&client.send(vec![8], false, NOW), NOW).data, Some(vec![8]));
}
