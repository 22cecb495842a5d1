//! How far packets travel, and that what comes back is what the client asked for, whatever each node believes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use dpr_model::{HopBudget, Verdict};
use dpr_rewrite::{Kind, Parsed, parse, parse_ip};
use dpr_sim::edits::Way;
use dpr_vectors::{DirectorExecutor, Executor, Outcome, Sockets, Table, describe_packet, frame_of};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

const NODES: usize = 4;
/// A packet's hop limit bounds how often it can be translated anew.
const MOVES_MAX: usize = 64;
const METHODS: [&str; 4] = ["ipip", "gue", "nat", "dr"];

/// What one node believes of another.
#[derive(Clone, Debug)]
struct Belief {
    known: bool,
    alive: bool,
    load: u16,
    nat: bool,
    method: usize,
    /// Takes itself for the home of the other's service address.
    claims_its_address: bool,
}

fn belief() -> impl Strategy<Value = Belief> {
    (
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.9),
        0..1000u16,
        any::<bool>(),
        0..4usize,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(known, alive, load, nat, method, claims_its_address)| Belief {
            known,
            alive,
            load,
            nat,
            method,
            claims_its_address,
        })
}

fn node(number: usize, ipv6: bool) -> String {
    if ipv6 { format!("2001:db8::{}", number + 10) } else { format!("192.0.2.{}", number + 10) }
}

fn service(number: usize, ipv6: bool) -> String {
    if ipv6 { format!("2001:db8:5::{}", number + 10) } else { format!("203.0.113.{}", number + 10) }
}

fn socket(address: &str) -> String {
    if address.contains(':') { format!("[{address}]:80") } else { format!("{address}:80") }
}

/// Versions of node addresses and of services.
#[derive(Clone, Copy, Debug)]
struct Versions {
    nodes: bool,
    services: bool,
}

struct Network {
    versions: Versions,
    executors: Vec<DirectorExecutor>,
}

impl Network {
    /// `beliefs[n][m]` is what node n believes of node m; of itself, load and method.
    fn new(versions: Versions, protocol: &str, beliefs: &[Vec<Belief>]) -> Self {
        let executors = (0..NODES).map(|this| {
            let own = &beliefs[this][this];
            let name = node(this, versions.nodes);
            let mut text = format!("cluster c\n  node {name} load={} nat=61000-61999\n", own.load);
            let say = |home: &str, address: usize, method: usize| {
                let socket = socket(&service(address, versions.services));
                format!("  service {home} {protocol} {socket} {}\n", METHODS[method])
            };
            text += &say("here", this, own.method);
            for other in (0..NODES).filter(|other| *other != this) {
                let belief = &beliefs[this][other];
                if belief.claims_its_address {
                    text += &say("here", other, belief.method);
                }
                if belief.known {
                    let peer = node(other, versions.nodes);
                    let (dead, nat) = (
                        if belief.alive { "" } else { " dead" },
                        if belief.nat { " nat=61000-61999" } else { "" },
                    );
                    text += &format!("  peer {peer} load={}{dead}{nat}\n", belief.load);
                    text += &say(&peer, other, belief.method);
                }
            }
            let mut executor = DirectorExecutor::default();
            executor.begin(
                &Table::parse(&text).clusters["c"].scene(),
                dpr_model::Timestamp::from_millis(1_000_000),
            );
            executor
        });
        Self { versions, executors: executors.collect() }
    }

    fn node_at(&self, address: IpAddr) -> Option<usize> {
        let is_at = |number: &usize| {
            let names = [node(*number, self.versions.nodes), service(*number, self.versions.services)];
            names.iter().any(|name| name.parse::<IpAddr>().unwrap() == address)
        };
        (0..NODES).find(is_at)
    }

    fn receive(&mut self, node: usize, frame: &[u8]) -> Outcome {
        let now = dpr_model::Timestamp::from_millis(1_000_000);
        self.executors[node].receive(frame, &Sockets::new(), now)
    }

    /// Follows a frame that arrives at `node` until it leaves the cluster, reaches a stack or ends; says where.
    fn follow(&mut self, mut node: usize, mut frame: Vec<u8>) -> Result<End, TestCaseError> {
        let (mut tunnels, mut was_direct) = (0, false);
        for _ in 0..MOVES_MAX {
            let was_spent = matches!(parse(&frame), Ok(Parsed::Ip(ip)) if ip.outer.is_some_and(|outer| outer.hops.is_spent()));
            let Outcome { verdict, out } = self.receive(node, &frame);
            match verdict {
                Verdict::Forward(forward) => {
                    tunnels += 1;
                    prop_assert!(!was_spent && !was_direct, "{:?} goes on from node {}", verdict, node);
                    prop_assert!(
                        tunnels + forward.hops.get() <= HopBudget::FRESH.get(),
                        "{} tunnels",
                        tunnels
                    );
                }
                Verdict::Direct { .. } | Verdict::Nat(_) => {
                    prop_assert!(!was_spent && !was_direct, "{:?} goes on from node {}", verdict, node);
                    was_direct = matches!(verdict, Verdict::Direct { .. });
                    // A new packet to whoever does not know its sender; its hop limit goes on.
                    tunnels = 0;
                }
                _ => {}
            }
            let Some(out) = out.into_iter().next() else { return Ok(End::Nowhere) };
            let to = match out.way {
                Way::Stack => return Ok(End::Stack(node, out.bytes)),
                Way::Link => return Ok(End::Nowhere),
                Way::Route(to) | Way::Neighbour(to) => to,
            };
            let Some(next) = self.node_at(to) else { return Ok(End::Outside(out.bytes)) };
            (node, frame) = (next, framed(&out.bytes));
        }
        Err(TestCaseError::fail("the packet goes round and round"))
    }
}

