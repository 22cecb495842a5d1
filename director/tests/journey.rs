//! The journey of a packet, step by step: one node's director, frames written by etherparse, verdicts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use dpr_director::{
    Arrival, DeliveryRanges, Director, LEASE_MAX, LocalSockets, Peer, PolicyKind, Settings, ThisNode, Update,
};
use dpr_model::{
    Candidate, Capacity, ClientSocket, Delivery, DropReason, Forward, HopBudget, Incarnation, LoadPermille,
    NodeId, NodeState, Protocol, Reply, ServiceReport, ServiceSocket, Timestamp, Verdict, Weight,
};
use dpr_rewrite::{Encapsulation, FlowHash, Tunnel, parse, parse_ip};
use etherparse::PacketBuilder;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
const C: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 13);
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const START: Timestamp = Timestamp::from_millis(1_000_000);

const IDLE: u16 = 100;
const HOT: u16 = 900;

#[derive(Clone, Copy, PartialEq)]
enum Tcp {
    Syn(u32),
    Ack,
    Fin,
}

/// Sockets of the local TCP stack, as clients' ports.
#[derive(Default)]
struct Sockets(Vec<u16>);

impl LocalSockets for Sockets {
    fn holds(&mut self, _protocol: Protocol, _local: ServiceSocket, client: ClientSocket) -> bool {
        self.0.contains(&client.port)
    }
}

/// Node A, its director, and a clock.
struct NodeA {
    director: Director,
    sockets: Sockets,
    update: Update,
    now: Timestamp,
}

fn id(address: Ipv4Addr) -> NodeId {
    NodeId::from_address(IpAddr::V4(address))
}

fn web(address: Ipv4Addr) -> ServiceReport {
    let socket = ServiceSocket { address: IpAddr::V4(address), port: 80 };
    ServiceReport::new(Protocol::Tcp, socket)
}

fn peer(address: Ipv4Addr, load: u16) -> Peer {
    Peer {
        candidate: Candidate {
            node: id(address),
            address: IpAddr::V4(address),
            load: LoadPermille(load),
            capacity: Capacity::new(1000),
            weight: Weight::ORDINARY,
            outstanding: 0,
        },
        state: NodeState::Active,
        alive: true,
        incarnation: Incarnation(1),
        acknowledged: Some(0),
        services: vec![web(address)],
        nat_ports: None,
        mtu: None,
    }
}

impl NodeA {
    fn with_loads(own: u16, b: u16, c: u16) -> Self {
        let director = Director::new(Settings {
            node: id(A),
            address: IpAddr::V4(A),
            delivery_ranges: DeliveryRanges::default(),
            services: vec![web(A)],
            answer_for: vec![],
            mtu: 1500,
            nat_ports: None,
            conntrack: dpr_conntrack::Config { capacity: 64, ..dpr_conntrack::Config::with_seed([1, 2]) },
            seed: 7,
        });
        let this = ThisNode {
            state: NodeState::Active,
            load: LoadPermille(own),
            capacity: Capacity::new(1000),
            weight: Weight::ORDINARY,
            services: vec![web(A)],
        };
        let update = Update {
            this,
            peers: vec![peer(B, b), peer(C, c)],
            external: vec![],
            frozen: false,
            policy: PolicyKind::LocalEstimates,
            maxload: LoadPermille(700),
        };
        let mut node = Self { director, sockets: Sockets::default(), update, now: START };
        node.tell();
        node
    }

    /// The daemon's next update.
    fn tell(&mut self) {
        self.director.update(&self.update, self.now);
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.director.handle_timeout(self.now, usize::MAX);
    }

    fn receive(&mut self, frame: &[u8]) -> Verdict {
        self.receive_large(frame, None)
    }

    fn receive_large(&mut self, frame: &[u8], wire_len: Option<usize>) -> Verdict {
        let parsed = parse(frame).unwrap();
        let wire_len = wire_len.unwrap_or(frame.len() - 14);
        self.director.handle_frame(
            Arrival { parsed: &parsed, wire_len, packets: 1 },
            &mut self.sockets,
            self.now,
        )
    }

