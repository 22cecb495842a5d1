//! Gossip: authenticate and apply reports, tell the data plane, and all that a second of a large cluster costs.

use super::Turn;
use crate::fixture::{LIFE, NOW, address, director, id, service};
use dpr_director::{Director, PolicyKind, ThisNode, Update};
use dpr_load_gossip::message::{self, EncodedReport, Header, Via};
use dpr_load_gossip::{Config, Gossip, Key, Keyring};
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
/// Directors that a report acknowledges: those that gave the node connections lately.
const ACKNOWLEDGED: u32 = 8;
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
                network.gossip.set_report(&report(0)).expect("the report is in bounds");
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
    /// A node that has heard every peer once, and `reports` reports to come.
    fn new(reports: usize) -> Self {
        let config = Config::new(id(0), LIFE).with_keyring(keyring());
        let mut gossip = Gossip::new(config, NOW);
        for peer in 1..=PEERS {
            gossip.handle_datagram(socket(peer), &datagram(peer, 1), NOW).expect("a first report is welcome");
        }
        while gossip.poll_action().is_some() {}
        let reports = (0..reports as u32).map(|nth| {
            let (peer, sequence) = (nth % PEERS + 1, u64::from(nth / PEERS) + 2);
            (socket(peer), datagram(peer, sequence))
        });
        Self { gossip, now: NOW, datagrams: reports.collect(), arrived: 0 }
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

fn keyring() -> Keyring {
    Keyring::new(Key::new(&SECRET), None)
}

fn socket(node: u32) -> SocketAddr {
    SocketAddr::new(address(node).into(), 7946)
}

fn datagram(node: u32, sequence: u64) -> Vec<u8> {
    let header = Header { via: Via::Multicast, sender: id(node), incarnation: LIFE, sequence };
    let report = report(node);
    let encoded = EncodedReport::new(&report, INTERVAL).expect("the report is in bounds");
    message::encode(&header, &encoded, &report.received, &keyring())
}

/// An ordinary node's report: every metric, one service, some acknowledgements.
fn report(node: u32) -> LoadReport {
    LoadReport {
        name: format!("web-{node}"),
        load: LoadPermille(400),
        metrics: Metric::ALL.map(|metric| MetricSample { metric, load: LoadPermille(400) }).to_vec(),
        services: vec![service(node)],
        received: (0..ACKNOWLEDGED)
            .map(|nth| ReceivedFrom { director: id(nth * 7), incarnation: LIFE, connections: 1000 })
            .collect(),
        ..LoadReport::new(id(node), LIFE, address(node).into(), Capacity::new(10_000))
    }
}
