//! The network between nodes, and between them and their clients: what it loses, delays, doubles and mixes up.

use crate::names::Host;
use dpr_model::{NodeId, Timestamp};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How well packets travel. The default is a good data centre: 100 µs, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// Packets lost, permille.
    pub loss_permille: u16,
    /// Shortest time on the way.
    pub delay: Duration,
    /// Added to it at random, up to this. Packets on one path stay in order.
    pub jitter: Duration,
    /// Packets that arrive twice, permille.
    pub duplicate_permille: u16,
    /// Packets that are overtaken, permille.
    pub reorder_permille: u16,
    /// How much later overtaken packets and second copies arrive, at most.
    pub straggle_max: Duration,
}

impl Default for Quality {
    fn default() -> Self {
        Self {
            loss_permille: 0,
            delay: Duration::from_micros(100),
            jitter: Duration::ZERO,
            duplicate_permille: 0,
            reorder_permille: 0,
            straggle_max: Duration::ZERO,
        }
    }
}

impl Quality {
    /// True if copies of one packet that go different ways arrive at one time, and none of them twice.
    pub(crate) fn keeps_pace(&self) -> bool {
        self.jitter.is_zero() && self.duplicate_permille == 0 && self.reorder_permille == 0
    }
}

/// When copies of a packet arrive: none, one or two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrivals {
    pub(crate) first: Option<Timestamp>,
    pub(crate) second: Option<Timestamp>,
}

/// Every path.
#[derive(Debug)]
pub(crate) struct Network {
    /// Between nodes.
    pub(crate) inside: Quality,
    /// Between nodes and clients.
    pub(crate) outside: Quality,
    cuts: BTreeSet<(Host, Host)>,
    group_by_node: BTreeMap<NodeId, usize>,
    last_arrival: BTreeMap<(Host, Host), Timestamp>,
    rng: Rng,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            inside: Quality::default(),
            outside: Quality::default(),
            cuts: BTreeSet::new(),
            group_by_node: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            rng: Rng::with_seed(seed),
        }
    }

    /// Nothing arrives any more that `from` sends to `to`; the other direction works on.
    pub(crate) fn cut(&mut self, from: Host, to: Host) {
        self.cuts.insert((from, to));
    }

    /// Undoes [`Self::cut`].
    pub(crate) fn mend(&mut self, from: Host, to: Host) {
        self.cuts.remove(&(from, to));
    }

    /// Nodes of different groups do not hear each other; nodes of no group are in one of their own together. The witness is
    /// with the first group.
    pub(crate) fn partition(&mut self, groups: &[Vec<NodeId>]) {
        self.group_by_node.clear();
        for (group, nodes) in groups.iter().enumerate() {
            self.group_by_node.extend(nodes.iter().map(|node| (*node, group)));
        }
    }

    /// All cuts and partitions are over.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.group_by_node.clear();
    }

    /// True if everybody reaches everybody, but for what gets lost.
    pub(crate) fn is_whole(&self) -> bool {
        self.cuts.is_empty() && self.group_by_node.is_empty()
    }

    /// When a packet that is sent at `now` arrives.
    pub(crate) fn carry(&mut self, from: Host, to: Host, now: Timestamp) -> Arrivals {
        let quality = match (from, to) {
            (Host::Node(_), Host::Node(_)) => self.inside,
            (Host::Outside | Host::Witness, _) | (_, Host::Outside | Host::Witness) => self.outside,
        };
        if self.is_cut(from, to) || self.happens(quality.loss_permille) {
            return Arrivals::default();
        }
        let arrival = now + quality.delay + self.up_to(quality.jitter);
        let second =
            self.happens(quality.duplicate_permille).then(|| arrival + self.up_to(quality.straggle_max));
        if self.happens(quality.reorder_permille) {
            return Arrivals { first: Some(arrival + self.up_to(quality.straggle_max)), second };
        }
        let last = self.last_arrival.entry((from, to)).or_insert(arrival);
        *last = arrival.max(*last);
        Arrivals { first: Some(*last), second }
    }

    /// When the answer to a question of `now` arrives, if it does.
    pub(crate) fn ask(&mut self, from: Host, to: Host, now: Timestamp) -> Option<Timestamp> {
        let asked = self.carry(from, to, now).first?;
        self.carry(to, from, asked).first
    }

    fn is_cut(&self, from: Host, to: Host) -> bool {
        let parted = match (from, to) {
            (Host::Node(from), Host::Node(to)) => {
                self.group_by_node.get(&from) != self.group_by_node.get(&to)
            }
            (Host::Node(node), Host::Witness) | (Host::Witness, Host::Node(node)) => {
                self.group_by_node.get(&node).is_some_and(|group| *group > 0)
            }
            (Host::Outside | Host::Witness, _) | (_, Host::Outside) => false,
        };
        parted || self.cuts.contains(&(from, to))
    }

    fn happens(&mut self, permille: u16) -> bool {
        permille > 0 && self.rng.u16(..1000) < permille
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let most_ns = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(if most_ns == 0 { 0 } else { self.rng.u64(..=most_ns) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Host = Host::Node(NodeId(1));
    const TWO: Host = Host::Node(NodeId(2));

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let mut network = Network::new(1);
        network.inside.jitter = Duration::from_millis(5);
        let arrive = |network: &mut Network, sent_ms| {
            network.carry(ONE, TWO, Timestamp::from_millis(sent_ms)).first.unwrap()
        };

        let ordered: Vec<_> = (0..100).map(|ms| arrive(&mut network, ms)).collect();
        network.inside =
            Quality { reorder_permille: 300, straggle_max: Duration::from_millis(20), ..network.inside };
        let mixed: Vec<_> = (100..200).map(|ms| arrive(&mut network, ms)).collect();

        assert!(ordered.is_sorted());
        assert!(!mixed.is_sorted());
    }

    #[test]
    fn a_cut_is_one_way_and_a_partition_is_not() {
        let mut network = Network::new(1);
        let now = Timestamp::from_millis(1);
        let reaches = |network: &mut Network, from, to| network.carry(from, to, now).first.is_some();

        network.cut(ONE, TWO);
        assert!(!reaches(&mut network, ONE, TWO) && reaches(&mut network, TWO, ONE));
        network.heal();
        network.partition(&[vec![NodeId(1)], vec![NodeId(2)]]);

        assert!(!reaches(&mut network, ONE, TWO) && !reaches(&mut network, TWO, ONE));
        assert!(reaches(&mut network, Host::Outside, TWO));
    }

    #[test]
    fn the_share_of_lost_and_doubled_packets_is_as_asked_for() {
        let mut network = Network::new(7);
        network.outside.loss_permille = 200;
        network.outside.duplicate_permille = 100;

        let arrivals: Vec<_> =
            (0..10_000).map(|ms| network.carry(Host::Outside, ONE, Timestamp::from_millis(ms))).collect();

        let lost = arrivals.iter().filter(|arrivals| arrivals.first.is_none()).count();
        let doubled = arrivals.iter().filter(|arrivals| arrivals.second.is_some()).count();
        assert!((1850..2150).contains(&lost) && (700..900).contains(&doubled), "{lost} {doubled}");
    }
}
