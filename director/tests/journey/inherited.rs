//! A node's own address in others' hands: translated connections and clients that stay, as copies make them known.

use crate::scene::{Carrying, HOT, NAT_PORTS, nat_of, packet, socket};
use crate::stage::{A, ALL, B, C, START, Sockets, id, peer, web};
use dpr_director::{
    Arrival, DeliveryRanges, Director, Duty, ExternalServer, Peer, PersistenceSettings, PersistentService,
    PolicyKind, Settings, ThisNode, Update,
};
use dpr_model::{
    Capacity, ClientSocket, FlowKey, ForwardingMethod, Incarnation, LoadPermille, MapVersion, NodeState,
    PartitionBy, PortRange, Protocol, ServiceReport, ServiceSocket, Sharing, Timestamp, Verdict, Weight,
};
use dpr_ownership::{MapDraft, Member, OwnershipMap, ServiceAddress, Share, SlotCount};
use dpr_rewrite::{parse, parse_ip};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const SERVER: &str = "203.0.113.9:8000";

/// Four nodes with an address each, which the others take over. A, whose death it is all about, is hot.
struct Heirs {
    director_by_node: BTreeMap<Ipv4Addr, Director>,
    method: ForwardingMethod,
    external: bool,
    /// The only one that is not hot.
    idle: Ipv4Addr,
    map: OwnershipMap,
    now: Timestamp,
    a_lives: bool,
    /// Ports of clients of which A's stack has sockets.
    open_at_a: Vec<u16>,
}

fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], port))
}

fn service(node: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((node, 80))
}

fn stand_in_of(verdict: Verdict) -> (SocketAddr, SocketAddr) {
    let socket = |end: Option<dpr_model::End>| {
        let end = end.unwrap();
        SocketAddr::new(end.address, end.port.unwrap())
    };
    let ends = nat_of(verdict).ends;
    (socket(ends.source), socket(ends.destination))
}

impl Heirs {
    fn new(method: ForwardingMethod, external: bool) -> Self {
        let slots = SlotCount::new(64).unwrap();
        let mut heirs = Self {
            director_by_node: BTreeMap::new(),
            method,
            external,
            idle: B,
            map: OwnershipMap::genesis(slots, &[id(A)]),
            now: START,
            a_lives: true,
            open_at_a: vec![],
        };
        for node in ALL {
            let director = heirs.director(node);
            heirs.director_by_node.insert(node, director);
        }
        heirs.agree(&ALL);
        heirs.run_for(Duration::from_secs(1));
        heirs
    }

    fn director(&self, node: Ipv4Addr) -> Director {
        let rule = PersistentService {
            protocol: Protocol::Tcp,
            service: ServiceSocket { address: node.into(), port: 80 },
            prefix_len: 32,
            timeout: Duration::from_secs(360),
        };
        let services = if self.method == ForwardingMethod::Nat { vec![] } else { vec![rule] };
        // As in life, no two nodes have the same seed.
        let conntrack = dpr_conntrack::Config {
            capacity: 64,
            ..dpr_conntrack::Config::with_seed([1, u64::from(id(node).0)])
        };
        Director::new(Settings {
            node: id(node),
            address: node.into(),
            delivery_ranges: DeliveryRanges::default(),
            services: vec![self.report(node)],
            answer_for: vec![],
            mtu: 1500,
            nat_ports: PortRange::new(NAT_PORTS.0, NAT_PORTS.1),
            persistence: PersistenceSettings { services, clients_max: 64 },
            conntrack,
            seed: 7,
        })
    }

    fn report(&self, node: Ipv4Addr) -> ServiceReport {
        ServiceReport { method: self.method, sharing: Sharing::Takeover, ..web(node) }
    }

    fn agree(&mut self, members: &[Ipv4Addr]) {
        let draft = MapDraft {
            version: MapVersion { epoch: self.map.version().epoch + 1, ..MapVersion::default() },
            members: members.iter().map(|node| Member { node: id(*node), share: Share(1000) }).collect(),
            addresses: ALL.map(|node| ServiceAddress { address: node.into(), home: Some(id(node)) }).to_vec(),
            voters: vec![id(A)],
            wishes: BTreeMap::new(),
        };
        self.map = self.map.next(draft, true);
        self.tell();
    }

    fn a_dies(&mut self) {
        self.a_lives = false;
        self.agree(&ALL[1..]);
        self.run_for(Duration::from_millis(50));
    }

