//! The straight way of most packets: a segment that carries on a connection which this node has forwarded.
//!
//! Such a segment needs none of the questions of the [pipeline](crate::pipeline) but three: which service, which real
//! server, how to get there. What changes with updates only is made into two small tables at each update; all else is
//! left to the pipeline, which would say the same about every packet that goes straight. This module decides nothing.

use crate::director::{Arrival, Director};
use crate::sending::room_in_tunnel;
use crate::words::{WordMap, node_word, socket_word};
use dpr_model::{
    Encapsulation, Forward, ForwardingMethod, HopBudget, Protocol, ServiceReport, Timestamp, Verdict,
};
use dpr_rewrite::tcp::flag;
use dpr_rewrite::{Kind, Network, Parsed, Version};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

/// Control bits that say whether a segment only carries a connection on, and how they then are.
const TELLING: u8 = flag::SYN | flag::FIN | flag::RST | flag::ACK;
const CARRIES_ON: u8 = flag::ACK;

/// What a packet has to know in order to go straight.
#[derive(Debug)]
pub(crate) struct StraightWays {
    /// Of services whose packets go in a tunnel, and nothing else is to be known about them.
    tunnel_by_service: WordMap<Encapsulation>,
    way_by_peer: WordMap<Way>,
}

/// To a peer.
#[derive(Clone, Copy, Debug)]
struct Way {
    address: Ipv4Addr,
    /// Largest IP packet in a tunnel on it, by [`Encapsulation`], bytes.
    rooms: [u16; 2],
}

impl StraightWays {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            tunnel_by_service: WordMap::new(Encapsulation::Ipip),
            way_by_peer: WordMap::new(Way { address: Ipv4Addr::UNSPECIFIED, rooms: [0; 2] }),
        }
    }
}

impl Director {
    /// What has to happen to a frame, if it goes straight.
    #[inline(always)]
    pub(crate) fn send_straight(&mut self, arrival: &Arrival<'_>, now: Timestamp) -> Option<Verdict> {
        let Parsed::Ip(frame) = arrival.parsed else { return None };
        let (None, Network::V4(ip), Kind::Tcp(tcp)) = (&frame.outer, &frame.packet.ip, &frame.packet.kind)
        else {
            return None;
        };
        if tcp.flags() & TELLING != CARRIES_ON {
            return None;
        }
        let service = SocketAddrV4::new(ip.destination(), tcp.destination_port());
        let encapsulation = *self.straight.tunnel_by_service.get(socket_word(Protocol::Tcp, service))?;
        let client = SocketAddrV4::new(ip.source(), tcp.source_port());
        let server = self.table.carry_on(client, service, now)?;
        let way = self.straight.way_by_peer.get(node_word(server))?;
        if arrival.wire_len > usize::from(way.rooms[encapsulation as usize]) {
            return None;
        }
        self.counters.count_forwarded(arrival.packets);
        Some(Verdict::Forward(Forward {
            encapsulation,
            from: self.address,
            to: IpAddr::V4(way.address),
            hops: HopBudget::SPENT,
            decapsulate: 0,
            fragment: None,
        }))
    }

    /// Finds out anew what may go straight, after services, peers or the policy have changed.
    pub(crate) fn find_straight_ways(&mut self) {
        let Self { straight, ownership, own_services, peers, .. } = self;
        // A flow may be one that a peer has translated; and without a table none is known.
        let may_be =
            self.address.is_ipv4() && !peers.some_peer_translates() && !self.policy_kind.is_stateless();
        straight.tunnel_by_service.begin(if may_be { own_services.len() } else { 0 });
        straight.way_by_peer.begin(if may_be { peers.ways().len() } else { 0 });
        if !may_be {
            return;
        }
        for ServiceReport { protocol, socket, .. } in own_services {
            let Some(service) = ownership.undivided(*protocol, *socket) else { continue };
            let SocketAddr::V4(socket) = SocketAddr::new(socket.address, socket.port) else { continue };
            let is_tunnelled = matches!(service.method, ForwardingMethod::Ipip | ForwardingMethod::Gue);
            if service.owner.node == self.node && is_tunnelled && !service.is_persistent {
                let word = socket_word(*protocol, socket);
                straight.tunnel_by_service.insert(word, service.method.encapsulation());
            }
        }
        for (node, address, seen_mtu) in peers.ways() {
            let IpAddr::V4(address) = address else { continue };
            let rooms = [Encapsulation::Ipip, Encapsulation::Gue]
                .map(|encapsulation| room_in_tunnel((self.mtu, seen_mtu), encapsulation, Version::V4));
            straight.way_by_peer.insert(node_word(node), Way { address, rooms });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DeliveryRanges, LocalSockets, Peer, PersistenceSettings, PolicyKind, Settings, ThisNode, Update,
    };
    use dpr_model::{
        Candidate, Capacity, ClientSocket, Incarnation, LoadPermille, NodeId, NodeState, PortRange,
        ServiceReport, ServiceSocket, SourceFilters, Weight,
    };
    use dpr_rewrite::parse;
    use fastrand::Rng;
    use std::time::Duration;

    struct NoSockets;

    impl LocalSockets for NoSockets {
        fn holds(&mut self, _protocol: Protocol, _local: ServiceSocket, _client: ClientSocket) -> bool {
            false
        }
    }

    const METHODS: [ForwardingMethod; 4] =
        [ForwardingMethod::Ipip, ForwardingMethod::Gue, ForwardingMethod::Dr, ForwardingMethod::Nat];

    fn address(number: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, number).into()
    }