    /// A segment from the client's `port` to `service`, directly.
    fn segment(&mut self, port: u16, service: Ipv4Addr, tcp: Tcp) -> Verdict {
        self.receive(&frame(CLIENT, port, service, tcp, 0))
    }

    /// The same through a tunnel from `director`.
    fn tunnelled(
        &mut self,
        director: Ipv4Addr,
        hops: HopBudget,
        port: u16,
        service: Ipv4Addr,
        tcp: Tcp,
    ) -> Verdict {
        self.receive(&in_a_tunnel(director, hops, &frame(CLIENT, port, service, tcp, 0)))
    }
}

fn frame(client: Ipv4Addr, port: u16, service: Ipv4Addr, tcp: Tcp, data_len: usize) -> Vec<u8> {
    let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(client.octets(), service.octets(), 64);
    let builder = match tcp {
        Tcp::Syn(sequence) => ip.tcp(port, 80, sequence, 1000).syn(),
        Tcp::Ack => ip.tcp(port, 80, 5, 1000).ack(1),
        Tcp::Fin => ip.tcp(port, 80, 5, 1000).ack(1).fin(),
    };
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &vec![0; data_len]).unwrap();
    bytes
}

fn in_a_tunnel(director: Ipv4Addr, hops: HopBudget, inner: &[u8]) -> Vec<u8> {
    in_a_tunnel_of(Encapsulation::Ipip, director, hops, inner)
}

fn in_a_tunnel_of(
    encapsulation: Encapsulation,
    director: Ipv4Addr,
    hops: HopBudget,
    inner: &[u8],
) -> Vec<u8> {
    let tunnel = Tunnel { encapsulation, source: IpAddr::V4(director), destination: IpAddr::V4(A) };
    let packet = parse_ip(inner, 14).unwrap().packet;
    let mut bytes = vec![0; tunnel.overhead()];
    bytes.extend_from_slice(inner);
    let start =
        tunnel.encapsulate(&mut bytes, tunnel.overhead() + 14, hops, FlowHash::of(&packet, 0)).unwrap();
    let mut frame = inner[..14].to_vec();
    frame.extend_from_slice(&bytes[start..]);
    frame
}

fn here() -> Verdict {
    Verdict::Deliver(Delivery { to: Some(Ipv4Addr::new(169, 254, 64, 1).into()), decapsulate: 0 })
}

fn forwarded_to(address: Ipv4Addr) -> Verdict {
    Verdict::Forward(Forward {
        encapsulation: Encapsulation::Ipip,
        from: IpAddr::V4(A),
        to: IpAddr::V4(address),
        hops: HopBudget::SPENT,
        decapsulate: 0,
        fragment: None,
    })
}

#[test]
fn below_maxload_a_node_keeps_its_own_connections() {
    let mut node = NodeA::with_loads(IDLE, 0, 0);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
    assert_eq!(node.segment(1000, A, Tcp::Ack), here());
    assert_eq!(node.director.counters().connections_kept, 1);
}

#[test]
fn above_maxload_new_connections_go_to_the_lightest_and_stay_there() {
    let mut node = NodeA::with_loads(HOT, 500, IDLE);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(C));
    node.update.peers = vec![peer(B, 0), peer(C, HOT)];
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Ack), forwarded_to(C));
    assert_eq!(node.segment(1000, A, Tcp::Fin), forwarded_to(C));
}

#[test]
fn the_lightest_of_all_keeps_its_connections_even_above_maxload() {
    let mut node = NodeA::with_loads(HOT, 950, 960);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
}

#[test]
fn a_maxload_of_zero_leaves_the_decision_to_the_policy() {
    let mut node = NodeA::with_loads(IDLE, 0, 500);
    node.update.maxload = LoadPermille(0);
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(B));
}

#[test]
fn what_was_sent_counts_before_the_next_report() {
    let mut node = NodeA::with_loads(HOT, IDLE, IDLE);
    let to_b = (0..100).filter(|port| node.segment(*port, A, Tcp::Syn(1)) == forwarded_to(B)).count();
    assert!((49..=51).contains(&to_b), "{to_b} of 100 went to B");
}

