//! A director that decides elsewhere: in the kernel, by what it is told here.
//!
//! The kernel's packet path cannot call [`Director`]; it is given what the director knows, decides alike, and counts. This
//! module shows that knowledge and takes the counts back. It refuses to know how they are stored.

use crate::carried::Translator;
use crate::deliveries::{Deliveries, DeliveryRanges};
use crate::director::Director;
use crate::lease::LEASE_MAX;
use crate::ownership::{Home, Service, SlotOwner};
use crate::peers::PeerFacts;
use crate::policy::PolicyKind;
use crate::subject::flow_of;
use core::time::Duration;
use dpr_conntrack::{EntryView, NatTable, Segment, TcpState};
use dpr_model::{
    Candidate, DeliveryMode, FlowKey, LoadPermille, NodeId, PartitionBy, PortRange, Protocol, ServiceSocket,
    Timestamp,
};
use dpr_ownership::SlotCount;
use dpr_rewrite::{Packet, Version};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a data plane has to know in order to decide as this director would, until the next update.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// This node.
    pub node: NodeId,
    /// Where tunnels to this node end.
    pub address: IpAddr,
    /// Largest IP packet between nodes, bytes.
    pub mtu: u16,
    /// For how long it may decide.
    pub lease: Duration,
    /// Until when it may act for addresses that others could own; `None` while it may not.
    pub acts_until: Option<Timestamp>,
    /// How a new connection finds its real server.
    pub policy: PolicyKind,
    /// Below this load index the node keeps its own connections; 0 switches the rule off.
    pub maxload: LoadPermille,
    /// True while nothing new is moved.
    pub frozen: bool,
    /// Where delivery addresses are taken from.
    pub delivery_ranges: DeliveryRanges,
    /// Service addresses that the host does not hold, for which it has to be answered.
    pub answer_for: &'a [IpAddr],
    /// Every known peer, in order of id.
    pub peers: Vec<PeerView>,
    /// Every service of the cluster, in order of protocol and socket.
    pub services: Vec<ServiceView<'a>>,
    /// Every service address, in order.
    pub homes: Vec<HomeView>,
    /// Slots of the addresses that no node holds; `None` before nodes have agreed on owners.
    pub slots: Option<SlotsView>,
    /// Ports of this node that stand for clients at real servers, if it translates.
    pub nat_ports: Option<PortRange>,
    /// Peers that translate, by the address that their translated packets come from.
    pub translators: BTreeMap<IpAddr, Translator>,
    /// Ports that services have beside their own, in the order in which they are looked at, behind the services' own.
    pub further: Vec<FurtherView>,
}

/// A peer, as far as packets are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Who.
    pub node: NodeId,
    /// Where tunnels to it end.
    pub address: IpAddr,
    /// Whether its reports come.
    pub alive: bool,
    /// It took leave, and its connections with it.
    pub has_left: bool,
    /// Largest IP packet that goes to it, bytes.
    pub mtu: u16,
}

/// A service of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceView<'a> {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Service address and port.
    pub socket: ServiceSocket,
    /// Who decides about its connections, and by which method they go on.
    pub service: Service,
    /// What of a flow decides about its slot.
    pub partition_by: PartitionBy,
    /// The director decides about its flows itself, and says which of them another data plane may carry on.
    pub is_begun_above: bool,
    /// Some of them may have to be translated.
    pub may_translate: bool,
    /// Where its packets are delivered on this node, if their destination is translated.
    pub delivery: Option<IpAddr>,
    /// Upper bound for the MSS of its SYN-ACKs, bytes; where clients' packets come through a tunnel.
    pub mss_max: Option<u16>,
    /// Who may get a new connection, in order of id. Services with the same candidates share one list.
    pub candidates: &'a [Candidate],
}

/// Ports of a service beside its own. What goes to them is decided about as if it went to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FurtherView {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The service, by the port that it is named by.
    pub service: ServiceSocket,
    /// Its further ports.
    pub ports: PortRange,
}

/// A service address, where there are no ports: fragments and echo requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeView {
    /// The address.
    pub address: IpAddr,
    /// Who decides about it; where that depends on the slot, about its first one.
    pub home: Home,
    /// Where its packets are delivered on this node, if their destination is translated.
    pub delivery: Option<IpAddr>,
    /// No node holds it: who decides depends on the slot.
    pub is_by_slot: bool,
    /// It has changed hands, and not everybody knows yet: this node acts for none of its slots.
    pub is_changing_hands: bool,
    /// Connections that this node keeps have to be known to others, as they do not end with the address.
    pub remembers_kept: bool,
    /// Since when this node takes its holder for so; `None` for an address that only its home can own.
    pub held_since: Option<Timestamp>,
}

/// Slots of the addresses that no node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotsView {
    /// How many there are.
    pub count: SlotCount,
    /// Each of them, in order.
    pub slots: Vec<SlotView>,
}

/// A slot of the addresses that no node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Who decides about it.
    pub owner: SlotOwner,
    /// Since when this node does; `None` if it does not.
    pub since: Option<Timestamp>,
}

