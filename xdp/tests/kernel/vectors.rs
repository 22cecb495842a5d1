//! The vectors of `tests/vectors`, shown to the programs.
//!
//! `left-to-user-space.txt` beside this lists every vector that the programs do not do by themselves, and why. Whatever is
//! not in it has to leave them as the table says. `DPR_BLESS=1` writes the list, to be read by whoever commits it.

use crate::world::Kernel;
use dpr_director::Settings;
use dpr_model::{DropReason, Forward, MacAddress, Timestamp, Verdict};
use dpr_rewrite::{ethernet, protocol};
use dpr_sim::edits::{Out, Way};
use dpr_vectors::{DirectorExecutor, Executor, NODE_MAC, Outcome, Scene, Sockets, Table, run};
use dpr_xdp::abi::{Counters, TICK_SHIFT};
use dpr_xdp::{Connections, Host, Mirror, NextHop, Sizes};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

const SIZES: Sizes = Sizes { flows: 64, half_open: 64 };
const LOOPBACK: u32 = 1;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_DROP: u32 = 2;
const ETHERNET_LEN: usize = ethernet::HEADER_LEN;
/// MAC addresses of nodes begin so; the last four bytes of their addresses follow.
const OF_NODES: [u8; 2] = [2, 7];

pub(crate) fn all() {
    let tables = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/tables");
    let list = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/kernel/left-to-user-space.txt");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(tables).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut kernel = KernelExecutor::load();
    let (mut left, mut wrong, mut agreed) = (Vec::new(), Vec::new(), 0);
    for path in files {
        let table = Table::parse(&std::fs::read_to_string(path).unwrap());
        for vector in &table.vectors {
            kernel.why_left = None;
            let outcome = run(&table, vector, &mut kernel);
            match kernel.why_left {
                Some(why) => left.push(format!("{}: {}", why, vector.name)),
                None if outcome == (vector.verdict.clone(), vector.out.clone()) => agreed += 1,
                None => wrong.push(format!(
                    "{}\n  said {:?} {:?}\n  is {outcome:?}",
                    vector.name, vector.verdict, vector.out
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "{} vectors:\n{}", wrong.len(), wrong.join("\n"));
    left.sort();
    let text = format!(
        "# {agreed} vectors are the programs' own; these {} are not.\n{}\n",
        left.len(),
        left.join("\n")
    );
    if std::env::var_os("DPR_BLESS").is_some() {
        std::fs::write(&list, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&list).unwrap(), text);
}

/// Shows frames to the programs, and to a director for the words of its verdicts.
struct KernelExecutor {
    kernel: Kernel,
    reference: DirectorExecutor,
    told: Option<Told>,
    /// Whether seconds have passed.
    has_aged: bool,
    /// Why the vector is none for the programs.
    why_left: Option<&'static str>,
}

/// What the maps were filled from.
struct Told {
    director: dpr_director::Director,
    mirror: Mirror,
    settings: Settings,
    now: Timestamp,
}

impl KernelExecutor {
    fn load() -> Self {
        Self {
            kernel: Kernel::load(SIZES),
            reference: DirectorExecutor::default(),
            told: None,
            has_aged: false,
            why_left: None,
        }
    }

    fn write(&mut self) {
        let told = self.told.as_mut().expect("it has begun");
        let counts = self.kernel.tables.counts(told.mirror.numbers_end()).unwrap();
        let timeouts = told.settings.conntrack.timeouts;
        let host = Host {
            mac: NODE_MAC,
            shared_macs: &[],
            routers: [Some(NODE_MAC); 2],
            timeouts,
            boot_time_ns: u64::MAX / 2,
            now: told.now,
            flow_seed: 0,
        };
        let content = told.mirror.content(&told.director.view(), &counts, &host, next_hop);
        if content.left_out > 0 {
            self.why_left.get_or_insert("the cluster needs what programs cannot do");
        }
        self.kernel.tables.write(&content).unwrap();
    }

    /// The kernel's clock goes on by itself only: instead, deadlines come closer.
    fn age(&mut self, by: Duration) {
        self.has_aged |= !by.is_zero();
        let ticks = (by.as_nanos() >> TICK_SHIFT) as u32;
        for connections in Connections::ALL {
            for (flow, mut entry) in self.kernel.tables.connections(connections, usize::MAX).unwrap() {
                entry.deadline = entry.deadline.wrapping_sub(ticks);
                self.kernel.tables.insert(connections, &flow, &entry).unwrap();
            }
        }
    }

    fn outcome(&mut self, reference: &Outcome, before: &Counters, ran: &Ran<'_>) -> Outcome {
        if matches!(reference.verdict, Verdict::Forward(Forward { fragment: Some(_), .. })) {
            self.why_left.get_or_insert("would be cut");
        }
        if is_fragment(ran.frame) && self.has_aged {
            self.why_left.get_or_insert("waits for the kernel's clock");
        }
        let after = self.kernel.tables.counters().unwrap();
        let counted = |reason: &&DropReason| after.dropped(**reason) > before.dropped(**reason);
        if let Some(reason) = DropReason::ALL.iter().find(counted) {
            return Outcome { verdict: Verdict::Drop(*reason), out: vec![] };
        }
        if ran.was_dropped {
            self.why_left.get_or_insert("not let out");
            return Outcome { verdict: Verdict::Pass, out: vec![] };
        }
        let delivered = |counters: &Counters| counters.packets_delivered + counters.packets_received;
        if ran.out == ran.frame && delivered(&after) == delivered(before) {
            if reference.verdict != Verdict::Pass {
                self.why_left.get_or_insert("handed up");
            }
            return Outcome { verdict: Verdict::Pass, out: vec![] };
        }
        Outcome { verdict: reference.verdict, out: vec![self.out_of(ran.out, ran.way)] }
    }

    /// What leaves, and where it goes by its addresses.
    fn out_of(&self, frame: &[u8], way: Option<Way>) -> Out {
        if frame[12..14] == [0x08, 0x06] {
            return Out { way: Way::Link, bytes: frame.to_vec() };
        }
        let packet = &frame[ETHERNET_LEN..];
        let destination = match packet[0] >> 4 {
            4 => IpAddr::from(<[u8; 4]>::try_from(&packet[16..20]).unwrap()),
            _ => IpAddr::from(<[u8; 16]>::try_from(&packet[24..40]).unwrap()),
        };
        let told = self.told.as_ref().expect("it has begun");
        let view = told.director.view();
        let node = view.peers.iter().map(|peer| peer.address).find(|node| mac_of(*node).0 == frame[..6]);
        let way = way.unwrap_or(match node {
            Some(node) if node != destination => Way::Neighbour(node),
            _ => Way::Route(destination),
        });
        Out { way, bytes: packet.to_vec() }
    }
}

/// What a program did.
struct Ran<'a> {
    frame: &'a [u8],
    out: &'a [u8],
    was_dropped: bool,
    /// Where to, unless the frame says it.
    way: Option<Way>,
}

impl Executor for KernelExecutor {
    fn begin(&mut self, scene: &Scene, now: Timestamp) {
        self.reference.begin(scene, now);
        self.has_aged = false;
        self.kernel.tables.clear().unwrap();
        let mirror = Mirror::new(scene.settings.node);
        let director = scene.director(now);
        self.told = Some(Told { director, mirror, settings: scene.settings.clone(), now });
        self.write();
    }

    fn tell(&mut self, scene: &Scene, now: Timestamp) {
        self.reference.tell(scene, now);
        let told = self.told.as_mut().expect("it has begun");
        told.director.update(&scene.update, now);
        let passed = now.since(told.now);
        told.now = now;
        self.age(passed);
        self.write();
    }

    fn receive(&mut self, frame: &[u8], sockets: &Sockets, now: Timestamp) -> Outcome {
        if !sockets.is_empty() {
            self.why_left.get_or_insert("it needs sockets");
        }
        let reference = self.reference.receive(frame, sockets, now);
        let before = self.kernel.tables.counters().unwrap();
        let run = self.kernel.programs.run(frame).unwrap();
        let was_dropped = run.action == XDP_DROP;
        let way = (run.action == XDP_PASS).then_some(Way::Stack);
        self.outcome(&reference, &before, &Ran { frame, out: &run.frame, was_dropped, way })
    }

    fn reply(&mut self, frame: &[u8], now: Timestamp) -> Outcome {
        let reference = self.reference.reply(frame, now);
        let before = self.kernel.tables.counters().unwrap();
        let run = self.kernel.programs.run_reply(frame).unwrap();
        self.outcome(
            &reference,
            &before,
            &Ran { frame, out: &run.frame, was_dropped: run.action == TC_DROP, way: None },
        )
    }
}

fn is_fragment(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0x00] => frame.get(20..22).is_some_and(|field| (field[0] & 0x3f, field[1]) != (0, 0)),
        [0x86, 0xdd] => frame.get(20) == Some(&protocol::FRAGMENT),
        _ => false,
    }
}

fn next_hop(address: IpAddr) -> Option<NextHop> {
    Some(NextHop { link: LOOPBACK, source: NODE_MAC, destination: mac_of(address) })
}

fn mac_of(node: IpAddr) -> MacAddress {
    let [.., a, b, c, d] = match node {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    MacAddress([OF_NODES[0], OF_NODES[1], a, b, c, d])
}