    fn web(number: u8, method: ForwardingMethod) -> ServiceReport {
        let socket = ServiceSocket { address: address(number), port: 80 };
        ServiceReport { method, ..ServiceReport::new(Protocol::Tcp, socket) }
    }

    fn director(method: ForwardingMethod) -> Director {
        Director::new(Settings {
            node: NodeId::from_address(address(0)),
            address: address(0),
            delivery_ranges: DeliveryRanges::default(),
            services: vec![web(0, method)],
            answer_for: vec![],
            mtu: 1500,
            nat_ports: PortRange::new(40_000, 41_000),
            conntrack: dpr_conntrack::Config { capacity: 64, ..dpr_conntrack::Config::with_seed([1, 2]) },
            persistence: PersistenceSettings::default(),
            seed: 7,
        })
    }

    /// What an ordinary day brings: loads change, a peer translates for a while, another policy is tried.
    fn any_update(method: ForwardingMethod, rng: &mut Rng) -> Update {
        let peer = |number: u8, rng: &mut Rng| Peer {
            candidate: Candidate {
                node: NodeId::from_address(address(number)),
                address: address(number),
                load: LoadPermille(rng.u16(100..900)),
                capacity: Capacity::new(1000),
                weight: Weight::ORDINARY,
                outstanding: 0,
            },
            state: NodeState::Active,
            alive: rng.u8(..8) > 0,
            incarnation: Incarnation(1),
            report_interval: Duration::from_millis(100),
            acknowledged: Some(0),
            services: [web(number, method)].into(),
            nat_ports: PortRange::new(30_000, 30_003).filter(|_| rng.u8(..8) == 0),
            mtu: [None, Some(1400), Some(9000)][rng.usize(..3)],
            source_filters: SourceFilters::default(),
        };
        let peers_max = rng.u8(2..4);
        Update {
            this: ThisNode {
                state: NodeState::Active,
                load: LoadPermille(900),
                capacity: Capacity::new(1000),
                weight: Weight::ORDINARY,
                services: vec![web(0, method)],
            },
            peers: (1..=peers_max).map(|number| peer(number, rng)).collect(),
            external: vec![],
            frozen: false,
            policy: if rng.u8(..8) == 0 { PolicyKind::Stateless } else { PolicyKind::LocalEstimates },
            maxload: LoadPermille(700),
        }
    }

    /// A segment from one of a few sockets, most often one that carries on.
    fn any_frame(rng: &mut Rng) -> Vec<u8> {
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([198, 51, 100, 7], [192, 0, 2, rng.u8(..8) / 7], rng.u8(1..4))
            .tcp(30_000 + rng.u16(..6), if rng.u8(..16) == 0 { 81 } else { 80 }, rng.u32(..3), 1000);
        let builder = match rng.u8(..24) {
            0..=2 => builder.syn(),
            3 => builder.ack(1).fin(),
            4 => builder.rst(),
            5 => builder,
            _ => builder.ack(1),
        };
        let mut frame = Vec::new();
        builder.write(&mut frame, &vec![0; rng.usize(..3) * 700]).expect("a vector takes everything");
        frame
    }

    #[test]
    fn what_goes_straight_goes_as_on_the_journey() {
        let mut straight = 0;
        for seed in 0..64 {
            let mut rng = Rng::with_seed(seed);
            let method = METHODS[rng.usize(..METHODS.len())];
            let [mut shortened, mut plain] = [director(method), director(method)];
            let mut now = Timestamp::from_millis(1_000_000);
            for step in 0..600 {
                if step % 40 == 0 {
                    let update = any_update(method, &mut rng);
                    for director in [&mut shortened, &mut plain] {
                        director.update(&update, now);
                    }
                }
                let longest_ms = if rng.u8(..20) == 0 { 1_000_000 } else { 50 };
                now = now + Duration::from_millis(rng.u64(..longest_ms));
                let frame = any_frame(&mut rng);
                let parsed = parse(&frame).expect("the frame is sound");
                let arrival = Arrival { parsed: &parsed, wire_len: frame.len() - 14, packets: rng.u32(1..3) };

                let expected = plain.send_on_the_journey(arrival, &mut NoSockets, now);
                let sent = shortened.send_straight(&arrival, now);

                straight += u32::from(sent.is_some());
                let verdict =
                    sent.unwrap_or_else(|| shortened.send_on_the_journey(arrival, &mut NoSockets, now));
                assert_eq!(verdict, expected, "seed {seed}, step {step}, {method:?}");
                assert_eq!(shortened.counters(), plain.counters(), "seed {seed}, step {step}");
            }
            let connections = [&shortened, &plain].map(|director| {
                let mut all: Vec<_> = director.connections(now).collect();
                all.sort_by_key(|connection| connection.flow);
                all
            });
            assert_eq!(connections[0], connections[1], "seed {seed}");
        }
        assert!(straight > 400, "only {straight} packets went straight");
    }
}
