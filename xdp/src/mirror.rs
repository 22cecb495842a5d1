//! From what a director knows to what the kernel has to hold, and from what the kernel counted to what a director has to
//! hear.

mod further;
mod owners;
mod services;
mod settings;

use crate::abi::{
    self, CANDIDATES_MAX, Candidates, Delivery, Home, LISTS_MAX, MSS_UNBOUNDED, Method, Node, NodeCounts,
    Partition, SELF, SERVICES_MAX, Service, ServiceKey, address_flag, mac_key, mapped, node_flag,
};
use crate::content::{Content, NextHop};
use crate::numbers::Numbers;
use crate::terms::Terms;
use dpr_conntrack::Timeouts;
use dpr_director::{Director, HomeView, View};
use dpr_model::{Candidate, DeliveryMode, Encapsulation, MacAddress, NodeId, Protocol, Sharing, Timestamp};
use dpr_rewrite::Version;
use further::add_further;
use services::{has_external, method_of};
use settings::settings_of;
pub(crate) use settings::ticks;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What the host says, and a director does not know.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// MAC address of the interface that packets come in on.
    pub mac: MacAddress,
    /// MAC addresses that all nodes have for service addresses of which all see all packets.
    pub shared_macs: &'a [MacAddress],
    /// Next hops of the default routes on that interface as far as they are known: of IPv4, and of IPv6.
    pub routers: [Option<MacAddress>; 2],
    /// Patience of the table.
    pub timeouts: Timeouts,
    /// Now on the boot-time clock, which leases are measured by, nanoseconds.
    pub boot_time_ns: u64,
    /// The same moment by the clock of the director.
    pub now: Timestamp,
    /// Seed of the flow hash, by which packets in tunnels spread over paths. Random, and the same while maps live.
    pub flow_seed: u32,
}

/// Who owns which service address.
type Homes<'a> = BTreeMap<IpAddr, &'a HomeView>;

/// Keeps numbers of nodes, and what was counted before.
#[derive(Clone, Debug)]
pub struct Mirror {
    numbers: Numbers,
    /// What a director has heard of so far.
    heard: BTreeMap<u16, NodeCounts>,
    turns: Turns,
    pub(crate) terms: Terms,
    /// Addresses of which kept connections get entries too.
    pub(crate) remember_kept: BTreeSet<IpAddr>,
}

/// Since when turns count: from the last change among the candidates on.
#[derive(Clone, Debug, Default)]
struct Turns {
    candidates: Vec<(NodeId, u16)>,
    settled: BTreeMap<u16, u64>,
}

impl Mirror {
    /// Nothing counted yet.
    pub fn new(this: NodeId) -> Self {
        Self {
            numbers: Numbers::new(this),
            heard: BTreeMap::new(),
            turns: Turns::default(),
            terms: Terms::default(),
            remember_kept: BTreeSet::new(),
        }
    }

    /// Goes on where an earlier life of the daemon ended: with the numbers that the nodes of `content` had, with the terms of
    /// its addresses, and with `counts`, by number, as heard. False when the nodes are not this node's.
    pub fn restore(&mut self, content: &Content, counts: &[NodeCounts]) -> bool {
        let is_ours =
            content.nodes.iter().all(|(number, node)| self.numbers.restore(NodeId(node.id), *number));
        self.heard = (0..).zip(counts.iter().copied()).collect();
        self.restore_owners(content);
        is_ours
    }

    /// How many numbers are in use: the first so many entries of the tables by number.
    pub fn numbers_end(&self) -> u16 {
        self.numbers.end()
    }

    /// The node with a number.
    pub fn node(&self, number: u16) -> Option<NodeId> {
        self.numbers.node(number)
    }

    /// The number of a node that has one.
    pub(crate) fn number(&self, node: NodeId) -> Option<u16> {
        self.numbers.of(node)
    }

    /// Tells `director` what the kernel counted since the last time. To be called before the director's update, and
    /// [`Self::content`] with the same `counts` after it.
    pub fn report(&mut self, director: &mut Director, counts: &[NodeCounts], now: Timestamp) {
        for (node, number) in self.numbers.iter() {
            let Some(counted) = counts.get(usize::from(number)) else { continue };
            let heard = self.heard.entry(number).or_default();
            let sent = counted.sent.saturating_sub(heard.sent);
            if sent > 0 {
                director.record_sent_elsewhere(node, u32::try_from(sent).unwrap_or(u32::MAX), now);
            }
            let received = counted.received.saturating_sub(heard.received);
            if received > 0 {
                director.record_received_elsewhere(node, received);
            }
            *heard = *counted;
        }
    }