#[test]
fn a_retransmitted_syn_gets_the_same_answer_whatever_the_load_is_now() {
    let mut node = NodeA::with_loads(IDLE, 0, 0);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
    node.update.this.load = LoadPermille(HOT);
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
    assert_ne!(node.segment(1001, A, Tcp::Syn(1)), here());
}

#[test]
fn a_kept_connection_has_no_entry_once_it_is_established() {
    let mut node = NodeA::with_loads(IDLE, 0, 0);
    node.segment(1000, A, Tcp::Syn(1));
    assert_eq!(node.director.conntrack_status().entries, 1);
    node.segment(1000, A, Tcp::Ack);
    assert_eq!(node.director.conntrack_status().entries, 0);
}

#[test]
fn a_late_duplicate_of_a_syn_does_not_move_an_established_connection() {
    let mut node = NodeA::with_loads(IDLE, 0, 0);
    node.segment(1000, A, Tcp::Syn(1));
    node.segment(1000, A, Tcp::Ack);
    node.sockets.0.push(1000);
    node.update.this.load = LoadPermille(HOT);
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
    assert_eq!(node.segment(1000, A, Tcp::Ack), here());
}

#[test]
fn a_syn_on_a_closing_connection_is_a_new_connection() {
    let mut node = NodeA::with_loads(HOT, 500, IDLE);
    node.segment(1000, A, Tcp::Syn(1));
    node.segment(1000, A, Tcp::Ack);
    node.segment(1000, A, Tcp::Fin);
    node.update.peers = vec![peer(B, 0), peer(C, HOT)];
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Syn(99)), forwarded_to(B));
}

#[test]
fn the_retransmission_of_a_syn_to_a_node_that_died_gets_a_better_answer() {
    let mut node = NodeA::with_loads(HOT, 500, IDLE);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(C));
    assert_eq!(node.segment(2000, A, Tcp::Syn(1)), forwarded_to(C));
    node.segment(2000, A, Tcp::Ack);
    node.update.peers[1].alive = false;
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(B));
    // An established one stays: perhaps only the reports are lost.
    assert_eq!(node.segment(2000, A, Tcp::Ack), forwarded_to(C));
}

#[test]
fn a_node_that_took_leave_is_forgotten_with_its_connections() {
    let mut node = NodeA::with_loads(HOT, 500, IDLE);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(C));
    assert_eq!(node.segment(1000, A, Tcp::Ack), forwarded_to(C));
    node.update.peers[1].state = NodeState::Leaving;
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Ack), forwarded_to(C));
    node.update.peers[1].alive = false;
    node.tell();
    // The local TCP stack resets it.
    assert_eq!(node.segment(1000, A, Tcp::Ack), here());
}

#[test]
fn a_late_copy_of_a_syn_does_not_move_a_connection_whose_server_is_suspected() {
    let mut node = NodeA::with_loads(HOT, 500, IDLE);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(C));
    assert_eq!(node.segment(1000, A, Tcp::Ack), forwarded_to(C));
    node.update.peers[1].alive = false;
    node.tell();

    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(C));
    assert_eq!(node.segment(1000, A, Tcp::Ack), forwarded_to(C));
    // Another generation is another connection, and gets a server that lives.
    assert_eq!(node.segment(1000, A, Tcp::Syn(99)), forwarded_to(B));
}

#[test]
fn dead_draining_weightless_and_unhealthy_nodes_are_not_chosen() {
    let cases: [fn(&mut Peer); 4] = [
        |peer| peer.alive = false,
        |peer| peer.state = NodeState::Draining,
        |peer| peer.candidate.weight = Weight(0),
        |peer| peer.services[0].healthy = false,
    ];
    for spoil in cases {
        let mut node = NodeA::with_loads(HOT, IDLE, 500);
        spoil(&mut node.update.peers[0]);
        node.tell();
        assert_eq!(node.segment(1000, A, Tcp::Syn(1)), forwarded_to(C));
    }
}

