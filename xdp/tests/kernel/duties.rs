//! Who owns addresses that several nodes may own.

use crate::above;
use crate::packets::{busy_update, flow_of, segment, segment_from, send};
use crate::world::{Kernel, NODE, SHARED_MAC, World, keeping};
use dpr_conntrack::TcpState;
use dpr_director::{Arrival, CarriedFlow, Duty, Peer, PolicyKind, Update};
use dpr_host::{AddressOptions, IpPrefix, NetNamespace, Netlink};
use dpr_model::{
    DropReason, FlowKey, Ingress, LoadPermille, MapVersion, NodeId, NodeState, ServiceReport, Sharing,
    Timestamp,
};
use dpr_ownership::partition::SlotCount;
use dpr_ownership::shares::SHARE_MAX;
use dpr_ownership::{MapDraft, Member, OwnershipMap, ServiceAddress, Share, Wish};
use dpr_rewrite::ethernet::HEADER_LEN as ETHERNET_LEN;
use dpr_rewrite::tcp::flag;
use dpr_rewrite::{Version, parse};
use dpr_xdp::{Change, Connections, Next, Sizes};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Longer than connections are remembered.
const LONG_AGO: Duration = Duration::from_secs(48 * 60 * 60);

const SIZES: Sizes = Sizes { flows: 64, half_open: 64 };
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const CLIENT: u32 = 7;
const ACK: u8 = flag::ACK;
const SHARED: Sharing = Sharing::Shared(Ingress::ArpOwner);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// What nodes have agreed on, and since when a director knows.
pub(crate) struct Agreed {
    pub(crate) duty: Duty,
    pub(crate) since: Timestamp,
}

/// Addresses of services that several nodes may own, with their homes.
fn addresses_of(node: NodeId, services: &[ServiceReport]) -> impl Iterator<Item = ServiceAddress> {
    services.iter().filter_map(move |ServiceReport { socket, sharing, .. }| {
        let home = match sharing {
            Sharing::Home => return None,
            Sharing::Takeover => Some(node),
            Sharing::Shared(_) => None,
        };
        Some(ServiceAddress { address: socket.address, home })
    })
}

/// A map in which some nodes are missing, some addresses have been given to others, and nothing or everything has just moved.
pub(crate) fn draw(
    rng: &mut Rng,
    (this, services): (NodeId, &[ServiceReport]),
    peers: &[Peer],
    now: Timestamp,
) -> Agreed {
    let nodes: Vec<NodeId> =
        std::iter::once(this).chain(peers.iter().map(|peer| peer.candidate.node)).collect();
    let of_peers = peers.iter().flat_map(|peer| addresses_of(peer.candidate.node, &peer.services));
    let addresses: Vec<ServiceAddress> = addresses_of(this, services).chain(of_peers).collect();
    let present: Vec<NodeId> = nodes.iter().copied().filter(|_| rng.u8(..6) > 0).collect();
    let members: Vec<Member> =
        present.iter().map(|node| Member { node: *node, share: Share(rng.u16(1..200)) }).collect();
    let mut wishes = BTreeMap::new();
    for ServiceAddress { address, .. } in &addresses {
        if rng.u8(..6) == 0 {
            wishes.insert(*address, Wish::Hold(nodes[rng.usize(..nodes.len())]));
        }
    }
    let draft = MapDraft {
        version: MapVersion { term: 1, epoch: 1, coordinator: nodes[0].0 },
        members,
        addresses,
        voters: nodes.clone(),
        wishes,
    };
    let slots = [SlotCount::default(), SlotCount::MIN, SlotCount::MAX][rng.usize(..3)];
    let moved = OwnershipMap::genesis(slots, &nodes).next(draft.clone(), true);
    let version = MapVersion { epoch: 2, ..draft.version };
    let map = match rng.u8(..3) {
        0 => moved,
        1 => {
            // Some slots have moved since.
            let mut members = draft.members.clone();
            members.iter_mut().for_each(|member| member.share = Share(100));
            moved.next(MapDraft { version, wishes: BTreeMap::new(), members, ..draft }, true)
        }
        _ => moved.next(MapDraft { version, wishes: BTreeMap::new(), ..draft }, true),
    };
    let until = (rng.u8(..8) > 0).then(|| now + LONG_AGO);
    let duty = Duty { serial: 1, map: Arc::new(map), settled: rng.bool(), until };
    let since =
        if rng.bool() { now } else { Timestamp::from_nanos(now.as_nanos() - LONG_AGO.as_nanos() as u64) };
    Agreed { duty, since }
}