#[derive(Debug)]
enum End {
    Stack(usize, Vec<u8>),
    Outside(Vec<u8>),
    Nowhere,
}

fn framed(packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&[2; 12], &ethertype[..], packet].concat()
}

/// The ends of a segment or datagram.
fn ends(packet: &[u8]) -> (SocketAddr, SocketAddr) {
    let packet = parse_ip(packet, 0).unwrap().packet;
    let (from, to) = match packet.kind {
        Kind::Tcp(header) => (header.source_port(), header.destination_port()),
        Kind::Udp(header) => (header.source_port, header.destination_port),
        kind => panic!("{kind:?}"),
    };
    (SocketAddr::new(packet.ip.source(), from), SocketAddr::new(packet.ip.destination(), to))
}

fn line(from: SocketAddr, to: SocketAddr, protocol: &str, flags: &str) -> String {
    format!("ip {} > {} / {protocol} {} > {} {flags}", from.ip(), to.ip(), from.port(), to.port())
}

prop_compose! {
    fn packets()(
        at in 0..NODES,
        home in 0..NODES,
        // A client, or somebody who pretends to be a node.
        source in prop_oneof![3 => Just(None), 1 => (0..NODES).prop_map(Some)],
        port in prop_oneof![1 => 1000..1004u16, 1 => 61_000..61_004u16],
        flags in prop::sample::select(&["syn", "ack", "fin ack", "rst"][..]),
        ttl in prop_oneof![5 => Just(64u8), 1 => 1..4u8],
        tunnel in prop::option::of((0..NODES, 0..16u8, any::<bool>())),
    ) -> (usize, usize, Option<usize>, u16, &'static str, u8, Option<(usize, u8, bool)>) {
        (at, home, source, port, flags, ttl, tunnel)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_packet_goes_on_without_hops_whatever_nodes_believe_and_strangers_forge(
        (nodes, services, udp) in any::<(bool, bool, bool)>(),
        beliefs in prop::collection::vec(prop::collection::vec(belief(), NODES), NODES),
        packets in prop::collection::vec(packets(), 60),
    ) {
        let versions = Versions { nodes, services };
        let protocol = if udp { "udp" } else { "tcp" };
        let mut network = Network::new(versions, protocol, &beliefs);
        for (at, home, source, port, flags, ttl, tunnel) in packets {
            let client = if services { "2001:db8:7::7" } else { "198.51.100.7" };
            let from = source.map_or(client.to_owned(), |forged| {
                if nodes == services { node(forged, nodes) } else { service(forged, services) }
            });
            let flags = if udp { "len=9" } else { flags };
            let inner = format!("ip {from} > {} ttl={ttl} / {protocol} {port} > 80 {flags}", service(home, services));
            let line = match tunnel {
                Some((through, hops, gue)) => {
                    let kind = if gue { "gue" } else { "ipip" };
                    format!("{kind} {} > {} hops={hops} / {inner}", node(through, nodes), node(at, nodes))
                }
                None => inner,
            };
            network.follow(at, frame_of(&line))?;
        }
    }

    #[test]
    fn a_request_and_its_answer_have_the_ends_that_the_client_knows(
        (nodes, services, udp) in any::<(bool, bool, bool)>(),
        method in 0..4usize,
        loads in prop::collection::vec(0..1000u16, NODES),
        (at, home) in (0..NODES, 0..NODES),
        ports in prop::collection::vec(1000..2000u16, 1..20),
    ) {
        let versions = Versions { nodes, services };
        let protocol = if udp { "udp" } else { "tcp" };
        let belief = |load| Belief { known: true, alive: true, load, nat: true, method, claims_its_address: false };
        let beliefs = vec![loads.iter().map(|load| belief(*load)).collect::<Vec<_>>(); NODES];
        let mut network = Network::new(versions, protocol, &beliefs);
        let client: IpAddr = if services { "2001:db8:7::7" } else { "198.51.100.7" }.parse().unwrap();
        let service: SocketAddr = socket(&service(home, services)).parse().unwrap();
        // What comes in astray cannot be told from what came by direct routing.
        let at = if METHODS[method] == "dr" { home } else { at };
        for port in ports {
            let client = SocketAddr::new(client, port);
            let request = line(client, service, protocol, if udp { "len=9" } else { "syn mss=1460" });
            let End::Stack(server, delivered) = network.follow(at, frame_of(&request))? else {
                return Err(TestCaseError::fail("the request is not delivered"));
            };
            let said = describe_packet(&delivered);
            prop_assert!(!said.contains("BAD-"), "{}", said);
            let (peer, local) = ends(&delivered);
            let answer = frame_of(&line(local, peer, protocol, if udp { "len=99" } else { "syn ack mss=1460" }));
            let now = dpr_model::Timestamp::from_millis(1_000_000);
            let out = network.executors[server].reply(&answer, now).out.into_iter().next();
            let out = out.ok_or(TestCaseError::fail("the answer is not sent"))?;
            let answer = match out.way {
                Way::Route(to) => match network.node_at(to) {
                    Some(director) => match network.follow(director, framed(&out.bytes))? {
                        End::Outside(answer) => answer,
                        end => return Err(TestCaseError::fail(format!("the answer ends at {end:?}"))),
                    },
                    None => out.bytes,
                },
                way => return Err(TestCaseError::fail(format!("the answer goes to {way:?}"))),
            };
            let said = describe_packet(&answer);
            prop_assert!(!said.contains("BAD-"), "{}", said);
            prop_assert_eq!(ends(&answer), (service, client));
        }
    }
}
