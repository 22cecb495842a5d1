//! Connections end at their real servers, and their directors hear of it; about silent ones they ask.

use crate::stage::*;
use dpr_conntrack::sync::{Message, Record, RecordState};
use dpr_conntrack::{EntryView, TcpState};
use dpr_director::Settled;
use dpr_model::{FlowKey, ForwardingMethod, PortRange};
use std::net::SocketAddr;

const PORT: u16 = 4000;
/// What A delivers packets for its own address at, and for B's.
const DELIVERY_A: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 1);
const DELIVERY_B: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 2);

fn flow_to(service: Ipv4Addr) -> FlowKey {
    FlowKey {
        protocol: Protocol::Tcp,
        client: ClientSocket { address: CLIENT.into(), port: PORT },
        service: ServiceSocket { address: service.into(), port: 80 },
    }
}

/// A has given a client's connection of this generation to B.
fn with_a_connection(generation: u32) -> NodeA {
    let mut a = NodeA::with_loads(HOT, IDLE, 800);
    connect(&mut a, generation);
    a
}

fn connect(a: &mut NodeA, generation: u32) {
    assert_eq!(a.segment(PORT, A, Tcp::Syn(generation)), forwarded_to(B));
    assert_eq!(a.segment(PORT, A, Tcp::Ack), forwarded_to(B));
}

fn record(generation: u32, state: RecordState) -> Record {
    Record { flow: flow_to(A), generation, real_server: id(B), state, stand_in: None }
}

fn inquiry(generation: u32) -> Vec<(Ipv4Addr, Message)> {
    vec![(B, Message::Inquiry(vec![record(generation, RecordState::Established)]))]
}

fn standing(generation: u32, state: RecordState) -> Message {
    Message::Standing(vec![record(generation, state)])
}

impl NodeA {
    /// What it says to others now.
    fn says(&mut self) -> Vec<(Ipv4Addr, Message)> {
        std::iter::from_fn(|| self.director.poll_sync(self.now))
            .map(|said| {
                let to = ALL.into_iter().find(|node| said.to == Some(id(*node))).unwrap();
                (to, Message::from_bytes(&said.bytes).unwrap())
            })
            .collect()
    }

    fn hears(&mut self, from: Ipv4Addr, message: &Message) {
        let from = (id(from), Incarnation(1));
        self.director.handle_sync(from, &message.to_bytes(), &mut self.sockets, self.now).unwrap();
    }

    fn hears_of_end(&mut self, service: Ipv4Addr, local: Ipv4Addr) {
        let (local, client) = (SocketAddr::from((local, 80)), SocketAddr::from((CLIENT, PORT)));
        assert_eq!(flow_to(service).client.address, client.ip());
        self.director.note_ended(local, client);
        self.director.end_kept(&mut self.sockets, self.now);
    }

    fn state(&self) -> Option<String> {
        self.director.connections(self.now).next().map(|connection| connection.state)
    }

    /// Lives on, with its daemon's updates, for that many times ten seconds, and hears from B that it has the connection.
    fn lives_on_while_b_has_it(&mut self, times: u32, b_answers: bool) {
        for _ in 0..times {
            self.wait(Duration::from_secs(10));
            self.tell();
            let asked = !self.says().is_empty();
            if asked && b_answers {
                self.hears(B, &standing(1, RecordState::Established));
            }
        }
    }
}

#[test]
fn what_has_ended_at_its_real_server_is_over_for_the_director() {
    let mut a = with_a_connection(1);

    a.hears(B, &Message::Ended(vec![flow_to(A)]));
    assert_eq!(a.says(), inquiry(1));
    assert_eq!(a.state().unwrap(), "established");
    a.hears(B, &standing(1, RecordState::Closed));

    assert_eq!(a.state().unwrap(), "closed");
    assert_eq!(a.director.forwarded_out(), 0);
}

#[test]
fn a_late_word_ends_no_later_connection_of_the_same_sockets() {
    let mut a = with_a_connection(1);
    a.hears(B, &Message::Ended(vec![flow_to(A)]));
    assert_eq!(a.says(), inquiry(1));
    a.segment(PORT, A, Tcp::Fin);
    connect(&mut a, 77);

    a.hears(B, &standing(1, RecordState::Closed));

    assert_eq!(a.state().unwrap(), "established");
}

#[test]
fn a_question_is_about_the_connection_that_is_known() {
    let mut a = with_a_connection(1);
    a.segment(PORT, A, Tcp::Fin);
    connect(&mut a, 77);

    a.hears(B, &Message::Ended(vec![flow_to(A)]));
    assert_eq!(a.says(), inquiry(77));
    a.hears(B, &standing(77, RecordState::Established));

    assert_eq!(a.state().unwrap(), "established");
}