/// A node with an address that others may own, which gives all connections to its one peer.
struct Owner {
    kernel: Kernel,
    world: World,
    map: OwnershipMap,
    peer: NodeId,
}

impl Owner {
    fn new(sharing: Sharing) -> Self {
        Self::of(busy_update(PolicyKind::Lightest, [(1, 100)]), sharing)
    }

    /// The same, which keeps what it gets.
    fn idle(sharing: Sharing) -> Self {
        let mut update = busy_update(PolicyKind::Lightest, [(1, 100)]);
        (update.this.state, update.this.load) = (NodeState::Active, LoadPermille(0));
        Self::of(update, sharing)
    }

    fn of(mut update: Update, sharing: Sharing) -> Self {
        update.this.services[0].sharing = sharing;
        Self::in_world(World::new(update, 1))
    }

    /// Its clients stay with their real server.
    fn that_keeps_clients(sharing: Sharing) -> Self {
        let mut update = busy_update(PolicyKind::Lightest, [(1, 100)]);
        update.this.services[0].sharing = sharing;
        let persistent = vec![keeping(&update.this.services[0], 32)];
        Self::in_world(World::over(Version::V4, update, persistent, 1))
    }

    fn in_world(mut world: World) -> Self {
        let peer = world.update.peers[0].candidate.node;
        let sharing = world.update.this.services[0].sharing;
        let this = NodeId::from_address(NODE.into());
        let home = (sharing == Sharing::Takeover).then_some(this);
        let draft = MapDraft {
            version: MapVersion { term: 1, epoch: 1, coordinator: this.0 },
            members: members(this, peer, false),
            addresses: vec![ServiceAddress { address: NODE.into(), home }],
            voters: vec![this],
            wishes: BTreeMap::new(),
        };
        let map = OwnershipMap::genesis(SlotCount::default(), &[this]).next(draft, true);
        let mut kernel = Kernel::load(SIZES);
        world.director.set_duty(duty(&map, world.updated), world.updated);
        world.tell(&mut kernel, true);
        Self { kernel, world, map, peer }
    }

    /// The address goes to another node, or comes back.
    fn give(&mut self, wish: Wish) {
        let wishes = BTreeMap::from([(NODE.into(), wish)]);
        self.change(MapDraft { wishes, ..self.draft() });
    }

    /// The peer gets nearly all slots, or this node.
    fn share(&mut self, is_peers: bool) {
        let this = NodeId::from_address(NODE.into());
        self.change(MapDraft { members: members(this, self.peer, is_peers), ..self.draft() });
    }

    fn draft(&self) -> MapDraft {
        MapDraft {
            version: MapVersion { epoch: self.map.version().epoch + 1, ..self.map.version() },
            members: self.map.members().to_vec(),
            addresses: self.map.addresses().collect(),
            voters: self.map.voters().now.clone(),
            wishes: BTreeMap::new(),
        }
    }

    fn change(&mut self, draft: MapDraft) {
        self.map = self.map.next(draft, true);
        self.world.director.set_duty(duty(&self.map, self.world.updated), self.world.updated);
        self.world.tell_before_the_walk(&mut self.kernel, true);
    }

    fn action(&mut self, flags: u8) -> u32 {
        self.kernel.programs.run(&segment(CLIENT, flags)).unwrap().action
    }

    /// The programs hand a segment up.
    fn hand_up(&mut self, flags: u8) {
        assert_eq!(self.action(flags), XDP_PASS);
        let frame = segment(CLIENT, flags);
        let parsed = parse(&frame).unwrap();
        let arrival = Arrival { parsed: &parsed, wire_len: frame.len() - ETHERNET_LEN, packets: 1 };
        above::handle(&mut self.world, arrival);
        above::learn(&mut self.world, &mut self.kernel, &frame);
    }

    /// In which terms an entry of user space's would count.
    fn terms(&mut self, carried: &CarriedFlow, number: u16) -> Vec<u8> {
        let mut counts = |term: &u8| {
            self.kernel.tables.enter_carried(carried, Next::Node(number), *term, 0).unwrap();
            self.action(ACK) == XDP_TX
        };
        (0..=u8::MAX).filter(&mut counts).collect()
    }

