//! One node's packet path: what it knows, and the calls that a data plane makes.

use crate::closings::Closings;
use crate::copies::Copies;
use crate::counters::PacketCounters;
use crate::deliveries::{Deliveries, DeliveryRanges};
use crate::forwarded::Forwarded;
use crate::fragments::Fragments;
use crate::lease::Lease;
use crate::ownership::{OwnershipMap, SlotOwner, Tenure};
use crate::peers::{Peers, SentTo, Update};
use crate::persistence::{Persistence, PersistenceSettings};
use crate::pipeline::Journey;
use crate::policy::{Policy, PolicyKind};
use crate::received::Received;
use crate::straight::StraightWays;
use crate::tenancy::Tenancy;
use crate::too_big::ErrorLimit;
use dpr_conntrack::{EntryView, NatTable, Table};
use dpr_model::status::{Connection, ConntrackStatus, Counters};
use dpr_model::{
    Candidate, ClientSocket, DeliveryMode, DropReason, FlowKey, Ingress, LoadPermille, NodeId, NodeState,
    Peer, PortRange, Protocol, ReceivedFrom, ServiceReport, ServiceSocket, Sharing, Timestamp, Verdict,
};
use dpr_rewrite::ethernet::Tags;
use dpr_rewrite::{Frame, Parsed};
use fastrand::Rng;
use std::net::IpAddr;
use std::sync::Arc;

/// What a director is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// Where tunnels to this node end.
    pub address: IpAddr,
    /// Prefixes from which delivery addresses are taken.
    pub delivery_ranges: DeliveryRanges,
    /// Services that this node is home to.
    pub services: Vec<ServiceReport>,
    /// Service addresses that the host does not hold, for which ARP, neighbour solicitations and echo requests have to
    /// be answered.
    pub answer_for: Vec<IpAddr>,
    /// Largest IP packet between nodes, bytes.
    pub mtu: u16,
    /// Ports for full NAT, which nobody else on this host uses; `None` if it does none.
    pub nat_ports: Option<PortRange>,
    /// Bounds and timeouts of the connection-forwarding table.
    pub conntrack: dpr_conntrack::Config,
    /// Which clients stay with their real server.
    pub persistence: PersistenceSettings,
    /// Seed of every random choice.
    pub seed: u64,
}

/// What this node knows of connections beside its director: above all the local stack, by its sockets.
pub trait LocalSockets {
    /// True when there is a socket for exactly this pair: of TCP one that is neither LISTEN nor TIME_WAIT, of UDP one
    /// that is connected.
    fn holds(&mut self, protocol: Protocol, local: ServiceSocket, client: ClientSocket) -> bool;

    /// True when there certainly is no such socket; false also where the host does not say.
    fn lacks(&mut self, protocol: Protocol, local: ServiceSocket, client: ClientSocket) -> bool {
        !self.holds(protocol, local, client)
    }

    /// What another data plane of this node knows of a connection that it decides about by entries of its own; nothing where there is
    /// none.
    fn entry_elsewhere(&mut self, _flow: &FlowKey) -> Option<EntryView> {
        None
    }
}

/// One frame as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// What it says.
    pub parsed: &'a Parsed,
    /// Largest IP packet that leaves if the frame is forwarded as it is, bytes; less than the frame when offloads
    /// had joined segments.
    pub wire_len: usize,
    /// How many packets it is on the wire: 1, or as many segments as offloads had joined.
    pub packets: u32,
}

/// How packets of one service address reach the server on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryAddress {
    /// Address that the server sees as its own: node-local, or with alias delivery the service address itself.
    pub delivery: IpAddr,
    /// How the two are related.
    pub mode: DeliveryMode,
    /// Address that clients connect to.
    pub service: IpAddr,
    /// Node that is home to the service address; of a shared one, a node that carries it.
    pub owner: NodeId,
}

