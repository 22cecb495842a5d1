//! Addresses that more than one node may own: whose packet it is, by what nodes have agreed on.

use crate::stage::*;
use dpr_director::{CarriedFlow, Duty, Onward, PersistenceSettings, PersistentService};
use dpr_model::{FlowKey, ForwardingMethod, Ingress, MapVersion, PartitionBy, Sharing, Slot};
use dpr_ownership::{MapDraft, Member, OwnershipMap, ServiceAddress, Share, SlotCount};
use dpr_rewrite::{Parsed, parse};
use std::collections::BTreeMap;
use std::sync::Arc;

const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
const SLOTS: SlotCount = SlotCount::MIN;

/// Node A in a cluster whose slots are divided among all three.
struct Sharer {
    node: NodeA,
    map: OwnershipMap,
    serial: u64,
}

fn shared(sharing: Sharing) -> ServiceReport {
    ServiceReport { sharing, ..web(VIP) }
}

fn address(home: Option<Ipv4Addr>) -> ServiceAddress {
    ServiceAddress { address: VIP.into(), home: home.map(id) }
}

fn map_after(before: &OwnershipMap, members: &[Ipv4Addr], home: Option<Ipv4Addr>) -> OwnershipMap {
    let draft = MapDraft {
        version: MapVersion { epoch: before.version().epoch + 1, ..MapVersion::default() },
        members: members.iter().map(|node| Member { node: id(*node), share: Share(1000) }).collect(),
        addresses: vec![address(home)],
        voters: vec![id(A), id(B), id(C)],
        wishes: BTreeMap::new(),
    };
    before.next(draft, true)
}

impl Sharer {
    /// `home` is the node that has the address while it is a member.
    fn new(sharing: Sharing, home: Option<Ipv4Addr>, members: &[Ipv4Addr]) -> Self {
        Self::of(NodeA::with_loads(IDLE, IDLE, IDLE), sharing, home, members)
    }

    /// One that stands in for B, whose clients stay with their real server.
    fn that_keeps_clients() -> Self {
        let rule = PersistentService {
            protocol: Protocol::Tcp,
            service: ServiceSocket { address: A.into(), port: 80 },
            prefix_len: 32,
            timeout: Duration::from_secs(360),
        };
        let persistence = PersistenceSettings { services: vec![rule], clients_max: 64 };
        let node = NodeA::with(IDLE, IDLE, IDLE, |settings| settings.persistence = persistence);
        Self::of(node, Sharing::Takeover, Some(B), &[A, C])
    }

    fn of(mut node: NodeA, sharing: Sharing, home: Option<Ipv4Addr>, members: &[Ipv4Addr]) -> Self {
        for peer in &mut node.update.peers {
            let carries = home.is_none_or(|home| peer.candidate.node == id(home));
            peer.services = peer.services.iter().copied().chain(carries.then(|| shared(sharing))).collect();
        }
        let map = map_after(&OwnershipMap::genesis(SLOTS, &[id(A)]), members, home);
        let mut sharer = Self { node, map, serial: 0 };
        sharer.agree(true, Some(START + Duration::from_secs(10)));
        sharer.node.tell();
        sharer
    }

    fn agree(&mut self, settled: bool, until: Option<Timestamp>) {
        self.serial += 1;
        let duty = Duty { serial: self.serial, map: Arc::new(self.map.clone()), settled, until };
        self.node.director.set_duty(duty, self.node.now);
    }

    /// A port of the client whose flow is in a slot of `owner`.
    fn port_of(&self, owner: Ipv4Addr) -> u16 {
        let is_owned = |port: &u16| {
            let right = self.map.right(VIP.into(), SLOTS.slot_of(&flow(*port), PartitionBy::default()));
            right.is_some_and(|right| right.owner == id(owner))
        };
        (1000..2000).find(is_owned).expect("every member owns slots")
    }

    fn syn_to(&mut self, owner: Ipv4Addr) -> Verdict {
        let port = self.port_of(owner);
        self.node.segment(port, VIP, Tcp::Syn(1))
    }