    /// What the maps should hold. `next_hop` answers for node addresses.
    pub fn content(
        &mut self,
        view: &View<'_>,
        counts: &[NodeCounts],
        host: &Host<'_>,
        next_hop: impl Fn(IpAddr) -> Option<NextHop>,
    ) -> Content {
        let shared_macs = host.shared_macs.iter().map(|mac| (mac_key(*mac), 1)).collect();
        let mut content = Content { settings: settings_of(view, host), shared_macs, ..Content::default() };
        add_further(&mut content, view);
        self.follow_owners(view, &content);
        self.add_nodes(&mut content, view, next_hop);
        self.add_slots(&mut content, view, host);
        let homes: Homes<'_> = view.homes.iter().map(|its| (its.address, its)).collect();
        self.add_services(&mut content, view, &homes, counts, host);
        self.add_homes(&mut content, view, host);
        self.add_translators(&mut content, view);
        add_address(&mut content, view.address, address_flag::NODE);
        // Who answers for what others may own, user space knows.
        let may_move =
            |address: &IpAddr| homes.get(address).is_some_and(|its| its.home.sharing != Sharing::Home);
        let answered = view.answer_for.iter().filter(|address| address.is_ipv4() && !may_move(address));
        for address in answered {
            add_address(&mut content, *address, address_flag::ANSWER_ARP);
        }
        content
    }

    fn add_nodes(
        &mut self,
        content: &mut Content,
        view: &View<'_>,
        next_hop: impl Fn(IpAddr) -> Option<NextHop>,
    ) {
        // Entries of nodes that nobody knows any more stay: their connections are over.
        for (node, number) in self.numbers.iter() {
            content.nodes.insert(number, Node { id: node.0, flags: node_flag::OVER, ..Node::default() });
        }
        let this = Node {
            id: view.node.0,
            address: content.settings.address,
            flags: node_flag::KNOWN | node_flag::ALIVE,
            mtu: view.mtu,
            ..Node::default()
        };
        content.nodes.insert(SELF, this);
        content.node_by_address.insert(this.address, u32::from(SELF));
        for peer in &view.peers {
            let is_of_our_version = Version::of(peer.address) == Version::of(view.address);
            let number = self.numbers.assign(peer.node).filter(|_| is_of_our_version);
            let Some(number) = number else {
                content.left_out += 1;
                continue;
            };
            let mut node = Node {
                id: peer.node.0,
                address: mapped(peer.address),
                flags: node_flag::KNOWN,
                mtu: peer.mtu,
                ..Node::default()
            };
            if peer.alive {
                node.flags |= node_flag::ALIVE;
            }
            if peer.has_left {
                node.flags |= node_flag::OVER;
            }
            if let Some(next) = next_hop(peer.address) {
                node.flags |= node_flag::REACHABLE;
                (node.link, node.mac, node.source_mac) = (next.link, next.destination.0, next.source.0);
            }
            content.nodes.insert(number, node);
            content.node_by_address.insert(node.address, u32::from(number));
        }
    }

    fn add_services(
        &mut self,
        content: &mut Content,
        view: &View<'_>,
        homes: &Homes<'_>,
        counts: &[NodeCounts],
        host: &Host<'_>,
    ) {
        self.begin_turns(view, counts);
        let mut lists: Vec<&[Candidate]> = Vec::new();
        for service in &view.services {
            let owner = self.numbers.of(service.service.owner.node);
            let (Some(owner), Some(method)) = (owner, method_of(service)) else {
                content.left_out += 1;
                continue;
            };
            if content.services.len() >= SERVICES_MAX {
                content.left_out += 1;
                continue;
            }
            let its = if has_external(service) { &[] } else { service.candidates };
            let position = lists.iter().position(|list| std::ptr::eq(*list, its)).unwrap_or_else(|| {
                lists.push(its);
                lists.len() - 1
            });
            let address = mapped(service.socket.address);
            let key = ServiceKey {
                address,
                port: service.socket.port.to_be_bytes(),
                protocol: service.protocol.number(),
                zero: 0,
            };
            let value = Service {
                delivery: service.delivery.map(mapped).unwrap_or_default(),
                owner,
                candidates: position.min(LISTS_MAX) as u16,
                method: method as u8,
                is_alias: u8::from(service.service.delivery == DeliveryMode::Alias),
                has_delivery: u8::from(service.delivery.is_some()),
                partition: owners::partition_of(service.partition_by) as u8,
                is_begun_above: u8::from(service.is_begun_above),
                port: key.port,
                ..self.owned(homes.get(&service.socket.address).copied(), service.service.owner.tenure, host)
            };
            content.services.insert(key, value);
            if service.delivery.is_some() {
                let mss_max = service.mss_max.filter(|_| service.protocol == Protocol::Tcp);
                let unbounded = Delivery { service: address, mss_max: MSS_UNBOUNDED, zero: 0 };
                let its = content.deliveries.entry(value.delivery).or_insert(unbounded);
                its.mss_max = its.mss_max.min(mss_max.unwrap_or(MSS_UNBOUNDED));
            }
        }
        content.left_out += lists.len().saturating_sub(LISTS_MAX);
        for list in lists.into_iter().take(LISTS_MAX) {
            let list = self.candidates_of(content, list, counts);
            content.candidates.push(list);
        }
    }

