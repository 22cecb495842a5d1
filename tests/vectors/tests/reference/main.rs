//! The pipeline against a model that is as naive as it can be: no tables, no clocks, only what was promised.
//!
//! `DPR_OPERATIONS` says how many random operations are tried; CI asks for a million.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;

use crate::model::{A, Carrying, Entry, Fate, Model, State, is_udp, step, timeout_s};
use dpr_model::{LoadPermille, Timestamp, Verdict};
use dpr_vectors::{DirectorExecutor, Executor, Scene, Sockets, Table, frame_of};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const OPERATIONS_PER_CASE: usize = 500;

#[derive(Clone, Debug)]
enum Operation {
    /// A client's packet for A's service.
    Direct {
        client: u8,
        carrying: Carrying,
    },
    /// The same through a tunnel from B or C.
    Tunnelled {
        from: usize,
        hops: u8,
        client: u8,
        carrying: Carrying,
    },
    /// A packet for the service of B or C that came to A.
    Astray {
        home: usize,
        client: u8,
        carrying: Carrying,
    },
    Load {
        node: usize,
        load: u16,
    },
    Alive {
        node: usize,
        alive: bool,
    },
    Freeze(bool),
    Wait {
        seconds: u16,
    },
}

fn carrying() -> impl Strategy<Value = Carrying> {
    prop_oneof![
        4 => (0..3u32).prop_map(Carrying::Syn),
        1 => Just(Carrying::SynAck),
        6 => Just(Carrying::Ack),
        2 => Just(Carrying::Fin),
        2 => Just(Carrying::Rst),
        4 => Just(Carrying::Datagram),
        2 => Just(Carrying::Error),
        1 => (0..3u8).prop_map(Carrying::FirstFragment),
        1 => (0..3u8).prop_map(Carrying::LaterFragment),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => (0..6u8, carrying()).prop_map(|(client, carrying)| Operation::Direct { client, carrying }),
        3 => (1..3usize, 0..2u8, 0..6u8, carrying())
            .prop_map(|(from, hops, client, carrying)| Operation::Tunnelled { from, hops, client, carrying }),
        1 => (1..3usize, 0..6u8, carrying())
            .prop_map(|(home, client, carrying)| Operation::Astray { home, client, carrying }),
        2 => (0..3usize, 0..1000u16).prop_map(|(node, load)| Operation::Load { node, load }),
        1 => (1..3usize, any::<bool>()).prop_map(|(node, alive)| Operation::Alive { node, alive }),
        1 => any::<bool>().prop_map(Operation::Freeze),
        2 => (0..400u16).prop_map(|seconds| Operation::Wait { seconds }),
    ]
}