#[test]
fn a_draining_director_gives_its_new_connections_away_and_keeps_the_old() {
    let mut node = NodeA::with_loads(IDLE, IDLE, 500);
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
    node.update.this.state = NodeState::Draining;
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Ack), here());
    assert_eq!(node.segment(1001, A, Tcp::Syn(1)), forwarded_to(B));
    node.update.peers.clear();
    node.tell();
    assert_eq!(node.segment(1002, A, Tcp::Syn(1)), here());
}

#[test]
fn a_connection_is_not_given_to_the_node_that_is_its_client() {
    let mut node = NodeA::with_loads(HOT, IDLE, 500);
    let from_b = frame(B, 1000, A, Tcp::Syn(1), 0);
    assert_eq!(node.receive(&from_b), forwarded_to(C));
}

#[test]
fn a_silent_daemon_or_a_panic_freeze_keeps_new_connections_at_home() {
    let mut node = NodeA::with_loads(HOT, IDLE, IDLE);
    node.update.frozen = true;
    node.tell();
    assert_eq!(node.segment(1000, A, Tcp::Syn(1)), here());
    node.update.frozen = false;
    node.tell();
    let forwarded = node.segment(1001, A, Tcp::Syn(1));
    node.wait(LEASE_MAX + Duration::from_millis(1));
    assert_eq!(node.segment(1002, A, Tcp::Syn(1)), here());
    assert_eq!(node.segment(1001, A, Tcp::Ack), forwarded);
    assert!(!node.director.lease_is_valid(node.now));
}

#[test]
fn a_full_table_keeps_connections_at_home() {
    let mut node = NodeA::with_loads(HOT, IDLE, IDLE);
    for port in 0..64 {
        assert_ne!(node.segment(port, A, Tcp::Syn(1)), here());
        node.segment(port, A, Tcp::Ack);
    }
    assert_eq!(node.segment(64, A, Tcp::Syn(1)), here());
    assert_eq!(node.director.conntrack_status().refused_full, 1);
}

#[test]
fn a_packet_with_spent_hops_is_delivered_although_this_node_would_send_it_on() {
    let mut node = NodeA::with_loads(HOT, IDLE, IDLE);
    let verdict = node.tunnelled(B, HopBudget::SPENT, 1000, B, Tcp::Syn(1));
    let delivery = Ipv4Addr::new(169, 254, 64, 2);
    assert_eq!(verdict, Verdict::Deliver(Delivery { to: Some(delivery.into()), decapsulate: 20 }));
    assert_eq!(node.director.counters().loops_stopped, 1);
}

#[test]
fn received_connections_are_acknowledged_once_each() {
    let mut node = NodeA::with_loads(IDLE, HOT, IDLE);
    for _ in 0..3 {
        node.tunnelled(B, HopBudget::SPENT, 1000, B, Tcp::Syn(1));
    }
    node.tunnelled(B, HopBudget::SPENT, 1000, B, Tcp::Ack);
    node.tunnelled(B, HopBudget::SPENT, 1001, B, Tcp::Syn(1));
    let [acknowledged] = node.director.acknowledgements().try_into().unwrap();
    assert_eq!((acknowledged.director, acknowledged.connections), (id(B), 2));
    assert_eq!(node.director.counters().loops_stopped, 0);
}

#[test]
fn a_packet_that_may_hop_once_more_is_handed_to_the_owner_of_its_slot() {
    let mut node = NodeA::with_loads(IDLE, IDLE, IDLE);
    let once = HopBudget::FRESH.after_a_hop().unwrap();
    let verdict = node.tunnelled(C, once, 1000, B, Tcp::Syn(1));
    let Verdict::Forward(handed) = verdict else { panic!("{verdict:?}") };
    assert_eq!((handed.to, handed.hops, handed.decapsulate), (IpAddr::V4(B), HopBudget::SPENT, 20));
    // One that comes from outside may make two.
    let Verdict::Forward(fresh) = node.segment(1000, B, Tcp::Syn(1)) else { panic!() };
    assert_eq!(fresh.hops, once);
}

