//! Directors that share an address, and what they tell each other of its connections.

use crate::stage::*;
use dpr_conntrack::{EntryView, TcpState};
use dpr_director::Duty;
use dpr_model::{FlowKey, Ingress, MapVersion, PartitionBy, PortGroup, PortRange, Sharing};
use dpr_ownership::{MapDraft, Member, OwnershipMap, ServiceAddress, Share, SlotCount};
use std::collections::BTreeMap;
use std::sync::Arc;

const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

/// Four directors of one cluster, and a wire between them.
struct Sharers {
    service: ServiceReport,
    by_address: BTreeMap<Ipv4Addr, (Director, Sockets)>,
    map: OwnershipMap,
    now: Timestamp,
    /// Between whom messages are lost.
    mute: Vec<Ipv4Addr>,
    /// Who gets new connections.
    idle: Ipv4Addr,
}

/// So many that some change hands and some do not.
fn slots() -> SlotCount {
    SlotCount::new(64).unwrap()
}

fn shared() -> ServiceReport {
    ServiceReport { sharing: Sharing::Shared(Ingress::SharedMac), ..web(VIP) }
}

/// Of a client's connection to the shared address.
fn flow(port: u16) -> FlowKey {
    FlowKey {
        protocol: Protocol::Tcp,
        client: ClientSocket { address: CLIENT.into(), port },
        service: ServiceSocket { address: VIP.into(), port: 80 },
    }
}

/// The same by another port: that of its connections is one of its further ones.
fn shared_by_further_port() -> ServiceReport {
    let mut ports = PortGroup::NONE;
    assert!(ports.add(PortRange::new(80, 80).unwrap()));
    ServiceReport { socket: ServiceSocket { address: VIP.into(), port: 21 }, ports, ..shared() }
}

impl Sharers {
    fn new() -> Self {
        Self::of(shared())
    }

    fn of(service: ServiceReport) -> Self {
        let director = |address: Ipv4Addr| {
            let director = Director::new(Settings {
                node: id(address),
                address: address.into(),
                delivery_ranges: DeliveryRanges::default(),
                services: vec![web(address), service],
                answer_for: vec![],
                mtu: 1500,
                nat_ports: None,
                persistence: PersistenceSettings::default(),
                conntrack: dpr_conntrack::Config { capacity: 64, ..dpr_conntrack::Config::with_seed([1, 2]) },
                seed: 7,
            });
            (address, (director, Sockets::default()))
        };
        let mut sharers = Self {
            service,
            by_address: ALL.into_iter().map(director).collect(),
            map: OwnershipMap::genesis(slots(), &[id(A)]),
            now: START,
            mute: vec![],
            idle: B,
        };
        sharers.agree(&ALL);
        sharers.run_for(Duration::from_secs(1));
        sharers
    }

    /// A new map, settled, that all nodes act by.
    fn agree(&mut self, members: &[Ipv4Addr]) {
        let draft = MapDraft {
            version: MapVersion { epoch: self.map.version().epoch + 1, ..MapVersion::default() },
            members: members.iter().map(|node| Member { node: id(*node), share: Share(1000) }).collect(),
            addresses: vec![ServiceAddress { address: VIP.into(), home: None }],
            voters: vec![id(A)],
            wishes: BTreeMap::new(),
        };
        self.map = self.map.next(draft, true);
        self.tell();
    }

    fn tell(&mut self) {
        let duty = Duty {
            serial: self.map.version().epoch,
            map: Arc::new(self.map.clone()),
            settled: true,
            until: Some(self.now + Duration::from_secs(1)),
        };
        for (address, (director, _)) in &mut self.by_address {
            let others = ALL.into_iter().filter(|other| other != address);
            let mut peers: Vec<Peer> =
                others.map(|other| peer(other, if other == self.idle { IDLE } else { HOT })).collect();
            for peer in &mut peers {
                peer.services = peer.services.iter().copied().chain([self.service]).collect();
            }
            let this = ThisNode {
                state: NodeState::Active,
                load: LoadPermille(HOT),
                capacity: Capacity::new(1000),
                weight: Weight::ORDINARY,
                services: vec![web(*address), self.service],
            };
            let (policy, maxload) = (PolicyKind::Lightest, LoadPermille(700));
            let update = Update { this, peers, external: vec![], frozen: false, policy, maxload };
            director.set_duty(duty.clone(), self.now);
            director.update(&update, self.now);
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now = self.now + Duration::from_millis(10);
            self.tell();
            for from in ALL {
                while let Some(message) = self.by_address.get_mut(&from).unwrap().0.poll_sync(self.now) {
                    let is_for = |to: &Ipv4Addr| message.to.map_or(*to != from, |node| node == id(*to));
                    for to in ALL.into_iter().filter(is_for) {
                        self.carry(from, to, &message.bytes);
                    }
                }
            }
        }
    }