    fn tell(&mut self) {
        let duty = Duty {
            serial: self.map.version().epoch,
            map: Arc::new(self.map.clone()),
            settled: true,
            until: Some(self.now + Duration::from_secs(1)),
        };
        let load = |node: Ipv4Addr| if node == self.idle && !self.external { 100 } else { HOT };
        let report_of = |node| self.report(node);
        let peer_of = |node: Ipv4Addr| Peer {
            services: [report_of(node)].into(),
            nat_ports: PortRange::new(NAT_PORTS.0, NAT_PORTS.1),
            alive: self.a_lives || node != A,
            ..peer(node, load(node))
        };
        let updates = ALL.map(|node| {
            let server = ExternalServer {
                protocol: Protocol::Tcp,
                service: ServiceSocket { address: node.into(), port: 80 },
                socket: socket(SERVER),
                weight: Weight::ORDINARY,
                capacity: Capacity::new(1000),
                healthy: true,
            };
            Update {
                this: ThisNode {
                    state: NodeState::Active,
                    load: LoadPermille(load(node)),
                    capacity: Capacity::new(1000),
                    weight: Weight::ORDINARY,
                    services: vec![report_of(node)],
                },
                peers: ALL.into_iter().filter(|other| *other != node).map(peer_of).collect(),
                external: self.external.then_some(server).into_iter().collect(),
                frozen: false,
                policy: PolicyKind::Lightest,
                maxload: LoadPermille(700),
            }
        });
        for ((node, director), update) in self.director_by_node.iter_mut().zip(updates) {
            if self.a_lives || *node != A {
                director.set_duty(duty.clone(), self.now);
                director.update(&update, self.now);
            }
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now = self.now + Duration::from_millis(10);
            self.tell();
            for from in ALL.into_iter().filter(|node| self.a_lives || *node != A) {
                while let Some(message) = self.director_by_node.get_mut(&from).unwrap().poll_sync(self.now) {
                    let is_for = |to: &Ipv4Addr| message.to.map_or(*to != from, |node| node == id(*to));
                    for to in ALL.into_iter().filter(is_for) {
                        let director = self.director_by_node.get_mut(&to).unwrap();
                        let from = (id(from), Incarnation(1));
                        let mut sockets = Sockets(if to == A { self.open_at_a.clone() } else { vec![] });
                        director.handle_sync(from, &message.bytes, &mut sockets, self.now).unwrap();
                    }
                }
            }
        }
    }

    /// Who decides about A's connections from a port of the client.
    fn owner_of(&self, port: u16) -> Ipv4Addr {
        let flow = FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address: client(port).ip(), port },
            service: ServiceSocket { address: A.into(), port: 80 },
        };
        let slot = self.map.slots().slot_of(&flow, PartitionBy::default());
        self.holder(self.map.right(A.into(), slot).unwrap().owner)
    }

    /// Who answers for A's address.
    fn front(&self) -> Ipv4Addr {
        self.holder(self.map.right(A.into(), dpr_model::Slot(0)).unwrap().owner)
    }

    fn holder(&self, node: dpr_model::NodeId) -> Ipv4Addr {
        ALL.into_iter().find(|known| id(*known) == node).unwrap()
    }

    fn show(&mut self, node: Ipv4Addr, from: SocketAddr, to: SocketAddr, carrying: Carrying) -> Verdict {
        let frame = packet(from, to, carrying, &[]);
        let parsed = parse(&frame).unwrap();
        let arrival = Arrival { parsed: &parsed, wire_len: frame.len() - 14, packets: 1 };
        let director = self.director_by_node.get_mut(&node).unwrap();
        director.handle_frame(arrival, &mut Sockets::default(), self.now)
    }

    /// To the owner, as a client's packet for A's address.
    fn client_sends(&mut self, port: u16, carrying: Carrying) -> Verdict {
        self.show(self.owner_of(port), client(port), service(A), carrying)
    }

    /// Thirty of the client's connections to A; returns as whom their real server sees the client.
    fn connect(&mut self, ports: std::ops::Range<u16>) -> BTreeMap<u16, SocketAddr> {
        let opened = ports.map(|port| {
            let stand_in = stand_in_of(self.client_sends(port, Carrying::Syn)).0;
            self.client_sends(port, Carrying::Ack);
            (port, stand_in)
        });
        let opened = opened.collect();
        self.run_for(Duration::from_millis(500));
        opened
    }
}