#[test]
fn tunnels_from_strangers_and_for_nothing_of_ours_are_dropped() {
    let mut node = NodeA::with_loads(IDLE, IDLE, IDLE);
    assert_eq!(
        node.tunnelled(STRANGER, HopBudget::SPENT, 1, A, Tcp::Syn(1)),
        Verdict::Drop(DropReason::TunnelFromStranger)
    );
    for hops in [HopBudget::SPENT, HopBudget::FRESH] {
        assert_eq!(
            node.tunnelled(B, hops, 1, STRANGER, Tcp::Syn(1)),
            Verdict::Drop(DropReason::TunnelUnknownService)
        );
    }
    let drops = node.director.counters().drops;
    assert_eq!((drops["tunnel-from-stranger"], drops["tunnel-unknown-service"]), (1, 2));
}

#[test]
fn what_is_no_service_of_the_cluster_is_not_touched() {
    let mut node = NodeA::with_loads(HOT, IDLE, IDLE);
    assert_eq!(node.segment(1000, STRANGER, Tcp::Syn(1)), Verdict::Pass);
    let mut ssh = frame(CLIENT, 1000, A, Tcp::Syn(1), 0);
    ssh[36..38].copy_from_slice(&22u16.to_be_bytes());
    assert_eq!(node.receive(&ssh), Verdict::Pass);
}

#[test]
fn ipv6_udp_echo_and_gue_are_not_this_directors_yet_and_stay_the_kernels() {
    let mut node = NodeA::with_loads(HOT, IDLE, IDLE);
    let ethernet = || PacketBuilder::ethernet2([2; 6], [4; 6]);
    let mut frames = vec![Vec::new(), Vec::new(), Vec::new()];
    ethernet().ipv6([1; 16], [2; 16], 64).tcp(1000, 80, 1, 1).syn().write(&mut frames[0], &[]).unwrap();
    ethernet().ipv4(CLIENT.octets(), A.octets(), 64).udp(1000, 80).write(&mut frames[1], &[1]).unwrap();
    let echo = ethernet().ipv4(CLIENT.octets(), A.octets(), 64).icmpv4_echo_request(1, 1);
    echo.write(&mut frames[2], &[]).unwrap();
    let syn = frame(CLIENT, 1000, A, Tcp::Syn(1), 0);
    frames.push(in_a_tunnel_of(Encapsulation::Gue, B, HopBudget::SPENT, &syn));
    for frame in frames {
        assert_eq!(node.receive(&frame), Verdict::Pass);
    }
}

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

#[test]
fn replies_get_the_address_that_the_client_knows() {
    let mut node = NodeA::with_loads(IDLE, IDLE, IDLE);
    let reply_from = |delivery: [u8; 4]| {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(delivery, CLIENT.octets(), 64);
        let mut bytes = Vec::new();
        builder.tcp(80, 1000, 1, 1).syn().ack(2).write(&mut bytes, &[]).unwrap();
        parse_ip(&bytes, 14).unwrap()
    };
    let to = IpAddr::V4(CLIENT);
    let own = node.director.handle_reply(&reply_from([169, 254, 64, 1]), 1);
    assert_eq!(own, Verdict::Reply(Reply { from: IpAddr::V4(A), to, mss_max: None }));
    let forwarded = node.director.handle_reply(&reply_from([169, 254, 64, 2]), 1);
    assert_eq!(forwarded, Verdict::Reply(Reply { from: IpAddr::V4(B), to, mss_max: Some(1440) }));
    let unknown = node.director.handle_reply(&reply_from([169, 254, 64, 77]), 1);
    assert_eq!(unknown, Verdict::Drop(DropReason::UnknownDelivery));
    let elsewhere = node.director.handle_reply(&reply_from([10, 0, 0, 1]), 1);
    assert_eq!(elsewhere, Verdict::Pass);
}

#[test]
fn the_stateless_policy_needs_no_entries() {
    let mut node = NodeA::with_loads(IDLE, IDLE, IDLE);
    node.update.policy = PolicyKind::Stateless;
    node.tell();
    let mut spread = std::collections::BTreeSet::new();
    for port in 0..50 {
        let first = node.segment(port, A, Tcp::Syn(1));
        assert_eq!(node.segment(port, A, Tcp::Ack), first);
        spread.insert(format!("{first:?}"));
    }
    assert_eq!(spread.len(), 3);
    assert_eq!(node.director.conntrack_status().entries, 0);
}