/// The packet path of one node.
#[derive(Debug)]
pub struct Director {
    pub(crate) node: NodeId,
    pub(crate) address: IpAddr,
    pub(crate) answer_for: Vec<IpAddr>,
    pub(crate) mtu: u16,
    pub(crate) own_services: Vec<ServiceReport>,
    /// What peers reported when ownership was last made of it, in the order of the update.
    reported: Vec<(NodeId, Arc<[ServiceReport]>)>,
    pub(crate) ownership: OwnershipMap,
    pub(crate) tenancy: Tenancy,
    pub(crate) copies: Copies,
    pub(crate) closings: Closings,
    pub(crate) forwarded: Forwarded,
    pub(crate) deliveries: Deliveries,
    pub(crate) table: Table,
    pub(crate) nat: Option<NatTable>,
    pub(crate) persistence: Persistence,
    pub(crate) fragments: Fragments,
    pub(crate) peers: Peers,
    pub(crate) straight: StraightWays,
    pub(crate) received: Received,
    pub(crate) lease: Lease,
    pub(crate) policy_kind: PolicyKind,
    pub(crate) policy: Box<dyn Policy>,
    pub(crate) maxload: LoadPermille,
    pub(crate) frozen: bool,
    pub(crate) counters: PacketCounters,
    pub(crate) error_limit: ErrorLimit,
    pub(crate) rng: Rng,
}

impl Director {
    /// A director that knows its own services and no peers, and has no lease yet.
    pub fn new(settings: Settings) -> Self {
        let policy_kind = PolicyKind::default();
        let conntrack = settings.conntrack;
        let nat = |ports| NatTable::new(ports, conntrack.capacity, conntrack.hash_seed);
        let mut director = Self {
            node: settings.node,
            address: settings.address,
            answer_for: settings.answer_for,
            mtu: settings.mtu,
            own_services: settings.services,
            reported: Vec::new(),
            ownership: OwnershipMap::new(settings.node),
            tenancy: Tenancy::new(settings.node),
            copies: Copies::new(),
            closings: Closings::new(),
            forwarded: Forwarded::default(),
            deliveries: Deliveries::new(settings.delivery_ranges),
            table: Table::new(conntrack),
            nat: settings.nat_ports.map(nat),
            persistence: Persistence::new(settings.persistence, conntrack.hash_seed),
            fragments: Fragments::default(),
            peers: Peers::new(settings.node),
            straight: StraightWays::new(),
            received: Received::default(),
            lease: Lease::default(),
            policy_kind,
            policy: policy_kind.build(),
            maxload: LoadPermille::default(),
            frozen: false,
            counters: PacketCounters::default(),
            error_limit: ErrorLimit::new(),
            rng: Rng::with_seed(settings.seed),
        };
        director.replace_ownership();
        director
    }

    /// Takes over what the daemon knows now, and the right to decide for a while longer.
    pub fn update(&mut self, update: &Update, now: Timestamp) {
        self.lease.renew(now);
        self.frozen = update.frozen;
        self.maxload = update.maxload;
        if update.policy != self.policy_kind {
            self.policy_kind = update.policy;
            self.policy = update.policy.build();
        }
        let own = Candidate {
            node: self.node,
            address: self.address,
            load: update.this.load,
            capacity: update.this.capacity,
            weight: update.this.weight,
            outstanding: 0,
        };
        let before: Vec<NodeId> = self.peers.external().collect();
        self.peers.update(own, update, |node| self.table.active_at(node), now);
        for gone in before.into_iter().filter(|server| !self.peers.external().any(|left| left == *server)) {
            self.table.remove_real_server(gone);
        }
        for gone in update.peers.iter().filter(|peer| !peer.alive && peer.state == NodeState::Leaving) {
            // It took leave, and its connections with it: their clients are to hear that from a reset, soon.
            self.table.remove_real_server(gone.candidate.node);
        }
        self.hear_services(&update.peers);
        self.find_straight_ways();
        self.copies.retain(|node| self.peers.is_known(node));
        self.follow_lives(&update.peers, now);
    }

    /// Serial of the duty by which this director acts, to be confirmed to the agreement; `None` before the first.
    pub fn duty_serial(&self) -> Option<u64> {
        self.ownership.duty().map(|duty| duty.serial)
    }

    /// Whether this node may act now for slots that others could own.
    pub fn may_own(&self, now: Timestamp) -> bool {
        self.lease.is_valid(now) && self.ownership.acts_until().is_some_and(|until| now <= until)
    }