impl Director {
    /// What this director knows now.
    pub fn view(&self) -> View<'_> {
        View {
            node: self.node,
            address: self.address,
            mtu: self.mtu,
            lease: LEASE_MAX,
            acts_until: self.ownership.acts_until(),
            policy: self.policy_kind,
            maxload: self.maxload,
            frozen: self.frozen,
            delivery_ranges: self.deliveries.ranges(),
            answer_for: &self.answer_for,
            peers: self.peers.known().into_iter().map(|(node, facts)| self.peer_view(node, facts)).collect(),
            nat_ports: self.nat.as_ref().map(NatTable::ports),
            translators: self.translators(),
            further: self
                .ownership
                .further_ports()
                .map(|(protocol, service, ports)| FurtherView { protocol, service, ports })
                .collect(),
            services: self
                .ownership
                .services()
                .into_iter()
                .map(|service| self.service_view(service))
                .collect(),
            homes: self
                .ownership
                .homes()
                .into_iter()
                .map(|(address, home)| self.home_view(address, home))
                .collect(),
            slots: self.ownership.slot_owners().map(|(count, owners)| SlotsView {
                count,
                slots: owners
                    .map(|(slot, owner)| SlotView { owner, since: self.tenancy.slot_since(slot) })
                    .collect(),
            }),
        }
    }

    fn home_view(&self, address: IpAddr, mut home: Home) -> HomeView {
        if let Some((_, owner)) = self.ownership.first_owner(address) {
            home.owner = owner;
        }
        HomeView {
            address,
            home,
            delivery: self.translated_delivery(home.delivery, address),
            is_by_slot: self.ownership.is_by_slot(address, &home),
            is_changing_hands: self.ownership.is_changing_hands(address),
            remembers_kept: self.remembers_kept_to(address, home.sharing),
            held_since: self.tenancy.held_since(address),
        }
    }

    /// The delivery address of a service address whose packets are translated.
    fn translated_delivery(&self, mode: DeliveryMode, service: IpAddr) -> Option<IpAddr> {
        self.deliveries.delivery_of(service).filter(|_| mode == DeliveryMode::Translate)
    }

    fn peer_view(&self, node: NodeId, facts: PeerFacts) -> PeerView {
        PeerView {
            node,
            address: facts.address,
            alive: facts.alive,
            has_left: facts.has_left,
            mtu: facts.mtu.map_or(self.mtu, |seen| seen.min(self.mtu)),
        }
    }

    fn service_view(
        &self,
        (protocol, socket, service, partition_by): (Protocol, ServiceSocket, Service, PartitionBy),
    ) -> ServiceView<'_> {
        ServiceView {
            protocol,
            socket,
            service,
            partition_by,
            is_begun_above: self.is_begun_above(protocol, socket, &service),
            may_translate: self.may_translate(protocol, socket, &service),
            delivery: self.translated_delivery(service.delivery, socket.address),
            mss_max: self.mss_max_of(Some(service), Version::of(socket.address)),
            candidates: self.peers.candidates_for(protocol, &socket),
        }
    }

    /// Largest IP packet between nodes, bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Another data plane has given that many connections to `node`; to be told before the next update.
    pub fn record_sent_elsewhere(&mut self, node: NodeId, connections: u32, now: Timestamp) {
        self.peers.record_sent(node, connections, now);
    }

    /// Gives service addresses the delivery addresses that they had in an earlier life of the daemon, through which
    /// connections are still open. To be called before the first update; pairs that cannot be kept are left out.
    pub fn restore_deliveries(&mut self, pairs: impl IntoIterator<Item = (IpAddr, IpAddr)>) {
        let mut deliveries = Deliveries::new(self.deliveries.ranges());
        for (service, delivery) in pairs {
            deliveries.restore(service, delivery);
        }
        self.deliveries = deliveries;
        self.replace_ownership();
    }

    /// Goes on with a connection that another data plane had. False if there is no room for it.
    pub fn take_over(&mut self, flow: &FlowKey, entry: EntryView, now: Timestamp) -> bool {
        self.table.take_over(flow, entry, now)
    }

    /// Another data plane has brought a connection forward that others may have to go on with: they are told.
    pub fn note_progress_elsewhere(&mut self, flow: &FlowKey, entry: EntryView, now: Timestamp) {
        if !self.table.take_over(flow, entry, now) {
            return;
        }
        let segment = match entry.state {
            TcpState::HalfOpen => return,
            TcpState::Established => Segment::going_on(entry.generation),
            TcpState::Fin => Segment { fin: true, ..Segment::going_on(entry.generation) },
            TcpState::Reset | TcpState::Closed => Segment { rst: true, ..Segment::default() },
        };
        self.table.observe(flow, segment, now);
        self.note_progress(flow, segment, entry.state == TcpState::Established, now);
    }

    /// Another data plane still has a connection that others may have to go on with.
    pub fn note_presence_elsewhere(&mut self, flow: &FlowKey, entry: EntryView, now: Timestamp) {
        match self.table.get(flow) {
            Some(known) if (known.generation, known.real_server) == (entry.generation, entry.real_server) => {
                if entry.state == TcpState::Established {
                    self.table.observe(flow, Segment::going_on(entry.generation), now);
                }
            }
            _ => self.note_progress_elsewhere(flow, entry, now),
        }
    }

    /// What is known of every connection, for another data plane that begins to decide about some of them.
    pub fn entries(&self) -> impl Iterator<Item = (FlowKey, EntryView)> {
        self.table.page(0, usize::MAX).entries
    }

    /// What is known of the flow of a packet that another data plane did not know, if this node decides about it and others
    /// could.
    pub fn entry_of(&self, packet: &Packet, now: Timestamp) -> Option<(FlowKey, EntryView)> {
        let flow = flow_of(packet)?;
        let is_theirs = self.decides_for(&flow, now) && !self.decides_about(&flow);
        Some((flow, self.table.get(&flow).filter(|_| is_theirs)?))
    }

    /// Another data plane has received that many connections from `director`.
    pub fn record_received_elsewhere(&mut self, director: NodeId, connections: u64) {
        let incarnation = self.peers.incarnation_of(director).unwrap_or_default();
        self.received.record(director, incarnation, connections);
    }
}
