//! What a coordinator does: maps out of who is there.

use crate::agreement::consent::next_voters;
use crate::agreement::message::Message;
use crate::agreement::transfer::EncodedMap;
use crate::agreement::{Action, Agreement, version_after};
use crate::map::{MEMBERS_MAX, MapDraft, Member, ServiceAddress, VOTERS_MAX};
use crate::shares::Director;
use dpr_model::{NodeId, Timestamp};

/// Intervals that a coordinator waits for a map to be settled before it replaces it for no urgent reason.
const PATIENCE_INTERVALS: u32 = 10;

/// A member that may not act for this many of the shortest promises loses its slots: longer than any change of maps
/// or of coordinators takes.
const POWERLESS_PROMISES: u32 = 2;

impl Agreement {
    /// Makes the next map if there is a reason to, and if this node is coordinator.
    pub(super) fn coordinate(&mut self, now: Timestamp) {
        self.coordinating = self.is_elected(now) && self.is_named(now);
        if !self.coordinating {
            return;
        }
        let draft = self.draft(now);
        let present = &self.accepted.map;
        let settled = self.rights.is_settled();
        let same_members = present.members().iter().eq(&draft.members);
        let same_addresses = present.addresses().eq(draft.addresses.iter().copied());
        let new_voters = settled && (draft.voters != present.voters().now || present.is_joint());
        let new_term = present.version().term != self.term;
        if same_members && same_addresses && !new_voters && !new_term {
            return;
        }
        let is_missing = |member: &Member| !draft.members.iter().any(|other| other.node == member.node);
        let urgent = new_term || present.members().iter().any(is_missing);
        let patience = self.config.interval * PATIENCE_INTERVALS;
        let impatient = self.proposed_at.is_none_or(|at| now.since(at) >= patience);
        if settled || urgent || impatient {
            let map = EncodedMap::new(present.next(draft, settled));
            self.publish(map, now);
        }
    }

    fn publish(&mut self, map: EncodedMap, now: Timestamp) {
        self.proposed_at = Some(now);
        let chunks: Vec<_> = map.chunks().map(|chunk| Message::Chunk(chunk).to_bytes()).collect();
        self.accept(map, now);
        self.actions.extend(chunks.into_iter().map(|bytes| Action::Send { to: None, bytes }));
    }

    fn draft(&mut self, now: Timestamp) -> MapDraft {
        let mut members = self.remaining_members(now);
        let joining = self.applicants.iter().filter(|applicant| self.may_join(applicant.director.node, now));
        for applicant in joining {
            if !applicant.leaving && members.iter().all(|member| member.node != applicant.director.node) {
                members.push(Member { node: applicant.director.node, share: applicant.director.worth });
            }
        }
        members.sort_unstable_by_key(|member| member.node);
        members.truncate(MEMBERS_MAX);
        self.update_shares(&mut members, now);
        let nodes: Vec<NodeId> = members.iter().map(|member| member.node).collect();
        let gone = |node| self.is_leaving(node) || self.forgotten.contains(&node);
        let voters = next_voters(&self.accepted.map.voters().now, &nodes, gone, VOTERS_MAX);
        let version = version_after(self.accepted.map.version(), self.term, self.own.node);
        MapDraft { version, members, addresses: self.next_addresses(), voters }
    }

    /// Members who neither took leave nor were forgotten, nor are dead by the word of a quorum, nor powerless by their
    /// own word: a node that is heard and does not hear has no rights, and its slots would have no owner.
    fn remaining_members(&self, now: Timestamp) -> Vec<Member> {
        let stays = |member: &&Member| {
            let node = member.node;
            let is_lost = self.is_agreed_dead(node, now) || self.is_powerless(node, now);
            !self.is_leaving(node) && !self.forgotten.contains(&node) && !is_lost
        };
        self.accepted.map.members().iter().filter(stays).copied().collect()
    }

    fn is_agreed_dead(&self, node: NodeId, now: Timestamp) -> bool {
        self.is_suspected(node, now) && self.have_consent(|peer| peer.suspects.contains(&node), now)
    }

    fn is_powerless(&self, node: NodeId, now: Timestamp) -> bool {
        let patience = self.config.promise_min() * POWERLESS_PROMISES;
        self.peers.get(node).is_some_and(|peer| peer.powerless_for(now) > patience)
    }

    fn may_join(&self, node: NodeId, now: Timestamp) -> bool {
        let is_able_to =
            || self.peers.get(node).is_some_and(|peer| peer.promised_until >= now && peer.standing.entitled);
        node == self.own.node || is_able_to()
    }

    fn is_leaving(&self, node: NodeId) -> bool {
        self.applicants.iter().any(|applicant| applicant.director.node == node && applicant.leaving)
    }

    /// Shares by worth and load; whoever is not reported on keeps its own.
    fn update_shares(&mut self, members: &mut [Member], now: Timestamp) {
        let directors: Vec<Director> = self
            .applicants
            .iter()
            .map(|applicant| applicant.director)
            .filter(|director| members.iter().any(|member| member.node == director.node))
            .collect();
        let shares = self.shares.update(&directors, now);
        for (director, share) in directors.iter().zip(shares) {
            for member in members.iter_mut().filter(|member| member.node == director.node) {
                member.share = share;
            }
        }
    }

    /// Addresses that are reported, and those of nodes that nobody reports on any more: they are in others' hands.
    fn next_addresses(&self) -> Vec<ServiceAddress> {
        let is_reported =
            |node: NodeId| self.applicants.iter().any(|applicant| applicant.director.node == node);
        let orphaned = self.accepted.map.addresses().filter(|service| {
            service.home.is_some_and(|home| !is_reported(home) && !self.forgotten.contains(&home))
        });
        let mut addresses: Vec<ServiceAddress> = self.addresses.iter().copied().chain(orphaned).collect();
        addresses.sort_by_key(|service| service.address);
        addresses.dedup_by_key(|service| service.address);
        addresses
    }
}