    /// True if this node is the one that decides about a flow now, of an address that others could own.
    pub fn decides_for(&self, flow: &FlowKey, now: Timestamp) -> bool {
        let own = SlotOwner { node: self.node, tenure: Tenure::Leased };
        self.ownership.service_of(flow).is_some_and(|service| service.owner == own) && self.may_own(now)
    }

    /// What has to happen to a frame from the network.
    pub fn handle_frame(
        &mut self,
        arrival: Arrival<'_>,
        sockets: &mut dyn LocalSockets,
        now: Timestamp,
    ) -> Verdict {
        match self.send_straight(&arrival, now) {
            Some(verdict) => verdict,
            None => self.send_on_the_journey(arrival, sockets, now),
        }
    }

    #[inline(never)]
    pub(crate) fn send_on_the_journey(
        &mut self,
        arrival: Arrival<'_>,
        sockets: &mut dyn LocalSockets,
        now: Timestamp,
    ) -> Verdict {
        let verdict = match arrival.parsed {
            Parsed::Other => Verdict::Pass,
            Parsed::Neighbour(request) if self.answers_for(request.target.into(), request.tags, now) => {
                Verdict::AnswerNeighbour
            }
            Parsed::Neighbour(_) => Verdict::Pass,
            Parsed::Arp(request) if self.answers_for(request.target.into(), request.tags, now) => {
                Verdict::AnswerArp
            }
            Parsed::Arp(_) => Verdict::Pass,
            Parsed::Ip(frame) => match &frame.outer {
                Some(outer) => self.handle_tunnelled(&frame.packet, outer, arrival.wire_len, sockets, now),
                None => self.handle_direct(
                    &frame.packet,
                    Journey::direct(frame.tags, arrival.wire_len, now),
                    sockets,
                ),
            },
        };
        self.counters.count(&verdict, arrival.packets);
        verdict
    }

    /// What has to happen to what the local TCP stack sent to a client through the delivery device; `packets` as in
    /// [`Arrival`].
    pub fn handle_reply(&mut self, frame: &Frame, packets: u32) -> Verdict {
        let verdict = self.reply_verdict(&frame.packet);
        self.counters.count(&verdict, packets);
        if let Verdict::Reply(reply) = &verdict {
            self.note_refusal(reply, &frame.packet);
        }
        verdict
    }

    /// Expires what has been quiet for too long, at most `budget` entries of each table.
    pub fn handle_timeout(&mut self, now: Timestamp, budget: usize) -> usize {
        if let Some(nat) = &mut self.nat {
            nat.expire(now, budget);
        }
        self.persistence.expire(now, budget);
        self.table.expire(now, budget)
    }

    /// Counts drops that a data plane found out about after the verdict, or before it.
    pub fn count_drops(&mut self, reason: DropReason, frames: u64) {
        self.counters.count_drops(reason, frames);
    }

    /// Packets and decisions, cumulative.
    pub fn counters(&self) -> Counters {
        self.counters.named(self.received.total())
    }

    /// The connection-forwarding table's fill.
    pub fn conntrack_status(&self) -> ConntrackStatus {
        self.table.status()
    }

