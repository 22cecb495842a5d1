//! Who may get a new connection to which service.

use crate::external::ExternalServer;
use crate::peers::Update;
use dpr_model::{Candidate, ForwardingMethod, LoadPermille, NodeId, Protocol, ServiceReport, ServiceSocket};
use hashbrown::HashMap;

/// Services that any node with a server of the same kind can serve: protocol, whether it is IPv6, port.
type Kind = (Protocol, bool, u16);

/// Candidates by service, in order of id.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    by_kind: HashMap<Kind, Vec<Candidate>>,
    /// Services of this node with candidates of their own: those with external servers, and those whose method reaches
    /// no peers.
    by_service: HashMap<(Protocol, ServiceSocket), Vec<Candidate>>,
}

impl Candidates {
    pub(crate) fn clear(&mut self) {
        self.by_kind.clear();
        self.by_service.clear();
    }

    /// A node is a candidate for every port that one of its own healthy servers listens on, for the same IP version.
    pub(crate) fn add(&mut self, candidate: Candidate, services: &[ServiceReport]) {
        for service in services.iter().filter(|service| service.healthy) {
            let candidates = self.by_kind.entry(kind_of(service.protocol, &service.socket)).or_default();
            if candidates.last().is_none_or(|last| last.node != candidate.node) {
                candidates.push(candidate);
            }
        }
    }

    /// To be called when all nodes were added, `own` first; `active_at` says how many connections a server has.
    pub(crate) fn finish(&mut self, own: NodeId, update: &Update, active_at: impl Fn(NodeId) -> u32) {
        for candidates in self.by_kind.values_mut() {
            candidates.sort_unstable_by_key(|candidate| candidate.node);
        }
        for service in &update.this.services {
            let is_behind = |server: &&ExternalServer| {
                server.healthy && (server.protocol, server.service) == (service.protocol, service.socket)
            };
            let mut external = update.external.iter().filter(is_behind).peekable();
            let is_half_nat = service.method == ForwardingMethod::HalfNat;
            if external.peek().is_none() && !is_half_nat {
                continue;
            }
            let of_kind = self.by_kind.get(&kind_of(service.protocol, &service.socket));
            let nodes = of_kind.map_or(&[][..], Vec::as_slice).iter();
            let mut candidates: Vec<Candidate> =
                nodes.filter(|candidate| !is_half_nat || candidate.node == own).copied().collect();
            candidates.extend(external.map(|server| candidate_of(server, active_at(server.id()))));
            candidates.sort_unstable_by_key(|candidate| candidate.node);
            candidates.dedup_by_key(|candidate| candidate.node);
            self.by_service.insert((service.protocol, service.socket), candidates);
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
