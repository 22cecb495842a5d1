//! A virtual network of gossiping nodes: virtual time, seeded loss and delay, no sockets.

use dpr_load_gossip::{Action, Config, Destination, Gossip, Keyring};
use dpr_model::{Capacity, Incarnation, LoadPermille, LoadReport, NodeId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Gossip port of every node.
const PORT: u16 = 7946;

/// What a node told its shell, when.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) at: Timestamp,
    pub(crate) observer: NodeId,
    pub(crate) action: Action,
}

/// N gossips on one virtual wire.
pub(crate) struct Network {
    now: Timestamp,
    nodes: BTreeMap<NodeId, Gossip>,
    in_flight: BTreeMap<(Timestamp, u64), Flight>,
    flights: u64,
    random: Random,
    /// Lost datagrams per receiver, permille.
    pub(crate) loss_permille: u64,
    /// Longest delay; every datagram takes between zero and this.
    pub(crate) delay_max: Duration,
    /// Whether the wire carries multicast.
    pub(crate) multicast_works: bool,
    /// Nodes that nothing reaches and nothing leaves.
    pub(crate) cut_off: BTreeSet<NodeId>,
    /// Everything that nodes told their shells.
    pub(crate) events: Vec<Event>,
    /// Unicast datagrams sent since the start.
    pub(crate) unicast_sent: u64,
}

struct Flight {
    from: NodeId,
    to: NodeId,
    bytes: Vec<u8>,
}

impl Network {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            now: Timestamp::from_millis(1_000_000),
            nodes: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            flights: 0,
            random: Random(seed),
            loss_permille: 0,
            delay_max: Duration::from_millis(1),
            multicast_works: true,
            cut_off: BTreeSet::new(),
            events: Vec::new(),
            unicast_sent: 0,
        }
    }

    /// Adds nodes 1 to `count`, started within one interval of each other.
    pub(crate) fn with_nodes(mut self, count: u32) -> Self {
        for id in 1..=count {
            self.start(Config::new(NodeId(id), Incarnation(1)), NodeId(id), 1);
            let pause_ms = self.random.below(100 / u64::from(count) + 1);
            self.run_for(Duration::from_millis(pause_ms));
        }
        self
    }

    /// Starts a node, or starts it anew in the life `incarnation`.
    pub(crate) fn start(&mut self, config: Config, node: NodeId, incarnation: u64) {
        let mut gossip = Gossip::new(config, self.now);
        gossip.set_report(&report_of(node, incarnation)).expect("the report is valid");
        self.nodes.insert(node, gossip);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn node(&mut self, id: u32) -> &mut Gossip {
        self.nodes.get_mut(&NodeId(id)).expect("the node was started")
    }

    pub(crate) fn kill(&mut self, id: u32) {
        self.nodes.remove(&NodeId(id));
    }

    pub(crate) fn set_keyring(&mut self, id: u32, keyring: Keyring) {
        self.node(id).set_keyring(keyring);
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.fire_timers();
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.deliver();
            self.fire_timers();
        }
        self.now = end;
    }

    /// Which peers `id` believes to be alive.
    pub(crate) fn alive_for(&mut self, id: u32) -> Vec<u32> {
        let now = self.now;
        self.node(id).peers(now).filter(|peer| peer.alive).map(|peer| peer.report.node.0).collect()
    }

    fn next_event(&self) -> Option<Timestamp> {
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        self.nodes.values().filter_map(Gossip::poll_timeout).chain(arrival).min()
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.in_flight.first_entry()
            && entry.key().0 <= self.now
        {
            let Flight { from, to, bytes } = entry.remove();
            if let Some(gossip) = self.nodes.get_mut(&to) {
                // Refusals are counted by the gossip; tests look at its counters.
                let _ = gossip.handle_datagram(socket_of(from), &bytes, self.now);
            }
        }
    }

    fn fire_timers(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let gossip = self.nodes.get_mut(&id).expect("nothing stops a node here");
            if gossip.poll_timeout().is_some_and(|at| at <= self.now) {
                gossip.handle_timeout(self.now);
            }
            while let Some(action) = self.nodes.get_mut(&id).and_then(Gossip::poll_action) {
                self.perform(id, action);
            }
        }
    }

    fn perform(&mut self, id: NodeId, action: Action) {
        match action {
            Action::Send { to: Destination::Groups, bytes } => {
                if self.multicast_works {
                    let receivers: Vec<NodeId> = self.nodes.keys().copied().collect();
                    // The sender's own datagram comes back: multicast loop.
                    receivers.into_iter().for_each(|to| self.launch(id, to, &bytes));
                }
            }
            Action::Send { to: Destination::Peer(socket), bytes } => {
                self.unicast_sent += 1;
                self.launch(id, node_at(socket), &bytes);
            }
            action => self.events.push(Event { at: self.now, observer: id, action }),
        }
    }

    fn launch(&mut self, from: NodeId, to: NodeId, bytes: &[u8]) {
        let is_cut = from != to && (self.cut_off.contains(&from) || self.cut_off.contains(&to));
        let is_lost = from != to && self.random.below(1000) < self.loss_permille;
        if is_cut || is_lost {
            return;
        }
        let delay_max_us = u64::try_from(self.delay_max.as_micros()).expect("delays are short");
        let delay = Duration::from_micros(self.random.below(delay_max_us + 1));
        self.flights += 1;
        let flight = Flight { from, to, bytes: bytes.to_vec() };
        self.in_flight.insert((self.now + delay, self.flights), flight);
    }
}

/// An ordinary report.
pub(crate) fn report_of(node: NodeId, incarnation: u64) -> LoadReport {
    LoadReport {
        name: format!("node-{}", node.0),
        load: LoadPermille(300),
        ..LoadReport::new(node, Incarnation(incarnation), address_of(node), Capacity::new(100))
    }
}

pub(crate) fn address_of(node: NodeId) -> IpAddr {
    let [_, b, c, d] = node.0.to_be_bytes();
    Ipv4Addr::new(10, b, c, d).into()
}

pub(crate) fn socket_of(node: NodeId) -> SocketAddr {
    SocketAddr::new(address_of(node), PORT)
}

fn node_at(socket: SocketAddr) -> NodeId {
    let IpAddr::V4(v4) = socket.ip() else { panic!("the virtual network is IPv4") };
    let [_, b, c, d] = v4.octets();
    NodeId(u32::from_be_bytes([0, b, c, d]))
}

/// Xorshift64* (Vigna 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