    /// Clients that stay with their real server, and the connection-forwarding table's entries.
    pub fn connections(&self, now: Timestamp) -> impl Iterator<Item = Connection> + '_ {
        self.client_entries(now).chain(self.table.iter(now))
    }

    /// Connections received from directors, for the load report.
    pub fn acknowledgements(&self) -> Vec<ReceivedFrom> {
        self.received.acknowledgements()
    }

    /// The node that has a connection, if the connection-forwarding table knows it.
    pub fn real_server_of(&self, flow: &FlowKey) -> Option<NodeId> {
        self.table.get(flow).map(|entry| entry.real_server)
    }

    /// The same, or as another data plane of this node knows it, or this node if it holds a socket for the connection.
    pub fn server_of(&self, flow: &FlowKey, sockets: &mut dyn LocalSockets) -> Option<NodeId> {
        let known = self.real_server_of(flow);
        known.or_else(|| Some(sockets.entry_elsewhere(flow)?.real_server)).or_else(|| {
            let service = self.ownership.service_of(flow)?;
            self.holds_socket(flow, &service, sockets).then_some(self.node)
        })
    }

    /// Memory of the connection-forwarding table, of the NAT ports and of persistence, bytes; it grows with the number of real servers only.
    pub fn memory_bytes(&self) -> usize {
        let nat = self.nat.as_ref().map_or(0, NatTable::memory_bytes);
        self.table.memory_bytes() + nat + self.persistence.memory_bytes()
    }

    /// NAT ports that stand for flows, or rest after one.
    pub fn nat_ports_in_use(&self) -> usize {
        self.nat.as_ref().map_or(0, NatTable::len)
    }

    /// Connections given to peers.
    pub fn sent(&self) -> Vec<SentTo> {
        self.peers.sent()
    }

    /// Whether the lease to decide is valid.
    pub fn lease_is_valid(&self, now: Timestamp) -> bool {
        self.lease.is_valid(now)
    }

    /// Delivery addresses in use, in order of service address.
    pub fn delivery_addresses(&self) -> Vec<DeliveryAddress> {
        let homes = self.ownership.homes();
        let with_delivery = homes.into_iter().filter_map(|(service, home)| {
            let delivery = self.local_address(home.delivery, service)?;
            Some(DeliveryAddress { delivery, mode: home.delivery, service, owner: home.reporter })
        });
        with_delivery.collect()
    }

    /// True for an address at which the local stack is reached: what is translated to it stays here.
    pub fn is_delivery_address(&self, address: IpAddr) -> bool {
        self.deliveries.ranges().contains(address)
    }

    /// Addresses that others could own and whose packets come in at this node: it answers for those that the host does not
    /// hold, and announces each of them on its links when it comes into this list. In order.
    pub fn fronted_addresses(&self, now: Timestamp) -> Vec<IpAddr> {
        let homes = self.ownership.homes().into_iter();
        homes.map(|(address, _)| address).filter(|address| self.fronts(*address, now) == Some(true)).collect()
    }

    /// Whether the packets for an address come in here; `None` for one that only its home can own.
    fn fronts(&self, address: IpAddr, now: Timestamp) -> Option<bool> {
        let (sharing, owner) = self.ownership.first_owner(address)?;
        if sharing == Sharing::Home {
            return None;
        }
        let is_owner = owner == SlotOwner { node: self.node, tenure: Tenure::Leased } && self.may_own(now);
        Some(is_owner && sharing != Sharing::Shared(Ingress::Routed))
    }

    fn answers_for(&self, address: IpAddr, tags: Tags, now: Timestamp) -> bool {
        let is_own = || self.ownership.reporter_of(address) == Some(self.node);
        // What the host holds, its kernel answers for, where it hears the question: not under VLAN tags.
        let is_away = || self.answer_for.contains(&address) || !tags.is_empty() && is_own();
        let is_held = || is_own() && !is_away();
        match self.fronts(address, now) {
            None => is_away(),
            Some(fronts) => fronts && !is_held(),
        }
    }

    /// Makes ownership anew if peers may report other services than before, which few updates tell.
    fn hear_services(&mut self, peers: &[Peer]) {
        let is_as_before = |((node, services), peer): (&(NodeId, Arc<[ServiceReport]>), &Peer)| {
            *node == peer.candidate.node && Arc::ptr_eq(services, &peer.services)
        };
        if self.reported.len() != peers.len() || !self.reported.iter().zip(peers).all(is_as_before) {
            let reported = peers.iter().map(|peer| (peer.candidate.node, Arc::clone(&peer.services)));
            self.reported = reported.collect();
            self.replace_ownership();
        }
    }

    pub(crate) fn replace_ownership(&mut self) {
        let ownership = &mut self.ownership;
        ownership.begin();
        let own = (self.node, self.own_services.as_slice());
        let reported = self.reported.iter().map(|(node, services)| (*node, &services[..]));
        for (node, services) in std::iter::once(own).chain(reported) {
            for service in services {
                let is_persistent = self.persistence.has(service, node == self.node);
                ownership.add(service, node, is_persistent);
                if service.delivery == DeliveryMode::Translate {
                    // A used-up range shows as `UnknownDelivery` drops of that address.
                    let _ = self.deliveries.assign(service.socket.address);
                }
            }
        }
    }
}