    fn handed_by_b(&mut self, owner: Ipv4Addr) -> Verdict {
        let port = self.port_of(owner);
        let hops = HopBudget::FRESH.after_a_hop().unwrap();
        self.node.tunnelled(B, hops, port, VIP, Tcp::Syn(1))
    }
}

fn flow(port: u16) -> FlowKey {
    FlowKey {
        protocol: Protocol::Tcp,
        client: ClientSocket { address: CLIENT.into(), port },
        service: ServiceSocket { address: VIP.into(), port: 80 },
    }
}

fn is_kept(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Deliver(_))
}

fn hops_to(verdict: Verdict, to: Ipv4Addr) -> Option<u8> {
    match verdict {
        Verdict::Forward(forward) if forward.to == IpAddr::V4(to) => Some(forward.hops.get()),
        _ => None,
    }
}

#[test]
fn where_all_see_all_packets_only_the_owner_acts() {
    let mut a = Sharer::new(Sharing::Shared(Ingress::SharedMac), None, &[A, B, C]);

    assert!(is_kept(a.syn_to(A)));
    assert_eq!(a.syn_to(B), Verdict::Drop(DropReason::NotMine));
    assert_eq!(a.syn_to(C), Verdict::Drop(DropReason::NotMine));
}

#[test]
fn where_one_node_gets_a_packet_it_hands_it_to_the_owner_with_a_hop_left_for_the_real_server() {
    for ingress in [Ingress::ArpOwner, Ingress::Routed] {
        let mut a = Sharer::new(Sharing::Shared(ingress), None, &[A, B, C]);

        assert!(is_kept(a.syn_to(A)));
        assert_eq!(hops_to(a.syn_to(B), B), Some(1));
        assert!(is_kept(a.handed_by_b(A)));
    }
}

#[test]
fn a_packet_that_an_old_map_has_sent_astray_goes_no_further() {
    let mut a = Sharer::new(Sharing::Shared(Ingress::Routed), None, &[A, B, C]);

    assert_eq!(a.handed_by_b(C), Verdict::Drop(DropReason::NotMine));
    assert_eq!(a.handed_by_b(B), Verdict::Drop(DropReason::NotMine));
}

#[test]
fn by_direct_routing_only_a_packet_without_hops_left_was_sent_by_its_owner() {
    let mut a = Sharer::new(Sharing::Shared(Ingress::ArpOwner), None, &[A, B, C]);
    let services = a.node.update.peers.iter_mut().flat_map(|peer| Arc::make_mut(&mut peer.services));
    services.for_each(|service| service.method = ForwardingMethod::Dr);
    a.node.tell();
    let port = a.port_of(B);
    let mut with_hop_limit = |hop_limit| {
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(CLIENT.octets(), VIP.octets(), hop_limit);
        let mut frame = Vec::new();
        ip.tcp(port, 80, 1, 1000).syn().write(&mut frame, &[]).unwrap();
        a.node.receive(&frame)
    };

    assert_eq!(hops_to(with_hop_limit(64), B), Some(1));
    assert!(is_kept(with_hop_limit(1)));
}

#[test]
fn an_owner_whose_time_is_over_does_nothing() {
    let mut a = Sharer::new(Sharing::Shared(Ingress::SharedMac), None, &[A, B, C]);

    a.agree(true, Some(START + Duration::from_millis(40)));
    assert!(is_kept(a.syn_to(A)));
    a.node.now = START + Duration::from_millis(41);
    assert_eq!(a.syn_to(A), Verdict::Drop(DropReason::NoLease));

    a.agree(true, Some(START + Duration::from_secs(10)));
    assert!(is_kept(a.syn_to(A)));
    a.node.now = START + LEASE_MAX + Duration::from_millis(1);
    assert_eq!(a.syn_to(A), Verdict::Drop(DropReason::NoLease), "the daemon is silent");
}

