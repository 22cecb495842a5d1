//! The pipeline and a model of it that is as naive as it can be: no tables, no clocks, only what was promised.
//!
//! What happens is said by [`Operation`]s; whoever draws them at random or reads them out of bytes is a caller.

mod model;

pub use model::Carrying;

use crate::{DirectorExecutor, Executor, Scene, Sockets, Table, frame_of};
use dpr_model::{LoadPermille, Timestamp, Verdict};
use model::{A, CLIENT_TIMEOUT_S, Entry, Fate, Model, State, host_of, is_udp, step, timeout_s};
use std::collections::BTreeMap;
use std::time::Duration;

/// Labels of the forwarding methods that the model knows.
pub const METHODS: [&str; 4] = ["ipip", "gue", "nat", "dr"];

/// Something that happens to node A, or to what it knows.
#[derive(Clone, Debug)]
pub enum Operation {
    /// A client's packet for A's service.
    Direct {
        /// Which client.
        client: u8,
        /// What it sends.
        carrying: Carrying,
    },
    /// The same through a tunnel from B or C.
    Tunnelled {
        /// Which peer's.
        from: usize,
        /// Hops left.
        hops: u8,
        /// Which client.
        client: u8,
        /// What it sends.
        carrying: Carrying,
    },
    /// A packet for the service of B or C that came to A.
    Astray {
        /// Whose service.
        home: usize,
        /// Which client.
        client: u8,
        /// What it sends.
        carrying: Carrying,
    },
    /// A node reports another load.
    Load {
        /// Which node.
        node: usize,
        /// Permille, before it is made different from all others.
        load: u16,
    },
    /// A peer falls silent or comes back.
    Alive {
        /// Which peer.
        node: usize,
        /// Whether it is heard.
        alive: bool,
    },
    /// Most peers look bad, or no longer do.
    Freeze(bool),
    /// Time passes.
    Wait {
        /// How much.
        seconds: u16,
    },
}

/// Node addresses, and services by TCP and UDP, of nodes 0 to 2.
struct Names {
    nodes: [&'static str; 3],
    services: [&'static str; 3],
    /// Hosts of clients.
    clients: [&'static str; 2],
}

const NAMES: [Names; 2] = [
    Names {
        nodes: ["192.0.2.10", "192.0.2.11", "192.0.2.12"],
        services: ["203.0.113.10", "203.0.113.11", "203.0.113.12"],
        clients: ["198.51.100.7", "198.51.100.8"],
    },
    Names {
        nodes: ["2001:db8::10", "2001:db8::11", "2001:db8::12"],
        services: ["2001:db8:5::10", "2001:db8:5::11", "2001:db8:5::12"],
        clients: ["2001:db8:7::7", "2001:db8:7::8"],
    },
];

fn scene(method: &str, names: &Names, is_persistent: bool) -> Scene {
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
            let persistence = match is_persistent && (node, protocol) == (A, "tcp") {
                true => format!(" persistence={CLIENT_TIMEOUT_S}/128"),
                false => String::new(),
            };
            text += &format!("  service {home} {protocol} {socket} {method}{persistence}\n");
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
    let from = names.clients[usize::from(host_of(client))];
    let (to, port) = (names.services[home], 1000 + u16::from(client));
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

/// Node A's director, and the model that knows what has to become of every packet.
pub struct Run {
    method: &'static str,
    names: &'static Names,
    scene: Scene,
    executor: DirectorExecutor,
    model: Model,
    now: Timestamp,
}

impl Run {
    /// A and its peers; `method` is a forwarding method's label. With `is_persistent` A's TCP service keeps its clients on
    /// their real server.
    pub fn begin(method: &'static str, is_v6: bool, is_persistent: bool) -> Self {
        let names = &NAMES[usize::from(is_v6)];
        let scene = scene(method, names, is_persistent);
        let now = Timestamp::from_millis(1_000_000);
        let mut executor = DirectorExecutor::default();
        executor.begin(&scene, now);
        let model = Model {
            method,
            now_s: 0,
            entries: BTreeMap::new(),
            is_persistent,
            clients: BTreeMap::new(),
            fragments: BTreeMap::new(),
            loads: [99, 202, 203],
            alive: [true; 3],
            frozen: false,
        };
        let mut run = Self { method, names, scene, executor, model, now };
        run.tell();
        run
    }

    fn receive(&mut self, line: &str) -> Verdict {
        self.executor.receive(&frame_of(line), &Sockets::new(), self.now).verdict
    }

    /// Lets something happen.
    ///
    /// # Errors
    /// What the director said, where the model says something else.
    pub fn perform(&mut self, operation: &Operation) -> Result<(), String> {
        let Self { names, method, .. } = *self;
        match *operation {
            Operation::Direct { client, carrying } => {
                let expected = self.model.direct(client, carrying);
                let verdict = self.receive(&line(names, client, A, carrying));
                self.expect(verdict, expected)?;
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
                if !is_fate {
                    return Err(format!("{verdict:?} is not {expected:?}"));
                }
            }
            Operation::Astray { home, client, carrying } => {
                let verdict = self.receive(&line(names, client, home, carrying));
                let expected = if method == "dr" { Fate::Here } else { Fate::Owner(home, 1) };
                self.expect(verdict, expected)?;
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

    fn expect(&self, verdict: Verdict, expected: Fate) -> Result<(), String> {
        let is = fate(verdict, self.method, self.names);
        if is == expected { Ok(()) } else { Err(format!("{is:?} by {verdict:?}, not {expected:?}")) }
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
