//! Who coordinates: one node, named by a quorum, at most one in a term.

use crate::agreement::config::Quorum;
use crate::agreement::peers::Peer;
use crate::agreement::{Agreement, is_voter};
use dpr_model::{MapVersion, NodeId, Timestamp};
use std::cmp::Reverse;

/// Intervals between two attempts of a node to be elected.
const ATTEMPT_INTERVALS: u32 = 3;

impl Agreement {
    /// Whom this node would have as coordinator, of all who are able: who coordinates already; or while an election goes
    /// on the one that this node voted for; or who has the newest map, and of those the first by id.
    pub(super) fn names(&self, now: Timestamp) -> Option<NodeId> {
        let fit = self.peers.able().filter(|(node, peer)| self.is_fit(*node, peer, now));
        let others = fit.map(|(node, Peer { standing, .. })| {
            (standing.coordinating.then_some(standing.term), standing.accepted, node)
        });
        let own = (self.coordinating.then_some(self.term), self.accepted.map.version(), self.own.node);
        let able = others.chain(self.is_able(now).then_some(own));
        let best = able.max_by_key(|(term, version, node)| (*term, *version, Reverse(*node)));
        let (coordinating, _, best) = best?;
        if coordinating.is_some() {
            return Some(best);
        }
        let attempt = self.config.interval * ATTEMPT_INTERVALS;
        let voted =
            self.leader.filter(|(leader, at)| now.since(*at) < attempt && self.may_coordinate(*leader, now));
        Some(voted.map_or(best, |(leader, _)| leader))
    }

    /// True if this node hears enough voters to coordinate, and does not take leave.
    pub(super) fn is_able(&self, now: Timestamp) -> bool {
        let is_eligible = is_voter(&self.accepted.map, self.own.node) || self.config.quorum == Quorum::None;
        is_eligible && !self.leaving && self.have_consent(|peer| peer.promised_until >= now, now)
    }

    fn may_coordinate(&self, node: NodeId, now: Timestamp) -> bool {
        if node == self.own.node {
            return self.is_able(now);
        }
        self.peers.get(node).is_some_and(|peer| self.is_fit(node, peer, now))
    }

    fn is_fit(&self, node: NodeId, peer: &Peer, now: Timestamp) -> bool {
        // Who made the present map has it, although its last statement may be older than that.
        let version = self.accepted.map.version();
        let has_it = |accepted: MapVersion| accepted >= version || version.coordinator == node.0;
        peer.standing.able && peer.promised_until >= now && has_it(peer.standing.accepted)
    }

    /// Votes for a node that stands for election, if it is the one that this node names. Once in a term.
    pub(super) fn consider_vote(&mut self, candidate: NodeId, now: Timestamp) {
        let Some(standing) = self.peers.get(candidate).map(|peer| peer.standing) else { return };
        if standing.term <= self.term
            || standing.vote != Some(candidate)
            || standing.accepted < self.accepted.map.version()
            || self.names(now) != Some(candidate)
        {
            return;
        }
        self.term = standing.term;
        self.vote = Some(candidate);
        self.leader = Some((candidate, now));
        self.persist();
    }

    /// Stands for election if a quorum names this node and has not elected it yet, or if somebody who is heard has voted
    /// in a later election: that one takes no map of an earlier term.
    pub(super) fn stand(&mut self, now: Timestamp) {
        let rested = self.stood_at.is_none_or(|at| now.since(at) >= self.config.interval * ATTEMPT_INTERVALS);
        let later = self.peers.later_term(self.term, now);
        let is_current = later.is_none() && self.is_elected(now);
        if is_current || !rested || !self.is_named(now) {
            return;
        }
        // A peer that is out of its mind can claim the last term of all; behind that there is no election.
        let Some(term) = later.unwrap_or(self.term).checked_add(1) else { return };
        self.term = term;
        self.vote = Some(self.own.node);
        self.leader = Some((self.own.node, now));
        self.stood_at = Some(now);
        self.persist();
    }

    /// True if this node and a quorum that is heard name this node.
    pub(super) fn is_named(&self, now: Timestamp) -> bool {
        let own = Some(self.own.node);
        self.names(now) == own
            && self.have_consent(|peer| peer.standing.names == own && peer.promised_until >= now, now)
    }

    /// True if a quorum has voted for this node in the present term.
    pub(super) fn is_elected(&self, now: Timestamp) -> bool {
        let own = Some(self.own.node);
        self.vote == own
            && self.have_consent(|peer| peer.standing.term == self.term && peer.standing.vote == own, now)
    }
}
