//! From what a director knows to what the kernel has to hold, and from what the kernel counted to what a director has to
//! hear.

use crate::abi::{
    self, Address, AddressV4, CANDIDATES_MAX, Candidates, Delivery, Home, LISTS_MAX, MSS_UNBOUNDED, Method,
    Node, NodeCounts, Policy, Router, SELF, SERVICES_MAX, Service, ServiceKey, Settings, TICK_SHIFT,
    address_flag, mapped, node_flag,
};
use crate::content::{Content, NextHop};
use crate::numbers::Numbers;
use dpr_conntrack::Timeouts;
use dpr_director::{DeliveryRange, Director, HomeView, PolicyKind, ServiceView, Tenure, View};
use dpr_model::{
    Candidate, DeliveryMode, Encapsulation, ForwardingMethod, MacAddress, NodeId, Protocol, Sharing,
    Timestamp,
};
use dpr_rewrite::Version;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// What the host says, and a director does not know.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// MAC address of the interface that packets come in on.
    pub mac: MacAddress,
    /// Next hops of the default routes on that interface as far as they are known: of IPv4, and of IPv6.
    pub routers: [Option<MacAddress>; 2],
    /// Patience of the table.
    pub timeouts: Timeouts,
    /// Now on the boot-time clock, which leases are measured by, nanoseconds.
    pub boot_time_ns: u64,
    /// Seed of the flow hash, by which packets in tunnels spread over paths. Random, and the same while maps live.
    pub flow_seed: u32,
}

/// Keeps numbers of nodes, and what was counted before.
#[derive(Clone, Debug)]
pub struct Mirror {
    numbers: Numbers,
    /// What a director has heard of so far.
    heard: BTreeMap<u16, NodeCounts>,
    turns: Turns,
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
        Self { numbers: Numbers::new(this), heard: BTreeMap::new(), turns: Turns::default() }
    }

    /// Goes on where an earlier life of the daemon ended: with the numbers that `nodes` had, and with `counts`, by number, as
    /// heard. False when the nodes are not this node's.
    pub fn restore(&mut self, nodes: &BTreeMap<u16, Node>, counts: &[NodeCounts]) -> bool {
        let is_ours = nodes.iter().all(|(number, node)| self.numbers.restore(NodeId(node.id), *number));
        self.heard = (0..).zip(counts.iter().copied()).collect();
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
        host: &Host,
        next_hop: impl Fn(IpAddr) -> Option<NextHop>,
    ) -> Content {
        let mut content = Content { settings: settings_of(view, host), ..Content::default() };
        self.add_nodes(&mut content, view, next_hop);
        self.add_services(&mut content, view, counts);
        self.add_homes(&mut content, view);
        add_address(&mut content, view.address, address_flag::NODE);
        for address in view.answer_for.iter().filter(|address| address.is_ipv4()) {
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

    fn add_services(&mut self, content: &mut Content, view: &View<'_>, counts: &[NodeCounts]) {
        self.begin_turns(view, counts);
        content.left_out += view.further_ranges;
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
            let its = service.candidates;
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
                leased: u8::from(service.is_leased()),
                method: method as u8,
                is_alias: u8::from(service.service.delivery == DeliveryMode::Alias),
                has_delivery: u8::from(service.delivery.is_some()),
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

    /// Addresses of services that are the programs' own.
    fn add_homes(&self, content: &mut Content, view: &View<'_>) {
        for HomeView { address, home, delivery } in &view.homes {
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
                leased: u8::from(home.owner.tenure == Tenure::Leased),
                method: method as u8,
                is_alias: u8::from(home.delivery == DeliveryMode::Alias),
                has_delivery: u8::from(delivery.is_some()),
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

/// How the programs forward a service's packets; `None` when they cannot.
fn method_of(service: &ServiceView<'_>) -> Option<Method> {
    let has_external = service.candidates.iter().any(|candidate| candidate.node.is_external());
    if has_external || service.service.is_persistent || service.service.sharing != Sharing::Home {
        return None;
    }
    match service.service.method {
        ForwardingMethod::Ipip => Some(Method::Ipip),
        ForwardingMethod::Gue => Some(Method::Gue),
        ForwardingMethod::Dr => Some(Method::Dr),
        ForwardingMethod::Nat | ForwardingMethod::HalfNat => None,
    }
}

fn counted(counts: &[NodeCounts], number: u16) -> NodeCounts {
    counts.get(usize::from(number)).copied().unwrap_or_default()
}

fn settings_of(view: &View<'_>, host: &Host) -> Settings {
    let lease_ns = u64::try_from(view.lease.as_nanos()).unwrap_or(0);
    let timeouts = &host.timeouts;
    let patience = [timeouts.syn, timeouts.established, timeouts.fin, timeouts.close, timeouts.close];
    let (network, mask) = range_of(view.delivery_ranges.of(Version::V4));
    let (delivery_network_v6, delivery_mask_v6) = range_of(view.delivery_ranges.of(Version::V6));
    let [router, router_v6] = host.routers.map(router_of);
    Settings {
        lease_until_ns: host.boot_time_ns.saturating_add(lease_ns),
        address: mapped(view.address),
        delivery_network: last_word(network),
        delivery_mask: last_word(mask),
        delivery_network_v6,
        delivery_mask_v6,
        timeout: patience.map(ticks),
        maxload: view.maxload.0,
        mac: host.mac.0,
        policy: policy_of(view.policy) as u8,
        frozen: u8::from(view.frozen),
        bank: 0,
        is_ipv6: u8::from(view.address.is_ipv6()),
        router,
        router_v6,
        timeout_udp: ticks(timeouts.udp),
        flow_seed: host.flow_seed,
        flood_from: 0,
        zero: 0,
    }
}

fn router_of(mac: Option<MacAddress>) -> Router {
    Router { mac: mac.unwrap_or_default().0, is_known: u8::from(mac.is_some()), zero: 0 }
}

fn candidate_of(
    candidate: &Candidate,
    number: u16,
    counts: NodeCounts,
    turns_settled: u64,
) -> abi::Candidate {
    abi::Candidate {
        settled: counts.sent.saturating_sub(u64::from(candidate.outstanding)),
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

/// A network and its mask.
fn range_of(range: DeliveryRange) -> (Address, Address) {
    let prefix_len = u32::from(range.prefix_len()) + if range.network().is_ipv4() { 96 } else { 0 };
    // A prefix of 8 to 126 bits.
    (mapped(range.network()), (u128::MAX << (128 - prefix_len)).to_be_bytes())
}

/// Of an address of IPv4, the address.
fn last_word([.., a, b, c, d]: Address) -> AddressV4 {
    [a, b, c, d]
}

fn policy_of(kind: PolicyKind) -> Policy {
    match kind {
        PolicyKind::LocalEstimates => Policy::LocalEstimates,
        PolicyKind::Lightest => Policy::Lightest,
        PolicyKind::Inverse => Policy::Inverse,
        PolicyKind::RoundRobin => Policy::RoundRobin,
        PolicyKind::Stateless => Policy::Stateless,
    }
}

/// A timeout in ticks; at most half of what a deadline can tell from the past.
fn ticks(timeout: Duration) -> u32 {
    let ticks = timeout.as_nanos() >> TICK_SHIFT;
    u32::try_from(ticks).unwrap_or(u32::MAX).clamp(1, u32::MAX / 4)
}