/// Node addresses, and services by TCP and UDP, of nodes 0 to 2.
struct Names {
    nodes: [&'static str; 3],
    services: [&'static str; 3],
    client: &'static str,
}

const NAMES: [Names; 2] = [
    Names {
        nodes: ["192.0.2.10", "192.0.2.11", "192.0.2.12"],
        services: ["203.0.113.10", "203.0.113.11", "203.0.113.12"],
        client: "198.51.100.7",
    },
    Names {
        nodes: ["2001:db8::10", "2001:db8::11", "2001:db8::12"],
        services: ["2001:db8:5::10", "2001:db8:5::11", "2001:db8:5::12"],
        client: "2001:db8:7::7",
    },
];

fn scene(method: &str, names: &Names) -> Scene {
    let mut text = format!("cluster c\n  node {} load=100 nat=61000-61999 policy=lightest\n", names.nodes[A]);
    for node in 0..3 {
        let home = if node == A { "here" } else { names.nodes[node] };
        if node != A {
            text += &format!("  peer {home} load={} nat=61000-61999\n", 200 + node);
        }
        for protocol in ["tcp", "udp"] {
            let address = names.services[node];
            let socket =
                if address.contains(':') { format!("[{address}]:80") } else { format!("{address}:80") };
            text += &format!("  service {home} {protocol} {socket} {method}\n");
        }
    }
    let mut scene = Table::parse(&text).clusters["c"].scene();
    // What is on its way must not count: the model keeps no accounts.
    scene.update.this.capacity = dpr_model::Capacity::new(u32::MAX);
    for peer in &mut scene.update.peers {
        peer.candidate.capacity = dpr_model::Capacity::new(u32::MAX);
    }
    scene
}

fn line(names: &Names, client: u8, home: usize, carrying: Carrying) -> String {
    let (from, to, port) = (names.client, names.services[home], 1000 + u16::from(client));
    let tcp = |flags: &str| format!("ip {from} > {to} / tcp {port} > 80 {flags}");
    match carrying {
        Carrying::Syn(generation) => tcp(&format!("syn seq={generation}")),
        Carrying::SynAck => tcp("syn ack"),
        Carrying::Ack => tcp("ack"),
        Carrying::Fin => tcp("fin ack"),
        Carrying::Rst => tcp("rst"),
        Carrying::Datagram => format!("ip {from} > {to} / udp {port} > 80 len=9"),
        Carrying::Error => format!("ip {from} > {to} / unreachable / ip {to} > {from} / tcp 80 > {port} ack"),
        Carrying::FirstFragment(id) => {
            let id = u16::from(client) * 8 + u16::from(id);
            format!("ip {from} > {to} frag=0+:{id} upto=16 / udp {port} > 80 len=40")
        }
        Carrying::LaterFragment(id) => {
            let id = u16::from(client) * 8 + u16::from(id);
            format!("ip {from} > {to} frag=16:{id} / udp {port} > 80 len=40")
        }
    }
}

/// What a verdict means to the model.
fn fate(verdict: Verdict, method: &str, names: &Names) -> Fate {
    let node_at = |address: std::net::IpAddr| {
        let is_of = |name: &&str| name.parse::<std::net::IpAddr>().unwrap() == address;
        names.nodes.iter().position(&is_of).or(names.services.iter().position(is_of)).unwrap()
    };
    match verdict {
        Verdict::Deliver(_) => Fate::Here,
        Verdict::Forward(forward) if forward.hops.is_spent() && !["nat", "dr"].contains(&method) => {
            Fate::Server(node_at(forward.to))
        }
        Verdict::Forward(forward) => Fate::Owner(node_at(forward.to), forward.hops.get()),
        Verdict::Direct { to } if method == "dr" => Fate::Server(node_at(to)),
        Verdict::Nat(nat) if method == "nat" => Fate::Server(node_at(nat.ends.destination.unwrap().address)),
        Verdict::Drop(reason) => Fate::Drop(reason),
        verdict => panic!("{verdict:?} by {method}"),
    }
}

struct Run {
    method: &'static str,
    names: &'static Names,
    scene: Scene,
    executor: DirectorExecutor,
    model: Model,
    now: Timestamp,
}

impl Run {
    fn begin(method: &'static str, names: &'static Names) -> Self {
        let scene = scene(method, names);
        let now = Timestamp::from_millis(1_000_000);
        let mut executor = DirectorExecutor::default();
        executor.begin(&scene, now);
        let model = Model {
            method,
            now_s: 0,
            entries: BTreeMap::new(),
            fragments: BTreeMap::new(),
            loads: [99, 202, 203],
            alive: [true; 3],
            frozen: false,
        };
        Self { method, names, scene, executor, model, now }
    }

    fn receive(&mut self, line: &str) -> Verdict {
        self.executor.receive(&frame_of(line), &Sockets::new(), self.now).verdict
    }

    fn perform(&mut self, operation: &Operation) -> Result<(), TestCaseError> {
        let Self { names, method, .. } = *self;
        match *operation {
            Operation::Direct { client, carrying } => {
                let expected = self.model.direct(client, carrying);
                let verdict = self.receive(&line(names, client, A, carrying));
                prop_assert_eq!(fate(verdict, method, names), expected, "{:?}", verdict);
            }
            Operation::Tunnelled { from, hops, client, carrying } => {
                let tunnel = format!("ipip {} > {} hops={hops} / ", names.nodes[from], names.nodes[A]);
                let expected = if hops == 0 {
                    self.received(client, carrying)
                } else {
                    self.model.direct(client, carrying)
                };
                let verdict = self.receive(&(tunnel + &line(names, client, A, carrying)));
                let is_fate = match (verdict, expected) {
                    // What came in a tunnel goes on in one.
                    (Verdict::Direct { .. }, _) => false,
                    (Verdict::Forward(forward), Fate::Server(server)) if method == "dr" => {
                        forward.hops.is_spent()
                            && forward.to == names.nodes[server].parse::<std::net::IpAddr>().unwrap()
                    }
                    _ => fate(verdict, method, names) == expected,
                };
                prop_assert!(is_fate, "{:?} is not {:?}", verdict, expected);
            }
            Operation::Astray { home, client, carrying } => {
                let verdict = self.receive(&line(names, client, home, carrying));
                let expected = if method == "dr" { Fate::Here } else { Fate::Owner(home, 1) };
                prop_assert_eq!(fate(verdict, method, names), expected, "{:?}", verdict);
            }
            Operation::Load { node, load } => {
                // No two are ever equal.
                self.model.loads[node] = load * 3 + node as u16;
            }
            Operation::Alive { node, alive } => self.model.alive[node] = alive,
            Operation::Freeze(frozen) => self.model.frozen = frozen,
            Operation::Wait { seconds } => {
                self.now = self.now + Duration::from_secs(seconds.into());
                self.model.now_s += u64::from(seconds);
            }
        }
        self.tell();
        Ok(())
    }

    /// What a real server does with its own table: it only counts, but a flow that it knows as a director is touched.
    fn received(&mut self, client: u8, carrying: Carrying) -> Fate {
        let model = &mut self.model;
        let key = (client, is_udp(carrying));
        if matches!(carrying, Carrying::Error | Carrying::FirstFragment(_) | Carrying::LaterFragment(_)) {
            return Fate::Here;
        }
        let opens = matches!(carrying, Carrying::Syn(_) | Carrying::Datagram);
        let now_s = model.now_s;
        let known = model.known(client, key.1);
        match known.and_then(|mut entry| step(&mut entry, carrying, now_s).then_some(entry)) {
            Some(entry) => {
                model.entries.insert(key, entry);
                if !matches!(entry.state, State::HalfOpen | State::Udp) {
                    model.entries.remove(&key);
                }
            }
            None if opens => {
                let (state, generation) = match carrying {
                    Carrying::Syn(generation) => (State::HalfOpen, generation),
                    _ => (State::Udp, 0),
                };
                let until_s = now_s + timeout_s(state);
                model.entries.insert(key, Entry { server: A, state, generation, until_s });
            }
            None => {}
        }
        Fate::Here
    }

    fn tell(&mut self) {
        let model = &self.model;
        self.scene.update.this.load = LoadPermille(model.loads[A]);
        self.scene.update.frozen = model.frozen;
        for (position, peer) in self.scene.update.peers.iter_mut().enumerate() {
            peer.candidate.load = LoadPermille(model.loads[position + 1]);
            peer.alive = model.alive[position + 1];
        }
        self.executor.tell(&self.scene, self.now);
    }
}

fn cases() -> u32 {
    let operations = std::env::var("DPR_OPERATIONS").map_or(200_000, |value| value.parse().unwrap());
    u32::try_from(operations / OPERATIONS_PER_CASE).unwrap().max(1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn the_pipeline_does_what_the_naive_model_says(
        method in prop::sample::select(&["ipip", "gue", "nat", "dr"][..]),
        ipv6 in any::<bool>(),
        operations in prop::collection::vec(operation(), OPERATIONS_PER_CASE),
    ) {
        let mut run = Run::begin(method, &NAMES[usize::from(ipv6)]);
        run.tell();
        for (position, operation) in operations.iter().enumerate() {
            if let Err(error) = run.perform(operation) {
                return Err(TestCaseError::fail(format!("operation {position}, {operation:?}: {error}")));
            }
        }
    }
}
