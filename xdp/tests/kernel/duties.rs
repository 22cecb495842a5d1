//! Who owns addresses that others may take over.

use crate::packets::{busy_update, segment, send};
use crate::world::{Kernel, NODE, World};
use dpr_conntrack::TcpState;
use dpr_director::{Duty, Peer, PolicyKind};
use dpr_model::{
    ClientSocket, FlowKey, MapVersion, NodeId, Protocol, ServiceReport, ServiceSocket, Sharing, Timestamp,
};
use dpr_ownership::partition::SlotCount;
use dpr_ownership::{MapDraft, Member, OwnershipMap, ServiceAddress, Share, Wish};
use dpr_rewrite::tcp::flag;
use dpr_xdp::{Connections, Sizes};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// Longer than connections are remembered.
const LONG_AGO: Duration = Duration::from_secs(48 * 60 * 60);

const SIZES: Sizes = Sizes { flows: 64, half_open: 64 };
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const CLIENT: u32 = 7;
const ACK: u8 = flag::ACK;

/// What nodes have agreed on, and since when a director knows.
pub(crate) struct Agreed {
    pub(crate) duty: Duty,
    pub(crate) since: Timestamp,
    /// Addresses about which user space decides.
    pub(crate) above: BTreeSet<IpAddr>,
}

/// Addresses of services that others may take over, with their homes.
fn addresses_of(node: NodeId, services: &[ServiceReport]) -> impl Iterator<Item = ServiceAddress> {
    let may_move = services.iter().filter(|service| service.sharing == Sharing::Takeover);
    may_move.map(move |service| ServiceAddress { address: service.socket.address, home: Some(node) })
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
    let members = present.iter().map(|node| Member { node: *node, share: Share(100) });
    let mut wishes = BTreeMap::new();
    for ServiceAddress { address, .. } in &addresses {
        if rng.u8(..6) == 0 {
            wishes.insert(*address, Wish::Hold(nodes[rng.usize(..nodes.len())]));
        }
    }
    let draft = MapDraft {
        version: MapVersion { term: 1, epoch: 1, coordinator: nodes[0].0 },
        members: members.collect(),
        addresses: addresses.clone(),
        voters: nodes.clone(),
        wishes,
    };
    let moved = OwnershipMap::genesis(SlotCount::default(), &nodes).next(draft.clone(), true);
    let version = MapVersion { epoch: 2, ..draft.version };
    let map = match rng.u8(..3) {
        0 => moved,
        _ => moved.next(MapDraft { version, wishes: BTreeMap::new(), ..draft }, true),
    };
    let is_above = |address: &&ServiceAddress| match map.holder_of(address.address) {
        Some(holder) => holder == this && address.home != Some(this),
        None => true,
    };
    let above = addresses.iter().filter(is_above).map(|address| address.address).collect();
    let until = (rng.u8(..8) > 0).then(|| now + LONG_AGO);
    let duty = Duty { serial: 1, map: Arc::new(map), settled: rng.bool(), until };
    let since =
        if rng.bool() { now } else { Timestamp::from_nanos(now.as_nanos() - LONG_AGO.as_nanos() as u64) };
    Agreed { duty, since, above }
}

/// A node whose address others may take over, which gives all connections to its one peer.
struct Owner {
    kernel: Kernel,
    world: World,
    map: OwnershipMap,
    peer: NodeId,
}

impl Owner {
    fn new() -> Self {
        let mut update = busy_update(PolicyKind::Lightest, [(1, 100)]);
        update.this.services[0].sharing = Sharing::Takeover;
        let peer = update.peers[0].candidate.node;
        let mut world = World::new(update, 1);
        let this = NodeId::from_address(NODE.into());
        let member = |node| Member { node, share: Share(100) };
        let draft = MapDraft {
            version: MapVersion { term: 1, epoch: 1, coordinator: this.0 },
            members: vec![member(this), member(peer)],
            addresses: vec![ServiceAddress { address: NODE.into(), home: Some(this) }],
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
        let draft = MapDraft {
            version: MapVersion { epoch: self.map.version().epoch + 1, ..self.map.version() },
            members: self.map.members().to_vec(),
            addresses: self.map.addresses().collect(),
            voters: self.map.voters().now.clone(),
            wishes: BTreeMap::from([(NODE.into(), wish)]),
        };
        self.map = self.map.next(draft, true);
        self.world.director.set_duty(duty(&self.map, self.world.updated), self.world.updated);
        self.world.tell(&mut self.kernel, true);
    }

    fn action(&mut self, flags: u8) -> u32 {
        self.kernel.programs.run(&segment(CLIENT, flags)).unwrap().action
    }

    fn heard(&mut self) -> Option<(FlowKey, TcpState, NodeId)> {
        let (flow, entry) = self.world.mirror.next_change(&mut self.kernel.tables)?;
        Some((flow, entry.state, entry.real_server))
    }
}

fn duty(map: &OwnershipMap, now: Timestamp) -> Duty {
    let serial = map.version().epoch;
    Duty { serial, map: Arc::new(map.clone()), settled: true, until: Some(now + LONG_AGO) }
}

fn flow() -> FlowKey {
    let client = Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 0, 0)) + CLIENT);
    FlowKey {
        protocol: Protocol::Tcp,
        client: ClientSocket { address: client.into(), port: 1024 },
        service: ServiceSocket { address: NODE.into(), port: 80 },
    }
}

pub(crate) fn changes_are_told() {
    let mut owner = Owner::new();

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

pub(crate) fn returns_with_what_the_director_knows() {
    let mut owner = Owner::new();
    send(&mut owner.kernel, CLIENT, flag::SYN);
    send(&mut owner.kernel, CLIENT, ACK);

    owner.give(Wish::Hold(owner.peer));
    send(&mut owner.kernel, CLIENT, ACK);
    owner.give(Wish::GiveBack);
    assert_eq!(owner.action(ACK), XDP_PASS, "whatever was decided meanwhile, the programs do not know it");

    owner.give(Wish::Hold(owner.peer));
    while let Some((flow, entry)) = owner.world.mirror.next_change(&mut owner.kernel.tables) {
        owner.world.director.note_progress_elsewhere(&flow, entry, owner.world.now);
    }
    let known = owner.world.director.real_server_of(&flow());
    assert_eq!(known, None, "what is void is no news");
    let heard =
        dpr_conntrack::EntryView { real_server: owner.peer, state: TcpState::Established, generation: 1 };
    owner.world.director.note_progress_elsewhere(&flow(), heard, owner.world.now);
    owner.give(Wish::GiveBack);
    send(&mut owner.kernel, CLIENT, ACK);
    assert_eq!(owner.kernel.tables.connections(Connections::Flows, 9).unwrap().len(), 1);
}

pub(crate) fn ends_with_the_right() {
    let mut owner = Owner::new();
    send(&mut owner.kernel, CLIENT, flag::SYN);
    owner.world.tell(&mut owner.kernel, false);

    assert_eq!(owner.action(ACK), XDP_DROP);
}
