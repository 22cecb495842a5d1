//! Who may get a new connection to which service.

use crate::external::ExternalServer;
use crate::peers::Update;
use dpr_model::{
    Candidate, ForwardingMethod, LoadPermille, NodeId, Protocol, ServiceReport, ServiceSocket, SourceFilters,
};
use hashbrown::HashMap;

/// Services that any node with a server of the same kind can serve: protocol, whether it is IPv6, port.
type Kind = (Protocol, bool, u16);

/// Candidates by service, in order of id.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    by_kind: HashMap<Kind, Vec<Candidate>>,
    /// Services of this node with candidates of their own: those with external servers, and those whose method reaches
    /// no peers, or not the same as others.
    by_service: HashMap<(Protocol, ServiceSocket), Vec<Candidate>>,
    /// Nodes whose direct replies the network drops: servers for translated connections only.
    by_kind_through_the_director: HashMap<Kind, Vec<Candidate>>,
    /// Nodes that clients' packets reach in tunnels only.
    tunnels_only: Vec<NodeId>,
}

impl Candidates {
    /// Forgets all candidates. They come again several times a second: the memory of the large lists stays.
    pub(crate) fn clear(&mut self) {
        self.by_kind.values_mut().for_each(Vec::clear);
        self.by_service.clear();
        self.by_kind_through_the_director.clear();
        self.tunnels_only.clear();
    }

    /// A node is a candidate for every port that one of its own healthy servers listens on, for the same IP version.
    /// `filters` were seen in the IP version of node addresses, and say nothing about the other one.
    pub(crate) fn add(&mut self, candidate: Candidate, services: &[ServiceReport], filters: SourceFilters) {
        if filters.to_peer {
            self.tunnels_only.push(candidate.node);
        }
        for service in services.iter().filter(|service| service.healthy) {
            let is_seen = service.socket.address.is_ipv4() == candidate.address.is_ipv4();
            let by_kind = match filters.from_peer && is_seen {
                false => &mut self.by_kind,
                true => &mut self.by_kind_through_the_director,
            };
            let candidates = by_kind.entry(kind_of(service.protocol, &service.socket)).or_default();
            if candidates.last().is_none_or(|last| last.node != candidate.node) {
                candidates.push(candidate);
            }
        }
    }

    /// To be called when all nodes were added, `own` first; `active_at` says how many connections a server has.
    pub(crate) fn finish(&mut self, own: NodeId, update: &Update, active_at: impl Fn(NodeId) -> u32) {
        self.by_kind.retain(|_, candidates| !candidates.is_empty());
        for candidates in self.by_kind.values_mut() {
            candidates.sort_unstable_by_key(|candidate| candidate.node);
        }
        for service in &update.this.services {
            let is_behind = |server: &&ExternalServer| {
                server.healthy && (server.protocol, server.service) == (service.protocol, service.socket)
            };
            let mut external = update.external.iter().filter(is_behind).peekable();
            let filtered = self.filtered(service);
            if external.peek().is_none() && service.method != ForwardingMethod::HalfNat && filtered.is_none()
            {
                continue;
            }
            let kind = kind_of(service.protocol, &service.socket);
            let nodes = self.by_kind.get(&kind).map(Vec::as_slice).into_iter().chain(filtered).flatten();
            let is_reached = |candidate: &&Candidate| match service.method {
                ForwardingMethod::HalfNat => candidate.node == own,
                ForwardingMethod::Dr => !self.tunnels_only.contains(&candidate.node),
                ForwardingMethod::Ipip | ForwardingMethod::Gue | ForwardingMethod::Nat => true,
            };
            let mut candidates: Vec<Candidate> = nodes.filter(is_reached).copied().collect();
            candidates.extend(external.map(|server| candidate_of(server, active_at(server.id()))));
            candidates.sort_unstable_by_key(|candidate| candidate.node);
            candidates.dedup_by_key(|candidate| candidate.node);
            self.by_service.insert((service.protocol, service.socket), candidates);
        }
    }

    /// What filters on the way change for a service, if anything: nodes that it has beside those of its kind.
    fn filtered(&self, service: &ServiceReport) -> Option<&[Candidate]> {
        match service.method {
            ForwardingMethod::Nat => {
                let kind = kind_of(service.protocol, &service.socket);
                self.by_kind_through_the_director.get(&kind).map(Vec::as_slice)
            }
            ForwardingMethod::Dr => (!self.tunnels_only.is_empty()).then_some(&[]),
            ForwardingMethod::Ipip | ForwardingMethod::Gue | ForwardingMethod::HalfNat => None,
        }
    }

    /// Who may get a new connection to a service, this node included if it may, in order of id.
    pub(crate) fn of(&self, protocol: Protocol, service: &ServiceSocket) -> &[Candidate] {
        let own = match self.by_service.is_empty() {
            true => None,
            false => self.by_service.get(&(protocol, *service)),
        };
        own.or_else(|| self.by_kind.get(&kind_of(protocol, service))).map_or(&[], Vec::as_slice)
    }

    /// Connections that go to `node` count as its load from now on.
    pub(crate) fn record_sent(&mut self, node: NodeId, connections: u32) {
        for candidates in self.by_kind.values_mut().chain(self.by_service.values_mut()) {
            if let Ok(position) = candidates.binary_search_by_key(&node, |candidate| candidate.node) {
                candidates[position].outstanding =
                    candidates[position].outstanding.saturating_add(connections);
            }
        }
    }
}

fn kind_of(protocol: Protocol, socket: &ServiceSocket) -> Kind {
    (protocol, socket.address.is_ipv6(), socket.port)
}

fn candidate_of(server: &ExternalServer, active: u32) -> Candidate {
    Candidate {
        node: server.id(),
        address: server.socket.ip(),
        load: LoadPermille::of(active.into(), server.capacity.get().into()),
        capacity: server.capacity,
        weight: server.weight,
        outstanding: 0,
    }
}