    fn heard(&mut self) -> Option<(FlowKey, TcpState, NodeId)> {
        let change = self.world.mirror.next_change(&mut self.kernel.tables)?;
        let Change::Progress(flow, entry) = change else { panic!("{change:?}") };
        Some((flow, entry.state, entry.real_server))
    }
}

/// This node with nearly all slots, and its peer; or with nearly none.
fn members(this: NodeId, peer: NodeId, is_peers: bool) -> Vec<Member> {
    let share = |is_its: bool| Share(if is_its { SHARE_MAX } else { 1 });
    vec![Member { node: this, share: share(!is_peers) }, Member { node: peer, share: share(is_peers) }]
}

fn duty(map: &OwnershipMap, now: Timestamp) -> Duty {
    let serial = map.version().epoch;
    Duty { serial, map: Arc::new(map.clone()), settled: true, until: Some(now + LONG_AGO) }
}

fn flow() -> FlowKey {
    flow_of(CLIENT)
}

pub(crate) fn changes_are_told() {
    for sharing in [Sharing::Takeover, SHARED] {
        tell_changes(Owner::new(sharing));
    }
}

fn tell_changes(mut owner: Owner) {
    let server = send(&mut owner.kernel, CLIENT, flag::SYN);
    assert_eq!(owner.heard(), None, "a handshake is nothing to go on with");
    assert_eq!(send(&mut owner.kernel, CLIENT, ACK), server);
    assert_eq!(owner.heard(), Some((flow(), TcpState::Established, owner.peer)));
    send(&mut owner.kernel, CLIENT, ACK);
    assert_eq!(owner.heard(), None, "nothing has changed");
    send(&mut owner.kernel, CLIENT, ACK | flag::FIN);
    assert_eq!(owner.heard(), Some((flow(), TcpState::Fin, owner.peer)));
    send(&mut owner.kernel, CLIENT, flag::RST);
    assert_eq!(owner.heard(), Some((flow(), TcpState::Closed, owner.peer)));
}

pub(crate) fn kept_connections_are_told_where_they_outlive_their_owner() {
    for sharing in [Sharing::Takeover, SHARED] {
        let mut owner = Owner::idle(sharing);
        let this = NodeId::from_address(NODE.into());
        assert_eq!((owner.action(flag::SYN), owner.action(ACK)), (XDP_PASS, XDP_PASS));

        let told = (sharing == SHARED).then_some((flow(), TcpState::Established, this));
        assert_eq!(owner.heard(), told, "of a home they end with it");
        let entries = owner.kernel.tables.connections(Connections::Flows, 9).unwrap();
        assert_eq!(entries.len(), usize::from(sharing == SHARED));
    }
}

pub(crate) fn returns_with_what_the_director_knows() {
    let go = |owner: &mut Owner| owner.give(Wish::Hold(owner.peer));
    go_and_return(Owner::new(Sharing::Takeover), go, |owner| owner.give(Wish::GiveBack));
    go_and_return(Owner::new(SHARED), go, |owner| owner.give(Wish::GiveBack));
    go_and_return(Owner::new(SHARED), |owner| owner.share(true), |owner| owner.share(false));
}

/// What the kernel knows of a connection is void after its owner has changed.
fn go_and_return(mut owner: Owner, go: fn(&mut Owner), come_back: fn(&mut Owner)) {
    send(&mut owner.kernel, CLIENT, flag::SYN);
    send(&mut owner.kernel, CLIENT, ACK);

    go(&mut owner);
    assert_eq!(send(&mut owner.kernel, CLIENT, ACK), PEER, "it is its owner's");
    come_back(&mut owner);
    assert_eq!(owner.action(ACK), XDP_PASS, "whatever was decided meanwhile, the programs do not know it");

    go(&mut owner);
    while let Some(Change::Progress(flow, entry)) = owner.world.mirror.next_change(&mut owner.kernel.tables) {
        owner.world.director.note_progress_elsewhere(&flow, entry, owner.world.now);
    }
    let known = owner.world.director.real_server_of(&flow());
    assert_eq!(known, None, "what is void is no news");
    let heard =
        dpr_conntrack::EntryView { real_server: owner.peer, state: TcpState::Established, generation: 1 };
    owner.world.director.note_progress_elsewhere(&flow(), heard, owner.world.now);
    come_back(&mut owner);
    send(&mut owner.kernel, CLIENT, ACK);
    assert_eq!(owner.kernel.tables.connections(Connections::Flows, 9).unwrap().len(), 1);
}