    /// Whose packets come translated, and to which ports answers to this node's own come.
    fn add_translators(&self, content: &mut Content, view: &View<'_>) {
        content.nat_ports = view.nat_ports;
        for (address, translator) in &view.translators {
            let Some(number) = self.numbers.of(translator.node) else { continue };
            let value = abi::Translator {
                node: u32::from(number),
                first_port: translator.ports.first(),
                last_port: translator.ports.last(),
            };
            content.translators.insert(mapped(*address), value);
        }
        content.left_out += content.translators.len().saturating_sub(SERVICES_MAX);
    }

    /// Addresses of services that are the programs' own.
    fn add_homes(&self, content: &mut Content, view: &View<'_>, host: &Host<'_>) {
        for its in &view.homes {
            let HomeView { address, home, delivery, .. } = its;
            let Some(owner) = self.numbers.of(home.owner.node) else { continue };
            let address = mapped(*address);
            if !content.services.keys().any(|service| service.address == address) {
                continue;
            }
            if content.addresses.len() + 1 >= SERVICES_MAX {
                content.left_out += 1;
                continue;
            }
            let mut flags = address_flag::SERVICE;
            if home.is_direct(Protocol::Tcp) {
                flags |= address_flag::DIRECT_TCP;
            }
            if home.is_direct(Protocol::Udp) {
                flags |= address_flag::DIRECT_UDP;
            }
            let method = match home.encapsulation {
                Encapsulation::Ipip => Method::Ipip,
                Encapsulation::Gue => Method::Gue,
            };
            let service = Service {
                delivery: delivery.map(mapped).unwrap_or_default(),
                owner,
                candidates: LISTS_MAX as u16,
                method: method as u8,
                is_alias: u8::from(home.delivery == DeliveryMode::Alias),
                has_delivery: u8::from(delivery.is_some()),
                partition: Partition::Addresses as u8,
                ..self.owned(Some(its), home.owner.tenure, host)
            };
            content.addresses.insert(address, Home { flags, service });
        }
    }

    /// Lets turns count anew when the candidates are others than before.
    fn begin_turns(&mut self, view: &View<'_>, counts: &[NodeCounts]) {
        let candidates = view.services.iter().flat_map(|service| service.candidates);
        let mut everybody: Vec<(NodeId, u16)> =
            candidates.map(|candidate| (candidate.node, candidate.weight.0)).collect();
        everybody.sort_unstable();
        everybody.dedup();
        if everybody != self.turns.candidates {
            let turns = |number| counted(counts, number).turns;
            self.turns.settled = self.numbers.iter().map(|(_, number)| (number, turns(number))).collect();
            self.turns.candidates = everybody;
        }
    }

    fn candidates_of(&self, content: &mut Content, list: &[Candidate], counts: &[NodeCounts]) -> Candidates {
        let mut candidates = Candidates::default();
        for candidate in list {
            let place = candidates.list.get_mut(candidates.count as usize);
            let (Some(number), Some(place)) = (self.numbers.of(candidate.node), place) else {
                content.left_out += 1;
                continue;
            };
            let turns_settled = self.turns.settled.get(&number).copied().unwrap_or_default();
            *place = candidate_of(candidate, number, counted(counts, number), turns_settled);
            candidates.count += 1;
        }
        let used = &candidates.list[..(candidates.count as usize).min(CANDIDATES_MAX)];
        let own = used.iter().position(|candidate| candidate.node == SELF);
        candidates.own = own.map_or(candidates.count, |position| position as u32);
        candidates
    }
}

fn counted(counts: &[NodeCounts], number: u16) -> NodeCounts {
    counts.get(usize::from(number)).copied().unwrap_or_default()
}

fn candidate_of(
    candidate: &Candidate,
    number: u16,
    counts: NodeCounts,
    turns_settled: u64,
) -> abi::Candidate {
    abi::Candidate {
        // User space may have given it more than the programs have.
        settled: counts.sent.wrapping_sub(u64::from(candidate.outstanding)),
        turns_settled,
        capacity: candidate.capacity.get(),
        load: candidate.load.0,
        weight: candidate.weight.0,
        node: number,
        zero: [0; 3],
    }
}

fn add_address(content: &mut Content, address: IpAddr, flag: u32) {
    content.addresses.entry(mapped(address)).or_default().flags |= flag;
}