#[test]
fn a_server_without_dpr_goes_on_seeing_whom_it_saw_when_the_director_is_dead() {
    let mut heirs = Heirs::new(ForwardingMethod::Nat, true);
    let stand_in_by_port = heirs.connect(1000..1030);
    assert!(stand_in_by_port.values().all(|stand_in| stand_in.ip() == A), "an address that others take over");

    heirs.a_dies();

    let front = heirs.front();
    let owners: Vec<_> = stand_in_by_port.keys().map(|port| heirs.owner_of(*port)).collect();
    assert!(owners.iter().any(|owner| *owner != front) && owners.contains(&front));
    for (port, stand_in) in stand_in_by_port {
        assert_eq!(stand_in_of(heirs.client_sends(port, Carrying::Ack)), (stand_in, socket(SERVER)));
        let back = heirs.show(front, socket(SERVER), stand_in, Carrying::Ack);
        assert_eq!(stand_in_of(back), (service(A), client(port)));
    }
    let stranger = SocketAddr::from(([203, 0, 113, 10], 8000));
    let to_nobody = heirs.show(front, stranger, SocketAddr::from((A, NAT_PORTS.0)), Carrying::Ack);
    assert_eq!(to_nobody, Verdict::Drop(dpr_model::DropReason::UnknownNatPort));
}

#[test]
fn a_real_server_that_takes_over_its_own_translated_connections_serves_them_on() {
    for idle in &ALL[1..] {
        let mut heirs = Heirs { idle: *idle, ..Heirs::new(ForwardingMethod::Nat, false) };
        heirs.run_for(Duration::from_millis(10));
        let stand_in_by_port = heirs.connect(1000..1030);

        heirs.a_dies();

        let front = heirs.front();
        for (port, stand_in) in stand_in_by_port {
            let (source, to) = stand_in_of(heirs.client_sends(port, Carrying::Ack));
            let is_own = heirs.owner_of(port) == *idle;
            let delivery = heirs.director_by_node[idle].delivery_addresses();
            let delivery = delivery.iter().find(|address| address.service == *idle).unwrap().delivery;
            let there = if is_own { SocketAddr::new(delivery, 80) } else { service(*idle) };
            assert_eq!((source, to), (stand_in, there));

            let answer = packet(SocketAddr::new(delivery, 80), stand_in, Carrying::Ack, &[]);
            let left = heirs.director_by_node.get_mut(idle).unwrap();
            let left = left.handle_reply(&parse_ip(&answer, 14).unwrap(), 1);
            let back = match *idle == front {
                true => left,
                false => {
                    assert!(matches!(left, Verdict::Reply(reply) if reply.to == A));
                    heirs.show(front, service(*idle), stand_in, Carrying::Ack)
                }
            };
            assert_eq!(stand_in_of(back), (service(A), client(port)));
        }
    }
}

#[test]
fn a_node_that_stands_in_translates_new_connections_from_its_own_address() {
    let mut heirs = Heirs::new(ForwardingMethod::Nat, false);
    heirs.a_dies();

    let others = (1000..1060).filter(|port| heirs.owner_of(*port) == C).collect::<Vec<_>>();
    assert!(!others.is_empty());
    for port in others {
        let (stand_in, to) = stand_in_of(heirs.client_sends(port, Carrying::Syn));
        assert_eq!((stand_in.ip(), to), (C.into(), service(B)));
        let back = heirs.show(C, service(B), stand_in, Carrying::Ack);
        assert_eq!(stand_in_of(back), (service(A), client(port)));
    }
}

#[test]
fn a_connection_that_a_node_has_kept_comes_to_it_as_it_was_when_others_decide_about_it() {
    let mut heirs = Heirs { idle: A, ..Heirs::new(ForwardingMethod::Nat, false) };
    heirs.run_for(Duration::from_millis(10));
    for carrying in [Carrying::Syn, Carrying::Ack] {
        assert!(matches!(heirs.client_sends(1000, carrying), Verdict::Deliver(_)));
    }
    heirs.open_at_a.push(1000);
    heirs.agree(&ALL[1..]);

    assert_eq!(heirs.client_sends(1000, Carrying::Ack), Verdict::Ask);
    heirs.run_for(Duration::from_millis(50));

    let there = heirs.client_sends(1000, Carrying::Ack);
    assert!(matches!(there, Verdict::Forward(forward) if forward.to == A), "{there:?}");
}

#[test]
fn a_client_stays_with_its_real_server_when_its_director_is_dead() {
    let mut heirs = Heirs::new(ForwardingMethod::Ipip, false);
    let goes_to = |verdict: Verdict| match verdict {
        Verdict::Forward(forward) => Some(forward.to),
        _ => None,
    };
    // It is over before it is old enough to be worth a copy.
    for carrying in [Carrying::Syn, Carrying::Ack, Carrying::Fin] {
        assert_eq!(goes_to(heirs.client_sends(1000, carrying)), Some(B.into()));
    }
    heirs.run_for(Duration::from_millis(100));
    heirs.idle = C;

    heirs.a_dies();

    let not_of_b = (1001..1060).filter(|port| heirs.owner_of(*port) != B).collect::<Vec<_>>();
    assert!(not_of_b.len() > 10);
    for port in not_of_b {
        assert_eq!(goes_to(heirs.client_sends(port, Carrying::Syn)), Some(B.into()));
    }
}