    fn carry(&mut self, from: Ipv4Addr, to: Ipv4Addr, bytes: &[u8]) {
        if self.mute.contains(&from) || self.mute.contains(&to) {
            return;
        }
        let (director, sockets) = self.by_address.get_mut(&to).unwrap();
        director.handle_sync((id(from), Incarnation(1)), bytes, sockets, self.now).unwrap();
    }

    fn owner_of(&self, port: u16) -> Ipv4Addr {
        let right = self.map.right(VIP.into(), slots().slot_of(&flow(port), PartitionBy::default())).unwrap();
        ALL.into_iter().find(|node| id(*node) == right.owner).unwrap()
    }

    /// True if the new owner of a connection, which is not its real server, stood ready for it by an earlier map.
    fn has_copies_since(&self, before: &OwnershipMap, port: u16) -> bool {
        let slot = slots().slot_of(&flow(port), PartitionBy::default());
        let heir = self.owner_of(port);
        heir != B && before.backups(VIP.into(), slot).contains(&Some(id(heir)))
    }

    fn send(&mut self, port: u16, tcp: Tcp) -> Verdict {
        let frame = frame(CLIENT, port, VIP, tcp, 0);
        let parsed = parse(&frame).unwrap();
        let arrival = Arrival { parsed: &parsed, wire_len: frame.len() - 14, packets: 1 };
        let (director, sockets) = self.by_address.get_mut(&self.owner_of(port)).unwrap();
        director.handle_frame(arrival, sockets, self.now)
    }

    /// A connection that its owner, which is neither A nor B, has given to B. Returns its port.
    fn connect(&mut self) -> u16 {
        let port = (1000..2000).find(|port| ![A, B].contains(&self.owner_of(*port))).unwrap();
        assert!(is_sent_to_b(self.send(port, Tcp::Syn(1))));
        assert!(is_sent_to_b(self.send(port, Tcp::Ack)));
        port
    }

    /// Thirty connections that their owners, of which B is none, have given to B. Returns their ports.
    fn connect_many(&mut self) -> Vec<u16> {
        let not_of_b = |sharers: &Self, port: &u16| sharers.owner_of(*port) != B;
        let ports: Vec<u16> = (1000..2000).filter(|port| not_of_b(self, port)).take(30).collect();
        for port in &ports {
            assert!(is_sent_to_b(self.send(*port, Tcp::Syn(1))));
            assert!(is_sent_to_b(self.send(*port, Tcp::Ack)));
        }
        ports
    }

    /// B as owner would know its own connections by their sockets.
    fn everybody_but_b_and(owner: Ipv4Addr) -> Vec<Ipv4Addr> {
        ALL.into_iter().filter(|node| ![owner, B].contains(node)).collect()
    }

    fn everybody_but(owner: Ipv4Addr) -> Vec<Ipv4Addr> {
        ALL.into_iter().filter(|node| *node != owner).collect()
    }
}

fn is_sent_to_b(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward(forward) if forward.to == IpAddr::V4(B))
}

#[test]
fn connections_of_some_age_outlive_their_owner_by_their_copies() {
    outlive_their_owner(Sharers::new());
}

#[test]
fn so_do_connections_to_further_ports() {
    outlive_their_owner(Sharers::of(shared_by_further_port()));
}