#[test]
fn a_handshake_is_not_asked_about() {
    let mut a = NodeA::with_loads(HOT, IDLE, 800);
    a.segment(PORT, A, Tcp::Syn(1));

    a.hears(B, &Message::Ended(vec![flow_to(A)]));

    assert_eq!(a.says(), []);
}

#[test]
fn only_its_real_server_is_believed_and_only_what_it_was_asked() {
    let mut a = with_a_connection(1);

    a.hears(C, &Message::Ended(vec![flow_to(A)]));
    assert_eq!(a.says(), []);
    a.hears(B, &standing(1, RecordState::Closed));
    assert_eq!(a.state().unwrap(), "established");
    a.hears(B, &Message::Ended(vec![flow_to(A)]));
    assert_eq!(a.says(), inquiry(1));
    a.hears(C, &standing(1, RecordState::Closed));

    assert_eq!(a.state().unwrap(), "established");
}

#[test]
fn a_question_is_repeated_and_then_given_up() {
    let mut a = with_a_connection(1);
    a.hears(B, &Message::Ended(vec![flow_to(A)]));

    let mut asked = 0;
    for _ in 0..100 {
        asked += a.says().len();
        a.wait(Duration::from_millis(20));
    }

    assert_eq!(asked, 3);
    assert_eq!(a.state().unwrap(), "established");
    assert_eq!(a.says(), []);
}

#[test]
fn an_idle_connection_is_remembered_for_as_long_as_its_real_server_has_it() {
    let mut a = with_a_connection(1);
    a.lives_on_while_b_has_it(6 * 60, true);
    assert_eq!(a.segment(PORT, A, Tcp::Ack), forwarded_to(B));

    // Half closed, as well.
    a.segment(PORT, A, Tcp::Fin);
    a.lives_on_while_b_has_it(60, true);
    assert_eq!(a.state().unwrap(), "fin");

    a.wait(Duration::from_secs(30));
    a.tell();
    assert_eq!(a.says(), inquiry(1));
    a.hears(B, &standing(1, RecordState::Closed));
    assert_eq!(a.state().unwrap(), "closed");
}

#[test]
fn an_idle_connection_that_nobody_answers_for_is_forgotten_when_its_time_is_over() {
    let mut a = with_a_connection(1);

    a.lives_on_while_b_has_it(89, false);
    assert_eq!(a.state().unwrap(), "established");
    a.lives_on_while_b_has_it(2, false);

    assert_eq!(a.state(), None);
}

#[test]
fn what_is_not_silent_is_not_asked_about() {
    let mut a = with_a_connection(1);
    for _ in 0..100 {
        a.wait(Duration::from_secs(20));
        a.tell();
        assert_eq!(a.segment(PORT, A, Tcp::Ack), forwarded_to(B));
        assert_eq!(a.says(), []);
    }
}

#[test]
fn a_dead_real_server_is_not_asked() {
    let mut a = with_a_connection(1);
    a.update.peers[0].alive = false;

    a.lives_on_while_b_has_it(80, false);

    assert_eq!(a.says(), []);
}

#[test]
fn of_what_it_translated_a_director_sees_both_halves_and_asks_nobody() {
    let translated = |service| ServiceReport { method: ForwardingMethod::Nat, ..service };
    let nat_ports = PortRange::new(61_000, 61_999);
    let mut a = NodeA::with_settings(|settings| {
        settings.services = vec![translated(web(A))];
        settings.nat_ports = nat_ports;
    });
    a.update.this.load = LoadPermille(HOT);
    a.update.this.services = vec![translated(web(A))];
    a.update.peers[0].nat_ports = nat_ports;
    a.tell();
    assert!(matches!(a.segment(PORT, A, Tcp::Syn(1)), Verdict::Nat(_)));
    a.segment(PORT, A, Tcp::Ack);

    a.hears(B, &Message::Ended(vec![flow_to(A)]));
    assert_eq!(a.says(), []);
    a.lives_on_while_b_has_it(80, false);

    assert_eq!(a.says(), []);
}

