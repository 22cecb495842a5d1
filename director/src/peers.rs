//! What a director knows about its peers: addresses, loads, and what it sent them.

use crate::candidates::Candidates;
use crate::external::ExternalServer;
use crate::outstanding::Outstanding;
use crate::policy::PolicyKind;
use dpr_model::{
    Candidate, Capacity, FlowKey, ForwardingMethod, Incarnation, LoadPermille, NodeId, NodeState, Peer,
    PortRange, Protocol, ServiceReport, ServiceSocket, Sharing, SourceFilters, Timestamp, Weight,
};
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// This node, as its director needs it to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThisNode {
    /// Joining, active, draining, leaving.
    pub state: NodeState,
    /// Load index of the freshest sample.
    pub load: LoadPermille,
    /// Concurrent connections that fill it.
    pub capacity: Capacity,
    /// The operator's preference.
    pub weight: Weight,
    /// Service sockets that it is home to, and whether their servers answer.
    pub services: Vec<ServiceReport>,
}

/// What a director is told whenever the cluster or its own load changed; replaces the previous one as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// This node.
    pub this: ThisNode,
    /// Every known peer in order of id, also those that may not be chosen: their tunnels still arrive.
    pub peers: Vec<Peer>,
    /// Servers without `dpr` behind this node's services.
    pub external: Vec<ExternalServer>,
    /// True while most peers look bad: nothing new is moved.
    pub frozen: bool,
    /// How a new connection finds its real server.
    pub policy: PolicyKind,
    /// Below this load index the node keeps its own connections; 0 switches the rule off.
    pub maxload: LoadPermille,
}

/// Connections given to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentTo {
    /// The peer.
    pub node: NodeId,
    /// Connections, cumulative.
    pub connections: u64,
    /// Of those, on their way: not in its reports yet.
    pub outstanding: u32,
}

