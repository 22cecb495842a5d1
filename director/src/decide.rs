//! Who gets a new connection.

use crate::director::Director;
use dpr_model::{Candidate, FlowKey, NodeId, Timestamp};

impl Director {
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
        let candidates = self.peers.candidates(flow.protocol, flow.service.port);
        let Some(own) = candidates.iter().find(|candidate| candidate.node == self.node) else { return false };
        own.estimated_load() < u64::from(self.maxload.0)
            || candidates.iter().all(|candidate| own.score() <= candidate.score())
    }

    /// What the policy says, among nodes that can serve this client.
    pub(crate) fn choose(&mut self, flow: &FlowKey) -> Option<NodeId> {
        let candidates = self.peers.candidates(flow.protocol, flow.service.port);
        let is_client = |candidate: &Candidate| candidate.address == flow.client.address;
        if !candidates.iter().any(is_client) {
            return self.policy.choose(flow, candidates, &mut self.rng).map(|chosen| candidates[chosen].node);
        }
        // A node cannot serve itself through a tunnel: its own address would be the reply's destination.
        let others: Vec<Candidate> =
            candidates.iter().filter(|candidate| !is_client(candidate)).copied().collect();
        self.policy.choose(flow, &others, &mut self.rng).map(|chosen| others[chosen].node)
    }

    /// True when this node, were it asked, would have sent the connection on.
    pub(crate) fn would_forward(&self, flow: &FlowKey) -> bool {
        let candidates = self.peers.candidates(flow.protocol, flow.service.port);
        let own = candidates.iter().find(|candidate| candidate.node == self.node);
        let lighter_exists =
            own.is_none_or(|own| candidates.iter().any(|candidate| candidate.score() < own.score()));
        candidates.len() > usize::from(own.is_some()) && lighter_exists && !self.keeps_its_own(flow)
    }
}