fn outlive_their_owner(mut sharers: Sharers) {
    let ports = sharers.connect_many();
    sharers.run_for(Duration::from_millis(400));
    let owners: Vec<_> = ports.iter().map(|port| sharers.owner_of(*port)).collect();

    let before = sharers.map.clone();
    sharers.mute = ALL.to_vec();
    sharers.agree(&Sharers::everybody_but(C));

    let orphans = ports.into_iter().zip(owners).filter(|(_, owner)| *owner == C).map(|(port, _)| port);
    let found: Vec<_> = orphans.filter(|port| sharers.has_copies_since(&before, *port)).collect();
    assert!(found.len() > 3, "{found:?}");
    assert!(found.into_iter().all(|port| is_sent_to_b(sharers.send(port, Tcp::Ack))));
}

#[test]
fn connections_that_another_data_plane_decided_about_outlive_their_owner_until_they_end() {
    let mut sharers = Sharers::new();
    let ports: Vec<u16> = (1000..2000).filter(|port| sharers.owner_of(*port) == C).take(30).collect();
    let note = |sharers: &mut Sharers, port: u16, state: TcpState| {
        let entry = EntryView { real_server: id(B), state, generation: 1 };
        let (director, _) = sharers.by_address.get_mut(&C).unwrap();
        director.note_progress_elsewhere(&flow(port), entry, sharers.now);
    };
    ports.iter().for_each(|port| note(&mut sharers, *port, TcpState::Established));
    sharers.run_for(Duration::from_millis(400));
    let (ended, going_on) = ports.split_at(15);
    ended.iter().for_each(|port| note(&mut sharers, *port, TcpState::Fin));
    sharers.run_for(Duration::from_millis(100));

    let before = sharers.map.clone();
    sharers.mute = ALL.to_vec();
    sharers.agree(&Sharers::everybody_but(C));

    let found: Vec<_> = going_on.iter().filter(|port| sharers.has_copies_since(&before, **port)).collect();
    assert!(found.len() > 3, "{found:?}");
    assert!(found.into_iter().all(|port| is_sent_to_b(sharers.send(*port, Tcp::Ack))));
    let over: Vec<_> = ended.iter().filter(|port| sharers.has_copies_since(&before, **port)).collect();
    assert!(over.into_iter().all(|port| sharers.send(*port, Tcp::Ack) == Verdict::Ask));
}

#[test]
fn a_syn_that_is_sent_again_after_its_slot_has_moved_gets_the_same_answer() {
    let mut sharers = Sharers::new();
    let ports: Vec<u16> = (1000..2000).filter(|port| sharers.owner_of(*port) == C).take(20).collect();
    assert!(ports.iter().all(|port| is_sent_to_b(sharers.send(*port, Tcp::Syn(1)))));

    sharers.agree(&Sharers::everybody_but(C));
    sharers.idle = A;
    sharers.run_for(Duration::from_millis(10));

    // B would find its own half-open socket.
    let moved: Vec<_> = ports.into_iter().filter(|port| sharers.owner_of(*port) != B).collect();
    assert!(moved.len() > 3, "{moved:?}");
    assert!(moved.iter().all(|port| is_sent_to_b(sharers.send(*port, Tcp::Syn(1)))));
    let unknown = (2000..3000).find(|port| sharers.owner_of(*port) == STRANGER).unwrap();
    assert!(!is_sent_to_b(sharers.send(unknown, Tcp::Syn(1))), "new ones go elsewhere by now");
}

#[test]
fn a_young_connection_is_found_by_asking_its_real_server() {
    let mut sharers = Sharers::new();
    let port = sharers.connect();
    let owner = sharers.owner_of(port);
    sharers.by_address.get_mut(&B).unwrap().1.0.push(port);

    sharers.mute = vec![owner];
    sharers.agree(
        &[A, B, C, STRANGER].into_iter().filter(|node| ![owner, B].contains(node)).collect::<Vec<_>>(),
    );
    assert_eq!(sharers.send(port, Tcp::Ack), Verdict::Ask);
    sharers.run_for(Duration::from_millis(50));

    assert!(is_sent_to_b(sharers.send(port, Tcp::Ack)));
}

#[test]
fn a_previous_owner_that_lives_answers_for_what_it_began() {
    let mut sharers = Sharers::new();
    let port = sharers.connect();
    let owner = sharers.owner_of(port);

    sharers.agree(&Sharers::everybody_but_b_and(owner));
    assert_eq!(sharers.send(port, Tcp::Ack), Verdict::Ask);
    sharers.run_for(Duration::from_millis(50));

    assert!(is_sent_to_b(sharers.send(port, Tcp::Ack)));
}