/// Peers by id and by address, servers without `dpr`, and the candidates for each service.
#[derive(Debug)]
pub(crate) struct Peers {
    this: NodeId,
    facts_by_node: HashMap<NodeId, PeerFacts>,
    node_by_address: HashMap<IpAddr, NodeId>,
    account_by_node: BTreeMap<NodeId, Outstanding>,
    candidates: Candidates,
    external_by_id: BTreeMap<NodeId, ExternalFacts>,
    /// Services of this node that have servers without `dpr`, healthy or not.
    services_with_external: BTreeSet<(Protocol, ServiceSocket)>,
    /// Where a peer's own server listens, for full NAT: by peer, protocol, whether it is IPv6, and port.
    socket_by_server: HashMap<(NodeId, Protocol, bool, u16), SocketAddr>,
    /// Services behind which a server is that answers clients through this node, by the server's socket.
    half_nat_service_by_server: HashMap<(Protocol, SocketAddr), ServiceSocket>,
    some_peer_translates: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerFacts {
    pub(crate) address: IpAddr,
    pub(crate) alive: bool,
    /// Not alive because it took leave.
    pub(crate) has_left: bool,
    incarnation: Incarnation,
    nat_ports: Option<PortRange>,
    pub(crate) mtu: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
struct ExternalFacts {
    socket: SocketAddr,
    healthy: bool,
}

impl Peers {
    pub(crate) fn new(this: NodeId) -> Self {
        Self {
            this,
            facts_by_node: HashMap::new(),
            node_by_address: HashMap::new(),
            account_by_node: BTreeMap::new(),
            candidates: Candidates::default(),
            external_by_id: BTreeMap::new(),
            services_with_external: BTreeSet::new(),
            socket_by_server: HashMap::new(),
            half_nat_service_by_server: HashMap::new(),
            some_peer_translates: false,
        }
    }

    /// Replaces everything but the accounts, which are brought up to date. Peers whose node address is of another IP version
    /// than this node's are left out: no tunnel has ends of two versions. `active_at` says how many connections a server has.
    pub(crate) fn update(
        &mut self,
        own: Candidate,
        update: &Update,
        active_at: impl Fn(NodeId) -> u32,
        now: Timestamp,
    ) {
        self.facts_by_node.clear();
        self.node_by_address.clear();
        self.candidates.clear();
        self.socket_by_server.clear();
        if update.this.state == NodeState::Active {
            self.candidates.add(own, &update.this.services, SourceFilters::default());
        }
        self.some_peer_translates = update.peers.iter().any(|peer| peer.nat_ports.is_some());
        let may_translate = |service: &ServiceReport| service.method == ForwardingMethod::Nat;
        let services_of_peers = || update.peers.iter().flat_map(|peer| &peer.services[..]);
        // Also for those that it may stand in for.
        let translates = update.this.services.iter().any(may_translate)
            || services_of_peers()
                .any(|service| may_translate(service) && service.sharing == Sharing::Takeover);
        if translates {
            self.remember_sockets(self.this, own.address, &update.this.services);
        }
        let mut with_account = 0;
        for peer in
            update.peers.iter().filter(|peer| peer.candidate.address.is_ipv4() == own.address.is_ipv4())
        {
            let node = peer.candidate.node;
            self.facts_by_node.insert(node, PeerFacts::of(peer));
            self.node_by_address.insert(peer.candidate.address, node);
            let account = self.account_by_node.entry(node).or_default();
            with_account += 1;
            account.set_interval(peer.report_interval, now);
            account.record_acknowledged(peer.incarnation, peer.acknowledged.unwrap_or(0), now);
            let outstanding = account.count();
            if peer.alive && peer.state == NodeState::Active {
                let candidate = Candidate { outstanding, ..peer.candidate };
                self.candidates.add(candidate, &peer.services, peer.source_filters);
            }
            if translates {
                self.remember_sockets(node, peer.candidate.address, &peer.services);
            }
        }
        // Otherwise nobody is gone, as every time but for a few.
        if self.account_by_node.len() > with_account {
            let is_known =
                |node: &NodeId| update.peers.binary_search_by_key(node, |peer| peer.candidate.node).is_ok();
            self.account_by_node.retain(|node, _| is_known(node));
        }
        self.update_external(update);
        self.candidates.finish(self.this, update, active_at);
    }

    fn remember_sockets(&mut self, node: NodeId, node_address: IpAddr, services: &[ServiceReport]) {
        for ServiceReport { protocol, socket, sharing, .. } in services {
            // What all nodes have leads to none of them in particular.
            let is_shared = matches!(sharing, Sharing::Shared(_));
            let address = if is_shared { node_address } else { socket.address };
            if address.is_ipv4() == socket.address.is_ipv4() {
                let key = (node, *protocol, socket.address.is_ipv6(), socket.port);
                self.socket_by_server.entry(key).or_insert(SocketAddr::new(address, socket.port));
            }
        }
    }

    fn update_external(&mut self, update: &Update) {
        self.external_by_id.clear();
        self.services_with_external.clear();
        self.half_nat_service_by_server.clear();
        let is_half_nat = |server: &ExternalServer| {
            let own = |own: &&ServiceReport| (own.protocol, own.socket) == (server.protocol, server.service);
            update.this.services.iter().find(own).is_some_and(|own| own.method == ForwardingMethod::HalfNat)
        };
        for server in &update.external {
            let facts = ExternalFacts { socket: server.socket, healthy: server.healthy };
            self.external_by_id.entry(server.id()).or_insert(facts);
            self.services_with_external.insert((server.protocol, server.service));
            if is_half_nat(server) {
                self.half_nat_service_by_server.insert((server.protocol, server.socket), server.service);
            }
        }
    }

    /// Nodes that may own a new connection, this one included if it may, in order of id.
    pub(crate) fn candidates(&self, flow: &FlowKey) -> &[Candidate] {
        self.candidates.of(flow.protocol, &flow.service)
    }

    /// New connections go to `node`, which may be this one: they count as load from now on.
    pub(crate) fn record_sent(&mut self, node: NodeId, connections: u32, now: Timestamp) {
        if node != self.this && !node.is_external() {
            self.account_by_node.entry(node).or_default().record_sent(connections, now);
        }
        self.candidates.record_sent(node, connections);
    }

    /// Where tunnels to `node` end.
    pub(crate) fn address_of(&self, node: NodeId) -> Option<IpAddr> {
        self.facts_by_node.get(&node).map(|facts| facts.address)
    }

    /// Where tunnels to `node` end, and the largest IP packet that the way to it was seen to carry.
    #[inline]
    pub(crate) fn way_to(&self, node: NodeId) -> Option<(IpAddr, Option<u16>)> {
        self.facts_by_node.get(&node).map(|facts| (facts.address, facts.mtu))
    }

    /// Every peer that was heard of, as [`Self::way_to`] has it; in no order.
    pub(crate) fn ways(&self) -> impl ExactSizeIterator<Item = (NodeId, IpAddr, Option<u16>)> {
        self.facts_by_node.iter().map(|(node, facts)| (*node, facts.address, facts.mtu))
    }

    /// The peer at a node address.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<NodeId> {
        self.node_by_address.get(&address).copied()
    }

    /// True when `port` is one from which `node` sends what it has translated.
    pub(crate) fn translates_from(&self, node: NodeId, port: u16) -> bool {
        self.ports_of(node).is_some_and(|ports| ports.contains(port))
    }

    /// The ports from which a peer sends what it has translated.
    pub(crate) fn ports_of(&self, node: NodeId) -> Option<PortRange> {
        self.facts_by_node.get(&node).and_then(|facts| facts.nat_ports)
    }

    /// True for a service with servers without `dpr`, healthy or not.
    pub(crate) fn has_external(&self, protocol: Protocol, service: ServiceSocket) -> bool {
        self.services_with_external.contains(&(protocol, service))
    }

    /// True when servers may answer clients through this node.
    pub(crate) fn has_half_nat(&self) -> bool {
        !self.half_nat_service_by_server.is_empty()
    }

    /// True when translated packets may come at all: most clusters need not look.
    pub(crate) fn some_peer_translates(&self) -> bool {
        self.some_peer_translates
    }

    /// Where translated packets of a flow go: the socket of a server without `dpr`, or of the peer's own server of the same
    /// protocol, IP version and port.
    pub(crate) fn socket_of(&self, server: NodeId, flow: &FlowKey) -> Option<SocketAddr> {
        if server.is_external() {
            return self.external_by_id.get(&server).map(|facts| facts.socket);
        }
        let key = (server, flow.protocol, flow.service.address.is_ipv6(), flow.service.port);
        self.socket_by_server.get(&key).copied()
    }

    /// The service whose clients `server` answers through this node, if it does.
    pub(crate) fn half_nat_service_of(
        &self,
        protocol: Protocol,
        server: SocketAddr,
    ) -> Option<ServiceSocket> {
        self.half_nat_service_by_server.get(&(protocol, server)).copied()
    }

    /// Servers without `dpr`.
    pub(crate) fn external(&self) -> impl Iterator<Item = NodeId> {
        self.external_by_id.keys().copied()
    }

    pub(crate) fn incarnation_of(&self, node: NodeId) -> Option<Incarnation> {
        self.facts_by_node.get(&node).map(|facts| facts.incarnation)
    }

    /// True for a node that was heard of.
    pub(crate) fn is_known(&self, node: NodeId) -> bool {
        self.facts_by_node.contains_key(&node)
    }

    /// True while the reports of `node` come, or while the server without `dpr` answers.
    pub(crate) fn is_alive(&self, node: NodeId) -> bool {
        if node.is_external() {
            return self.external_by_id.get(&node).is_some_and(|facts| facts.healthy);
        }
        self.facts_by_node.get(&node).is_some_and(|facts| facts.alive)
    }

    /// Every known peer, in order of id.
    pub(crate) fn known(&self) -> Vec<(NodeId, PeerFacts)> {
        let mut known: Vec<_> = self.facts_by_node.iter().map(|(node, facts)| (*node, *facts)).collect();
        known.sort_unstable_by_key(|(node, _)| *node);
        known
    }

    /// Nodes that may own a new connection to a service, in order of id.
    pub(crate) fn candidates_for(&self, protocol: Protocol, service: &ServiceSocket) -> &[Candidate] {
        self.candidates.of(protocol, service)
    }

    /// What was sent to whom, in order of id.
    pub(crate) fn sent(&self) -> Vec<SentTo> {
        self.account_by_node
            .iter()
            .map(|(node, account)| SentTo {
                node: *node,
                connections: account.sent(),
                outstanding: account.count(),
            })
            .collect()
    }
}

impl PeerFacts {
    fn of(peer: &Peer) -> Self {
        Self {
            address: peer.candidate.address,
            alive: peer.alive,
            has_left: !peer.alive && peer.state == NodeState::Leaving,
            incarnation: peer.incarnation,
            nat_ports: peer.nat_ports,
            mtu: peer.mtu,
        }
    }
}
