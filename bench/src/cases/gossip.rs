//! Gossip: authenticate and apply reports, tell the data plane, and all that a second of a large cluster costs.

use super::Turn;
use crate::fixture::{LIFE, NOW, address, director, id, service};
use dpr_director::{Director, PolicyKind, ThisNode, Update};
use dpr_load_gossip::{Action, Config, Destination, Gossip, Key, Keyring};
use dpr_model::{
    Capacity, LoadPermille, LoadReport, Metric, MetricSample, NodeState, ReceivedFrom, Timestamp, Weight,
};
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

/// Peers of a large cluster.
const PEERS: u32 = 500;
/// Between two reports of a node.
const INTERVAL: Duration = Duration::from_millis(100);
/// How often the event loop tells the data plane, at most (`UPDATE_PAUSE` of the daemon).
const UPDATE_EVERY: Duration = Duration::from_millis(20);
/// Reports that come in a second.
const REPORTS_PER_SECOND: usize = PEERS as usize * 10;
/// Directors that give every node connections between two of its reports, so that each report acknowledges them.
const ACKNOWLEDGED: u32 = 8;
/// Reports of each peer until it has introduced itself and goes on briefly.
const INTRODUCTION: u64 = 3;
/// Shared by the cluster.
const SECRET: [u8; 32] = [7; 32];

/// A report of one of 500 peers: its tag is checked, it is read and entered in the peer load table.
pub(super) fn hear_reports(turns: usize) -> Turn {
    let mut network = Network::new(turns);
    Box::new(move |_| network.next_report())
}

/// The peer load table of 500 peers is made into what the data plane is told, and the director takes it over.
pub(super) fn update_data_plane(_turns: usize) -> Turn {
    let network = Network::new(0);
    let mut director = director(PEERS, 1 << 16);
    Box::new(move |_| tell(&mut director, &network.gossip, network.now))
}

/// All that gossip costs a node of 501 in a second: 5,000 reports in, ten out, timers, the data plane told every 20 ms.
pub(super) fn second_among_500(turns: usize) -> Turn {
    let mut network = Network::new(turns * REPORTS_PER_SECOND);
    let mut director = director(PEERS, 1 << 16);
    Box::new(move |_| {
        let end = network.now + Duration::from_secs(1);
        let (mut update_at, mut report_at) = (network.now, network.now);
        while network.now < end {
            network.next_report();
            if network.now >= report_at {
                network.gossip.set_report(&report(0, 1)).expect("the report is in bounds");
                report_at = network.now + INTERVAL;
            }
            network.do_what_is_due();
            if network.now >= update_at {
                tell(&mut director, &network.gossip, network.now);
                update_at = network.now + UPDATE_EVERY;
            }
        }
    })
}

/// Node 0 and what the others will say to it.
struct Network {
    gossip: Gossip,
    now: Timestamp,
    /// In the order of their arrival.
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// How many have arrived.
    arrived: usize,
}

impl Network {
    /// A node to which every peer has introduced itself, and `reports` reports to come: what the peers' own gossip makes
    /// of their load, full and brief ones.
    fn new(reports: usize) -> Self {
        let mut gossip = Gossip::new(config(0), NOW);
        let mut peers: Vec<Gossip> = (1..=PEERS).map(|peer| Gossip::new(config(peer), NOW)).collect();
        for round in 1..=INTRODUCTION {
            for (from, bytes) in say_all(&mut peers, round) {
                gossip.handle_datagram(from, &bytes, NOW).expect("a first report is welcome");
            }
        }
        while gossip.poll_action().is_some() {}
        let rounds = reports.div_ceil(PEERS as usize) as u64;
        let later = INTRODUCTION + 1..=INTRODUCTION + rounds;
        Self {
            gossip,
            now: NOW,
            datagrams: later.flat_map(|round| say_all(&mut peers, round)).collect(),
            arrived: 0,
        }
    }

    fn next_report(&mut self) {
        self.now = self.now + INTERVAL / PEERS;
        let (from, bytes) = &self.datagrams[self.arrived];
        self.arrived += 1;
        self.gossip.handle_datagram(*from, bytes, self.now).expect("a fresh report is accepted");
    }

    fn do_what_is_due(&mut self) {
        if self.gossip.poll_timeout().is_some_and(|deadline| self.now >= deadline) {
            self.gossip.handle_timeout(self.now);
        }
        while let Some(action) = self.gossip.poll_action() {
            black_box(action);
        }
    }
}

fn tell(director: &mut Director, gossip: &Gossip, now: Timestamp) {
    let update = Update {
        this: ThisNode {
            state: NodeState::Active,
            load: LoadPermille(900),
            capacity: Capacity::new(10_000),
            weight: Weight::ORDINARY,
            services: vec![service(0)],
        },
        peers: gossip.peers(now).map(|view| view.to_peer(None)).collect(),
        external: Vec::new(),
        frozen: gossip.frozen(),
        policy: PolicyKind::LocalEstimates,
        maxload: LoadPermille(700),
    };
    director.update(&update, now);
}

fn config(node: u32) -> Config {
    Config::new(id(node), LIFE).with_keyring(Keyring::new(Key::new(&SECRET), None))
}

fn socket(node: u32) -> SocketAddr {
    SocketAddr::new(address(node).into(), 7946)
}

/// What all peers multicast in a round.
fn say_all(peers: &mut [Gossip], round: u64) -> Vec<(SocketAddr, Vec<u8>)> {
    let said = (1..).zip(peers).map(|(node, peer)| {
        peer.set_report(&report(node, round)).expect("the report is in bounds");
        peer.send_now(NOW + INTERVAL * round as u32);
        let sent = std::iter::from_fn(|| peer.poll_action()).find_map(|action| match action {
            Action::Send { to: Destination::Groups, bytes } => Some(bytes.to_vec()),
            _ => None,
        });
        (socket(node), sent.expect("a report is multicast"))
    });
    said.collect()
}

/// An ordinary node's report: every metric, one service, some acknowledgements.
fn report(node: u32, round: u64) -> LoadReport {
    let load = LoadPermille(400 + (round % 100) as u16);
    LoadReport {
        name: format!("web-{node}"),
        load,
        metrics: Metric::ALL.map(|metric| MetricSample { metric, load }).to_vec(),
        services: vec![service(node)],
        received: (0..ACKNOWLEDGED)
            .map(|nth| ReceivedFrom { director: id(nth * 7), incarnation: LIFE, connections: 1000 + round })
            .collect(),
        ..LoadReport::new(id(node), LIFE, address(node).into(), Capacity::new(10_000))
    }
}