#[test]
fn a_real_server_tells_the_director_three_times_or_until_it_asks() {
    let mut a = NodeA::with_loads(HOT, IDLE, 800);
    let told = (B, Message::Ended(vec![flow_to(B)]));

    a.hears_of_end(B, DELIVERY_B);
    assert_eq!(a.says(), std::slice::from_ref(&told));
    a.wait(Duration::from_millis(250));
    assert_eq!(a.says(), std::slice::from_ref(&told));
    a.wait(Duration::from_millis(250));
    assert_eq!(a.says(), std::slice::from_ref(&told));
    a.wait(Duration::from_millis(250));
    assert_eq!(a.says(), []);

    a.hears_of_end(B, DELIVERY_B);
    assert_eq!(a.says(), [told]);
    let of_a = Record { flow: flow_to(B), real_server: id(A), ..record(1, RecordState::Established) };
    a.hears(B, &Message::Inquiry(vec![of_a]));
    let closed = Record { state: RecordState::Closed, ..of_a };
    assert_eq!(a.says(), [(B, Message::Standing(vec![closed]))]);
    a.wait(Duration::from_millis(250));
    assert_eq!(a.says(), []);
}

#[test]
fn a_real_server_says_which_connections_it_still_has() {
    let mut a = NodeA::with_loads(HOT, IDLE, 800);
    a.sockets.0.push(PORT);
    let of_a = Record { flow: flow_to(B), real_server: id(A), ..record(1, RecordState::Established) };
    let of_b = record(1, RecordState::Established);

    a.hears(B, &Message::Inquiry(vec![of_a, of_b]));

    assert_eq!(a.says(), [(B, Message::Standing(vec![of_a]))]);
}

#[test]
fn a_real_server_whose_sockets_are_not_on_this_host_says_nothing_of_connections() {
    let mut a = NodeA::with_loads(HOT, IDLE, 800);
    let of_a = Record { flow: flow_to(B), real_server: id(A), ..record(1, RecordState::Established) };
    let inquiry = Message::Inquiry(vec![of_a]);
    a.hears(B, &inquiry);
    assert_eq!(a.says(), []);

    // Another one's socket was here.
    let other = SocketAddr::from((CLIENT, PORT + 1));
    a.director.note_ended(SocketAddr::from((DELIVERY_B, 80)), other);
    a.says();
    a.hears(B, &inquiry);

    assert_eq!(a.says(), [(B, Message::Standing(vec![Record { state: RecordState::Closed, ..of_a }]))]);
}

#[test]
fn ends_of_what_a_node_serves_for_itself_or_for_no_service_are_nobody_s_business() {
    let mut a = NodeA::with_loads(IDLE, HOT, HOT);

    a.hears_of_end(A, DELIVERY_A);
    a.hears_of_end(A, A);
    a.hears_of_end(STRANGER, STRANGER);

    assert_eq!(a.says(), []);
}

#[test]
fn another_data_plane_is_asked_for_what_it_knows_and_told_what_came_of_it() {
    let mut a = NodeA::with_loads(HOT, IDLE, 800);
    let entry = EntryView { real_server: id(B), state: TcpState::Established, generation: 9 };
    let settled = |is_over| Settled { flow: flow_to(A), generation: 9, real_server: id(B), is_over };

    a.hears(B, &Message::Ended(vec![flow_to(A)]));
    a.director.take_up_doubts(&mut |flow| (*flow == flow_to(A)).then_some(entry));
    assert_eq!(a.says(), inquiry(9));
    a.hears(B, &standing(9, RecordState::Closed));
    assert_eq!(a.director.poll_settled(), Some(settled(true)));

    let silence = |seconds: u64| {
        dpr_conntrack::Silence::of(Duration::from_secs(900), Duration::from_secs(900 - seconds))
    };
    a.director.note_silence(&flow_to(A), entry, silence(29), a.now);
    assert_eq!(a.says(), []);
    a.director.note_silence(&flow_to(A), entry, silence(30), a.now);
    assert_eq!(a.says(), inquiry(9));
    a.hears(B, &standing(9, RecordState::Established));
    assert_eq!(a.director.poll_settled(), Some(settled(false)));
    assert_eq!(a.director.poll_settled(), None);
}

#[test]
fn a_reset_says_whose_connection_has_ended_where_its_socket_does_not() {
    let mut a = NodeA::with_loads(HOT, IDLE, 800);
    let reply = |rst: bool| {
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(DELIVERY_B.octets(), CLIENT.octets(), 64);
        let tcp = ip.tcp(80, PORT, 1, 1).ack(2);
        let mut bytes = Vec::new();
        if rst { tcp.rst() } else { tcp }.write(&mut bytes, &[]).unwrap();
        parse_ip(&bytes, 14).unwrap()
    };

    a.director.handle_reply(&reply(false), 1);
    assert_eq!(a.says(), []);
    a.director.handle_reply(&reply(true), 1);

    assert_eq!(a.says(), [(B, Message::Ended(vec![flow_to(B)]))]);
}
