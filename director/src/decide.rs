//! Who gets a new connection.

use crate::director::Director;
use dpr_model::{Candidate, FlowKey, NodeId, Timestamp};
use std::net::IpAddr;

impl Director {
    /// Decides about a new connection as about a SYN of it, and counts it as sent; leaves no entry.
    ///
    /// For models in which there are connections and no packets. Data planes call [`Self::handle_frame`].
    pub fn place(&mut self, flow: &FlowKey, now: Timestamp) -> NodeId {
        let chosen = match self.policy_kind.is_stateless() {
            true => self.choose(flow).unwrap_or(self.node),
            false => self.decide(flow, now),
        };
        self.record_decision(chosen, now);
        chosen
    }

    /// Counts a new connection that `director` has given to this node, for this node's acknowledgements.
    ///
    /// A tunnelled SYN does this by itself; by hand it is for models, as [`Self::place`].
    pub fn accept(&mut self, director: NodeId, flow: &FlowKey, now: Timestamp) {
        let incarnation = self.peers.incarnation_of(director).unwrap_or_default();
        self.received.record(director, incarnation, 1);
        if self.would_forward(flow) {
            self.counters.loops_stopped += 1;
        }
        self.peers.record_sent(self.node, 1, now);
    }

    /// Who gets a new connection.
    pub(crate) fn decide(&mut self, flow: &FlowKey, now: Timestamp) -> NodeId {
        // What peers said is too old to act on when the daemon is silent; a panic freeze says the same of the cluster.
        if self.frozen || !self.lease.is_valid(now) || self.keeps_its_own(flow) {
            return self.node;
        }
        self.choose(flow).unwrap_or(self.node)
    }

    /// `Maxload`: a director below it, or lightest of all, keeps the connection.
    fn keeps_its_own(&self, flow: &FlowKey) -> bool {
        if self.maxload.0 == 0 {
            return false;
        }
        let candidates = self.peers.candidates(flow);
        let Some(own) = self.own(candidates) else { return false };
        own.estimated_load() < u64::from(self.maxload.0) || !has_lighter(candidates, own)
    }

    /// What the policy says, among nodes that can serve this client.
    pub(crate) fn choose(&mut self, flow: &FlowKey) -> Option<NodeId> {
        let candidates = self.peers.candidates(flow);
        if !self.is_node(flow.client.address) {
            return self.policy.choose(flow, candidates, &mut self.rng).map(|chosen| candidates[chosen].node);
        }
        // A node cannot serve itself through a tunnel: its own address would be the reply's destination.
        let is_other = |candidate: &&Candidate| candidate.address != flow.client.address;
        let others: Vec<Candidate> = candidates.iter().filter(is_other).copied().collect();
        self.policy.choose(flow, &others, &mut self.rng).map(|chosen| others[chosen].node)
    }

    pub(crate) fn record_decision(&mut self, chosen: NodeId, now: Timestamp) {
        self.peers.record_sent(chosen, 1, now);
        if chosen == self.node {
            self.counters.connections_kept += 1;
        } else {
            self.counters.connections_forwarded += 1;
        }
    }

    /// True when this node, were it asked, would have sent the connection on.
    fn would_forward(&self, flow: &FlowKey) -> bool {
        let candidates = self.peers.candidates(flow);
        let own = self.own(candidates);
        let lighter_exists = own.is_none_or(|own| has_lighter(candidates, own));
        candidates.len() > usize::from(own.is_some()) && lighter_exists && !self.keeps_its_own(flow)
    }

    /// This node among candidates, which are in order of id.
    fn own<'a>(&self, candidates: &'a [Candidate]) -> Option<&'a Candidate> {
        let position = candidates.binary_search_by_key(&self.node, |candidate| candidate.node).ok()?;
        candidates.get(position)
    }

    /// True for the node addresses of the cluster.
    fn is_node(&self, address: IpAddr) -> bool {
        address == self.address || self.peers.node_at(address).is_some()
    }
}

fn has_lighter(candidates: &[Candidate], than: &Candidate) -> bool {
    let score = than.score();
    candidates.iter().any(|candidate| candidate.score() < score)
}