#[test]
fn a_connection_that_is_over_for_its_new_owner_goes_on_if_its_real_server_says_so() {
    let mut sharers = Sharers::new();
    let ports = sharers.connect_many();
    sharers.run_for(Duration::from_millis(400));
    for port in &ports {
        sharers.send(*port, Tcp::Fin);
        sharers.by_address.get_mut(&B).unwrap().1.0.push(*port);
    }
    sharers.run_for(Duration::from_millis(100));
    sharers.agree(&[A, B, STRANGER]);

    let asked: Vec<_> =
        ports.into_iter().filter(|port| sharers.send(*port, Tcp::Fin) == Verdict::Ask).collect();
    assert!(!asked.is_empty());
    sharers.run_for(Duration::from_millis(50));
    assert!(asked.into_iter().all(|port| is_sent_to_b(sharers.send(port, Tcp::Fin))));
}

#[test]
fn what_nobody_knows_is_refused_after_a_while_and_not_before() {
    let mut sharers = Sharers::new();
    let port = (1000..2000).find(|port| sharers.owner_of(*port) == A).unwrap();

    assert_eq!(sharers.send(port, Tcp::Ack), Verdict::Ask);
    sharers.run_for(Duration::from_millis(2900));
    assert_eq!(sharers.send(port, Tcp::Ack), Verdict::Ask);
    sharers.run_for(Duration::from_millis(200));

    assert!(matches!(sharers.send(port, Tcp::Ack), Verdict::Deliver(_)));
    assert_eq!(sharers.by_address[&A].0.asked(), (0, 1));
}

#[test]
fn what_nobody_knew_is_asked_about_anew_when_others_have_decided_meanwhile() {
    let mut sharers = Sharers::new();
    let ports: Vec<u16> = (1000..2000).filter(|port| sharers.owner_of(*port) == A).take(30).collect();
    assert!(ports.iter().all(|port| sharers.send(*port, Tcp::Ack) == Verdict::Ask));
    sharers.run_for(Duration::from_millis(3100));
    assert!(ports.iter().all(|port| matches!(sharers.send(*port, Tcp::Ack), Verdict::Deliver(_))));

    sharers.agree(&Sharers::everybody_but(A));
    sharers.agree(&ALL);

    let again: Vec<_> = ports.into_iter().filter(|port| sharers.owner_of(*port) == A).collect();
    assert!(!again.is_empty());
    assert!(again.into_iter().all(|port| sharers.send(port, Tcp::Ack) == Verdict::Ask));
}

#[test]
fn who_has_owned_a_slot_for_long_asks_nobody() {
    let mut sharers = Sharers::new();
    let port = (1000..2000).find(|port| sharers.owner_of(*port) == A).unwrap();
    sharers.now = sharers.now + Duration::from_secs(15 * 60);
    sharers.tell();

    assert!(matches!(sharers.send(port, Tcp::Ack), Verdict::Deliver(_)));
}

#[test]
fn what_a_node_knows_from_long_ago_is_forgotten_when_it_becomes_owner_again() {
    let mut sharers = Sharers::new();
    let ports = sharers.connect_many();
    let was_own: Vec<_> = ports.iter().copied().filter(|port| sharers.owner_of(*port) == C).collect();
    // In two steps it is neither owner nor backup any more.
    sharers.mute = ALL.to_vec();
    sharers.agree(&[A, B, STRANGER]);
    sharers.agree(&[A, B, C, STRANGER]);

    let again: Vec<_> = was_own.into_iter().filter(|port| sharers.owner_of(*port) == C).collect();
    assert!(!again.is_empty());
    for port in again {
        assert_eq!(sharers.send(port, Tcp::Ack), Verdict::Ask);
    }
}

#[test]
fn copies_of_others_connections_do_not_count_as_forwarded() {
    let mut sharers = Sharers::new();
    sharers.connect_many();
    sharers.run_for(Duration::from_secs(1));

    let forwarded: u32 =
        ALL.iter().map(|node| sharers.by_address.get_mut(node).unwrap().0.forwarded_out()).sum();

    assert_eq!(forwarded, 30);
}
