//! One node's gossip on a workbench: what its peers say is given to it datagram by datagram.

use dpr_load_gossip::message::{self, EncodedReport, Header, Via};
use dpr_load_gossip::{Action, Config, DatagramError, Gossip, Keyring};
use dpr_model::{Capacity, Incarnation, LoadPermille, LoadReport, NodeId, Timestamp};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

pub(crate) const ME: NodeId = NodeId(1);
pub(crate) const PEER: NodeId = NodeId(2);
pub(crate) const LIFE: Incarnation = Incarnation(10);

/// A node under test and the words of its peers.
pub(crate) struct Bench {
    pub(crate) gossip: Gossip,
    pub(crate) now: Timestamp,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Config::new(ME, LIFE))
    }

    pub(crate) fn with(config: Config) -> Self {
        let now = Timestamp::from_millis(50);
        Self { gossip: Gossip::new(config, now), now }
    }

    pub(crate) fn hear(&mut self, report: &LoadReport, sequence: u64) -> Result<(), DatagramError> {
        self.hear_via(Via::Multicast, report, sequence)
    }

    pub(crate) fn hear_via(
        &mut self,
        via: Via,
        report: &LoadReport,
        sequence: u64,
    ) -> Result<(), DatagramError> {
        let bytes = datagram(via, report, sequence, &Keyring::unauthenticated());
        self.gossip.handle_datagram(socket(report.node), &bytes, self.now)
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.gossip.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.gossip.handle_timeout(self.now);
        }
        self.now = end;
    }

    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.gossip.poll_action()).collect()
    }

    pub(crate) fn weight_of(&self, node: NodeId) -> u16 {
        self.gossip.peer(node, self.now).expect("the peer is known").slow_start_weight.0
    }

    pub(crate) fn rejected(&self, reason: &str) -> u64 {
        self.gossip.counters().rejected[reason]
    }
}

pub(crate) fn datagram(via: Via, report: &LoadReport, sequence: u64, keyring: &Keyring) -> Vec<u8> {
    let header = Header { via, sender: report.node, incarnation: report.incarnation, sequence };
    let encoded = EncodedReport::new(report, Duration::from_millis(100)).expect("the report is in bounds");
    message::encode(&header, &encoded, &report.received, keyring)
}

pub(crate) fn socket(node: NodeId) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + node.0).into(), 7946)
}

pub(crate) fn report(node: NodeId, incarnation: Incarnation) -> LoadReport {
    LoadReport {
        name: "peer".to_owned(),
        load: LoadPermille(400),
        ..LoadReport::new(node, incarnation, socket(node).ip(), Capacity::new(500))
    }
}

pub(crate) fn peer() -> LoadReport {
    report(PEER, LIFE)
}
