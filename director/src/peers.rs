//! What a director knows about its peers: addresses, loads, and what it sent them.

use crate::external::ExternalServer;
use crate::outstanding::Outstanding;
use crate::policy::PolicyKind;
use dpr_model::{
    Candidate, Capacity, Incarnation, LoadPermille, NodeId, NodeState, PortRange, Protocol, ServiceReport,
    Timestamp, Weight,
};
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::net::IpAddr;

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

/// A peer, as a director needs it to decide and to recognise its tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Identity, node address, load; `outstanding` is the director's to fill in.
    pub candidate: Candidate,
    /// Joining, active, draining, leaving.
    pub state: NodeState,
    /// Whether its reports still come.
    pub alive: bool,
    /// Its life; counters start anew with each.
    pub incarnation: Incarnation,
    /// How many of this director's connections its reports say it received, in this life of this director.
    pub acknowledged: Option<u64>,
    /// Service sockets that it is home to, and whether their servers answer.
    pub services: Vec<ServiceReport>,
    /// Ports that it uses for full NAT, as its reports say.
    pub nat_ports: Option<PortRange>,
    /// Largest IP packet that the way to it was seen to carry, bytes; `None` when only the link's MTU is known.
    pub mtu: Option<u16>,
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

/// Peers by id and by address, and the candidates for each service port.
#[derive(Debug)]
pub(crate) struct Peers {
    this: NodeId,
    facts_by_node: HashMap<NodeId, PeerFacts>,
    node_by_address: HashMap<IpAddr, NodeId>,
    account_by_node: BTreeMap<NodeId, Outstanding>,
    candidates_by_port: HashMap<(Protocol, u16), Vec<Candidate>>,
}

#[derive(Clone, Copy, Debug)]
struct PeerFacts {
    address: IpAddr,
    alive: bool,
    incarnation: Incarnation,
}

impl Peers {
    pub(crate) fn new(this: NodeId) -> Self {
        Self {
            this,
            facts_by_node: HashMap::new(),
            node_by_address: HashMap::new(),
            account_by_node: BTreeMap::new(),
            candidates_by_port: HashMap::new(),
        }
    }

    /// Replaces everything but the accounts, which are brought up to date. IPv6 node addresses are not usable yet
    /// and are left out.
    pub(crate) fn update(&mut self, own: Candidate, update: &Update, now: Timestamp) {
        self.facts_by_node.clear();
        self.node_by_address.clear();
        self.candidates_by_port.clear();
        let is_known =
            |node: &NodeId| update.peers.binary_search_by_key(node, |peer| peer.candidate.node).is_ok();
        self.account_by_node.retain(|node, _| is_known(node));
        if update.this.state == NodeState::Active {
            self.add_candidate(own, &update.this.services);
        }
        for peer in &update.peers {
            let address @ IpAddr::V4(_) = peer.candidate.address else { continue };
            let node = peer.candidate.node;
            let facts = PeerFacts { address, alive: peer.alive, incarnation: peer.incarnation };
            self.facts_by_node.insert(node, facts);
            self.node_by_address.insert(address, node);
            let account = self.account_by_node.entry(node).or_default();
            account.record_acknowledged(peer.incarnation, peer.acknowledged.unwrap_or(0), now);
            let outstanding = account.count();
            if peer.alive && peer.state == NodeState::Active {
                self.add_candidate(Candidate { outstanding, ..peer.candidate }, &peer.services);
            }
        }
        for candidates in self.candidates_by_port.values_mut() {
            candidates.sort_unstable_by_key(|candidate| candidate.node);
        }
    }

    /// A node is a candidate for every port that one of its own healthy servers listens on.
    fn add_candidate(&mut self, candidate: Candidate, services: &[ServiceReport]) {
        for service in services.iter().filter(|service| service.healthy) {
            let candidates =
                self.candidates_by_port.entry((service.protocol, service.socket.port)).or_default();
            if candidates.last().is_none_or(|last| last.node != candidate.node) {
                candidates.push(candidate);
            }
        }
    }

    /// Nodes that may own a new connection to `port`, this one included if it may, in order of id.
    pub(crate) fn candidates(&self, protocol: Protocol, port: u16) -> &[Candidate] {
        self.candidates_by_port.get(&(protocol, port)).map_or(&[], Vec::as_slice)
    }

    /// A new connection goes to `node`, which may be this one: it counts as load from now on.
    pub(crate) fn record_sent(&mut self, node: NodeId, now: Timestamp) {
        if node != self.this {
            self.account_by_node.entry(node).or_default().record_sent(now);
        }
        for candidates in self.candidates_by_port.values_mut() {
            if let Ok(position) = candidates.binary_search_by_key(&node, |candidate| candidate.node) {
                candidates[position].outstanding = candidates[position].outstanding.saturating_add(1);
            }
        }
    }

    /// Where tunnels to `node` end.
    pub(crate) fn address_of(&self, node: NodeId) -> Option<IpAddr> {
        self.facts_by_node.get(&node).map(|facts| facts.address)
    }

    /// The peer at a node address.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<NodeId> {
        self.node_by_address.get(&address).copied()
    }

    pub(crate) fn incarnation_of(&self, node: NodeId) -> Option<Incarnation> {
        self.facts_by_node.get(&node).map(|facts| facts.incarnation)
    }

    /// True while the reports of `node` come.
    pub(crate) fn is_alive(&self, node: NodeId) -> bool {
        self.facts_by_node.get(&node).is_some_and(|facts| facts.alive)
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