#[test]
fn what_has_moved_waits_until_the_map_is_settled() {
    let mut a = Sharer::new(Sharing::Shared(Ingress::SharedMac), None, &[A, B, C]);
    let port = a.port_of(B);
    a.map = map_after(&a.map, &[A], None);
    let until = Some(START + Duration::from_secs(10));

    a.agree(false, until);
    assert_eq!(a.node.segment(port, VIP, Tcp::Syn(1)), Verdict::Drop(DropReason::NoLease));
    a.agree(true, until);

    assert!(is_kept(a.node.segment(port, VIP, Tcp::Syn(1))));
}

#[test]
fn the_slots_of_a_home_that_is_gone_are_spread_over_the_others() {
    let mut a = Sharer::new(Sharing::Takeover, Some(B), &[A, B, C]);
    assert_eq!(hops_to(a.node.segment(1000, VIP, Tcp::Syn(1)), B), Some(1));
    assert!(a.node.director.fronted_addresses(a.node.now).is_empty());

    a.map = map_after(&a.map, &[A, C], Some(B));
    a.agree(true, Some(START + Duration::from_secs(10)));

    assert!(is_kept(a.syn_to(A)));
    assert_eq!(hops_to(a.syn_to(C), C), Some(1));
    let fronts = a.map.right(VIP.into(), Slot(0)).unwrap().owner == id(A);
    let expected = if fronts { vec![IpAddr::V4(VIP)] } else { vec![] };
    assert_eq!(a.node.director.fronted_addresses(a.node.now), expected);
}

#[test]
fn an_address_that_needs_no_lease_is_its_homes_whatever_others_agree_on() {
    let mut a = Sharer::new(Sharing::Takeover, Some(B), &[B, C]);
    a.agree(true, None);

    assert!(is_kept(a.node.segment(1000, A, Tcp::Syn(1))));
}

#[test]
fn what_has_ended_its_journey_is_delivered_whoever_owns_it() {
    let mut a = Sharer::new(Sharing::Shared(Ingress::SharedMac), None, &[A, B, C]);
    a.agree(true, None);
    let port = a.port_of(B);

    assert!(is_kept(a.node.tunnelled(B, HopBudget::SPENT, port, VIP, Tcp::Syn(1))));
}

#[test]
fn what_keeps_its_client_is_carried_on_by_the_owner_of_its_slot_only() {
    let mut a = Sharer::that_keeps_clients();
    let port = a.port_of(A);
    a.node.segment(port, VIP, Tcp::Syn(1));
    a.node.segment(port, VIP, Tcp::Ack);
    let carried = |a: &Sharer| a.node.director.carried(&flow(port));
    let its = carried(&a).unwrap();
    assert_eq!((its.onward, its.real_server), (Onward::AsSent, id(A)));
    let bytes = frame(CLIENT, port, VIP, Tcp::Ack, 0);
    let Ok(Parsed::Ip(parsed)) = parse(&bytes) else { panic!("it is a segment") };
    assert_eq!(a.node.director.entry_of(&parsed.packet, a.node.now), None, "nothing to go on with alone");

    let until = Some(a.node.now + Duration::from_secs(10));
    a.map = map_after(&a.map, &[C], Some(B));
    a.agree(true, until);
    assert_eq!((carried(&a), a.node.director.decides_about(&flow(port))), (None, false));

    a.map = map_after(&a.map, &[A], Some(B));
    a.agree(false, until);
    assert!(!a.node.director.decides_about(&flow(port)), "its owner may still act");
    a.agree(true, until);
    assert!(a.node.director.decides_about(&flow(port)));
}

#[test]
fn what_an_earlier_daemon_knew_of_clients_others_may_know_better() {
    let mut a = Sharer::that_keeps_clients();
    let its = CarriedFlow { flow: flow(999), real_server: id(C), generation: 1, onward: Onward::AsSent };
    assert!(a.node.director.adopt_carried(&its, a.node.now));
    assert!(is_kept(a.syn_to(A)));

    let mut a = Sharer::that_keeps_clients();
    assert!(a.node.director.adopt_carried(&its, a.node.now));
    a.node.director.note_carried(&its, a.node.now);
    assert_eq!(hops_to(a.syn_to(A), C), Some(0), "it goes on meanwhile");
}