pub(crate) fn leaves_to_others_what_all_see() {
    let mut owner = Owner::new(Sharing::Shared(Ingress::SharedMac));
    let mut frame = segment(CLIENT, flag::SYN);
    frame[..6].copy_from_slice(&SHARED_MAC.0);
    assert_eq!(owner.kernel.programs.run(&frame).unwrap().action, XDP_TX, "to its real server");

    owner.share(true);
    assert_eq!(owner.kernel.programs.run(&frame).unwrap().action, XDP_DROP);
    assert_eq!(owner.kernel.tables.counters().unwrap().dropped(DropReason::NotMine), 1);
}

pub(crate) fn ends_with_the_right() {
    for sharing in [Sharing::Takeover, SHARED] {
        let mut owner = Owner::new(sharing);
        send(&mut owner.kernel, CLIENT, flag::SYN);
        owner.world.tell(&mut owner.kernel, false);

        assert_eq!(owner.action(ACK), XDP_DROP);
    }
}

pub(crate) fn entries_of_user_space_count_in_their_term() {
    let go = |owner: &mut Owner| owner.give(Wish::Hold(owner.peer));
    go_and_hand_up(Owner::that_keeps_clients(Sharing::Takeover), go, |owner| owner.give(Wish::GiveBack));
    go_and_hand_up(Owner::that_keeps_clients(SHARED), go, |owner| owner.give(Wish::GiveBack));
    go_and_hand_up(Owner::that_keeps_clients(SHARED), |owner| owner.share(true), |owner| owner.share(false));
}

/// What user space has entered goes on while this node is the owner, and is entered anew when it is again.
fn go_and_hand_up(mut owner: Owner, go: fn(&mut Owner), come_back: fn(&mut Owner)) {
    owner.hand_up(flag::SYN);
    owner.hand_up(ACK);
    assert_eq!(send(&mut owner.kernel, CLIENT, ACK), PEER, "it is entered");
    assert_eq!(owner.heard(), None, "user space knows it");
    let its = *owner.world.carrying.carried(&flow()).unwrap();
    let number = (1..9).find(|number| owner.world.mirror.node(*number) == Some(owner.peer)).unwrap();
    let before = owner.terms(&its, number);
    assert_eq!(before.len(), 1, "{before:?}");

    go(&mut owner);
    assert_eq!(owner.terms(&its, number).len(), 256, "its owner gets it whatever is entered");
    come_back(&mut owner);
    let after = owner.terms(&its, number);
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");

    owner.kernel.tables.clear().unwrap();
    let heard =
        dpr_conntrack::EntryView { real_server: owner.peer, state: TcpState::Established, generation: 1 };
    owner.world.director.note_progress_elsewhere(&flow(), heard, owner.world.now);
    owner.hand_up(ACK);
    assert_eq!(send(&mut owner.kernel, CLIENT, ACK), PEER);
}

/// A connection that this node's stack has, and that user space has not entered.
pub(crate) fn kept_connections_are_handed_up_where_others_may_own_the_address() {
    NetNamespace::create()
        .unwrap()
        .enter(|| {
            for sharing in [Sharing::Home, Sharing::Takeover, SHARED] {
                hold_connection(Owner::that_keeps_clients(sharing), sharing == Sharing::Home);
            }
        })
        .unwrap();
}

fn hold_connection(mut owner: Owner, is_delivered: bool) {
    let delivery = owner.world.director.delivery_addresses()[0].delivery;
    let mut netlink = Netlink::open().unwrap();
    let loopback = netlink.link_by_name("lo").unwrap().unwrap().index;
    netlink.set_up(loopback).unwrap();
    // That of an earlier round is there.
    let _ = netlink.add_address(loopback, IpPrefix::new(delivery, 32).unwrap(), AddressOptions::default());
    let _listener = TcpListener::bind((delivery, 80)).unwrap();
    let client = TcpStream::connect((delivery, 80)).unwrap().local_addr().unwrap();
    let frame = segment_from(client, ACK);

    let run = owner.kernel.programs.run(&frame).unwrap();

    assert_eq!((run.action, run.frame == frame), (XDP_PASS, !is_delivered));
}
